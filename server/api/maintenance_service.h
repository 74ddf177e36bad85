// State, hashes, alarms, leadership of one member: etcdserverpb.Maintenance as plain functions.
#pragma once

#include "proto/etcd/rpc.pb.h"
#include "server/api/backups.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

class MaintenanceService {
 public:
  explicit MaintenanceService(Edge* edge);
  void Stop() { backups_.Stop(); }  // Streams of snapshots end.

  void Status(const Call& call, etcdserverpb::StatusRequest request,
              Done<etcdserverpb::StatusResponse> done);
  void Alarm(const Call& call, Received<etcdserverpb::AlarmRequest> request,
             Done<Encoded<etcdserverpb::AlarmResponse>> done);
  void HashKv(const Call& call, etcdserverpb::HashKVRequest request,
              Done<etcdserverpb::HashKVResponse> done);
  // Over the same keys as HashKv: files of two members differ though they hold the same.
  void Hash(const Call& call, etcdserverpb::HashRequest request,
            Done<etcdserverpb::HashResponse> done);
  // Has nothing to do: the store gives space back by itself. Answers at once.
  void Defragment(const Call& call, etcdserverpb::DefragmentRequest request,
                  Done<etcdserverpb::DefragmentResponse> done);
  // A backup of this member's state, whatever it knows of the others; also from a learner. The
  // bytes are ours (storage/backup.h), their framing and the sum at their end are etcd's.
  void Snapshot(const Call& call, etcdserverpb::SnapshotRequest request,
                Writer<etcdserverpb::SnapshotResponse>* writer);
  // On the leader only. Answers once the other one leads.
  void MoveLeader(const Call& call, etcdserverpb::MoveLeaderRequest request,
                  Done<etcdserverpb::MoveLeaderResponse> done);
  // A downgrade is checked and remembered as etcd does; it changes nothing else here.
  void Downgrade(const Call& call, Received<etcdserverpb::DowngradeRequest> request,
                 Done<Encoded<etcdserverpb::DowngradeResponse>> done);

 private:
  void ListAlarms(const Call& call, int32_t type, Done<Encoded<etcdserverpb::AlarmResponse>> done);
  // Runs `hash` where it may read the whole store.
  template <typename Response, typename Compute>
  void HashLater(const Call& call, Compute compute, Done<Response> done);

  Edge* const edge_;
  Backups backups_;
};

}  // namespace kv::api

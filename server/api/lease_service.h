// Leases: etcdserverpb.Lease as plain functions.
//
// Grant and revoke are commands of the log. How long a lease still lives only the leader knows:
// LeaseKeeper asks it.
#pragma once

#include <cstdint>

#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

class LeaseService {
 public:
  explicit LeaseService(Edge* edge);

  void Grant(const Call& call, const etcdserverpb::LeaseGrantRequest& request,
             Done<Encoded<etcdserverpb::LeaseGrantResponse>> done);
  void Revoke(const Call& call, Received<etcdserverpb::LeaseRevokeRequest> request,
              Done<Encoded<etcdserverpb::LeaseRevokeResponse>> done);
  // One request after the other, until the client has no more.
  void KeepAlive(const Call& call, Reader<etcdserverpb::LeaseKeepAliveRequest>* reader,
                 Writer<etcdserverpb::LeaseKeepAliveResponse>* writer);
  void TimeToLive(const Call& call, const etcdserverpb::LeaseTimeToLiveRequest& request,
                  Done<Encoded<etcdserverpb::LeaseTimeToLiveResponse>> done);
  void Leases(const Call& call, Done<Encoded<etcdserverpb::LeaseLeasesResponse>> done);

 private:
  void AwaitMachine(Call call, etcdserverpb::LeaseGrantRequest request,
                    Done<Encoded<etcdserverpb::LeaseGrantResponse>> done);
  void GrantAny(Call call, etcdserverpb::LeaseGrantRequest request,
                Done<Encoded<etcdserverpb::LeaseGrantResponse>> done);

  Edge* const edge_;
  const int64_t ttl_min_;
};

}  // namespace kv::api

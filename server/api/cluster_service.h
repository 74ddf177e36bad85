// Who belongs to the cluster: etcdserverpb.Cluster as plain functions.
#pragma once

#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

// Changes go to the leader from whichever member is asked, pass through joint consensus, and are
// answered once they are complete.
class ClusterService {
 public:
  explicit ClusterService(Edge* edge) : edge_(edge) {}

  void MemberList(const Call& call, etcdserverpb::MemberListRequest request,
                  Done<etcdserverpb::MemberListResponse> done);
  void MemberAdd(const Call& call, etcdserverpb::MemberAddRequest request,
                 Done<etcdserverpb::MemberAddResponse> done);
  void MemberRemove(const Call& call, etcdserverpb::MemberRemoveRequest request,
                    Done<etcdserverpb::MemberRemoveResponse> done);
  void MemberUpdate(const Call& call, etcdserverpb::MemberUpdateRequest request,
                    Done<etcdserverpb::MemberUpdateResponse> done);
  void MemberPromote(const Call& call, etcdserverpb::MemberPromoteRequest request,
                     Done<etcdserverpb::MemberPromoteResponse> done);

 private:
  Edge* const edge_;
};

}  // namespace kv::api

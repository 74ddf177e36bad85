// Who belongs to the cluster: etcdserverpb.Cluster as plain functions.
#pragma once

#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

class ClusterService {
 public:
  explicit ClusterService(Edge* edge) : edge_(edge) {}

  void MemberList(const Call& call, etcdserverpb::MemberListRequest request,
                  Done<etcdserverpb::MemberListResponse> done);

 private:
  Edge* const edge_;
};

}  // namespace kv::api

// State, hashes and alarms of one member: etcdserverpb.Maintenance as plain functions.
#pragma once

#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

class MaintenanceService {
 public:
  explicit MaintenanceService(Edge* edge) : edge_(edge) {}

  void Status(const Call& call, etcdserverpb::StatusRequest request,
              Done<etcdserverpb::StatusResponse> done);
  // There are no alarms yet: none is listed, none needs to be disarmed, none can be raised.
  void Alarm(const Call& call, etcdserverpb::AlarmRequest request,
             Done<etcdserverpb::AlarmResponse> done);
  void HashKv(const Call& call, etcdserverpb::HashKVRequest request,
              Done<etcdserverpb::HashKVResponse> done);

 private:
  Edge* const edge_;
};

}  // namespace kv::api

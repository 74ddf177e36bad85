// A whole member in this process, without peers: Replica and KvMachine on a directory of their own,
// the services on a port of 127.0.0.1, and a channel to it.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <string>

#include "proto/etcd/rpc.grpc.pb.h"
#include "server/api/metrics.h"
#include "server/api/services.h"
#include "server/kv/kv_machine.h"
#include "server/kv/lease_keeper.h"
#include "server/replica/network.h"
#include "server/replica/replica.h"
#include "server/replica/thread_runtime.h"

namespace kv::api {

// Who is in the cluster besides this member. Nobody else ever runs.
enum class Cluster { kAlone, kWithAbsentVoter, kAsLearner };

class LoneMember {
 public:
  static constexpr MemberId kId = 0xfedcba9876543210;
  static constexpr uint64_t kClusterId = 0x123456789abcdef0;

  // Waits until it leads, where it can.
  explicit LoneMember(Options options = {}, Cluster cluster = Cluster::kAlone);
  ~LoneMember();

  std::string address() const;
  std::shared_ptr<grpc::Channel> channel() const { return channel_; }
  etcdserverpb::KV::Stub& kv() { return *kv_; }
  etcdserverpb::Maintenance::Stub& maintenance() { return *maintenance_; }
  etcdserverpb::Lease::Stub& lease() { return *lease_; }

  Services& services() { return *services_; }
  Replica& replica() { return *replica_; }
  KvMachine& machine() { return *machine_; }
  Metrics& metrics() { return metrics_; }
  ThreadRuntime& runtime() { return runtime_; }
  const Options& options() const { return options_; }

  grpc::Status Put(const std::string& key, const std::string& value);

 private:
  class Nobody;

  void RaiseClusterVersion();

  const std::string directory_;
  Options options_;
  Metrics metrics_;
  ThreadRuntime runtime_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<Loop> work_;
  std::unique_ptr<KvMachine> machine_;
  std::unique_ptr<LeaseKeeper> leases_;
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<Services> services_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  std::unique_ptr<etcdserverpb::Maintenance::Stub> maintenance_;
  std::unique_ptr<etcdserverpb::Lease::Stub> lease_;
};

// Of this process.
size_t ResidentBytes();

}  // namespace kv::api

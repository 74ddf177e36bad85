// The edge of a member: everything that a client may call, on the URLs it listens to.
//
// Services decode a request, hold it against the limits (validate.h), ask the Replica or the
// KvMachine, and answer; they keep no state of their own. Start() once the member is one; Stop()
// before the Replica stops, so that what is in flight can still be answered by it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/auto_compactor.h"
#include "server/api/metrics.h"
#include "server/api/probes.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"

namespace kv {
class KvMachine;
class LeaseKeeper;
}  // namespace kv

namespace kv::api {

struct Options {
  std::vector<std::string> listen_client_urls =
      {};                     // http://host:port; an IP, a name or localhost.
  std::string data_dir = {};  // Its disk's free space is watched (decision 14).
  absl::Duration election_timeout = absl::Seconds(1);
  size_t request_bytes_max = 1536 << 10;  // --max-request-bytes
  size_t txn_ops_max = 128;               // --max-txn-ops
  int64_t quota_bytes = 0;                // --quota-backend-bytes; <= 0: until the disk is full.
  size_t learners_max = 1;                // --max-learners
  AutoCompaction auto_compaction = {};    // --auto-compaction-*

  uint32_t concurrent_streams_max = 1024;                // Of one connection.
  absl::Duration keepalive_min_time = absl::Seconds(5);  // Between a client's pings.
  absl::Duration keepalive_interval = absl::Hours(2);    // Between ours.
  absl::Duration keepalive_timeout = absl::Seconds(20);
  absl::Duration watch_progress_interval = absl::Minutes(10);  // Between reports to a watcher.
  size_t memory_bytes_max = size_t{512} << 20;  // Of the client port's buffers, all connections.
  size_t range_bytes_max = size_t{256} << 20;   // Of answers to Range being built or sent.
  uint64_t processors = 1;                      // That the process may keep busy.
  int read_threads = 2;                         // For reads too large for the calling thread.
};

// How long a request may take: etcd's 5 s and two election timeouts.
absl::Duration RequestTimeout(const Options& options);

class Services {
 public:
  // All outlive the services.
  struct Parts {
    Runtime* runtime = nullptr;
    Replica* replica = nullptr;
    KvMachine* machine = nullptr;
    Metrics* metrics = nullptr;
    LeaseKeeper* leases = nullptr;
  };
  Services(Options options, Parts parts);
  ~Services();  // Stops at once if it was not stopped.
  Services(const Services&) = delete;
  Services& operator=(const Services&) = delete;

  // Listens and serves. Fails with a sentence when a URL is not ours to have.
  absl::Status Start();

  // From here on, instead of Options::quota_bytes. An alarm that was raised stays until it is
  // lifted.
  void SetQuota(int64_t bytes);

  // Not ready any more: probes and grpc.health.v1 say so; requests are still served.
  void Drain();

  // Takes no new request, lets those in flight finish for at most `grace`, cancels the rest.
  // Blocks until nothing of the services is running.
  void Stop(absl::Duration grace);

  // What the admin server asks; outlives the services and answers "stopped" then.
  std::shared_ptr<Probes> probes() const;

  // Of the first listen URL, where it asked for port 0.
  int port() const;

 private:
  class Running;
  std::unique_ptr<Running> running_;
};

}  // namespace kv::api

// The admin port: plain HTTP for probes, Prometheus and people. /livez /readyz /startupz /health
// /version /metrics; etcd's bodies (contract §3.2).
//
// One loop owns all connections and never waits for any of them: a client that is slow to send or
// to read costs its connection's buffers until its time is over, and nobody else anything. It may
// start before the member is one: it then answers that it is not ready, and why.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/metrics.h"
#include "server/api/probes.h"
#include "server/replica/runtime.h"

namespace kv::api {

struct AdminOptions {
  std::vector<std::string> urls =
      {};                        // --listen-metrics-urls: http://host:port. None: no admin port.
  size_t connections_max = 256;  // One more, and the oldest goes.
  size_t request_bytes_max = size_t{16} << 10;        // Request line and headers.
  absl::Duration request_timeout = absl::Seconds(5);  // To send a request; to read the answer.
  absl::Duration probe_timeout = absl::Seconds(4);    // Below a probe's usual patience.
  // Whether it waits for somebody else: other founders, a leader who takes it in, a person. It
  // shall not be restarted for that. From the admin loop; may be empty.
  std::function<bool()> idle = {};
};

class AdminServer {
 public:
  AdminServer(Runtime* runtime, AdminOptions options, Metrics* metrics);
  ~AdminServer();  // Stops.
  AdminServer(const AdminServer&) = delete;
  AdminServer& operator=(const AdminServer&) = delete;

  absl::Status Start();
  void Stop();

  // /startupz: storage is open and the listeners are up.
  void SetStarted();
  // The member's own probes (Services::probes()).
  void SetProbes(std::shared_ptr<Probes> probes);

  // Of the first URL, where it asked for port 0.
  int port() const;

 private:
  class Running;
  std::unique_ptr<Running> running_;
};

}  // namespace kv::api

// The client port: gRPC over HTTP/2 in the clear, on libnghttp2. It knows no method by name.
//
//   Http2Server      listens, and deals connections out to
//   Http2Loop        a thread with an epoll set, each connection is pinned to one
//   Http2Connection  a socket and its HTTP/2 session: limits, floods, keepalive
//   Http2Call        a stream, which answers from any thread
//
// Written instead of taking gRPC's server because that costs 16-60 us of CPU a call where this
// costs 3-6, and because the distribution's carries open CVEs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/http2_call.h"
#include "server/replica/runtime.h"

namespace kv::api {

struct Http2Options {
  std::vector<std::string> listen_urls = {};
  int loops = 1;
  size_t message_bytes_max = size_t{2} << 20;  // Of one received message.
  uint32_t concurrent_streams_max = 1024;      // Of one connection.
  // Of requests coming in and small answers going out, all connections together.
  size_t memory_bytes_max = size_t{512} << 20;
  absl::Duration handshake_timeout = absl::Seconds(10);
  absl::Duration keepalive_min_time = absl::Seconds(5);  // Between a client's pings.
  absl::Duration keepalive_interval = absl::Hours(2);    // Of silence, before our ping.
  absl::Duration keepalive_timeout = absl::Seconds(20);
};

class Http2Loop;

class Http2Server {
 public:
  Http2Server();
  ~Http2Server();  // Stops at once if it was not stopped.
  Http2Server(const Http2Server&) = delete;
  Http2Server& operator=(const Http2Server&) = delete;

  // Fails with a sentence when a URL is not ours to have.
  absl::Status Start(Runtime* runtime, const Http2Options& options, RpcMethods methods);

  // Takes no new call, lets those in flight finish for at most `grace`, cancels the rest. Blocks
  // until the last one is over.
  void Stop(absl::Duration grace);

  int port() const { return port_; }  // Of the first URL.

 private:
  RpcMethods methods_;
  std::vector<std::unique_ptr<Http2Loop>> loops_;
  int port_ = 0;
};

// One on few processors, which the store's own threads need.
int FrontLoops(uint64_t processors);

}  // namespace kv::api

// A cheap gRPC client for load: one thread, epoll, nghttp2, plaintext.
//
// Cheap matters: on a small machine a stock client costs several times what the server does and
// hides the difference between servers (both are measured with this same client). Single-threaded;
// not for anything but measuring.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace kv::bench {

struct Request {
  const char* path = nullptr;  // "/package.Service/Method"; a literal.
  std::string message;         // Serialized.
};

struct Response {
  int grpc_status = -1;  // -1: the stream ended without one (connection lost, reset).
  std::string message;   // Serialized; kept only where the Load was told to.
};

// Watchers that are there before the load begins and stay until it ends.
struct WatchPlan {
  int watchers = 0;
  int streams = 1;      // Of RPCs; the watchers are dealt out over them.
  int connections = 1;  // The streams are dealt out over these, which carry nothing else.
  std::function<std::string(int watcher)> key;
};

struct LoadPlan {
  std::vector<std::string> endpoints;  // host:port; connections are dealt out in turn.
  int connections = 1;
  int streams = 1;       // In flight on each connection.
  double rate = 0;       // Requests a second over all; 0: closed loop, as fast as answered.
  bool poisson = false;  // Open loop: exponential gaps instead of even ones.
  double duration = 0;   // Seconds, warm-up included; 0: until `total`.
  double warmup = 0;     // Seconds whose answers are not reported.
  uint64_t total = 0;    // Requests; 0: until `duration`.
  uint64_t seed = 1;
  bool keep_messages = false;
  WatchPlan watch = {};
};

struct LoadOutcome {
  uint64_t issued = 0;
  uint64_t unanswered = 0;  // Still in flight 30 s after the last was sent.
  double seconds = 0;       // From the end of the warm-up to the last issue.
  uint64_t events = 0;      // That the watchers were told in these seconds.
  std::string error;        // Not empty: the load could not run.
};

// Called for each answer that counts. `latency` is in nanoseconds from the moment the request was
// due, not from when a free stream was found: a server that stalls is charged for the whole queue.
using OnAnswer = std::function<void(uint64_t latency, const Response& response)>;

// When to sample the servers: the warm-up is over; the last answer is there and every connection
// and watcher still open.
struct LoadMoments {
  std::function<void()> warm = [] {};
  std::function<void()> done = [] {};
};

LoadOutcome RunLoad(const LoadPlan& plan, const std::function<Request()>& next,
                    const OnAnswer& answered, const LoadMoments& moments);

// One request, waited for.
Response CallOnce(const std::string& endpoint, const Request& request);

}  // namespace kv::bench

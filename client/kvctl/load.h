// Many puts, and how they went.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <string>

#include "client/client.h"

namespace kv::kvctl {

// Times of what succeeded, in seconds; failures by their text.
struct LoadReport {
  int64_t done = 0;
  double elapsed = 0;  // Of the whole run.
  double slowest = 0;
  double mean = 0;
  double squares = 0;  // Sum of squared distances from the mean.
  std::map<std::string, int64_t> errors;

  double rate() const;    // Per second.
  double stddev() const;  // Of the population.
  void Add(double seconds);
};

struct LoadPlan {
  std::string prefix;
  size_t key_bytes = 0;  // Besides the prefix.
  size_t value_bytes = 0;
  size_t clients = 0;  // Puts under way at a time.
  int64_t puts_max = INT64_MAX;
  double rate = 0;  // Puts per second; 0: as fast as they are taken.
  std::chrono::nanoseconds time_max = std::chrono::hours(24 * 365);
  client::CallOptions call;
};

// Puts random keys below the prefix; each key is new. Memory does not grow with the puts.
class Load {
 public:
  // `client` outlives it.
  Load(client::Client* client, LoadPlan plan);
  // `tick` is called about once a second with the number of answers, and returns false to stop
  // early. Returns when every put is answered.
  LoadReport Run(const std::function<bool(int64_t answered)>& tick);

 private:
  using Clock = std::chrono::steady_clock;

  void Send();
  void Answered(const absl::Status& status, Clock::time_point sent);

  client::Client* const client_;
  const LoadPlan plan_;

  // The thread of Run.
  std::mt19937_64 random_;
  uint64_t sent_ = 0;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  size_t under_way_ = 0;
  int64_t answered_ = 0;
  LoadReport report_;
};

}  // namespace kv::kvctl

// The real world: threads, the monotonic clock, the kernel's random numbers.
//
// The only place of the server that starts threads or reads a clock. A loop is one thread and one
// queue: it wakes, takes everything queued, and runs it; whoever posts to a loop that is awake
// pays for no wake-up. Due timers run after the tasks taken with them: a member that was starved of
// CPU hears its peers before its own clock.
#pragma once

#include <chrono>
#include <memory>
#include <string_view>

#include "server/replica/runtime.h"

namespace kv {

class ThreadRuntime final : public Runtime {
 public:
  ThreadRuntime();

  absl::Duration Uptime() override;
  uint64_t Random() override;
  // `name` shows in ps and debuggers, cut to 15 characters.
  std::unique_ptr<Loop> NewLoop(std::string_view name) override;
  std::unique_ptr<Loop> NewUnorderedLoop(std::string_view name, int threads) override;

 private:
  const std::chrono::steady_clock::time_point start_;
};

}  // namespace kv

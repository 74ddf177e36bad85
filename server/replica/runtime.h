// What a node gets from the outside world besides its disk and its network: time, chance, threads.
//
// Production: ThreadRuntime. Simulation: one queue ordered by virtual time. Nothing else in
// server/raft, server/replica, server/kv, server/cluster may read a clock or roll dice.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"

namespace kv {

// A queue of tasks that run one at a time, in the order posted. A component that owns state owns a
// loop; its members are annotated ABSL_GUARDED_BY(loop_) and the compiler checks the claim. An
// owner declares its loop last: it is destroyed first, and what is queued is dropped with it.
class ABSL_LOCKABLE Loop {
 public:
  using Task = absl::AnyInvocable<void() &&>;
  virtual ~Loop() = default;  // Stops it.
  // Waits for the running task and drops what is queued, and from now on whatever is posted.
  // Whoever is still named by a running task stops the loop first and lets go of it after: the task
  // may well post to it. Not from the loop itself; a second call does nothing.
  virtual void Stop() = 0;
  virtual void Post(Task task) = 0;
  virtual void PostAfter(absl::Duration delay, Task task) = 0;
  virtual void AssertCurrent() const ABSL_ASSERT_EXCLUSIVE_LOCK() = 0;
};

class Runtime {
 public:
  virtual ~Runtime() = default;
  virtual absl::Duration Uptime() = 0;  // Monotonic. Wall time is not needed by any decision.
  virtual uint64_t Random() = 0;
  virtual std::unique_ptr<Loop> NewLoop(std::string_view name) = 0;
  // Tasks run on any of `threads` threads, in no order; AssertCurrent() claims nothing.
  virtual std::unique_ptr<Loop> NewUnorderedLoop(std::string_view name, int threads) = 0;
};

}  // namespace kv

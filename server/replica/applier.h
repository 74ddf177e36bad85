// Hands committed entries to the machine, a run at a time, and the machine's replies to those who
// wait for them. Whatever is queued when the loop wakes is one run: one batch of the machine.
//
// Owns the Machine's writes, on the apply loop.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "server/replica/caller.h"
#include "server/replica/machine.h"
#include "server/replica/result.h"
#include "server/replica/runtime.h"

namespace kv {

class Applier {
 public:
  struct Work {
    EntryPtr entry;
    Caller<ProposalResult> caller;  // May be nobody.
  };
  // The machine has applied everything up to here. On the apply loop, before the replies go out.
  using Applied = std::function<void(Position)>;
  using Fatal = std::function<void(std::string_view sentence)>;
  struct Parts {
    Runtime* runtime = nullptr;
    Machine* machine = nullptr;
    Applied applied;
    Fatal fatal;
    std::function<void(absl::Duration took, size_t entries)> measured;  // May be empty.
  };

  Applier(Parts parts, std::unique_ptr<Loop> loop);

  // In the order of the log; from any thread, the raft loop in practice.
  void Submit(std::vector<Work> work);
  // After what was submitted: the verified snapshot becomes the state; then calls `adopted`.
  void Adopt(Snapshot snapshot, Loop::Task adopted);
  // After what was submitted.
  void Close(Loop::Task closed);

 private:
  void ApplyQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  void ApplyRun(std::vector<Work> run) ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);

  // Guarded by loop_.
  std::vector<Work> queued_ ABSL_GUARDED_BY(*loop_);
  bool failed_ ABSL_GUARDED_BY(*loop_) = false;

  // Constant after construction.
  Runtime* const runtime_;
  Machine* const machine_;
  const Applied applied_;
  const Fatal fatal_;
  const std::function<void(absl::Duration, size_t)> measured_;

  // Last: it goes first, and its queued tasks with it.
  const std::unique_ptr<Loop> loop_;
};

}  // namespace kv

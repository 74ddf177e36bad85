// Makes the log durable, one group commit at a time. While one sync is in flight new writes queue
// up behind it and the next sync takes them all: the slower the disk, the larger the batch. No
// timer is involved, and no batch size but a cap on bytes.
//
// Owns the LogStore and its floor, on the log loop. Every failure of the disk ends the process
// through `fatal`; should that return, the writer stays silent for ever: nothing is reported
// durable after a failure, whatever the disk says later.
#pragma once

#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "server/raft/core.h"
#include "server/replica/runtime.h"
#include "storage/floor.h"
#include "storage/log_store.h"

namespace kv {

class LogWriter {
 public:
  // Durable now, in the order submitted. On the log loop.
  using Done = std::function<void(std::vector<raft::Write>)>;
  using Fatal = std::function<void(std::string_view sentence)>;
  using Synced = std::function<void(absl::Duration took, size_t entries, size_t bytes)>;
  struct Parts {
    Runtime* runtime = nullptr;
    std::unique_ptr<LogStore> store;
    std::unique_ptr<Floor> floor;
    Done done;
    Fatal fatal;
    Synced synced;  // For metrics; may be empty.
  };

  LogWriter(Parts parts, std::unique_ptr<Loop> loop);

  // From any thread; the raft loop in practice. Writes become durable in the order submitted.
  // `commit` is the commit index known by then: the floor is raised to it now and then.
  void Submit(raft::Write write, Index commit);

  // Notes durably that the snapshot at `position` is about to become the state; then calls `noted`
  // on the log loop.
  void BeginAdopting(Position position, Loop::Task noted);

  // Forgets the log up to and including `position`. Not synced.
  void DropThrough(Position position);

  // Makes what was submitted durable, writes the floor and calls `closed` on the log loop.
  void Close(Index commit, Loop::Task closed);

 private:
  void Enqueue(raft::Write write, Index commit) ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  void CommitQueued() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  void RaiseFloor() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  void RaiseFloorLater() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  // False: the disk failed, now or before.
  bool Healthy(const absl::Status& status, std::string_view what)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);

  // Guarded by loop_.
  const std::unique_ptr<LogStore> store_ ABSL_PT_GUARDED_BY(*loop_);
  const std::unique_ptr<Floor> floor_ ABSL_PT_GUARDED_BY(*loop_);
  std::vector<raft::Write> queued_ ABSL_GUARDED_BY(*loop_);
  Index commit_ ABSL_GUARDED_BY(*loop_) = 0;
  bool floor_due_ ABSL_GUARDED_BY(*loop_) = false;
  bool failed_ ABSL_GUARDED_BY(*loop_) = false;

  // Constant after construction.
  Runtime* const runtime_;
  const Done done_;
  const Fatal fatal_;
  const Synced synced_;

  // Last: it goes first, and its queued tasks with it.
  const std::unique_ptr<Loop> loop_;
};

}  // namespace kv

// The way into a replica's raft loop for everybody who may outlive it: the network's threads, and
// the loops that end after it. A closed door drops what is posted.
#pragma once

#include <atomic>
#include <optional>
#include <utility>

#include "server/replica/runtime.h"
#include "storage/entry.h"
#include "storage/mutex.h"

namespace kv {

class Door {
 public:
  void Open(Loop* loop) {
    MutexLock lock(mutex_);
    loop_ = loop;
  }
  // Nobody is inside once this returns.
  void Close() {
    MutexLock lock(mutex_);
    loop_ = nullptr;
  }
  void Post(Loop::Task task) {
    MutexLock lock(mutex_);
    if (loop_ != nullptr) loop_->Post(std::move(task));
  }
  // Asks at once, on this thread, what is still there while the door is open.
  template <typename Question>
  auto Ask(Question question) -> std::optional<decltype(question())> {
    MutexLock lock(mutex_);
    if (loop_ == nullptr) return std::nullopt;
    return question();
  }

  std::atomic<Index> last_index = 0;  // Of the replica's log; said in handshakes.

 private:
  Mutex mutex_;
  Loop* loop_ ABSL_GUARDED_BY(mutex_) = nullptr;
};

}  // namespace kv

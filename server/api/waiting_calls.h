// The calls of clients that wait for something to happen, so that a stop ends them.
#pragma once

#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "storage/mutex.h"

namespace kv::api {

class WaitingCall {
 public:
  explicit WaitingCall(bool needs_leader) : needs_leader_(needs_leader) {}
  virtual ~WaitingCall() = default;
  // Answers, unless that was done; nothing is waited for any more.
  virtual void End(absl::Status status) = 0;
  // Is not to be left without a leader.
  bool needs_leader() const { return needs_leader_; }

 private:
  const bool needs_leader_;
};

// Thread-safe.
class WaitingCalls {
 public:
  // A call that comes after the stop is ended at once.
  void Add(std::shared_ptr<WaitingCall> call);
  void Remove(const std::shared_ptr<WaitingCall>& call);
  void EndWithoutLeader();
  void Stop();

 private:
  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<WaitingCall>> calls_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv::api

// A Runtime for tests: one thread, virtual time, tasks in a fixed order. Nothing runs until asked.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/raft/random.h"
#include "server/replica/runtime.h"
#include "storage/check.h"

namespace kv::test {

class FakeRuntime final : public Runtime {
 public:
  explicit FakeRuntime(uint64_t seed = 1) : chance_(seed) {}

  absl::Duration Uptime() override { return now_; }
  uint64_t Random() override { return chance_.Next(); }
  std::unique_ptr<Loop> NewLoop(std::string_view) override {
    return std::make_unique<FakeLoop>(this, /*ordered=*/true);
  }
  std::unique_ptr<Loop> NewUnorderedLoop(std::string_view, int) override {
    return std::make_unique<FakeLoop>(this, /*ordered=*/false);
  }

  // Runs the next task, moving time to it. False: there is none.
  bool RunOne() {
    if (tasks_.empty()) return false;
    auto next = tasks_.begin();
    now_ = std::max(now_, next->first.first);
    Item item = std::move(next->second);
    tasks_.erase(next);
    FakeLoop* before = std::exchange(current_, item.loop);
    std::move(item.task)();
    item.task = nullptr;
    current_ = before;
    return true;
  }
  void RunFor(absl::Duration duration) {
    absl::Duration end = now_ + duration;
    while (!tasks_.empty() && tasks_.begin()->first.first <= end) RunOne();
    now_ = end;
  }
  // True: `happened` within `limit` of virtual time.
  bool RunUntil(const std::function<bool()>& happened, absl::Duration limit = absl::Seconds(30)) {
    absl::Duration end = now_ + limit;
    while (!happened()) {
      if (tasks_.empty() || tasks_.begin()->first.first > end) return false;
      RunOne();
    }
    return true;
  }

 private:
  class ABSL_LOCKABLE FakeLoop final : public Loop {
   public:
    FakeLoop(FakeRuntime* runtime, bool ordered) : runtime_(runtime), ordered_(ordered) {}
    ~FakeLoop() override { Stop(); }
    void Stop() override {
      // Tasks that are dropped may post again; here that finds no loop any more.
      gone_ = true;
      for (auto it = runtime_->tasks_.begin(); it != runtime_->tasks_.end();) {
        if (it->second.loop != this) {
          ++it;
          continue;
        }
        Task dropped = std::move(it->second.task);
        runtime_->tasks_.erase(it);
        dropped = nullptr;
        it = runtime_->tasks_.begin();
      }
    }
    void Post(Task task) override { PostAfter(absl::ZeroDuration(), std::move(task)); }
    void PostAfter(absl::Duration delay, Task task) override {
      if (gone_) return;
      runtime_->tasks_.emplace(std::pair(runtime_->now_ + delay, ++runtime_->sequence_),
                               Item{this, std::move(task)});
    }
    void AssertCurrent() const ABSL_ASSERT_EXCLUSIVE_LOCK() override {
      KV_CHECK(!ordered_ || runtime_->current_ == this, "on another loop than claimed");
    }

   private:
    FakeRuntime* const runtime_;
    const bool ordered_;
    bool gone_ = false;
  };
  struct Item {
    FakeLoop* loop = nullptr;
    Loop::Task task;
  };

  raft::SplitMix64 chance_;
  absl::Duration now_ = absl::ZeroDuration();
  uint64_t sequence_ = 0;
  FakeLoop* current_ = nullptr;
  std::map<std::pair<absl::Duration, uint64_t>, Item> tasks_;
};

}  // namespace kv::test

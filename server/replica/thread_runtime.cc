#include "server/replica/thread_runtime.h"

#include <pthread.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <deque>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "storage/check.h"
#include "storage/mutex.h"

namespace kv {
namespace {

using Clock = std::chrono::steady_clock;
using Task = Loop::Task;

struct Timer {
  Clock::time_point due;
  uint64_t sequence = 0;  // Equal times fire in the order posted.
  Task task;
};
// For a heap with the earliest in front.
bool Later(const Timer& a, const Timer& b) {
  return a.due != b.due ? a.due > b.due : a.sequence > b.sequence;
}

// Tasks and timers of one loop, shared by its threads.
class Queue {
 public:
  void Post(Task task) {
    {
      MutexLock lock(mutex_);
      if (!closed_) {
        tasks_.push_back(std::move(task));
        if (sleepers_ == waking_) return;
        ++waking_;
      }
    }
    wake_.notify_one();
  }

  void PostAfter(absl::Duration delay, Task task) {
    Clock::time_point due = Clock::now() + absl::ToChronoNanoseconds(delay);
    bool first = false;
    {
      MutexLock lock(mutex_);
      if (!closed_) {
        uint64_t sequence = ++sequence_;
        timers_.push_back({due, sequence, std::move(task)});
        std::push_heap(timers_.begin(), timers_.end(), Later);
        first = timers_.front().sequence == sequence;
      }
    }
    if (first) wake_.notify_one();
  }

  // Everything that can run now, in order, at most `most`; sleeps until there is something. Empty
  // once the queue is closed.
  void Take(std::deque<Task>& taken, size_t most) {
    MutexLock lock(mutex_);
    while (!closed_) {
      if (tasks_.size() <= most) {
        taken.swap(tasks_);
      } else {
        for (; taken.size() < most && !tasks_.empty(); tasks_.pop_front()) {
          taken.push_back(std::move(tasks_.front()));
        }
      }
      if (!timers_.empty()) TakeDueTimers(taken, most);
      if (!taken.empty()) return;
      ++sleepers_;
      if (timers_.empty()) {
        mutex_.Await(wake_);
      } else {
        mutex_.AwaitUntil(wake_, timers_.front().due);
      }
      --sleepers_;
      // Whoever wakes answers one call, also if it woke by itself: counting too few calls at worst.
      if (waking_ > 0) --waking_;
    }
  }

  bool closed() const { return closed_flag_.load(std::memory_order_relaxed); }

  void Close() {
    {
      MutexLock lock(mutex_);
      closed_ = true;
      closed_flag_.store(true, std::memory_order_relaxed);
    }
    wake_.notify_all();
  }

  // Drops what is left. A dropped task may own something whose end posts here again: that is
  // refused, and dropped where it was posted.
  void Drop() {
    std::deque<Task> tasks;
    std::vector<Timer> timers;
    {
      MutexLock lock(mutex_);
      tasks.swap(tasks_);
      timers.swap(timers_);
    }
  }

 private:
  void TakeDueTimers(std::deque<Task>& taken, size_t most) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    Clock::time_point now = Clock::now();
    while (!timers_.empty() && timers_.front().due <= now && taken.size() < most) {
      std::pop_heap(timers_.begin(), timers_.end(), Later);
      taken.push_back(std::move(timers_.back().task));
      timers_.pop_back();
    }
  }

  Mutex mutex_;
  std::condition_variable wake_;
  std::atomic<bool> closed_flag_ = false;  // `closed_`, for a look between two tasks.
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  int sleepers_ ABSL_GUARDED_BY(mutex_) = 0;
  int waking_ ABSL_GUARDED_BY(mutex_) = 0;  // Of the sleepers, those already called.
  uint64_t sequence_ ABSL_GUARDED_BY(mutex_) = 0;
  std::deque<Task> tasks_ ABSL_GUARDED_BY(mutex_);
  std::vector<Timer> timers_ ABSL_GUARDED_BY(mutex_);  // A heap.
};

void NameThread(std::thread& thread, std::string_view name) {
  std::string cut(name.substr(0, 15));
  pthread_setname_np(thread.native_handle(), cut.c_str());
}

class ABSL_LOCKABLE ThreadLoop final : public Loop {
 public:
  explicit ThreadLoop(std::string_view name) : thread_([this] { Run(); }) {
    NameThread(thread_, name);
  }
  ~ThreadLoop() override { Stop(); }
  void Stop() override {
    KV_CHECK(std::this_thread::get_id() != thread_.get_id(), "a loop cannot end itself");
    queue_.Close();
    if (thread_.joinable()) thread_.join();
    queue_.Drop();
  }
  void Post(Task task) override { queue_.Post(std::move(task)); }
  void PostAfter(absl::Duration delay, Task task) override {
    queue_.PostAfter(delay, std::move(task));
  }
  void AssertCurrent() const ABSL_ASSERT_EXCLUSIVE_LOCK() override {
    KV_CHECK(std::this_thread::get_id() == thread_.get_id(), "on another loop than claimed");
  }

 private:
  void Run() {
    std::deque<Task> taken;
    while (!queue_.closed()) {
      queue_.Take(taken, SIZE_MAX);
      for (Task& task : taken) {
        if (queue_.closed()) break;
        std::move(task)();
        task = nullptr;  // What it owns ends with it, not with the batch.
      }
      taken.clear();
    }
  }

  Queue queue_;
  std::thread thread_;  // Last: it runs on all of the above.
};

class ABSL_LOCKABLE UnorderedThreadLoop final : public Loop {
 public:
  UnorderedThreadLoop(std::string_view name, int threads) {
    KV_CHECK(threads > 0, "a loop without threads");
    for (int i = 0; i < threads; ++i) {
      NameThread(threads_.emplace_back([this] { Run(); }), name);
    }
  }
  ~UnorderedThreadLoop() override { Stop(); }
  void Stop() override {
    queue_.Close();
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.join();
    }
    queue_.Drop();
  }
  void Post(Task task) override { queue_.Post(std::move(task)); }
  void PostAfter(absl::Duration delay, Task task) override {
    queue_.PostAfter(delay, std::move(task));
  }
  void AssertCurrent() const ABSL_ASSERT_EXCLUSIVE_LOCK() override {}

 private:
  void Run() {
    std::deque<Task> taken;
    while (!queue_.closed()) {
      queue_.Take(taken, 1);
      for (Task& task : taken) std::move(task)();
      taken.clear();
    }
  }

  Queue queue_;
  std::vector<std::thread> threads_;
};

}  // namespace

ThreadRuntime::ThreadRuntime() : start_(Clock::now()) {}

absl::Duration ThreadRuntime::Uptime() { return absl::FromChrono(Clock::now() - start_); }

uint64_t ThreadRuntime::Random() {
  uint64_t drawn = 0;
  KV_CHECK(getrandom(&drawn, sizeof(drawn), 0) == static_cast<ssize_t>(sizeof(drawn)),
           "the kernel gave no random numbers");
  return drawn;
}

std::unique_ptr<Loop> ThreadRuntime::NewLoop(std::string_view name) {
  return std::make_unique<ThreadLoop>(name);
}

std::unique_ptr<Loop> ThreadRuntime::NewUnorderedLoop(std::string_view name, int threads) {
  return std::make_unique<UnorderedThreadLoop>(name, threads);
}

}  // namespace kv

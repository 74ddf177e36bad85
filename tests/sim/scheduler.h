// Virtual time: one queue of everything that will happen, in every process of a simulated cluster.
//
// Time is whole nanoseconds and moves only from one event to the next. Every delay is drawn from
// the seed, so each order of events that real threads could produce comes up under some seed, and
// a seed replays exactly: integers only, and one draw per statement (the order in which a compiler
// evaluates arguments is its own).
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "server/raft/random.h"
#include "server/replica/runtime.h"

namespace kv::sim {

using Time = int64_t;  // Nanoseconds since the run began.
inline constexpr Time kMicrosecond = 1'000;
inline constexpr Time kMillisecond = 1'000'000;
inline constexpr Time kSecond = 1'000'000'000;

// A delay from `least`, `spread` wide, and in `tail_permille` of a thousand cases up to `tail`
// more.
struct Delay {
  Time least = kMicrosecond;
  Time spread = 20 * kMicrosecond;
  uint64_t tail_permille = 0;
  Time tail = 0;
  // Of a loop: in so many of a thousand cases one that is idle takes up what is posted at once,
  // before anything else happens anywhere.
  uint64_t at_once_permille = 0;
};

class SimLoop;

class Scheduler {
 public:
  explicit Scheduler(uint64_t seed) : chance_(seed) {}
  ~Scheduler();
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  Time now() const { return now_; }
  uint64_t Draw() { return chance_.Next(); }
  uint64_t Below(uint64_t bound) { return chance_.Below(bound); }
  bool Permille(uint64_t chance) { return chance > 0 && chance_.Below(1000) < chance; }
  Time Draw(const Delay& delay);

  // Of nobody's loop: the wire, faults, clients.
  void At(Time when, Loop::Task task);
  void After(Time delay, Loop::Task task) { At(now_ + delay, std::move(task)); }

  bool RunOne();  // False: nothing will ever happen.
  void RunFor(Time duration);
  // True: `happened`, asked after every event, within `limit`.
  bool RunUntil(const std::function<bool()>& happened, Time limit);

  // Called after every event that ran on a loop.
  using Observer = std::function<void(SimLoop&)>;
  void SetObserver(Observer observer) { observer_ = std::move(observer); }

  uint64_t events() const { return events_; }
  // Of everything that happened, in order.
  uint64_t digest() const { return digest_; }
  void Note(uint64_t value);  // Into the digest.

 private:
  friend class SimLoop;
  struct Slot {
    Loop::Task task;
    SimLoop* loop = nullptr;
    uint64_t ticket = 0;  // 0: free.
    uint32_t before = kNone;
    uint32_t after = kNone;
  };
  struct Key {
    Time when = 0;
    uint64_t ticket = 0;
    uint32_t slot = 0;
    bool operator<(const Key& other) const {  // For a heap: the soonest on top.
      return when != other.when ? when > other.when : ticket > other.ticket;
    }
  };
  // Comes next, at this very time; null: its loop has ended meanwhile.
  struct Chained {
    SimLoop* loop = nullptr;
    Loop::Task task;
  };
  static constexpr uint32_t kNone = UINT32_MAX;
  // So that time passes even where loops never fall silent.
  static constexpr size_t kChainMax = 64;

  void Run(SimLoop* loop, Loop::Task task);
  void RunChain();
  uint32_t Insert(Time when, Loop::Task task, SimLoop* loop);
  void Push(Time when, uint32_t slot);
  Loop::Task Remove(uint32_t slot);

  raft::SplitMix64 chance_;
  Time now_ = 0;
  uint64_t tickets_ = 0;
  uint64_t events_ = 0;
  uint64_t digest_ = 0;
  uint32_t loops_ = 0;
  std::vector<Slot> slots_;
  std::vector<uint32_t> free_;
  std::vector<Key> heap_;
  std::vector<Chained> chain_;
  SimLoop* current_ = nullptr;
  Observer observer_;
};

// Which of a member's loops: each kind has its own delays and can be held up on its own.
enum class LoopKind : uint8_t { kRaft, kLog, kApply, kWork, kNode };
inline constexpr size_t kLoopKinds = 5;

class SimRuntime;

class ABSL_LOCKABLE SimLoop final : public Loop {
 public:
  SimLoop(SimRuntime* runtime, LoopKind kind, bool ordered);
  ~SimLoop() override { Stop(); }

  void Stop() override;
  void Post(Task task) override;
  void PostAfter(absl::Duration delay, Task task) override;
  void AssertCurrent() const ABSL_ASSERT_EXCLUSIVE_LOCK() override;

  LoopKind kind() const { return kind_; }
  SimRuntime& runtime() const { return *runtime_; }

 private:
  friend class Scheduler;
  friend class SimRuntime;
  void Enqueue(Time when, Task task);
  bool TakesAtOnce();
  bool held() const;
  void Resume();  // What waited while the loop was held comes due, in its order.

  SimRuntime* const runtime_;
  Scheduler* const scheduler_;
  const LoopKind kind_;
  const bool ordered_;
  const uint32_t ordinal_;
  bool gone_ = false;
  Time last_ = 0;  // An ordered loop runs nothing before what was posted earlier.
  uint32_t first_slot_ = Scheduler::kNone;
  std::deque<std::pair<uint32_t, uint64_t>> waiting_;  // Slot and ticket: came due while held.
};

// The Runtime of one process.
class SimRuntime final : public Runtime {
 public:
  using Delays = std::array<Delay, kLoopKinds>;
  SimRuntime(Scheduler* scheduler, uint64_t seed, const Delays& delays)
      : scheduler_(scheduler), chance_(seed), delays_(delays) {}

  absl::Duration Uptime() override;
  uint64_t Random() override { return chance_.Next(); }
  std::unique_ptr<Loop> NewLoop(std::string_view name) override;
  std::unique_ptr<Loop> NewUnorderedLoop(std::string_view name, int threads) override;

  // This process's clock from here on: `permille` of virtual time.
  void SetClockRate(int64_t permille);
  // As SIGSTOP does; or one loop, as an operation of the disk that does not return.
  void Pause();
  void Continue();
  void Hold(LoopKind kind);
  void Release(LoopKind kind);
  bool paused() const { return paused_; }
  bool held(LoopKind kind) const { return held_[static_cast<size_t>(kind)]; }
  Delay& delay(LoopKind kind) { return delays_[static_cast<size_t>(kind)]; }

  Scheduler& scheduler() const { return *scheduler_; }
  void* owner = nullptr;  // Whoever observes tells processes apart by this.

 private:
  friend class SimLoop;
  void ResumeLoops();

  Scheduler* const scheduler_;
  raft::SplitMix64 chance_;
  Delays delays_;
  std::vector<SimLoop*> loops_;
  bool paused_ = false;
  std::array<bool, kLoopKinds> held_{};
  int64_t rate_permille_ = 1000;
  Time rate_since_ = 0;
  Time uptime_then_ = 0;
};

}  // namespace kv::sim

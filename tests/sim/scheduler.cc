#include "tests/sim/scheduler.h"

#include <algorithm>

#include "storage/check.h"

namespace kv::sim {
namespace {

LoopKind KindOf(std::string_view name) {
  if (name == "kvd-raft") return LoopKind::kRaft;
  if (name == "kvd-log") return LoopKind::kLog;
  if (name == "kvd-apply") return LoopKind::kApply;
  if (name == "node") return LoopKind::kNode;
  return LoopKind::kWork;
}

}  // namespace

Scheduler::~Scheduler() {
  // What is dropped may post again.
  while (!heap_.empty()) {
    std::vector<Key> dropped = std::exchange(heap_, {});
    for (const Key& key : dropped) {
      if (slots_[key.slot].ticket == key.ticket) Remove(key.slot);
    }
  }
}

Time Scheduler::Draw(const Delay& delay) {
  const uint64_t bits = chance_.Next();
  Time drawn = delay.least +
               static_cast<Time>((bits & 0xffffffff) % (static_cast<uint64_t>(delay.spread) + 1));
  if (delay.tail_permille > 0 && (bits >> 32) % 1000 < delay.tail_permille) {
    drawn += static_cast<Time>(chance_.Below(static_cast<uint64_t>(delay.tail) + 1));
  }
  return drawn;
}

void Scheduler::Note(uint64_t value) {
  uint64_t mixed = (digest_ ^ value) + 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  digest_ = mixed ^ (mixed >> 31);
}

void Scheduler::Push(Time when, uint32_t slot) {
  slots_[slot].ticket = ++tickets_;
  heap_.push_back({.when = when, .ticket = tickets_, .slot = slot});
  std::push_heap(heap_.begin(), heap_.end());
}

uint32_t Scheduler::Insert(Time when, Loop::Task task, SimLoop* loop) {
  uint32_t at = 0;
  if (free_.empty()) {
    at = static_cast<uint32_t>(slots_.size());
    slots_.emplace_back();
  } else {
    at = free_.back();
    free_.pop_back();
  }
  Slot& slot = slots_[at];
  slot.task = std::move(task);
  slot.loop = loop;
  slot.before = slot.after = kNone;
  if (loop != nullptr) {
    slot.after = loop->first_slot_;
    if (slot.after != kNone) slots_[slot.after].before = at;
    loop->first_slot_ = at;
  }
  Push(when, at);
  return at;
}

Loop::Task Scheduler::Remove(uint32_t at) {
  Slot& slot = slots_[at];
  if (slot.loop != nullptr) {
    if (slot.before != kNone) {
      slots_[slot.before].after = slot.after;
    } else {
      slot.loop->first_slot_ = slot.after;
    }
    if (slot.after != kNone) slots_[slot.after].before = slot.before;
  }
  Loop::Task task = std::move(slot.task);
  slot.task = nullptr;
  slot.loop = nullptr;
  slot.ticket = 0;
  free_.push_back(at);
  return task;
}

void Scheduler::At(Time when, Loop::Task task) {
  Insert(std::max(when, now_), std::move(task), nullptr);
}

bool Scheduler::RunOne() {
  while (!heap_.empty()) {
    std::pop_heap(heap_.begin(), heap_.end());
    const Key next = heap_.back();
    heap_.pop_back();
    if (slots_[next.slot].ticket != next.ticket) continue;
    SimLoop* const loop = slots_[next.slot].loop;
    if (loop != nullptr && loop->held()) {
      loop->waiting_.emplace_back(next.slot, next.ticket);
      continue;
    }
    now_ = std::max(now_, next.when);
    Run(loop, Remove(next.slot));
    if (!chain_.empty()) RunChain();
    return true;
  }
  return false;
}

void Scheduler::Run(SimLoop* loop, Loop::Task task) {
  ++events_;
  Note(static_cast<uint64_t>(now_) ^ (uint64_t{loop == nullptr ? 0 : loop->ordinal_} << 48));
  SimLoop* const before = std::exchange(current_, loop);
  std::move(task)();
  task = nullptr;
  current_ = before;
  // Loops end in events of nobody's loop only, so this one is still there.
  if (loop != nullptr && observer_) observer_(*loop);
}

void Scheduler::RunChain() {
  for (size_t next = 0; next < chain_.size(); ++next) {
    SimLoop* const loop = std::exchange(chain_[next].loop, nullptr);
    if (loop == nullptr) continue;
    Loop::Task task = std::move(chain_[next].task);
    if (loop->held()) {
      loop->last_ = now_;
      loop->Enqueue(now_, std::move(task));
    } else {
      Run(loop, std::move(task));
    }
  }
  chain_.clear();
}

void Scheduler::RunFor(Time duration) {
  const Time end = now_ + duration;
  // A mark in the queue: without it the loop would have to look at stale keys.
  bool over = false;
  At(end, [&over] { over = true; });
  while (!over) RunOne();
}

bool Scheduler::RunUntil(const std::function<bool()>& happened, Time limit) {
  auto over = std::make_shared<bool>(false);
  At(now_ + limit, [over] { *over = true; });
  while (!happened()) {
    if (*over) return false;
    RunOne();
  }
  return true;
}

SimLoop::SimLoop(SimRuntime* runtime, LoopKind kind, bool ordered)
    : runtime_(runtime),
      scheduler_(runtime->scheduler_),
      kind_(kind),
      ordered_(ordered),
      ordinal_(++runtime->scheduler_->loops_) {
  runtime_->loops_.push_back(this);
}

void SimLoop::Stop() {
  if (gone_) return;
  gone_ = true;
  while (first_slot_ != Scheduler::kNone) scheduler_->Remove(first_slot_);
  for (size_t i = 0; i < scheduler_->chain_.size(); ++i) {
    if (scheduler_->chain_[i].loop != this) continue;
    scheduler_->chain_[i].loop = nullptr;
    const Task dropped = std::move(scheduler_->chain_[i].task);
  }
  std::erase(runtime_->loops_, this);
}

bool SimLoop::held() const { return runtime_->paused_ || runtime_->held(kind_); }

void SimLoop::Enqueue(Time when, Task task) { scheduler_->Insert(when, std::move(task), this); }

// Nothing that was posted before it waits.
bool SimLoop::TakesAtOnce() {
  const bool may = ordered_ && last_ < scheduler_->now() && !held() &&
                   scheduler_->chain_.size() < Scheduler::kChainMax;
  return may && scheduler_->Permille(runtime_->delay(kind_).at_once_permille);
}

void SimLoop::Post(Task task) {
  if (gone_) return;
  if (TakesAtOnce()) {
    scheduler_->chain_.push_back({.loop = this, .task = std::move(task)});
    return;
  }
  Time when = scheduler_->now() + scheduler_->Draw(runtime_->delay(kind_));
  if (ordered_) when = last_ = std::max(when, last_ + 1);
  Enqueue(when, std::move(task));
}

void SimLoop::PostAfter(absl::Duration delay, Task task) {
  if (gone_) return;
  const Time nominal = absl::ToInt64Nanoseconds(delay);
  const Time due = nominal / runtime_->rate_permille_ * 1000;
  Enqueue(scheduler_->now() + due + scheduler_->Draw(runtime_->delay(kind_)), std::move(task));
}

void SimLoop::AssertCurrent() const {
  KV_CHECK(!ordered_ || scheduler_->current_ == this, "on another loop than claimed");
}

void SimLoop::Resume() {
  Time when = scheduler_->now();
  for (const auto& [slot, ticket] : std::exchange(waiting_, {})) {
    if (scheduler_->slots_[slot].ticket == ticket) scheduler_->Push(++when, slot);
  }
  last_ = std::max(last_, when);
}

absl::Duration SimRuntime::Uptime() {
  const Time passed = scheduler_->now() - rate_since_;
  return absl::Nanoseconds(uptime_then_ + passed / 1000 * rate_permille_);
}

std::unique_ptr<Loop> SimRuntime::NewLoop(std::string_view name) {
  return std::make_unique<SimLoop>(this, KindOf(name), /*ordered=*/true);
}

std::unique_ptr<Loop> SimRuntime::NewUnorderedLoop(std::string_view name, int) {
  return std::make_unique<SimLoop>(this, KindOf(name), /*ordered=*/false);
}

void SimRuntime::SetClockRate(int64_t permille) {
  uptime_then_ = absl::ToInt64Nanoseconds(Uptime());
  rate_since_ = scheduler_->now();
  rate_permille_ = permille;
}

void SimRuntime::ResumeLoops() {
  for (SimLoop* loop : loops_) {
    if (!loop->held()) loop->Resume();
  }
}

void SimRuntime::Pause() { paused_ = true; }

void SimRuntime::Continue() {
  paused_ = false;
  ResumeLoops();
}

void SimRuntime::Hold(LoopKind kind) { held_[static_cast<size_t>(kind)] = true; }

void SimRuntime::Release(LoopKind kind) {
  held_[static_cast<size_t>(kind)] = false;
  ResumeLoops();
}

}  // namespace kv::sim

#include "server/raft/progress.h"

#include <algorithm>

#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {

bool Progress::MaySend(size_t in_flight_max) const {
  switch (state_) {
    case State::kProbe:
      return !probe_sent_;
    case State::kReplicate:
      return window_.size() < in_flight_max;
    case State::kSnapshot:
      break;
  }
  return false;
}

void Progress::Sent(Index last) {
  KV_CHECK(state_ != State::kSnapshot && last + 1 >= next_);
  if (state_ == State::kProbe) {
    probe_sent_ = true;
    return;
  }
  if (last < next_) return;
  next_ = last + 1;
  window_.push_back(last);
}

bool Progress::Accepted(Index match) {
  const bool news = match > match_;
  if (!news) MARK("raft.acknowledged_again");
  match_ = MUTANT("raft.match_goes_back") ? match : std::max(match_, match);
  next_ = std::max(next_, match_ + 1);
  while (!window_.empty() && window_.front() <= match && !MUTANT("raft.window_leaks")) {
    window_.pop_front();
  }
  if (state_ == State::kProbe || (state_ == State::kSnapshot && match_ >= floor_)) {
    state_ = State::kReplicate;
    next_ = match_ + 1;
    window_.clear();
    probe_sent_ = false;
  }
  return news;
}

bool Progress::Rejected(Index rejected, Index next) {
  if (state_ == State::kSnapshot || rejected <= match_) {
    MARK("raft.late_rejection");
    return false;
  }
  if (state_ == State::kProbe && rejected != next_ - 1) return false;
  if (state_ == State::kReplicate && rejected >= next_) return false;
  BecomeProbe();
  next_ = std::clamp(next, match_ + 1, rejected);
  return true;
}

void Progress::BecomeProbe() {
  if (state_ == State::kReplicate) next_ = match_ + 1;
  state_ = State::kProbe;
  probe_sent_ = false;
  window_.clear();
}

void Progress::BecomeSnapshot(Index floor) {
  state_ = State::kSnapshot;
  floor_ = floor;
  window_.clear();
  probe_sent_ = false;
}

void Progress::SnapshotEnded(Index at) {
  if (state_ != State::kSnapshot) return;
  state_ = State::kProbe;
  next_ = std::max(match_, at) + 1;
  probe_sent_ = true;
}

void Progress::HeardFrom() {
  if (MUTANT("raft.probe_not_repeated")) return;
  if (probe_sent_) MARK("raft.repeat_probe");
  probe_sent_ = false;
}

void Progress::CheckInvariants() const {
  KV_CHECK(match_ < next_);
  KV_CHECK(state_ == State::kReplicate || window_.empty());
  KV_CHECK(state_ == State::kProbe || !probe_sent_);
  KV_CHECK(std::is_sorted(window_.begin(), window_.end()));
  KV_CHECK(window_.empty() || (window_.front() > match_ && window_.back() < next_));
}

}  // namespace kv::raft

// How a follower takes the leader's log: appends, heartbeats, snapshots; and its reads.
#include <algorithm>
#include <utility>

#include "server/raft/core.h"
#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {

void Core::On(MemberId from, Append& append) {
  HearLeader(from);
  // The log is about to be replaced: what it would take now, it would lose (R56).
  if (adopting_) {
    MARK("raft.ignore_append_while_adopting");
    return;
  }
  const Index end = append.prev.index + append.entries.size();
  if (end <= commit_) {
    // Old news. Every leader's log equals this one through its commit index (§3.6.3).
    MARK("raft.append_of_old_news");
    Send(from, AppendReply{.verdict = Accepted{.match = commit_}, .flow = FlowHere()});
    return;
  }
  if (append.prev.index < log_.base().index) {
    // What the log has forgotten is committed, and so agreed upon.
    MARK("raft.append_reaches_before_base");
    const Index known = log_.base().index - append.prev.index;
    const auto first_unknown = append.entries.begin() + static_cast<std::ptrdiff_t>(known);
    const Term term = (*std::prev(first_unknown))->term;
    KV_CHECK(term == log_.base().term, "the leader's log differs from the committed one");
    append.entries.erase(append.entries.begin(), first_unknown);
    append.prev = log_.base();
  }
  const bool unheeded = MUTANT("raft.append_prev_term_unheeded") && append.prev.index > commit_ &&
                        append.prev.index <= log_.last_index();
  if (!log_.Holds(append.prev) && !unheeded) {
    KV_CHECK(append.prev.index > commit_, "the leader's log differs from the committed one");
    if (append.prev.index <= log_.last_index()) MARK("raft.reject_conflicting_append");
    const Position hint = log_.LastAtMost(append.prev.index, append.prev.term);
    Send(from, AppendReply{.verdict = Rejected{.prev = append.prev.index, .hint = hint},
                           .flow = FlowHere()});
    return;
  }
  TakeEntries(append.entries);
  // §3.5: only as far as this append has verified, not to the end of the log.
  CommitThrough(
      std::min(append.commit, MUTANT("raft.commit_past_the_append") ? log_.last_index() : end));
  const Index match = MUTANT("raft.acknowledge_the_whole_log") ? log_.last_index() : end;
  Send(from, AppendReply{.verdict = Accepted{.match = match}, .flow = FlowHere()});
}

void Core::TakeEntries(std::vector<EntryPtr>& entries) {
  auto entry = entries.begin();
  while (entry != entries.end() && log_.Holds((*entry)->position())) {
    if (MUTANT("raft.truncate_without_conflict") && (*entry)->index > commit_) break;
    ++entry;
  }
  if (entry == entries.end()) return;
  const Index first = (*entry)->index;
  if (first <= log_.last_index()) {
    KV_CHECK(first > commit_,
             "a committed entry would be overwritten at index " + std::to_string(first));
    MARK("raft.overwrite_entries");
    log_.TruncateFrom(first);
  }
  for (; entry != entries.end(); ++entry) log_.Append(std::move(*entry));
}

void Core::On(MemberId from, const Heartbeat& heartbeat) {
  HearLeader(from);
  if (!adopting_) {
    KV_CHECK(heartbeat.commit <= log_.last_index(),
             "this member lost entries that it acknowledged: the log ends at " +
                 std::to_string(log_.last_index()) + ", the leader counted it at " +
                 std::to_string(heartbeat.commit));
    CommitThrough(heartbeat.commit);
  }
  Send(from, HeartbeatReply{.round = heartbeat.round, .flow = FlowHere()});
}

// Whoever sends a snapshot need not lead any more: what it holds is committed all the same. So an
// offer proves no leadership.
void Core::On(MemberId from, SnapshotOffer& offer) {
  if (from == leader_) ResetElectionTimer();
  if (IsLeader()) {
    refused_snapshots_.push_back(std::move(offer));
    return;
  }
  const bool held = log_.Holds(offer.at);
  const bool older = offer.at.index <= commit_ && !MUTANT("raft.adopt_older_snapshot");
  if (adopting_ || (held && !MUTANT("raft.snapshot_over_longer_log")) || older) {
    if (older) MARK("raft.refuse_older_snapshot");
    if (adopting_) MARK("raft.refuse_second_snapshot");
    // A log that holds the position keeps its tail: some of it may be acknowledged (R55).
    if (!adopting_ && held && offer.at.index > commit_) MARK("raft.refuse_snapshot_of_held_log");
    if (!adopting_ && held) CommitThrough(offer.at.index);
    if (!adopting_) {
      Send(from, AppendReply{.verdict = Accepted{.match = commit_}, .flow = FlowHere()});
    }
    refused_snapshots_.push_back(std::move(offer));
    return;
  }
  // A candidate would refuse the snapshot that it needs, and could not win without it (R14).
  BecomeFollower(hard_state_.term, leader_);
  MARK("raft.adopt_snapshot");
  adopting_ = std::move(offer);
  adopting_from_ = from;
  adopting_term_ = hard_state_.term;
  adopting_given_ = false;
}

void Core::SnapshotAdopted(Position at, Members members) {
  KV_CHECK(adopting_ && adopting_given_ && adopting_->at == at, "nobody asked to adopt this");
  KV_CHECK(!IsLeader() && at.index > commit_);
  adopting_.reset();
  if (members.IsJoint()) MARK("raft.snapshot_while_joint");
  if (members.IsJoint() && MUTANT("raft.snapshot_forgets_outgoing")) {
    members.outgoing.clear();
    members.learners_next.clear();
  }
  if (MUTANT("raft.term_of_snapshot")) hard_state_.term = at.term;
  log_.Reset(at, std::move(members));
  commit_ = given_ = applied_ = durable_ = at.index;
  const MemberId waiting = leader_ != 0 ? leader_ : adopting_from_;
  Send(waiting, AppendReply{.verdict = Accepted{.match = at.index}, .flow = FlowHere()});
  RefreshStanding();
}

void Core::On(MemberId from, const ReadReply& reply) {
  const bool late = reply.number != forwarded_.number;
  if (late) MARK("raft.late_read_reply");
  if (from != leader_ || forwarded_.asked.empty()) return;
  if (late && !MUTANT("raft.late_read_reply_counts")) return;
  for (const ReadId id : std::exchange(forwarded_.asked, {})) {
    grants_.push_back({.id = id, .index = reply.index});
  }
}

void Core::TickForwardedReads() {
  if (forwarded_.asked.empty()) return;
  // Long enough for a round of heartbeats to be lost and repeated.
  if (++forwarded_.elapsed < 2 * options_.heartbeat_ticks + 1) return;
  MARK("raft.repeat_read_request");
  forwarded_.gathering.insert(forwarded_.gathering.begin(), forwarded_.asked.begin(),
                              forwarded_.asked.end());
  forwarded_.asked.clear();
}

void Core::AskLeader() {
  if (!forwarded_.asked.empty() || forwarded_.gathering.empty()) return;
  forwarded_.asked = std::exchange(forwarded_.gathering, {});
  forwarded_.elapsed = 0;
  Send(leader_, ReadRequest{.number = ++forwarded_.number});
}

}  // namespace kv::raft

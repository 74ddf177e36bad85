// What a leader does: propose, replicate, commit, confirm reads, change members, hand over.
#include <algorithm>
#include <utility>

#include "server/raft/core.h"
#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {

void Core::BecomeLeader() {
  KV_CHECK(hard_state_.vote == self_ && hard_state_durable_ == hard_state_);
  Leader& leader = role_.emplace<Leader>();
  leader_ = self_;
  leader.term_start = log_.last_index() + 1;
  if (log_.members().IsJoint()) MARK("raft.lead_while_joint");
  if (commit_ < log_.last_index()) MARK("raft.lead_with_uncommitted_entries");
  FollowMembers(leader);
  // §6.4, §3.6.2: nothing of earlier terms commits, and no read is safe, before an entry of this
  // term does.
  AppendOwn(EntryKind::kEmpty, {});
}

void Core::TickLeader(Leader& leader) {
  if (++leader.quorum_elapsed >= options_.election_ticks) {
    leader.quorum_elapsed = 0;
    const bool heard = IsQuorum(log_.members(), [this, &leader](MemberId id) {
      return id == self_ || leader.followers.at(id).active;
    });
    for (auto& [id, follower] : leader.followers) {
      follower.was_active = std::exchange(follower.active, false);
    }
    if (!heard) {
      MARK("raft.step_down_without_quorum");
      BecomeFollower(hard_state_.term, 0);
      return;
    }
  }
  if (leader.successor != 0 && ++leader.successor_elapsed >= options_.election_ticks &&
      !MUTANT("raft.transfer_never_ends")) {
    MARK("raft.transfer_times_out");
    leader.successor = 0;
  }
  if (++leader.heartbeat_elapsed < options_.heartbeat_ticks) return;
  leader.heartbeat_elapsed = 0;
  for (auto& [id, follower] : leader.followers) {
    follower.nudge = true;
    SendHeartbeat(id, follower, leader.round);
  }
  if (leader.successor != 0) MARK("raft.transfer_asked_again");
  HandOver(leader);
}

void Core::SendHeartbeat(MemberId to, Progress& follower, ReadRound round) {
  // Not past its match: a heartbeat verifies nothing, so it may only say what is known.
  const Index commit =
      MUTANT("raft.heartbeat_tells_too_much") ? commit_ : std::min(follower.match(), commit_);
  follower.commit_told = std::max(follower.commit_told, commit);
  Send(to, Heartbeat{.commit = commit, .round = round});
}

void Core::AppendOwn(EntryKind kind, std::string data) {
  KV_CHECK(log_.last_index() < kIndexMax);
  log_.Append(MakeEntry(log_.last_index() + 1, hard_state_.term, kind, std::move(data)));
}

ProposeResult Core::Propose(std::vector<std::string> commands) {
  KV_CHECK(!commands.empty());
  const auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return {.refusal = ProposeRefusal::kNotLeader, .first = {}};
  if (leader->successor != 0) return {.refusal = ProposeRefusal::kTransferring, .first = {}};
  if (log_.bytes() >= options_.max_log_bytes || commands.size() >= kIndexMax - log_.last_index()) {
    return {.refusal = ProposeRefusal::kLogFull, .first = {}};
  }
  const Position first = {.index = log_.last_index() + 1, .term = hard_state_.term};
  for (std::string& command : commands) AppendOwn(EntryKind::kCommand, std::move(command));
  return {.refusal = ProposeRefusal::kNone, .first = first};
}

ChangeResult Core::ChangeMembers(const MemberChange& change) {
  const auto refuse = [](ChangeRefusal refusal) {
    return ChangeResult{.refusal = refusal, .position = {}, .joint = false};
  };
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return refuse(ChangeRefusal::kNotLeader);
  if (leader->successor != 0) return refuse(ChangeRefusal::kTransferring);
  if (commit_ < leader->term_start) {
    MARK("raft.refuse_change_before_own_commit");
    return refuse(ChangeRefusal::kNotEstablished);
  }
  if (log_.members().IsJoint() || log_.members_index() > commit_) {
    MARK("raft.refuse_change_under_way");
    return refuse(ChangeRefusal::kUnderWay);
  }
  const ChangeOutcome outcome = PlanChange(log_.members(), change);
  if (outcome.refusal != ChangeRefusal::kNone) return refuse(outcome.refusal);
  AppendOwn(EntryKind::kMembers, Encode(outcome.next));
  FollowMembers(*leader);
  RefreshStanding();
  return {
      .refusal = ChangeRefusal::kNone, .position = log_.last(), .joint = outcome.next.IsJoint()};
}

void Core::FollowMembers(Leader& leader) {
  const std::vector<MemberId> all = log_.members().All();
  std::erase_if(leader.followers, [&](const auto& follower) {
    if (std::binary_search(all.begin(), all.end(), follower.first)) return false;
    leader.departed.push_back(follower.first);
    return true;
  });
  for (const MemberId id : all) {
    if (id == self_) continue;
    const auto [follower, added] = leader.followers.try_emplace(id, log_.last_index() + 1);
    if (added) follower->second.append_due = true;
  }
}

void Core::SendAppends(Leader& leader) {
  for (auto& [id, follower] : leader.followers) {
    SendAppendsTo(id, follower);
    if (std::min(follower.match(), commit_) > follower.commit_told) {
      SendHeartbeat(id, follower, leader.round);
    }
  }
}

void Core::SendAppendsTo(MemberId to, Progress& follower) {
  if (follower.state() == Progress::State::kSnapshot) return;
  if (follower.next() <= log_.base().index) {
    // Whoever is not there to take a snapshot does not cause one to be made (R62).
    const bool waits = follower.state() == Progress::State::kProbe &&
                       !follower.MaySend(options_.max_inflight_appends);
    if (waits || !follower.responsive) return;
    MARK("raft.need_snapshot");
    follower.BecomeSnapshot(applied_);
    need_snapshot_.push_back(to);
    return;
  }
  if (follower.flow == Flow::kHold) MARK("raft.follower_holds");
  while (follower.flow == Flow::kOpen && follower.next() <= log_.last_index() &&
         follower.MaySend(options_.max_inflight_appends)) {
    SendAppend(to, follower, log_.last_index());
  }
  if (follower.append_due) SendAppend(to, follower, follower.next() - 1);
}

// Entries from follower.next() through `last` at the most; none if `last` is before it.
void Core::SendAppend(MemberId to, Progress& follower, Index last) {
  const Index before = follower.next() - 1;
  Append append = {.prev = {.index = before, .term = log_.TermAt(before).value()},
                   .entries = {},
                   .commit = commit_};
  if (last > before) append.entries = log_.Slice(before, last, options_.max_append_bytes);
  const Index end = before + append.entries.size();
  follower.Sent(end);
  follower.append_due = false;
  if (follower.state() == Progress::State::kReplicate) {
    follower.commit_told = std::max(follower.commit_told, std::min(commit_, end));
  }
  Send(to, std::move(append));
}

void Core::AdvanceCommit() {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  Index reached = QuorumIndex(log_.members(), [this, leader](MemberId id) -> Index {
    if (id == self_)
      return MUTANT("raft.leader_counts_unwritten") ? log_.last_index() : log_.stable();
    return leader->followers.at(id).match();
  });
  if (MUTANT("raft.learner_in_quorum") && !log_.members().IsJoint()) {
    Members all = log_.members();
    all.voters = all.All();
    all.learners.clear();
    reached = QuorumIndex(all, [this, leader](MemberId id) {
      return id == self_ ? log_.stable() : leader->followers.at(id).match();
    });
  }
  // §3.6.2: an entry of an earlier term may be on a majority and yet be overwritten.
  if (reached <= commit_) return;
  if (log_.TermAt(reached) != hard_state_.term) {
    MARK("raft.majority_holds_an_old_term");
    if (!MUTANT("raft.commit_of_an_old_term")) return;
  }
  if (log_.stable() < reached) MARK("raft.commit_without_own_disk");
  CommitThrough(reached);
  if (log_.members_index() <= commit_) MembersCommitted(*leader);
}

void Core::MembersCommitted(Leader& leader) {
  for (const MemberId id : std::exchange(leader.departed, {})) Send(id, Removed{});
  if (log_.members().IsJoint() && !MUTANT("raft.joint_never_left")) {
    MARK("raft.leave_joint");
    AppendOwn(EntryKind::kMembers, Encode(LeaveJoint(log_.members())));
    FollowMembers(leader);
  }
}

// §4.2.2: it leads until the configuration without its vote is committed.
bool Core::IsDismissed(const Leader& leader) const {
  return commit_ >= leader.term_start && log_.members_index() <= commit_ &&
         !log_.members().IsVoter(self_);
}

// The others have just been told of the commit, and need not wait for an election timeout.
void Core::StepDownDismissed(Leader& leader) {
  MARK("raft.dismissed_leader_steps_down");
  if (const MemberId successor = BestSuccessor(leader)) Send(successor, TimeoutNow{});
  BecomeFollower(hard_state_.term, 0);
  RefreshStanding();
}

// The active voter whose log is furthest; 0 if there is none.
MemberId Core::BestSuccessor(const Leader& leader) const {
  MemberId best = 0;
  Index furthest = 0;
  for (const MemberId id : log_.members().voters) {
    if (id == self_) continue;
    const Progress& follower = leader.followers.at(id);
    if (!follower.active && !follower.was_active) continue;
    if (best != 0 && follower.match() <= furthest) continue;
    best = id;
    furthest = follower.match();
  }
  return best;
}

TransferRefusal Core::TransferLeadership(MemberId to) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return TransferRefusal::kNotLeader;
  if (leader->successor != 0) {
    return to == 0 || to == leader->successor ? TransferRefusal::kNone : TransferRefusal::kUnderWay;
  }
  if (to == 0) to = BestSuccessor(*leader);
  const std::vector<MemberId>& voters = log_.members().voters;
  if (to == self_ || !std::binary_search(voters.begin(), voters.end(), to)) {
    return TransferRefusal::kNotVoter;
  }
  leader->successor = to;
  leader->successor_elapsed = 0;
  leader->followers.at(to).append_due = true;
  HandOver(*leader);
  RefreshStanding();
  return TransferRefusal::kNone;
}

void Core::HandOver(Leader& leader) {
  if (leader.successor == 0) return;
  const auto successor = leader.followers.find(leader.successor);
  if (successor == leader.followers.end()) {
    leader.successor = 0;
    return;
  }
  if (successor->second.match() == log_.last_index()) Send(successor->first, TimeoutNow{});
}

void Core::Read(ReadId id) {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    leader->gathering.push_back({.from = self_, .number = id});
  } else if (leader_ != 0) {
    forwarded_.gathering.push_back(id);
  } else {
    dropped_reads_.push_back(id);
  }
}

// §6.4, with a number in place of one exchange per read: whoever answers round n, or a later one,
// in this term had elected no other leader by then, and every read of the round had begun.
void Core::StartReadRound(Leader& leader) {
  if (commit_ < leader.term_start) {
    if (!leader.gathering.empty()) MARK("raft.read_waits_for_own_commit");
    if (!MUTANT("raft.read_before_own_commit")) return;
  }
  const auto confirmed = [this, &leader] {
    if (MUTANT("raft.read_without_asking")) return true;
    return IsQuorum(log_.members(), [this, &leader](MemberId id) {
      return id == self_ || leader.followers.at(id).round >= leader.round;
    });
  };
  if (!leader.confirming.empty() && confirmed()) {
    GrantReads(std::exchange(leader.confirming, {}), leader.confirming_index);
  }
  if (!leader.confirming.empty() || leader.gathering.empty()) return;
  if (!MUTANT("raft.read_round_used_again") || leader.round == 0) ++leader.round;
  leader.confirming = std::exchange(leader.gathering, {});
  leader.confirming_index = commit_;
  if (confirmed()) {
    GrantReads(std::exchange(leader.confirming, {}), leader.confirming_index);
    return;
  }
  for (auto& [id, follower] : leader.followers) {
    if (log_.members().IsVoter(id)) SendHeartbeat(id, follower, leader.round);
  }
}

void Core::GrantReads(const std::vector<OpenRead>& reads, Index index) {
  for (const OpenRead& read : reads) {
    if (read.from == self_) {
      grants_.push_back({.id = read.number, .index = index});
    } else {
      Send(read.from, ReadReply{.number = read.number, .index = index});
    }
  }
}

void Core::On(MemberId from, const AppendReply& reply) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  const auto found = leader->followers.find(from);
  if (found == leader->followers.end()) return;
  Progress& follower = found->second;
  follower.active = follower.responsive = true;
  follower.flow = reply.flow;
  if (const auto* rejected = std::get_if<Rejected>(&reply.verdict)) {
    Take(follower, *rejected);
  } else {
    Take(from, *leader, follower, std::get<Accepted>(reply.verdict));
  }
}

void Core::Take(MemberId from, Leader& leader, Progress& follower, const Accepted& accepted) {
  if (accepted.match > log_.last_index()) {
    return RefuseAcknowledgement();
  }
  if (follower.Accepted(accepted.match)) AdvanceCommit();
  if (leader.successor == from) HandOver(leader);
}

void Core::Take(Progress& follower, const Rejected& rejected) {
  if (rejected.hint.index < log_.base().index) MARK("raft.follower_before_base");
  // The follower reaches back before our log: nothing in the log can help it.
  const Index next = rejected.hint.index < log_.base().index
                         ? rejected.hint.index + 1
                         : log_.LastAtMost(rejected.hint.index, rejected.hint.term).index + 1;
  if (!follower.Rejected(rejected.prev, next)) return;
  follower.append_due = true;
  follower.commit_told = 0;
}

void Core::On(MemberId from, const HeartbeatReply& reply) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  const auto found = leader->followers.find(from);
  if (found == leader->followers.end()) return;
  if (reply.round > leader->round) return RefuseAcknowledgement();
  Progress& follower = found->second;
  follower.active = follower.responsive = true;
  follower.flow = reply.flow;
  follower.round = std::max(follower.round, reply.round);
  // Once a heartbeat: rounds of reads shall not multiply the probes.
  if (!std::exchange(follower.nudge, false)) return;
  follower.HeardFrom();
  if (follower.match() < log_.last_index() && follower.state() != Progress::State::kSnapshot) {
    follower.append_due = true;
  }
}

void Core::On(MemberId from, const ReadRequest& request) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  // A follower waits for its latest number only.
  for (OpenRead& read : leader->gathering) {
    if (read.from != from) continue;
    read.number = std::max(read.number, request.number);
    return;
  }
  leader->gathering.push_back({.from = from, .number = request.number});
}

void Core::SnapshotSent(MemberId to, Position at, bool delivered) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  const auto found = leader->followers.find(to);
  if (found == leader->followers.end()) return;
  if (!delivered) MARK("raft.snapshot_failed");
  if (!delivered && MUTANT("raft.snapshot_waits_for_ever")) return;
  found->second.SnapshotEnded(delivered ? std::min(at.index, log_.last_index()) : 0);
  found->second.commit_told = 0;
}

void Core::Unreachable(MemberId peer) {
  auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return;
  const auto found = leader->followers.find(peer);
  if (found == leader->followers.end()) return;
  found->second.responsive = false;
  if (found->second.state() != Progress::State::kReplicate) return;
  MARK("raft.probe_lost_peer");
  found->second.BecomeProbe();
  found->second.commit_told = 0;
}

}  // namespace kv::raft

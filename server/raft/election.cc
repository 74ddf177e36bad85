// How a leader comes to be: pre-vote, vote, leadership transfer.
#include <utility>

#include "server/raft/core.h"
#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {

void Core::TickElection() {
  if (++election_elapsed_ < election_timeout_) return;
  ResetElectionTimer();
  if (MayCampaign()) {
    StartPreVote();
  } else {
    // Whoever waits for this leader shall hear that there is none.
    MARK("raft.timeout_of_one_that_may_not_campaign");
    BecomeFollower(hard_state_.term, 0);
  }
}

void Core::ResetElectionTimer() {
  election_elapsed_ = 0;
  const uint64_t ticks = static_cast<uint64_t>(options_.election_ticks);
  election_timeout_ = options_.election_ticks + static_cast<int>(random_.Below(ticks));
}

bool Core::MayCampaign() const {
  // A member that adopts a snapshot lacks committed entries: it cannot win, and would refuse the
  // very snapshot that it needs.
  if (removed_ || adopting_ || hard_state_.term >= kTermMax) return false;
  if (log_.members().IsVoter(self_)) return true;
  if (MUTANT("raft.learner_campaigns") && log_.members().IsLearner(self_)) return true;
  // §4.2.2: until the configuration without this member commits, nobody else may be able to win.
  const Members* previous = log_.previous_members();
  const bool may =
      log_.members_index() > commit_ && previous != nullptr && previous->IsVoter(self_);
  if (may) MARK("raft.campaign_while_leaving");
  return may;
}

bool Core::HearsFromLeader() const {
  if (IsLeader()) return true;  // Or it would have stepped down: it checks its quorum.
  return leader_ != 0 && election_elapsed_ < options_.election_ticks;
}

bool Core::IsUpToDate(Position last) const {
  if (MUTANT("raft.vote_for_any_log")) return true;
  const Position own = log_.last();
  if (MUTANT("raft.logs_compared_by_length")) return last.index >= own.index;
  return last.term > own.term || (last.term == own.term && last.index >= own.index);
}

// §4.2.3: a removed member is not told by its log that it was; it learns it when it asks.
bool Core::AnswerRemoved(MemberId from) {
  if (!log_.MembersAt(commit_).IsRemoved(from)) return false;
  MARK("raft.tell_removed_member");
  Send(from, Removed{});
  return true;
}

void Core::StartPreVote() {
  BecomeFollower(hard_state_.term, 0);
  ResetElectionTimer();
  role_ = PreCandidate{.votes = {{self_, Vote::kGranted}}};
  for (const MemberId id : log_.members().All()) {
    if (id == self_ || !log_.members().IsVoter(id)) continue;
    Send(id, PreVoteRequest{.proposed = hard_state_.term + 1, .last = log_.last()});
  }
  CountVotes();
}

void Core::Campaign(Cause cause) {
  BecomeFollower(hard_state_.term, 0);
  ResetElectionTimer();
  EnterTerm(hard_state_.term + 1, self_);
  role_ = Candidate{};
  for (const MemberId id : log_.members().All()) {
    if (id == self_ || !log_.members().IsVoter(id)) continue;
    Send(id, VoteRequest{.last = log_.last(), .cause = cause});
  }
}

void Core::CountOwnVote() {
  auto* candidate = std::get_if<Candidate>(&role_);
  if (candidate == nullptr) return;
  if (hard_state_durable_ != hard_state_ && !MUTANT("raft.own_vote_before_durable")) return;
  candidate->votes[self_] = Vote::kGranted;
  CountVotes();
}

// Granted: won. Denied: cannot be won any more. Nothing: open.
template <typename Votes>
std::optional<Vote> Core::Outcome(const Votes& votes) const {
  const auto has = [&votes](MemberId id, Vote vote) {
    const auto found = votes.find(id);
    return found != votes.end() && found->second == vote;
  };
  const Members& members = log_.members();
  if (IsQuorum(members, [&has](MemberId id) { return has(id, Vote::kGranted); })) {
    return Vote::kGranted;
  }
  if (!IsQuorum(members, [&has](MemberId id) { return !has(id, Vote::kDenied); })) {
    return Vote::kDenied;
  }
  return std::nullopt;
}

void Core::CountVotes() {
  if (const auto* asking = std::get_if<PreCandidate>(&role_)) {
    const std::optional<Vote> outcome = Outcome(asking->votes);
    if (outcome == Vote::kGranted) Campaign(Cause::kTimeout);
    if (outcome == Vote::kDenied) MARK("raft.pre_vote_denied");
    if (outcome == Vote::kDenied) BecomeFollower(hard_state_.term, 0);
  } else if (const auto* candidate = std::get_if<Candidate>(&role_)) {
    const std::optional<Vote> outcome = Outcome(candidate->votes);
    // Others can answer before this member hears that its own vote is durable; CountOwnVote goes
    // on.
    if (outcome == Vote::kGranted && candidate->votes.contains(self_)) BecomeLeader();
    if (outcome == Vote::kDenied) MARK("raft.election_lost");
    if (outcome == Vote::kDenied) BecomeFollower(hard_state_.term, 0);
  }
}

void Core::On(MemberId from, const PreVoteRequest& request) {
  if (AnswerRemoved(from)) return;
  if (HearsFromLeader()) MARK("raft.pre_vote_refused_for_a_leader");
  const bool grants =
      request.proposed > hard_state_.term && !HearsFromLeader() && IsUpToDate(request.last);
  Send(from,
       PreVoteReply{.proposed = request.proposed, .vote = grants ? Vote::kGranted : Vote::kDenied});
}

void Core::On(MemberId from, const PreVoteReply& reply) {
  auto* asking = std::get_if<PreCandidate>(&role_);
  if (asking == nullptr || reply.proposed != hard_state_.term + 1) {
    MARK("raft.late_pre_vote_reply");
    return;
  }
  asking->votes[from] = reply.vote;
  CountVotes();
}

void Core::On(MemberId from, const VoteRequest& request) {
  if (AnswerRemoved(from)) return;
  const bool free = hard_state_.vote == from || (hard_state_.vote == 0 && leader_ == 0) ||
                    (MUTANT("raft.second_vote_in_a_term") && !IsLeader());
  if (!free) MARK("raft.deny_second_vote");
  if (!free || !IsUpToDate(request.last)) {
    if (free) MARK("raft.deny_vote_to_old_log");
    Send(from, VoteReply{.vote = Vote::kDenied});
    return;
  }
  BecomeFollower(hard_state_.term, leader_);
  ResetElectionTimer();
  hard_state_.vote = from;
  Send(from, VoteReply{.vote = Vote::kGranted});
}

void Core::On(MemberId from, const VoteReply& reply) {
  auto* candidate = std::get_if<Candidate>(&role_);
  if (candidate == nullptr) return;
  if (!candidate->votes.try_emplace(from, reply.vote).second) {  // The first answer stands.
    MARK("raft.repeated_vote_reply");
  }
  CountVotes();
}

void Core::On(MemberId from, const TimeoutNow&) {
  if (from != leader_ || IsLeader() || !MayCampaign()) {
    MARK("raft.ignore_timeout_now");
    return;
  }
  MARK("raft.campaign_by_transfer");
  Campaign(Cause::kTransfer);
}

void Core::On(MemberId, const Removed&) {
  MARK("raft.told_that_it_was_removed");
  removed_ = true;
  BecomeFollower(hard_state_.term, 0);
}

}  // namespace kv::raft

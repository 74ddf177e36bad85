#include "server/raft/core.h"

#include <algorithm>
#include <utility>

#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {
namespace {

// The messages that wait for the disk (README.md, rules 5, 10, 36).
template <typename T>
constexpr bool kIsPromise = std::is_same_v<T, AppendReply> || std::is_same_v<T, VoteReply> ||
                            std::is_same_v<T, VoteRequest>;

bool IsPromise(const Message& message) {
  return std::visit([](const auto& m) { return kIsPromise<std::decay_t<decltype(m)>>; }, message);
}

bool IsPossible(Position position, Term sender_term) {
  return position.index <= kIndexMax && position.term <= sender_term;
}

bool IsKnown(EntryKind kind) {
  return kind == EntryKind::kEmpty || kind == EntryKind::kCommand || kind == EntryKind::kMembers;
}

// Whether a leader of `term` can have said this (README.md, rule 56).
bool IsSoundAppend(const Append& append, Term term) {
  if (!IsPossible(append.prev, term) || append.commit > kIndexMax) return false;
  if (append.entries.size() > kIndexMax - append.prev.index) return false;
  Position previous = append.prev;
  for (const EntryPtr& entry : append.entries) {
    if (entry == nullptr || entry->index != previous.index + 1) return false;
    if (entry->term < previous.term || entry->term > term || entry->term == 0) return false;
    if (!IsKnown(entry->kind)) return false;
    if (entry->kind == EntryKind::kMembers && !DecodeMembers(entry->data)) return false;
    previous = entry->position();
  }
  return true;
}

bool IsSoundOffer(const SnapshotOffer& offer, Term term) {
  if (!IsPossible(offer.at, term) || offer.at.index == 0 || offer.at.term == 0) return false;
  const std::optional<Members> members = DecodeMembers(offer.members);
  return members.has_value() && !members->voters.empty();
}

bool IsSoundReply(const AppendReply& reply, Term term) {
  if (const auto* accepted = std::get_if<Accepted>(&reply.verdict)) {
    return accepted->match <= kIndexMax;
  }
  const Rejected& rejected = std::get<Rejected>(reply.verdict);
  return rejected.prev <= kIndexMax && IsPossible(rejected.hint, term);
}

HardState Begin(const Found& found) {
  HardState begin = found.hard_state;
  // A founding brings no hard state: the members were agreed on in the term of the base.
  if (begin == HardState{} && found.entries.empty()) begin.term = found.base.term;
  const Term last = found.entries.empty() ? found.base.term : found.entries.back()->term;
  KV_CHECK(begin.term >= last, "the log holds a term that this member never entered");
  KV_CHECK(begin.term <= kTermMax);
  return begin;
}

}  // namespace

bool Output::empty() const {
  return messages.empty() && !write && committed.empty() && reads.empty() &&
         dropped_reads.empty() && need_snapshot.empty() && !adopt && refused_snapshots.empty() &&
         !drop && !standing;
}

Core::Core(MemberId self, const Options& options, Found found, uint64_t seed)
    : self_(self),
      options_(options),
      random_(seed),
      hard_state_(Begin(found)),
      log_(found.base, std::move(found.base_members), std::move(found.entries)),
      commit_(found.applied),
      given_(found.applied),
      applied_(found.applied),
      durable_(found.applied),
      hard_state_given_(found.hard_state),
      hard_state_durable_(found.hard_state) {
  KV_CHECK(self_ != 0);
  KV_CHECK(options_.heartbeat_ticks >= 1 && options_.election_ticks > options_.heartbeat_ticks);
  KV_CHECK(options_.max_inflight_appends >= 1);
  KV_CHECK(applied_ >= log_.base().index && applied_ <= log_.last_index(),
           "the machine and the log do not meet");
  forwarded_.number = random_.Next();
  ResetElectionTimer();
  standing_.self = self_;
  if (log_.members().IsSoleVoter(self_)) StartPreVote();
  RefreshStanding();
}

void Core::Tick() {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    TickLeader(*leader);
  } else {
    TickElection();
  }
  TickForwardedReads();
  RefreshStanding();
}

void Core::Step(Envelope received) {
  if (IsSound(received)) {
    Receive(std::move(received));
  } else {
    ++refused_messages_;
    if (auto* offer = std::get_if<SnapshotOffer>(&received.message)) {
      refused_snapshots_.push_back(std::move(*offer));
    }
  }
  RefreshStanding();
}

bool Core::IsSound(const Envelope& received) const {
  if (received.from == 0 || received.from == self_ || received.to != self_) return false;
  if (received.term > kTermMax || received.term > hard_state_.term + kTermJumpMax) return false;
  return FitsLimits(received.message, received.term);
}

bool Core::FitsLimits(const Message& message, Term term) const {
  return std::visit(
      [term](const auto& m) {
        using M = std::decay_t<decltype(m)>;
        if constexpr (std::is_same_v<M, PreVoteRequest>) {
          return m.proposed <= kTermMax && IsPossible(m.last, m.proposed);
        } else if constexpr (std::is_same_v<M, PreVoteReply>) {
          return m.proposed <= kTermMax;
        } else if constexpr (std::is_same_v<M, Removed> || std::is_same_v<M, HeartbeatReply>) {
          return true;
        } else if constexpr (std::is_same_v<M, VoteRequest>) {
          return term > 0 && IsPossible(m.last, term);
        } else if constexpr (std::is_same_v<M, Append>) {
          return term > 0 && IsSoundAppend(m, term);
        } else if constexpr (std::is_same_v<M, AppendReply>) {
          return term > 0 && IsSoundReply(m, term);
        } else if constexpr (std::is_same_v<M, Heartbeat>) {
          return term > 0 && m.commit <= kIndexMax;
        } else if constexpr (std::is_same_v<M, SnapshotOffer>) {
          return term > 0 && IsSoundOffer(m, term);
        } else if constexpr (std::is_same_v<M, ReadReply>) {
          return term > 0 && m.index <= kIndexMax;
        } else {
          return term > 0;
        }
      },
      message);
}

void Core::Receive(Envelope received) {
  // Asking for a pre-vote and granting one leave everybody's term alone (§9.6), whichever they come
  // from; a pre-vote counts by what was proposed.
  const bool asks = std::holds_alternative<PreVoteRequest>(received.message);
  const bool answers = std::holds_alternative<PreVoteReply>(received.message);
  const bool tells = std::holds_alternative<Removed>(received.message);
  if (received.term > hard_state_.term && !asks && !tells && !TakeNewerTerm(received)) return;
  if (received.term < hard_state_.term && !asks && !tells && !answers) {
    return AnswerOlderTerm(received);
  }
  std::visit([this, from = received.from](auto& message) { On(from, message); }, received.message);
}

// False: the message must not disturb this member.
bool Core::TakeNewerTerm(const Envelope& received) {
  if (const auto* request = std::get_if<VoteRequest>(&received.message)) {
    if (AnswerRemoved(received.from)) return false;
    // §4.2.3: whoever hears from a leader does not help to depose it.
    if (request->cause != Cause::kTransfer && HearsFromLeader()) {
      MARK("raft.ignore_disruptive_vote_request");
      return false;
    }
  }
  const bool from_leader = std::holds_alternative<Append>(received.message) ||
                           std::holds_alternative<Heartbeat>(received.message);
  BecomeFollower(received.term, from_leader ? received.from : 0);
  return true;
}

// The sender learns the term and steps down, or catches up. Replies of an older term need nothing.
void Core::AnswerOlderTerm(const Envelope& received) {
  if (MUTANT("raft.old_vote_replies_count")) {
    if (const auto* reply = std::get_if<VoteReply>(&received.message)) On(received.from, *reply);
  }
  if (std::holds_alternative<VoteRequest>(received.message)) {
    if (!AnswerRemoved(received.from)) Send(received.from, VoteReply{.vote = Vote::kDenied});
    return;
  }
  if (const auto* offer = std::get_if<SnapshotOffer>(&received.message)) {
    refused_snapshots_.push_back(*offer);
  } else if (!std::holds_alternative<Append>(received.message) &&
             !std::holds_alternative<Heartbeat>(received.message)) {
    return;
  }
  MARK("raft.tell_old_leader");
  Send(received.from, HeartbeatReply{.round = 0, .flow = FlowHere()});
}

void Core::BecomeFollower(Term term, MemberId leader) {
  KV_CHECK(term >= hard_state_.term);
  const bool changes = term != hard_state_.term || leader != leader_ || IsLeader();
  if (IsLeader() && term > hard_state_.term) MARK("raft.leader_meets_a_newer_term");
  if (term > hard_state_.term) EnterTerm(term, 0);
  if (changes) DropReads();
  if (MUTANT("raft.vote_forgotten_on_step_down")) hard_state_.vote = 0;
  if (!std::holds_alternative<Follower>(role_)) {
    role_ = Follower{};
    ResetElectionTimer();
  }
  leader_ = leader;
}

void Core::EnterTerm(Term term, MemberId vote) {
  KV_CHECK(term > hard_state_.term && term <= kTermMax);
  hard_state_ = {.term = term, .vote = vote};
  // Promises of an older term speak to a leader or candidate that is no more, about entries that
  // the new leader may overwrite before they are ever written.
  promises_.clear();
}

void Core::HearLeader(MemberId from) {
  KV_CHECK(!IsLeader(), "a second leader in term " + std::to_string(hard_state_.term) + ": " +
                            std::to_string(from));
  KV_CHECK(leader_ == 0 || leader_ == from,
           "two leaders in term " + std::to_string(hard_state_.term) + ": " +
               std::to_string(leader_) + " and " + std::to_string(from));
  BecomeFollower(hard_state_.term, from);
  ResetElectionTimer();
}

void Core::Send(MemberId to, Message message) {
  const bool at_once =
      MUTANT("raft.vote_reply_before_durable") && std::holds_alternative<VoteReply>(message);
  auto& queue = IsPromise(message) && !at_once ? promises_ : messages_;
  queue.push_back(
      {.from = self_, .to = to, .term = hard_state_.term, .message = std::move(message)});
}

void Core::DropReads() {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    for (auto* reads : {&leader->confirming, &leader->gathering}) {
      for (const OpenRead& read : *reads) {
        if (read.from == self_) dropped_reads_.push_back(read.number);
      }
      reads->clear();
    }
  }
  for (auto* reads : {&forwarded_.asked, &forwarded_.gathering}) {
    dropped_reads_.insert(dropped_reads_.end(), reads->begin(), reads->end());
    reads->clear();
  }
}

void Core::CommitThrough(Index index) {
  KV_CHECK(index <= log_.last_index());
  commit_ = std::max(commit_, index);
}

// D2: what is committed will be applied and become durable without anybody's help, so a hold always
// ends; entries that are not committed must keep coming, or they never would be.
Flow Core::FlowHere() const {
  if (adopting_) return Flow::kHold;
  return log_.BytesIn(log_.base().index, commit_) >= options_.max_log_bytes ? Flow::kHold
                                                                            : Flow::kOpen;
}

void Core::RefuseAcknowledgement() { ++refused_messages_; }

void Core::Persisted(WriteId id) {
  KV_CHECK(id > persisted_ && id <= last_write_, "a write that was not asked for, or twice");
  persisted_ = id;
  log_.Persisted(id);
  while (!hard_states_in_flight_.empty() && hard_states_in_flight_.front().first <= id) {
    hard_state_durable_ = hard_states_in_flight_.front().second;
    hard_states_in_flight_.pop_front();
  }
  CountOwnVote();
  AdvanceCommit();
  RefreshStanding();
}

void Core::Applied(Index index) {
  KV_CHECK(index <= given_, "the machine applied what was not given to it");
  applied_ = std::max(applied_, index);
}

void Core::DropThrough(Position position) {
  const std::optional<Term> term = log_.TermAt(position.index);
  KV_CHECK(adopting_ || !term || *term == position.term, "the machine is not of this log");
  durable_ = std::max(durable_, position.index);
}

Output Core::TakeOutput() {
  if (auto* leader = std::get_if<Leader>(&role_)) {
    StartReadRound(*leader);
    SendAppends(*leader);
    if (IsDismissed(*leader)) StepDownDismissed(*leader);
  }
  AskLeader();
  Output output;
  ForgetOldEntries(output);
  TakeWrite(output);
  TakeCommitted(output);
  output.messages = std::exchange(messages_, {});
  output.reads = std::exchange(grants_, {});
  output.dropped_reads = std::exchange(dropped_reads_, {});
  output.need_snapshot = std::exchange(need_snapshot_, {});
  output.refused_snapshots = std::exchange(refused_snapshots_, {});
  if (std::exchange(standing_changed_, false)) output.standing = standing_;
  return output;
}

void Core::TakeWrite(Output& output) {
  const bool state_changed = hard_state_ != hard_state_given_;
  if (!state_changed && !log_.HasUnwritten() && promises_.empty()) return;
  const WriteId id = ++last_write_;
  Write& write = output.write.emplace();
  write.id = id;
  write.update = log_.TakeUnwritten(id);
  if (state_changed) {
    write.update.hard_state = hard_state_;
    hard_state_given_ = hard_state_;
    hard_states_in_flight_.emplace_back(id, hard_state_);
  }
  write.promises = std::exchange(promises_, {});
}

void Core::TakeCommitted(Output& output) {
  if (adopting_) {
    // Recovery relies on the machine's term being one that the log store has seen (R57), and an
    // adoption shall not race the writes before it (R56).
    const bool settled = hard_state_durable_.term >= adopting_term_ && log_.IsSettled();
    if (!settled || adopting_given_) return;
    output.adopt = adopting_;
    adopting_given_ = true;
    return;
  }
  const Index through =
      MUTANT("raft.apply_before_durable") ? commit_ : std::min(commit_, log_.stable());
  if (through <= given_) return;
  output.committed.reserve(through - given_);
  while (given_ < through) output.committed.push_back(log_.At(++given_));
}

void Core::ForgetOldEntries(Output& output) {
  const uint64_t bytes = log_.bytes();
  const uint64_t tail = options_.max_log_bytes / 2;
  const uint64_t step = options_.max_log_bytes / 16;
  if (bytes < tail + 2 * step) return;
  // Not past the end of what would leave the tail.
  Index through = std::min({durable_, applied_, log_.stable(), log_.EndOfPrefix(bytes - tail)});
  const auto* leader = std::get_if<Leader>(&role_);
  if (leader != nullptr && bytes < tail + 4 * step) {
    for (const auto& [id, follower] : leader->followers) {
      if (follower.active) through = std::min(through, follower.wanted());
    }
  }
  // In steps, so that the store is not asked to forget entry by entry.
  if (through <= log_.base().index || log_.BytesIn(log_.base().index, through) < step) return;
  log_.DropThrough(through);
  output.drop = log_.base();
}

const Standing& Core::standing() const { return standing_; }

void Core::RefreshStanding() {
  const auto* leader = std::get_if<Leader>(&role_);
  const bool committed = log_.members_index() <= commit_;
  if (log_.MembersAt(commit_).IsRemoved(self_)) removed_ = true;
  const bool established = leader != nullptr && commit_ >= leader->term_start;
  const MemberId successor = leader != nullptr ? leader->successor : 0;
  const Role role = static_cast<Role>(role_.index());
  const auto set = [this](auto& field, const auto& value) {
    if (field == value) return;
    field = value;
    standing_changed_ = true;
  };
  set(standing_.role, role);
  set(standing_.term, hard_state_.term);
  set(standing_.leader, leader_);
  set(standing_.established, established);
  set(standing_.removed, removed_);
  set(standing_.successor, successor);
  set(standing_.members_committed, committed);
  if (standing_members_version_ != log_.members_version()) {
    standing_members_version_ = log_.members_version();
    standing_.members = log_.members();
    standing_.members_index = log_.members_index();
    standing_changed_ = true;
  }
  standing_.commit = commit_;
}

std::vector<FollowerStatus> Core::Followers() const {
  std::vector<FollowerStatus> all;
  const auto* leader = std::get_if<Leader>(&role_);
  if (leader == nullptr) return all;
  for (const auto& [id, follower] : leader->followers) {
    all.push_back({.id = id,
                   .state = follower.state(),
                   .match = follower.match(),
                   .next = follower.next(),
                   .in_flight = follower.in_flight(),
                   .active = follower.active || follower.was_active,
                   .flow = follower.flow});
  }
  return all;
}

void Core::CheckInvariants() const {
  log_.CheckInvariants();
  KV_CHECK(log_.base().index <= applied_ && applied_ <= given_);
  KV_CHECK(given_ <= commit_ && commit_ <= log_.last_index() && given_ <= log_.stable());
  KV_CHECK(log_.last().term <= hard_state_.term && hard_state_.term <= kTermMax);
  KV_CHECK(hard_state_durable_.term <= hard_state_given_.term);
  KV_CHECK(hard_state_given_.term <= hard_state_.term);
  KV_CHECK(persisted_ <= last_write_);
  KV_CHECK(std::all_of(promises_.begin(), promises_.end(), [this](const Envelope& envelope) {
    return IsPromise(envelope.message) && envelope.term == hard_state_.term;
  }));
  KV_CHECK(std::none_of(messages_.begin(), messages_.end(),
                        [](const Envelope& envelope) { return IsPromise(envelope.message); }));
  KV_CHECK(election_elapsed_ >= 0 && election_timeout_ >= options_.election_ticks);
  KV_CHECK(election_timeout_ < 2 * options_.election_ticks);
  const bool forwards = !forwarded_.asked.empty() || !forwarded_.gathering.empty();
  KV_CHECK(!forwards || (leader_ != 0 && leader_ != self_));
  KV_CHECK((leader_ == self_) == IsLeader());
  const bool candidate = std::holds_alternative<Candidate>(role_);
  KV_CHECK(!candidate || (hard_state_.vote == self_ && leader_ == 0));
  KV_CHECK(!std::holds_alternative<PreCandidate>(role_) || leader_ == 0);
  if (adopting_) {
    KV_CHECK(!IsLeader() && adopting_->at.index > commit_ && !log_.Holds(adopting_->at));
  }
  if (const auto* leader = std::get_if<Leader>(&role_)) CheckLeader(*leader);
}

void Core::CheckLeader(const Leader& leader) const {
  KV_CHECK(hard_state_.vote == self_ && hard_state_durable_ == hard_state_);
  KV_CHECK(log_.last().term == hard_state_.term);
  KV_CHECK(leader.term_start <= log_.base().index ||
           log_.TermAt(leader.term_start) == hard_state_.term);
  KV_CHECK(leader.confirming.empty() || commit_ >= leader.term_start);
  std::vector<MemberId> others = log_.members().All();
  std::erase(others, self_);
  KV_CHECK(leader.followers.size() == others.size());
  for (const MemberId id : others) {
    const auto follower = leader.followers.find(id);
    KV_CHECK(follower != leader.followers.end());
    follower->second.CheckInvariants();
    KV_CHECK(follower->second.match() <= log_.last_index());
    KV_CHECK(follower->second.next() <= log_.last_index() + 1);
    KV_CHECK(follower->second.round <= leader.round);
  }
  KV_CHECK(leader.successor == 0 || leader.followers.count(leader.successor) == 1);
}

}  // namespace kv::raft

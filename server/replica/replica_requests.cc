// Proposals and reads: from a caller to the log, or to the leader, and back.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>

#include "server/replica/applier.h"
#include "server/replica/door.h"
#include "server/replica/forward.h"
#include "server/replica/replica.h"
#include "storage/check.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr size_t kProposalOverhead = 256;             // What one costs besides its bytes.
constexpr size_t kReadsMax = 100'000;                 // Waiting at once.
constexpr size_t kForwardsMax = 4;                    // Batches under way to the leader.
constexpr size_t kWritesInFlight = 2;                 // Of the log, before proposals gather.
constexpr size_t kForwardBytesMax = size_t{4} << 20;  // Of one batch.

// The proposals that came in one call are answered in one: when the last of them is.
class AnswerTogether {
 public:
  AnswerTogether(size_t count, Caller<absl::StatusOr<std::string>> caller)
      : results_(count), open_(count), caller_(std::move(caller)) {}

  // From any thread, once for each slot.
  void Answer(size_t slot, ProposalResult result) {
    results_[slot] = std::move(result);
    if (open_.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
    caller_.Answer(Encode(std::move(results_)));
  }

 private:
  std::vector<ProposalResult> results_;
  std::atomic<size_t> open_;
  Caller<absl::StatusOr<std::string>> caller_;
};

}  // namespace

void Replica::Propose(std::string command, absl::Duration deadline, ProposalDone done) {
  Caller<ProposalResult> caller(std::move(done), {.error = ReplicaError::kStopped});
  if (stopping_.load()) return;
  size_t bytes = command.size() + kProposalOverhead;
  if (inflight_proposals_.bytes.load(std::memory_order_relaxed) + bytes >
      options_.inflight_bytes_max) {
    return Fail(caller, ReplicaError::kOverloaded);
  }
  caller.Hold(&inflight_proposals_, bytes);
  if (metrics_.proposal_admitted) metrics_.proposal_admitted();
  ToRaft([this, proposal = Proposal{.command = std::move(command),
                                    .deadline = runtime_->Uptime() + deadline,
                                    .caller = std::move(caller)}]() mutable {
    raft_loop_->AssertCurrent();
    Admit(std::move(proposal));
  });
}

void Replica::Admit(Proposal proposal) {
  if (closed_ || stop_by_) return Fail(proposal.caller, ReplicaError::kStopped);
  proposals_.push_back(std::move(proposal));
  Wake();
}

void Replica::Fail(Caller<ProposalResult>& caller, ReplicaError error) {
  if (!caller) return;
  if (metrics_.proposal_failed) metrics_.proposal_failed();
  caller.Answer({.error = error});
}

void Replica::ProposeGathered() {
  if (proposals_.empty()) return;
  const raft::Standing& standing = core_.standing();
  if (standing.role != raft::Role::kLeader) {
    // Whoever forwarded them looks for the leader itself.
    for (Proposal& proposal : proposals_) {
      if (proposal.forwarded) MARK("replica.refuse_forwarded");
      if (proposal.forwarded) Fail(proposal.caller, ReplicaError::kNoLeader);
    }
    std::erase_if(proposals_, [](const Proposal& proposal) { return proposal.forwarded; });
    if (standing.leader != 0 && !hold_) ForwardGathered(standing.leader);
    return;
  }
  if (hold_ || standing.successor != 0) return;
  // While one write is being synced and the next one waits, another would only wait behind them:
  // what gathers meanwhile becomes one append and one write. A disk that hangs
  // holds nobody up for more than a tick, since the followers commit without it.
  if (writes_in_flight_ >= kWritesInFlight && !tick_passed_) {
    MARK("replica.proposals_gather");
    return;
  }
  tick_passed_ = false;

  // As many as the log has room for; the rest waits for the machine to become durable, its bytes
  // bounded by the admission.
  std::vector<std::string> commands;
  uint64_t bytes = core_.log().bytes();
  for (Proposal& proposal : proposals_) {
    if (bytes >= options_.raft.max_log_bytes) break;
    bytes += proposal.command.size() + sizeof(Entry);
    commands.push_back(std::move(proposal.command));
  }
  if (commands.size() < proposals_.size()) {
    MARK("replica.log_full");
    hold_ = log_full_ = true;
    FlushIfDue();
  }
  if (commands.empty()) return;
  size_t taken = commands.size();
  raft::ProposeResult result = core_.Propose(std::move(commands));
  std::vector<Proposal> proposals(
      std::make_move_iterator(proposals_.begin()),
      std::make_move_iterator(proposals_.begin() + static_cast<std::ptrdiff_t>(taken)));
  proposals_.erase(proposals_.begin(), proposals_.begin() + static_cast<std::ptrdiff_t>(taken));
  if (result.refusal != raft::ProposeRefusal::kNone) {
    for (Proposal& proposal : proposals) Fail(proposal.caller, ReplicaError::kOverloaded);
    return;
  }
  Index index = result.first.index;
  for (Proposal& proposal : proposals) {
    proposal.caller.Otherwise({.error = ReplicaError::kUnknown});
    waiters_.insert_or_assign(waiters_.end(), index++,
                              Waiter{.term = result.first.term,
                                     .deadline = proposal.deadline,
                                     .caller = std::move(proposal.caller)});
  }
}

void Replica::ForwardGathered(MemberId leader) {
  size_t taken = 0;
  while (taken < proposals_.size() && forwards_.size() < kForwardsMax) {
    uint64_t number = next_number_++;
    Forward forward{.to = leader, .proposals = {}};
    ForwardedProposals request{.header = {.cluster_id = cluster_id(), .from = id(), .to = leader},
                               .proposals = {}};
    absl::Duration latest = absl::ZeroDuration();
    for (size_t bytes = 0; taken < proposals_.size(); ++taken) {
      Proposal& proposal = proposals_[taken];
      if (bytes > 0 && bytes + proposal.command.size() > kForwardBytesMax) break;
      absl::Duration left = Until(proposal.deadline);
      latest = std::max(latest, left);
      bytes += proposal.command.size() + kProposalOverhead;
      // A copy stays here: what certainly did not arrive is sent again.
      request.proposals.push_back({.command = proposal.command, .deadline = left});
      proposal.caller.Otherwise({.error = ReplicaError::kUnknown});
      forward.proposals.push_back(std::move(proposal));
    }
    forwards_.emplace(number, std::move(forward));
    CallLeader(leader, kProposeCall, Encode(request), latest,
               [this, door = door_, number](absl::StatusOr<std::string> answer) mutable {
                 door->Post([this, number, answer = std::move(answer)]() mutable {
                   raft_loop_->AssertCurrent();
                   OnForwardAnswered(number, std::move(answer));
                 });
               });
  }
  proposals_.erase(proposals_.begin(), proposals_.begin() + static_cast<std::ptrdiff_t>(taken));
}

void Replica::OnForwardAnswered(uint64_t number, absl::StatusOr<std::string> answer) {
  auto it = forwards_.find(number);
  if (it == forwards_.end()) return;
  Forward forward = std::move(it->second);
  forwards_.erase(it);
  Wake();

  // Certainly not appended: it may be tried again, at once only if somebody else leads by now.
  std::vector<Proposal> again;
  auto try_again = [&again](Proposal& proposal) {
    if (!proposal.caller) return;
    proposal.caller.Otherwise({.error = ReplicaError::kStopped});
    again.push_back(std::move(proposal));
  };
  const bool repeats = MUTANT("replica.unknown_forward_is_repeated") && !answer.ok();
  if (repeats || (!answer.ok() && answer.status().code() == absl::StatusCode::kUnavailable)) {
    MARK("replica.forward_not_reached");
    for (Proposal& proposal : forward.proposals) try_again(proposal);
  } else {
    std::optional<std::vector<ProposalResult>> results;
    if (answer.ok()) results = DecodeProposalResults(*answer);
    if (!results || results->size() != forward.proposals.size()) {
      MARK("replica.forward_outcome_unknown");
      for (Proposal& proposal : forward.proposals) Fail(proposal.caller, ReplicaError::kUnknown);
      return;
    }
    for (size_t i = 0; i < results->size(); ++i) {
      Proposal& proposal = forward.proposals[i];
      ProposalResult& result = (*results)[i];
      if (result.error == ReplicaError::kNoLeader || result.error == ReplicaError::kStopped) {
        MARK("replica.forward_to_one_that_does_not_lead");
        try_again(proposal);
      } else if (result.error != ReplicaError::kNone) {
        Fail(proposal.caller, result.error);
      } else if (proposal.caller) {
        Index index = result.position.index;
        Park(index, proposal.deadline,
             [caller = std::move(proposal.caller), result = std::move(result)]() mutable {
               caller.Answer(std::move(result));
             });
      }
    }
  }
  if (again.empty()) return;
  if (core_.standing().leader == forward.to) hold_ = true;
  std::move(proposals_.begin(), proposals_.end(), std::back_inserter(again));
  proposals_ = std::move(again);
}

void Replica::Park(Index index, absl::Duration deadline, Loop::Task answer) {
  if (index <= applied_) return std::move(answer)();
  MARK("replica.answer_waits_for_own_apply");
  parked_.emplace(index, Parked{.deadline = deadline, .answer = std::move(answer)});
}

void Replica::OnCommitted(std::vector<EntryPtr> entries) {
  std::vector<Applier::Work> work;
  work.reserve(entries.size());
  for (EntryPtr& entry : entries) {
    Applier::Work& next = work.emplace_back();
    auto waiter = waiters_.begin();
    if (waiter != waiters_.end() && waiter->first == entry->index) {
      if (waiter->second.term == entry->term || MUTANT("replica.replies_crossed")) {
        next.caller = std::move(waiter->second.caller);
      } else {
        MARK("replica.proposal_overwritten");
        Fail(waiter->second.caller, ReplicaError::kNotAccepted);
      }
      waiters_.erase(waiter);
    }
    for (Change& change : changes_) {
      if (change.position.index == entry->index && change.position.term != entry->term) {
        change.caller.Answer({.error = ReplicaError::kNotAccepted});
      }
    }
    next.entry = std::move(entry);
  }
  applier_->Submit(std::move(work));
}

void Replica::OnApplied(Position applied) {
  applied_ = applied.index;
  core_.Applied(applied.index);
  while (!parked_.empty() && parked_.begin()->first <= applied_) {
    Parked parked = std::move(parked_.begin()->second);
    parked_.erase(parked_.begin());
    std::move(parked.answer)();
  }
  while (!granted_.empty() && granted_.begin()->first <= applied_) {
    PendingRead read = std::move(granted_.begin()->second);
    granted_.erase(granted_.begin());
    read.caller.Answer({.error = ReplicaError::kNone, .index = applied_});
  }
  FlushIfDue();
  Wake();
}

void Replica::Read(absl::Duration deadline, ReadDone done) {
  Caller<ReadResult> caller(std::move(done), {.error = ReplicaError::kStopped});
  if (stopping_.load()) return;
  if (inflight_reads_.requests.load(std::memory_order_relaxed) >= kReadsMax) {
    if (metrics_.read_failed) metrics_.read_failed();
    return caller.Answer({.error = ReplicaError::kOverloaded});
  }
  caller.Hold(&inflight_reads_, 0);
  ToRaft([this, read = PendingRead{.deadline = runtime_->Uptime() + deadline,
                                   .caller = std::move(caller)}]() mutable {
    raft_loop_->AssertCurrent();
    if (closed_ || stop_by_) return;
    reads_.push_back(std::move(read));
    Wake();
  });
}

// All reads that came in since the last beat share one id, so one round.
void Replica::ReadGathered() {
  if (reads_.empty() || hold_reads_) return;
  raft::ReadId read = next_number_++;
  read_rounds_.emplace(read, std::exchange(reads_, {}));
  core_.Read(read);
}

void Replica::OnGranted(const raft::ReadGrant& grant) {
  auto round = read_rounds_.find(grant.id);
  if (round == read_rounds_.end()) return;
  for (PendingRead& read : round->second) {
    if (grant.index > applied_) MARK("replica.read_waits_for_apply");
    if (grant.index <= applied_ || MUTANT("replica.read_before_applied")) {
      read.caller.Answer({.error = ReplicaError::kNone, .index = applied_});
    } else {
      granted_.emplace(grant.index, std::move(read));
    }
  }
  read_rounds_.erase(round);
}

// Asked again under another id: a late answer to the old one must confirm nothing (R71).
void Replica::OnDropped(raft::ReadId id) {
  auto round = read_rounds_.find(id);
  if (round == read_rounds_.end()) return;
  MARK("replica.read_round_dropped");
  if (MUTANT("replica.dropped_read_is_answered")) {
    for (PendingRead& read : round->second) {
      read.caller.Answer({.error = ReplicaError::kNone, .index = applied_});
    }
    round->second.clear();
  }
  std::move(round->second.begin(), round->second.end(), std::back_inserter(reads_));
  read_rounds_.erase(round);
  // Until the next tick or another leader: without one it would be dropped again at once.
  hold_reads_ = true;
}

void Replica::SweepReads(ReplicaError error) {
  absl::Duration now = runtime_->Uptime();
  auto over = [now](const PendingRead& read) { return read.deadline <= now; };
  auto fail_if_over = [this, over, error](PendingRead& read) {
    if (!over(read) || !read.caller) return;
    MARK("replica.read_outlives_its_deadline");
    if (metrics_.read_failed) metrics_.read_failed();
    read.caller.Answer({.error = error});
  };
  for (PendingRead& read : reads_) fail_if_over(read);
  for (auto& [id, reads] : read_rounds_) {
    for (PendingRead& read : reads) fail_if_over(read);
    std::erase_if(reads, over);
  }
  for (auto& [index, read] : granted_) fail_if_over(read);
  std::erase_if(reads_, over);
  std::erase_if(granted_, [over](const auto& read) { return over(read.second); });
}

bool Replica::IsForUs(const ForwardHeader& header) const {
  return header.cluster_id == cluster_id() && header.to == id();
}

void Replica::ServeCalls() {
  // Whoever is not served is told that nothing was done.
  auto caller_of = [](Network::Answer answer) {
    return Caller<absl::StatusOr<std::string>>(
        std::move(answer),
        MakeStatus(absl::StatusCode::kUnavailable, "this member does not serve the call"));
  };
  network_->Handle(kProposeCall, [this, door = door_, caller_of](std::string bytes, absl::Duration,
                                                                 Network::Answer answer) {
    Caller<absl::StatusOr<std::string>> caller = caller_of(std::move(answer));
    std::optional<ForwardedProposals> request = DecodeForwardedProposals(bytes);
    if (!request) return;
    door->Post([this, request = *std::move(request), caller = std::move(caller)]() mutable {
      raft_loop_->AssertCurrent();
      ServeProposals(std::move(request), std::move(caller));
    });
  });
  network_->Handle(
      kChangeMembersCall,
      [this, door = door_, caller_of](std::string bytes, absl::Duration, Network::Answer answer) {
        Caller<absl::StatusOr<std::string>> caller = caller_of(std::move(answer));
        std::optional<ForwardedChange> request = DecodeForwardedChange(bytes);
        if (!request) return;
        door->Post([this, request = *std::move(request), caller = std::move(caller)]() mutable {
          raft_loop_->AssertCurrent();
          ServeForwardedChange(std::move(request), std::move(caller));
        });
      });
  network_->Handle(
      kTransferLeadershipCall,
      [this, door = door_, caller_of](std::string bytes, absl::Duration, Network::Answer answer) {
        Caller<absl::StatusOr<std::string>> caller = caller_of(std::move(answer));
        std::optional<ForwardedTransfer> request = DecodeForwardedTransfer(bytes);
        if (!request) return;
        door->Post([this, request = *std::move(request), caller = std::move(caller)]() mutable {
          raft_loop_->AssertCurrent();
          ServeForwardedTransfer(std::move(request), std::move(caller));
        });
      });
}

void Replica::ServeProposals(ForwardedProposals request,
                             Caller<absl::StatusOr<std::string>> caller) {
  if (!IsForUs(request.header) || closed_ || stop_by_) return;
  caller.Otherwise(MakeStatus(absl::StatusCode::kUnknown, "the outcome is unknown"));
  auto together = std::make_shared<AnswerTogether>(request.proposals.size(), std::move(caller));
  for (size_t slot = 0; slot < request.proposals.size(); ++slot) {
    ForwardedProposal& forwarded = request.proposals[slot];
    Proposal proposal;
    proposal.deadline = runtime_->Uptime() + forwarded.deadline;
    proposal.forwarded = true;
    proposal.caller = Caller<ProposalResult>(
        [together, slot](ProposalResult result) { together->Answer(slot, std::move(result)); },
        {.error = ReplicaError::kStopped});
    size_t bytes = forwarded.command.size() + kProposalOverhead;
    if (inflight_proposals_.bytes.load(std::memory_order_relaxed) + bytes >
        options_.inflight_bytes_max) {
      Fail(proposal.caller, ReplicaError::kOverloaded);
      continue;
    }
    proposal.caller.Hold(&inflight_proposals_, bytes);
    proposal.command = std::move(forwarded.command);
    Admit(std::move(proposal));
  }
}

}  // namespace kv

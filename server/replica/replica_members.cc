// Who the members are, who leads them, and what they can all run.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "server/replica/door.h"
#include "server/replica/forward.h"
#include "server/replica/replica.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr absl::Duration kRaiseDeadline = absl::Seconds(10);

bool Names(const raft::MemberChange& change, MemberId id) {
  return std::ranges::find(change.targets, id, &raft::MemberTarget::id) != change.targets.end();
}

bool MakesVoter(const raft::MemberChange& change, MemberId id) {
  return std::ranges::any_of(change.targets, [id](const raft::MemberTarget& target) {
    return target.id == id && target.fate == raft::MemberFate::kVoter;
  });
}

// Whether the leader `self` finds the other members in the shape that the change asks for.
raft::ChangeRefusal CheckGuard(const raft::MemberChange& change, MemberId self, Index last_index,
                               const raft::Members& members,
                               const std::vector<raft::FollowerStatus>& followers) {
  // A lost connection shows as probing before the silence is long enough to count.
  const auto active = [&](MemberId id) {
    return id == self || std::ranges::any_of(followers, [id](const raft::FollowerStatus& follower) {
             return follower.id == id && follower.active &&
                    follower.state == raft::Progress::State::kReplicate;
           });
  };
  switch (change.guard) {
    case raft::MemberGuard::kNone:
      return raft::ChangeRefusal::kNone;
    case raft::MemberGuard::kAllActive:
      return std::ranges::all_of(members.voters, active) ? raft::ChangeRefusal::kNone
                                                         : raft::ChangeRefusal::kInactive;
    case raft::MemberGuard::kQuorumActive: {
      // Who does not answer is no loss.
      const bool none_answers = std::ranges::none_of(
          members.voters, [&](MemberId id) { return Names(change, id) && active(id); });
      if (none_answers) return raft::ChangeRefusal::kNone;
      size_t rest = 0;
      size_t answer = 0;
      for (const MemberId id : members.voters) {
        if (Names(change, id)) continue;
        ++rest;
        if (active(id)) ++answer;
      }
      return answer > rest / 2 ? raft::ChangeRefusal::kNone : raft::ChangeRefusal::kInactive;
    }
    case raft::MemberGuard::kCaughtUp:
      return std::ranges::all_of(
                 followers,
                 [&](const raft::FollowerStatus& follower) {
                   return !MakesVoter(change, follower.id) ||
                          (follower.active && follower.match >= last_index - last_index / 10);
                 })
                 ? raft::ChangeRefusal::kNone
                 : raft::ChangeRefusal::kNotCaughtUp;
  }
  return raft::ChangeRefusal::kNone;
}

}  // namespace

void Replica::SetPeers(const raft::Members& members) {
  std::map<MemberId, PeerAddress> peers;
  for (MemberId member : members.All()) {
    if (member == id()) continue;
    PeerAddress& peer = peers[member];
    peer.id = member;
    if (std::optional<MemberRecord> record = RecordOf(members, member)) {
      peer.urls = std::move(record->peer_urls);
      peer.node_uuid = std::move(record->node_uuid);
    }
  }
  // A member that was removed while we ran can still be told so.
  for (const auto& [member, peer] : peers_) {
    if (members.IsRemoved(member)) peers.emplace(member, peer);
  }
  if (peers == peers_) return;
  peers_ = std::move(peers);
  std::vector<PeerAddress> addresses;
  for (const auto& [member, peer] : peers_) addresses.push_back(peer);
  network_->SetPeers(std::move(addresses));
}

void Replica::CallLeader(MemberId leader, const char* method, std::string request,
                         absl::Duration deadline, Network::CallDone done) {
  auto peer = peers_.find(leader);
  if (peer == peers_.end() || peer->second.urls.empty()) {
    return std::move(done)(
        MakeStatus(absl::StatusCode::kUnavailable, "no address of member {:x} is known", leader));
  }
  const std::vector<std::string>& urls = peer->second.urls;
  network_->Call(urls[next_number_ % urls.size()], method, std::move(request), deadline,
                 std::move(done));
}

void Replica::AskLeader(const char* method, std::string body, absl::Duration deadline,
                        Network::CallDone done) {
  Caller<absl::StatusOr<std::string>> caller(
      std::move(done), MakeStatus(absl::StatusCode::kUnavailable, "no leader is known"));
  ToRaft([this, method, body = std::move(body), until = runtime_->Uptime() + deadline,
          caller = std::move(caller)]() mutable {
    raft_loop_->AssertCurrent();
    const MemberId leader = core_.standing().leader;
    if (closed_ || stop_by_ || leader == 0) return;
    caller.Otherwise(MakeStatus(absl::StatusCode::kUnknown, "the outcome is unknown"));
    CallLeader(
        leader, method,
        Encode(ForwardedCall{.header = {.cluster_id = cluster_id(), .from = id(), .to = leader},
                             .body = std::move(body)}),
        Until(until), [caller = std::move(caller)](absl::StatusOr<std::string> answer) mutable {
          caller.Answer(std::move(answer));
        });
  });
}

void Replica::AnswerAsLeader(const char* method, Network::Serve serve) {
  const ForwardHeader self{.cluster_id = cluster_id(), .to = id()};
  network_->Handle(method, [self, serve = std::move(serve)](
                               std::string bytes, absl::Duration deadline, Network::Answer answer) {
    std::optional<ForwardedCall> call = DecodeForwardedCall(bytes);
    // An address may have changed hands.
    if (!call || call->header.cluster_id != self.cluster_id || call->header.to != self.to) {
      return std::move(answer)(
          MakeStatus(absl::StatusCode::kUnavailable, "this member does not serve the call"));
    }
    serve(std::move(call->body), deadline, std::move(answer));
  });
}

void Replica::ChangeMembers(raft::MemberChange change, absl::Duration deadline, MembersDone done) {
  Change waiting;
  waiting.change = std::move(change);
  waiting.deadline = runtime_->Uptime() + deadline;
  waiting.caller = Caller<MembersResult>(std::move(done), {.error = ReplicaError::kStopped});
  if (stopping_.load()) return;
  ToRaft([this, waiting = std::move(waiting)]() mutable {
    raft_loop_->AssertCurrent();
    if (closed_ || stop_by_) return;
    changes_.push_back(std::move(waiting));
    Wake();
  });
}

void Replica::ServeForwardedChange(ForwardedChange request,
                                   Caller<absl::StatusOr<std::string>> caller) {
  if (!IsForUs(request.header) || closed_ || stop_by_) return;
  caller.Otherwise(MakeStatus(absl::StatusCode::kUnknown, "the outcome is unknown"));
  Change& change = changes_.emplace_back();
  change.change = std::move(request.change);
  change.deadline = runtime_->Uptime() + request.deadline;
  change.forwarded = true;
  change.caller = Caller<MembersResult>(
      [machine = machine_, caller = std::move(caller)](MembersResult result) mutable {
        caller.Answer(Encode(
            ForwardedChangeResult{.result = std::move(result), .index = machine->applied().index}));
      },
      {.error = ReplicaError::kStopped});
  Wake();
}

void Replica::ServeChanges() {
  std::vector<Change> changes = std::exchange(changes_, {});
  for (Change& change : changes) {
    if (!ServeChange(change)) changes_.push_back(std::move(change));
  }
}

bool Replica::ServeChange(Change& change) {
  if (!change.caller) return true;
  if (change.position.index > 0) {
    if (applied_ < change.position.index) return false;
    raft::Members members = machine_->members();
    if (members.IsJoint()) {
      MARK("replica.change_waits_for_leaving_joint");
      return false;
    }
    change.caller.Answer({.error = ReplicaError::kNone, .members = std::move(members)});
    return true;
  }
  const raft::Standing& standing = core_.standing();
  if (standing.role != raft::Role::kLeader) {
    if (change.forwarded) {
      change.caller.Answer({.error = ReplicaError::kNoLeader});
      return true;
    }
    if (standing.leader == 0 || hold_) return false;
    ForwardChange(std::move(change), standing.leader);
    return true;
  }
  raft::ChangeResult result{.refusal = CheckGuard(change.change, id(), core_.log().last_index(),
                                                  standing.members, core_.Followers()),
                            .position = {},
                            .joint = false};
  if (result.refusal == raft::ChangeRefusal::kNone) result = core_.ChangeMembers(change.change);
  change.refusal = result.refusal;
  switch (result.refusal) {
    case raft::ChangeRefusal::kNone:
      change.position = result.position;
      change.caller.Otherwise({.error = ReplicaError::kUnknown});
      return false;
    case raft::ChangeRefusal::kNotLeader:
    case raft::ChangeRefusal::kUnderWay:
    case raft::ChangeRefusal::kNotEstablished:
    case raft::ChangeRefusal::kTransferring:
      return false;  // Passes by itself.
    case raft::ChangeRefusal::kNothingChanges:
      change.caller.Answer({.error = ReplicaError::kNone, .members = standing.members});
      return true;
    case raft::ChangeRefusal::kNoVoter:
    case raft::ChangeRefusal::kUnknownMember:
    case raft::ChangeRefusal::kWasRemoved:
    case raft::ChangeRefusal::kInvalid:
    case raft::ChangeRefusal::kTooMany:
    case raft::ChangeRefusal::kMoved:
    case raft::ChangeRefusal::kInactive:
    case raft::ChangeRefusal::kNotCaughtUp:
      change.caller.Answer({.error = ReplicaError::kNotAccepted, .refusal = result.refusal});
      return true;
  }
  return false;
}

void Replica::ForwardChange(Change change, MemberId leader) {
  uint64_t number = next_number_++;
  ForwardedChange request{.header = {.cluster_id = cluster_id(), .from = id(), .to = leader},
                          .change = change.change,
                          .deadline = Until(change.deadline)};
  absl::Duration left = request.deadline;
  change.caller.Otherwise({.error = ReplicaError::kUnknown});
  forwarded_changes_.emplace(number, std::move(change));
  CallLeader(leader, kChangeMembersCall, Encode(request), left,
             [this, door = door_, number](absl::StatusOr<std::string> answer) mutable {
               door->Post([this, number, answer = std::move(answer)]() mutable {
                 raft_loop_->AssertCurrent();
                 OnChangeAnswered(number, std::move(answer));
               });
             });
}

void Replica::OnChangeAnswered(uint64_t number, absl::StatusOr<std::string> answer) {
  auto it = forwarded_changes_.find(number);
  if (it == forwarded_changes_.end()) return;
  Change change = std::move(it->second);
  forwarded_changes_.erase(it);
  std::optional<ForwardedChangeResult> result;
  if (answer.ok()) result = DecodeForwardedChangeResult(*answer);
  bool not_done = result ? result->result.error == ReplicaError::kNoLeader ||
                               result->result.error == ReplicaError::kStopped
                         : answer.status().code() == absl::StatusCode::kUnavailable;
  if (not_done && !stop_by_) {
    MARK("replica.change_sent_again");
    hold_ = true;
    change.caller.Otherwise({.error = ReplicaError::kStopped});
    changes_.push_back(std::move(change));
  } else if (!result) {
    MARK("replica.change_outcome_unknown");
    change.caller.Answer({.error = ReplicaError::kUnknown});
  } else {
    Park(result->result.error == ReplicaError::kNone ? result->index : 0, change.deadline,
         [caller = std::move(change.caller), result = std::move(result->result)]() mutable {
           caller.Answer(std::move(result));
         });
  }
}

void Replica::TransferLeadership(MemberId to, absl::Duration deadline, TransferDone done) {
  Transfer waiting;
  waiting.to = to;
  waiting.deadline = runtime_->Uptime() + deadline;
  waiting.caller = Caller<ReplicaError>(std::move(done), ReplicaError::kStopped);
  if (stopping_.load()) return;
  ToRaft([this, waiting = std::move(waiting)]() mutable {
    raft_loop_->AssertCurrent();
    if (closed_ || stop_by_) return;
    transfers_.push_back(std::move(waiting));
    Wake();
  });
}

void Replica::ServeForwardedTransfer(ForwardedTransfer request,
                                     Caller<absl::StatusOr<std::string>> caller) {
  if (!IsForUs(request.header) || closed_ || stop_by_) return;
  caller.Otherwise(MakeStatus(absl::StatusCode::kUnknown, "the outcome is unknown"));
  Transfer& transfer = transfers_.emplace_back();
  transfer.to = request.to;
  transfer.deadline = runtime_->Uptime() + request.deadline;
  transfer.forwarded = true;
  transfer.caller = Caller<ReplicaError>(
      [caller = std::move(caller)](ReplicaError error) mutable { caller.Answer(Encode(error)); },
      ReplicaError::kStopped);
  Wake();
}

void Replica::ServeTransfers() {
  std::vector<Transfer> transfers = std::exchange(transfers_, {});
  for (Transfer& transfer : transfers) {
    if (!ServeTransfer(transfer)) transfers_.push_back(std::move(transfer));
  }
}

bool Replica::ServeTransfer(Transfer& transfer) {
  const raft::Standing& standing = core_.standing();
  auto answer = [&transfer](ReplicaError error) {
    transfer.caller.Answer(error);
    return true;
  };
  if (transfer.begun) {
    if (standing.role == raft::Role::kLeader) {
      return standing.successor == 0 && answer(ReplicaError::kNotAccepted);
    }
    if (standing.leader == 0) return false;
    bool as_asked = transfer.to == 0 || standing.leader == transfer.to;
    return answer(as_asked ? ReplicaError::kNone : ReplicaError::kNotAccepted);
  }
  if (transfer.to != 0 && standing.leader == transfer.to) return answer(ReplicaError::kNone);
  if (standing.role != raft::Role::kLeader) {
    if (transfer.forwarded) return answer(ReplicaError::kNoLeader);
    if (standing.leader == 0 || hold_) return false;
    ForwardTransfer(std::move(transfer), standing.leader);
    return true;
  }
  switch (core_.TransferLeadership(transfer.to)) {
    case raft::TransferRefusal::kNone:
      transfer.begun = true;
      return false;
    case raft::TransferRefusal::kNotLeader:
    case raft::TransferRefusal::kUnderWay:
      return false;  // Passes by itself.
    case raft::TransferRefusal::kNotVoter:
      return answer(ReplicaError::kNotAccepted);
  }
  return false;
}

void Replica::ForwardTransfer(Transfer transfer, MemberId leader) {
  uint64_t number = next_number_++;
  ForwardedTransfer request{.header = {.cluster_id = cluster_id(), .from = id(), .to = leader},
                            .to = transfer.to,
                            .deadline = Until(transfer.deadline)};
  absl::Duration left = request.deadline;
  forwarded_transfers_.emplace(number, std::move(transfer));
  CallLeader(leader, kTransferLeadershipCall, Encode(request), left,
             [this, door = door_, number](absl::StatusOr<std::string> answer) mutable {
               door->Post([this, number, answer = std::move(answer)]() mutable {
                 raft_loop_->AssertCurrent();
                 OnTransferAnswered(number, std::move(answer));
               });
             });
}

// Handing over twice does no harm, so whatever is not certain is tried again.
void Replica::OnTransferAnswered(uint64_t number, absl::StatusOr<std::string> answer) {
  auto it = forwarded_transfers_.find(number);
  if (it == forwarded_transfers_.end()) return;
  Transfer transfer = std::move(it->second);
  forwarded_transfers_.erase(it);
  std::optional<ReplicaError> error;
  if (answer.ok()) error = DecodeReplicaError(*answer);
  if (error == ReplicaError::kNone || error == ReplicaError::kNotAccepted) {
    return transfer.caller.Answer(*error);
  }
  if (stop_by_) return;
  MARK("replica.transfer_sent_again");
  hold_ = true;
  transfers_.push_back(std::move(transfer));
}

void Replica::SweepChanges() {
  absl::Duration now = runtime_->Uptime();
  auto over = [now](const auto& waiting) { return waiting.deadline <= now; };
  auto over_in_map = [now](const auto& waiting) { return waiting.second.deadline <= now; };
  for (Change& change : changes_) {
    if (!over(change)) continue;
    MembersResult result{.error = ReplicaError::kNoLeader};
    if (change.position.index > 0) {
      result.error = ReplicaError::kUnknown;
    } else if (change.refusal != raft::ChangeRefusal::kNone) {
      result = {.error = ReplicaError::kNotAccepted, .refusal = change.refusal};
    }
    change.caller.Answer(std::move(result));
  }
  for (Transfer& transfer : transfers_) {
    if (!over(transfer)) continue;
    transfer.caller.Answer(transfer.begun ? ReplicaError::kNotAccepted : ReplicaError::kNoLeader);
  }
  std::erase_if(changes_, over);
  std::erase_if(transfers_, over);
  // What is dropped here answers kUnknown.
  for (auto& [number, transfer] : forwarded_transfers_) {
    transfer.caller.Otherwise(ReplicaError::kUnknown);
  }
  std::erase_if(forwarded_changes_, over_in_map);
  std::erase_if(forwarded_transfers_, over_in_map);
}

void Replica::RaiseClusterVersion() {
  const raft::Standing& standing = core_.standing();
  if (!options_.raise_cluster_version || standing.role != raft::Role::kLeader ||
      !standing.established || stop_by_) {
    return;
  }
  uint32_t least = self_.machine_version;
  for (MemberId member : standing.members.All()) {
    if (member == id()) continue;
    auto version = machine_versions_.find(member);
    if (version == machine_versions_.end()) return;
    least = std::min(least, version->second);
  }
  if (least <= raised_to_) return;
  raised_to_ = least;
  std::optional<std::string> command = options_.raise_cluster_version(least);
  if (!command) return;
  spdlog::info("raising the cluster's machine version to {}", least);
  Proposal proposal;
  proposal.command = *std::move(command);
  proposal.deadline = runtime_->Uptime() + kRaiseDeadline;
  proposal.forwarded = true;  // Another leader does this by itself.
  Admit(std::move(proposal));
}

}  // namespace kv

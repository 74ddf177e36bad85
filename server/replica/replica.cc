#include "server/replica/replica.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "server/replica/applier.h"
#include "server/replica/door.h"
#include "server/replica/forward.h"
#include "server/replica/log_writer.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr int kWorkThreads = 2;

void EndProcess(std::string_view sentence) {
  spdlog::critical("{}", sentence);
  FailCheck(__FILE__, __LINE__, "the disk keeps its word", sentence);
}

void EmptyDirectory(rocksdb::Env* env, const std::string& path) {
  absl::Status status = RemoveDirectory(env, path);
  if (status.ok()) status = CreateDirectory(env, path);
  if (!status.ok()) spdlog::error("cannot empty {}: {}", path, Describe(status));
}

}  // namespace

std::string_view Describe(ReplicaError error) {
  switch (error) {
    case ReplicaError::kNone:
      return "none";
    case ReplicaError::kNoLeader:
      return "no leader";
    case ReplicaError::kOverloaded:
      return "overloaded";
    case ReplicaError::kNotAccepted:
      return "not accepted";
    case ReplicaError::kStopped:
      return "stopped";
    case ReplicaError::kUnknown:
      return "unknown";
  }
  return "?";
}

Replica::Replica(LocalIdentity self, ReplicaOptions options, Parts parts, raft::Found found)
    : self_(std::move(self)),
      options_(std::move(options)),
      runtime_(parts.runtime),
      network_(parts.network),
      machine_(parts.machine),
      env_(parts.env),
      fatal_(parts.fatal ? std::move(parts.fatal) : EndProcess),
      noted_of_(std::move(parts.noted_of)),
      found_stale_(std::move(parts.found_stale)),
      metrics_(std::move(parts.metrics)),
      door_(std::make_shared<Door>()),
      core_(self_.member_id, options_.raft, std::move(found), runtime_->Random()) {
  EmptyDirectory(env_, options_.data_dir + "/outgoing");
  EmptyDirectory(env_, options_.data_dir + "/incoming");
  applied_ = core_.applied();
  flushed_ = core_.log().base().index;
  term_ = core_.term();
  leaderless_since_ = absl::ToInt64Nanoseconds(runtime_->Uptime());
  door_->last_index = core_.log().last_index();
  status_.standing = core_.standing();
  status_.commit = core_.commit();
  status_.applied = machine_->applied();
  status_.last_index = core_.log().last_index();
  status_.stable_index = core_.log().stable();
  status_.log_bytes = core_.log().bytes();

  LogWriter::Parts log;
  log.runtime = runtime_;
  log.store = std::move(parts.log_store);
  log.floor = std::move(parts.floor);
  log.fatal = fatal_;
  log.synced = metrics_.log_synced;
  // The promises leave from here, one hop earlier than through the raft loop.
  log.done = [this](std::vector<raft::Write> writes) {
    for (raft::Write& write : writes) {
      for (raft::Envelope& promise : write.promises) network_->Send(std::move(promise));
    }
    ToRaft([this, last = writes.back().id, count = writes.size()] {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      writes_in_flight_ -= count;
      core_.Persisted(last);
      Wake();
    });
  };
  log_ = std::make_unique<LogWriter>(std::move(log), runtime_->NewLoop("kvd-log"));

  Applier::Parts apply;
  apply.runtime = runtime_;
  apply.machine = machine_;
  apply.fatal = fatal_;
  apply.measured = metrics_.applied;
  apply.applied = [this](Position applied) {
    ToRaft([this, applied] {
      raft_loop_->AssertCurrent();
      if (!closed_) OnApplied(applied);
    });
  };
  applier_ = std::make_unique<Applier>(std::move(apply), runtime_->NewLoop("kvd-apply"));
  work_loop_ = runtime_->NewUnorderedLoop("kvd-work", kWorkThreads);
  raft_loop_ = runtime_->NewLoop("kvd-raft");
  door_->Open(raft_loop_.get());
}

// The raft loop ends first, since it posts to all others; what they still post to it meets a closed
// door. Whoever still waits is answered as the tables go.
Replica::~Replica() {
  stopping_.store(true);
  door_->Close();
  raft_loop_->Stop();
  work_loop_->Stop();
  applier_.reset();
  log_.reset();
}

void Replica::Start() {
  Network::Handlers handlers;
  handlers.receive = [this, door = door_](raft::Envelope envelope) {
    door->Post([this, envelope = std::move(envelope)]() mutable {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      core_.Step(std::move(envelope));
      Wake();
    });
  };
  handlers.receive_snapshot = [this, door = door_](raft::Envelope offer, Snapshot snapshot) {
    door->Post([this, offer = std::move(offer), snapshot = std::move(snapshot)]() mutable {
      raft_loop_->AssertCurrent();
      if (!closed_) OnSnapshotReceived(std::move(offer), std::move(snapshot));
    });
  };
  handlers.peer_lost = [this, door = door_](MemberId peer) {
    door->Post([this, peer] {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      core_.Unreachable(peer);
      Wake();
    });
  };
  handlers.peer_met = [this, door = door_](MemberId peer, uint32_t version) {
    door->Post([this, peer, version] {
      raft_loop_->AssertCurrent();
      machine_versions_[peer] = version;
      RaiseClusterVersion();
    });
  };
  handlers.acknowledged_by = [this, door = door_](MemberId peer) {
    return door->Ask([this, peer] { return AcknowledgedBy(peer); }).value_or(0);
  };
  handlers.found_stale = found_stale_;
  handlers.last_index = [door = door_] { return door->last_index.load(std::memory_order_relaxed); };
  ServeCalls();
  network_->Start(self_, std::move(handlers));
  ToRaft([this] {
    raft_loop_->AssertCurrent();
    SetPeers(core_.members());
    Wake();
  });
  TickLater();
}

void Replica::TickLater() {
  ToRaft([this] {
    raft_loop_->AssertCurrent();
    raft_loop_->PostAfter(options_.tick, [this] {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      OnTick();
      TickLater();
    });
  });
}

void Replica::ToRaft(Loop::Task task) { door_->Post(std::move(task)); }

absl::Duration Replica::Until(absl::Duration deadline) const {
  return std::max(deadline - runtime_->Uptime(), absl::ZeroDuration());
}

void Replica::Wake() {
  if (carry_posted_) return;
  carry_posted_ = true;
  raft_loop_->Post([this] {
    raft_loop_->AssertCurrent();
    carry_posted_ = false;
    if (!closed_) Carry();
  });
}

void Replica::Carry() {
  ProposeGathered();
  ReadGathered();
  ServeChanges();
  ServeTransfers();
  for (raft::Output output = core_.TakeOutput(); !output.empty(); output = core_.TakeOutput()) {
    CarryOut(std::move(output));
  }
  Publish();
  CloseIfDrained();
}

void Replica::CarryOut(raft::Output output) {
  for (raft::Envelope& message : output.messages) network_->Send(std::move(message));
  if (output.write) {
    if (output.write->update.empty() && writes_in_flight_ == 0) {
      // Nothing to make durable and nothing to wait for.
      for (raft::Envelope& promise : output.write->promises) network_->Send(std::move(promise));
      core_.Persisted(output.write->id);
    } else {
      if (MUTANT("replica.promises_before_write")) {
        for (raft::Envelope& promise : output.write->promises) network_->Send(std::move(promise));
        output.write->promises.clear();
      }
      ++writes_in_flight_;
      log_->Submit(*std::move(output.write), core_.commit());
    }
  }
  if (!output.committed.empty()) OnCommitted(std::move(output.committed));
  for (const raft::ReadGrant& grant : output.reads) OnGranted(grant);
  // Before the news of another leader, which lets them be asked again at once.
  for (raft::ReadId dropped : output.dropped_reads) OnDropped(dropped);
  if (output.standing) OnStanding(*output.standing);
  for (MemberId member : output.need_snapshot) SendSnapshot(member);
  if (output.adopt) Adopt(*output.adopt);
  for (const raft::SnapshotOffer& offer : output.refused_snapshots) DropSnapshot(offer.at);
  if (output.drop) {
    log_->DropThrough(*output.drop);
    hold_ = log_full_ = false;
    Wake();
  }
}

void Replica::OnTick() {
  core_.Tick();
  tick_passed_ = true;
  SweepDeadlines();
  hold_ = log_full_ = hold_reads_ = false;
  RaiseClusterVersion();
  FlushIfDue();
  {
    std::vector<raft::FollowerStatus> followers = core_.Followers();
    MutexLock lock(status_mutex_);
    status_.followers = std::move(followers);
  }
  Wake();
}

void Replica::OnStanding(const raft::Standing& standing) {
  hold_ = log_full_ = hold_reads_ = false;
  Wake();
  if (standing.role != raft::Role::kLeader) raised_to_ = 0;
  if (standing.role != raft::Role::kLeader && !waiters_.empty()) {
    MARK("replica.lose_leadership_with_waiters");
    if (MUTANT("replica.lost_leadership_refuses_writes")) {
      for (auto& [index, waiter] : waiters_) Fail(waiter.caller, ReplicaError::kNotAccepted);
      waiters_.clear();
    }
  }
  term_.store(standing.term, std::memory_order_relaxed);
  MemberId before = leader_.exchange(standing.leader, std::memory_order_relaxed);
  if (before != standing.leader) {
    if (standing.leader == 0) {
      spdlog::warn("no leader known in term {}", standing.term);
      leaderless_since_.store(absl::ToInt64Nanoseconds(runtime_->Uptime()));
    } else {
      leaderless_since_.store(-1);
      spdlog::info("{:x} leads in term {}{}", standing.leader, standing.term,
                   standing.leader == id() ? " (this member)" : "");
    }
    if (metrics_.leader_changed) metrics_.leader_changed(standing.leader);
  }
  if (standing.removed) spdlog::warn("this member was removed from the cluster");
  SetPeers(standing.members);
  MutexLock lock(status_mutex_);
  status_.standing = standing;
}

void Replica::Publish() {
  door_->last_index.store(core_.log().last_index(), std::memory_order_relaxed);
  MutexLock lock(status_mutex_);
  status_.commit = core_.commit();
  status_.last_index = core_.log().last_index();
  status_.stable_index = core_.log().stable();
  status_.log_bytes = core_.log().bytes();
}

// The log tells every member; the leader alone knows what came since.
Index Replica::AcknowledgedBy(MemberId member) const {
  if (MUTANT("acknowledged.unheeded")) return 0;
  Index acknowledged = noted_of_ ? noted_of_(member) : 0;
  MutexLock lock(status_mutex_);
  for (const raft::FollowerStatus& follower : status_.followers) {
    if (follower.id != member) continue;
    acknowledged = std::max(acknowledged, std::min(follower.match, status_.commit));
  }
  return acknowledged;
}

ReplicaStatus Replica::Status() const {
  ReplicaStatus status;
  {
    MutexLock lock(status_mutex_);
    status = status_;
  }
  status.applied = machine_->applied();
  status.inflight_bytes = inflight_proposals_.bytes.load(std::memory_order_relaxed);
  status.proposals_pending = inflight_proposals_.requests.load(std::memory_order_relaxed);
  status.leaderless = leaderless();
  return status;
}

absl::Duration Replica::leaderless() const {
  int64_t since = leaderless_since_.load();
  if (since < 0) return absl::ZeroDuration();
  return runtime_->Uptime() - absl::Nanoseconds(since);
}

void Replica::Stop(absl::Duration drain, absl::AnyInvocable<void() &&> stopped) {
  stopping_.store(true);
  ToRaft([this, drain, stopped = std::move(stopped)]() mutable {
    raft_loop_->AssertCurrent();
    KV_CHECK(!stop_by_, "stopped twice");
    stop_by_ = runtime_->Uptime() + drain;
    stopped_ = std::move(stopped);
    // What only gathers is in flight too, if there is a log that takes it.
    tick_passed_ = true;
    ProposeGathered();
    for (Proposal& proposal : proposals_) Fail(proposal.caller, ReplicaError::kStopped);
    proposals_.clear();
    // Nobody to hand over to is no reason to wait: then there is no successor.
    if (core_.standing().role == raft::Role::kLeader) core_.TransferLeadership(0);
    Wake();
  });
}

void Replica::CloseIfDrained() {
  if (!stop_by_) return;
  const raft::Standing& standing = core_.standing();
  bool handed_over = standing.role != raft::Role::kLeader || standing.successor == 0;
  bool drained = waiters_.empty() && forwards_.empty() && parked_.empty();
  if (!(handed_over && drained) && runtime_->Uptime() < *stop_by_) return;
  if (!(handed_over && drained)) MARK("replica.stopped_before_it_was_drained");
  closed_ = true;
  AnswerEverybody();
  // What was submitted is applied and durable before the floor names it.
  applier_->Close([this, commit = core_.commit(), stopped = std::move(stopped_)]() mutable {
    log_->Close(commit, std::move(stopped));
  });
}

void Replica::AnswerEverybody() {
  proposals_.clear();
  waiters_.clear();
  forwards_.clear();
  std::multimap<Index, Parked> parked = std::exchange(parked_, {});
  for (auto& [index, waiting] : parked) std::move(waiting.answer)();
  reads_.clear();
  read_rounds_.clear();
  granted_.clear();
  changes_.clear();
  forwarded_changes_.clear();
  transfers_.clear();
  forwarded_transfers_.clear();
}

void Replica::SweepDeadlines() {
  absl::Duration now = runtime_->Uptime();
  auto over = [now](const auto& waiting) { return waiting.deadline <= now; };
  bool leaderless = core_.standing().leader == 0;

  for (Proposal& proposal : proposals_) {
    if (!over(proposal)) continue;
    MARK("replica.no_leader_in_time");
    Fail(proposal.caller, log_full_ ? ReplicaError::kOverloaded : ReplicaError::kNoLeader);
  }
  std::erase_if(proposals_, over);
  for (auto it = waiters_.begin(); it != waiters_.end();) {
    if (over(it->second)) {
      MARK("replica.proposal_outlives_its_deadline");
      Fail(it->second.caller, MUTANT("replica.late_write_is_refused") ? ReplicaError::kNotAccepted
                                                                      : ReplicaError::kUnknown);
      it = waiters_.erase(it);
    } else {
      ++it;
    }
  }
  for (auto& [number, forward] : forwards_) {
    for (Proposal& proposal : forward.proposals) {
      if (over(proposal)) Fail(proposal.caller, ReplicaError::kUnknown);
    }
  }
  for (auto it = parked_.begin(); it != parked_.end();) {
    if (over(it->second)) {
      MARK("replica.parked_answer_at_its_deadline");
      std::move(it->second.answer)();
      it = parked_.erase(it);
    } else {
      ++it;
    }
  }
  SweepReads(leaderless ? ReplicaError::kNoLeader : ReplicaError::kUnknown);
  SweepChanges();
}

}  // namespace kv

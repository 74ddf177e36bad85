// One member's part in the replicated log: owns the Core, makes its writes durable, sends its
// messages, hands committed entries to the Machine, answers the callers.
//
// Public functions may be called from any thread and never block. Every `done` is called exactly
// once: with the result, a certain failure, or "outcome unknown" at its deadline (noticed within a
// tick). What is committed here is answered once the machine has applied it, even past the
// deadline. Callbacks run on the replica's loops and on threads of the network: they must not
// block. A Replica that is destroyed without Stop answers everybody and makes nothing durable.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/raft/core.h"
#include "server/replica/caller.h"
#include "server/replica/machine.h"
#include "server/replica/network.h"
#include "server/replica/result.h"
#include "server/replica/runtime.h"
#include "storage/floor.h"
#include "storage/log_store.h"
#include "storage/mutex.h"

namespace rocksdb {
class Env;
}

namespace kv {

class Applier;
class Door;
class LogWriter;
struct ForwardHeader;
struct ForwardedChange;
struct ForwardedProposals;
struct ForwardedTransfer;

struct ReplicaOptions {
  absl::Duration tick = absl::Milliseconds(100);  // --heartbeat-interval: one tick.
  raft::Options raft;
  size_t inflight_bytes_max = size_t{64} << 20;  // Admitted and not yet answered.
  size_t flush_log_bytes = size_t{16} << 20;     // Flush the machine past this much unflushed log.
  std::string data_dir;                          // outgoing/ and incoming/ live here.
  // Makes a machine version that all members can run the cluster's: asked on the leader once every
  // member has announced its own in a handshake, with the least of them. Answers the command to
  // propose, or nothing when the cluster is there already. May be empty. Raft loop; cheap.
  std::function<std::optional<std::string>(uint32_t version)> raise_cluster_version;
};

// What everybody may know of the member at a glance: published by the raft loop, read anywhere
// (metrics, health, Status, kvctl).
struct ReplicaStatus {
  raft::Standing standing;  // Role, term, leader, membership.
  Index commit = 0;
  Position applied;
  Index last_index = 0;
  Index stable_index = 0;
  uint64_t log_bytes = 0;                            // Retained in memory.
  uint64_t inflight_bytes = 0;                       // Of proposals admitted and not yet answered.
  uint64_t proposals_pending = 0;                    // Admitted and not yet answered.
  absl::Duration leaderless = absl::ZeroDuration();  // How long there has been no leader.
  std::vector<raft::FollowerStatus> followers;       // Of a leader, as of its latest tick.
};

// What is worth measuring, as it happens, on the replica's loops. Empty ones are skipped.
struct ReplicaMetrics {
  std::function<void(absl::Duration took, size_t entries, size_t bytes)> log_synced;
  std::function<void(absl::Duration took, size_t entries)> applied;
  std::function<void()> proposal_admitted;
  std::function<void()> proposal_failed;  // Answered with an error.
  std::function<void()> read_failed;
  std::function<void(MemberId leader)> leader_changed;  // 0: none now.
  std::function<void(bool delivered, absl::Duration took, uint64_t bytes)> snapshot_sent;
  std::function<void(absl::Duration took, uint64_t bytes)> snapshot_adopted;
};

class Replica {
 public:
  using ProposalDone = absl::AnyInvocable<void(ProposalResult) &&>;
  using ReadDone = absl::AnyInvocable<void(ReadResult) &&>;
  using MembersDone = absl::AnyInvocable<void(MembersResult) &&>;
  using TransferDone = absl::AnyInvocable<void(ReplicaError) &&>;

  // What a replica works with. Pointers outlive it.
  struct Parts {
    Runtime* runtime = nullptr;
    Network* network = nullptr;
    Machine* machine = nullptr;
    rocksdb::Env* env = nullptr;  // Where outgoing/ and incoming/ are.
    std::unique_ptr<LogStore> log_store;
    std::unique_ptr<Floor> floor;
    // Ends the process with a sentence: the disk broke its word. Should it return, nothing is
    // acknowledged from there on. Empty: print and abort.
    std::function<void(std::string_view sentence)> fatal;
    // What the log says that a member has acknowledged; what is known beside it is added. Any
    // thread. May be empty.
    std::function<Index(MemberId)> noted_of;
    // Another member knows that this one's disk is older than its word: it must take no part any
    // more (Network::FoundStale). Any thread. May be empty.
    std::function<void(std::string evidence)> found_stale;
    ReplicaMetrics metrics;
  };

  // `found` comes from Recover (recovery.h). Empties outgoing/ and incoming/.
  Replica(LocalIdentity self, ReplicaOptions options, Parts parts, raft::Found found);
  ~Replica();
  Replica(const Replica&) = delete;
  Replica& operator=(const Replica&) = delete;

  // Joins the network and begins to tick. Once.
  void Start();

  // Refuses what is new, hands leadership over, lets what is in flight finish for at most `drain`,
  // answers the rest, makes the log and its floor durable, and calls `stopped`; after that nothing
  // happens any more. The replica must not be destroyed from within `stopped`. Once.
  void Stop(absl::Duration drain, absl::AnyInvocable<void() &&> stopped);

  // Puts one command into the log, through the leader wherever it is, and answers with what the
  // machine made of it; this member has applied it by then, unless that would miss the deadline.
  // Waits for a leader if there is none. Two commands are ordered only if the first was answered
  // before the second was proposed. `deadline` is the time left.
  void Propose(std::string command, absl::Duration deadline, ProposalDone done);

  // Answers once everything that was acknowledged by any member before the call is applied here.
  void Read(absl::Duration deadline, ReadDone done);

  // Through the leader, wherever it is. Answers once the change is complete (no joint configuration
  // is left) and applied on the leader. A change that meets another waits for it.
  void ChangeMembers(raft::MemberChange change, absl::Duration deadline, MembersDone done);

  // Through the leader, wherever it is. `to` 0: whoever is furthest. kNone: done. kNotAccepted:
  // `to` is no voter, or did not take over. kNoLeader: nobody could be asked.
  void TransferLeadership(MemberId to, absl::Duration deadline, TransferDone done);

  // Calls `method` on the leader that this member knows, which may be itself: answered once.
  // Unavailable: certainly nobody saw it. AnswerAsLeader is the other end: `serve` is called on
  // whatever thread, and looks by itself whether this member leads.
  void AskLeader(const char* method, std::string body, absl::Duration deadline,
                 Network::CallDone done);
  void AnswerAsLeader(const char* method, Network::Serve serve);

  MemberId id() const { return self_.member_id; }
  uint64_t cluster_id() const { return self_.cluster_id; }
  ReplicaStatus Status() const;
  // Cheap enough for every request.
  Term term() const { return term_.load(std::memory_order_relaxed); }
  MemberId leader() const { return leader_.load(std::memory_order_relaxed); }  // 0: none known.
  bool leading() const { return leader() == id(); }
  // How long there has been no leader; zero while there is one.
  absl::Duration leaderless() const;
  // For judges that run everything in one thread; nobody else may look while loops run.
  const raft::Core& core() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return core_; }

 private:
  // Times are Uptime(); InfiniteDuration() never comes.
  struct Proposal {
    std::string command;
    absl::Duration deadline;
    bool forwarded = false;  // Came from another member: refused, not passed on, where none leads.
    Caller<ProposalResult> caller;
  };
  struct Waiter {  // For the fate of an entry.
    Term term = 0;
    absl::Duration deadline;
    Caller<ProposalResult> caller;
  };
  struct Forward {  // Under way to the leader.
    MemberId to = 0;
    std::vector<Proposal> proposals;
  };
  struct Parked {  // Applied by the leader, not yet here: answered then, or when the time is over.
    absl::Duration deadline;
    Loop::Task answer;
  };
  struct PendingRead {
    absl::Duration deadline;
    Caller<ReadResult> caller;
  };
  struct Change {
    raft::MemberChange change;
    absl::Duration deadline;
    bool forwarded = false;
    Position position;  // Of its entry; 0 while it is not appended.
    raft::ChangeRefusal refusal = raft::ChangeRefusal::kNone;  // The latest.
    Caller<MembersResult> caller;
  };
  struct Transfer {
    MemberId to = 0;
    absl::Duration deadline;
    bool forwarded = false;
    bool begun = false;
    Caller<ReplicaError> caller;
  };

#define KV_RAFT_LOOP ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_)
  // The loop's beat: whatever came in since the last one is stepped, then one Carry.
  void Wake() KV_RAFT_LOOP;
  void Carry() KV_RAFT_LOOP;
  void CarryOut(raft::Output output) KV_RAFT_LOOP;
  void TickLater();
  void OnTick() KV_RAFT_LOOP;
  void SweepDeadlines() KV_RAFT_LOOP;

  // Proposals.
  void Admit(Proposal proposal) KV_RAFT_LOOP;
  void ProposeGathered() KV_RAFT_LOOP;
  void ForwardGathered(MemberId leader) KV_RAFT_LOOP;
  void OnForwardAnswered(uint64_t number, absl::StatusOr<std::string> answer) KV_RAFT_LOOP;
  void OnCommitted(std::vector<EntryPtr> entries) KV_RAFT_LOOP;
  void OnApplied(Position applied) KV_RAFT_LOOP;
  void Park(Index index, absl::Duration deadline, Loop::Task answer) KV_RAFT_LOOP;
  void Fail(Caller<ProposalResult>& caller, ReplicaError error);

  // Reads.
  void ReadGathered() KV_RAFT_LOOP;
  void OnGranted(const raft::ReadGrant& grant) KV_RAFT_LOOP;
  void OnDropped(raft::ReadId id) KV_RAFT_LOOP;
  void SweepReads(ReplicaError error) KV_RAFT_LOOP;

  // Membership and leadership.
  void OnStanding(const raft::Standing& standing) KV_RAFT_LOOP;
  void SetPeers(const raft::Members& members) KV_RAFT_LOOP;
  void ServeChanges() KV_RAFT_LOOP;
  void ServeTransfers() KV_RAFT_LOOP;
  bool ServeChange(Change& change) KV_RAFT_LOOP;  // True: answered, or passed on.
  bool ServeTransfer(Transfer& transfer) KV_RAFT_LOOP;
  void ForwardChange(Change change, MemberId leader) KV_RAFT_LOOP;
  void OnChangeAnswered(uint64_t number, absl::StatusOr<std::string> answer) KV_RAFT_LOOP;
  void ForwardTransfer(Transfer transfer, MemberId leader) KV_RAFT_LOOP;
  void OnTransferAnswered(uint64_t number, absl::StatusOr<std::string> answer) KV_RAFT_LOOP;
  void SweepChanges() KV_RAFT_LOOP;
  void RaiseClusterVersion() KV_RAFT_LOOP;

  // Snapshots and the log's length.
  void SendSnapshot(MemberId to) KV_RAFT_LOOP;
  void OfferSnapshot(MemberId to, Snapshot snapshot) KV_RAFT_LOOP;
  void OnSnapshotSent(MemberId to, Position at, const std::string& path,
                      bool delivered) KV_RAFT_LOOP;
  void OnSnapshotReceived(raft::Envelope envelope, Snapshot snapshot) KV_RAFT_LOOP;
  void Adopt(const raft::SnapshotOffer& offer) KV_RAFT_LOOP;
  void DropSnapshot(Position at) KV_RAFT_LOOP;
  void FlushIfDue() KV_RAFT_LOOP;
  void RemoveLater(std::string path);

  // Stopping.
  void CloseIfDrained() KV_RAFT_LOOP;
  void AnswerEverybody() KV_RAFT_LOOP;
#undef KV_RAFT_LOOP

  // Calls from other members, and what their handshakes ask.
  Index AcknowledgedBy(MemberId member) const;
  void ServeCalls();
  bool IsForUs(const ForwardHeader& header) const;
  void ServeProposals(ForwardedProposals request, Caller<absl::StatusOr<std::string>> caller)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_);
  void ServeForwardedChange(ForwardedChange request, Caller<absl::StatusOr<std::string>> caller)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_);
  void ServeForwardedTransfer(ForwardedTransfer request, Caller<absl::StatusOr<std::string>> caller)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_);
  void CallLeader(MemberId leader, const char* method, std::string request, absl::Duration deadline,
                  Network::CallDone done) ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_);

  void ToRaft(Loop::Task task);  // Dropped once the replica is going away.
  absl::Duration Until(absl::Duration deadline) const;
  void Publish() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*raft_loop_);

  // Constant after construction.
  const LocalIdentity self_;
  const ReplicaOptions options_;
  Runtime* const runtime_;
  Network* const network_;
  Machine* const machine_;
  rocksdb::Env* const env_;
  const std::function<void(std::string_view)> fatal_;
  const std::function<Index(MemberId)> noted_of_;
  const std::function<void(std::string)> found_stale_;
  const ReplicaMetrics metrics_;
  const std::shared_ptr<Door> door_;

  // Any thread.
  Inflight inflight_proposals_;
  Inflight inflight_reads_;
  std::atomic<Term> term_ = 0;
  std::atomic<MemberId> leader_ = 0;
  std::atomic<int64_t> leaderless_since_ = 0;  // Uptime in nanoseconds; -1: there is a leader.
  std::atomic<bool> stopping_ = false;
  mutable Mutex status_mutex_;
  ReplicaStatus status_ ABSL_GUARDED_BY(status_mutex_);

  // Guarded by raft_loop_.
  raft::Core core_ ABSL_GUARDED_BY(*raft_loop_);
  bool carry_posted_ ABSL_GUARDED_BY(*raft_loop_) = false;
  size_t writes_in_flight_ ABSL_GUARDED_BY(*raft_loop_) = 0;
  bool tick_passed_ ABSL_GUARDED_BY(*raft_loop_) = false;  // Since proposals were last appended.
  Index applied_ ABSL_GUARDED_BY(*raft_loop_) = 0;         // What the machine has reported.

  std::vector<Proposal> proposals_ ABSL_GUARDED_BY(*raft_loop_);  // Not yet given to anybody.
  std::map<Index, Waiter> waiters_ ABSL_GUARDED_BY(*raft_loop_);
  std::map<uint64_t, Forward> forwards_ ABSL_GUARDED_BY(*raft_loop_);
  std::multimap<Index, Parked> parked_ ABSL_GUARDED_BY(*raft_loop_);
  bool hold_ ABSL_GUARDED_BY(*raft_loop_) = false;  // Nobody to propose to until something changes,
  bool log_full_ ABSL_GUARDED_BY(*raft_loop_) = false;  // here: because the log is full.

  std::vector<PendingRead> reads_ ABSL_GUARDED_BY(*raft_loop_);  // Of the next round.
  std::map<raft::ReadId, std::vector<PendingRead>> read_rounds_ ABSL_GUARDED_BY(*raft_loop_);
  std::multimap<Index, PendingRead> granted_ ABSL_GUARDED_BY(*raft_loop_);
  bool hold_reads_ ABSL_GUARDED_BY(*raft_loop_) = false;

  std::vector<Change> changes_ ABSL_GUARDED_BY(*raft_loop_);
  std::vector<Transfer> transfers_ ABSL_GUARDED_BY(*raft_loop_);
  std::map<uint64_t, Change> forwarded_changes_ ABSL_GUARDED_BY(*raft_loop_);
  std::map<uint64_t, Transfer> forwarded_transfers_ ABSL_GUARDED_BY(*raft_loop_);

  std::map<MemberId, PeerAddress> peers_ ABSL_GUARDED_BY(*raft_loop_);
  std::map<MemberId, uint32_t> machine_versions_ ABSL_GUARDED_BY(*raft_loop_);
  uint32_t raised_to_ ABSL_GUARDED_BY(*raft_loop_) = 0;  // In this term of leadership.

  std::set<MemberId> snapshots_under_way_ ABSL_GUARDED_BY(*raft_loop_);
  std::map<Position, Snapshot> received_ ABSL_GUARDED_BY(*raft_loop_);
  bool flushing_ ABSL_GUARDED_BY(*raft_loop_) = false;
  Index flushed_ ABSL_GUARDED_BY(*raft_loop_) = 0;  // The machine is durable through here.

  uint64_t next_number_ ABSL_GUARDED_BY(*raft_loop_) = 1;  // Of reads, forwards, directories.
  std::optional<absl::Duration> stop_by_ ABSL_GUARDED_BY(*raft_loop_);
  absl::AnyInvocable<void() &&> stopped_ ABSL_GUARDED_BY(*raft_loop_);
  bool closed_ ABSL_GUARDED_BY(*raft_loop_) = false;  // Takes part in nothing any more.

  // In this order: each is posted to by those below, and goes after them.
  std::unique_ptr<LogWriter> log_;
  std::unique_ptr<Applier> applier_;
  std::unique_ptr<Loop> work_loop_;
  std::unique_ptr<Loop> raft_loop_;
};

}  // namespace kv

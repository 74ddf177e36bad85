// The Raft protocol as a deterministic state machine.
//
// A Core turns inputs (a tick, a message, a proposal, a finished write) into one Output (messages
// to send, bytes to make durable, entries to apply). It starts no thread, reads no clock, touches
// no disk or socket and writes no log, so a test can run a whole cluster in a for-loop and replay
// any run from its seed. The shell around it is server/replica; the rules it keeps are numbered in
// README.md.
//
// Section numbers refer to Ongaro, "Consensus: Bridging Theory and Practice" (2014).
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "server/raft/log.h"
#include "server/raft/members.h"
#include "server/raft/message.h"
#include "server/raft/progress.h"
#include "server/raft/random.h"
#include "storage/entry.h"

namespace kv::raft {

using ReadId = uint64_t;  // The shell's own name of a read.

// Pre-vote and check-quorum are always on.
struct Options {
  int election_ticks = 10;  // No leader for this long (and up to twice as long): campaign.
  int heartbeat_ticks = 1;  // At least this often a leader speaks; < election_ticks.
  uint64_t max_append_bytes = uint64_t{1} << 20;  // Of entries in one append; one always fits.
  size_t max_inflight_appends = 64;               // Unanswered appends to one follower.
  uint64_t max_log_bytes = uint64_t{32} << 20;    // Retained in memory; past it nothing is taken.
};

// What the disk held at startup. A founding begins with base {1, 1}, the founders as base_members
// and applied 1, on every founder alike. A member that has nothing yet begins with all of it empty.
struct Found {
  HardState hard_state;
  Position base;         // The log begins after this position.
  Members base_members;  // As of `base`.
  std::vector<EntryPtr> entries;
  Index applied = 0;  // By the machine; not below base.index, not past the last entry.
};

enum class Role : uint8_t { kFollower, kPreCandidate, kCandidate, kLeader };

// The member at a glance.
struct Standing {
  MemberId self = 0;
  Role role = Role::kFollower;
  Term term = 0;
  MemberId leader = 0;       // 0: none known in this term.
  bool established = false;  // Leader, and an entry of its own term is committed.
  bool removed = false;      // Removed for good: this member will never take part again.
  MemberId successor = 0;    // Leader: handing over to this member; refuses proposals meanwhile.
  Members members;           // The newest in the log, committed or not.
  Index members_index = 0;   // Where it stands in the log.
  bool members_committed = false;
  Index commit = 0;  // As of the time it was published.
  friend bool operator==(const Standing&, const Standing&) = default;
};

// One durable step. Writes finish in the order of their ids.
struct Write {
  WriteId id = 0;                  // 1, 2, 3, …
  LogUpdate update;                // Empty: done at once if no earlier write is in flight.
  std::vector<Envelope> promises;  // Messages this write makes true: send them once it is durable.
};

// A linearizable read may run once the machine has applied `index`.
struct ReadGrant {
  ReadId id = 0;
  Index index = 0;
  friend bool operator==(const ReadGrant&, const ReadGrant&) = default;
};

// What a Core asks its shell to do. Empty fields ask for nothing.
struct Output {
  // Send at once, in any order, or lose: the protocol copes.
  std::vector<Envelope> messages;

  // Make durable, after every earlier write and before every later one. Then call
  // Persisted(write->id) and send write->promises. A failure ends the process (R31, R92).
  std::optional<Write> write;

  // Committed and durable here; apply in order, then call Applied(). Each is given out once.
  std::vector<EntryPtr> committed;

  // Each Read() ends in exactly one of these two, or is forgotten with the core.
  std::vector<ReadGrant> reads;
  std::vector<ReadId> dropped_reads;  // The leader is unknown or changed: say so, or Read() again.

  // Followers that only a snapshot helps. Make or share one at a position >= applied, send it with
  // an Envelope{self, follower, term, SnapshotOffer}, and call SnapshotSent() whatever happens.
  std::vector<MemberId> need_snapshot;

  // Every SnapshotOffer given to Step ends in exactly one of these two. The adopted one becomes the
  // state, durably; then call SnapshotAdopted(). At most one is under way, and meanwhile nothing is
  // committed. The term it came in is durable when this is given out.
  std::optional<SnapshotOffer> adopt;
  std::vector<SnapshotOffer> refused_snapshots;  // Not needed: delete the files.

  // The store may forget entries up to and including this position. Never a reset's replacement.
  std::optional<Position> drop;

  // Set when anything in it changed besides `commit`.
  std::optional<Standing> standing;

  bool empty() const;
};

enum class ProposeRefusal : uint8_t {
  kNone,
  kNotLeader,
  kTransferring,  // The leadership is being handed over; ends by itself within election_ticks.
  kLogFull,       // max_log_bytes are retained: the machine must become durable first.
};
struct ProposeResult {
  ProposeRefusal refusal = ProposeRefusal::kNone;
  Position first;  // Of the first command; the others follow it. They commit there or nowhere.
};

struct ChangeResult {
  ChangeRefusal refusal = ChangeRefusal::kNone;
  Position position;   // Of the configuration entry that starts the change.
  bool joint = false;  // A second entry, which leaves the joint configuration, follows by itself.
};

enum class TransferRefusal : uint8_t {
  kNone,
  kNotLeader,
  kUnderWay,  // To somebody else.
  kNotVoter,  // Nobody who could lead: not a voter of the current configuration, or this member.
};

// A leader's view of one other member.
struct FollowerStatus {
  MemberId id = 0;
  Progress::State state = Progress::State::kProbe;
  Index match = 0;
  Index next = 0;
  size_t in_flight = 0;
  bool active = false;  // Heard from within the last one to two election_ticks.
  Flow flow = Flow::kOpen;
};

class Core {
 public:
  // `found` is what the disk held. `seed` is the only source of chance; it must differ between the
  // lives of a member (numbers of forwarded reads begin at random, so that an answer to an earlier
  // life answers nothing).
  Core(MemberId self, const Options& options, Found found, uint64_t seed);

  // Inputs. Any number of them, then TakeOutput.
  void Tick();
  void Step(Envelope received);
  ProposeResult Propose(std::vector<std::string> commands);  // At least one. All or nothing.
  ChangeResult ChangeMembers(const MemberChange& change);
  // Ids are the caller's and should not repeat while one is open. On a follower it asks the leader.
  void Read(ReadId id);
  // 0: to whoever is furthest among the active voters. Ends when a newer term begins or, without
  // success, after election_ticks; standing().successor tells.
  TransferRefusal TransferLeadership(MemberId to);
  void Persisted(WriteId id);           // The write, and every earlier one, is durable.
  void Applied(Index index);            // The machine has applied everything through here.
  void DropThrough(Position position);  // The machine is durable through here.
  void SnapshotSent(MemberId to, Position at, bool delivered);
  void SnapshotAdopted(Position at, Members members);
  void Unreachable(MemberId peer);  // What was on its way to it may be lost.

  // The one output. Everything asked since the last call.
  Output TakeOutput();

  // Always current, unlike the copy in an Output.
  const Standing& standing() const;
  MemberId self() const { return self_; }
  Term term() const { return hard_state_.term; }
  HardState hard_state() const { return hard_state_; }
  Index commit() const { return commit_; }
  Index applied() const { return applied_; }
  const Log& log() const { return log_; }
  const Members& members() const { return log_.members(); }
  std::vector<FollowerStatus> Followers() const;                   // Empty unless leader; by id.
  uint64_t refused_messages() const { return refused_messages_; }  // Malformed, since the start.

  void CheckInvariants() const;  // Every invariant of README.md. Tests: after each input.

 private:
  struct Follower {};
  struct PreCandidate {
    std::map<MemberId, Vote> votes;
  };
  struct Candidate {
    std::map<MemberId, Vote> votes;
  };
  // Somebody waits for a read index: this member's shell (ReadId) or a follower (its number).
  struct OpenRead {
    MemberId from = 0;
    uint64_t number = 0;
  };
  struct Leader {
    std::map<MemberId, Progress> followers;
    std::vector<MemberId> departed;  // Dropped from the configuration, not told yet.
    Index term_start = 0;            // The empty entry that began the term.
    int heartbeat_elapsed = 0;
    int quorum_elapsed = 0;
    MemberId successor = 0;
    int successor_elapsed = 0;
    ReadRound round = 0;               // The latest begun.
    std::vector<OpenRead> confirming;  // Wait for `round`; empty: no round is out.
    Index confirming_index = 0;        // The commit index when it began.
    std::vector<OpenRead> gathering;   // Wait for the next round.
  };
  // A follower's reads, on their way through the leader.
  struct ForwardedReads {
    uint64_t number = 0;        // Of the request under way; the next is one more.
    std::vector<ReadId> asked;  // Wait for the answer to `number`; empty: none is under way.
    int elapsed = 0;            // Ticks since it was asked.
    std::vector<ReadId> gathering;
  };

  // core.cc: inputs in common.
  bool IsSound(const Envelope& received) const;
  bool FitsLimits(const Message& message, Term term) const;
  void Receive(Envelope received);
  bool TakeNewerTerm(const Envelope& received);
  void AnswerOlderTerm(const Envelope& received);
  void BecomeFollower(Term term, MemberId leader);
  void EnterTerm(Term term, MemberId vote);
  void HearLeader(MemberId from);
  void Send(MemberId to, Message message);  // Promises wait for the next write.
  void DropReads();
  void CommitThrough(Index index);
  void RefreshStanding();
  Flow FlowHere() const;
  bool IsLeader() const { return std::holds_alternative<Leader>(role_); }
  void RefuseAcknowledgement();

  // core.cc: the output.
  void TakeWrite(Output& output);
  void TakeCommitted(Output& output);
  void ForgetOldEntries(Output& output);

  // election.cc
  void TickElection();
  void ResetElectionTimer();
  bool MayCampaign() const;
  bool HearsFromLeader() const;
  bool IsUpToDate(Position last) const;
  bool AnswerRemoved(MemberId from);
  void StartPreVote();
  void Campaign(Cause cause);
  void CountOwnVote();
  void CountVotes();
  template <typename Votes>
  std::optional<Vote> Outcome(const Votes& votes) const;
  void On(MemberId from, const PreVoteRequest& request);
  void On(MemberId from, const PreVoteReply& reply);
  void On(MemberId from, const VoteRequest& request);
  void On(MemberId from, const VoteReply& reply);
  void On(MemberId from, const TimeoutNow& request);
  void On(MemberId from, const Removed& told);

  // follower.cc
  void On(MemberId from, Append& append);
  void TakeEntries(std::vector<EntryPtr>& entries);
  void On(MemberId from, const Heartbeat& heartbeat);
  void On(MemberId from, SnapshotOffer& offer);
  void On(MemberId from, const ReadReply& reply);
  void TickForwardedReads();
  void AskLeader();

  // leader.cc
  void BecomeLeader();
  void TickLeader(Leader& leader);
  void SendHeartbeat(MemberId to, Progress& follower, ReadRound round);
  void AppendOwn(EntryKind kind, std::string data);
  void FollowMembers(Leader& leader);  // Progress for everybody, and nobody else.
  void SendAppends(Leader& leader);
  void SendAppendsTo(MemberId to, Progress& follower);
  void SendAppend(MemberId to, Progress& follower, Index last);
  void AdvanceCommit();
  void MembersCommitted(Leader& leader);
  bool IsDismissed(const Leader& leader) const;
  void StepDownDismissed(Leader& leader);
  MemberId BestSuccessor(const Leader& leader) const;
  void HandOver(Leader& leader);
  void StartReadRound(Leader& leader);
  void GrantReads(const std::vector<OpenRead>& reads, Index index);
  void On(MemberId from, const AppendReply& reply);
  void Take(MemberId from, Leader& leader, Progress& follower, const Accepted& accepted);
  void Take(Progress& follower, const Rejected& rejected);
  void On(MemberId from, const HeartbeatReply& reply);
  void On(MemberId from, const ReadRequest& request);

  void CheckLeader(const Leader& leader) const;

  const MemberId self_;
  const Options options_;
  SplitMix64 random_;

  HardState hard_state_;
  std::variant<Follower, PreCandidate, Candidate, Leader> role_;
  MemberId leader_ = 0;       // Of this term, once known.
  int election_elapsed_ = 0;  // Ticks since the leader was heard, or the last campaign.
  int election_timeout_ = 0;
  bool removed_ = false;

  Log log_;
  // Invariant: base <= applied_ <= given_ <= commit_ <= last index, and given_ <= stable.
  Index commit_ = 0;
  Index given_ = 0;  // Handed out in Output::committed.
  Index applied_ = 0;
  Index durable_ = 0;  // By the machine; may run ahead of applied_, which is reported on its own.
  std::optional<SnapshotOffer> adopting_;
  MemberId adopting_from_ = 0;
  Term adopting_term_ = 0;  // In which it was offered.
  bool adopting_given_ = false;

  ForwardedReads forwarded_;
  uint64_t refused_messages_ = 0;

  // Writes. A hard state is durable when the write that carries it is.
  WriteId last_write_ = 0;
  WriteId persisted_ = 0;
  HardState hard_state_given_;
  HardState hard_state_durable_;
  std::deque<std::pair<WriteId, HardState>> hard_states_in_flight_;

  // The next output.
  std::vector<Envelope> messages_;
  std::vector<Envelope> promises_;
  std::vector<ReadGrant> grants_;
  std::vector<ReadId> dropped_reads_;
  std::vector<MemberId> need_snapshot_;
  std::vector<SnapshotOffer> refused_snapshots_;
  Standing standing_;
  bool standing_changed_ = true;
  uint64_t standing_members_version_ = 0;
};

}  // namespace kv::raft

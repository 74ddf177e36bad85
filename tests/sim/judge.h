// Sees everything that happens in a simulated cluster, survives every crash, and knows the laws
// that hold within one member, between members, and between a member and its disk.
//
// It is asked after every event of a raft or apply loop, and ends the run at the first broken law.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "server/kv/kv_machine.h"
#include "server/raft/core.h"
#include "storage/mvcc.h"
#include "tests/sim/history.h"
#include "tests/sim/sim_disk.h"

namespace kv::sim {

// The run ends: a law is broken.
[[noreturn]] void Condemn(std::string_view law);

// One life of a member, as the judge last saw it.
struct Life {
  Term term = 0;
  Index commit = 0;
  Index applied = 0;
  uint64_t members_version = 0;
  Index configured = 0;  // The newest configuration that its machine was found to know.
  bool led = false;
  bool begun = false;
  std::vector<Term> terms;  // Of its log, by index; 0: not seen.
  uint64_t looks = 0;
};

class Judge {
 public:
  // `disk_of` answers null for a member whose disk is lost, damaged or RocksDB's: what it holds,
  // nobody can tell. Every `thorough`-th look at a core asks
  // it to check all its own invariants, which takes as long as its log is.
  Judge(std::function<const SimDisk*(MemberId)> disk_of, uint64_t thorough)
      : disk_of_(std::move(disk_of)), thorough_(thorough) {}

  // What the founders agreed on.
  void Founded(const raft::Members& members) { founding_ = members; }
  void AfterRaft(Life& life, const raft::Core& core, Time now);
  void AfterApply(Life& life, MemberId id, const KvMachine& machine);
  // Before it leaves.
  void Sent(const raft::Envelope& envelope);

  Index last_committed() const { return base_.index + committed_.size(); }
  const EntryPtr& Committed(Index index) const { return committed_[index - base_.index - 1]; }
  // What clients asked for, in the order in which it was committed; 0 for everything else.
  std::vector<OperationId> CommittedOperations() const;
  // The commands, in that order.
  std::vector<Taken> Log() const;
  // The newest configuration that is committed.
  const raft::Members& committed_members() const {
    return configurations_.empty() ? founding_ : configurations_.rbegin()->second;
  }
  // Envelopes, by the kind of their message.
  using Counts = std::array<uint64_t, std::variant_size_v<raft::Message>>;
  const Counts& sent() const { return sent_; }

 private:
  void CheckTail(Life& life, const raft::Core& core);
  void CheckCommits(Life& life, const raft::Core& core, Time now);
  void CheckDurable(const raft::Core& core, const Entry& entry);
  void CheckLeader(const raft::Core& core);
  void CheckConfigurations(const raft::Core& core);
  void Voted(MemberId voter, Term term, MemberId candidate);

  struct Seen {
    uint32_t checksum = 0;
    Term term_before = 0;
  };
  struct PositionHash {
    size_t operator()(const Position& p) const { return p.index * 0x9e3779b97f4a7c15 + p.term; }
  };

  const std::function<const SimDisk*(MemberId)> disk_of_;
  const uint64_t thorough_;
  const Position base_{.index = 1, .term = 1};  // Where every cluster begins.
  raft::Members founding_;
  std::unordered_map<Position, Seen, PositionHash> entries_;  // Looked up, never walked.
  Counts sent_{};
  std::map<Term, MemberId> leaders_;
  std::map<std::pair<MemberId, Term>, MemberId> votes_;
  std::map<MemberId, Term> terms_;  // That a member has promised something in, in any life.
  std::vector<EntryPtr> committed_;
  std::vector<Term> committed_in_;  // By the leader of which term, each of them.
  std::vector<Time> committed_at_;
  std::map<Index, raft::Members> configurations_;
  // Digest and revision where somebody stood after an entry, by its index; revision 0: not seen.
  std::vector<std::pair<uint64_t, Revision>> digests_;
  std::set<std::pair<std::string, std::string>> adjacent_;  // Configurations that were compared.
};

// Whether some quorum of `a` and some quorum of `b` have no member in common.
bool HaveDisjointQuorums(const raft::Members& a, const raft::Members& b);

// A client's mark on its command: a field that the machine skips.
std::string Tagged(std::string command, OperationId id);
OperationId TagOf(std::string_view command);

}  // namespace kv::sim

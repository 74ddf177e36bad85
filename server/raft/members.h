// Who belongs to the cluster, who may vote, and the rules by which that changes.
//
// A configuration is a plain value that travels whole in a kMembers entry and in snapshots; it
// takes effect on a member as soon as the entry is in its log (Ongaro §4.1). A change of voters
// passes through a joint configuration in which the old and the new majority must both agree
// (§4.3); a change of learners or records alone is one simple entry, because it moves no majority.
//
// Pure functions; no state besides the value itself.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "storage/entry.h"
#include "storage/mark.h"

namespace kv::raft {

inline constexpr size_t kVotersMax = 15;   // New voters; as many may be outgoing.
inline constexpr size_t kMembersMax = 64;  // Voters, outgoing and learners together.
inline constexpr size_t kRecordBytesMax = size_t{64} << 10;  // Of one member.

// Invariants (IsValid): every list is sorted, without repeats and without 0; `voters` is not empty
// unless everything is; voters and learners are disjoint; learners_next is a part of outgoing and
// disjoint from voters and learners; removed is disjoint from all of them; every record belongs to
// a member.
struct Members {
  std::vector<MemberId> voters{};
  std::vector<MemberId> outgoing{};       // The old voters while the configuration is joint.
  std::vector<MemberId> learners{};       // Receive the log, have no vote (§4.2.1).
  std::vector<MemberId> learners_next{};  // Outgoing voters that become learners when it is left.
  std::map<MemberId, std::string> records{};  // Opaque bytes per member, owned by others.
  std::vector<MemberId> removed{};            // Tombstones: an id is never used twice.

  bool IsJoint() const { return !outgoing.empty(); }
  bool IsVoter(MemberId id) const;    // In voters or outgoing: its vote counts.
  bool IsLearner(MemberId id) const;  // In learners.
  bool IsMember(MemberId id) const;   // Voter or learner.
  bool IsRemoved(MemberId id) const;
  bool IsSoleVoter(MemberId id) const;  // Its own vote is every majority.
  std::vector<MemberId> All() const;    // Voters, outgoing and learners; sorted.
  bool IsValid() const;

  friend bool operator==(const Members&, const Members&) = default;
};

// A versioned, deterministic encoding of our own: equal values have equal bytes, so digests over
// them agree between members. Decode answers nothing for bytes that are cut off, over the limits
// above, of a version it does not know, or that describe an invalid value.
std::string Encode(const Members& members);
std::optional<Members> DecodeMembers(std::string_view bytes);

// A majority of `voters` and, while joint, of `outgoing` (§4.3). No configuration: no quorum.
// `holds` tells for a member whether it agrees; it is asked about voters and outgoing only.
template <typename Holds>
bool IsQuorum(const Members& members, const Holds& holds) {
  const auto majority = [&holds](const std::vector<MemberId>& ids) {
    size_t agree = 0;
    for (const MemberId id : ids) agree += holds(id) ? size_t{1} : size_t{0};
    return MUTANT("raft.half_is_a_majority") ? agree * 2 >= ids.size() : agree > ids.size() / 2;
  };
  if (MUTANT("raft.joint_needs_new_majority_only")) return majority(members.voters);
  return majority(members.voters) && (!members.IsJoint() || majority(members.outgoing));
}

// The largest index that a quorum has reached, where `matched(id)` is how far one member got.
template <typename Matched>
Index QuorumIndex(const Members& members, const Matched& matched);

// What becomes of one member.
enum class MemberFate { kVoter, kLearner, kRemoved };

struct MemberTarget {
  MemberId id = 0;
  MemberFate fate = MemberFate::kVoter;
  std::optional<std::string> record;  // Nothing: keep the one it has.
};

// In what shape the other members must be for a change; its shell looks, on the leader.
enum class MemberGuard : uint8_t {
  kNone,
  kAllActive,     // Every voter answers the leader.
  kQuorumActive,  // Without a target that answers, the rest still has a majority that does.
  kCaughtUp,      // Every target that is to vote holds nine tenths of the leader's log.
};

// Members that are not named stay as they are.
struct MemberChange {
  std::vector<MemberTarget> targets;
  // Refuse if the configuration is another one by now: what was decided upon no longer holds.
  std::optional<Members> from{};
  MemberGuard guard = MemberGuard::kNone;
};

enum class ChangeRefusal {
  kNone,
  kNotLeader,       // Ask the leader.
  kUnderWay,        // An earlier change is not committed, or its joint configuration not left.
  kNotEstablished,  // No entry of the leader's own term is committed yet (§4.1, R40).
  kTransferring,    // The leadership is being handed over.
  kNoVoter,         // It would leave nobody who votes.
  kUnknownMember,   // To be removed, but not a member.
  kWasRemoved,      // An id is never used twice.
  kNothingChanges,
  kInvalid,   // A zero id, an id named twice, a record for a removed member or one over the limit.
  kTooMany,   // kVotersMax or kMembersMax would be exceeded.
  kMoved,     // The configuration is not the one that the change was made for.
  kInactive,  // MemberGuard: too few members answer.
  kNotCaughtUp,  // MemberGuard: a target's log is too far behind.
};

// What a change makes of `from` (which is not joint): `next` is joint if the voters change.
struct ChangeOutcome {
  ChangeRefusal refusal = ChangeRefusal::kNone;
  Members next;
};
ChangeOutcome PlanChange(const Members& from, const MemberChange& change);

// What follows a joint configuration: outgoing voters become learners or are removed.
Members LeaveJoint(const Members& joint);

template <typename Matched>
Index QuorumIndex(const Members& members, const Matched& matched) {
  const auto majority = [&matched](const std::vector<MemberId>& ids) -> Index {
    if (ids.empty()) return 0;
    std::vector<Index> reached;
    reached.reserve(ids.size());
    for (const MemberId id : ids) {
      // Insertion from the largest down: there are at most kVotersMax of them.
      const Index index = matched(id);
      auto at = reached.begin();
      while (at != reached.end() && *at > index) ++at;
      reached.insert(at, index);
    }
    return reached[reached.size() / 2];
  };
  const Index incoming = majority(members.voters);
  if (!members.IsJoint() || MUTANT("raft.joint_needs_new_majority_only")) return incoming;
  const Index outgoing = majority(members.outgoing);
  return incoming < outgoing ? incoming : outgoing;
}

}  // namespace kv::raft

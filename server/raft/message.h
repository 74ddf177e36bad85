// What members say to each other: one struct per message, one variant of them.
//
// Messages may be lost, repeated, delayed and reordered; every one of them is understood on its
// own. Three kinds are promises about the sender's disk and wait for a write (core.h); the rest
// goes out at once.
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "storage/entry.h"

namespace kv::raft {

// Numbers above these never occur in a cluster that works. A message that holds one is dropped, so
// that no arithmetic on terms and indexes can overflow (R39).
inline constexpr Term kTermMax = uint64_t{1} << 62;
inline constexpr Index kIndexMax = uint64_t{1} << 62;
// How far one message may move a member's term.
inline constexpr Term kTermJumpMax = uint64_t{1} << 32;

enum class Vote : uint8_t { kDenied = 0, kGranted = 1 };

// "Would you vote for me in `proposed`?" Changes nothing at the receiver (§9.6).
struct PreVoteRequest {
  Term proposed = 0;
  Position last;  // Of the sender's log.
  friend bool operator==(const PreVoteRequest&, const PreVoteRequest&) = default;
};
struct PreVoteReply {
  Term proposed = 0;  // Of the request.
  Vote vote = Vote::kDenied;
  friend bool operator==(const PreVoteReply&, const PreVoteReply&) = default;
};

enum class Cause : uint8_t {
  kTimeout = 0,   // The sender has not heard of a leader.
  kTransfer = 1,  // The leader itself asked for the election (§3.10); nobody protects it.
};
struct VoteRequest {
  Position last;
  Cause cause = Cause::kTimeout;
  friend bool operator==(const VoteRequest&, const VoteRequest&) = default;
};
struct VoteReply {
  Vote vote = Vote::kDenied;
  friend bool operator==(const VoteReply&, const VoteReply&) = default;
};

// Entries that follow `prev` in the leader's log; none to probe, or to tell of the commit index.
struct Append {
  Position prev;
  std::vector<EntryPtr> entries;  // Contiguous from prev.index + 1.
  Index commit = 0;               // The leader's; may be past these entries.
};
bool operator==(const Append& a, const Append& b);

// Whether a follower has room for more entries. On hold the leader sends it none (D2).
enum class Flow : uint8_t { kOpen = 0, kHold = 1 };

// The receiver's log equals the leader's through `match`, durably.
struct Accepted {
  Index match = 0;
  friend bool operator==(const Accepted&, const Accepted&) = default;
};
// The receiver does not have `prev`. Its log may equal the leader's at `hint` at the latest: the
// largest index not above prev.index whose term is not above prev.term, and that term.
struct Rejected {
  Index prev = 0;
  Position hint;
  friend bool operator==(const Rejected&, const Rejected&) = default;
};
struct AppendReply {
  std::variant<Accepted, Rejected> verdict;
  Flow flow = Flow::kOpen;
  friend bool operator==(const AppendReply&, const AppendReply&) = default;
};

// Numbers the leader's rounds of asking "am I still the leader?" within its term; 0: none yet.
using ReadRound = uint64_t;

struct Heartbeat {
  Index commit = 0;     // Never past what this receiver is known to hold.
  ReadRound round = 0;  // The latest round under way.
  friend bool operator==(const Heartbeat&, const Heartbeat&) = default;
};
struct HeartbeatReply {
  ReadRound round = 0;  // Of the heartbeat.
  Flow flow = Flow::kOpen;
  friend bool operator==(const HeartbeatReply&, const HeartbeatReply&) = default;
};

// Travels with the files of a snapshot; reaches Core::Step only once they are verified here.
struct SnapshotOffer {
  Position at;
  std::string members;  // Encode(Members) as of `at`.
  friend bool operator==(const SnapshotOffer&, const SnapshotOffer&) = default;
};

// The leader asks the receiver to campaign at once (§3.10).
struct TimeoutNow {
  friend bool operator==(const TimeoutNow&, const TimeoutNow&) = default;
};

// A follower asks for an index to read at (§6.4). `number` is the follower's own and never repeats,
// also across its restarts.
struct ReadRequest {
  uint64_t number = 0;
  friend bool operator==(const ReadRequest&, const ReadRequest&) = default;
};
struct ReadReply {
  uint64_t number = 0;
  Index index = 0;
  friend bool operator==(const ReadReply&, const ReadReply&) = default;
};

// "You were removed, and that is committed": the answer to a removed member's election (R47).
struct Removed {
  friend bool operator==(const Removed&, const Removed&) = default;
};

using Message = std::variant<PreVoteRequest, PreVoteReply, VoteRequest, VoteReply, Append,
                             AppendReply, Heartbeat, HeartbeatReply, SnapshotOffer, TimeoutNow,
                             ReadRequest, ReadReply, Removed>;

struct Envelope {
  MemberId from = 0;
  MemberId to = 0;
  Term term = 0;  // The sender's when it spoke.
  Message message;
  friend bool operator==(const Envelope&, const Envelope&) = default;
};

}  // namespace kv::raft

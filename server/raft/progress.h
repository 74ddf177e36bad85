// What a leader knows of one follower, and what it may send it now.
//
//            accepted                       too far behind the log
//   PROBE ───────────────▶ REPLICATE    PROBE ───────────────▶ SNAPSHOT
//     ▲    rejected, lost ◀┘              ▲    sent or failed ◀┘
//
// PROBE sends one append and waits for a sign of life before the next; REPLICATE streams ahead of
// the replies, bounded by a window; SNAPSHOT sends nothing until the shell reports the transfer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>

#include "server/raft/message.h"
#include "storage/entry.h"

namespace kv::raft {

class Progress {
 public:
  enum class State : uint8_t { kProbe, kReplicate, kSnapshot };

  // Invariant: match < next.
  explicit Progress(Index next) : next_(next) {}

  State state() const { return state_; }
  Index match() const { return match_; }  // Its log equals ours through here, durably.
  Index next() const { return next_; }    // The first entry to send.
  size_t in_flight() const { return window_.size(); }

  // May an append with entries go out? An empty one always may.
  bool MaySend(size_t in_flight_max) const;

  // An append of entries (next - 1, last] went out; last == next - 1 for an empty one.
  void Sent(Index last);
  // Whether this tells more than was known. Never moves back.
  bool Accepted(Index match);
  // The receiver lacks `rejected`; try from `next` on. False: an old answer to ignore.
  bool Rejected(Index rejected, Index next);
  void BecomeProbe();
  void BecomeSnapshot(Index floor);
  // The transfer ended: probe from after `at`, or where we were if it failed.
  void SnapshotEnded(Index at);
  void HeardFrom();  // A sign of life: a probe may be repeated.

  // Entries from here on may be wanted by this follower soon.
  Index wanted() const { return state_ == State::kSnapshot ? floor_ : match_; }

  bool active = true;       // Heard from since the last check of the quorum.
  bool was_active = false;  // Heard from between the last check and the one before.
  bool responsive = false;  // Heard from since it was last found to be unreachable.
  Flow flow = Flow::kOpen;
  ReadRound round = 0;      // The latest read round it acknowledged.
  Index commit_told = 0;    // The commit index it was last told.
  bool append_due = false;  // It is owed an append, even an empty one.
  bool nudge = true;        // The next sign of life is answered with an append if it is behind.

  void CheckInvariants() const;

 private:
  State state_ = State::kProbe;
  Index match_ = 0;
  Index next_ = 1;
  bool probe_sent_ = false;
  Index floor_ = 0;           // Of the snapshot asked for.
  std::deque<Index> window_;  // The last index of every append with entries that is under way.
};

}  // namespace kv::raft

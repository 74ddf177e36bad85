// The retained log in memory: what is where, what of it is durable, and which configuration rules.
//
// The log begins after `base` and is contiguous. Its disk copy follows through numbered writes
// (WriteId): an overwrite clips the writes still in flight, so that the end of an old write can
// never make newer bytes at the same index look durable. Configurations are a short history that
// is rolled back with the entries that carry them (Ongaro §4.1).
//
// A plain data structure: it decides nothing, and every misuse of it is a broken law of ours.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "server/raft/members.h"
#include "storage/entry.h"

namespace kv::raft {

using WriteId = uint64_t;

class Log {
 public:
  // What the disk held; all of it is durable.
  Log(Position base, Members base_members, std::vector<EntryPtr> entries);

  Position base() const { return base_; }
  Index last_index() const { return base_.index + slots_.size(); }
  Position last() const;
  Index stable() const { return stable_; }  // Durable here through this index.
  // Nothing for indexes before the base or past the end: an unknown term equals no term (R26).
  std::optional<Term> TermAt(Index index) const;
  bool Holds(Position position) const { return TermAt(position.index) == position.term; }
  const EntryPtr& At(Index index) const;
  // Entries (after, last], from the front as many as fit in `bytes_max`, at least one.
  std::vector<EntryPtr> Slice(Index after, Index last, uint64_t bytes_max) const;
  // The largest position that is not above `index` nor, in its term, above `term`; never below the
  // base. Where two logs that differ may still be equal (§3.5, in a step per term).
  Position LastAtMost(Index index, Term term) const;

  uint64_t bytes() const { return BytesIn(base_.index, last_index()); }
  uint64_t BytesIn(Index after, Index through) const;  // Of the entries (after, through].
  Index EndOfPrefix(uint64_t bytes) const;  // The first index by which so many bytes have passed.

  const Members& members() const;           // Of the newest configuration in the log.
  Index members_index() const;              // Where it stands; the base's index if before the log.
  const Members* previous_members() const;  // The one before it, if the log still knows it.
  const Members& MembersAt(Index index) const;  // In force at `index`, which is not before base.
  uint64_t members_version() const { return members_version_; }  // Grows when members() changes.

  void Append(EntryPtr entry);                 // Must follow the last.
  void TruncateFrom(Index index);              // Forgets `index` and everything after it.
  void Reset(Position base, Members members);  // A snapshot took the log's place.
  void DropThrough(Index index);               // Forgets a durable prefix.

  // What has not been handed out to be written. The caller numbers the write that carries it.
  bool HasUnwritten() const { return reset_unwritten_ || unwritten_ <= last_index(); }
  bool IsSettled() const { return !HasUnwritten() && in_flight_.empty(); }
  LogUpdate TakeUnwritten(WriteId id);
  // The write finished, and every earlier one with it.
  void Persisted(WriteId id);

  void CheckInvariants() const;

 private:
  struct Slot {
    EntryPtr entry;
    uint64_t bytes_through = 0;  // Of every entry up to here since the log was made.
  };
  struct InFlight {
    WriteId id = 0;
    Index last = 0;  // What its end makes durable; lowered when its entries are overwritten.
  };
  struct Configuration {
    Index index = 0;
    Members members;
  };

  uint64_t BytesThrough(Index index) const;
  void Push(EntryPtr entry);

  Position base_;
  uint64_t base_bytes_ = 0;
  std::deque<Slot> slots_;
  std::vector<Configuration> configurations_;  // Oldest first; the first is the base's.
  uint64_t members_version_ = 1;
  Index stable_ = 0;     // Invariant: base_.index <= stable_ < unwritten_.
  Index unwritten_ = 1;  // The first index not yet handed out. Invariant: <= last_index() + 1.
  bool reset_unwritten_ = false;
  std::deque<InFlight> in_flight_;
};

// What an entry costs in memory, as all limits count it.
uint64_t EntryBytes(const Entry& entry);

// The configuration in a kMembers entry. An entry that does not hold one is a broken law.
Members MembersOf(const Entry& entry);

}  // namespace kv::raft

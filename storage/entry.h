// Plain values that the Raft core and the stores share: indexes, terms, entries, log updates.
//
// Only the standard library is used here; server/raft takes this header and storage/check.h and
// nothing else from outside itself.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kv {

using Index = uint64_t;     // Of an entry in the log; the first is 1, 0 means "before the first".
using Term = uint64_t;      // Raft's logical clock; 0 means "before the first".
using MemberId = uint64_t;  // Random, never zero, never used twice in a cluster.

// Where an entry stands. Two logs that hold an entry at one position agree up to there
// (Log Matching, Ongaro §3.5).
struct Position {
  Index index = 0;
  Term term = 0;
  friend auto operator<=>(const Position&, const Position&) = default;
};

// Ongaro §3.4: what a member promises to remember before it answers. Always written together.
struct HardState {
  Term term = 0;
  MemberId vote = 0;  // 0: nobody in this term.
  friend bool operator==(const HardState&, const HardState&) = default;
};

enum class EntryKind : uint8_t {
  kEmpty = 0,    // A new leader's first entry (§6.4); means nothing to the machine.
  kCommand = 1,  // For the machine (proto/internal/command.proto).
  kMembers = 2,  // A whole configuration, encoded by server/raft/members.cc.
};

struct Entry {
  Index index = 0;
  Term term = 0;
  EntryKind kind = EntryKind::kEmpty;
  std::string data;
  uint32_t checksum = 0;  // Over all of the above; made once by the leader that appends the entry,
                          // checked by every reader across disk and network.

  Position position() const { return {.index = index, .term = term}; }
  friend bool operator==(const Entry&, const Entry&) = default;
};
using EntryPtr = std::shared_ptr<const Entry>;

// An entry with its checksum filled in.
EntryPtr MakeEntry(Index index, Term term, EntryKind kind, std::string data);

// CRC32C over index, term, kind and data, in this order, integers little-endian.
uint32_t EntryChecksum(const Entry& entry);
inline bool ChecksumHolds(const Entry& entry) { return entry.checksum == EntryChecksum(entry); }

// CRC32C (Castagnoli) of `bytes`, continued from `seed` (the checksum of what came before).
uint32_t Crc32c(std::string_view bytes, uint32_t seed = 0);

// One atomic change of the durable log, in this order: hard state, reset, entries.
struct LogUpdate {
  std::optional<HardState> hard_state;
  std::optional<Position> reset;  // Forget the log; it now begins after this position.
  std::vector<EntryPtr> entries;  // Replace everything from entries.front()->index on.

  bool empty() const { return !hard_state && !reset && entries.empty(); }
};

}  // namespace kv

// Keys of the state machine's tables: each table is a one-byte prefix, and inside a table keys
// order bytewise as what they stand for.
//
//     k <key>            the current record of a live key
//     v <key> <~rev>     a superseded version or a tombstone, newest first
//     h <rev> <sub>      what changed at a revision, in order
//     l <lease>          a lease
//     a <lease> <key>    a live key that is attached to a lease
//     u r                users, roles (reserved)
//     m <name>           notes: applied position, members, compaction, format
//     n <key>            a run of live keys that begins here, and how many it holds
//
// Format: storage/README.md, "State machine tables".
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kv {

// Of the key space: 1 is the empty store, every command that changes something adds one. Signed,
// because the API's are.
using Revision = int64_t;

// Live keys from `first` (included) to `end` (excluded); an empty `end` is no bound.
struct KeyRange {
  std::string first;
  std::string end;

  // As requests spell it (contract §1.4): no range_end is the single key, "\0" is everything from
  // the key on.
  static KeyRange FromRequest(std::string_view key, std::string_view range_end);
  static KeyRange Everything() { return {}; }

  bool empty() const { return !end.empty() && first >= end; }
  bool unbounded() const { return end.empty(); }
  bool Contains(std::string_view key) const { return key >= first && (end.empty() || key < end); }
  friend bool operator==(const KeyRange&, const KeyRange&) = default;
};

// The rows that every command writes, appended to `out`.
void AppendCurrentKey(std::string& out, std::string_view key);
void AppendVersionKey(std::string& out, std::string_view key, Revision revision);
void AppendHistoryKey(std::string& out, Revision revision, uint32_t sub);

std::string CurrentKey(std::string_view key);
std::string VersionKey(std::string_view key, Revision revision);
std::string HistoryKey(Revision revision, uint32_t sub);
std::string NoteKey(std::string_view name);
std::string RunKey(std::string_view first);
std::string LeaseKey(int64_t lease);
std::string AttachedKey(int64_t lease, std::string_view key);

// Bounds of tables and of ranges within them; lower included, upper excluded.
std::string CurrentLower(const KeyRange& range);
std::string CurrentUpper(const KeyRange& range);
std::string VersionLower(const KeyRange& range);
std::string VersionUpper(const KeyRange& range);
std::string VersionsEnd(std::string_view key);  // Behind the oldest version of `key`.
std::string HistoryLower(Revision first);
std::string HistoryUpper(Revision last);  // `last` included.
std::string RunLower();
std::string RunUpper();
std::string LeaseLower();
std::string LeaseUpper();
std::string AttachedLower(int64_t lease);
std::string AttachedUpper(int64_t lease);

// The inverse. Nothing (or false): these bytes are not a key of the table.
std::string_view KeyOfCurrent(std::string_view bytes);
struct VersionOf {
  std::string key;
  Revision revision = 0;
};
std::optional<VersionOf> ParseVersionKey(std::string_view bytes);
struct HistoryOf {
  Revision revision = 0;
  uint32_t sub = 0;
};
std::optional<HistoryOf> ParseHistoryKey(std::string_view bytes);
std::optional<int64_t> ParseLeaseKey(std::string_view bytes);
std::string_view KeyOfAttached(std::string_view bytes);

}  // namespace kv

// One version of a key, and how it lies in the database. Plain values.
// Format: storage/README.md, "State machine tables".
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "storage/keys.h"

namespace kv {

// What a put or a delete left of a key.
struct KeyRecord {
  Revision create = 0;  // Of the put that began this life of the key.
  Revision mod = 0;     // Of the command that wrote this version.
  int64_t version = 0;  // 1, 2, … within a life; 0 in a tombstone.
  int64_t lease = 0;    // 0: none.
  bool tombstone = false;
  std::string value;
};
using KeyRecordPtr = std::shared_ptr<const KeyRecord>;

// The same where it lies: valid as long as the bytes below it.
struct RecordView {
  Revision create = 0;
  Revision mod = 0;
  int64_t version = 0;
  int64_t lease = 0;
  bool tombstone = false;
  std::string_view value;
};

void AppendKeyRecord(std::string& out, const KeyRecord& record);
bool DecodeKeyRecord(std::string_view bytes, RecordView& record);  // False: not a record.
KeyRecordPtr CopyKeyRecord(const RecordView& view);

// A row of the history: what one command did to one key. It says all that counting and compaction
// need, so that neither has to look for the versions it speaks of.
struct HistoryRow {
  bool was_live = false;
  bool is_live = false;
  Revision previous = 0;  // Modification revision of the version replaced; 0 unless was_live.
  std::string_view key;
};
// A lease: while it lives, so may the keys that are attached to it.
struct Lease {
  int64_t id = 0;
  int64_t ttl = 0;        // Granted, in seconds.
  int64_t remaining = 0;  // Of that at the latest checkpoint, in seconds; 0: all of it.
  uint64_t granted = 0;   // Index of the entry that granted it: no two leases of one id share it.
  friend bool operator==(const Lease&, const Lease&) = default;
};
std::string EncodeLease(const Lease& lease);  // Without the id.
std::optional<Lease> DecodeLease(int64_t id, std::string_view bytes);

void AppendHistoryRow(std::string& out, const HistoryRow& row);
std::optional<HistoryRow> DecodeHistoryRow(std::string_view bytes);

}  // namespace kv

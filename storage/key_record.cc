#include "storage/key_record.h"

namespace kv {
namespace {

constexpr char kPutRecord = 1;
constexpr char kTombstoneRecord = 2;
constexpr uint8_t kWasLive = 1;
constexpr uint8_t kIsLive = 2;

void PutVarint(std::string& out, uint64_t value) {
  while (value >= 0x80) {
    out.push_back(static_cast<char>((value & 0x7f) | 0x80));
    value >>= 7;
  }
  out.push_back(static_cast<char>(value));
}

bool TakeVarint(std::string_view& bytes, uint64_t& value) {
  value = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (bytes.empty()) return false;
    const auto byte = static_cast<unsigned char>(bytes.front());
    bytes.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 0x7f) << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

bool TakeVarint(std::string_view& bytes, int64_t& value) {
  uint64_t raw = 0;
  if (!TakeVarint(bytes, raw)) return false;
  value = static_cast<int64_t>(raw);
  return true;
}

}  // namespace

void AppendKeyRecord(std::string& out, const KeyRecord& record) {
  out.push_back(record.tombstone ? kTombstoneRecord : kPutRecord);
  PutVarint(out, static_cast<uint64_t>(record.mod));
  if (record.tombstone) return;
  PutVarint(out, static_cast<uint64_t>(record.create));
  PutVarint(out, static_cast<uint64_t>(record.version));
  PutVarint(out, static_cast<uint64_t>(record.lease));
  out.append(record.value);
}

bool DecodeKeyRecord(std::string_view bytes, RecordView& record) {
  if (bytes.empty()) return false;
  const char kind = bytes.front();
  bytes.remove_prefix(1);
  record = {};
  if (!TakeVarint(bytes, record.mod)) return false;
  if (kind == kTombstoneRecord) {
    record.tombstone = true;
    return bytes.empty();
  }
  if (kind != kPutRecord || !TakeVarint(bytes, record.create) ||
      !TakeVarint(bytes, record.version) || !TakeVarint(bytes, record.lease)) {
    return false;
  }
  record.value = bytes;
  return true;
}

KeyRecordPtr CopyKeyRecord(const RecordView& view) {
  auto record = std::make_shared<KeyRecord>();
  record->create = view.create;
  record->mod = view.mod;
  record->version = view.version;
  record->lease = view.lease;
  record->tombstone = view.tombstone;
  record->value = view.value;
  return record;
}

std::string EncodeLease(const Lease& lease) {
  std::string out;
  PutVarint(out, static_cast<uint64_t>(lease.ttl));
  PutVarint(out, static_cast<uint64_t>(lease.remaining));
  PutVarint(out, lease.granted);
  return out;
}

std::optional<Lease> DecodeLease(int64_t id, std::string_view bytes) {
  Lease lease{.id = id};
  int64_t granted = 0;
  if (!TakeVarint(bytes, lease.ttl) || !TakeVarint(bytes, lease.remaining) ||
      !TakeVarint(bytes, granted)) {
    return std::nullopt;
  }
  lease.granted = static_cast<uint64_t>(granted);
  return lease;
}

void AppendHistoryRow(std::string& out, const HistoryRow& row) {
  out.push_back(static_cast<char>((row.was_live ? kWasLive : 0) | (row.is_live ? kIsLive : 0)));
  PutVarint(out, static_cast<uint64_t>(row.previous));
  out.append(row.key);
}

std::optional<HistoryRow> DecodeHistoryRow(std::string_view bytes) {
  if (bytes.empty()) return std::nullopt;
  const auto flags = static_cast<uint8_t>(bytes.front());
  bytes.remove_prefix(1);
  HistoryRow row;
  row.was_live = (flags & kWasLive) != 0;
  row.is_live = (flags & kIsLive) != 0;
  if ((flags & ~(kWasLive | kIsLive)) != 0 || !TakeVarint(bytes, row.previous)) {
    return std::nullopt;
  }
  row.key = bytes;
  return row;
}

}  // namespace kv

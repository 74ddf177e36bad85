#include "storage/keys.h"

namespace kv {
namespace {

constexpr char kCurrentTable = 'k';
constexpr char kVersionTable = 'v';
constexpr char kHistoryTable = 'h';
constexpr char kNoteTable = 'm';
constexpr char kRunTable = 'n';
constexpr char kLeaseTable = 'l';
constexpr char kAttachedTable = 'a';

// A key inside the version table is followed by its revision, so it must say where it ends without
// disturbing the order: a zero byte becomes 00 ff, and 00 01 ends the key.
constexpr char kZero = '\0';
constexpr char kZeroEscaped = '\xff';
constexpr char kEnd = '\x01';
constexpr char kBehindEnd = '\x02';

void AppendEscaped(std::string& out, std::string_view key) {
  size_t at = 0;
  for (size_t zero; (zero = key.find(kZero, at)) != std::string_view::npos; at = zero + 1) {
    out.append(key.substr(at, zero + 1 - at));
    out.push_back(kZeroEscaped);
  }
  out.append(key.substr(at));
}

void AppendBigEndian(std::string& out, uint64_t value, int bytes) {
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>((value >> shift) & 0xff));
  }
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<unsigned char>(byte);
  return value;
}

std::string TablePrefix(char table, size_t reserve) {
  std::string out;
  out.reserve(1 + reserve);
  out.push_back(table);
  return out;
}

std::string AfterTable(char table) { return std::string(1, static_cast<char>(table + 1)); }

}  // namespace

KeyRange KeyRange::FromRequest(std::string_view key, std::string_view range_end) {
  KeyRange range{.first = std::string(key), .end = std::string(range_end)};
  if (range_end.empty()) {
    range.end.reserve(key.size() + 1);
    range.end.assign(key);
    range.end.push_back('\0');
  } else if (range_end == std::string_view("\0", 1)) {
    range.end.clear();
  }
  return range;
}

void AppendCurrentKey(std::string& out, std::string_view key) {
  out.push_back(kCurrentTable);
  out.append(key);
}

void AppendVersionKey(std::string& out, std::string_view key, Revision revision) {
  out.push_back(kVersionTable);
  AppendEscaped(out, key);
  out.push_back(kZero);
  out.push_back(kEnd);
  AppendBigEndian(out, ~static_cast<uint64_t>(revision), 8);
}

void AppendHistoryKey(std::string& out, Revision revision, uint32_t sub) {
  out.push_back(kHistoryTable);
  AppendBigEndian(out, static_cast<uint64_t>(revision), 8);
  AppendBigEndian(out, sub, 4);
}

std::string CurrentKey(std::string_view key) {
  std::string out;
  out.reserve(1 + key.size());
  AppendCurrentKey(out, key);
  return out;
}

std::string VersionKey(std::string_view key, Revision revision) {
  std::string out;
  out.reserve(11 + key.size());
  AppendVersionKey(out, key, revision);
  return out;
}

std::string HistoryKey(Revision revision, uint32_t sub) {
  std::string out;
  out.reserve(13);
  AppendHistoryKey(out, revision, sub);
  return out;
}

std::string NoteKey(std::string_view name) {
  std::string out = TablePrefix(kNoteTable, name.size());
  out.append(name);
  return out;
}

std::string RunKey(std::string_view first) {
  std::string out = TablePrefix(kRunTable, first.size());
  out.append(first);
  return out;
}

std::string LeaseKey(int64_t lease) {
  std::string out = TablePrefix(kLeaseTable, 8);
  AppendBigEndian(out, static_cast<uint64_t>(lease), 8);
  return out;
}

std::string AttachedKey(int64_t lease, std::string_view key) {
  std::string out = TablePrefix(kAttachedTable, 8 + key.size());
  AppendBigEndian(out, static_cast<uint64_t>(lease), 8);
  out.append(key);
  return out;
}

std::string CurrentLower(const KeyRange& range) { return CurrentKey(range.first); }
std::string CurrentUpper(const KeyRange& range) {
  return range.unbounded() ? AfterTable(kCurrentTable) : CurrentKey(range.end);
}

std::string VersionLower(const KeyRange& range) {
  std::string out = TablePrefix(kVersionTable, range.first.size());
  AppendEscaped(out, range.first);
  return out;
}
std::string VersionUpper(const KeyRange& range) {
  if (range.unbounded()) return AfterTable(kVersionTable);
  std::string out = TablePrefix(kVersionTable, range.end.size());
  AppendEscaped(out, range.end);
  return out;
}
std::string VersionsEnd(std::string_view key) {
  std::string out = TablePrefix(kVersionTable, key.size() + 2);
  AppendEscaped(out, key);
  out.push_back(kZero);
  out.push_back(kBehindEnd);
  return out;
}

std::string HistoryLower(Revision first) { return HistoryKey(first, 0); }
std::string HistoryUpper(Revision last) { return HistoryKey(last + 1, 0); }
std::string RunLower() { return RunKey({}); }
std::string RunUpper() { return AfterTable(kRunTable); }

std::string LeaseLower() { return std::string(1, kLeaseTable); }
std::string LeaseUpper() { return AfterTable(kLeaseTable); }
std::string AttachedLower(int64_t lease) { return AttachedKey(lease, {}); }
std::string AttachedUpper(int64_t lease) {
  // The last id as the table orders them has nothing behind it.
  return lease == -1 ? AfterTable(kAttachedTable)
                     : AttachedKey(static_cast<int64_t>(static_cast<uint64_t>(lease) + 1), {});
}

std::string_view KeyOfCurrent(std::string_view bytes) { return bytes.substr(1); }

std::optional<VersionOf> ParseVersionKey(std::string_view bytes) {
  if (bytes.size() < 11 || bytes.front() != kVersionTable) return std::nullopt;
  VersionOf version;
  version.key.reserve(bytes.size());
  const std::string_view tail = bytes.substr(bytes.size() - 8);
  std::string_view escaped = bytes.substr(1, bytes.size() - 11);
  if (bytes[bytes.size() - 10] != kZero || bytes[bytes.size() - 9] != kEnd) return std::nullopt;
  for (size_t zero; (zero = escaped.find(kZero)) != std::string_view::npos;) {
    if (zero + 1 >= escaped.size() || escaped[zero + 1] != kZeroEscaped) return std::nullopt;
    version.key.append(escaped.substr(0, zero + 1));
    escaped.remove_prefix(zero + 2);
  }
  version.key.append(escaped);
  version.revision = static_cast<Revision>(~ReadBigEndian(tail));
  return version;
}

std::optional<HistoryOf> ParseHistoryKey(std::string_view bytes) {
  if (bytes.size() != 13 || bytes.front() != kHistoryTable) return std::nullopt;
  return HistoryOf{.revision = static_cast<Revision>(ReadBigEndian(bytes.substr(1, 8))),
                   .sub = static_cast<uint32_t>(ReadBigEndian(bytes.substr(9, 4)))};
}

std::optional<int64_t> ParseLeaseKey(std::string_view bytes) {
  if (bytes.size() != 9 || bytes.front() != kLeaseTable) return std::nullopt;
  return static_cast<int64_t>(ReadBigEndian(bytes.substr(1)));
}

std::string_view KeyOfAttached(std::string_view bytes) { return bytes.substr(9); }

}  // namespace kv

#include "server/cluster/identity.h"

#include <algorithm>
#include <utility>

#include "storage/files.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

constexpr char kKind[] = "identity";
// Oldest format that can read what EncodeIdentity writes.
constexpr uint32_t kMinimumReader = 1;
// It ended before `formed` and `next_uuid`.
constexpr uint32_t kFirstFormat = 1;

bool IsUuid(std::string_view text) {
  return text.size() == 32 && std::ranges::all_of(text, [](char c) {
           return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f');
         });
}

void PutStrings(std::string& bytes, const std::vector<std::string>& strings) {
  PutU32(bytes, static_cast<uint32_t>(strings.size()));
  for (const std::string& text : strings) PutBytes(bytes, text);
}

std::vector<std::string> TakeStrings(ByteReader& reader) {
  std::vector<std::string> strings;
  const uint32_t count = reader.U32();
  for (uint32_t i = 0; i < count && reader.ok(); ++i) strings.emplace_back(reader.Bytes());
  return strings;
}

void PutFounding(std::string& bytes, const FoundingRecord& record) {
  PutU64(bytes, record.cluster_id);
  PutU64(bytes, record.attempt);
  PutBytes(bytes, record.token_hash);
  PutU32(bytes, static_cast<uint32_t>(record.founders.size()));
  for (const Founder& founder : record.founders) {
    PutBytes(bytes, founder.name);
    PutBytes(bytes, founder.node_uuid);
    PutU64(bytes, founder.member_id);
    PutStrings(bytes, founder.peer_urls);
    PutStrings(bytes, founder.client_urls);
  }
}

FoundingRecord TakeFounding(ByteReader& reader) {
  FoundingRecord record;
  record.cluster_id = reader.U64();
  record.attempt = reader.U64();
  record.token_hash = std::string(reader.Bytes());
  const uint32_t count = reader.U32();
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    Founder& founder = record.founders.emplace_back();
    founder.name = std::string(reader.Bytes());
    founder.node_uuid = std::string(reader.Bytes());
    founder.member_id = reader.U64();
    founder.peer_urls = TakeStrings(reader);
    founder.client_urls = TakeStrings(reader);
  }
  return record;
}

// What cannot be, whatever wrote it; empty: nothing is wrong.
std::string_view FaultOf(const Identity& identity) {
  if (!IsUuid(identity.node_uuid)) return "the disk's uuid is not 32 hexadecimal digits";
  const bool has_ids = identity.cluster_id != 0 && identity.member_id != 0;
  const bool no_ids = identity.cluster_id == 0 && identity.member_id == 0;
  if (identity.record && identity.record->founders.empty()) return "a record without founders";
  if (identity.formed && identity.state != State::kMember)
    return "only a member's cluster is formed";
  const bool begins_anew = identity.state == State::kRemoved || identity.state == State::kStale;
  if (!identity.next_uuid.empty() && (!begins_anew || !IsUuid(identity.next_uuid))) {
    return "a next uuid that cannot be";
  }
  switch (identity.state) {
    case State::kBlank:
      return no_ids && !identity.record && !identity.data_laid ? "" : "a blank disk has no ids";
    case State::kPromised:
      return no_ids && identity.record && !identity.data_laid ? "" : "a promise without a record";
    case State::kMember:
      return has_ids ? "" : "a member without ids";
    case State::kRemoved:
      return has_ids ? "" : "a removed member without ids";
    case State::kStale:
      return has_ids ? "" : "an old member without ids";
    case State::kHalted:
      break;
  }
  return "an unknown state";
}

}  // namespace

std::string_view ToString(State state) {
  switch (state) {
    case State::kBlank:
      return "BLANK";
    case State::kPromised:
      return "PROMISED";
    case State::kMember:
      return "MEMBER";
    case State::kRemoved:
      return "REMOVED";
    case State::kHalted:
      return "HALTED";
    case State::kStale:
      return "STALE";
  }
  return "?";
}

const Founder* FoundingRecord::Find(std::string_view name) const {
  const auto at = std::ranges::find(founders, name, &Founder::name);
  return at == founders.end() ? nullptr : &*at;
}

std::string EncodeIdentity(const Identity& identity) {
  Record record{
      .kind = kKind, .format = kIdentityFormat, .minimum_reader = kMinimumReader, .body = {}};
  std::string& body = record.body;
  PutU8(body, static_cast<uint8_t>(identity.state));
  PutBytes(body, identity.node_uuid);
  PutU64(body, identity.boot_epoch);
  PutU64(body, identity.cluster_id);
  PutU64(body, identity.member_id);
  PutBytes(body, identity.name);
  PutU8(body, identity.data_laid ? 1 : 0);
  PutU8(body, identity.record ? 1 : 0);
  if (identity.record) PutFounding(body, *identity.record);
  PutU8(body, identity.formed ? 1 : 0);
  PutBytes(body, identity.next_uuid);
  return EncodeRecord(record);
}

absl::StatusOr<Identity> DecodeIdentity(std::string_view bytes, std::string_view origin) {
  ASSIGN_OR_RETURN(const Record record, DecodeRecord(bytes, kKind, kIdentityFormat, origin));
  ByteReader reader(record.body);
  Identity identity;
  const uint8_t state = reader.U8();
  identity.state = static_cast<State>(state);
  identity.node_uuid = std::string(reader.Bytes());
  identity.boot_epoch = reader.U64();
  identity.cluster_id = reader.U64();
  identity.member_id = reader.U64();
  identity.name = std::string(reader.Bytes());
  identity.data_laid = reader.U8() != 0;
  if (reader.U8() != 0) identity.record = TakeFounding(reader);
  if (record.format > kFirstFormat) {
    identity.formed = reader.U8() != 0;
    identity.next_uuid = std::string(reader.Bytes());
  }
  std::string_view fault;
  // A newer format may append fields that this reader need not know.
  if (!reader.ok() || (record.format <= kIdentityFormat && !reader.AtEnd())) {
    fault = "its fields end too early or too late";
  } else if (state > static_cast<uint8_t>(State::kStale)) {
    fault = "an unknown state";
  } else {
    fault = FaultOf(identity);
  }
  if (!fault.empty()) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is not a valid identity: {}; restore the file from this disk's own copy, "
                      "or replace the member: empty its data directory, then \"member remove\" and "
                      "\"member add\" on a live member",
                      origin, fault);
  }
  return identity;
}

absl::StatusOr<std::optional<Identity>> ReadIdentity(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, ReadFile(env, path));
  if (!bytes) return std::optional<Identity>();
  ASSIGN_OR_RETURN(Identity identity, DecodeIdentity(*bytes, path));
  return std::optional<Identity>(std::move(identity));
}

absl::Status WriteIdentity(rocksdb::Env* env, const std::string& path, const Identity& identity) {
  return WriteFileAtomically(env, path, EncodeIdentity(identity));
}

std::string MakeNodeUuid(uint64_t high, uint64_t low) {
  return fmt::format("{:016x}{:016x}", high, low);
}

}  // namespace kv::cluster

// Who this disk is: the one record, `identity`, that survives everything else.
//
//   BLANK --prepare--> PROMISED(F) --commit--> MEMBER --removed--> REMOVED
//      \------------- join granted -----------------^ \                |
//      ^                          older than its word \--> STALE        |
//      ^-------------------- under discovery: another uuid --/---------/
//
// A disk gets a random uuid when it is first opened and keeps it; cluster and member id come with
// membership, are random and never used twice. So a disk that was emptied is another disk, and
// cannot come back under the id that it had. Every change is written whole, synced and renamed
// into place before anything that depends on it is said or done. Format: storage/README.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "storage/entry.h"

namespace rocksdb {
class Env;
}

namespace kv::cluster {

enum class State {
  kBlank,
  kPromised,
  kMember,
  kRemoved,
  kHalted,  // Of a process, never of a disk: it saw a contradiction and does nothing more.
  // A member's disk that is older than what the member acknowledged: a copy that was put back, or
  // it lost what it had synced. It takes no part in anything. Under discovery it asks to join as
  // another disk, and puts its data aside once a leader took it in.
  kStale,
};
std::string_view ToString(State state);

// A voter from the first day on.
struct Founder {
  std::string name;
  std::string node_uuid;
  MemberId member_id = 0;
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  friend bool operator==(const Founder&, const Founder&) = default;
};

// What all founders promise each other before there is a cluster (F). Every id is random.
struct FoundingRecord {
  uint64_t cluster_id = 0;
  // Counts the proposals of one coordinator's disk, so that a late copy of an older one is known.
  uint64_t attempt = 0;
  std::string token_hash;         // Of --initial-cluster-token.
  std::vector<Founder> founders;  // By name, or by slot; the first one proposed this.

  const Founder* Find(std::string_view name) const;
  friend bool operator==(const FoundingRecord&, const FoundingRecord&) = default;
};

struct Identity {
  State state = State::kBlank;
  std::string node_uuid;    // 32 hex digits.
  uint64_t boot_epoch = 0;  // Starts of a process on this disk.
  uint64_t cluster_id = 0;  // MEMBER, REMOVED and STALE.
  MemberId member_id = 0;   // MEMBER, REMOVED and STALE.
  std::string name;         // Under which the disk promised or became a member.
  // MEMBER: log and state were laid down. From then on a missing log means lost data; before, the
  // member has not spoken yet and they are laid down again from `record`.
  bool data_laid = false;
  std::optional<FoundingRecord> record;  // PROMISED, and a MEMBER that founded.
  // MEMBER: the marker said that this cluster is formed, so clients may be answered.
  bool formed = false;
  // REMOVED and STALE, under discovery: the uuid with which this disk begins anew. Chosen before
  // anything is moved, so that a crash in between does not choose another.
  std::string next_uuid;
  friend bool operator==(const Identity&, const Identity&) = default;
};

inline constexpr uint32_t kIdentityFormat = 2;

std::string EncodeIdentity(const Identity& identity);
// `origin` names the bytes in errors (a path).
absl::StatusOr<Identity> DecodeIdentity(std::string_view bytes, std::string_view origin);

// Nothing when there is no such file. Errors name the file and the next step.
absl::StatusOr<std::optional<Identity>> ReadIdentity(rocksdb::Env* env, const std::string& path);
// Durable when it returns.
absl::Status WriteIdentity(rocksdb::Env* env, const std::string& path, const Identity& identity);

// 32 hex digits out of 128 random bits.
std::string MakeNodeUuid(uint64_t high, uint64_t low);

}  // namespace kv::cluster

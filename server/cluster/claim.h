// How a blank disk becomes a member of a cluster that runs: it claims the record that a client
// added for it, by its peer URLs. The disk's uuid is bound to the record through the log, once;
// from then on no other disk can have it.
//
// Pure functions: what is said as bytes, and what a member answers. The node carries it out.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/raft/members.h"

namespace kv::cluster {

inline constexpr char kClaimCall[] = "claim";

struct Claim {
  std::string name;
  std::string node_uuid;
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  friend bool operator==(const Claim&, const Claim&) = default;
};

struct ClaimAnswer {
  std::string refusal;  // A sentence, final; empty: granted.
  uint64_t cluster_id = 0;
  MemberId member_id = 0;
  raft::Members members{};  // With the claimed record.
  friend bool operator==(const ClaimAnswer&, const ClaimAnswer&) = default;
};

// An error of decoding is a sentence; another protocol is one, too.
std::string EncodeClaim(const Claim& claim);
absl::StatusOr<Claim> DecodeClaim(std::string_view bytes);
std::string EncodeClaimAnswer(const ClaimAnswer& answer);
absl::StatusOr<ClaimAnswer> DecodeClaimAnswer(std::string_view bytes);

// What a claim comes to among `members`, which are not joint.
struct ClaimDecision {
  std::string refusal;                       // Set: nothing else is.
  MemberId member_id = 0;                    // Whose record it is.
  std::optional<raft::MemberChange> change;  // Nothing: this disk has it already.
};
ClaimDecision Decide(const raft::Members& members, const Claim& claim);

// The added voter that has started and may get its vote now, if there is one.
std::optional<raft::MemberChange> NextVoter(const raft::Members& members);

}  // namespace kv::cluster

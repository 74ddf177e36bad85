// What a member says to the leader on behalf of its own callers, as bytes: the calls "propose",
// "change-members" and "transfer-leadership" of proto/internal/peer.proto, and the member record.
// Stateless. Bytes that do not decode answer nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/raft/members.h"
#include "server/replica/network.h"
#include "server/replica/result.h"

namespace kv {

inline constexpr char kProposeCall[] = "propose";
inline constexpr char kChangeMembersCall[] = "change-members";
inline constexpr char kTransferLeadershipCall[] = "transfer-leadership";

// Who asks whom. A callee that is somebody else refuses: an address may have changed hands.
struct ForwardHeader {
  uint64_t cluster_id = 0;
  MemberId from = 0;
  MemberId to = 0;
};

struct ForwardedProposal {
  std::string command;
  absl::Duration deadline;  // Left.
};
struct ForwardedProposals {
  ForwardHeader header;
  std::vector<ForwardedProposal> proposals;
};
std::string Encode(const ForwardedProposals& request);
std::optional<ForwardedProposals> DecodeForwardedProposals(std::string_view bytes);
std::string Encode(std::vector<ProposalResult> results);
std::optional<std::vector<ProposalResult>> DecodeProposalResults(std::string_view bytes);

struct ForwardedChange {
  ForwardHeader header;
  raft::MemberChange change;
  absl::Duration deadline;
};
struct ForwardedChangeResult {
  MembersResult result;
  Index index = 0;  // The leader's machine had applied this much.
};
std::string Encode(const ForwardedChange& request);
std::optional<ForwardedChange> DecodeForwardedChange(std::string_view bytes);
std::string Encode(const ForwardedChangeResult& result);
std::optional<ForwardedChangeResult> DecodeForwardedChangeResult(std::string_view bytes);

struct ForwardedTransfer {
  ForwardHeader header;
  MemberId to = 0;
  absl::Duration deadline;
};
std::string Encode(const ForwardedTransfer& request);
std::optional<ForwardedTransfer> DecodeForwardedTransfer(std::string_view bytes);
std::string Encode(ReplicaError error);
std::optional<ReplicaError> DecodeReplicaError(std::string_view bytes);

// A call that another room serves on the leader.
struct ForwardedCall {
  ForwardHeader header;
  std::string body;
};
std::string Encode(const ForwardedCall& call);
std::optional<ForwardedCall> DecodeForwardedCall(std::string_view bytes);

// What the membership remembers of a member besides its id and role.
struct MemberRecord {
  std::string name;  // Empty until the member has started once.
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  std::string node_uuid;        // Empty until a disk has claimed the record.
  bool joins_as_voter = false;  // Gets its vote once it has started: a learner until then.
  bool kept = false;            // Came by itself: the leader promotes, replaces and removes it.
  friend bool operator==(const MemberRecord&, const MemberRecord&) = default;
};
std::string Encode(const MemberRecord& record);
std::optional<MemberRecord> DecodeMemberRecord(std::string_view bytes);
// Nothing if the member has no record, or one that cannot be read.
std::optional<MemberRecord> RecordOf(const raft::Members& members, MemberId id);

}  // namespace kv

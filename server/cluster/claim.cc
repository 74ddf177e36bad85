#include "server/cluster/claim.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "proto/internal/peer.pb.h"
#include "server/cluster/founding.h"
#include "server/cluster/slots.h"
#include "server/cluster/strange.h"
#include "server/replica/forward.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

namespace pb = kvd::internal;

}  // namespace

std::string EncodeClaim(const Claim& claim) {
  pb::ClaimRequest message;
  message.set_protocol_min(kProtocolMin);
  message.set_protocol_max(kProtocolMax);
  message.set_name(claim.name);
  message.set_node_uuid(claim.node_uuid);
  for (const std::string& url : claim.peer_urls) message.add_peer_urls(url);
  for (const std::string& url : claim.client_urls) message.add_client_urls(url);
  return message.SerializeAsString();
}

absl::StatusOr<Claim> DecodeClaim(std::string_view bytes) {
  pb::ClaimRequest message;
  if (!Parse(message, bytes)) return Strange("a claim that cannot be read");
  RETURN_IF_ERROR(CheckProtocol("a claim", message));
  if (message.node_uuid().empty()) return Strange("a claim that names no disk");
  return Claim{.name = message.name(),
               .node_uuid = message.node_uuid(),
               .peer_urls = {message.peer_urls().begin(), message.peer_urls().end()},
               .client_urls = {message.client_urls().begin(), message.client_urls().end()}};
}

std::string EncodeClaimAnswer(const ClaimAnswer& answer) {
  pb::ClaimResponse message;
  message.set_refusal(answer.refusal);
  message.set_cluster_id(answer.cluster_id);
  message.set_member_id(answer.member_id);
  message.set_members(raft::Encode(answer.members));
  return message.SerializeAsString();
}

absl::StatusOr<ClaimAnswer> DecodeClaimAnswer(std::string_view bytes) {
  pb::ClaimResponse message;
  if (!Parse(message, bytes)) return Strange("an answer to a claim that cannot be read");
  ClaimAnswer answer;
  answer.refusal = message.refusal();
  if (!answer.refusal.empty()) return answer;
  ASSIGN_OR_RETURN(answer.members, ReadMembers("a claim", message));
  answer.cluster_id = message.cluster_id();
  answer.member_id = message.member_id();
  return answer;
}

ClaimDecision Decide(const raft::Members& members, const Claim& claim) {
  ClaimDecision decision;
  for (const MemberId id : members.All()) {
    std::optional<MemberRecord> record = RecordOf(members, id);
    if (!record) continue;
    if (record->node_uuid == claim.node_uuid) return {.refusal = {}, .member_id = id, .change = {}};
    if (!ShareAny(record->peer_urls, claim.peer_urls)) continue;
    decision.member_id = id;
    if (!record->node_uuid.empty()) {
      decision.refusal = fmt::format(
          "the record of {} was claimed by another disk, that of member {:x} (\"{}\"); a disk that "
          "was emptied cannot come back under its old id: \"kvctl member remove {:x}\", then "
          "\"kvctl member add {}\"",
          fmt::join(claim.peer_urls, ","), id, record->name, id, claim.name);
      continue;
    }
    record->node_uuid = claim.node_uuid;
    record->name = claim.name;
    record->client_urls = claim.client_urls;
    raft::MemberChange change;
    change.targets.push_back(
        {.id = id,
         .fate = members.IsLearner(id) ? raft::MemberFate::kLearner : raft::MemberFate::kVoter,
         .record = Encode(*record)});
    change.from = members;
    return {.refusal = {}, .member_id = id, .change = std::move(change)};
  }
  if (decision.refusal.empty()) {
    decision.refusal = fmt::format(
        "no member with the peer URL {} was added to the cluster; \"kvctl member add {} "
        "--peer-urls={}\" first",
        fmt::join(claim.peer_urls, ","), claim.name, fmt::join(claim.peer_urls, ","));
  }
  decision.member_id = 0;
  return decision;
}

std::optional<raft::MemberChange> NextVoter(const raft::Members& members) {
  if (members.IsJoint()) return std::nullopt;
  for (const MemberId id : members.learners) {
    std::optional<MemberRecord> record = RecordOf(members, id);
    if (!record || !record->joins_as_voter || record->node_uuid.empty()) continue;
    record->joins_as_voter = false;
    raft::MemberChange change;
    change.targets.push_back(
        {.id = id, .fate = raft::MemberFate::kVoter, .record = Encode(*record)});
    change.from = members;
    change.guard = raft::MemberGuard::kCaughtUp;
    return change;
  }
  return std::nullopt;
}

}  // namespace kv::cluster

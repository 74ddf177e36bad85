#include "server/replica/forward.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "proto/internal/peer.pb.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

// Deadlines travel in whole milliseconds; one that is over travels as 0, an endless one as a day.
uint64_t EncodeDeadline(absl::Duration left) {
  absl::Duration bounded = std::clamp(left, absl::ZeroDuration(), absl::Hours(24));
  return static_cast<uint64_t>(absl::ToInt64Milliseconds(bounded));
}
absl::Duration DecodeDeadline(uint64_t milliseconds) {
  constexpr uint64_t kMost = 24 * 3600 * 1000;
  return absl::Milliseconds(static_cast<int64_t>(std::min(milliseconds, kMost)));
}

void EncodeHeader(const ForwardHeader& header, pb::ForwardHeader* out) {
  out->set_cluster_id(header.cluster_id);
  out->set_from_member_id(header.from);
  out->set_to_member_id(header.to);
}
ForwardHeader DecodeHeader(const pb::ForwardHeader& in) {
  return {.cluster_id = in.cluster_id(), .from = in.from_member_id(), .to = in.to_member_id()};
}

std::optional<ReplicaError> ErrorOf(uint32_t number) {
  if (number > static_cast<uint32_t>(ReplicaError::kUnknown)) return std::nullopt;
  return static_cast<ReplicaError>(number);
}

template <typename Pb>
bool Parse(Pb& message, std::string_view bytes) {
  return bytes.size() <= INT32_MAX &&
         message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace

std::string Encode(const ForwardedProposals& request) {
  pb::ProposeRequest message;
  EncodeHeader(request.header, message.mutable_header());
  for (const ForwardedProposal& proposal : request.proposals) {
    pb::Proposal* out = message.add_proposals();
    out->set_command(proposal.command);
    out->set_deadline_ms(EncodeDeadline(proposal.deadline));
  }
  return message.SerializeAsString();
}

std::optional<ForwardedProposals> DecodeForwardedProposals(std::string_view bytes) {
  pb::ProposeRequest message;
  if (!Parse(message, bytes) || message.proposals().empty()) return std::nullopt;
  ForwardedProposals request{.header = DecodeHeader(message.header()), .proposals = {}};
  request.proposals.reserve(static_cast<size_t>(message.proposals_size()));
  for (pb::Proposal& proposal : *message.mutable_proposals()) {
    request.proposals.push_back({.command = std::move(*proposal.mutable_command()),
                                 .deadline = DecodeDeadline(proposal.deadline_ms())});
  }
  return request;
}

std::string Encode(std::vector<ProposalResult> results) {
  pb::ProposeResponse message;
  for (ProposalResult& result : results) {
    pb::ProposalAnswer* out = message.add_answers();
    out->set_error(static_cast<uint32_t>(result.error));
    out->set_status_code(static_cast<uint32_t>(result.reply.status.code()));
    if (!result.reply.status.ok()) {
      out->set_status_message(result.reply.status.message().data(),
                              result.reply.status.message().size());
    }
    out->set_body(std::move(result.reply.body));
    out->mutable_position()->set_index(result.position.index);
    out->mutable_position()->set_term(result.position.term);
  }
  return message.SerializeAsString();
}

std::optional<std::vector<ProposalResult>> DecodeProposalResults(std::string_view bytes) {
  pb::ProposeResponse message;
  if (!Parse(message, bytes)) return std::nullopt;
  std::vector<ProposalResult> results;
  results.reserve(static_cast<size_t>(message.answers_size()));
  for (pb::ProposalAnswer& answer : *message.mutable_answers()) {
    std::optional<ReplicaError> error = ErrorOf(answer.error());
    if (!error) return std::nullopt;
    ProposalResult& result = results.emplace_back();
    result.error = *error;
    if (answer.status_code() != 0) {
      result.reply.status = absl::Status(static_cast<absl::StatusCode>(answer.status_code()),
                                         answer.status_message());
    }
    result.reply.body = std::move(*answer.mutable_body());
    result.position = {.index = answer.position().index(), .term = answer.position().term()};
  }
  return results;
}

std::string Encode(const ForwardedChange& request) {
  pb::ChangeMembersRequest message;
  EncodeHeader(request.header, message.mutable_header());
  for (const raft::MemberTarget& target : request.change.targets) {
    pb::ChangeMembersRequest::Target* out = message.add_targets();
    out->set_id(target.id);
    switch (target.fate) {
      case raft::MemberFate::kVoter:
        out->set_fate(pb::ChangeMembersRequest::VOTER);
        break;
      case raft::MemberFate::kLearner:
        out->set_fate(pb::ChangeMembersRequest::LEARNER);
        break;
      case raft::MemberFate::kRemoved:
        out->set_fate(pb::ChangeMembersRequest::REMOVED);
        break;
    }
    if (target.record) out->set_record(*target.record);
  }
  message.set_deadline_ms(EncodeDeadline(request.deadline));
  if (request.change.from) message.set_from(raft::Encode(*request.change.from));
  message.set_guard(static_cast<uint32_t>(request.change.guard));
  return message.SerializeAsString();
}

std::optional<ForwardedChange> DecodeForwardedChange(std::string_view bytes) {
  pb::ChangeMembersRequest message;
  if (!Parse(message, bytes)) return std::nullopt;
  ForwardedChange request{.header = DecodeHeader(message.header()),
                          .change = {},
                          .deadline = DecodeDeadline(message.deadline_ms())};
  if (message.guard() > static_cast<uint32_t>(raft::MemberGuard::kCaughtUp)) return std::nullopt;
  request.change.guard = static_cast<raft::MemberGuard>(message.guard());
  if (message.has_from()) {
    request.change.from = raft::DecodeMembers(message.from());
    if (!request.change.from) return std::nullopt;
  }
  for (pb::ChangeMembersRequest::Target& target : *message.mutable_targets()) {
    raft::MemberTarget& out = request.change.targets.emplace_back();
    out.id = target.id();
    switch (target.fate()) {
      case pb::ChangeMembersRequest::VOTER:
        out.fate = raft::MemberFate::kVoter;
        break;
      case pb::ChangeMembersRequest::LEARNER:
        out.fate = raft::MemberFate::kLearner;
        break;
      case pb::ChangeMembersRequest::REMOVED:
        out.fate = raft::MemberFate::kRemoved;
        break;
      default:
        return std::nullopt;
    }
    if (target.has_record()) out.record = std::move(*target.mutable_record());
  }
  return request;
}

std::string Encode(const ForwardedChangeResult& result) {
  pb::ChangeMembersResponse message;
  message.set_error(static_cast<uint32_t>(result.result.error));
  message.set_refusal(static_cast<uint32_t>(result.result.refusal));
  message.set_members(raft::Encode(result.result.members));
  message.set_index(result.index);
  return message.SerializeAsString();
}

std::optional<ForwardedChangeResult> DecodeForwardedChangeResult(std::string_view bytes) {
  pb::ChangeMembersResponse message;
  if (!Parse(message, bytes)) return std::nullopt;
  std::optional<ReplicaError> error = ErrorOf(message.error());
  std::optional<raft::Members> members = raft::DecodeMembers(message.members());
  if (!error || !members ||
      message.refusal() > static_cast<uint32_t>(raft::ChangeRefusal::kNotCaughtUp)) {
    return std::nullopt;
  }
  return ForwardedChangeResult{
      .result = {.error = *error,
                 .refusal = static_cast<raft::ChangeRefusal>(message.refusal()),
                 .members = std::move(*members)},
      .index = message.index()};
}

std::string Encode(const ForwardedTransfer& request) {
  pb::TransferLeadershipRequest message;
  EncodeHeader(request.header, message.mutable_header());
  message.set_to(request.to);
  message.set_deadline_ms(EncodeDeadline(request.deadline));
  return message.SerializeAsString();
}

std::optional<ForwardedTransfer> DecodeForwardedTransfer(std::string_view bytes) {
  pb::TransferLeadershipRequest message;
  if (!Parse(message, bytes)) return std::nullopt;
  return ForwardedTransfer{.header = DecodeHeader(message.header()),
                           .to = message.to(),
                           .deadline = DecodeDeadline(message.deadline_ms())};
}

std::string Encode(ReplicaError error) {
  pb::TransferLeadershipResponse message;
  message.set_error(static_cast<uint32_t>(error));
  return message.SerializeAsString();
}

std::optional<ReplicaError> DecodeReplicaError(std::string_view bytes) {
  pb::TransferLeadershipResponse message;
  if (!Parse(message, bytes)) return std::nullopt;
  return ErrorOf(message.error());
}

std::string Encode(const ForwardedCall& call) {
  pb::LeaderCall message;
  EncodeHeader(call.header, message.mutable_header());
  message.set_body(call.body);
  return message.SerializeAsString();
}

std::optional<ForwardedCall> DecodeForwardedCall(std::string_view bytes) {
  pb::LeaderCall message;
  if (!Parse(message, bytes)) return std::nullopt;
  return ForwardedCall{.header = DecodeHeader(message.header()),
                       .body = std::move(*message.mutable_body())};
}

std::string Encode(const MemberRecord& record) {
  pb::MemberRecord message;
  message.set_name(record.name);
  for (const std::string& url : record.peer_urls) message.add_peer_urls(url);
  for (const std::string& url : record.client_urls) message.add_client_urls(url);
  message.set_node_uuid(record.node_uuid);
  message.set_joins_as_voter(record.joins_as_voter);
  message.set_kept(record.kept);
  return message.SerializeAsString();
}

std::optional<MemberRecord> DecodeMemberRecord(std::string_view bytes) {
  pb::MemberRecord message;
  if (!Parse(message, bytes)) return std::nullopt;
  return MemberRecord{.name = message.name(),
                      .peer_urls = {message.peer_urls().begin(), message.peer_urls().end()},
                      .client_urls = {message.client_urls().begin(), message.client_urls().end()},
                      .node_uuid = message.node_uuid(),
                      .joins_as_voter = message.joins_as_voter(),
                      .kept = message.kept()};
}

std::optional<MemberRecord> RecordOf(const raft::Members& members, MemberId id) {
  const auto at = members.records.find(id);
  if (at == members.records.end()) return std::nullopt;
  return DecodeMemberRecord(at->second);
}

}  // namespace kv

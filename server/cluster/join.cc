#include "server/cluster/join.h"

#include <utility>

#include "proto/internal/peer.pb.h"
#include "server/cluster/strange.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

namespace pb = kvd::internal;

pb::JoinResponse::Kind ToWire(JoinAnswer::Kind kind) {
  switch (kind) {
    case JoinAnswer::Kind::kGranted:
      return pb::JoinResponse::GRANTED;
    case JoinAnswer::Kind::kRefused:
      return pb::JoinResponse::REFUSED;
    case JoinAnswer::Kind::kRetry:
      return pb::JoinResponse::RETRY;
  }
  return pb::JoinResponse::UNSPECIFIED;
}

absl::StatusOr<JoinAnswer> ReadGrant(const pb::JoinResponse& message) {
  ASSIGN_OR_RETURN(raft::Members members, ReadMembers("a join", message));
  return JoinAnswer{.kind = JoinAnswer::Kind::kGranted,
                    .sentence = {},
                    .cluster_id = message.cluster_id(),
                    .member_id = message.member_id(),
                    .members = std::move(members)};
}

}  // namespace

std::string Encode(const JoinRequest& request) {
  pb::JoinRequest message;
  message.set_protocol_min(request.protocol_min);
  message.set_protocol_max(request.protocol_max);
  message.set_name(request.name);
  if (request.slot) message.set_slot(*request.slot);
  message.set_node_uuid(request.node_uuid);
  for (const std::string& url : request.peer_urls) message.add_peer_urls(url);
  for (const std::string& url : request.client_urls) message.add_client_urls(url);
  message.set_version(request.version);
  message.set_machine_version(request.machine_version);
  message.set_token_hash(request.token_hash);
  return message.SerializeAsString();
}

absl::StatusOr<JoinRequest> DecodeJoinRequest(std::string_view bytes) {
  pb::JoinRequest message;
  if (!Parse(message, bytes)) return Strange("a join that cannot be read");
  RETURN_IF_ERROR(CheckProtocol("a join", message));
  if (message.name().empty() || message.node_uuid().empty() || message.peer_urls().empty()) {
    return Strange("a join that names no slot, no disk or no address");
  }
  JoinRequest request{.name = message.name(),
                      .node_uuid = message.node_uuid(),
                      .peer_urls = {message.peer_urls().begin(), message.peer_urls().end()},
                      .client_urls = {message.client_urls().begin(), message.client_urls().end()},
                      .version = message.version(),
                      .machine_version = message.machine_version(),
                      .protocol_min = message.protocol_min(),
                      .protocol_max = message.protocol_max(),
                      .token_hash = message.token_hash(),
                      .slot = {}};
  if (message.has_slot()) request.slot = message.slot();
  return request;
}

std::string Encode(const JoinAnswer& answer) {
  pb::JoinResponse message;
  message.set_kind(ToWire(answer.kind));
  message.set_sentence(answer.sentence);
  message.set_cluster_id(answer.cluster_id);
  message.set_member_id(answer.member_id);
  message.set_members(raft::Encode(answer.members));
  return message.SerializeAsString();
}

absl::StatusOr<JoinAnswer> DecodeJoinAnswer(std::string_view bytes) {
  pb::JoinResponse message;
  if (!Parse(message, bytes)) return Strange("an answer to a join that cannot be read");
  JoinAnswer answer{.sentence = message.sentence()};
  switch (message.kind()) {
    case pb::JoinResponse::GRANTED:
      return ReadGrant(message);
    case pb::JoinResponse::REFUSED:
      answer.kind = JoinAnswer::Kind::kRefused;
      return answer;
    case pb::JoinResponse::RETRY:
      return answer;
    default:
      return Strange("an answer to a join of an unknown kind");
  }
}

std::string Encode(const LeaveRequest& request) {
  pb::LeaveRequest message;
  message.set_member_id(request.member_id);
  message.set_node_uuid(request.node_uuid);
  message.set_boot_epoch(request.boot_epoch);
  return message.SerializeAsString();
}

absl::StatusOr<LeaveRequest> DecodeLeaveRequest(std::string_view bytes) {
  pb::LeaveRequest message;
  if (!Parse(message, bytes) || message.member_id() == 0) {
    return Strange("a wish to leave that cannot be read");
  }
  return LeaveRequest{.member_id = message.member_id(),
                      .node_uuid = message.node_uuid(),
                      .boot_epoch = message.boot_epoch()};
}

std::string Encode(const LeaveAnswer& answer) {
  pb::LeaveResponse message;
  message.set_done(answer.done);
  message.set_sentence(answer.sentence);
  return message.SerializeAsString();
}

absl::StatusOr<LeaveAnswer> DecodeLeaveAnswer(std::string_view bytes) {
  pb::LeaveResponse message;
  if (!Parse(message, bytes)) return Strange("an answer to a leave that cannot be read");
  return LeaveAnswer{.done = message.done(), .sentence = message.sentence()};
}

std::string Encode(const PermitRequest& request) {
  pb::PermitRequest message;
  message.set_member_id(request.member_id);
  message.set_boot_epoch(request.boot_epoch);
  message.set_reason(request.reason == PermitReason::kRestart ? pb::PermitRequest::RESTART
                                                              : pb::PermitRequest::UNKNOWN);
  return message.SerializeAsString();
}

absl::StatusOr<PermitRequest> DecodePermitRequest(std::string_view bytes) {
  pb::PermitRequest message;
  if (!Parse(message, bytes) || message.member_id() == 0) {
    return Strange("a wish to stop that cannot be read");
  }
  return PermitRequest{.member_id = message.member_id(),
                       .boot_epoch = message.boot_epoch(),
                       .reason = message.reason() == pb::PermitRequest::RESTART
                                     ? PermitReason::kRestart
                                     : PermitReason::kUnknown};
}

std::string Encode(const PermitAnswer& answer) {
  pb::PermitResponse message;
  message.set_granted(answer.granted);
  message.set_sentence(answer.sentence);
  return message.SerializeAsString();
}

absl::StatusOr<PermitAnswer> DecodePermitAnswer(std::string_view bytes) {
  pb::PermitResponse message;
  if (!Parse(message, bytes)) return Strange("an answer to a wish to stop that cannot be read");
  return PermitAnswer{.granted = message.granted(), .sentence = message.sentence()};
}

}  // namespace kv::cluster

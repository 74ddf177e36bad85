#include "server/kv/maintenance.h"

#include <algorithm>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/errors.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

using etcdserverpb::AlarmRequest;
using etcdserverpb::AlarmResponse;
using etcdserverpb::DowngradeRequest;
using etcdserverpb::DowngradeResponse;
using etcdserverpb::TxnRequest;

bool HoldsPut(const TxnRequest& txn) {
  const auto holds = [](const etcdserverpb::RequestOp& op) {
    return op.has_request_put() || (op.has_request_txn() && HoldsPut(op.request_txn()));
  };
  if (std::any_of(txn.success().begin(), txn.success().end(), holds)) return true;
  return !MUTANT("kv.no_space_for_one_branch") &&
         std::any_of(txn.failure().begin(), txn.failure().end(), holds);
}

bool MayGrow(const CommandView& command) {
  if (command.kind == kvd::internal::PUT || command.kind == kvd::internal::LEASE_GRANT) return true;
  if (command.kind != kvd::internal::TXN) return false;
  TxnRequest txn;
  return txn.ParseFromArray(command.body.data(), static_cast<int>(command.body.size())) &&
         HoldsPut(txn);
}

void SetPermit(const StopPermit& permit, kvd::internal::StopPermit* message) {
  message->set_member_id(permit.member);
  message->set_boot_epoch(permit.boot_epoch);
  message->set_unknown_reason(permit.unknown_reason);
}

StopPermit GetPermit(const kvd::internal::StopPermit& message) {
  return {.member = message.member_id(),
          .boot_epoch = message.boot_epoch(),
          .unknown_reason = message.unknown_reason()};
}

void SetAcknowledged(const std::map<MemberId, Index>& acknowledged,
                     kvd::internal::Acknowledged* message) {
  for (const auto& [id, index] : acknowledged) {
    auto* member = message->add_members();
    member->set_member_id(id);
    member->set_index(index);
  }
}

std::map<MemberId, Index> GetAcknowledged(const kvd::internal::Acknowledged& message) {
  std::map<MemberId, Index> acknowledged;
  for (const auto& member : message.members()) acknowledged[member.member_id()] = member.index();
  return acknowledged;
}

}  // namespace

bool Maintenance::Raised(int32_t type) const {
  return std::any_of(alarms.begin(), alarms.end(),
                     [type](const RaisedAlarm& alarm) { return alarm.type == type; });
}

bool Maintenance::Raised(const RaisedAlarm& alarm) const {
  return std::binary_search(alarms.begin(), alarms.end(), alarm);
}

std::string RaiseAlarmCommand(const RaisedAlarm& alarm) {
  AlarmRequest request;
  request.set_action(AlarmRequest::ACTIVATE);
  request.set_memberid(alarm.member);
  request.set_alarm(static_cast<etcdserverpb::AlarmType>(alarm.type));
  return EncodeCommand(kvd::internal::ALARM, request.SerializeAsString(), kMaintenanceVersion);
}

std::string Encode(const Maintenance& state) {
  kvd::internal::MaintenanceState message;
  for (const RaisedAlarm& alarm : state.alarms) {
    auto* out = message.add_alarms();
    out->set_type(alarm.type);
    out->set_member_id(alarm.member);
  }
  message.set_downgrade_target(state.downgrade_target);
  if (state.permit) SetPermit(*state.permit, message.mutable_permit());
  if (!state.acknowledged.empty()) {
    SetAcknowledged(state.acknowledged, message.mutable_acknowledged());
  }
  return message.SerializeAsString();
}

std::optional<Maintenance> DecodeMaintenance(std::string_view bytes) {
  kvd::internal::MaintenanceState message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) return std::nullopt;
  Maintenance state;
  for (const auto& alarm : message.alarms()) {
    state.alarms.push_back({.type = alarm.type(), .member = alarm.member_id()});
  }
  state.downgrade_target = message.downgrade_target();
  if (message.has_permit()) state.permit = GetPermit(message.permit());
  state.acknowledged = GetAcknowledged(message.acknowledged());
  return state;
}

std::string StopPermitCommand(const StopPermit& permit, bool given_back) {
  kvd::internal::StopPermit body;
  SetPermit(permit, &body);
  body.set_given_back(given_back);
  return EncodeCommand(kvd::internal::STOP_PERMIT, body.SerializeAsString(), kMembershipVersion);
}

Reply DoStopPermit(Maintenance& state, const kvd::internal::StopPermit& request, Revision) {
  const StopPermit permit = GetPermit(request);
  if (request.given_back()) {
    const bool held = state.permit && state.permit->member == permit.member &&
                      state.permit->boot_epoch == permit.boot_epoch;
    if (held || MUTANT("permit.any_is_given_back")) state.permit.reset();
    return {};
  }
  if (state.permit && state.permit->member != permit.member && !MUTANT("permit.overwritten")) {
    return {.status = MakeStatus(absl::StatusCode::kFailedPrecondition,
                                 "member {:x} has the permit to stop", state.permit->member),
            .body = {}};
  }
  state.permit = permit;
  return {};
}

std::string AcknowledgedCommand(const std::map<MemberId, Index>& acknowledged) {
  kvd::internal::Acknowledged body;
  SetAcknowledged(acknowledged, &body);
  return EncodeCommand(kvd::internal::ACKNOWLEDGED, body.SerializeAsString(), kMembershipVersion);
}

Reply DoAcknowledged(Maintenance& state, const kvd::internal::Acknowledged& request, Revision) {
  std::map<MemberId, Index> acknowledged = GetAcknowledged(request);
  for (auto& [id, index] : acknowledged) {
    const auto before = state.acknowledged.find(id);
    if (before != state.acknowledged.end()) index = std::max(index, before->second);
  }
  state.acknowledged = std::move(acknowledged);
  return {};
}

Reply DoAlarm(Maintenance& state, const AlarmRequest& request, Revision revision) {
  AlarmResponse response;
  response.mutable_header()->set_revision(revision);
  const RaisedAlarm alarm{.type = request.alarm(), .member = request.memberid()};
  const auto at = std::lower_bound(state.alarms.begin(), state.alarms.end(), alarm);
  const bool raised = at != state.alarms.end() && *at == alarm;
  bool named = false;
  if (request.action() == AlarmRequest::ACTIVATE && alarm.type != etcdserverpb::NONE) {
    if (!raised && state.alarms.size() >= kAlarmsMax) {
      return {
          .status = MakeStatus(absl::StatusCode::kResourceExhausted,
                               "{} alarms are raised, which is the limit; disarm some", kAlarmsMax),
          .body = {}};
    }
    if (!raised) state.alarms.insert(at, alarm);
    named = true;
  } else if (request.action() == AlarmRequest::DEACTIVATE && raised) {
    state.alarms.erase(at);
    named = true;
  }
  if (named) {
    etcdserverpb::AlarmMember* member = response.add_alarms();
    member->set_memberid(alarm.member);
    member->set_alarm(request.alarm());
  }
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

Reply DoDowngrade(Maintenance& state, const DowngradeRequest& request, Revision revision) {
  if (request.action() == DowngradeRequest::ENABLE) {
    if (!state.downgrade_target.empty()) {
      return {.status = DowngradeInProcessError(), .body = {}};
    }
    state.downgrade_target = request.version();
  } else if (request.action() == DowngradeRequest::CANCEL) {
    state.downgrade_target.clear();
  }
  DowngradeResponse response;
  response.mutable_header()->set_revision(revision);
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

absl::Status CheckAlarms(const Maintenance& state, const CommandView& command) {
  if (state.alarms.empty()) return absl::OkStatus();
  switch (command.kind) {
    case kvd::internal::ALARM:
    case kvd::internal::DOWNGRADE:
    case kvd::internal::STOP_PERMIT:
    case kvd::internal::ACKNOWLEDGED:
    case kvd::internal::CLUSTER_VERSION:
    case kvd::internal::LEASE_CHECKPOINT:  // Changes no key; renewals wait for it.
      return absl::OkStatus();
    default:
      break;
  }
  if (state.Raised(etcdserverpb::CORRUPT)) return CorruptError();
  if (state.Raised(etcdserverpb::NOSPACE) && MayGrow(command)) return NoSpaceError();
  return absl::OkStatus();
}

}  // namespace kv

// What operators and members leave in the machine beside the keys: alarms, the version that a
// downgrade aims at, and who may stop. Plain values; what changes them is a command like any other.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "server/kv/command.h"
#include "server/replica/machine.h"
#include "storage/entry.h"
#include "storage/mvcc.h"

namespace etcdserverpb {
class AlarmRequest;
class DowngradeRequest;
}  // namespace etcdserverpb

namespace kvd::internal {
class Acknowledged;
class StopPermit;
}  // namespace kvd::internal

namespace kv {

// The machine version that knows ALARM and DOWNGRADE commands.
inline constexpr uint32_t kMaintenanceVersion = 2;
// The one that knows STOP_PERMIT and ACKNOWLEDGED commands.
inline constexpr uint32_t kMembershipVersion = 3;

// Clients choose types and members of the alarms that they raise: there are no more than this.
inline constexpr size_t kAlarmsMax = 256;

struct RaisedAlarm {
  int32_t type = 0;  // etcdserverpb.AlarmType.
  MemberId member = 0;
  friend auto operator<=>(const RaisedAlarm&, const RaisedAlarm&) = default;
};

// Of a member that stops and is expected back.
struct StopPermit {
  MemberId member = 0;
  uint64_t boot_epoch = 0;  // Of the start that may end.
  bool unknown_reason = false;
  friend bool operator==(const StopPermit&, const StopPermit&) = default;
};

struct Maintenance {
  std::vector<RaisedAlarm> alarms;   // Sorted, without repeats.
  std::string downgrade_target;      // "3.6.0"; empty: none was begun.
  std::optional<StopPermit> permit;  // One at a time.
  // How far each member has acknowledged what is committed, at least: its log cannot end before.
  std::map<MemberId, Index> acknowledged;

  bool Raised(int32_t type) const;  // By any member.
  bool Raised(const RaisedAlarm& alarm) const;
  friend bool operator==(const Maintenance&, const Maintenance&) = default;
};

// Deterministic. Nothing: the bytes are no such state.
std::string Encode(const Maintenance& state);
std::optional<Maintenance> DecodeMaintenance(std::string_view bytes);

// The command that raises it.
std::string RaiseAlarmCommand(const RaisedAlarm& alarm);

// The command that gives the permit, or gives it back.
std::string StopPermitCommand(const StopPermit& permit, bool given_back);

// The command that notes it, for all members: whoever is not in it is none.
std::string AcknowledgedCommand(const std::map<MemberId, Index>& acknowledged);

// No index goes back.
Reply DoAcknowledged(Maintenance& state, const kvd::internal::Acknowledged& request,
                     Revision revision);

// Refused while another member has one. What is given back and not held is nothing.
Reply DoStopPermit(Maintenance& state, const kvd::internal::StopPermit& request, Revision revision);

// Each changes `state` and answers as etcd does; `revision` is the header's.
Reply DoAlarm(Maintenance& state, const etcdserverpb::AlarmRequest& request, Revision revision);
Reply DoDowngrade(Maintenance& state, const etcdserverpb::DowngradeRequest& request,
                  Revision revision);

// What the alarms forbid: CORRUPT every change of the keys, NOSPACE those that may add to them.
absl::Status CheckAlarms(const Maintenance& state, const CommandView& command);

}  // namespace kv

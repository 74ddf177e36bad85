// What operators and members leave in the machine beside the keys: alarms, and the version that a
// downgrade aims at. Plain values; what changes them is a command like any other.
#pragma once

#include <cstdint>
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

namespace kv {

// The machine version that knows ALARM and DOWNGRADE commands.
inline constexpr uint32_t kMaintenanceVersion = 2;

// Clients choose types and members of the alarms that they raise: there are no more than this.
inline constexpr size_t kAlarmsMax = 256;

struct RaisedAlarm {
  int32_t type = 0;  // etcdserverpb.AlarmType.
  MemberId member = 0;
  friend auto operator<=>(const RaisedAlarm&, const RaisedAlarm&) = default;
};

struct Maintenance {
  std::vector<RaisedAlarm> alarms;  // Sorted, without repeats.
  std::string downgrade_target;     // "3.6.0"; empty: none was begun.

  bool Raised(int32_t type) const;  // By any member.
  bool Raised(const RaisedAlarm& alarm) const;
  friend bool operator==(const Maintenance&, const Maintenance&) = default;
};

// Deterministic. Nothing: the bytes are no such state.
std::string Encode(const Maintenance& state);
std::optional<Maintenance> DecodeMaintenance(std::string_view bytes);

// The command that raises it.
std::string RaiseAlarmCommand(const RaisedAlarm& alarm);

// Each changes `state` and answers as etcd does; `revision` is the header's.
Reply DoAlarm(Maintenance& state, const etcdserverpb::AlarmRequest& request, Revision revision);
Reply DoDowngrade(Maintenance& state, const etcdserverpb::DowngradeRequest& request,
                  Revision revision);

// What the alarms forbid: CORRUPT every change of the keys, NOSPACE those that may add to them.
absl::Status CheckAlarms(const Maintenance& state, const CommandView& command);

}  // namespace kv

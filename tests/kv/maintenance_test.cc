// Alarms and downgrades in the machine: what they forbid, and that they survive.
#include "server/kv/maintenance.h"

#include <catch2/catch_test_macros.hpp>

#include "proto/etcd/rpc.pb.h"
#include "server/kv/kv_machine.h"
#include "storage/status.h"
#include "tests/kv/machine_fixture.h"

namespace kv {
namespace {

using etcdserverpb::AlarmRequest;
using etcdserverpb::AlarmResponse;
using etcdserverpb::DowngradeRequest;
using kvd::internal::ALARM;
using kvd::internal::DOWNGRADE;
using kvd::internal::LEASE_CHECKPOINT;
using kvd::internal::LEASE_GRANT;
using kvd::internal::LEASE_REVOKE;
using kvd::internal::PUT;

AlarmRequest AlarmOf(AlarmRequest::AlarmAction action, etcdserverpb::AlarmType type, MemberId id) {
  AlarmRequest request;
  request.set_action(action);
  request.set_alarm(type);
  request.set_memberid(id);
  return request;
}

etcdserverpb::PutRequest PutOf(const std::string& key) {
  etcdserverpb::PutRequest put;
  put.set_key(key);
  return put;
}

TEST_CASE("an alarm outlives a crash") {
  MachineFixture fixture;
  REQUIRE(fixture.Do(ALARM, AlarmOf(AlarmRequest::ACTIVATE, etcdserverpb::CORRUPT, 9)).status.ok());
  REQUIRE(fixture.Do(ALARM, AlarmOf(AlarmRequest::ACTIVATE, etcdserverpb::NOSPACE, 7)).status.ok());
  const Maintenance raised = fixture.machine().maintenance();
  REQUIRE(raised.alarms.size() == 2);
  CHECK(raised.alarms[0] == RaisedAlarm{.type = etcdserverpb::NOSPACE, .member = 7});
  CHECK(raised.alarms[1] == RaisedAlarm{.type = etcdserverpb::CORRUPT, .member = 9});
  fixture.CrashAndRecover();
  CHECK(fixture.machine().maintenance() == raised);
  CHECK(fixture.Do(PUT, PutOf("k")).status.code() == absl::StatusCode::kDataLoss);
  CHECK(fixture.machine().head().revision == 1);
}

TEST_CASE("clients cannot raise alarms without end") {
  MachineFixture fixture;
  for (MemberId id = 1; id <= kAlarmsMax; ++id) {
    REQUIRE(
        fixture.Do(ALARM, AlarmOf(AlarmRequest::ACTIVATE, etcdserverpb::NOSPACE, id)).status.ok());
  }
  const auto raise = [&](MemberId id) {
    return fixture.Do(ALARM, AlarmOf(AlarmRequest::ACTIVATE, etcdserverpb::NOSPACE, id)).status;
  };
  CHECK(raise(kAlarmsMax + 1).code() == absl::StatusCode::kResourceExhausted);
  CHECK(raise(kAlarmsMax).ok());  // It is raised already.
  CHECK(fixture.machine().maintenance().alarms.size() == kAlarmsMax);
}

TEST_CASE("an alarm refuses leases as etcd does, and lets renewals be noted") {
  MachineFixture fixture;
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_ttl(60);
  grant.set_id(1);
  REQUIRE(fixture.Do(LEASE_GRANT, grant).status.ok());
  etcdserverpb::LeaseRevokeRequest revoke;
  revoke.set_id(1);
  const kvd::internal::LeaseCheckpoints checkpoints;
  const auto turn = [&fixture](AlarmRequest::AlarmAction action, etcdserverpb::AlarmType type) {
    REQUIRE(fixture.Do(ALARM, AlarmOf(action, type, 7)).status.ok());
  };
  turn(AlarmRequest::ACTIVATE, etcdserverpb::NOSPACE);
  grant.set_id(2);
  CHECK(Message(fixture.Do(LEASE_GRANT, grant).status) ==
        "etcdserver: mvcc: database space exceeded");
  CHECK(fixture.Do(LEASE_CHECKPOINT, checkpoints).status.ok());
  turn(AlarmRequest::ACTIVATE, etcdserverpb::CORRUPT);
  CHECK(Message(fixture.Do(LEASE_GRANT, grant).status) == "etcdserver: corrupt cluster");
  CHECK(Message(fixture.Do(LEASE_REVOKE, revoke).status) == "etcdserver: corrupt cluster");
  CHECK(fixture.Do(LEASE_CHECKPOINT, checkpoints).status.ok());
  turn(AlarmRequest::DEACTIVATE, etcdserverpb::CORRUPT);
  CHECK(fixture.Do(LEASE_REVOKE, revoke).status.ok());
}

TEST_CASE("one downgrade at a time") {
  MachineFixture fixture;
  DowngradeRequest request;
  request.set_action(DowngradeRequest::ENABLE);
  request.set_version("3.6.0");
  CHECK(fixture.Do(DOWNGRADE, request).status.ok());
  CHECK(Message(fixture.Do(DOWNGRADE, request).status) ==
        "etcdserver: cluster has a downgrade job in progress");
  fixture.CrashAndRecover();
  CHECK(fixture.machine().maintenance().downgrade_target == "3.6.0");
  request.set_action(DowngradeRequest::CANCEL);
  CHECK(fixture.Do(DOWNGRADE, request).status.ok());
  CHECK(fixture.Do(DOWNGRADE, request).status.ok());
  CHECK(fixture.machine().maintenance().downgrade_target.empty());
}

TEST_CASE("one permit to stop at a time, which outlives a crash and is given back by name") {
  MachineFixture fixture;
  const auto permit = [&fixture](MemberId member, uint64_t boot_epoch, bool given_back) {
    kvd::internal::StopPermit request;
    request.set_member_id(member);
    request.set_boot_epoch(boot_epoch);
    request.set_given_back(given_back);
    return fixture.Do(kvd::internal::STOP_PERMIT, request).status;
  };
  const auto held = [&fixture] { return fixture.machine().maintenance().permit; };
  CHECK(permit(7, 3, false).ok());
  CHECK(permit(9, 1, false).code() == absl::StatusCode::kFailedPrecondition);
  fixture.CrashAndRecover();
  CHECK(held() == StopPermit{.member = 7, .boot_epoch = 3});
  // Late words of another start, or of another member, change nothing.
  CHECK(permit(7, 2, true).ok());
  CHECK(permit(9, 3, true).ok());
  CHECK(held() == StopPermit{.member = 7, .boot_epoch = 3});
  // Its next start, which crashed before it could give the first one back.
  CHECK(permit(7, 4, false).ok());
  CHECK(permit(7, 4, true).ok());
  CHECK_FALSE(held());
  CHECK(permit(9, 1, false).ok());
}

TEST_CASE("what members acknowledged never goes back, and is forgotten with the member") {
  MachineFixture fixture;
  const auto note = [&fixture](const std::map<MemberId, Index>& acknowledged) {
    kvd::internal::Acknowledged request;
    for (const auto& [id, index] : acknowledged) {
      auto* member = request.add_members();
      member->set_member_id(id);
      member->set_index(index);
    }
    CHECK(fixture.Do(kvd::internal::ACKNOWLEDGED, request).status.ok());
    return fixture.machine().maintenance().acknowledged;
  };
  using Noted = std::map<MemberId, Index>;
  CHECK(note({{7, 10}, {9, 12}}) == Noted{{7, 10}, {9, 12}});
  CHECK(note({{7, 11}, {9, 5}}) == Noted{{7, 11}, {9, 12}});
  fixture.CrashAndRecover();
  CHECK(fixture.machine().maintenance().acknowledged == Noted{{7, 11}, {9, 12}});
  CHECK(note({{9, 13}, {11, 0}}) == Noted{{9, 13}, {11, 0}});
}

TEST_CASE("a permit to stop is given under every alarm") {
  MachineFixture fixture;
  REQUIRE(fixture.Do(ALARM, AlarmOf(AlarmRequest::ACTIVATE, etcdserverpb::CORRUPT, 9)).status.ok());
  kvd::internal::StopPermit request;
  request.set_member_id(7);
  CHECK(fixture.Do(kvd::internal::STOP_PERMIT, request).status.ok());
}

}  // namespace
}  // namespace kv

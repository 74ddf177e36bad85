// What is said when members come and go by themselves.
#include "server/cluster/join.h"

#include <google/protobuf/stubs/logging.h>

#include <catch2/catch_test_macros.hpp>

#include "server/raft/random.h"

namespace kv::cluster {
namespace {

JoinRequest SomeJoin() {
  return {.name = "kvd-3",
          .node_uuid = MakeNodeUuid(1, 2),
          .peer_urls = {"http://kvd-3:2380"},
          .client_urls = {"http://kvd-3:2379", "http://elsewhere:1"},
          .version = "1.2.3",
          .machine_version = 4,
          .token_hash = "t",
          .slot = 3};
}

JoinAnswer SomeGrant() {
  JoinAnswer answer{
      .kind = JoinAnswer::Kind::kGranted, .sentence = {}, .cluster_id = 7, .member_id = 2};
  answer.members.voters = {1};
  answer.members.learners = {2};
  return answer;
}

TEST_CASE("joins and their answers come back from their bytes") {
  JoinRequest request = SomeJoin();
  CHECK(*DecodeJoinRequest(Encode(request)) == request);
  // Slot 0 is a number, no slot is none.
  request.slot = 0;
  CHECK(*DecodeJoinRequest(Encode(request)) == request);
  request.slot.reset();
  CHECK(*DecodeJoinRequest(Encode(request)) == request);

  CHECK(*DecodeJoinAnswer(Encode(SomeGrant())) == SomeGrant());
  for (const JoinAnswer::Kind kind : {JoinAnswer::Kind::kRefused, JoinAnswer::Kind::kRetry}) {
    const JoinAnswer answer{.kind = kind, .sentence = "because"};
    CHECK(*DecodeJoinAnswer(Encode(answer)) == answer);
  }
}

TEST_CASE("a join in another protocol, or without a slot, a disk or an address, is none") {
  JoinRequest later = SomeJoin();
  later.protocol_min = later.protocol_max = kProtocolMax + 1;
  CHECK(DecodeJoinRequest(Encode(later)).status().message().find("protocol") != std::string::npos);
  for (const auto spoil : {+[](JoinRequest& join) { join.name.clear(); },
                           +[](JoinRequest& join) { join.node_uuid.clear(); },
                           +[](JoinRequest& join) { join.peer_urls.clear(); }}) {
    JoinRequest request = SomeJoin();
    spoil(request);
    CHECK_FALSE(DecodeJoinRequest(Encode(request)).ok());
  }
}

TEST_CASE("a grant that contradicts itself is none, and silence grants nothing") {
  JoinAnswer answer = SomeGrant();
  answer.member_id = 9;
  CHECK_FALSE(DecodeJoinAnswer(Encode(answer)).ok());
  answer = SomeGrant();
  answer.cluster_id = 0;
  CHECK_FALSE(DecodeJoinAnswer(Encode(answer)).ok());
  CHECK_FALSE(DecodeJoinAnswer("").ok());
  CHECK_FALSE(DecodeLeaveAnswer("").value().done);
  CHECK_FALSE(DecodePermitAnswer("").value().granted);
}

TEST_CASE("leaves and permits come back from their bytes") {
  const LeaveRequest leave{.member_id = 5, .node_uuid = "disk", .boot_epoch = 6};
  CHECK(*DecodeLeaveRequest(Encode(leave)) == leave);
  for (const bool done : {false, true}) {
    const LeaveAnswer answer{.done = done, .sentence = "why"};
    CHECK(*DecodeLeaveAnswer(Encode(answer)) == answer);
    const PermitAnswer permit{.granted = done, .sentence = "why"};
    CHECK(*DecodePermitAnswer(Encode(permit)) == permit);
  }
  for (const PermitReason reason : {PermitReason::kRestart, PermitReason::kUnknown}) {
    const PermitRequest permit{.member_id = 5, .boot_epoch = 6, .reason = reason};
    CHECK(*DecodePermitRequest(Encode(permit)) == permit);
  }
  CHECK_FALSE(DecodeLeaveRequest(Encode(LeaveRequest{})).ok());
  CHECK_FALSE(DecodePermitRequest(Encode(PermitRequest{})).ok());
}

TEST_CASE("damaged joins are refused, or read as something that is whole") {
  const google::protobuf::LogSilencer silence;
  raft::SplitMix64 random(43);
  const std::string asked = Encode(SomeJoin());
  const std::string granted = Encode(SomeGrant());
  for (int i = 0; i < 5000; ++i) {
    std::string damaged = i % 2 == 0 ? asked : granted;
    const uint64_t at = random.Below(damaged.size());
    damaged[at] = static_cast<char>(random.Below(256));
    if (random.Below(4) == 0) damaged.resize(random.Below(damaged.size()));
    const absl::StatusOr<JoinRequest> request = DecodeJoinRequest(damaged);
    if (request.ok()) CHECK_FALSE(request->peer_urls.empty());
    const absl::StatusOr<JoinAnswer> answer = DecodeJoinAnswer(damaged);
    if (answer.ok() && answer->kind == JoinAnswer::Kind::kGranted) {
      CHECK(answer->members.IsMember(answer->member_id));
    }
  }
}

}  // namespace
}  // namespace kv::cluster

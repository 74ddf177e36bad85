// Who gets the record that was added, and what is said about it.
#include "server/cluster/claim.h"

#include <catch2/catch_test_macros.hpp>

#include "server/replica/forward.h"

namespace kv::cluster {
namespace {

Claim ClaimOf(std::string uuid, std::string url) {
  return {.name = "d",
          .node_uuid = std::move(uuid),
          .peer_urls = {std::move(url)},
          .client_urls = {"http://d:2379"}};
}

// Member 1 votes; member 2 was added at http://d:2380 and not claimed.
raft::Members Added(bool as_voter) {
  raft::Members members;
  members.voters = {1};
  members.learners = {2};
  members.records[1] = Encode(MemberRecord{
      .name = "a", .peer_urls = {"http://a:2380"}, .client_urls = {}, .node_uuid = "disk-a"});
  members.records[2] = Encode(MemberRecord{.name = {},
                                           .peer_urls = {"http://d:2380"},
                                           .client_urls = {},
                                           .node_uuid = {},
                                           .joins_as_voter = as_voter});
  return members;
}

TEST_CASE("a record is bound to the first disk that claims it, and to no other") {
  const raft::Members members = Added(false);
  const ClaimDecision first = Decide(members, ClaimOf("disk-d", "http://d:2380"));
  CHECK(first.refusal.empty());
  CHECK(first.member_id == 2);
  REQUIRE(first.change);
  // Two disks at once: only one of the changes can be made.
  CHECK(first.change->from == members);
  const raft::Members bound = raft::PlanChange(members, *first.change).next;
  CHECK(bound.IsLearner(2));
  CHECK(DecodeMemberRecord(bound.records.at(2))->node_uuid == "disk-d");
  CHECK(raft::PlanChange(bound, *first.change).refusal == raft::ChangeRefusal::kMoved);

  const ClaimDecision again = Decide(bound, ClaimOf("disk-d", "http://elsewhere:1"));
  CHECK(again.refusal.empty());
  CHECK(again.member_id == 2);
  CHECK_FALSE(again.change);
  const ClaimDecision other = Decide(bound, ClaimOf("disk-e", "http://d:2380"));
  CHECK(other.refusal.find("was claimed by another disk") != std::string::npos);
  CHECK_FALSE(other.change);
}

TEST_CASE("nothing was added for an unknown address") {
  const ClaimDecision decision = Decide(Added(false), ClaimOf("disk-d", "http://d:1"));
  CHECK(decision.refusal.find("no member with the peer URL http://d:1 was added") !=
        std::string::npos);
}

TEST_CASE("an added voter gets its vote when its record was claimed, a learner never by itself") {
  CHECK_FALSE(NextVoter(Added(true)));
  for (const bool as_voter : {false, true}) {
    const raft::Members members = Added(as_voter);
    const ClaimDecision claimed = Decide(members, ClaimOf("disk-d", "http://d:2380"));
    const raft::Members bound = raft::PlanChange(members, *claimed.change).next;
    const std::optional<raft::MemberChange> change = NextVoter(bound);
    CHECK(change.has_value() == as_voter);
    if (!change) continue;
    CHECK(change->guard == raft::MemberGuard::kCaughtUp);
    const raft::Members next = raft::LeaveJoint(raft::PlanChange(bound, *change).next);
    CHECK(next.voters == std::vector<MemberId>{1, 2});
    CHECK_FALSE(DecodeMemberRecord(next.records.at(2))->joins_as_voter);
    CHECK_FALSE(NextVoter(next));
  }
}

TEST_CASE("claims and answers come back from their bytes") {
  const Claim claim = ClaimOf("disk-d", "http://d:2380");
  CHECK(*DecodeClaim(EncodeClaim(claim)) == claim);
  CHECK_FALSE(DecodeClaim("nonsense").ok());
  CHECK_FALSE(DecodeClaim(EncodeClaim(ClaimOf("", "http://d:2380"))).ok());
  const ClaimAnswer granted{
      .refusal = {}, .cluster_id = 7, .member_id = 2, .members = Added(false)};
  CHECK(*DecodeClaimAnswer(EncodeClaimAnswer(granted)) == granted);
  const ClaimAnswer refused{.refusal = "no"};
  CHECK(DecodeClaimAnswer(EncodeClaimAnswer(refused))->refusal == "no");
  // A grant for somebody who is no member is none.
  CHECK_FALSE(DecodeClaimAnswer(
                  EncodeClaimAnswer(
                      {.refusal = {}, .cluster_id = 7, .member_id = 9, .members = Added(false)}))
                  .ok());
}

}  // namespace
}  // namespace kv::cluster

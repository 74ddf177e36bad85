// etcd's rules for changing members, as a table would have them.
#include "server/api/member_changes.h"

#include <catch2/catch_test_macros.hpp>

#include "server/api/errors.h"
#include "storage/status.h"

namespace kv::api {
namespace {

enum class Is { kVoter, kUnstartedVoter, kLearner, kUnstartedLearner };

// Members 1, 2, 3, … at http://m<id>:1.
raft::Members MembersOf(const std::vector<Is>& kinds) {
  raft::Members members;
  for (size_t i = 0; i < kinds.size(); ++i) {
    const MemberId id = i + 1;
    MemberRecord record;
    record.peer_urls = {"http://m" + std::to_string(id) + ":1"};
    const bool started = kinds[i] == Is::kVoter || kinds[i] == Is::kLearner;
    if (started) record.name = "m" + std::to_string(id);
    record.joins_as_voter = kinds[i] == Is::kUnstartedVoter;
    (kinds[i] == Is::kVoter ? members.voters : members.learners).push_back(id);
    members.records[id] = Encode(record);
  }
  return members;
}

NewMember New(std::string url, bool learner) {
  return {.id = 99, .peer_urls = {std::move(url)}, .learner = learner};
}

std::string Say(const absl::StatusOr<raft::MemberChange>& change) {
  return change.ok() ? "OK" : Describe(change.status());
}
std::string Say(Error error) { return Describe(ToStatus(error)); }

TEST_CASE("a voter is added while a majority of all voters has started") {
  using enum Is;
  const auto add = [](const std::vector<Is>& kinds) {
    return Say(PlanAdd(MembersOf(kinds), New("http://new:1", false), 1));
  };
  CHECK(add({kVoter}) == "OK");  // The only way from one to two.
  CHECK(add({kVoter, kVoter, kVoter}) == "OK");
  CHECK(add({kVoter, kVoter, kVoter, kUnstartedVoter}) == "OK");
  CHECK(add({kVoter, kUnstartedVoter}) == Say(Error::kMemberNotEnoughStarted));
  CHECK(add({kVoter, kVoter, kUnstartedVoter, kUnstartedVoter}) ==
        Say(Error::kMemberNotEnoughStarted));
}

TEST_CASE("an address belongs to one member, and there is one learner at a time") {
  using enum Is;
  const raft::Members members = MembersOf({kVoter, kVoter, kUnstartedLearner});
  CHECK(Say(PlanAdd(members, New("http://m3:1", false), 1)) == Say(Error::kPeerUrlExists));
  CHECK(Say(PlanAdd(members, New("http://new:1", true), 1)) == Say(Error::kTooManyLearners));
  CHECK(Say(PlanAdd(members, New("http://new:1", true), 2)) == "OK");
  CHECK(Say(PlanUpdate(members, 1, {"http://m2:1"})) == Say(Error::kPeerUrlExists));
  CHECK(Say(PlanUpdate(members, 1, {"http://m1:1", "http://m1:2"})) == "OK");
  CHECK(Say(PlanUpdate(members, 9, {"nonsense"})) == Say(Error::kMemberNotFound));
  CHECK(Say(PlanUpdate(members, 1, {"nonsense"})) == Say(Error::kMemberBadUrls));
}

TEST_CASE("a member is removed while a majority of the rest has started") {
  using enum Is;
  CHECK(Say(PlanRemove(MembersOf({kVoter}), 1)) == Say(Error::kMemberNotEnoughStarted));
  CHECK(Say(PlanRemove(MembersOf({kVoter, kUnstartedVoter}), 2)) == "OK");
  CHECK(Say(PlanRemove(MembersOf({kVoter, kUnstartedVoter}), 1)) ==
        Say(Error::kMemberNotEnoughStarted));
  CHECK(Say(PlanRemove(MembersOf({kVoter, kUnstartedLearner}), 2)) == "OK");
  CHECK(Say(PlanRemove(MembersOf({kVoter}), 9)) == Say(Error::kMemberNotFound));
}

TEST_CASE("only a learner that has started is promoted") {
  using enum Is;
  const raft::Members members = MembersOf({kVoter, kLearner, kUnstartedLearner, kUnstartedVoter});
  CHECK(Say(PlanPromote(members, 1)) == Say(Error::kMemberNotLearner));
  CHECK(Say(PlanPromote(members, 4)) == Say(Error::kMemberNotLearner));
  CHECK(Say(PlanPromote(members, 3)) == Say(Error::kLearnerNotReady));
  CHECK(Say(PlanPromote(members, 9)) == Say(Error::kMemberNotFound));
  const auto change = PlanPromote(members, 2);
  REQUIRE(change.ok());
  CHECK(change->guard == raft::MemberGuard::kCaughtUp);
  CHECK(change->from == members);
  CHECK(raft::PlanChange(members, *change).next.IsVoter(2));
}

TEST_CASE("what is added counts as what it was added as") {
  using enum Is;
  const raft::Members members = MembersOf({kVoter});
  for (const bool learner : {false, true}) {
    const auto change = PlanAdd(members, New("http://new:1", learner), 1);
    REQUIRE(change.ok());
    const raft::Members next = raft::PlanChange(members, *change).next;
    // It has no vote before it has started, and is shown as what it is to become.
    CHECK(next.IsLearner(99));
    const std::vector<ShownMember> shown = ShownMembers(next);
    REQUIRE(shown.size() == 2);
    CHECK(shown[1].id == 99);
    CHECK(shown[1].learner == learner);
    CHECK_FALSE(shown[1].started());
  }
}

TEST_CASE("peer URLs are checked and sorted") {
  const auto good = CheckPeerUrls({" http://b:1 ", "https://a:65535", "http://[::1]:2"});
  REQUIRE(good.ok());
  CHECK(*good == std::vector<std::string>{"http://[::1]:2", "http://b:1", "https://a:65535"});
  for (const char* url :
       {"", "a:1", "http://a", "http://a:", "http://:1", "http://a:1/", "ftp://a:1", "http://a:b",
        "http://a:65536", "http://a@b:1", "http://::1:2"}) {
    CAPTURE(url);
    CHECK_FALSE(CheckPeerUrls({url}).ok());
  }
}

}  // namespace
}  // namespace kv::api

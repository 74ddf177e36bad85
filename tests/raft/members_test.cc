#include "server/raft/members.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <set>

#include "server/raft/random.h"

namespace kv::raft {
namespace {

using Ids = std::vector<MemberId>;

uint64_t SeedFromEnvironment() {
  const char* text = std::getenv("KVD_SEED");
  return text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
}

bool Contains(const Ids& ids, MemberId id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

// The subset of `ids` whose bits are set.
Ids Subset(const Ids& ids, uint64_t bits) {
  Ids chosen;
  for (size_t i = 0; i < ids.size(); ++i) {
    if ((bits >> i) & 1) chosen.push_back(ids[i]);
  }
  return chosen;
}

// Every set of more than half of `ids`, by counting through all of them.
std::vector<Ids> MajoritiesOf(const Ids& ids) {
  std::vector<Ids> majorities;
  for (uint64_t bits = 0; bits < (uint64_t{1} << ids.size()); ++bits) {
    Ids chosen = Subset(ids, bits);
    if (chosen.size() * 2 > ids.size()) majorities.push_back(std::move(chosen));
  }
  return majorities;
}

bool NaiveMajority(const Ids& ids, const std::set<MemberId>& agree) {
  const std::vector<Ids> majorities = MajoritiesOf(ids);
  return std::any_of(majorities.begin(), majorities.end(), [&agree](const Ids& majority) {
    return std::all_of(majority.begin(), majority.end(),
                       [&agree](MemberId id) { return agree.contains(id); });
  });
}

bool NaiveQuorum(const Members& members, const std::set<MemberId>& agree) {
  if (!NaiveMajority(members.voters, agree)) return false;
  return members.outgoing.empty() || NaiveMajority(members.outgoing, agree);
}

// The largest index that all of some majority have.
Index NaiveMajorityIndex(const Ids& ids, const std::map<MemberId, Index>& matched) {
  Index best = 0;
  for (const Ids& majority : MajoritiesOf(ids)) {
    Index least = matched.at(majority.front());
    for (const MemberId id : majority) least = std::min(least, matched.at(id));
    best = std::max(best, least);
  }
  return best;
}

Index NaiveQuorumIndex(const Members& members, const std::map<MemberId, Index>& matched) {
  const Index incoming = NaiveMajorityIndex(members.voters, matched);
  if (members.outgoing.empty()) return incoming;
  return std::min(incoming, NaiveMajorityIndex(members.outgoing, matched));
}

Ids DrawIds(SplitMix64& chance, uint64_t of, uint64_t at_most) {
  Ids ids;
  const uint64_t wanted = chance.Below(at_most + 1);
  for (MemberId id = 1; id <= of; ++id) {
    if (ids.size() < wanted && chance.Below(2) == 0) ids.push_back(id);
  }
  return ids;
}

Ids Sorted(Ids ids) {
  std::sort(ids.begin(), ids.end());
  return ids;
}

TEST_CASE("a majority is more than half") {
  struct Row {
    Ids voters, outgoing;
    std::set<MemberId> agree;
    bool quorum;
  };
  const std::vector<Row> rows = {
      {{}, {}, {}, false},
      {{}, {}, {1, 2}, false},
      {{1}, {}, {}, false},
      {{1}, {}, {1}, true},
      {{1}, {}, {2}, false},
      {{1, 2}, {}, {1}, false},
      {{1, 2}, {}, {1, 2}, true},
      {{1, 2, 3}, {}, {1}, false},
      {{1, 2, 3}, {}, {1, 3}, true},
      {{1, 2, 3, 4}, {}, {1, 2}, false},
      {{1, 2, 3, 4}, {}, {1, 2, 4}, true},
      {{1, 2, 3, 4, 5}, {}, {2, 5}, false},
      {{1, 2, 3, 4, 5}, {}, {2, 4, 5}, true},
      {{1, 2, 3}, {3, 4, 5}, {1, 2}, false},    // The new majority alone.
      {{1, 2, 3}, {3, 4, 5}, {4, 5}, false},    // The old majority alone.
      {{1, 2, 3}, {3, 4, 5}, {1, 3, 4}, true},  // One member counts in both.
      {{1, 2, 3}, {3, 4, 5}, {1, 2, 4, 5}, true},
      {{1}, {2}, {1}, false},
      {{1}, {2}, {1, 2}, true},
  };
  for (const Row& row : rows) {
    const Members members{.voters = row.voters, .outgoing = row.outgoing};
    CHECK(IsQuorum(members, [&row](MemberId id) { return row.agree.contains(id); }) == row.quorum);
  }
}

TEST_CASE("the quorum index is the largest that a majority of each half has reached") {
  struct Row {
    Ids voters, outgoing;
    std::map<MemberId, Index> matched;
    Index index;
  };
  const std::vector<Row> rows = {
      {{}, {}, {}, 0},
      {{1}, {}, {{1, 7}}, 7},
      {{1, 2}, {}, {{1, 7}, {2, 3}}, 3},
      {{1, 2, 3}, {}, {{1, 7}, {2, 3}, {3, 0}}, 3},
      {{1, 2, 3}, {}, {{1, 7}, {2, 7}, {3, 0}}, 7},
      {{1, 2, 3, 4}, {}, {{1, 9}, {2, 8}, {3, 7}, {4, 6}}, 7},
      {{1, 2, 3, 4, 5}, {}, {{1, 9}, {2, 8}, {3, 7}, {4, 6}, {5, 5}}, 7},
      {{1, 2, 3}, {3, 4, 5}, {{1, 9}, {2, 9}, {3, 4}, {4, 2}, {5, 1}}, 2},
      {{1, 2, 3}, {3, 4, 5}, {{1, 1}, {2, 2}, {3, 9}, {4, 9}, {5, 9}}, 2},
      {{1}, {2}, {{1, 5}, {2, 0}}, 0},
  };
  for (const Row& row : rows) {
    const Members members{.voters = row.voters, .outgoing = row.outgoing};
    CHECK(QuorumIndex(members, [&row](MemberId id) { return row.matched.at(id); }) == row.index);
  }
}

TEST_CASE("quorums agree with the enumeration of all subsets") {
  const uint64_t seed = SeedFromEnvironment();
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  for (int run = 0; run < 20'000; ++run) {
    const Members members{.voters = DrawIds(chance, 7, 6), .outgoing = DrawIds(chance, 7, 6)};
    if (members.voters.empty() && members.IsJoint()) continue;  // Not a valid configuration.
    std::set<MemberId> agree;
    std::map<MemberId, Index> matched;
    for (MemberId id = 1; id <= 7; ++id) {
      if (chance.Below(2) == 0) agree.insert(id);
      matched[id] = chance.Below(6);
    }
    const bool quorum = IsQuorum(members, [&agree](MemberId id) { return agree.contains(id); });
    const Index index = QuorumIndex(members, [&matched](MemberId id) { return matched.at(id); });
    REQUIRE(quorum == NaiveQuorum(members, agree));
    if (members.voters.empty()) {
      REQUIRE(index == 0);
      continue;
    }
    REQUIRE(index == NaiveQuorumIndex(members, matched));
    // The two functions are one law: a quorum reached `index`, and none reached more.
    const auto at_least = [&matched](Index i) {
      return [&matched, i](MemberId id) { return matched.at(id) >= i; };
    };
    REQUIRE(IsQuorum(members, at_least(index)));
    REQUIRE_FALSE(IsQuorum(members, at_least(index + 1)));
  }
}

TEST_CASE("any two quorums of one configuration share a member") {
  const Members members{.voters = {1, 2, 3, 4}, .outgoing = {3, 4, 5}};
  const Ids all = members.All();
  for (uint64_t a = 0; a < 32; ++a) {
    for (uint64_t b = 0; b < 32; ++b) {
      const Ids first = Subset(all, a);
      const Ids second = Subset(all, b);
      const auto in = [](const Ids& ids) {
        return [&ids](MemberId id) { return Contains(ids, id); };
      };
      if (IsQuorum(members, in(first)) && IsQuorum(members, in(second))) {
        REQUIRE((a & b) != 0);
      }
    }
  }
}

TEST_CASE("roles of members are told apart") {
  const Members members{.voters = {1, 2, 6},
                        .outgoing = {2, 3, 4},
                        .learners = {5},
                        .learners_next = {4},
                        .records = {},
                        .removed = {9}};
  REQUIRE(members.IsValid());
  CHECK(members.IsJoint());
  CHECK(members.IsVoter(1));
  CHECK(members.IsVoter(3));
  CHECK(members.IsVoter(4));
  CHECK_FALSE(members.IsVoter(5));
  CHECK(members.IsLearner(5));
  CHECK_FALSE(members.IsLearner(4));  // It votes until the joint configuration is left.
  CHECK(members.IsMember(3));
  CHECK_FALSE(members.IsMember(9));
  CHECK(members.IsRemoved(9));
  CHECK_FALSE(members.IsRemoved(7));
  CHECK(members.All() == Ids{1, 2, 3, 4, 5, 6});
  CHECK_FALSE(members.IsSoleVoter(1));
  CHECK(Members{.voters = {3}}.IsSoleVoter(3));
  CHECK_FALSE(Members{.voters = {3}}.IsSoleVoter(1));
  CHECK_FALSE(Members{.voters = {3}, .outgoing = {4}}.IsSoleVoter(3));
  CHECK(Members{.voters = {3}, .outgoing = {3}}.IsSoleVoter(3));
  CHECK_FALSE(Members{}.IsSoleVoter(1));
}

TEST_CASE("configurations that make no sense are invalid") {
  CHECK(Members{}.IsValid());
  CHECK(Members{.voters = {1}}.IsValid());
  const std::vector<Members> bad = {
      {.voters = {0}},
      {.voters = {2, 1}},
      {.voters = {1, 1}},
      {.voters = {}, .outgoing = {1}},
      {.voters = {}, .learners = {1}},
      {.voters = {}, .removed = {1}},
      {.voters = {1}, .outgoing = {3, 2}},
      {.voters = {1}, .learners = {1}},
      {.voters = {1}, .learners = {3, 2}},
      {.voters = {1}, .outgoing = {1}, .learners_next = {2}},
      {.voters = {1}, .outgoing = {1, 2}, .learners_next = {1}},
      {.voters = {1}, .outgoing = {1, 2}, .learners = {2}, .learners_next = {2}},
      {.voters = {1}, .learners_next = {2}},
      {.voters = {1}, .removed = {1}},
      {.voters = {1}, .outgoing = {2}, .removed = {2}},
      {.voters = {1}, .learners = {2}, .removed = {2}},
      {.voters = {1}, .removed = {3, 2}},
      {.voters = {1}, .records = {{2, "stranger"}}},
  };
  for (size_t i = 0; i < bad.size(); ++i) {
    INFO("row " << i);
    CHECK_FALSE(bad[i].IsValid());
    CHECK_FALSE(DecodeMembers(Encode(bad[i])));
  }
}

Members DrawMembers(SplitMix64& chance) {
  Members members;
  for (MemberId id = 1; id <= 12; ++id) {
    const MemberId spread = id * 0x123456789abcdef;  // Ids are random numbers in real life.
    switch (chance.Below(7)) {
      case 0:
        members.voters.push_back(spread);
        break;
      case 1:
        members.outgoing.push_back(spread);
        break;
      case 2:
        members.voters.push_back(spread);
        members.outgoing.push_back(spread);
        break;
      case 3:
        members.outgoing.push_back(spread);
        members.learners_next.push_back(spread);
        break;
      case 4:
        members.learners.push_back(spread);
        break;
      case 5:
        members.removed.push_back(spread);
        continue;
      default:
        continue;
    }
    if (chance.Below(2) == 0) {
      members.records[spread] = std::string(chance.Below(40), static_cast<char>(chance.Below(256)));
    }
  }
  for (Ids* ids : {&members.voters, &members.outgoing, &members.learners, &members.learners_next,
                   &members.removed}) {
    *ids = Sorted(*ids);
  }
  if (members.voters.empty()) return {};
  return members;
}

TEST_CASE("a configuration survives its encoding, and equal values have equal bytes") {
  const uint64_t seed = SeedFromEnvironment();
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  for (int run = 0; run < 2'000; ++run) {
    const Members members = DrawMembers(chance);
    REQUIRE(members.IsValid());
    const std::string bytes = Encode(members);
    const std::optional<Members> decoded = DecodeMembers(bytes);
    REQUIRE(decoded);
    REQUIRE(*decoded == members);
    REQUIRE(Encode(*decoded) == bytes);
  }
}

TEST_CASE("a cut or lengthened encoding is refused") {
  SplitMix64 chance(SeedFromEnvironment());
  for (int run = 0; run < 100; ++run) {
    const std::string bytes = Encode(DrawMembers(chance));
    for (size_t length = 0; length < bytes.size(); ++length) {
      REQUIRE_FALSE(DecodeMembers(std::string_view(bytes).substr(0, length)));
    }
    REQUIRE_FALSE(DecodeMembers(bytes + '\0'));
    REQUIRE_FALSE(DecodeMembers(bytes + "x"));
  }
  CHECK_FALSE(DecodeMembers(""));
}

TEST_CASE("damaged encodings decode to nothing or to a valid configuration") {
  const uint64_t seed = SeedFromEnvironment();
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  for (int run = 0; run < 300; ++run) {
    const std::string bytes = Encode(DrawMembers(chance));
    for (size_t at = 0; at < bytes.size(); ++at) {
      std::string damaged = bytes;
      damaged[at] = static_cast<char>(damaged[at] ^ static_cast<char>(1 + chance.Below(255)));
      const std::optional<Members> decoded = DecodeMembers(damaged);
      if (!decoded) continue;
      REQUIRE(decoded->IsValid());
      REQUIRE(Encode(*decoded) == damaged);  // One value, one encoding.
    }
  }
  // Lengths that claim more than there is must not make it allocate or read past the end.
  for (int run = 0; run < 20'000; ++run) {
    std::string noise(chance.Below(60), '\0');
    for (char& c : noise) c = static_cast<char>(chance.Below(256));
    if (!noise.empty()) noise[0] = Encode(Members{})[0];
    const std::optional<Members> decoded = DecodeMembers(noise);
    if (decoded) REQUIRE(decoded->IsValid());
  }
}

TEST_CASE("an encoding of a version to come is refused") {
  std::string bytes = Encode(Members{.voters = {1, 2, 3}});
  bytes[0] = static_cast<char>(bytes[0] + 1);
  CHECK_FALSE(DecodeMembers(bytes));
}

MemberTarget To(MemberId id, MemberFate fate) { return {.id = id, .fate = fate, .record = {}}; }

TEST_CASE("changes are planned by the rules") {
  const Members three{.voters = {1, 2, 3}};
  using enum MemberFate;

  SECTION("a new voter passes through a joint configuration") {
    const ChangeOutcome outcome = PlanChange(three, {.targets = {To(4, kVoter)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 2, 3, 4}, .outgoing = {1, 2, 3}});
    CHECK(LeaveJoint(outcome.next) == Members{.voters = {1, 2, 3, 4}});
  }
  SECTION("a removed voter leaves a tombstone when the joint configuration is left") {
    const ChangeOutcome outcome = PlanChange(three, {.targets = {To(2, kRemoved)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 3}, .outgoing = {1, 2, 3}});
    CHECK(LeaveJoint(outcome.next) == Members{.voters = {1, 3}, .removed = {2}});
  }
  SECTION("a demoted voter becomes a learner when the joint configuration is left") {
    const ChangeOutcome outcome = PlanChange(three, {.targets = {To(2, kLearner)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 3}, .outgoing = {1, 2, 3}, .learners_next = {2}});
    CHECK(LeaveJoint(outcome.next) == Members{.voters = {1, 3}, .learners = {2}});
  }
  SECTION("a new learner needs no joint configuration") {
    const ChangeOutcome outcome = PlanChange(three, {.targets = {To(4, kLearner)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 2, 3}, .learners = {4}});
  }
  SECTION("a removed learner leaves a tombstone at once") {
    const Members from{.voters = {1}, .learners = {4}};
    const ChangeOutcome outcome = PlanChange(from, {.targets = {To(4, kRemoved)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1}, .removed = {4}});
  }
  SECTION("a promoted learner votes in the new half only") {
    const Members from{.voters = {1}, .learners = {4}};
    const ChangeOutcome outcome = PlanChange(from, {.targets = {To(4, kVoter)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 4}, .outgoing = {1}});
  }
  SECTION("everybody may be replaced at once") {
    const ChangeOutcome outcome =
        PlanChange(three, {.targets = {To(1, kRemoved), To(2, kRemoved), To(3, kRemoved),
                                       To(4, kVoter), To(5, kVoter), To(6, kVoter)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {4, 5, 6}, .outgoing = {1, 2, 3}});
    CHECK(LeaveJoint(outcome.next) == Members{.voters = {4, 5, 6}, .removed = {1, 2, 3}});
  }
  SECTION("a record alone is one simple change") {
    const ChangeOutcome outcome =
        PlanChange(three, {.targets = {{.id = 2, .fate = kVoter, .record = "here"}}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next == Members{.voters = {1, 2, 3}, .records = {{2, "here"}}});
  }
  SECTION("records stay with their members and go with them") {
    const Members from{.voters = {1, 2}, .records = {{1, "one"}, {2, "two"}}};
    const ChangeOutcome outcome = PlanChange(from, {.targets = {To(2, kRemoved)}});
    REQUIRE(outcome.refusal == ChangeRefusal::kNone);
    CHECK(outcome.next.records.at(2) == "two");  // Still needed to reach it.
    CHECK(LeaveJoint(outcome.next).records == std::map<MemberId, std::string>{{1, "one"}});
  }
}

TEST_CASE("changes that break a rule are refused by name") {
  const Members from{.voters = {1, 2}, .learners = {5}, .records = {{1, "one"}}, .removed = {9}};
  using enum MemberFate;
  const auto refusal = [&from](std::vector<MemberTarget> targets) {
    return PlanChange(from, {.targets = std::move(targets)}).refusal;
  };
  CHECK(refusal({To(1, kRemoved), To(2, kRemoved)}) == ChangeRefusal::kNoVoter);
  CHECK(refusal({To(1, kLearner), To(2, kRemoved)}) == ChangeRefusal::kNoVoter);
  CHECK(refusal({To(7, kRemoved)}) == ChangeRefusal::kUnknownMember);
  CHECK(refusal({To(9, kVoter)}) == ChangeRefusal::kWasRemoved);
  CHECK(refusal({To(9, kLearner)}) == ChangeRefusal::kWasRemoved);
  CHECK(refusal({}) == ChangeRefusal::kNothingChanges);
  CHECK(refusal({To(1, kVoter)}) == ChangeRefusal::kNothingChanges);
  CHECK(refusal({To(5, kLearner)}) == ChangeRefusal::kNothingChanges);
  CHECK(refusal({{.id = 1, .fate = kVoter, .record = "one"}}) == ChangeRefusal::kNothingChanges);
  CHECK(refusal({To(0, kVoter)}) == ChangeRefusal::kInvalid);
  CHECK(refusal({To(7, kVoter), To(7, kLearner)}) == ChangeRefusal::kInvalid);
  CHECK(refusal({{.id = 2, .fate = kRemoved, .record = "x"}}) == ChangeRefusal::kInvalid);
  CHECK(refusal({{.id = 2, .fate = kVoter, .record = std::string(kRecordBytesMax + 1, 'x')}}) ==
        ChangeRefusal::kInvalid);
  CHECK(refusal({{.id = 2, .fate = kVoter, .record = std::string(kRecordBytesMax, 'x')}}) ==
        ChangeRefusal::kNone);

  std::vector<MemberTarget> voters;
  for (MemberId id = 100; id < 100 + kVotersMax - 2; ++id) voters.push_back(To(id, kVoter));
  CHECK(refusal(voters) == ChangeRefusal::kNone);
  voters.push_back(To(200, kVoter));
  CHECK(refusal(voters) == ChangeRefusal::kTooMany);
  std::vector<MemberTarget> learners;
  for (MemberId id = 100; id < 100 + kMembersMax - 3; ++id) learners.push_back(To(id, kLearner));
  CHECK(refusal(learners) == ChangeRefusal::kNone);
  learners.push_back(To(300, kLearner));
  CHECK(refusal(learners) == ChangeRefusal::kTooMany);
}

// What every member should be once a change is through, computed member by member.
std::map<MemberId, MemberFate> NaiveFates(const Members& from, const MemberChange& change) {
  std::map<MemberId, MemberFate> fates;
  for (const MemberId id : from.voters) fates[id] = MemberFate::kVoter;
  for (const MemberId id : from.learners) fates[id] = MemberFate::kLearner;
  for (const MemberId id : from.removed) fates[id] = MemberFate::kRemoved;
  for (const MemberTarget& target : change.targets) fates[target.id] = target.fate;
  return fates;
}

std::map<MemberId, MemberFate> FatesOf(const Members& members) {
  std::map<MemberId, MemberFate> fates;
  for (const MemberId id : members.voters) fates[id] = MemberFate::kVoter;
  for (const MemberId id : members.learners) fates[id] = MemberFate::kLearner;
  for (const MemberId id : members.removed) fates[id] = MemberFate::kRemoved;
  return fates;
}

// §4.3: at no step can two disjoint sets of members decide alone (fig. 4.2 shows how they could).
void CheckQuorumsOverlap(const Members& before, const Members& after) {
  std::set<MemberId> everybody;
  for (const MemberId id : before.All()) everybody.insert(id);
  for (const MemberId id : after.All()) everybody.insert(id);
  const Ids ids(everybody.begin(), everybody.end());
  for (uint64_t bits = 0; bits < (uint64_t{1} << ids.size()); ++bits) {
    const Ids first = Subset(ids, bits);
    const Ids rest = Subset(ids, ~bits);
    const bool decides = IsQuorum(before, [&first](MemberId id) { return Contains(first, id); });
    const bool rest_decides = IsQuorum(after, [&rest](MemberId id) { return Contains(rest, id); });
    REQUIRE_FALSE((decides && rest_decides));
  }
}

TEST_CASE("every planned change ends where it should, and its steps share every quorum") {
  const uint64_t seed = SeedFromEnvironment();
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  int planned = 0;
  for (int run = 0; run < 4'000; ++run) {
    Members from;
    MemberChange change;
    for (MemberId id = 1; id <= 7; ++id) {
      const uint64_t now = chance.Below(4);
      if (now == 0) from.voters.push_back(id);
      if (now == 1) from.learners.push_back(id);
      if (now == 2 && chance.Below(3) == 0) from.removed.push_back(id);
      if (chance.Below(3) != 0) continue;
      const uint64_t fate = chance.Below(3);
      change.targets.push_back(To(id, static_cast<MemberFate>(fate)));
    }
    if (from.voters.empty()) continue;
    REQUIRE(from.IsValid());
    const ChangeOutcome outcome = PlanChange(from, change);
    if (outcome.refusal != ChangeRefusal::kNone) continue;
    ++planned;
    REQUIRE(outcome.next.IsValid());
    const bool voters_change = outcome.next.voters != from.voters;
    REQUIRE(outcome.next.IsJoint() == voters_change);
    if (voters_change) REQUIRE(outcome.next.outgoing == from.voters);
    CheckQuorumsOverlap(from, outcome.next);
    const Members last = voters_change ? LeaveJoint(outcome.next) : outcome.next;
    REQUIRE(last.IsValid());
    REQUIRE_FALSE(last.IsJoint());
    CheckQuorumsOverlap(outcome.next, last);
    REQUIRE(FatesOf(last) == NaiveFates(from, change));
  }
  CHECK(planned > 500);
}

}  // namespace
}  // namespace kv::raft

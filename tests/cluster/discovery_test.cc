// What a blank disk does with what it hears under discovery, row by row: from members, from the
// leader that takes it in, and from the marker.
#include <catch2/catch_test_macros.hpp>
#include <string>
#include <vector>

#include "server/cluster/forming.h"
#include "server/cluster/founding.h"
#include "server/cluster/hello.h"
#include "server/cluster/join.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

const std::vector<Listed> kSlots = {{.name = "a", .peer_urls = {"http://a:1"}},
                                    {.name = "b", .peer_urls = {"http://b:1"}},
                                    {.name = "c", .peer_urls = {"http://c:1"}}};

FoundingOptions OptionsOf(const std::string& name) {
  FoundingOptions options;
  options.name = name;
  options.peer_urls = {"http://" + name + ":1"};
  options.client_urls = {"http://" + name + ":2"};
  options.token_hash = HashToken("t");
  options.version = "test";
  options.discovery.emplace().slots = kSlots;
  return options;
}

Identity BlankDisk(uint64_t number) {
  Identity identity;
  identity.node_uuid = MakeNodeUuid(0, number);
  return identity;
}

Standing MemberAt(const std::string& name, uint64_t cluster_id, uint64_t disk) {
  Standing member;
  member.name = name;
  member.node_uuid = MakeNodeUuid(0, disk);
  member.state = State::kMember;
  member.cluster_id = cluster_id;
  member.member_id = disk;
  member.token_hash = HashToken("t");
  return member;
}

// As b's disk proposes it, although a should.
FoundingRecord RecordOf(uint64_t cluster_id) {
  FoundingRecord record{
      .cluster_id = cluster_id, .attempt = 1, .token_hash = HashToken("t"), .founders = {}};
  for (uint64_t i = 0; i < kSlots.size(); ++i) {
    record.founders.push_back({.name = kSlots[i].name,
                               .node_uuid = MakeNodeUuid(0, 0xa + i),
                               .member_id = i + 1,
                               .peer_urls = kSlots[i].peer_urls,
                               .client_urls = {}});
  }
  return record;
}

JoinAnswer GrantOf(uint64_t cluster_id, MemberId id) {
  JoinAnswer grant;
  grant.kind = JoinAnswer::Kind::kGranted;
  grant.cluster_id = cluster_id;
  grant.member_id = id;
  return grant;
}

bool AsksToJoin(const Founding::Output& output) {
  for (const Founding::Ask& ask : output.asks) {
    if (ask.kind == Founding::Ask::Kind::kJoin) return true;
  }
  return false;
}

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("a blank disk joins the members it meets, once at a time") {
  Founding founding(OptionsOf("c"), BlankDisk(0xc), 1);
  CHECK_FALSE(AsksToJoin(founding.Tick()));
  founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
  CHECK(AsksToJoin(founding.Tick()));
  CHECK_FALSE(AsksToJoin(founding.Tick()));
  const JoinRequest request = founding.MakeJoinRequest();
  CHECK(request.name == "c");
  CHECK(request.node_uuid == MakeNodeUuid(0, 0xc));
  CHECK_FALSE(request.slot.has_value());
  founding.JoinAnswered("a", MakeStatus(absl::StatusCode::kUnavailable, "no leader"));
  CHECK(Contains(founding.Missing().front(), "no leader"));
  founding.HelloAnswered("a", 3, MemberAt("a", 7, 0xa));
  CHECK(AsksToJoin(founding.Tick()));
  const Founding::Output taken = founding.JoinAnswered("a", GrantOf(7, 99));
  REQUIRE(taken.persist.has_value());
  CHECK(taken.persist->state == State::kMember);
  CHECK(taken.persist->cluster_id == 7);
  CHECK(taken.persist->member_id == 99);
  CHECK_FALSE(taken.persist->data_laid);
  CHECK_FALSE(taken.persist->record.has_value());
  CHECK(founding.founded());
}

TEST_CASE("a stale disk asks to join as another one, and begins anew only once it is taken in") {
  Identity stale = BlankDisk(0xc);
  stale.state = State::kStale;
  stale.cluster_id = 7;
  stale.member_id = 3;
  stale.name = "c";
  stale.data_laid = true;
  stale.next_uuid = MakeNodeUuid(0, 0xd);
  Founding founding(OptionsOf("c"), stale, 1);
  // Whatever it hears, it promises and founds nothing.
  CHECK(Contains(*founding.PrepareAsked(RecordOf(8)).refusal,
                 "on an old disk of a member of cluster 7"));
  CHECK(founding.standing().state == State::kStale);
  CHECK(founding.standing().node_uuid == stale.next_uuid);
  for (uint64_t round = 1; round <= 3; ++round) {
    CHECK_FALSE(AsksToJoin(founding.Tick()));
    Standing blank;
    blank.token_hash = HashToken("t");
    for (uint64_t disk = 0xa; disk <= 0xb; ++disk) {
      blank.name = disk == 0xa ? "a" : "b";
      blank.node_uuid = MakeNodeUuid(0, disk);
      CHECK(founding.HelloAnswered(blank.name, round, blank).asks.empty());
    }
  }
  CHECK(Contains(founding.Missing().front(), "older than what member 3 of cluster 7 acknowledged"));
  founding.HelloAnswered("a", 3, MemberAt("a", 7, 0xa));
  CHECK(AsksToJoin(founding.Tick()));
  CHECK(founding.MakeJoinRequest().node_uuid == stale.next_uuid);
  const Founding::Output refused =
      founding.JoinAnswered("a", MakeStatus(absl::StatusCode::kUnavailable, "no leader"));
  CHECK_FALSE(refused.begin_anew);
  founding.HelloAnswered("a", 4, MemberAt("a", 7, 0xa));
  CHECK(AsksToJoin(founding.Tick()));
  const Founding::Output taken = founding.JoinAnswered("a", GrantOf(7, 99));
  CHECK(taken.begin_anew);
  CHECK_FALSE(taken.persist.has_value());
  CHECK_FALSE(founding.founded());
}

TEST_CASE("who has met a cluster promises nothing any more") {
  Founding founding(OptionsOf("b"), BlankDisk(0xb), 1);
  founding.Tick();
  founding.HelloAnswered("c", 1, MemberAt("c", 7, 0xc));
  CHECK(Contains(*founding.PrepareAsked(RecordOf(8)).refusal, "has met a cluster"));
  CHECK(AsksToJoin(founding.Tick()));
  // Also when the members are silent again, as long as a grant may be on its way.
  for (int i = 0; i < 10; ++i) founding.Tick();
  CHECK(Contains(*founding.PrepareAsked(RecordOf(8)).refusal, "has met a cluster"));
  founding.JoinAnswered("c", MakeStatus(absl::StatusCode::kDeadlineExceeded, "no answer"));
  CHECK(founding.PrepareAsked(RecordOf(8)).refusal == "");
  // A late grant of somebody else's does not move it.
  CHECK(founding.identity().state == State::kPromised);
}

TEST_CASE("members of two clusters halt whoever sees both") {
  Founding founding(OptionsOf("c"), BlankDisk(0xc), 1);
  founding.Tick();
  founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
  founding.HelloAnswered("b", 1, MemberAt("b", 8, 0xb));
  CHECK_FALSE(AsksToJoin(founding.Tick()));
  CHECK(Contains(founding.halted(), "two clusters have these names"));
  CHECK(founding.standing().state == State::kHalted);
  CHECK(Contains(*founding.PrepareAsked(RecordOf(9)).refusal, "has halted"));
  CHECK(founding.Tick().asks.empty());
  CHECK_FALSE(founding.JoinAnswered("a", GrantOf(7, 99)).persist.has_value());
}

TEST_CASE("all wanted slots are asked, not only those that found") {
  FoundingOptions options = OptionsOf("a");
  options.discovery->founders_max = 2;
  Founding founding(options, BlankDisk(0xa), 1);
  FoundingOptions other = OptionsOf("b");
  other.discovery->founders_max = 2;
  const Standing blank = Founding(other, BlankDisk(0xb), 2).standing();
  for (uint64_t round = 1; round <= 5; ++round) {
    founding.Tick();
    founding.HelloAnswered("b", round, blank);
  }
  // c may be a member, for all that is known.
  CHECK(founding.identity().state == State::kBlank);
  REQUIRE(founding.Missing().size() == 1);
  CHECK(Contains(founding.Missing().front(), "c (http://c:1): no answer yet"));
}

TEST_CASE("a member on a copy of this disk halts") {
  Founding founding(OptionsOf("c"), BlankDisk(0xa), 1);
  founding.Tick();
  founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
  CHECK_FALSE(AsksToJoin(founding.Tick()));
  CHECK(Contains(founding.halted(), "is a copy of this member's"));
}

TEST_CASE("a promise is void once the disk that asked for it is a member elsewhere") {
  Founding founding(OptionsOf("c"), BlankDisk(0xc), 1);
  founding.Tick();
  REQUIRE(founding.PrepareAsked(RecordOf(7)).refusal == "");
  SECTION("it is: nobody can be a member of what was promised") {
    founding.HelloAnswered("a", 1, MemberAt("a", 8, 0xa));
    CHECK(AsksToJoin(founding.Tick()));
    const Founding::Output taken = founding.JoinAnswered("a", GrantOf(8, 99));
    CHECK(taken.persist->cluster_id == 8);
    CHECK_FALSE(taken.persist->record.has_value());
  }
  SECTION("another disk is: a contradiction") {
    founding.HelloAnswered("b", 1, MemberAt("b", 8, 0xb));
    CHECK_FALSE(AsksToJoin(founding.Tick()));
    CHECK(Contains(founding.halted(), "has promised to found cluster 7"));
  }
  SECTION("it is a member of what was promised: the news that was missed") {
    const Founding::Output output = founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
    CHECK(output.persist->cluster_id == 7);
    CHECK(founding.founded());
  }
}

TEST_CASE("a crash between the grant and the first files asks again, and wants the same again") {
  Identity granted = BlankDisk(0xc);
  granted.state = State::kMember;
  granted.cluster_id = 7;
  granted.member_id = 99;
  granted.name = "c";
  Founding founding(OptionsOf("c"), granted, 1);
  CHECK_FALSE(founding.founded());
  founding.Tick();
  SECTION("the same") {
    founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
    CHECK(AsksToJoin(founding.Tick()));
    founding.JoinAnswered("a", GrantOf(7, 99));
    CHECK(founding.founded());
  }
  SECTION("another id") {
    founding.HelloAnswered("a", 1, MemberAt("a", 7, 0xa));
    CHECK(AsksToJoin(founding.Tick()));
    founding.JoinAnswered("a", GrantOf(7, 98));
    CHECK(Contains(founding.halted(), "was granted member 63 of cluster 7"));
  }
  SECTION("another cluster") {
    founding.HelloAnswered("a", 1, MemberAt("a", 8, 0xa));
    CHECK_FALSE(AsksToJoin(founding.Tick()));
    CHECK(Contains(founding.halted(), "was taken in by cluster 7"));
  }
}

TEST_CASE("slots are named by their number and nothing else") {
  Discovery discovery;
  discovery.slot_prefix = "kvd";
  CHECK(discovery.Ordinal("kvd-0") == 0);
  CHECK(discovery.Ordinal("kvd-12") == 12);
  for (const char* name : {"kvd", "kvd-", "kvd-01", "kvd-1x", "kvd--1", "other-1", "kvd-1-2"}) {
    INFO(name);
    CHECK_FALSE(discovery.Ordinal(name).has_value());
  }
}

Marker MarkerOf(Marker::Phase phase, uint64_t cluster_id) {
  return {.phase = phase, .cluster_id = cluster_id, .version = "5"};
}

TEST_CASE("nobody serves before the marker says formed, and only the leader makes it say so") {
  Forming forming(7, false);
  CHECK(forming.Tick(false).read);
  CHECK_FALSE(forming.MarkerRead(MarkerOf(Marker::Phase::kForming, 7)).write.has_value());
  CHECK_FALSE(forming.formed());
  CHECK(forming.Tick(true).read);
  CHECK_FALSE(forming.Tick(true).read);  // One at a time.
  const Forming::Output output = forming.MarkerRead(MarkerOf(Marker::Phase::kForming, 7));
  REQUIRE(output.write.has_value());
  CHECK(*output.write == MarkerOf(Marker::Phase::kFormed, 7));
  CHECK_FALSE(forming.MarkerWritten(absl::AbortedError("changed")).formed);
  CHECK(Contains(forming.Waits(), "was not written"));
  CHECK(forming.Tick(false).read);
  CHECK(forming.MarkerRead(MarkerOf(Marker::Phase::kFormed, 7)).formed);
  CHECK(forming.Waits() == "");
}

TEST_CASE("a foreign marker halts who never served, and only warns who did") {
  for (const Marker::Phase phase : {Marker::Phase::kForming, Marker::Phase::kFormed}) {
    Forming young(7, false);
    young.Tick(true);
    const Forming::Output output = young.MarkerRead(MarkerOf(phase, 8));
    CHECK(Contains(output.halt, "the marker names cluster 8"));
    CHECK_FALSE(output.write.has_value());
    Forming old(7, true);
    CHECK(old.Tick(true).read);
    const Forming::Output warned = old.MarkerRead(MarkerOf(phase, 8));
    CHECK(warned.halt == "");
    CHECK(Contains(warned.warning, "the marker names cluster 8"));
    CHECK_FALSE(warned.write.has_value());
  }
}

TEST_CASE("the leader puts a deleted marker back") {
  Forming forming(7, true);
  CHECK_FALSE(forming.Tick(false).read);
  Forming::Output output;
  for (int i = 0; i < 100 && !output.read; ++i) output = forming.Tick(true);
  REQUIRE(output.read);
  output = forming.MarkerRead(MarkerOf(Marker::Phase::kNone, 0));
  REQUIRE(output.write.has_value());
  CHECK(*output.write == MarkerOf(Marker::Phase::kFormed, 7));
}

}  // namespace
}  // namespace kv::cluster

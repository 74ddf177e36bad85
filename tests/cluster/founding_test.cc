// What a founder answers to records that no honest coordinator would send it, row by row. The
// schedules of founding_explore_test never reach most of these, because the coordinator looks
// first; the founder must refuse all the same (two processes may call themselves by one name).
#include "server/cluster/founding.h"

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>
#include <vector>

#include "server/cluster/hello.h"

namespace kv::cluster {
namespace {

const std::vector<Listed> kList = {{.name = "a", .peer_urls = {"http://a:1"}},
                                   {.name = "b", .peer_urls = {"http://b:1"}}};

FoundingOptions OptionsOf(const std::string& name) {
  return {.name = name,
          .list = kList,
          .client_urls = {"http://" + name + ":2"},
          .token_hash = HashToken("t"),
          .config_hash = HashConfiguration("t", kList),
          .version = "test"};
}

Identity BlankB() {
  Identity identity;
  identity.node_uuid = MakeNodeUuid(0, 0xb);
  return identity;
}

// A record as a's disk proposes it.
FoundingRecord RecordOf(uint64_t cluster_id, uint64_t attempt) {
  return {.cluster_id = cluster_id,
          .attempt = attempt,
          .token_hash = HashToken("t"),
          .founders = {{.name = "a",
                        .node_uuid = MakeNodeUuid(0, 0xa),
                        .member_id = 1,
                        .peer_urls = {"http://a:1"},
                        .client_urls = {"http://a:2"}},
                       {.name = "b",
                        .node_uuid = MakeNodeUuid(0, 0xb),
                        .member_id = 2,
                        .peer_urls = {"http://b:1"},
                        .client_urls = {"http://b:2"}}}};
}

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("a founder refuses records that do not fit, and keeps what it promised") {
  struct Row {
    const char* what;
    std::function<void(FoundingRecord&)> change;
    const char* refusal;
  };
  const std::vector<Row> rows = {
      {"another token", [](FoundingRecord& r) { r.token_hash = HashToken("x"); },
       "another --initial-cluster-token"},
      {"another name", [](FoundingRecord& r) { r.founders[0].name = "c"; },
       "another --initial-cluster list"},
      {"another address", [](FoundingRecord& r) { r.founders[0].peer_urls = {"http://c:1"}; },
       "another --initial-cluster list"},
      {"a founder more", [](FoundingRecord& r) { r.founders.emplace_back().name = "c"; },
       "another --initial-cluster list"},
      {"nobody", [](FoundingRecord& r) { r.founders.clear(); }, "another --initial-cluster list"},
      {"no cluster id", [](FoundingRecord& r) { r.cluster_id = 0; }, "not all different"},
      {"no member id", [](FoundingRecord& r) { r.founders[0].member_id = 0; }, "not all different"},
      {"one member id twice", [](FoundingRecord& r) { r.founders[0].member_id = 2; },
       "not all different"},
      {"one disk twice", [](FoundingRecord& r) { r.founders[0].node_uuid = MakeNodeUuid(0, 0xb); },
       "not all different"},
      {"an earlier disk of this founder",
       [](FoundingRecord& r) { r.founders[1].node_uuid = MakeNodeUuid(0, 0xbb); },
       "\"b\" has another disk now"},
  };
  for (const Row& row : rows) {
    INFO(row.what);
    Founding founding(OptionsOf("b"), BlankB(), 1);
    FoundingRecord record = RecordOf(7, 1);
    row.change(record);
    const Founding::Output output = founding.PrepareAsked(record);
    REQUIRE(output.refusal.has_value());
    CHECK(Contains(*output.refusal, row.refusal));
    CHECK_FALSE(output.persist.has_value());
    CHECK(founding.identity().state == State::kBlank);
  }
}

TEST_CASE("a promise binds to the disk that asked for it") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  CHECK(founding.PrepareAsked(RecordOf(7, 1)).refusal == "");
  // A twin of a, on another disk, beside the first.
  FoundingRecord twin = RecordOf(8, 1);
  twin.founders[0].node_uuid = MakeNodeUuid(0, 0xaa);
  const Founding::Output output = founding.PrepareAsked(twin);
  CHECK(Contains(*output.refusal, "has promised to found cluster 7"));
  CHECK_FALSE(output.persist.has_value());
  CHECK(founding.identity().record == RecordOf(7, 1));
  // Nor does the twin's word make it a member.
  CHECK_FALSE(founding.CommitAsked(twin).refusal->empty());
  CHECK_FALSE(founding.founded());
}

TEST_CASE("of one disk's records the newest holds, whatever comes late") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  CHECK(founding.PrepareAsked(RecordOf(7, 1)).refusal == "");
  CHECK(founding.PrepareAsked(RecordOf(8, 2)).refusal == "");
  CHECK(Contains(*founding.PrepareAsked(RecordOf(7, 1)).refusal, "a newer founding record"));
  CHECK(Contains(*founding.PrepareAsked(RecordOf(9, 2)).refusal, "a newer founding record"));
  // The same once more is granted without another write.
  const Founding::Output again = founding.PrepareAsked(RecordOf(8, 2));
  CHECK(again.refusal == "");
  CHECK_FALSE(again.persist.has_value());
  CHECK_FALSE(founding.CommitAsked(RecordOf(7, 1)).refusal->empty());
  CHECK(founding.CommitAsked(RecordOf(8, 2)).refusal == "");
  CHECK(founding.identity().cluster_id == 8);
  CHECK(founding.identity().member_id == 2);
}

TEST_CASE("a commit that was not promised is refused") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  CHECK_FALSE(founding.CommitAsked(RecordOf(7, 1)).refusal->empty());
  CHECK(founding.identity().state == State::kBlank);
}

TEST_CASE("a member promises nothing and stays what it is") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  founding.PrepareAsked(RecordOf(7, 1));
  founding.CommitAsked(RecordOf(7, 1));
  REQUIRE(founding.founded());
  CHECK(Contains(*founding.PrepareAsked(RecordOf(8, 2)).refusal, "is a member of cluster 7"));
  CHECK(founding.CommitAsked(RecordOf(7, 1)).refusal == "");
  CHECK_FALSE(founding.CommitAsked(RecordOf(8, 2)).refusal->empty());
  CHECK(founding.Tick().asks.empty());
  CHECK(founding.standing().state == State::kMember);
}

TEST_CASE("a promise and a member of another cluster contradict each other") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  founding.PrepareAsked(RecordOf(7, 1));
  Standing member;
  member.name = "a";
  member.state = State::kMember;
  member.cluster_id = 8;
  const Founding::Output output = founding.HelloAnswered("a", 1, member);
  REQUIRE(output.halt.has_value());
  CHECK(Contains(*output.halt,
                 "has promised to found cluster 7, but \"a\" is a member of cluster 8"));
  CHECK_FALSE(founding.founded());
  // The member of the cluster that was promised is the news that was missed.
  member.cluster_id = 7;
  CHECK_FALSE(founding.HelloAnswered("a", 2, member).halt.has_value());
  CHECK(founding.founded());
}

TEST_CASE("an answer from somebody else at the address is no answer") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  Standing other;
  other.name = "x";
  other.state = State::kMember;
  other.cluster_id = 8;
  CHECK_FALSE(founding.HelloAnswered("a", 1, other).halt.has_value());
  REQUIRE(founding.Missing().size() == 1);
  CHECK(Contains(founding.Missing().front(), "the address belongs to \"x\""));
}

TEST_CASE("a copied data directory and another protocol are named") {
  Founding founding(OptionsOf("b"), BlankB(), 1);
  Founding copy(OptionsOf("a"), BlankB(), 2);
  founding.HelloAnswered("a", 1, copy.standing());
  CHECK(Contains(founding.Missing().front(), "is a copy of this member's"));

  Identity other;
  other.node_uuid = MakeNodeUuid(0, 0xa);
  Standing future = Founding(OptionsOf("a"), other, 3).standing();
  future.protocol_min = kProtocolMax + 1;
  future.protocol_max = kProtocolMax + 1;
  founding.HelloAnswered("a", 1, future);
  CHECK(Contains(founding.Missing().front(), "speaks protocol"));

  Standing removed = Founding(OptionsOf("a"), other, 3).standing();
  removed.state = State::kRemoved;
  founding.HelloAnswered("a", 1, removed);
  CHECK(Contains(founding.Missing().front(), "was removed from cluster"));
}

}  // namespace
}  // namespace kv::cluster

#include "server/cluster/hello.h"

#include <google/protobuf/stubs/logging.h>

#include <catch2/catch_test_macros.hpp>

#include "server/raft/random.h"

namespace kv::cluster {
namespace {

Standing SomeStanding(State state) {
  Standing standing{.name = "a",
                    .node_uuid = MakeNodeUuid(1, 2),
                    .state = state,
                    .cluster_id = 5,
                    .member_id = 6,
                    .boot_epoch = 7,
                    .record = {},
                    .token_hash = HashToken("t"),
                    .config_hash = "c",
                    .version = "v",
                    .features = 3,
                    .peer_urls = {"http://a:1"},
                    .client_urls = {"http://a:2", "http://a:3"},
                    .leader = 9};
  if (state == State::kPromised) {
    standing.record = FoundingRecord{.cluster_id = 1,
                                     .attempt = 2,
                                     .token_hash = "h",
                                     .founders = {{.name = "a",
                                                   .node_uuid = MakeNodeUuid(1, 2),
                                                   .member_id = 3,
                                                   .peer_urls = {"http://a:1"},
                                                   .client_urls = {"http://a:2"}}}};
  }
  return standing;
}

TEST_CASE("what founders say reads back as it was said") {
  for (const State state : {State::kBlank, State::kPromised, State::kMember, State::kRemoved}) {
    const Standing standing = SomeStanding(state);
    const absl::StatusOr<Standing> answer = DecodeHelloAnswer(EncodeHelloAnswer(standing));
    REQUIRE(answer.ok());
    CHECK(*answer == standing);
    const absl::StatusOr<Hello> hello =
        DecodeHello(EncodeHello({.from = standing, .to_name = "b"}));
    REQUIRE(hello.ok());
    CHECK(hello->from == standing);
    CHECK(hello->to_name == "b");
  }
  const FoundingRecord record = *SomeStanding(State::kPromised).record;
  CHECK(DecodeRecordRequest(EncodeRecordRequest(record)).value() == record);
  CHECK(DecodeRefusal(EncodeRefusal("")).value().empty());
  CHECK(DecodeRefusal(EncodeRefusal("no")).value() == "no");
}

TEST_CASE("bytes that are not a message are refused, never trusted") {
  const google::protobuf::LogSilencer silence;
  CHECK_FALSE(DecodeHello("\xff\xff").ok());
  CHECK_FALSE(DecodeHello("").ok());  // No state.
  CHECK_FALSE(DecodeHelloAnswer("garbage").ok());
  CHECK_FALSE(DecodeRecordRequest("").ok());
  Standing founderless = SomeStanding(State::kPromised);
  founderless.record->founders.clear();
  CHECK_FALSE(DecodeHelloAnswer(EncodeHelloAnswer(founderless)).ok());

  raft::SplitMix64 random(42);
  const std::string bytes = EncodeHello({.from = SomeStanding(State::kPromised), .to_name = "b"});
  for (int i = 0; i < 5000; ++i) {
    std::string damaged = bytes;
    const uint64_t at = random.Below(damaged.size());
    damaged[at] = static_cast<char>(random.Below(256));
    if (random.Below(4) == 0) damaged.resize(random.Below(damaged.size()));
    const absl::StatusOr<Hello> hello = DecodeHello(damaged);
    if (hello.ok() && hello->from.record) CHECK_FALSE(hello->from.record->founders.empty());
  }
}

TEST_CASE("configuration hashes differ in everything that founders must agree on") {
  const std::vector<Listed> list = {{.name = "a", .peer_urls = {"http://a:1"}},
                                    {.name = "b", .peer_urls = {"http://b:1"}}};
  const std::string hash = HashConfiguration("token", list);
  CHECK(hash == HashConfiguration("token", list));
  CHECK(hash != HashConfiguration("other", list));
  std::vector<Listed> changed = list;
  changed[1].name = "c";
  CHECK(hash != HashConfiguration("token", changed));
  changed = list;
  changed[0].peer_urls.push_back("http://a:2");
  CHECK(hash != HashConfiguration("token", changed));
  // The same text cut differently.
  CHECK(HashConfiguration("t", {{.name = "ab", .peer_urls = {"c"}}}) !=
        HashConfiguration("t", {{.name = "a", .peer_urls = {"bc"}}}));
  CHECK(HashToken("a") != HashToken("b"));
  CHECK(HashToken("a").find('a') != 0);
}

}  // namespace
}  // namespace kv::cluster

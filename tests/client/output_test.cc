// Against text that etcdctl 3.7.3 printed for the same responses.
#include "client/kvctl/output.h"

#include <google/protobuf/text_format.h>

#include <catch2/catch_test_macros.hpp>

namespace kv::kvctl {
namespace {

template <typename Message>
Message Read(const std::string& text) {
  Message message;
  REQUIRE(google::protobuf::TextFormat::ParseFromString(text, &message));
  return message;
}

constexpr const char* kHeader =
    "header { cluster_id: 16862577337347740201 member_id: 4463287720653545527 "
    "revision: 2 raft_term: 2 } ";

pb::RangeResponse OnePair() {
  return Read<pb::RangeResponse>(std::string(kHeader) +
                                 "kvs { key: 'a' create_revision: 2 mod_revision: 2 version: 1 "
                                 "value: 'x<y&\"\\303\\251' } count: 1");
}

pb::TxnResponse Txn() {
  return Read<pb::TxnResponse>(
      "header { cluster_id: 1 member_id: 2 revision: 5 raft_term: 2 } succeeded: true "
      "responses { response_put { header { revision: 5 } prev_kv { key: 'b' create_revision: 3 "
      "mod_revision: 4 version: 2 value: '1 2' } } } "
      "responses { response_range { header { revision: 5 } kvs { key: 'a' create_revision: 2 "
      "mod_revision: 2 version: 1 value: 'v' } count: 1 } } "
      "responses { response_delete_range { header { revision: 5 } } }");
}

pb::MemberListResponse Members() {
  return Read<pb::MemberListResponse>(
      "header { cluster_id: 16862577337347740201 member_id: 4463287720653545527 raft_term: 2 } "
      "members { ID: 3532531950545045781 name: 'm2' peerURLs: 'http://127.0.0.1:41280' "
      "clientURLs: 'http://127.0.0.1:41279' } "
      "members { ID: 17010963214147749224 peerURLs: 'http://127.0.0.1:41380' isLearner: true }");
}

TEST_CASE("a range is printed in every format") {
  CHECK(*Show(OnePair(), {.format = Format::kSimple}) == "a\nx<y&\"é\n");
  CHECK(*Show(OnePair(), {.format = Format::kSimple, .values_only = true}) == "x<y&\"é\n");
  CHECK(*Show(OnePair(), {.format = Format::kSimple, .hex = true}) ==
        "\\x61\n\\x78\\x3c\\x79\\x26\\x22\\xc3\\xa9\n");
  CHECK(*Show(OnePair(), {.format = Format::kJson}) ==
        "{\"header\":{\"cluster_id\":16862577337347740201,\"member_id\":4463287720653545527,"
        "\"revision\":2,\"raft_term\":2},\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":2,"
        "\"mod_revision\":2,\"version\":1,\"value\":\"eDx5JiLDqQ==\"}],\"count\":1}\n");
  CHECK(*Show(OnePair(), {.format = Format::kFields}) ==
        "\"ClusterID\" : 16862577337347740201\n\"MemberID\" : 4463287720653545527\n"
        "\"Revision\" : 2\n\"RaftTerm\" : 2\n\"Key\" : \"a\"\n\"CreateRevision\" : 2\n"
        "\"ModRevision\" : 2\n\"Version\" : 1\n\"Value\" : \"x<y&\\\"é\"\n\"Lease\" : 0\n"
        "\"More\" : false\n\"Count\" : 1\n");
  CHECK(*Show(OnePair(), {.format = Format::kProtobuf}) == OnePair().SerializeAsString());
  CHECK_FALSE(Show(OnePair(), {.format = Format::kTable}));
}

TEST_CASE("the news of a watch are printed in every format") {
  const auto news = Read<pb::WatchResponse>(
      "header { cluster_id: 1 member_id: 2 revision: 4 raft_term: 2 } watch_id: 3 "
      "events { kv { key: 'a' create_revision: 2 mod_revision: 3 version: 2 value: '2' } "
      "prev_kv { key: 'a' create_revision: 2 mod_revision: 2 version: 1 value: '1' } } "
      "events { type: DELETE kv { key: 'a' mod_revision: 4 } }");
  CHECK(*Show(news, {.format = Format::kSimple}) == "PUT\na\n1\na\n2\nDELETE\na\n\n");
  CHECK(
      *Show(news, {.format = Format::kJson}) ==
      "{\"Header\":{\"cluster_id\":1,\"member_id\":2,\"revision\":4,\"raft_term\":2},\"Events\":["
      "{\"kv\":{\"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":3,\"version\":2,"
      "\"value\":\"Mg==\"},\"prev_kv\":{\"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":2,"
      "\"version\":1,\"value\":\"MQ==\"}},{\"type\":1,\"kv\":{\"key\":\"YQ==\",\"mod_revision\":4}}"
      "],"
      "\"CompactRevision\":0,\"Canceled\":false,\"Created\":false,\"CancelReason\":\"\"}\n");
  const std::string fields = *Show(news, {.format = Format::kFields});
  CHECK(
      fields.starts_with("\"ClusterID\" : 1\n\"MemberID\" : 2\n\"Revision\" : 4\n"
                         "\"RaftTerm\" : 2\n\"Type\" : PUT\n\"PrevKey\" : \"a\"\n"));
  CHECK(fields.find("\"Type\" : DELETE\n\"Key\" : \"a\"\n") != std::string::npos);
  CHECK_FALSE(Show(news, {.format = Format::kTable}));

  const auto gone = Read<pb::WatchResponse>("header {} canceled: true compact_revision: 2");
  CHECK(*Show(gone, {.format = Format::kSimple}) == "");
  CHECK(*Show(gone, {.format = Format::kJson}) ==
        "{\"Header\":{},\"Events\":null,\"CompactRevision\":2,\"Canceled\":true,"
        "\"Created\":false,\"CancelReason\":\"\"}\n");
}

TEST_CASE("a transaction is printed in every format") {
  CHECK(*Show(Txn(), {.format = Format::kSimple}) == "SUCCESS\n\nOK\nb\n1 2\n\na\nv\n\n0\n");
  CHECK(*Show(Txn(), {.format = Format::kJson}) ==
        "{\"header\":{\"cluster_id\":1,\"member_id\":2,\"revision\":5,\"raft_term\":2},"
        "\"succeeded\":true,\"responses\":[{\"Response\":{\"response_put\":{\"header\":"
        "{\"revision\":5},\"prev_kv\":{\"key\":\"Yg==\",\"create_revision\":3,\"mod_revision\":4,"
        "\"version\":2,\"value\":\"MSAy\"}}}},{\"Response\":{\"response_range\":{\"header\":"
        "{\"revision\":5},\"kvs\":[{\"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":2,"
        "\"version\":1,\"value\":\"dg==\"}],\"count\":1}}},{\"Response\":"
        "{\"response_delete_range\":{\"header\":{\"revision\":5}}}}]}\n");
  std::string fields = *Show(Txn(), {.format = Format::kFields});
  CHECK(
      fields.starts_with("\"ClusterID\" : 1\n\"MemberID\" : 2\n\"Revision\" : 5\n"
                         "\"RaftTerm\" : 2\n\"Succeeded\" : true\n\"ClusterID\" : 0\n"));
  CHECK(fields.ends_with("\"RaftTerm\" : 0\n\"Deleted\" : 0\n"));
}

TEST_CASE("members are printed in every format") {
  CHECK(*Show(Members(), {.format = Format::kSimple}) ==
        "31061317c5f48915, started, m2, http://127.0.0.1:41280, http://127.0.0.1:41279, false\n"
        "ec1314ea52838568, unstarted, , http://127.0.0.1:41380, , true\n");
  CHECK(*Show(Members(), {.format = Format::kJson}) ==
        "{\"header\":{\"cluster_id\":16862577337347740201,\"member_id\":4463287720653545527,"
        "\"raft_term\":2},\"members\":[{\"ID\":3532531950545045781,\"name\":\"m2\",\"peerURLs\":"
        "[\"http://127.0.0.1:41280\"],\"clientURLs\":[\"http://127.0.0.1:41279\"]},"
        "{\"ID\":17010963214147749224,\"peerURLs\":[\"http://127.0.0.1:41380\"],"
        "\"isLearner\":true}]}\n");
  CHECK(*Show(Members(), {.format = Format::kJson, .hex = true}) ==
        "{\"header\":{\"cluster_id\":\"ea03e8bf1e2a1229\",\"member_id\":\"3df0c888cfeae037\","
        "\"raft_term\":2},\"members\":[{\"ID\":\"31061317c5f48915\",\"name\":\"m2\",\"peerURLs\":"
        "[\"http://127.0.0.1:41280\"],\"clientURLs\":[\"http://127.0.0.1:41279\"]},"
        "{\"ID\":\"ec1314ea52838568\",\"peerURLs\":[\"http://127.0.0.1:41380\"],"
        "\"isLearner\":true}]}\n");
  CHECK(*Show(Members(), {.format = Format::kTable}) ==
        "┌──────────────────┬───────────┬──────┬────────────────────────┬────────────────────────"
        "┬────────────┐\n"
        "│        ID        │  STATUS   │ NAME │       PEER ADDRS       │      CLIENT ADDRS      "
        "│ IS LEARNER │\n"
        "├──────────────────┼───────────┼──────┼────────────────────────┼────────────────────────"
        "┼────────────┤\n"
        "│ 31061317c5f48915 │   started │   m2 │ http://127.0.0.1:41280 │ http://127.0.0.1:41279 "
        "│      false │\n"
        "│ ec1314ea52838568 │ unstarted │      │ http://127.0.0.1:41380 │                        "
        "│       true │\n"
        "└──────────────────┴───────────┴──────┴────────────────────────┴────────────────────────"
        "┴────────────┘\n");
}

TEST_CASE("the status of endpoints is printed in every format but protobuf") {
  EndpointStatus item{
      .endpoint = "http://127.0.0.1:41279",
      .status = Read<pb::StatusResponse>(
          "header { cluster_id: 16862577337347740201 member_id: 3532531950545045781 revision: 2 "
          "raft_term: 2 } version: '3.7.3' dbSize: 20480 leader: 17010963214147749224 "
          "raftIndex: 15 raftTerm: 2 raftAppliedIndex: 15 dbSizeInUse: 16384 "
          "storageVersion: '3.7.0' dbSizeQuota: 2147483648 downgradeInfo {}")};
  CHECK(*Show(std::vector{item}, {.format = Format::kSimple}) ==
        "http://127.0.0.1:41279, 31061317c5f48915, 3.7.3, 3.7.0, 20 kB, 16 kB, 20%, 2.1 GB, "
        "false, false, 2, 15, 15, , , false\n");
  CHECK(*Show(std::vector{item}, {.format = Format::kJson}) ==
        "[{\"Endpoint\":\"http://127.0.0.1:41279\",\"Status\":{\"header\":{\"cluster_id\":"
        "16862577337347740201,\"member_id\":3532531950545045781,\"revision\":2,\"raft_term\":2},"
        "\"version\":\"3.7.3\",\"dbSize\":20480,\"leader\":17010963214147749224,\"raftIndex\":15,"
        "\"raftTerm\":2,\"raftAppliedIndex\":15,\"dbSizeInUse\":16384,\"storageVersion\":"
        "\"3.7.0\",\"dbSizeQuota\":2147483648,\"downgradeInfo\":{}}}]\n");
  CHECK(*Show(std::vector<EndpointStatus>(), {.format = Format::kJson}) == "null\n");
  CHECK(Show(std::vector{item}, {.format = Format::kFields})
            ->ends_with("\"Errors\" : []\n\"Endpoint\" : \"http://127.0.0.1:41279\"\n"
                        "\"DowngradeTargetVersion\" : \"\"\n\"DowngradeEnabled\" : false\n\n"));
  CHECK_FALSE(Show(std::vector{item}, {.format = Format::kProtobuf}));

  // A server that says nothing of its size.
  EndpointStatus silent;
  CHECK(Show(std::vector{silent}, {.format = Format::kSimple})->find("0 B, 0 B, 0%, 0 B") !=
        std::string::npos);
}

TEST_CASE("a table without rows is its head") {
  CHECK(*Show(std::vector<EndpointHash>(), {.format = Format::kTable}) ==
        "┌──────────┬──────┬───────────────┐\n"
        "│ ENDPOINT │ HASH │ HASH REVISION │\n"
        "└──────────┴──────┴───────────────┘\n");
}

TEST_CASE("health says how long it took, or what is wrong") {
  std::vector<EndpointHealth> list = {
      {.endpoint = "a:1", .healthy = true, .took = absl::Microseconds(4131), .error = ""},
      {.endpoint = "b:2", .healthy = false, .took = absl::Seconds(5), .error = "no answer"}};
  CHECK(*Show(list, {.format = Format::kSimple}) ==
        "a:1 is healthy: successfully committed proposal: took = 4.131ms\n");
  CHECK(*Show(list, {.format = Format::kJson}) ==
        "[{\"endpoint\":\"a:1\",\"health\":true,\"took\":\"4.131ms\"},{\"endpoint\":\"b:2\","
        "\"health\":false,\"took\":\"5s\",\"error\":\"no answer\"}]\n");
}

TEST_CASE("the status of a backup has etcdutl's columns") {
  const BackupStatus status{
      .hash = 0xe34b6f, .revision = 41, .keys = 7, .bytes = 20480, .version = "kvd-1"};
  CHECK(*Show(status, {.format = Format::kSimple}) == "e34b6f, 41, 7, 20 kB, kvd-1\n");
  CHECK(*Show(status, {.format = Format::kJson}) ==
        "{\"hash\":14895983,\"revision\":41,\"totalKey\":7,\"totalSize\":20480,"
        "\"version\":\"kvd-1\"}\n");
  CHECK(*Show(status, {.format = Format::kFields}) ==
        "\"Hash\" : 14895983\n\"Revision\" : 41\n\"Keys\" : 7\n\"Size\" : 20480\n"
        "\"Version\" : kvd-1\n");
  CHECK(Show(status, {.format = Format::kTable})->find("TOTAL KEYS") != std::string::npos);
  CHECK(!Show(status, {.format = Format::kProtobuf}));
}

TEST_CASE("strings are quoted as Go quotes them") {
  CHECK(GoQuoted("a\"b\\\n\t\x01\x7f") == "\"a\\\"b\\\\\\n\\t\\x01\\x7f\"");
  CHECK(GoQuoted("é😀\u2028\u00ad") == "\"é😀\\u2028\\u00ad\"");
  CHECK(GoQuoted("\xc3(\xff") == "\"\\xc3(\\xff\"");
  CHECK(GoJsonString("<a&b>\b\x01\u2028\xff") ==
        "\"\\u003ca\\u0026b\\u003e\\b\\u0001\\u2028\\ufffd\"");
}

TEST_CASE("durations and sizes are printed as Go prints them") {
  CHECK(GoDuration(absl::ZeroDuration()) == "0s");
  CHECK(GoDuration(absl::Nanoseconds(999)) == "999ns");
  CHECK(GoDuration(absl::Nanoseconds(1500)) == "1.5µs");
  CHECK(GoDuration(absl::Microseconds(10246758) / 1000) == "10.246758ms");
  CHECK(GoDuration(absl::Milliseconds(5001)) == "5.001s");
  CHECK(GoDuration(absl::Seconds(60)) == "1m0s");
  CHECK(GoDuration(absl::Minutes(90) + absl::Milliseconds(500)) == "1h30m0.5s");
  CHECK(HumanBytes(0) == "0 B");
  CHECK(HumanBytes(9) == "9 B");
  CHECK(HumanBytes(999) == "999 B");
  CHECK(HumanBytes(1000) == "1.0 kB");
  CHECK(HumanBytes(20480) == "20 kB");
  CHECK(HumanBytes(2147483648) == "2.1 GB");
}

TEST_CASE("leases are printed as etcdctl prints its own structs of them") {
  const std::string header =
      "header { cluster_id: 3586811377195397337 member_id: 7616583982444832909 revision: 3 "
      "raft_term: 2 } ";
  const std::string json_header =
      "{\"cluster_id\":3586811377195397337,\"member_id\":7616583982444832909,\"revision\":3,"
      "\"raft_term\":2,";
  const std::string field_header =
      "\"ClusterID\" : 3586811377195397337\n\"MemberID\" : 7616583982444832909\n"
      "\"Revision\" : 3\n\"RaftTerm\" : 2\n";
  const auto granted = Read<pb::LeaseGrantResponse>(header + "ID: 7533855897146613004 TTL: 100");
  CHECK(*Show(granted, {}) == "lease 688da205ba67dd0c granted with TTL(100s)\n");
  CHECK(*Show(granted, {.format = Format::kJson}) ==
        json_header + "\"ID\":7533855897146613004,\"TTL\":100,\"Error\":\"\"}\n");
  CHECK(*Show(granted, {.format = Format::kFields}) ==
        field_header + "\"ID\" : 7533855897146613004\n\"TTL\" : 100\n");
  CHECK_FALSE(Show(granted, {.format = Format::kTable}));

  LeaseTimeLeft left{.with_keys = true,
                     .response = Read<pb::LeaseTimeToLiveResponse>(
                         header + "ID: 7533855897146613012 TTL: 299 grantedTTL: 300 keys: 'foo' "
                                  "keys: 'fop'")};
  CHECK(*Show(left, {}) ==
        "lease 688da205ba67dd14 granted with TTL(300s), remaining(299s), attached keys([foo "
        "fop])\n");
  CHECK(*Show(left, {.format = Format::kJson}) ==
        json_header +
            "\"id\":7533855897146613012,\"ttl\":299,\"granted-ttl\":300,"
            "\"keys\":[\"Zm9v\",\"Zm9w\"]}\n");
  CHECK(*Show(left, {.format = Format::kFields}) ==
        field_header +
            "\"ID\" : 7533855897146613012\n\"TTL\" : 299\n\"GrantedTTL\" : 300\n"
            "\"Key\" : \"foo\"\n\"Key\" : \"fop\"\n");
  left = {.with_keys = false,
          .response = Read<pb::LeaseTimeToLiveResponse>(header + "ID: 123 TTL: -1")};
  CHECK(*Show(left, {}) == "lease 000000000000007b already expired\n");
  CHECK(*Show(left, {.format = Format::kJson}) ==
        json_header + "\"id\":123,\"ttl\":-1,\"granted-ttl\":0,\"keys\":null}\n");

  const auto list = Read<pb::LeaseLeasesResponse>(header + "leases { ID: 2 } leases { ID: 1 }");
  CHECK(*Show(list, {}) == "found 2 leases\n0000000000000002\n0000000000000001\n");
  CHECK(*Show(list, {.format = Format::kJson}) ==
        json_header + "\"leases\":[{\"id\":2},{\"id\":1}]}\n");
  CHECK(*Show(list, {.format = Format::kFields}) == field_header + "\"ID\" : 2\n\"ID\" : 1\n");

  const auto renewed = Read<pb::LeaseKeepAliveResponse>(header + "ID: 255 TTL: 300");
  CHECK(*Show(renewed, {}) == "lease 00000000000000ff keepalived with TTL(300)\n");
  CHECK(*Show(renewed, {.format = Format::kJson}) == json_header + "\"ID\":255,\"TTL\":300}\n");
  const RevokedLease revoked{.id = 255, .response = Read<pb::LeaseRevokeResponse>(header)};
  CHECK(*Show(revoked, {}) == "lease 00000000000000ff revoked\n");
  CHECK(*Show(revoked, {.format = Format::kFields}) == field_header);
  CHECK_FALSE(Show(revoked, {.format = Format::kProtobuf}));
  CHECK(Show(list, {.format = Format::kFields, .hex = true})
            ->ends_with("\"ID\" : 0000000000000002\n\"ID\" : 0000000000000001\n"));
}

TEST_CASE("base64 goes there and back, and nothing else is taken for it") {
  for (std::string bytes : {"", "a", "ab", "abc", "abcd", "\xff\xfe\xfd"}) {
    CHECK(FromBase64(Base64(bytes)) == bytes);
  }
  for (const char* text : {"a", "ab", "abc", "YQ=", "Y===", "YR==", "YQ==YQ==", "Y Q=", "YQ=\n"}) {
    INFO(text);
    CHECK_FALSE(FromBase64(text));
  }
}

TEST_CASE("columns are as wide as what the terminal shows") {
  CHECK(Width("abc") == 3);
  CHECK(Width("é") == 1);
  CHECK(Width("日本") == 4);
  CHECK(Width("\xff") == 1);
}

}  // namespace
}  // namespace kv::kvctl

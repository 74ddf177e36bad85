// The hand-written decoders read what protobuf's read.
#include "server/kv/command.h"

#include <catch2/catch_test_macros.hpp>
#include <string>

#include "proto/etcd/rpc.pb.h"
#include "tests/kv/machine_fixture.h"

namespace kv {

TEST_CASE("a command is read as it was written") {
  kvd::internal::Command command;
  command.set_kind(kvd::internal::TXN);
  command.set_min_version(3);
  command.set_auth_revision(UINT64_MAX);
  command.set_body("body");
  const std::string bytes = command.SerializeAsString();
  const auto view = ReadCommand(bytes);
  REQUIRE(view);
  CHECK(view->kind == kvd::internal::TXN);
  CHECK(view->min_version == 3);
  CHECK(view->auth_revision == UINT64_MAX);
  CHECK(view->body == "body");
  CHECK(view->body.data() >= bytes.data());
  CHECK(view->body.data() < bytes.data() + bytes.size());
}

TEST_CASE("a kind that a newer member wrote is still read") {
  // Field 1 = 99, an unknown field 9 of each wire type, field 4 twice: the last wins.
  const std::string bytes(
      "\x08\x63\x48\x01\x49zzzzzzzz\x4a\x02zz\x4dzzzz\x22\x01"
      "a\x22\x01"
      "b");
  const auto view = ReadCommand(bytes);
  REQUIRE(view);
  CHECK(view->kind == 99);
  CHECK(view->body == "b");
}

TEST_CASE("bytes at random are read as protobuf reads them, or not at all by both") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  Dice dice(seed);
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    etcdserverpb::PutRequest put;
    if (dice.OneIn(2)) put.set_key(std::string(dice.Below(300), 'k'));
    if (dice.OneIn(2)) put.set_value(std::string(dice.Below(5), 'v'));
    if (dice.OneIn(2)) put.set_lease(static_cast<int64_t>(dice.Next()));
    put.set_prev_kv(dice.OneIn(2));
    put.set_ignore_value(dice.OneIn(2));
    put.set_ignore_lease(dice.OneIn(2));
    std::string bytes = put.SerializeAsString();
    if (dice.OneIn(2)) bytes += bytes;
    for (uint64_t flips = dice.Below(3); flips > 0 && !bytes.empty(); --flips) {
      bytes[dice.Below(bytes.size())] = static_cast<char>(dice.Next());
    }
    if (dice.OneIn(5)) bytes.resize(dice.Below(bytes.size() + 1));
    const auto view = ReadPut(bytes);
    etcdserverpb::PutRequest parsed;
    const bool parses = parsed.ParseFromString(bytes);
    // Groups, which no writer of ours makes, are the one thing that protobuf skips and we refuse.
    if (!view) continue;
    ++read;
    REQUIRE(parses);
    REQUIRE(view->key == parsed.key());
    REQUIRE(view->value == parsed.value());
    REQUIRE(view->lease == parsed.lease());
    REQUIRE(view->prev_kv == parsed.prev_kv());
    REQUIRE(view->ignore_value == parsed.ignore_value());
    REQUIRE(view->ignore_lease == parsed.ignore_lease());
  }
  CHECK(read > 5000);
}

TEST_CASE("every put that protobuf writes is read") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  Dice dice(seed);
  for (int i = 0; i < 2000; ++i) {
    etcdserverpb::PutRequest put;
    put.set_key(std::string(1 + dice.Below(300), static_cast<char>(dice.Next())));
    put.set_value(std::string(dice.Below(5000), static_cast<char>(dice.Next())));
    put.set_lease(static_cast<int64_t>(dice.Next()));
    const std::string bytes = put.SerializeAsString();
    const auto view = ReadPut(bytes);
    REQUIRE(view);
    REQUIRE(view->key == put.key());
    REQUIRE(view->value == put.value());
    REQUIRE(view->lease == put.lease());
  }
}

}  // namespace kv

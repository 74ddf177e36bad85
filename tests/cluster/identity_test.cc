#include "server/cluster/identity.h"

#include <rocksdb/env.h>

#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <memory>
#include <vector>

#include "storage/files.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

FoundingRecord SomeRecord() {
  return {.cluster_id = 0x1234,
          .attempt = 3,
          .token_hash = "hash",
          .founders = {{.name = "a",
                        .node_uuid = MakeNodeUuid(1, 2),
                        .member_id = 7,
                        .peer_urls = {"http://a:2380", "http://10.0.0.1:2380"},
                        .client_urls = {"http://a:2379"}},
                       {.name = "b",
                        .node_uuid = MakeNodeUuid(3, 4),
                        .member_id = 9,
                        .peer_urls = {"http://b:2380"},
                        .client_urls = {}}}};
}

Identity Blank() {
  Identity identity;
  identity.node_uuid = MakeNodeUuid(1, 2);
  identity.boot_epoch = 5;
  return identity;
}

Identity Promised() {
  Identity identity = Blank();
  identity.state = State::kPromised;
  identity.name = "a";
  identity.record = SomeRecord();
  return identity;
}

Identity Member() {
  Identity identity = Promised();
  identity.state = State::kMember;
  identity.cluster_id = 0x1234;
  identity.member_id = 7;
  identity.data_laid = true;
  return identity;
}

std::vector<Identity> Samples() {
  Identity joined = Member();
  joined.record.reset();
  Identity removed = Member();
  removed.state = State::kRemoved;
  Identity stale = Member();
  stale.state = State::kStale;
  stale.next_uuid = MakeNodeUuid(5, 6);
  return {Blank(), Promised(), Member(), joined, removed, stale};
}

TEST_CASE("every identity reads back as it was written") {
  for (const Identity& identity : Samples()) {
    const absl::StatusOr<Identity> read = DecodeIdentity(EncodeIdentity(identity), "identity");
    INFO(Describe(read.status()));
    REQUIRE(read.ok());
    CHECK(*read == identity);
  }
}

TEST_CASE("an identity with any byte changed is refused") {
  for (const Identity& identity : Samples()) {
    const std::string bytes = EncodeIdentity(identity);
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (const int flip : {0x01, 0x80, 0xff}) {
        std::string damaged = bytes;
        damaged[i] = static_cast<char>(damaged[i] ^ flip);
        const absl::StatusOr<Identity> read = DecodeIdentity(damaged, "data/identity");
        INFO("byte " << i << " of " << bytes.size());
        REQUIRE_FALSE(read.ok());
        CHECK(Message(read.status()).find("data/identity") != std::string_view::npos);
      }
    }
  }
}

TEST_CASE("an identity cut off anywhere, or with bytes behind it, is refused") {
  const std::string bytes = EncodeIdentity(Member());
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK_FALSE(DecodeIdentity(std::string_view(bytes).substr(0, length), "identity").ok());
  }
  CHECK_FALSE(DecodeIdentity(bytes + "x", "identity").ok());
}

TEST_CASE("what cannot be is refused although its checksum holds") {
  const auto refused = [](Identity identity) {
    return !DecodeIdentity(EncodeIdentity(identity), "identity").ok();
  };
  Identity identity = Blank();
  identity.node_uuid = "short";
  CHECK(refused(identity));
  identity = Blank();
  identity.node_uuid[3] = 'G';
  CHECK(refused(identity));
  identity = Blank();
  identity.member_id = 1;
  CHECK(refused(identity));
  identity = Blank();
  identity.record = SomeRecord();
  CHECK(refused(identity));
  identity = Promised();
  identity.record.reset();
  CHECK(refused(identity));
  identity = Promised();
  identity.record->founders.clear();
  CHECK(refused(identity));
  identity = Member();
  identity.cluster_id = 0;
  CHECK(refused(identity));
  identity = Member();
  identity.member_id = 0;
  CHECK(refused(identity));
  identity = Member();
  identity.state = State::kHalted;
  CHECK(refused(identity));
  identity = Member();
  identity.next_uuid = MakeNodeUuid(5, 6);
  CHECK(refused(identity));
}

TEST_CASE("a newer format that this build may read is read, one that it may not is refused") {
  const absl::StatusOr<Record> record =
      DecodeRecord(EncodeIdentity(Member()), "identity", kIdentityFormat, "identity");
  REQUIRE(record.ok());
  Record newer = *record;
  newer.format = kIdentityFormat + 1;
  newer.body += "fields of the future";
  const absl::StatusOr<Identity> read = DecodeIdentity(EncodeRecord(newer), "identity");
  REQUIRE(read.ok());
  CHECK(*read == Member());
  newer.minimum_reader = kIdentityFormat + 1;
  CHECK_FALSE(DecodeIdentity(EncodeRecord(newer), "identity").ok());
}

TEST_CASE("an identity survives on a disk, and its absence is no error") {
  const std::unique_ptr<rocksdb::Env> env(rocksdb::NewMemEnv(rocksdb::Env::Default()));
  REQUIRE(env->CreateDirIfMissing("/data").ok());
  const std::string path = "/data/identity";
  absl::StatusOr<std::optional<Identity>> read = ReadIdentity(env.get(), path);
  REQUIRE(read.ok());
  CHECK_FALSE(read->has_value());
  for (const Identity& identity : Samples()) {
    REQUIRE(WriteIdentity(env.get(), path, identity).ok());
    read = ReadIdentity(env.get(), path);
    REQUIRE(read.ok());
    REQUIRE(read->has_value());
    CHECK(**read == identity);
  }
}

TEST_CASE("disks get different uuids of 32 hexadecimal digits") {
  CHECK(MakeNodeUuid(0, 0) == std::string(32, '0'));
  CHECK(MakeNodeUuid(1, 0xabc) == "00000000000000010000000000000abc");
  CHECK(MakeNodeUuid(1, 2) != MakeNodeUuid(2, 1));
}

}  // namespace
}  // namespace kv::cluster

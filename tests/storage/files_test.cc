#include "storage/files.h"

#include <unistd.h>
#include <catch2/catch_test_macros.hpp>

#include "storage/status.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

bool Says(const absl::Status& status, std::string_view words) {
  return Message(status).find(words) != std::string_view::npos;
}

const Record kIdentity{.kind = "identity", .format = 1, .minimum_reader = 1, .body = "who I am"};

TEST_CASE("a record comes back as it was written") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  const auto none = ReadRecord(disk.env(), "/d/identity", "identity", 1);
  REQUIRE(none.ok());
  CHECK_FALSE(none->has_value());
  REQUIRE(WriteRecord(disk.env(), "/d/identity", kIdentity).ok());
  const auto found = ReadRecord(disk.env(), "/d/identity", "identity", 1);
  REQUIRE(found.ok());
  CHECK((*found)->body == "who I am");
  CHECK((*found)->format == 1);
}

TEST_CASE("every flipped bit of a record is found, and the error names the file") {
  const std::string bytes = EncodeRecord(kIdentity);
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    const auto decoded = DecodeRecord(flipped, "identity", 1, "/data/identity");
    REQUIRE_FALSE(decoded.ok());
    CHECK(Says(decoded.status(), "/data/identity"));
  }
}

TEST_CASE("every shortened record is refused") {
  const std::string bytes = EncodeRecord(kIdentity);
  for (size_t length = 0; length < bytes.size(); ++length) {
    CHECK_FALSE(DecodeRecord(bytes.substr(0, length), "identity", 1, "f").ok());
  }
}

TEST_CASE("a record that needs a newer reader is refused with both formats") {
  Record newer = kIdentity;
  newer.format = 7;
  newer.minimum_reader = 3;
  const auto refused = DecodeRecord(EncodeRecord(newer), "identity", 2, "/data/identity");
  REQUIRE(refused.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Says(refused.status(), "format 7"));
  CHECK(Says(refused.status(), "up to 2"));
  CHECK(DecodeRecord(EncodeRecord(newer), "identity", 3, "/data/identity").ok());
}

TEST_CASE("a record of another kind is refused with both kinds") {
  const auto refused = DecodeRecord(EncodeRecord(kIdentity), "kvd floor", 1, "/data/FLOOR");
  REQUIRE_FALSE(refused.ok());
  CHECK(Says(refused.status(), "identity"));
  CHECK(Says(refused.status(), "kvd floor"));
}

TEST_CASE("a file replaced atomically is the old one or the new one after any power loss") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", "old").ok());
  const DiskImage before = disk.image();
  const size_t begin = disk.operations();
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", "new").ok());
  const std::vector<DiskOperation> trace = disk.trace();
  DiskImage image = before;
  for (size_t i = begin; i < trace.size(); ++i) {
    image.Apply(trace[i]);
    for (const PowerLoss policy : kPowerLosses) {
      for (uint64_t seed = 0; seed < 8; ++seed) {
        const DiskImage after = image.AfterPowerLoss(policy, seed);
        const auto inode = after.Find("/d/f");
        REQUIRE(inode.has_value());
        const std::string& bytes = after.file(*inode).bytes;
        CHECK((bytes == "old" || bytes == "new"));
        if (i + 1 == trace.size()) CHECK(bytes == "new");
      }
    }
  }
}

TEST_CASE("what ReadRecord returned is still there after a power loss") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  // The process that wrote it died between the rename and the directory's sync.
  disk.FailAt(disk.operations() + 4, FaultDisk::Fault::kCut, FaultDisk::Repeat::kOnce);
  REQUIRE_FALSE(WriteRecord(disk.env(), "/d/identity", kIdentity).ok());
  disk.Heal();
  REQUIRE(disk.image().Find("/d/identity").has_value());
  REQUIRE_FALSE(
      disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1).Find("/d/identity").has_value());
  REQUIRE(ReadRecord(disk.env(), "/d/identity", "identity", 1).value().has_value());
  CHECK(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1).Find("/d/identity").has_value());
}

TEST_CASE("directories are made, listed in order and removed with all that is in them") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(CreateDirectory(disk.env(), "/d/sub").ok());
  REQUIRE(CreateDirectory(disk.env(), "/d/sub").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/sub/b", "").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/sub/a", "").ok());
  CHECK(ListDirectory(disk.env(), "/d/sub").value() == std::vector<std::string>{"a", "b"});
  CHECK_FALSE(ListDirectory(disk.env(), "/none").ok());
  REQUIRE(RemoveDirectory(disk.env(), "/d").ok());
  CHECK_FALSE(FileExists(disk.env(), "/d").value());
  CHECK_FALSE(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1).Find("/d").has_value());
  CHECK(RemoveDirectory(disk.env(), "/d").ok());
  CHECK(RemoveFile(disk.env(), "/none").ok());
}

TEST_CASE("a file above the limit is not read") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", std::string(11, 'x')).ok());
  CHECK(ReadFile(disk.env(), "/d/f", 11).value() == std::string(11, 'x'));
  const auto refused = ReadFile(disk.env(), "/d/f", 10);
  REQUIRE_FALSE(refused.ok());
  CHECK(Says(refused.status(), "the limit is 10"));
}

TEST_CASE("a reader past the end says so and gives zeros") {
  std::string bytes;
  PutU8(bytes, 7);
  PutU32(bytes, 1u << 31);
  PutU64(bytes, ~uint64_t{0});
  PutBytes(bytes, "abc");
  ByteReader reader(bytes);
  CHECK(reader.U8() == 7);
  CHECK(reader.U32() == 1u << 31);
  CHECK(reader.U64() == ~uint64_t{0});
  CHECK(reader.Bytes() == "abc");
  CHECK(reader.AtEnd());
  CHECK(reader.U8() == 0);
  CHECK_FALSE(reader.ok());
  std::string lying;
  PutU32(lying, 1000);
  ByteReader cut(lying);
  CHECK(cut.Bytes().empty());
  CHECK_FALSE(cut.ok());
}

TEST_CASE("the files work on the real file system too") {
  const std::string root = "/tmp/kvd_files_test." + std::to_string(getpid());
  rocksdb::Env* env = rocksdb::Env::Default();
  REQUIRE(CreateDirectory(env, root).ok());
  REQUIRE(WriteRecord(env, root + "/identity", kIdentity).ok());
  CHECK(ReadRecord(env, root + "/identity", "identity", 1).value()->body == "who I am");
  CHECK(SyncFile(env, root + "/identity").ok());
  CHECK_FALSE(ReadFile(env, root + "/none").value().has_value());
  CHECK(RemoveDirectory(env, root).ok());
  CHECK_FALSE(FileExists(env, root).value());
}

}  // namespace
}  // namespace kv::test

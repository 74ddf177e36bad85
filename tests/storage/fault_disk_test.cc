#include "tests/storage/fault_disk.h"

#include <catch2/catch_test_macros.hpp>

#include "storage/files.h"
#include "storage/status.h"

namespace kv::test {
namespace {

using rocksdb::EnvOptions;

std::string Content(const DiskImage& image, const std::string& path) {
  const std::optional<InodeId> inode = image.Find(path);
  return inode ? image.file(*inode).bytes : "(none)";
}

TEST_CASE("power loss takes the bytes and the names that nobody synced") {
  FaultDisk disk;
  rocksdb::Env* env = disk.env();
  REQUIRE(CreateDirectory(env, "/d").ok());
  std::unique_ptr<rocksdb::WritableFile> file;
  REQUIRE(env->NewWritableFile("/d/f", &file, EnvOptions()).ok());
  REQUIRE(file->Append("synced").ok());
  REQUIRE(file->Sync().ok());
  REQUIRE(file->Append(" pending").ok());

  CHECK(Content(disk.image(), "/d/f") == "synced pending");
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1), "/d/f") == "(none)");
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kEmptyFiles, 1), "/d/f") == "synced");
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kLostNames, 1), "/d/f") == "(none)");

  REQUIRE(SyncDirectory(env, "/d").ok());
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1), "/d/f") == "synced");
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kLostNames, 1), "/d/f") == "synced pending");
}

TEST_CASE("a process that dies leaves its bytes as pending as they were") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", "old").ok());
  std::unique_ptr<rocksdb::RandomRWFile> file;
  REQUIRE(disk.env()->NewRandomRWFile("/d/f", &file, EnvOptions()).ok());
  REQUIRE(file->Write(0, "new").ok());

  const DiskImage after = disk.image().AfterPowerLoss(PowerLoss::kProcessOnly, 1);
  CHECK(Content(after, "/d/f") == "new");
  CHECK(Content(after.AfterPowerLoss(PowerLoss::kDropAll, 1), "/d/f") == "old");
}

TEST_CASE("an unsynced rename is done or not done, never half done") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/a").ok());
  REQUIRE(CreateDirectory(disk.env(), "/b").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/a/f", "x").ok());
  REQUIRE(disk.env()->RenameFile("/a/f", "/b/f").ok());
  bool moved = false;
  bool stayed = false;
  for (uint64_t seed = 0; seed < 32; ++seed) {
    const DiskImage after = disk.image().AfterPowerLoss(PowerLoss::kScatter, seed);
    const bool in_a = after.Find("/a/f").has_value();
    const bool in_b = after.Find("/b/f").has_value();
    CHECK(in_a != in_b);
    moved = moved || in_b;
    stayed = stayed || in_a;
  }
  CHECK(moved);
  CHECK(stayed);
}

TEST_CASE("a torn write leaves whole sectors, in any order") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", std::string(4096, 'o')).ok());
  std::unique_ptr<rocksdb::RandomRWFile> file;
  REQUIRE(disk.env()->NewRandomRWFile("/d/f", &file, EnvOptions()).ok());
  REQUIRE(file->Write(0, std::string(4096, 'n')).ok());
  bool gap = false;
  for (uint64_t seed = 0; seed < 64; ++seed) {
    const std::string bytes = Content(disk.image().AfterPowerLoss(PowerLoss::kTorn, seed), "/d/f");
    REQUIRE(bytes.size() == 4096);
    for (size_t sector = 0; sector < 8; ++sector) {
      const std::string part = bytes.substr(sector * 512, 512);
      CHECK((part == std::string(512, 'o') || part == std::string(512, 'n')));
      if (sector > 0 && part[0] == 'n' && bytes[sector * 512 - 1] == 'o') gap = true;
    }
  }
  CHECK(gap);
}

TEST_CASE("the trace of a disk, replayed, gives the same disk") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  REQUIRE(WriteFileAtomically(disk.env(), "/d/f", "content").ok());
  REQUIRE(disk.env()->LinkFile("/d/f", "/d/g").ok());
  REQUIRE(disk.env()->DeleteFile("/d/f").ok());
  DiskImage replayed;
  for (const DiskOperation& operation : disk.trace()) replayed.Apply(operation);
  CHECK(replayed.Files() == disk.image().Files());
  CHECK(Content(replayed, "/d/g") == "content");
}

TEST_CASE("a failed sync loses the bytes although reads and later syncs look well") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  std::unique_ptr<rocksdb::WritableFile> file;
  REQUIRE(disk.env()->NewWritableFile("/d/f", &file, EnvOptions()).ok());
  REQUIRE(SyncDirectory(disk.env(), "/d").ok());
  REQUIRE(file->Append("gone").ok());
  disk.FailAt(disk.operations(), FaultDisk::Fault::kIoError, FaultDisk::Repeat::kOnce);
  CHECK_FALSE(file->Sync().ok());
  CHECK(disk.failed());
  CHECK(file->Sync().ok());
  CHECK(Content(disk.image(), "/d/f") == "gone");
  CHECK(Content(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1), "/d/f").empty());
}

TEST_CASE("after a cut nothing works until the power is back") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/d").ok());
  disk.FailAt(disk.operations() + 2, FaultDisk::Fault::kCut, FaultDisk::Repeat::kOnce);
  CHECK_FALSE(WriteFileAtomically(disk.env(), "/d/f", "x").ok());
  CHECK_FALSE(ReadFile(disk.env(), "/d/f").ok());
  disk.Heal();
  CHECK(WriteFileAtomically(disk.env(), "/d/f", "x").ok());
}

}  // namespace
}  // namespace kv::test

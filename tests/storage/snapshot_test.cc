#include "storage/snapshot.h"

#include <catch2/catch_test_macros.hpp>

#include "storage/database.h"
#include "storage/status.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

bool Says(const absl::Status& status, std::string_view words) {
  INFO(Describe(status));
  return Message(status).find(words) != std::string_view::npos;
}

std::unique_ptr<Database> Open(FaultDisk& disk, const std::string& path) {
  DatabaseOptions options;
  options.write_ahead_log = false;
  options.memtable_bytes = size_t{1} << 20;
  options.background_jobs = 1;
  auto opened = OpenRocksDatabase(disk.env(), path, options);
  INFO(Describe(opened.status()));
  REQUIRE(opened.ok());
  return *std::move(opened);
}

// A sealed snapshot of a small database in /outgoing/s.
Snapshot Make(FaultDisk& disk) {
  REQUIRE(CreateDirectory(disk.env(), "/outgoing").ok());
  const std::unique_ptr<Database> database = Open(disk, "/state-1");
  WriteSet writes;
  for (int i = 0; i < 100; ++i) writes.Put(fmt::format("key{}", i), std::string(100, 'v'));
  REQUIRE(database->Write(writes, Sync::kNo).ok());
  REQUIRE(database->Checkpoint("/outgoing/s").ok());
  auto sealed = SealSnapshot(disk.env(), "/outgoing/s", {.index = 7, .term = 3}, "members");
  INFO(Describe(sealed.status()));
  REQUIRE(sealed.ok());
  return *std::move(sealed);
}

TEST_CASE("a sealed snapshot verifies, also after a power loss") {
  FaultDisk disk;
  const Snapshot sealed = Make(disk);
  CHECK(sealed.manifest.TotalBytes() > 0);
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  const auto verified = VerifySnapshot(after.env(), "/outgoing/s");
  INFO(Describe(verified.status()));
  REQUIRE(verified.ok());
  CHECK(verified->manifest.position == Position{.index = 7, .term = 3});
  CHECK(verified->manifest.members == "members");
  CHECK(EncodeManifest(verified->manifest) == EncodeManifest(sealed.manifest));
}

TEST_CASE("any flipped, missing or additional byte of a snapshot is found") {
  FaultDisk disk;
  const Snapshot sealed = Make(disk);
  const DiskImage image = disk.image();
  for (const std::string& path : image.Files()) {
    if (!path.starts_with("/outgoing/s/")) continue;
    const InodeId inode = image.Find(path).value();
    const uint64_t size = image.file(inode).bytes.size();
    for (uint64_t offset = 0; offset < size; offset += 97) {
      DiskImage damaged = image;
      damaged.FlipBit(inode, offset, static_cast<int>(offset % 8));
      FaultDisk with(damaged);
      CHECK_FALSE(VerifySnapshot(with.env(), "/outgoing/s").ok());
    }
    FaultDisk without(image);
    REQUIRE(without.env()->DeleteFile(path).ok());
    CHECK_FALSE(VerifySnapshot(without.env(), "/outgoing/s").ok());
  }
  FaultDisk more(image);
  REQUIRE(WriteFileAtomically(more.env(), "/outgoing/s/stranger", "x").ok());
  CHECK(Says(VerifySnapshot(more.env(), "/outgoing/s").status(), "other files"));
}

TEST_CASE("a snapshot without a manifest was never finished") {
  FaultDisk disk;
  REQUIRE(CreateDirectory(disk.env(), "/s").ok());
  CHECK(VerifySnapshot(disk.env(), "/s").status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("a placed snapshot is a database, and any crash leaves one of the two places whole") {
  FaultDisk disk;
  const Snapshot sealed = Make(disk);
  DiskImage image = disk.image();
  const size_t begin = disk.operations();
  REQUIRE(PlaceSnapshot(disk.env(), sealed, "/state-2").ok());
  CHECK_FALSE(disk.image().Find("/outgoing/s").has_value());
  const std::vector<DiskOperation> trace = disk.trace();
  for (size_t i = begin; i < trace.size(); ++i) {
    image.Apply(trace[i]);
    for (const PowerLoss policy : kPowerLosses) {
      FaultDisk after(image.AfterPowerLoss(policy, i));
      const bool moved = after.image().Find("/state-2").has_value();
      if (i + 1 == trace.size()) CHECK(moved);
      if (moved) {
        CHECK(Open(after, "/state-2")->Get("key42").value() == std::string(100, 'v'));
      } else {
        CHECK(VerifySnapshot(after.env(), "/outgoing/s").ok());
      }
    }
  }
}

TEST_CASE("a manifest survives its encoding and refuses what cannot be in a snapshot") {
  SnapshotManifest manifest;
  manifest.position = {.index = 1, .term = 1};
  manifest.files = {{.name = "000001.sst", .bytes = 1, .crc32c = 2},
                    {.name = "CURRENT", .bytes = 3, .crc32c = 4}};
  CHECK(DecodeManifest(EncodeManifest(manifest)).ok());
  for (const std::string name :
       {"", ".", "..", "../x", "a/b", "/etc/passwd", "MANIFEST.kvd", "a b", ".hidden"}) {
    SnapshotManifest wrong = manifest;
    wrong.files = {{.name = name, .bytes = 1, .crc32c = 2}};
    CHECK_FALSE(DecodeManifest(EncodeManifest(wrong)).ok());
  }
  SnapshotManifest twice = manifest;
  twice.files = {manifest.files[0], manifest.files[0]};
  CHECK_FALSE(DecodeManifest(EncodeManifest(twice)).ok());
  SnapshotManifest newer = manifest;
  newer.format = 9;
  newer.minimum_reader = 9;
  const auto refused = DecodeManifest(EncodeManifest(newer));
  CHECK(refused.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Says(refused.status(), "format 9"));
}

TEST_CASE("a manifest that claims a billion files costs no memory") {
  std::string body;
  PutU64(body, 1);
  PutU64(body, 1);
  PutBytes(body, "");
  PutU32(body, 1'000'000'000);
  const std::string bytes =
      EncodeRecord({.kind = "kvd snapshot", .format = 1, .minimum_reader = 1, .body = body});
  CHECK(Says(DecodeManifest(bytes).status(), "cut off"));
}

}  // namespace
}  // namespace kv::test

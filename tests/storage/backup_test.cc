#include "storage/backup.h"

#include <rocksdb/env.h>

#include <catch2/catch_test_macros.hpp>
#include <iostream>

#include "storage/database.h"
#include "storage/files.h"
#include "storage/restore.h"
#include "storage/status.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr uint64_t kClusterId = 0xc1;

bool Says(const absl::Status& status, std::string_view words) {
  INFO(Describe(status));
  return Message(status).find(words) != std::string_view::npos;
}

void Must(const absl::Status& status) {
  INFO(Describe(status));
  REQUIRE(status.ok());
}

// A sealed snapshot of a small database in /snapshot.
Snapshot Make(FaultDisk& disk) {
  DatabaseOptions options;
  options.write_ahead_log = false;
  options.memtable_bytes = size_t{1} << 20;
  options.background_jobs = 1;
  auto database = OpenRocksDatabase(disk.env(), "/state", options);
  Must(database.status());
  WriteSet writes;
  for (int i = 0; i < 100; ++i) writes.Put(fmt::format("key{}", i), std::string(30, 'v'));
  Must((*database)->Write(writes, Sync::kNo));
  Must((*database)->Checkpoint("/snapshot"));
  auto sealed = SealSnapshot(disk.env(), "/snapshot", {.index = 7, .term = 3}, "members");
  Must(sealed.status());
  return *std::move(sealed);
}

std::string MakeBackup(FaultDisk& disk) {
  Snapshot snapshot = Make(disk);
  BackupHeader header{.cluster_id = kClusterId,
                      .machine_version = 2,
                      .revision = 41,
                      .compacted = 12,
                      .keys = 100,
                      .manifest = snapshot.manifest};
  BackupSource source(disk.env(), std::move(snapshot), std::move(header));
  std::string bytes;
  uint64_t left = UINT64_MAX;
  while (true) {
    const auto piece = source.Next();
    Must(piece.status());
    if (piece->bytes.empty()) return bytes;
    CHECK(piece->bytes.size() <= kSnapshotPieceBytes);
    CHECK(piece->left <= left);
    left = piece->left;
    bytes += piece->bytes;
  }
}

void WriteFile(FaultDisk& disk, const std::string& path, const std::string& bytes) {
  Must(WriteFileAtomically(disk.env(), path, bytes));
}

TEST_CASE("a backup holds its snapshot, and ends with the sum that etcd's tools look for") {
  FaultDisk disk;
  const std::string bytes = MakeBackup(disk);
  CHECK(bytes.size() % 512 == 32);
  Sha256 sum;
  sum.Append(std::string_view(bytes).substr(0, bytes.size() - 32));
  CHECK(sum.Finish() == bytes.substr(bytes.size() - 32));
  // The copy that it was read from is gone.
  CHECK(!FileExists(disk.env(), "/snapshot").value());

  WriteFile(disk, "/b", bytes);
  const auto backup = ReadBackup(disk.env(), "/b", SumCheck::kYes, "/out");
  Must(backup.status());
  CHECK(backup->bytes == bytes.size() - 32);
  CHECK(backup->header.cluster_id == kClusterId);
  CHECK(backup->header.machine_version == 2);
  CHECK(backup->header.revision == 41);
  CHECK(backup->header.compacted == 12);
  CHECK(backup->header.keys == 100);

  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  const auto verified = VerifySnapshot(after.env(), "/out");
  Must(verified.status());
  CHECK(EncodeManifest(verified->manifest) == EncodeManifest(backup->header.manifest));
  DatabaseOptions options;
  options.write_ahead_log = false;
  options.create_if_missing = false;
  auto database = OpenRocksDatabase(after.env(), "/out", options);
  Must(database.status());
  CHECK((*database)->Get("key77").value() == std::string(30, 'v'));
}

TEST_CASE("whatever byte of a backup is another, it is refused and nothing is written") {
  FaultDisk disk;
  const std::string bytes = MakeBackup(disk);
  for (size_t at = 0; at < bytes.size(); at += 1 + at / 97) {
    CAPTURE(at);
    std::string damaged = bytes;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    WriteFile(disk, "/b", damaged);
    const auto restored = PrepareRestore(disk.env(), "/b", SumCheck::kYes, "/data", {});
    REQUIRE(!restored.ok());
    CHECK(Says(restored.status(), at < 10 ? "not a backup of kvd" : "is damaged"));
    CHECK(!FileExists(disk.env(), "/data").value());
  }
}

TEST_CASE("without its sum a backup is still held to the checksums of its files") {
  FaultDisk disk;
  std::string bytes = MakeBackup(disk);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  WriteFile(disk, "/b", bytes);
  CHECK(Says(ReadBackup(disk.env(), "/b", SumCheck::kYes).status(), "SHA-256"));
  CHECK(ReadBackup(disk.env(), "/b", SumCheck::kNo).ok());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  WriteFile(disk, "/b", bytes);
  CHECK(Says(ReadBackup(disk.env(), "/b", SumCheck::kNo).status(), "is damaged"));
}

TEST_CASE("what is cut, empty, longer or something else is no backup") {
  FaultDisk disk;
  const std::string bytes = MakeBackup(disk);
  const auto refused = [&](const std::string& content, std::string_view words) {
    CAPTURE(content.size());
    WriteFile(disk, "/b", content);
    const absl::Status status = ReadBackup(disk.env(), "/b", SumCheck::kYes).status();
    CHECK(!status.ok());
    CHECK(Says(status, words));
  };
  refused("", "it is empty");
  for (size_t size = 1; size < bytes.size(); size += 1 + size / 31) {
    refused(bytes.substr(0, size), size % 512 == 32 ? "" : "no backup with its sum has that size");
  }
  refused(bytes.substr(0, bytes.size() - 512), "is damaged");
  refused(bytes.substr(0, bytes.size() - 32) + std::string(512, '\0') + bytes.substr(0, 32),
          "is damaged");
  refused(std::string(2048 + 32, 'x'), "not a backup of kvd");
  CHECK(Says(ReadBackup(disk.env(), "/nowhere", SumCheck::kYes).status(), "/nowhere"));
}

TEST_CASE("a file of a backup appears whole, with the right sum, or not at all") {
  FaultDisk disk;
  const std::string bytes = MakeBackup(disk);
  const auto save = [&](const std::string& path, const std::string& content, size_t step) {
    auto file = BackupFile::Create(disk.env(), path);
    Must(file.status());
    for (size_t at = 0; at < content.size(); at += step)
      Must(file->Append(content.substr(at, step)));
    return file->Finish();
  };
  // The sum is found however the bytes come.
  for (const size_t step :
       {size_t{1}, size_t{7}, size_t{31}, size_t{32}, size_t{33}, size_t{4096}}) {
    CAPTURE(step);
    Must(save("/saved", bytes, step));
    CHECK(ReadFile(disk.env(), "/saved").value() == bytes);
  }
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(ReadBackup(after.env(), "/saved", SumCheck::kYes).ok());

  std::string flipped = bytes;
  flipped[bytes.size() / 3] = static_cast<char>(flipped[bytes.size() / 3] ^ 4);
  CHECK(Says(save("/bad", flipped, 1000), "damaged on its way"));
  CHECK(Says(save("/bad", bytes.substr(0, bytes.size() - 1), 1000), "cut off"));
  CHECK(Says(save("/bad", "", 1), "cut off"));
  CHECK(!FileExists(disk.env(), "/bad").value());
  CHECK(!FileExists(disk.env(), "/bad.part").value());
}

TEST_CASE("a backup is restored into an empty directory only") {
  FaultDisk disk;
  WriteFile(disk, "/b", MakeBackup(disk));
  const auto restore = [&](uint64_t bump) {
    return PrepareRestore(disk.env(), "/b", SumCheck::kYes, "/deep/data",
                          {.bump = bump, .mark_compacted = bump > 0})
        .status();
  };
  CHECK(Says(restore(uint64_t{1} << 62), "cannot be raised"));
  CHECK(!FileExists(disk.env(), "/deep").value());
  Must(restore(1000));
  CHECK(Says(restore(1000), "is not empty (it holds restore)"));
  const auto found = FindRestore(disk.env(), "/deep/data");
  Must(found.status());
  REQUIRE(found->has_value());
  CHECK((*found)->order.bump == 1000);
  CHECK((*found)->order.mark_compacted);
  CHECK((*found)->order.revision == 41);
  CHECK((*found)->order.cluster_id == kClusterId);
  CHECK(VerifySnapshot(disk.env(), (*found)->snapshot).ok());
  Must(RemoveRestore(disk.env(), "/deep/data"));
  CHECK(!FindRestore(disk.env(), "/deep/data")->has_value());
}

TEST_CASE("wherever preparing a restore is cut, it is whole, or to be repeated") {
  const size_t stride = CrashStride(11);
  const uint64_t seed = CrashSeed() + 500;
  FaultDisk disk;
  WriteFile(disk, "/b", MakeBackup(disk));
  Must(SyncDirectory(disk.env(), "/"));
  const size_t before = disk.operations();
  Must(
      PrepareRestore(disk.env(), "/b", SumCheck::kYes, "/data", {.bump = 5, .mark_compacted = true})
          .status());
  const std::vector<DiskOperation> trace = disk.trace();
  const Judge judge = [&](FaultDisk& after, size_t operations) -> Verdict {
    if (operations < before) return {};
    const auto found = FindRestore(after.env(), "/data");
    if (found.ok() && found->has_value()) {
      const absl::Status whole = VerifySnapshot(after.env(), (*found)->snapshot).status();
      return {.failure = whole.ok() ? "" : Describe(whole), .found = "whole"};
    }
    if (operations == trace.size())
      return {.failure = "an acknowledged restore is gone", .found = ""};
    if (!found.ok() && !Says(found.status(), "did not come to its end")) {
      return {.failure = Describe(found.status()), .found = ""};
    }
    const absl::Status repeated = PrepareRestore(after.env(), "/b", SumCheck::kYes, "/data",
                                                 {.bump = 5, .mark_compacted = true})
                                      .status();
    return {.failure = repeated.ok() ? "" : Describe(repeated), .found = "whole"};
  };
  const CutCount count = CutEverywhere("restore", trace, seed, stride, judge);
  CHECK(count.cuts > 50);
  std::cout << fmt::format("restore: {} operations, {} cuts, {} of them twice\n", trace.size(),
                           count.cuts, count.nested);
}

}  // namespace
}  // namespace kv::test

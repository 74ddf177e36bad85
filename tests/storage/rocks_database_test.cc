#include <unistd.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <atomic>
#include <thread>

#include "storage/database.h"
#include "storage/files.h"
#include "storage/status.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

bool Says(const absl::Status& status, std::string_view words) {
  return Message(status).find(words) != std::string_view::npos;
}

DatabaseOptions Options(bool write_ahead_log) {
  DatabaseOptions options;
  options.write_ahead_log = write_ahead_log;
  options.memtable_bytes = size_t{1} << 20;
  options.background_jobs = 1;
  return options;
}

std::unique_ptr<Database> Open(FaultDisk& disk, bool write_ahead_log,
                               const std::string& path = "/db") {
  auto opened = OpenRocksDatabase(disk.env(), path, Options(write_ahead_log));
  INFO(Describe(opened.status()));
  REQUIRE(opened.ok());
  return *std::move(opened);
}

void Put(Database& database, const std::string& key, const std::string& value,
         Sync sync = Sync::kNo) {
  WriteSet writes;
  writes.Put(key, value);
  REQUIRE(database.Write(writes, sync).ok());
}

std::string Value(const absl::StatusOr<std::optional<std::string>>& found) {
  REQUIRE(found.ok());
  return found->value_or("(none)");
}

std::string Walk(const DatabaseView& view, std::string_view lower, std::string_view upper) {
  std::string keys;
  const auto cursor = view.NewCursor(lower, upper);
  for (cursor->Seek(lower); cursor->Valid(); cursor->Next()) keys += std::string(cursor->key());
  REQUIRE(cursor->status().ok());
  return keys;
}

TEST_CASE("later changes of a write set win over earlier ones") {
  FaultDisk disk;
  const auto database = Open(disk, true);
  WriteSet writes;
  writes.Put("a", "1");
  writes.Put("a", "2");
  writes.Put("b", "1");
  writes.Delete("b");
  writes.Put("c1", "1");
  writes.Put("c2", "1");
  writes.DeleteRange("c", "d");
  writes.Put("c2", "2");
  REQUIRE(database->Write(writes, Sync::kYes).ok());
  CHECK(Value(database->Get("a")) == "2");
  CHECK(Value(database->Get("b")) == "(none)");
  CHECK(Value(database->Get("c1")) == "(none)");
  CHECK(Value(database->Get("c2")) == "2");
}

TEST_CASE("a view shows the moment it was made, and its cursor outlives it and the database") {
  FaultDisk disk;
  auto database = Open(disk, false);
  Put(*database, "a", "old");
  Put(*database, "b", "old");
  std::shared_ptr<const DatabaseView> view = database->View();
  Put(*database, "a", "new");
  WriteSet writes;
  writes.Delete("b");
  writes.Put("c", "new");
  REQUIRE(database->Write(writes, Sync::kNo).ok());
  CHECK(Value(view->Get("a")) == "old");
  CHECK(Value(view->Get("c")) == "(none)");
  CHECK(Value(database->Get("a")) == "new");
  const std::unique_ptr<Cursor> cursor = view->NewCursor("", "");
  view.reset();
  REQUIRE(database->Flush().ok());
  database.reset();
  std::string keys;
  for (cursor->Seek(""); cursor->Valid(); cursor->Next()) {
    keys += std::string(cursor->key()) + std::string(cursor->value());
  }
  CHECK(cursor->status().ok());
  CHECK(keys == "aoldbold");
}

TEST_CASE("a cursor stays between its bounds in both directions") {
  FaultDisk disk;
  const auto database = Open(disk, false);
  for (const char* key : {"a", "b", "c", "d", "e"}) Put(*database, key, key);
  REQUIRE(database->Flush().ok());
  for (const char* key : {"bb", "dd"}) Put(*database, key, key);
  const auto view = database->View();
  CHECK(Walk(*view, "b", "d") == "bbbc");
  CHECK(Walk(*view, "b", "") == "bbbcddde");
  CHECK(Walk(*view, "", "b") == "a");
  const auto cursor = view->NewCursor("b", "d");
  std::string backwards;
  for (cursor->SeekForPrev("z"); cursor->Valid(); cursor->Prev()) {
    backwards += std::string(cursor->key()) + ",";
  }
  CHECK(backwards == "c,bb,b,");
}

TEST_CASE("keys are ordered bytewise, high and zero bytes included") {
  FaultDisk disk;
  const auto database = Open(disk, false);
  const std::vector<std::string> keys = {
      std::string("\0", 1),    std::string("\0\0", 2), "A", "\x7f", "\x80", "\xff",
      std::string("\xff\0", 2)};
  for (const std::string& key : keys) Put(*database, key, "x");
  const auto cursor = database->View()->NewCursor("", "");
  std::vector<std::string> walked;
  for (cursor->Seek(""); cursor->Valid(); cursor->Next()) walked.emplace_back(cursor->key());
  std::vector<std::string> sorted = keys;
  std::sort(sorted.begin(), sorted.end());
  CHECK(walked == sorted);
}

TEST_CASE("the persisted value is the one that a power loss leaves") {
  FaultDisk disk;
  auto database = Open(disk, false);
  Put(*database, "applied", "1");
  CHECK(Value(database->GetPersisted("applied")) == "(none)");
  CHECK(Value(database->Get("applied")) == "1");
  REQUIRE(database->Flush().ok());
  CHECK(Value(database->GetPersisted("applied")) == "1");
  Put(*database, "applied", "2");
  CHECK(Value(database->GetPersisted("applied")) == "1");
  CHECK(database->UnflushedBytes() > 0);

  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(Value(Open(after, false)->Get("applied")) == "1");

  REQUIRE(database->Flush().ok());
  CHECK(database->UnflushedBytes() == 0);
  CHECK(Value(database->GetPersisted("applied")) == "2");
  database.reset();
  database = Open(disk, false);
  CHECK(Value(database->GetPersisted("applied")) == "2");
  Put(*database, "applied", "3");
  CHECK(Value(database->GetPersisted("applied")) == "2");
}

TEST_CASE("closing the state writes nothing: only a flush makes it durable") {
  FaultDisk disk;
  auto database = Open(disk, false);
  Put(*database, "k", "flushed");
  REQUIRE(database->Flush().ok());
  Put(*database, "k", "not flushed");
  database.reset();
  CHECK(Value(Open(disk, false)->Get("k")) == "flushed");
}

TEST_CASE("a synced write survives, an unsynced one survives with the next sync") {
  FaultDisk disk;
  const auto database = Open(disk, true);
  Put(*database, "a", "1", Sync::kYes);
  Put(*database, "b", "1", Sync::kNo);
  {
    FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
    const auto reopened = Open(after, true);
    CHECK(Value(reopened->Get("a")) == "1");
    CHECK(Value(reopened->Get("b")) == "(none)");
  }
  REQUIRE(database->Flush().ok());
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(Value(Open(after, true)->Get("b")) == "1");
}

TEST_CASE("what an open database shows after a process died survives the next power loss") {
  FaultDisk disk;
  {
    const auto database = Open(disk, true);
    Put(*database, "a", "1", Sync::kYes);
    Put(*database, "b", "1", Sync::kNo);
  }
  FaultDisk revived(disk.image().AfterPowerLoss(PowerLoss::kProcessOnly, 1));
  const auto database = Open(revived, true);
  REQUIRE(Value(database->Get("b")) == "1");
  FaultDisk after(revived.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(Value(Open(after, true)->Get("b")) == "1");
}

TEST_CASE("a checkpoint is a whole copy that later writes do not reach") {
  FaultDisk disk;
  const auto database = Open(disk, false);
  Put(*database, "a", "1");
  REQUIRE(database->Flush().ok());
  Put(*database, "b", "1");
  REQUIRE(database->Checkpoint("/copy").ok());
  Put(*database, "a", "2");
  REQUIRE(database->Flush().ok());
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  const auto copy = Open(after, false, "/copy");
  CHECK(Value(copy->Get("a")) == "1");
  CHECK(Value(copy->Get("b")) == "1");
  CHECK(Value(Open(after, false)->Get("a")) == "2");
  CHECK_FALSE(database->Checkpoint("/copy").ok());
}

TEST_CASE("the sizes tell flushed from unflushed") {
  FaultDisk disk;
  const auto database = Open(disk, false);
  CHECK(database->UnflushedBytes() == 0);
  CHECK(database->SizeOnDisk() == 0);
  Put(*database, "a", std::string(100'000, 'x'));
  CHECK(database->UnflushedBytes() >= 100'000);
  REQUIRE(database->Flush().ok());
  CHECK(database->UnflushedBytes() == 0);
  CHECK(database->SizeOnDisk() > 0);
}

TEST_CASE("a second process is refused with a sentence") {
  FaultDisk disk;
  const auto first = Open(disk, true);
  const auto second = OpenRocksDatabase(disk.env(), "/db", Options(true));
  REQUIRE(second.status().code() == absl::StatusCode::kUnavailable);
  CHECK(Says(second.status(), "/db is open in another process"));
}

TEST_CASE("a missing database is refused where none may be created") {
  FaultDisk disk;
  DatabaseOptions options = Options(true);
  options.create_if_missing = false;
  const auto refused = OpenRocksDatabase(disk.env(), "/db", options);
  REQUIRE(refused.status().code() == absl::StatusCode::kNotFound);
  CHECK(Says(refused.status(), "no database in /db"));
  CHECK_FALSE(disk.image().Find("/db").has_value());
}

TEST_CASE("a database that lost its CURRENT is not founded a second time") {
  for (const bool write_ahead_log : {true, false}) {
    FaultDisk disk;
    {
      const auto database = Open(disk, write_ahead_log);
      Put(*database, "a", "1", write_ahead_log ? Sync::kYes : Sync::kNo);
      REQUIRE(database->Flush().ok());
    }
    REQUIRE(RemoveFile(disk.env(), "/db/CURRENT").ok());
    const auto refused = OpenRocksDatabase(disk.env(), "/db", Options(write_ahead_log));
    REQUIRE(refused.status().code() == absl::StatusCode::kDataLoss);
    CHECK(Says(refused.status(), "CURRENT"));
  }
}

TEST_CASE("a damaged file of a database is named when it is opened or read") {
  FaultDisk disk;
  {
    const auto database = Open(disk, false);
    for (int i = 0; i < 1000; ++i) Put(*database, "key" + std::to_string(i), std::string(100, 'v'));
    REQUIRE(database->Flush().ok());
  }
  for (const std::string& path : disk.image().Files()) {
    if (!path.ends_with(".sst")) continue;
    DiskImage image = disk.image();
    image.FlipBit(*image.Find(path), 100, 3);
    FaultDisk damaged(image);
    auto opened = OpenRocksDatabase(damaged.env(), "/db", Options(false));
    absl::Status status = opened.status();
    if (status.ok()) {
      const auto cursor = (*opened)->View()->NewCursor("", "");
      for (cursor->Seek(""); cursor->Valid(); cursor->Next()) continue;
      status = cursor->status();
    }
    INFO(Describe(status));
    CHECK(status.code() == absl::StatusCode::kDataLoss);
    CHECK(Says(status, "/db"));
  }
}

TEST_CASE("a failed write ends everything: no later write succeeds") {
  FaultDisk disk;
  const auto database = Open(disk, true);
  Put(*database, "a", "1", Sync::kYes);
  disk.FailAt(disk.operations() + 1, FaultDisk::Fault::kIoError, FaultDisk::Repeat::kOnce);
  WriteSet writes;
  writes.Put("b", "1");
  CHECK_FALSE(database->Write(writes, Sync::kYes).ok());
  CHECK(disk.failed());
  CHECK_FALSE(database->Write(writes, Sync::kYes).ok());
}

TEST_CASE("a failed background write is reported once") {
  FaultDisk disk;
  std::atomic<int> reports = 0;
  DatabaseOptions options = Options(false);
  options.on_background_error = [&reports](const absl::Status& error) {
    CHECK_FALSE(error.ok());
    ++reports;
  };
  auto opened = OpenRocksDatabase(disk.env(), "/db", options);
  REQUIRE(opened.ok());
  Put(**opened, "a", "1");
  disk.FailAt(disk.operations() + 1, FaultDisk::Fault::kIoError, FaultDisk::Repeat::kEver);
  CHECK_FALSE((*opened)->Flush().ok());
  CHECK_FALSE((*opened)->Flush().ok());
  CHECK(reports == 1);
}

TEST_CASE("readers and a writer work side by side") {
  FaultDisk disk;
  const auto database = Open(disk, false);
  Put(*database, "a", "0");
  Put(*database, "b", "0");
  std::atomic<bool> torn = false;
  std::thread reader([&] {
    for (int i = 0; i < 500; ++i) {
      const auto view = database->View();
      const auto a = view->Get("a");
      const auto b = view->Get("b");
      if (!a.ok() || !b.ok() || *a != *b) torn = true;
    }
  });
  for (int i = 1; i < 500; ++i) {
    WriteSet writes;
    writes.Put("a", std::to_string(i));
    writes.Put("b", std::to_string(i));
    REQUIRE(database->Write(writes, Sync::kNo).ok());
  }
  reader.join();
  CHECK_FALSE(torn);
}

TEST_CASE("the database works on the real file system and keeps no log of its own") {
  const std::string root = "/tmp/kvd_rocks_test." + std::to_string(getpid());
  rocksdb::Env* env = rocksdb::Env::Default();
  {
    auto opened = OpenRocksDatabase(env, root, Options(true));
    REQUIRE(opened.ok());
    Put(**opened, "secret-key", "secret-value", Sync::kYes);
    REQUIRE((*opened)->Checkpoint(root + ".copy").ok());
    CHECK((*opened)->SizeOnDisk() > 0);
  }
  auto reopened = OpenRocksDatabase(env, root, Options(true));
  REQUIRE(reopened.ok());
  CHECK(Value((*reopened)->Get("secret-key")) == "secret-value");
  const auto log = FileExists(env, root + "/LOG");
  REQUIRE(log.ok());
  CHECK_FALSE(*log);
  reopened->reset();
  CHECK(RemoveDirectory(env, root).ok());
  CHECK(RemoveDirectory(env, root + ".copy").ok());
}

}  // namespace
}  // namespace kv::test

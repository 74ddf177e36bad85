#include "storage/mvcc.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>
#include <string>

#include "storage/status.h"
#include "tests/kv/machine_fixture.h"

namespace kv {
namespace {

std::shared_ptr<Database> OpenDatabaseAt(const std::string& path) {
  DatabaseOptions options;
  options.write_ahead_log = false;
  options.memtable_bytes = size_t{1} << 20;
  absl::StatusOr<std::unique_ptr<Database>> database =
      OpenRocksDatabase(rocksdb::Env::Default(), path, options);
  INFO(Describe(database.status()));
  REQUIRE(database.ok());
  return *std::move(database);
}

std::shared_ptr<Mvcc> OpenMvcc(std::shared_ptr<Database> database) {
  absl::StatusOr<std::shared_ptr<Mvcc>> store =
      Mvcc::Open(std::move(database), {.cache_bytes = size_t{1} << 16});
  INFO(Describe(store.status()));
  REQUIRE(store.ok());
  return *std::move(store);
}

std::shared_ptr<Mvcc> CreateMvcc(const std::string& path) {
  std::shared_ptr<Database> database = OpenDatabaseAt(path);
  REQUIRE(Mvcc::Create(*database, {.index = 1, .term = 1}, {}).ok());
  return OpenMvcc(std::move(database));
}

void Commit(Mvcc& store, Batch batch) {
  const Position applied{.index = store.head().applied.index + 1, .term = 1};
  const absl::Status status = store.Commit(std::move(batch), applied, 0);
  INFO(Describe(status));
  REQUIRE(status.ok());
}

std::string Key(uint64_t number) { return fmt::format("/some/prefix/{:06}", number); }

// Counts random ranges at `revision`, when there were `keys`.
void CheckCounts(const Mvcc& store, const std::set<std::string>& keys, Dice& dice, uint64_t space,
                 Revision revision = 0) {
  for (int i = 0; i < 20; ++i) {
    KeyRange range{.first = Key(dice.Below(space)), .end = Key(dice.Below(space))};
    if (dice.OneIn(4)) range.end.clear();
    if (dice.OneIn(4)) range.first.clear();
    int64_t expected = 0;
    if (!range.empty()) {
      const auto first = keys.lower_bound(range.first);
      const auto end = range.unbounded() ? keys.end() : keys.lower_bound(range.end);
      expected = std::distance(first, end);
    }
    const absl::StatusOr<View> view = store.At(revision, &range);
    REQUIRE(view.ok());
    const absl::StatusOr<int64_t> counted = view->Count(range);
    REQUIRE(counted.ok());
    REQUIRE(*counted == expected);
  }
}

}  // namespace

TEST_CASE("keys of the version table keep the order of keys, newest version first") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  Dice dice(seed);
  const std::string letters(
      "\0\x01\x02\xfe\xff"
      "a",
      6);
  const auto key = [&] {
    std::string out;
    for (uint64_t length = 1 + dice.Below(5); length > 0; --length) out += letters[dice.Below(6)];
    return out;
  };
  for (int i = 0; i < 20000; ++i) {
    const std::string a = key();
    const std::string b = key();
    const auto ra = static_cast<Revision>(dice.Below(1000));
    const auto rb = static_cast<Revision>(dice.Below(1000));
    const bool before = a < b || (a == b && ra > rb);
    REQUIRE((VersionKey(a, ra) < VersionKey(b, rb)) == before);
    const auto parsed = ParseVersionKey(VersionKey(a, ra));
    REQUIRE(parsed);
    REQUIRE(parsed->key == a);
    REQUIRE(parsed->revision == ra);
    const KeyRange range{.first = a, .end = b};
    if (!range.empty()) {
      const std::string c = key();
      const std::string row = VersionKey(c, ra);
      REQUIRE(range.Contains(c) == (row >= VersionLower(range) && row < VersionUpper(range)));
      REQUIRE((row < VersionsEnd(a)) == (c <= a));
    }
  }
}

TEST_CASE("counts are exact while runs split and merge, and after crashes") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  Dice dice(seed);
  constexpr uint64_t kSpace = 30000;
  TemporaryDirectory directory;
  std::shared_ptr<Mvcc> store = CreateMvcc(directory.path() + "/db");
  std::set<std::string> keys;
  std::set<std::string> before;
  Revision before_revision = 1;
  for (int round = 0; round < 40; ++round) {
    Batch batch(*store);
    const bool grows = round % 10 < 7;
    for (int i = 0; i < 1500; ++i) {
      // Neighbours, so that runs fill up and empty.
      const uint64_t at = round % 2 == 0 ? dice.Below(kSpace)
                                         : (static_cast<uint64_t>(round) * 700 + dice.Below(3000));
      if (grows || dice.OneIn(4)) {
        batch.Put(Key(at), "v", 0);
        keys.insert(Key(at));
      } else {
        batch.DeleteRange({.first = Key(at), .end = Key(at + 3)});
        keys.erase(keys.lower_bound(Key(at)), keys.lower_bound(Key(at + 3)));
      }
      batch.Finish();
    }
    Commit(*store, std::move(batch));
    REQUIRE(store->head().keys == static_cast<int64_t>(keys.size()));
    CheckCounts(*store, keys, dice, kSpace);
    CheckCounts(*store, before, dice, kSpace, before_revision);
    if (dice.OneIn(3)) {
      before = keys;
      before_revision = store->head().revision;
    }
    if (dice.OneIn(5)) {
      REQUIRE(store->Flush().ok());
      store.reset();
      store = OpenMvcc(OpenDatabaseAt(directory.path() + "/db"));
      CheckCounts(*store, keys, dice, kSpace);
    }
  }
}

TEST_CASE("counts that were persisted before a crash are brought up to date from the history") {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/db";
  std::shared_ptr<Database> database = OpenDatabaseAt(path);
  REQUIRE(Mvcc::Create(*database, {.index = 1, .term = 1}, {}).ok());
  std::shared_ptr<Mvcc> store = OpenMvcc(database);
  std::set<std::string> keys;
  for (uint64_t i = 0; i < 5000; ++i) {
    Batch batch(*store);
    batch.Put(Key(i), "v", 0);
    keys.insert(Key(i));
    if (i % 3 == 0) {
      batch.Finish();
      batch.DeleteRange(KeyRange::FromRequest(Key(i / 2), {}));
      keys.erase(Key(i / 2));
    }
    batch.Finish();
    Commit(*store, std::move(batch));
  }
  // The database flushes by itself when its memtable is full; nobody persists counts for that.
  REQUIRE(database->Flush().ok());
  store.reset();
  database.reset();
  store = OpenMvcc(OpenDatabaseAt(path));
  Dice dice(1);
  CheckCounts(*store, keys, dice, 5000);
}

TEST_CASE("counts that do not fit the keys are made anew") {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/db";
  std::shared_ptr<Mvcc> store = CreateMvcc(path);
  std::set<std::string> keys;
  Batch batch(*store);
  for (uint64_t i = 0; i < 7000; ++i) {
    batch.Put(Key(i), "v", 0);
    keys.insert(Key(i));
  }
  batch.Finish();
  Commit(*store, std::move(batch));
  REQUIRE(store->Flush().ok());
  store.reset();
  for (const bool drop_all : {false, true}) {
    std::shared_ptr<Database> database = OpenDatabaseAt(path);
    WriteSet spoil;
    spoil.Put(RunKey(Key(3)), std::string("\x05\0\0\0\0\0\0\0", 8));
    if (drop_all) spoil.Delete(NoteKey("counts"));
    REQUIRE(database->Write(spoil, Sync::kNo).ok());
    store = OpenMvcc(std::move(database));
    Dice dice(1);
    CheckCounts(*store, keys, dice, 7000);
    REQUIRE(store->Flush().ok());
    store.reset();
  }
}

TEST_CASE("compaction deletes every row that nobody can read, and nothing else") {
  TemporaryDirectory directory;
  const std::string path = directory.path() + "/db";
  std::shared_ptr<Database> database = OpenDatabaseAt(path);
  REQUIRE(Mvcc::Create(*database, {.index = 1, .term = 1}, {}).ok());
  std::shared_ptr<Mvcc> store = OpenMvcc(database);
  for (int round = 0; round < 50; ++round) {
    Batch batch(*store);
    for (uint64_t i = 0; i < 20; ++i) {
      batch.Put(Key(i), std::to_string(round), 0);
      batch.Finish();
    }
    batch.DeleteRange({.first = Key(5), .end = Key(10)});
    batch.Finish();
    Commit(*store, std::move(batch));
  }
  const Revision last = store->head().revision;
  {
    Batch batch(*store);
    batch.SetCompacted(last);
    Commit(*store, std::move(batch));
  }
  for (;;) {
    const absl::StatusOr<bool> more = store->CompactStep(7);
    REQUIRE(more.ok());
    if (!*more) break;
  }
  CHECK(store->compaction_finished() == last);
  const auto rows = [&](std::string lower, std::string upper) {
    int count = 0;
    const std::shared_ptr<const DatabaseView> view = database->View();
    const std::unique_ptr<Cursor> cursor = view->NewCursor(lower, upper);
    for (cursor->Seek(lower); cursor->Valid(); cursor->Next()) ++count;
    return count;
  };
  const KeyRange all = KeyRange::Everything();
  CHECK(rows(CurrentLower(all), CurrentUpper(all)) == 15);
  // The five tombstones of the last revision, for watches from it.
  CHECK(rows(VersionLower(all), VersionUpper(all)) == 5);
  CHECK(rows(HistoryLower(0), HistoryUpper(last)) == 5);
}

TEST_CASE("a database of a newer format is refused") {
  TemporaryDirectory directory;
  std::shared_ptr<Database> database = OpenDatabaseAt(directory.path() + "/db");
  CHECK(Mvcc::Open(database, {}).status().code() == absl::StatusCode::kDataLoss);
  REQUIRE(Mvcc::Create(*database, {.index = 1, .term = 1}, {}).ok());
  WriteSet newer;
  newer.Put(NoteKey("format"), std::string("\x02\0\0\0", 4));
  REQUIRE(database->Write(newer, Sync::kNo).ok());
  const absl::Status refused = Mvcc::Open(database, {}).status();
  CHECK(refused.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Message(refused).find("format 2") != std::string_view::npos);
}

TEST_CASE("the cache never lets an old view bring back the past") {
  RecordCache cache(size_t{1} << 20);
  const auto record = [](Revision mod) {
    auto made = std::make_shared<KeyRecord>();
    made->mod = mod;
    return made;
  };
  cache.Offer("k", record(3), 5);
  REQUIRE(cache.Find("k"));
  CHECK(cache.Find("k")->since == 3);
  cache.Set("k", nullptr, 6);
  CHECK(cache.Find("k")->record == nullptr);
  CHECK(cache.Find("k")->since == 6);
  // Too small to keep anything: what was set is gone, and a reader from before comes late.
  RecordCache tiny(0);
  tiny.Set("k", record(6), 6);
  CHECK_FALSE(tiny.Find("k"));
  RecordCache small(16 * 600);
  small.Set("k", record(6), 6);
  for (int i = 0; i < 1000; ++i) small.Set("other" + std::to_string(i), record(7), 7);
  REQUIRE_FALSE(small.Find("k"));
  small.Offer("k", record(3), 5);
  CHECK_FALSE(small.Find("k"));
  CHECK(small.bytes() <= 16 * 600);
}

}  // namespace kv

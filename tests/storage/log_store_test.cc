#include "storage/log_store.h"

#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <functional>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/status.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

std::unique_ptr<Database> OpenDatabase(FaultDisk& disk) {
  DatabaseOptions options;
  options.memtable_bytes = size_t{1} << 20;
  options.background_jobs = 1;
  auto opened = OpenRocksDatabase(disk.env(), "/log", options);
  INFO(Describe(opened.status()));
  REQUIRE(opened.ok());
  return *std::move(opened);
}

struct OpenLog {
  explicit OpenLog(FaultDisk& disk) : store(OpenDatabase(disk)) {
    auto loaded = store.Load();
    INFO(Describe(loaded.status()));
    REQUIRE(loaded.ok());
    contents = *std::move(loaded);
  }
  void Commit(const LogUpdate& update) { REQUIRE(store.Commit({&update, 1}).ok()); }

  LogStore store;
  LogStore::Contents contents;
};

std::vector<EntryPtr> Entries(Index first, std::vector<Term> terms) {
  std::vector<EntryPtr> entries;
  for (const Term term : terms) {
    entries.push_back(MakeEntry(first, term, EntryKind::kCommand, fmt::format("e{}", first)));
    ++first;
  }
  return entries;
}

LogUpdate Append(Index first, std::vector<Term> terms) {
  return {.hard_state = {}, .reset = {}, .entries = Entries(first, std::move(terms))};
}

LogUpdate Promise(Term term, MemberId vote) {
  return {.hard_state = HardState{.term = term, .vote = vote}, .reset = {}, .entries = {}};
}

LogUpdate ResetTo(Position position) {
  return {.hard_state = {}, .reset = position, .entries = {}};
}

std::string Shape(const LogStore::Contents& contents) {
  std::string text = fmt::format("t{} v{} base {}@{}:", contents.hard_state.term,
                                 contents.hard_state.vote, contents.base.index, contents.base.term);
  for (const EntryPtr& entry : contents.entries) {
    text += fmt::format(" {}@{}", entry->index, entry->term);
  }
  if (contents.adopting) {
    text += fmt::format(" adopting {}@{}", contents.adopting->index, contents.adopting->term);
  }
  return text;
}

std::string AfterPowerLoss(FaultDisk& disk) {
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  return Shape(OpenLog(after).contents);
}

// A broken law ends the process, so it is broken in a child.
bool Dies(const std::function<void()>& act) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    // Its complaint and a core would only disturb the report.
    if (!std::freopen("/dev/null", "w", stderr)) _exit(3);
    TheCheckHook() = [](std::string_view) { _exit(42); };
    act();
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFEXITED(status) && WEXITSTATUS(status) == 42;
}

TEST_CASE("an empty log loads as nothing") {
  FaultDisk disk;
  const OpenLog log(disk);
  CHECK(log.contents.empty());
  CHECK(Shape(log.contents) == "t0 v0 base 0@0:");
}

TEST_CASE("what was committed is there after a power loss, bytes and kinds included") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::string data("\0\xff binary", 9);
  LogUpdate update = Promise(3, 7);
  update.entries = {MakeEntry(1, 2, EntryKind::kEmpty, ""),
                    MakeEntry(2, 3, EntryKind::kMembers, data)};
  log.Commit(update);
  CHECK(log.store.last() == Position{.index = 2, .term = 3});

  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  const OpenLog reopened(after);
  CHECK(Shape(reopened.contents) == "t3 v7 base 0@0: 1@2 2@3");
  REQUIRE(reopened.contents.entries.size() == 2);
  CHECK(*reopened.contents.entries[0] == *update.entries[0]);
  CHECK(*reopened.contents.entries[1] == *update.entries[1]);
  CHECK(reopened.store.last() == Position{.index = 2, .term = 3});
}

TEST_CASE("several updates become one batch and one sync") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(1, 1));
  const size_t before = disk.operations();
  const std::vector<LogUpdate> updates = {Append(1, {1, 1, 1}), Promise(2, 0), Append(3, {2, 2}),
                                          Append(5, {2})};
  REQUIRE(log.store.Commit(updates).ok());
  size_t syncs = 0;
  const std::vector<DiskOperation> trace = disk.trace();
  for (size_t i = before; i < trace.size(); ++i) {
    if (trace[i].kind == DiskOperation::Kind::kSync) ++syncs;
  }
  CHECK(syncs == 1);
  CHECK(AfterPowerLoss(disk) == "t2 v0 base 0@0: 1@1 2@1 3@2 4@2 5@2");
}

TEST_CASE("an empty update costs no sync") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(1, 1));
  const size_t before = disk.operations();
  log.Commit({});
  log.Commit(Promise(1, 1));
  CHECK(disk.operations() == before);
}

TEST_CASE("a replaced suffix is gone with its replacement, however long it was") {
  FaultDisk disk;
  OpenLog log(disk);
  LogUpdate first = Append(1, {1, 1, 1, 1, 1, 1});
  first.hard_state = HardState{.term = 1, .vote = 1};
  log.Commit(first);
  LogUpdate second = Append(3, {2});
  second.hard_state = HardState{.term = 2, .vote = 0};
  log.Commit(second);
  CHECK(AfterPowerLoss(disk) == "t2 v0 base 0@0: 1@1 2@1 3@2");
  log.Commit(Append(4, {2}));
  CHECK(AfterPowerLoss(disk) == "t2 v0 base 0@0: 1@1 2@1 3@2 4@2");
}

TEST_CASE("a dropped prefix is forgotten, at the latest with the next sync") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(1, 1));
  log.Commit(Append(1, {1, 1, 1, 1}));
  REQUIRE(log.store.DropThrough({.index = 2, .term = 1}).ok());
  CHECK(log.store.base() == Position{.index = 2, .term = 1});
  log.Commit(Append(5, {1}));
  CHECK(AfterPowerLoss(disk) == "t1 v1 base 2@1: 3@1 4@1 5@1");
  REQUIRE(log.store.DropThrough({.index = 1, .term = 1}).ok());
  CHECK(log.store.base() == Position{.index = 2, .term = 1});
  REQUIRE(log.store.DropThrough({.index = 5, .term = 1}).ok());
  log.Commit(Append(6, {1}));
  CHECK(AfterPowerLoss(disk) == "t1 v1 base 5@1: 6@1");
}

TEST_CASE("a reset forgets everything and ends the adoption") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(4, 1));
  log.Commit(Append(1, {1, 1, 1, 2}));
  REQUIRE(log.store.BeginAdopting({.index = 3, .term = 4}).ok());
  CHECK(AfterPowerLoss(disk) == "t4 v1 base 0@0: 1@1 2@1 3@1 4@2 adopting 3@4");
  log.Commit(ResetTo({.index = 3, .term = 4}));
  CHECK(AfterPowerLoss(disk) == "t4 v1 base 3@4:");
  log.Commit(Append(4, {4}));
  CHECK(AfterPowerLoss(disk) == "t4 v1 base 3@4: 4@4");
}

TEST_CASE("a reset and the entries after it arrive together") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(2, 1));
  log.Commit(Append(1, {1, 1}));
  LogUpdate update = ResetTo({.index = 10, .term = 2});
  update.entries = Entries(11, {2, 2});
  log.Commit(update);
  CHECK(AfterPowerLoss(disk) == "t2 v1 base 10@2: 11@2 12@2");
}

TEST_CASE("contents know which positions they hold") {
  FaultDisk disk;
  OpenLog log(disk);
  LogUpdate update = ResetTo({.index = 5, .term = 2});
  update.hard_state = HardState{.term = 3, .vote = 0};
  update.entries = Entries(6, {2, 3});
  log.Commit(update);
  FaultDisk after(disk.image());
  const LogStore::Contents contents = OpenLog(after).contents;
  CHECK(contents.Holds({.index = 5, .term = 2}));
  CHECK(contents.Holds({.index = 6, .term = 2}));
  CHECK(contents.Holds({.index = 7, .term = 3}));
  CHECK_FALSE(contents.Holds({.index = 5, .term = 1}));
  CHECK_FALSE(contents.Holds({.index = 6, .term = 3}));
  CHECK_FALSE(contents.Holds({.index = 4, .term = 2}));
  CHECK_FALSE(contents.Holds({.index = 8, .term = 3}));
}

TEST_CASE("a log far longer than its memtable loads whole, with many drops behind it") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(1, 1));
  const std::string data(2000, 'd');
  Index next = 1;
  for (int round = 0; round < 200; ++round) {
    LogUpdate update;
    for (int i = 0; i < 20; ++i) {
      update.entries.push_back(MakeEntry(next++, 1, EntryKind::kCommand, data));
    }
    log.Commit(update);
    if (next > 500) REQUIRE(log.store.DropThrough({.index = next - 400, .term = 1}).ok());
  }
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kProcessOnly, 1));
  const OpenLog reopened(after);
  CHECK(reopened.contents.base.index == next - 400);
  CHECK(reopened.contents.last().index == next - 1);
  CHECK(reopened.contents.entries.size() == 399);
}

TEST_CASE("updates that break a law of the log end the process before anything is written") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(2, 1));
  log.Commit(Append(1, {1, 2, 2}));
  REQUIRE(log.store.DropThrough({.index = 1, .term = 1}).ok());
  const auto breaks = [&log](const LogUpdate& update) {
    return Dies([&] { static_cast<void>(log.store.Commit({&update, 1})); });
  };
  CHECK(breaks(Append(5, {2})));  // A gap.
  CHECK(breaks(Append(4, {1})));  // A term that decreases.
  CHECK(breaks(Append(4, {3})));  // A term that is not durable.
  CHECK(breaks(Append(1, {2})));  // Below the base.
  CHECK(breaks(Promise(1, 1)));   // Back to an older term.
  CHECK(breaks(Promise(2, 2)));   // A second vote.
  CHECK(breaks(Promise(2, 0)));   // A vote forgotten.
  CHECK(breaks(ResetTo({.index = 0, .term = 0})));
  CHECK(Dies([&log] { static_cast<void>(log.store.DropThrough({.index = 9, .term = 2})); }));
  CHECK(AfterPowerLoss(disk) == "t2 v1 base 0@0: 1@1 2@2 3@2");
}

// Damages that no crash makes, each through the database itself.
absl::Status LoadAfter(const std::function<void(WriteSet&)>& damage) {
  FaultDisk disk;
  {
    OpenLog log(disk);
    log.Commit(Promise(2, 1));
    log.Commit(Append(1, {1, 2, 2, 2}));
  }
  {
    const std::unique_ptr<Database> database = OpenDatabase(disk);
    WriteSet writes;
    damage(writes);
    REQUIRE(database->Write(writes, Sync::kYes).ok());
  }
  LogStore store(OpenDatabase(disk));
  return store.Load().status();
}

std::string EntryKey(Index index) {
  std::string key = "e";
  for (int shift = 56; shift >= 0; shift -= 8) key.push_back(static_cast<char>(index >> shift));
  return key;
}

std::string EntryValue(const Entry& entry) {
  std::string value;
  PutU64(value, entry.term);
  PutU8(value, static_cast<uint8_t>(entry.kind));
  PutU32(value, entry.checksum);
  return value + entry.data;
}

bool Says(const absl::Status& status, std::string_view words) {
  INFO(Describe(status));
  return Message(status).find(words) != std::string_view::npos;
}

TEST_CASE("a damaged log says which entry is damaged and how") {
  CHECK(LoadAfter([](WriteSet&) {}).ok());
  CHECK(
      Says(LoadAfter([](WriteSet& writes) { writes.Delete(EntryKey(2)); }), "entry 2 is missing"));
  CHECK(Says(LoadAfter([](WriteSet& writes) {
               writes.Put(EntryKey(3), EntryValue(*MakeEntry(2, 2, EntryKind::kCommand, "e2")));
             }),
             "checksum of entry 3"));
  CHECK(Says(LoadAfter([](WriteSet& writes) {
               writes.Put(EntryKey(4), EntryValue(*MakeEntry(4, 1, EntryKind::kCommand, "e4")));
             }),
             "entry 4 has term 1"));
  CHECK(Says(LoadAfter([](WriteSet& writes) {
               writes.Put(EntryKey(5), EntryValue(*MakeEntry(5, 9, EntryKind::kCommand, "e5")));
             }),
             "hard state is of term 2"));
  CHECK(Says(LoadAfter([](WriteSet& writes) { writes.Put(EntryKey(2), "short"); }),
             "entry 2 has only 5 bytes"));
  CHECK(Says(LoadAfter([](WriteSet& writes) { writes.Put("h", std::string(20, 'x')); }),
             "hard state"));
  CHECK(Says(LoadAfter([](WriteSet& writes) { writes.Delete("h"); }), "hard state is of term 0"));
  CHECK(Says(LoadAfter([](WriteSet& writes) { writes.Delete("f"); }), "format record is missing"));
  CHECK(Says(LoadAfter([](WriteSet& writes) { writes.Put("e1", "x"); }), "key of 2 bytes"));
}

TEST_CASE("an entry or a log of a newer release is refused as such") {
  const absl::Status kind = LoadAfter([](WriteSet& writes) {
    writes.Put(EntryKey(5), EntryValue(*MakeEntry(5, 2, static_cast<EntryKind>(9), "e5")));
  });
  CHECK(kind.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Says(kind, "entry 5"));
  const absl::Status format = LoadAfter([](WriteSet& writes) {
    writes.Put("f",
               EncodeRecord({.kind = "kvd log", .format = 2, .minimum_reader = 2, .body = {}}));
  });
  CHECK(format.code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Says(format, "format 2"));
}

TEST_CASE("nothing is acknowledged after a failed sync, and nothing acknowledged is lost") {
  FaultDisk disk;
  OpenLog log(disk);
  log.Commit(Promise(1, 1));
  log.Commit(Append(1, {1, 1}));
  disk.FailAt(disk.operations() + 1, FaultDisk::Fault::kIoError, FaultDisk::Repeat::kOnce);
  const LogUpdate lost = Append(3, {1});
  CHECK_FALSE(log.store.Commit({&lost, 1}).ok());
  CHECK(disk.failed());
  CHECK_FALSE(log.store.Commit({&lost, 1}).ok());
  CHECK(log.store.last() == Position{.index = 2, .term = 1});
  CHECK(AfterPowerLoss(disk) == "t1 v1 base 0@0: 1@1 2@1");
}

}  // namespace
}  // namespace kv::test

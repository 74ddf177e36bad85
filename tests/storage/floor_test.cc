#include "storage/floor.h"

#include <catch2/catch_test_macros.hpp>

#include "storage/files.h"
#include "storage/status.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr Floor::Owner kOwner{.cluster_id = 0xc1, .member_id = 0xa1};

struct OpenLog {
  explicit OpenLog(FaultDisk& on) : disk(on), store(OpenDatabase(on)) {
    auto loaded = store.Load();
    INFO(Describe(loaded.status()));
    REQUIRE(loaded.ok());
    contents = *std::move(loaded);
  }
  static std::unique_ptr<Database> OpenDatabase(FaultDisk& on) {
    DatabaseOptions options;
    options.memtable_bytes = size_t{1} << 20;
    options.background_jobs = 1;
    auto opened = OpenRocksDatabase(on.env(), "/log", options);
    INFO(Describe(opened.status()));
    REQUIRE(opened.ok());
    return *std::move(opened);
  }
  absl::StatusOr<std::unique_ptr<Floor>> TryFloor(Floor::Owner owner = kOwner) {
    return Floor::Open(disk.env(), "/log/FLOOR", owner, contents);
  }
  std::unique_ptr<Floor> OpenFloor() {
    auto opened = TryFloor();
    INFO(Describe(opened.status()));
    REQUIRE(opened.ok());
    return *std::move(opened);
  }
  void Commit(Floor& floor, const LogUpdate& update) {
    REQUIRE(floor.LowerFor({&update, 1}).ok());
    REQUIRE(store.Commit({&update, 1}).ok());
  }

  FaultDisk& disk;
  LogStore store;
  LogStore::Contents contents;
};

LogUpdate Append(Term promised, Index first, std::vector<Term> terms) {
  LogUpdate update{
      .hard_state = HardState{.term = promised, .vote = 0}, .reset = {}, .entries = {}};
  for (const Term term : terms) {
    update.entries.push_back(MakeEntry(first, term, EntryKind::kCommand, "data"));
    ++first;
  }
  return update;
}

bool Says(const absl::Status& status, std::string_view words) {
  INFO(Describe(status));
  return Message(status).find(words) != std::string_view::npos;
}

// The floor of a log that reached 1@1 2@1 3@2, beside another log.
absl::Status FloorBeside(const LogStore::Contents& contents) {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  log.Commit(*floor, Append(2, 1, {1, 1, 2}));
  REQUIRE(floor->Raise(2, log.store).ok());
  return Floor::Open(disk.env(), "/log/FLOOR", kOwner, contents).status();
}

LogStore::Contents Contents(HardState hard_state, Position base, const LogUpdate& update) {
  LogStore::Contents contents;
  contents.hard_state = hard_state;
  contents.base = base;
  contents.entries = update.entries;
  return contents;
}

TEST_CASE("the floor rises with what is durable, never above it") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  CHECK(floor->mark() == Floor::Mark{});
  log.Commit(*floor, Append(1, 1, {1, 1, 1}));
  REQUIRE(floor->Raise(9, log.store).ok());
  CHECK(floor->mark() == Floor::Mark{.term = 1, .commit = 3, .last = {.index = 3, .term = 1}});
  const size_t before = disk.operations();
  REQUIRE(floor->Raise(2, log.store).ok());
  CHECK(disk.operations() == before);

  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  OpenLog reopened(after);
  CHECK(reopened.OpenFloor()->mark() == floor->mark());
}

TEST_CASE("a log that holds less than the floor is refused with both positions") {
  const LogUpdate all = Append(2, 1, {1, 1, 2});
  CHECK(FloorBeside(Contents({.term = 2, .vote = 0}, {}, all)).ok());
  CHECK(FloorBeside(Contents({.term = 9, .vote = 0}, {}, Append(9, 1, {1, 1, 2, 9}))).ok());
  CHECK(FloorBeside(Contents({.term = 9, .vote = 0}, {.index = 7, .term = 8}, {})).ok());

  const absl::Status shorter =
      FloorBeside(Contents({.term = 2, .vote = 0}, {}, Append(2, 1, {1, 1})));
  CHECK(shorter.code() == absl::StatusCode::kDataLoss);
  CHECK(Says(shorter, "ends at index 2 (term 1)"));
  CHECK(Says(shorter, "reached index 3 (term 2)"));
  CHECK(Says(FloorBeside(Contents({.term = 2, .vote = 0}, {}, Append(2, 1, {1, 1, 1}))),
             "does not hold index 3 of term 2"));
  CHECK(Says(FloorBeside(Contents({.term = 1, .vote = 0}, {}, all)), "hard state is of term 1"));
  CHECK(Says(FloorBeside({}), "ends at index 0"));
}

TEST_CASE("a vote that the floor saw is not forgotten") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  const LogUpdate vote{.hard_state = HardState{.term = 5, .vote = 8}, .reset = {}, .entries = {}};
  log.Commit(*floor, vote);
  REQUIRE(floor->Raise(0, log.store).ok());
  const auto beside = [&disk](HardState hard_state) {
    return Floor::Open(disk.env(), "/log/FLOOR", kOwner, Contents(hard_state, {}, {})).status();
  };
  CHECK(beside({.term = 5, .vote = 8}).ok());
  CHECK(beside({.term = 6, .vote = 0}).ok());
  CHECK(Says(beside({.term = 5, .vote = 0}), "a vote for 0000000000000000 in term 5"));
  CHECK(Says(beside({.term = 4, .vote = 8}), "hard state is of term 4"));
}

TEST_CASE("the floor is lowered before the log is cut below it, and only then") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  log.Commit(*floor, Append(1, 1, {1, 1, 1, 1}));
  REQUIRE(floor->Raise(2, log.store).ok());

  const LogUpdate more = Append(2, 5, {2});
  REQUIRE(floor->LowerFor({&more, 1}).ok());
  CHECK(floor->mark().last == Position{.index = 4, .term = 1});

  const LogUpdate cut = Append(2, 4, {2});
  REQUIRE(floor->LowerFor({&cut, 1}).ok());
  CHECK(floor->mark() == Floor::Mark{.term = 1, .commit = 2, .last = {.index = 3, .term = 0}});
  // Durable before the log changes, and true before and after it does.
  for (const bool committed : {false, true}) {
    if (committed) REQUIRE(log.store.Commit({&cut, 1}).ok());
    FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
    OpenLog reopened(after);
    CHECK(reopened.OpenFloor()->mark() == floor->mark());
  }
}

TEST_CASE("a floor that a dead process had lowered does not rise again") {
  const LogUpdate cut = Append(2, 4, {2});
  FaultDisk disk;
  {
    OpenLog log(disk);
    const std::unique_ptr<Floor> floor = log.OpenFloor();
    log.Commit(*floor, Append(1, 1, {1, 1, 1, 1}));
    REQUIRE(floor->Raise(2, log.store).ok());
    // Between the write and its sync.
    disk.FailAt(disk.operations() + 1, FaultDisk::Fault::kCut, FaultDisk::Repeat::kOnce);
    REQUIRE_FALSE(floor->LowerFor({&cut, 1}).ok());
  }
  FaultDisk revived(disk.image().AfterPowerLoss(PowerLoss::kProcessOnly, 1));
  OpenLog log(revived);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  REQUIRE(floor->mark().last.index == 3);
  log.Commit(*floor, cut);
  FaultDisk after(revived.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(OpenLog(after).OpenFloor()->mark() == floor->mark());
}

TEST_CASE("a reset lowers the floor where it takes away what the floor names") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  log.Commit(*floor, Append(1, 1, {1, 1, 1, 1}));
  REQUIRE(floor->Raise(2, log.store).ok());
  LogUpdate reset{.hard_state = HardState{.term = 2, .vote = 0},
                  .reset = Position{.index = 3, .term = 2},
                  .entries = {}};
  log.Commit(*floor, reset);
  CHECK(floor->mark() == Floor::Mark{.term = 1, .commit = 2, .last = {.index = 3, .term = 0}});
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  CHECK(OpenLog(after).TryFloor().ok());

  reset.reset = Position{.index = 9, .term = 2};
  const size_t before = disk.operations();
  REQUIRE(floor->LowerFor({&reset, 1}).ok());
  CHECK(disk.operations() == before);
}

TEST_CASE("a floor of another member is refused") {
  FaultDisk disk;
  OpenLog log(disk);
  static_cast<void>(log.OpenFloor());
  const auto refused = log.TryFloor({.cluster_id = 0xc1, .member_id = 0xa2});
  REQUIRE(refused.status().code() == absl::StatusCode::kFailedPrecondition);
  CHECK(Says(refused.status(), "00000000000000a2"));
  CHECK_FALSE(log.TryFloor({.cluster_id = 0xc2, .member_id = 0xa1}).ok());
}

TEST_CASE("a floor that is missing beside a log is refused") {
  FaultDisk disk;
  {
    OpenLog log(disk);
    const std::unique_ptr<Floor> floor = log.OpenFloor();
    log.Commit(*floor, Append(1, 1, {1}));
  }
  REQUIRE(RemoveFile(disk.env(), "/log/FLOOR").ok());
  OpenLog log(disk);
  CHECK(Says(log.TryFloor().status(), "/log/FLOOR is missing"));
}

TEST_CASE("a write of the floor that tears leaves the one before it") {
  FaultDisk disk;
  OpenLog log(disk);
  const std::unique_ptr<Floor> floor = log.OpenFloor();
  log.Commit(*floor, Append(1, 1, {1}));
  REQUIRE(floor->Raise(1, log.store).ok());
  const Floor::Mark before = floor->mark();
  log.Commit(*floor, Append(1, 2, {1}));
  const size_t begin = disk.operations();
  DiskImage image = disk.image();
  REQUIRE(floor->Raise(2, log.store).ok());
  const std::vector<DiskOperation> trace = disk.trace();
  REQUIRE(trace.size() > begin);
  for (size_t i = begin; i < trace.size(); ++i) {
    image.Apply(trace[i]);
    for (const PowerLoss policy : kPowerLosses) {
      for (uint64_t seed = 0; seed < 16; ++seed) {
        FaultDisk after(image.AfterPowerLoss(policy, seed));
        const auto opened = Floor::Open(after.env(), "/log/FLOOR", kOwner,
                                        Contents({.term = 1, .vote = 0}, {}, Append(1, 1, {1, 1})));
        REQUIRE(opened.ok());
        CHECK(((*opened)->mark() == before || (*opened)->mark() == floor->mark()));
        if (i + 1 == trace.size()) CHECK((*opened)->mark() == floor->mark());
      }
    }
  }
}

TEST_CASE("a floor with both slots damaged is refused, with one it falls back") {
  FaultDisk disk;
  OpenLog log(disk);
  {
    const std::unique_ptr<Floor> floor = log.OpenFloor();
    log.Commit(*floor, Append(1, 1, {1, 1}));
    REQUIRE(floor->Raise(1, log.store).ok());
    REQUIRE(floor->Raise(2, log.store).ok());
  }
  DiskImage image = disk.image();
  const InodeId inode = image.Find("/log/FLOOR").value();
  image.FlipBit(inode, 40, 0);
  const auto contents = Contents({.term = 1, .vote = 0}, {}, Append(1, 1, {1, 1}));
  FaultDisk one(image);
  CHECK(Floor::Open(one.env(), "/log/FLOOR", kOwner, contents).ok());
  image.FlipBit(inode, 4096 + 40, 0);
  FaultDisk both(image);
  const auto refused = Floor::Open(both.env(), "/log/FLOOR", kOwner, contents);
  REQUIRE(refused.status().code() == absl::StatusCode::kDataLoss);
  CHECK(Says(refused.status(), "/log/FLOOR is damaged"));
}

}  // namespace
}  // namespace kv::test

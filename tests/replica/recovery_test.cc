#include "server/replica/recovery.h"

#include <catch2/catch_test_macros.hpp>

#include "storage/status.h"
#include "tests/replica/cluster.h"

namespace kv {
namespace {

// A log on a disk of its own, and a machine that stands where it is told.
struct Disk {
  test::ScratchDirectory scratch;
  test::MemoryDisk bytes;
  std::unique_ptr<LogStore> store;
  LogStore::Contents contents;
  std::unique_ptr<Floor> floor;

  void Open() {
    store = std::make_unique<LogStore>(std::make_unique<test::MemoryDatabase>(&bytes));
    absl::StatusOr<LogStore::Contents> loaded = store->Load();
    REQUIRE(loaded.ok());
    contents = *std::move(loaded);
    auto opened = Floor::Open(rocksdb::Env::Default(), scratch.path("FLOOR"),
                              {.cluster_id = 7, .member_id = 1}, contents);
    REQUIRE(opened.ok());
    floor = *std::move(opened);
  }
  // Entries 2..last of the terms given, after the founding position {1, 1}.
  void Write(std::vector<Term> terms) {
    std::vector<LogUpdate> updates(1);
    updates[0].hard_state = HardState{.term = terms.empty() ? 1 : terms.back(), .vote = 0};
    updates[0].reset = Position{.index = 1, .term = 1};
    for (size_t i = 0; i < terms.size(); ++i) {
      updates[0].entries.push_back(MakeEntry(2 + i, terms[i], EntryKind::kCommand, "x"));
    }
    REQUIRE(store->Commit(updates).ok());
  }
};

std::unique_ptr<test::ListMachine> MachineAt(Position position) {
  auto machine = std::make_unique<test::ListMachine>(test::FoundersOf({1}));
  Index index = machine->applied().index;
  while (index < position.index) {
    ++index;
    Committed committed{.entry = MakeEntry(index, position.term, EntryKind::kCommand, "x")};
    machine->Apply(std::span<const Committed>(&committed, 1));
  }
  return machine;
}

}  // namespace

TEST_CASE("a log that holds the machine's position is replayed behind it") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1, 2, 2});
  disk.Open();
  auto machine = MachineAt({.index = 4, .term = 2});
  auto found = Recover(disk.contents, *disk.store, *disk.floor, *machine);
  REQUIRE(found.ok());
  CHECK(found->applied == 4);
  CHECK(found->base == Position{.index = 1, .term = 1});
  CHECK(found->entries.size() == 4);
  CHECK(found->hard_state.term == 2);
  CHECK(found->base_members == test::FoundersOf({1}));
}

TEST_CASE("an adoption that was cut off after the state had been switched resets the log to it") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1, 2, 2});
  REQUIRE(disk.store->BeginAdopting({.index = 9, .term = 2}).ok());
  disk.Open();
  auto machine = MachineAt({.index = 9, .term = 2});
  auto found = Recover(disk.contents, *disk.store, *disk.floor, *machine);
  REQUIRE(found.ok());
  CHECK(found->applied == 9);
  CHECK(found->base == Position{.index = 9, .term = 2});
  CHECK(found->entries.empty());
  // The reset itself survives: the next start finds a log that begins there.
  disk.Open();
  CHECK(disk.contents.base == Position{.index = 9, .term = 2});
  CHECK(Recover(disk.contents, *disk.store, *disk.floor, *machine).ok());
}

TEST_CASE("an adoption that was cut off before the state was switched changes nothing") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1, 2, 2});
  REQUIRE(disk.store->BeginAdopting({.index = 9, .term = 2}).ok());
  disk.Open();
  auto machine = MachineAt({.index = 3, .term = 1});
  auto found = Recover(disk.contents, *disk.store, *disk.floor, *machine);
  REQUIRE(found.ok());
  CHECK(found->applied == 3);
  CHECK(found->entries.size() == 4);
}

TEST_CASE("a log that ends before the state is refused, and both positions are named") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1});
  disk.Open();
  auto machine = MachineAt({.index = 9, .term = 1});
  auto found = Recover(disk.contents, *disk.store, *disk.floor, *machine);
  REQUIRE(!found.ok());
  CHECK(found.status().code() == absl::StatusCode::kDataLoss);
  std::string sentence(kv::Message(found.status()));
  CHECK(sentence.find("index 9, term 1") != std::string::npos);
  CHECK(sentence.find("(1, 3]") != std::string::npos);
  CHECK(sentence.find("add it again") != std::string::npos);
}

TEST_CASE("a tail of an older term that reaches the index is not taken for the position") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1, 1, 1, 2});
  disk.Open();
  auto machine = MachineAt({.index = 4, .term = 2});
  CHECK(!Recover(disk.contents, *disk.store, *disk.floor, *machine).ok());
}

TEST_CASE("a state of a term that the log has never seen is refused") {
  Disk disk;
  disk.Open();
  disk.Write({1, 1});
  REQUIRE(disk.store->BeginAdopting({.index = 9, .term = 3}).ok());
  disk.Open();
  auto machine = MachineAt({.index = 9, .term = 3});
  CHECK(!Recover(disk.contents, *disk.store, *disk.floor, *machine).ok());
}

}  // namespace kv

// Power loss and failing operations against the state: a database without a write-ahead log, its
// snapshots, and their adoption.

#include <fmt/format.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <iostream>
#include <map>
#include <utility>

#include "storage/database.h"
#include "storage/files.h"
#include "storage/snapshot.h"
#include "storage/status.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr std::string_view kKind = "state";

std::string StatePath(uint64_t generation) { return fmt::format("/data/state-{}", generation); }

absl::StatusOr<std::unique_ptr<Database>> OpenState(FaultDisk& disk, uint64_t generation,
                                                    std::atomic<bool>* broken = nullptr) {
  DatabaseOptions options;
  options.write_ahead_log = false;
  options.memtable_bytes = 64 << 10;
  options.background_jobs = 1;
  options.on_background_error = [broken](const absl::Status&) {
    if (broken) *broken = true;
  };
  return OpenRocksDatabase(disk.env(), StatePath(generation), options);
}

Record StateRecord(uint64_t generation) {
  Record record{.kind = std::string(kKind), .format = 1, .minimum_reader = 1, .body = {}};
  PutU64(record.body, generation);
  return record;
}

using Content = std::map<std::string, std::string>;

std::string Describe(const Content& content) {
  uint32_t crc = 0;
  for (const auto& [key, value] : content) crc = Crc32c(value, Crc32c(key, crc));
  return fmt::format("{} keys crc {:08x}", content.size(), crc);
}

// Every batch writes some keys and, with them, its own number under "applied". Now and then the
// state is flushed, copied into a sealed snapshot, or replaced by the newest snapshot, as a member
// does that got one from its leader.
class Workload {
 public:
  // After it was acknowledged the state is of this generation and holds between `durable` and
  // `current` batches.
  struct Step {
    size_t operations = 0;
    uint64_t generation = 0;
    uint64_t durable = 0;
    uint64_t current = 0;
    uint64_t snapshot = 0;  // Position of the sealed one; 0: none.
  };

  Workload(FaultDisk& disk, uint64_t seed) : disk_(disk), dice_(seed) { steps_.emplace_back(); }

  absl::Status Run(int count) {
    RETURN_IF_ERROR(CreateDirectory(disk_.env(), "/data"));
    RETURN_IF_ERROR(CreateDirectory(disk_.env(), "/data/outgoing"));
    ASSIGN_OR_RETURN(database_, OpenState(disk_, 1, &broken_));
    now_.generation = 1;
    contents_[1][0] = {};
    RETURN_IF_ERROR(WriteRecord(disk_.env(), "/data/STATE", StateRecord(1)));
    Acknowledge();
    for (int i = 0; i < count; ++i) {
      RETURN_IF_ERROR(TakeStep());
      if (broken_) return absl::UnavailableError("a background write failed");
      Acknowledge();
    }
    return absl::OkStatus();
  }
  void Close() { database_.reset(); }

  const std::vector<Step>& steps() const { return steps_; }
  Step pending() const { return now_; }
  const Content* ContentAt(uint64_t generation, uint64_t applied) const {
    const auto states = contents_.find(generation);
    if (states == contents_.end()) return nullptr;
    const auto content = states->second.find(applied);
    return content == states->second.end() ? nullptr : &content->second;
  }

 private:
  void Acknowledge() {
    now_.operations = disk_.operations();
    steps_.push_back(now_);
  }
  absl::Status WriteBatch() {
    Content content = contents_.at(now_.generation).at(now_.current);
    WriteSet writes;
    const uint64_t count = 1 + dice_.Below(6);
    for (uint64_t i = 0; i < count; ++i) {
      const std::string key = fmt::format("key{:02}", dice_.Below(40));
      if (dice_.Below(4) == 0) {
        writes.Delete(key);
        content.erase(key);
      } else {
        std::string value(dice_.Below(1500), static_cast<char>('a' + dice_.Below(26)));
        content[key] = value;
        writes.Put(key, std::move(value));
      }
    }
    ++now_.current;
    writes.Put("applied", fmt::format("{}", now_.current));
    contents_.at(now_.generation)[now_.current] = std::move(content);
    return database_->Write(writes, Sync::kNo);
  }
  absl::Status Flush() {
    RETURN_IF_ERROR(database_->Flush());
    now_.durable = now_.current;
    return absl::OkStatus();
  }
  absl::Status TakeSnapshot() {
    const std::string path = fmt::format("/data/outgoing/{}", now_.current);
    if (now_.current == now_.snapshot || now_.current == 0) return absl::OkStatus();
    RETURN_IF_ERROR(database_->Checkpoint(path));
    now_.durable = now_.current;
    Acknowledge();
    RETURN_IF_ERROR(SealSnapshot(disk_.env(), path, {.index = now_.current, .term = 1},
                                 fmt::format("members {}", now_.generation))
                        .status());
    if (now_.snapshot != 0) {
      const uint64_t old = std::exchange(now_.snapshot, 0);
      Acknowledge();
      RETURN_IF_ERROR(RemoveDirectory(disk_.env(), fmt::format("/data/outgoing/{}", old)));
    }
    now_.snapshot = now_.current;
    return absl::OkStatus();
  }
  absl::Status Adopt() {
    if (now_.snapshot == 0) return absl::OkStatus();
    const uint64_t position = std::exchange(now_.snapshot, 0);
    Acknowledge();
    ASSIGN_OR_RETURN(const Snapshot snapshot,
                     VerifySnapshot(disk_.env(), fmt::format("/data/outgoing/{}", position)));
    const uint64_t next = now_.generation + 1;
    RETURN_IF_ERROR(PlaceSnapshot(disk_.env(), snapshot, StatePath(next)));
    const uint64_t before = now_.generation;
    contents_[next][position] = ContentOfSnapshot(position);
    now_.generation = next;
    now_.durable = now_.current = position;
    RETURN_IF_ERROR(WriteRecord(disk_.env(), "/data/STATE", StateRecord(next)));
    Acknowledge();
    database_.reset();
    ASSIGN_OR_RETURN(database_, OpenState(disk_, next, &broken_));
    return RemoveDirectory(disk_.env(), StatePath(before));
  }
  // The snapshot is of this generation: adoption uses it up.
  Content ContentOfSnapshot(uint64_t position) const {
    return contents_.at(now_.generation).at(position);
  }
  absl::Status TakeStep() {
    const uint64_t draw = dice_.Below(100);
    if (draw < 82) return WriteBatch();
    if (draw < 90) return Flush();
    if (draw < 96) return TakeSnapshot();
    return Adopt();
  }

  FaultDisk& disk_;
  Dice dice_;
  std::atomic<bool> broken_ = false;
  Step now_;  // With the step that is under way.
  std::vector<Step> steps_;
  std::map<uint64_t, std::map<uint64_t, Content>> contents_;  // By generation and batch.
  std::unique_ptr<Database> database_;
};

struct Found {
  uint64_t generation = 0;
  uint64_t applied = 0;
  Content content;
};

absl::StatusOr<Found> ReadState(FaultDisk& disk, uint64_t generation) {
  Found found{.generation = generation, .applied = 0, .content = {}};
  ASSIGN_OR_RETURN(const std::unique_ptr<Database> database, OpenState(disk, generation));
  const auto cursor = database->View()->NewCursor("", "");
  for (cursor->Seek(""); cursor->Valid(); cursor->Next()) {
    if (cursor->key() == "applied") {
      found.applied = std::stoull(std::string(cursor->value()));
    } else {
      found.content[std::string(cursor->key())] = std::string(cursor->value());
    }
  }
  RETURN_IF_ERROR(cursor->status());
  return found;
}

absl::StatusOr<Found> OpenMember(FaultDisk& disk) {
  ASSIGN_OR_RETURN(const auto record, ReadRecord(disk.env(), "/data/STATE", kKind, 1));
  if (!record) return Found{};
  ByteReader reader(record->body);
  return ReadState(disk, reader.U64());
}

std::string CheckSnapshot(FaultDisk& disk, const Workload& workload, uint64_t generation,
                          uint64_t position) {
  const auto snapshot = VerifySnapshot(disk.env(), fmt::format("/data/outgoing/{}", position));
  if (!snapshot.ok()) return kv::Describe(snapshot.status());
  if (snapshot->manifest.position.index != position) return "a snapshot at another position";
  FaultDisk copy(disk.image());
  const auto placed = PlaceSnapshot(copy.env(), *snapshot, StatePath(999));
  if (!placed.ok()) return kv::Describe(placed);
  const auto found = ReadState(copy, 999);
  if (!found.ok()) return kv::Describe(found.status());
  const Content* expected = workload.ContentAt(generation, position);
  if (!expected || found->applied != position || found->content != *expected) {
    return fmt::format("the snapshot at {} holds batch {} with {}", position, found->applied,
                       Describe(found->content));
  }
  return "";
}

std::string Compare(const Found& found, const Workload& workload, const Workload::Step& before,
                    const Workload::Step& after) {
  const bool as_before = found.generation == before.generation && found.applied >= before.durable;
  const bool as_after = found.generation == after.generation && found.applied >= after.durable &&
                        found.applied <= after.current;
  const bool between = before.generation == after.generation && found.applied <= after.current;
  const bool allowed = as_after || (as_before && (between || found.applied <= before.current));
  if (!allowed) {
    return fmt::format(
        "found generation {} with batch {}; acknowledged generation {}, durable {} of {}; under "
        "way generation {}, durable {} of {}",
        found.generation, found.applied, before.generation, before.durable, before.current,
        after.generation, after.durable, after.current);
  }
  if (found.generation == 0) return "";
  const Content* expected = workload.ContentAt(found.generation, found.applied);
  if (expected && *expected == found.content) return "";
  return fmt::format("batch {} of generation {} holds {}, but {} was written", found.applied,
                     found.generation, Describe(found.content),
                     expected ? Describe(*expected) : "nothing");
}

TEST_CASE("the state is always a prefix of its batches, and never less than was flushed") {
  const size_t stride = CrashStride(2);
  for (uint64_t round = 0; round < 2; ++round) {
    const uint64_t seed = CrashSeed() + 300 + round;
    FaultDisk disk;
    Workload workload(disk, seed);
    REQUIRE(workload.Run(220).ok());
    workload.Close();
    size_t snapshots = 0;
    const Judge judge = [&](FaultDisk& after, size_t operations) -> Verdict {
      const std::vector<Workload::Step>& steps = workload.steps();
      size_t acknowledged = 0;
      while (acknowledged + 1 < steps.size() && steps[acknowledged + 1].operations <= operations) {
        ++acknowledged;
      }
      const Workload::Step& before = steps[acknowledged];
      const Workload::Step& next = steps[std::min(acknowledged + 1, steps.size() - 1)];
      const auto found = OpenMember(after);
      if (!found.ok()) return {.failure = kv::Describe(found.status()), .found = ""};
      Verdict verdict{
          .failure = Compare(*found, workload, before, next),
          .found = fmt::format("generation {} batch {}", found->generation, found->applied)};
      if (verdict.failure.empty() && before.snapshot != 0 && next.snapshot == before.snapshot) {
        ++snapshots;
        verdict.failure = CheckSnapshot(after, workload, before.generation, before.snapshot);
      }
      return verdict;
    };
    const CutCount count =
        CutEverywhere(fmt::format("state, seed {}", seed), disk.trace(), seed, stride, judge);
    CHECK(snapshots > 0);
    std::cout << fmt::format("state, seed {}: {} operations, {} cuts, {} of them twice\n", seed,
                             disk.operations(), count.cuts, count.nested);
  }
}

TEST_CASE("after a failed operation the state still opens with all that was flushed") {
  const size_t stride = CrashStride(2) * 3;
  const uint64_t seed = CrashSeed() + 400;
  size_t operations = 0;
  {
    FaultDisk disk;
    Workload workload(disk, seed);
    REQUIRE(workload.Run(120).ok());
    operations = disk.operations();
  }
  size_t met = 0;
  for (size_t ordinal = 0; ordinal < operations; ordinal += stride) {
    for (const FaultDisk::Fault fault :
         {FaultDisk::Fault::kIoError, FaultDisk::Fault::kNoSpace, FaultDisk::Fault::kCut}) {
      FaultDisk disk;
      disk.FailAt(ordinal, fault,
                  ordinal % 2 == 0 ? FaultDisk::Repeat::kOnce : FaultDisk::Repeat::kEver);
      Workload workload(disk, seed);
      const absl::Status ended = workload.Run(120);
      workload.Close();
      if (!disk.failed()) continue;
      ++met;
      disk.Heal();
      for (const PowerLoss policy : {PowerLoss::kProcessOnly, PowerLoss::kDropAll}) {
        FaultDisk after(disk.image().AfterPowerLoss(policy, seed + ordinal));
        const auto found = OpenMember(after);
        INFO(fmt::format("operation {}, fault {}, seed {}, run ended with {}; {}: {}", ordinal,
                         static_cast<int>(fault), seed, kv::Describe(ended), Name(policy),
                         kv::Describe(found.status())));
        REQUIRE(found.ok());
        const std::string failure =
            Compare(*found, workload, workload.steps().back(), workload.pending());
        INFO(failure);
        REQUIRE(failure.empty());
      }
    }
  }
  CHECK(met > 0);
  std::cout << fmt::format("state, seed {}: {} runs met a failing operation\n", seed, met);
}

}  // namespace
}  // namespace kv::test

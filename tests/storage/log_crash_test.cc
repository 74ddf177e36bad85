// Power loss, failing operations and rotten bytes against the log and its floor.

#include <fmt/format.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <iostream>

#include "storage/floor.h"
#include "storage/log_store.h"
#include "storage/status.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr Floor::Owner kOwner{.cluster_id = 0xc, .member_id = 0xa};

// What a log holds, or ought to.
struct Model {
  HardState hard_state;
  Position base;
  std::vector<EntryPtr> entries;
  std::optional<Position> adopting;

  Position last() const { return entries.empty() ? base : entries.back()->position(); }
  void CutFrom(Index index) {
    while (!entries.empty() && entries.back()->index >= index) entries.pop_back();
  }
  void DropThrough(Position position) {
    std::erase_if(entries, [&](const EntryPtr& entry) { return entry->index <= position.index; });
    base = position;
  }
};

std::string Describe(const Model& model) {
  std::string text = fmt::format("term {} vote {}, base {}@{}", model.hard_state.term,
                                 model.hard_state.vote, model.base.index, model.base.term);
  uint32_t crc = 0;
  for (const EntryPtr& entry : model.entries) crc = Crc32c(entry->data, crc ^ entry->checksum);
  text += fmt::format(", {} entries to {}@{} crc {:08x}", model.entries.size(), model.last().index,
                      model.last().term, crc);
  if (model.adopting) text += fmt::format(", adopting {}", model.adopting->index);
  return text;
}

Model ToModel(LogStore::Contents contents) {
  return {.hard_state = contents.hard_state,
          .base = contents.base,
          .entries = std::move(contents.entries),
          .adopting = contents.adopting};
}

// Drops are not synced, so more may be there than ought to be, but only below.
bool Matches(const Model& found, const Model& expected) {
  if (found.hard_state != expected.hard_state || found.adopting != expected.adopting) return false;
  if (found.base.index > expected.base.index || found.last() != expected.last()) return false;
  for (size_t i = 0; i < expected.entries.size(); ++i) {
    const EntryPtr& same = found.entries[found.entries.size() - expected.entries.size() + i];
    if (*same != *expected.entries[i]) return false;
  }
  return true;
}

struct OpenedLog {
  std::unique_ptr<LogStore> store;
  std::unique_ptr<Floor> floor;
  Model found;
};

absl::StatusOr<OpenedLog> OpenLog(FaultDisk& disk, std::atomic<bool>* broken = nullptr) {
  DatabaseOptions options;
  options.memtable_bytes = 64 << 10;
  options.background_jobs = 1;
  options.on_background_error = [broken](const absl::Status&) {
    if (broken) *broken = true;
  };
  OpenedLog opened;
  ASSIGN_OR_RETURN(auto database, OpenRocksDatabase(disk.env(), "/log", options));
  opened.store = std::make_unique<LogStore>(std::move(database));
  ASSIGN_OR_RETURN(LogStore::Contents contents, opened.store->Load());
  ASSIGN_OR_RETURN(opened.floor, Floor::Open(disk.env(), "/log/FLOOR", kOwner, contents));
  opened.found = ToModel(std::move(contents));
  return opened;
}

// A member's life with its log: appends, replaced suffixes, votes, drops, snapshots adopted, and
// the floor raised now and then.
class Workload {
 public:
  // When a step had been acknowledged, and what the log held by then.
  struct Step {
    size_t operations = 0;
    Model model;
  };

  Workload(FaultDisk& disk, uint64_t seed) : disk_(disk), dice_(seed) { steps_.emplace_back(); }

  // Ends early when the disk fails, as the process would: `steps` has what was acknowledged, and
  // `pending` what may have happened besides.
  absl::Status Run(int count) {
    ASSIGN_OR_RETURN(log_, OpenLog(disk_, &broken_));
    Acknowledge();
    for (int i = 0; i < count && !broken_; ++i) {
      RETURN_IF_ERROR(TakeStep());
      if (broken_) break;
      Acknowledge();
    }
    if (broken_) return absl::UnavailableError("a background write failed");
    // So that everything above is covered by the floor.
    RETURN_IF_ERROR(Append(3, model_.last().index + 1));
    Acknowledge();
    return log_.floor->Raise(model_.last().index, *log_.store);
  }
  void Close() { log_ = {}; }

  const std::vector<Step>& steps() const { return steps_; }
  const Model& pending() const { return model_; }

 private:
  void Acknowledge() { steps_.push_back({.operations = disk_.operations(), .model = model_}); }

  EntryPtr MakeOne(Index index, Term term) {
    const uint64_t size = dice_.Below(12) == 0 ? dice_.Below(20'000) : dice_.Below(600);
    std::string data(size, '\0');
    for (char& c : data) c = static_cast<char>(dice_.Next());
    return MakeEntry(index, term, EntryKind::kCommand, std::move(data));
  }

  void AddEntries(LogUpdate& update, Index from, uint64_t count) {
    model_.CutFrom(from);
    for (uint64_t i = 0; i < count; ++i) {
      update.entries.push_back(MakeOne(from + i, model_.hard_state.term));
      model_.entries.push_back(update.entries.back());
    }
  }
  void AddTerm(LogUpdate& update) {
    model_.hard_state = {.term = model_.hard_state.term + 1, .vote = dice_.Below(4)};
    update.hard_state = model_.hard_state;
  }
  absl::Status Commit(std::vector<LogUpdate> updates) {
    RETURN_IF_ERROR(log_.floor->LowerFor(updates));
    return log_.store->Commit(updates);
  }

  absl::Status Append(uint64_t count, Index from) {
    LogUpdate update;
    if (model_.hard_state.term == 0) AddTerm(update);
    AddEntries(update, from, count);
    return Commit({std::move(update)});
  }
  absl::Status Replace() {
    LogUpdate update;
    AddTerm(update);
    const uint64_t behind = dice_.Below(std::min<uint64_t>(6, model_.entries.size() + 1));
    AddEntries(update, model_.last().index + 1 - behind, 1 + dice_.Below(3));
    return Commit({std::move(update)});
  }
  absl::Status Several() {
    std::vector<LogUpdate> updates(1 + dice_.Below(4));
    for (LogUpdate& update : updates) {
      if (dice_.Coin() || model_.hard_state.term == 0) AddTerm(update);
      const uint64_t behind = dice_.Below(std::min<uint64_t>(3, model_.entries.size() + 1));
      AddEntries(update, model_.last().index + 1 - behind, 1 + dice_.Below(4));
    }
    return Commit(std::move(updates));
  }
  absl::Status Drop() {
    if (model_.entries.empty()) return absl::OkStatus();
    const Position position = model_.entries[dice_.Below(model_.entries.size())]->position();
    model_.DropThrough(position);
    return log_.store->DropThrough(position);
  }
  // A snapshot from the leader: ahead of the log, or below its end with a term of its own.
  absl::Status Adopt() {
    LogUpdate promise;
    AddTerm(promise);
    RETURN_IF_ERROR(Commit({std::move(promise)}));
    Acknowledge();
    const Index ahead = model_.last().index + 1 + dice_.Below(20);
    const Index below = model_.base.index + 1 + dice_.Below(model_.entries.size() + 1);
    const Position position{.index = dice_.Coin() ? ahead : below, .term = model_.hard_state.term};
    model_.adopting = position;
    RETURN_IF_ERROR(log_.store->BeginAdopting(position));
    Acknowledge();
    LogUpdate reset;
    reset.reset = position;
    model_.entries.clear();
    model_.base = position;
    model_.adopting.reset();
    return Commit({std::move(reset)});
  }
  absl::Status TakeStep() {
    const uint64_t draw = dice_.Below(100);
    if (draw < 45) return Append(1 + dice_.Below(5), model_.last().index + 1);
    if (draw < 60) return Replace();
    if (draw < 70) return Several();
    if (draw < 76) {
      LogUpdate promise;
      AddTerm(promise);
      return Commit({std::move(promise)});
    }
    if (draw < 88) return Drop();
    if (draw < 91) return Adopt();
    return log_.floor->Raise(model_.base.index + dice_.Below(model_.entries.size() + 1),
                             *log_.store);
  }

  FaultDisk& disk_;
  Dice dice_;
  std::atomic<bool> broken_ = false;
  Model model_;  // With the step that is under way.
  std::vector<Step> steps_;
  OpenedLog log_;
};

// The newest step acknowledged by then, or the one under way at that moment.
std::string Compare(const Model& found, const std::vector<Workload::Step>& steps,
                    size_t operations) {
  size_t acknowledged = 0;
  while (acknowledged + 1 < steps.size() && steps[acknowledged + 1].operations <= operations) {
    ++acknowledged;
  }
  if (Matches(found, steps[acknowledged].model)) return "";
  const bool more = acknowledged + 1 < steps.size();
  if (more && Matches(found, steps[acknowledged + 1].model)) return "";
  return fmt::format("found {}\n  acknowledged {}\n  under way {}", Describe(found),
                     Describe(steps[acknowledged].model),
                     more ? Describe(steps[acknowledged + 1].model) : "nothing");
}

// The log goes on after its recovery, and what it takes then lasts.
std::string GoOn(OpenedLog opened, FaultDisk& disk) {
  const Term term = opened.found.hard_state.term + 1;
  LogUpdate update;
  update.hard_state = HardState{.term = term, .vote = 3};
  update.entries = {MakeEntry(opened.found.last().index + 1, term, EntryKind::kCommand, "on")};
  Model expected = opened.found;
  expected.hard_state = *update.hard_state;
  expected.entries.push_back(update.entries[0]);
  if (const auto status = opened.floor->LowerFor({&update, 1}); !status.ok()) {
    return kv::Describe(status);
  }
  if (const auto status = opened.store->Commit({&update, 1}); !status.ok()) {
    return kv::Describe(status);
  }
  if (const auto status = opened.floor->Raise(0, *opened.store); !status.ok()) {
    return kv::Describe(status);
  }
  FaultDisk after(disk.image().AfterPowerLoss(PowerLoss::kDropAll, 1));
  auto reopened = OpenLog(after);
  if (!reopened.ok()) return kv::Describe(reopened.status());
  if (Matches(reopened->found, expected)) return "";
  return fmt::format("after going on: found {}, expected {}", Describe(reopened->found),
                     Describe(expected));
}

TEST_CASE("the log and its floor keep what they acknowledged, wherever the power is cut") {
  const size_t stride = CrashStride(2);
  for (uint64_t round = 0; round < 2; ++round) {
    const uint64_t seed = CrashSeed() + round;
    FaultDisk disk;
    Workload workload(disk, seed);
    REQUIRE(workload.Run(150).ok());
    workload.Close();
    size_t judged = 0;
    const Judge judge = [&](FaultDisk& after, size_t operations) -> Verdict {
      auto opened = OpenLog(after);
      if (!opened.ok()) return {.failure = kv::Describe(opened.status()), .found = ""};
      Verdict verdict{.failure = Compare(opened->found, workload.steps(), operations),
                      .found = Describe(opened->found)};
      // On a copy, so that the recovery under test stays what it is.
      if (verdict.failure.empty() && ++judged % 8 == 0) {
        *opened = {};
        FaultDisk copy(after.image());
        auto again = OpenLog(copy);
        if (!again.ok()) return {.failure = kv::Describe(again.status()), .found = ""};
        verdict.failure = GoOn(*std::move(again), copy);
      }
      return verdict;
    };
    const CutCount count =
        CutEverywhere(fmt::format("log, seed {}", seed), disk.trace(), seed, stride, judge);
    std::cout << fmt::format("log, seed {}: {} operations, {} cuts, {} of them twice\n", seed,
                             disk.operations(), count.cuts, count.nested);
  }
}

TEST_CASE("after a failed operation the log acknowledges nothing, and loses nothing") {
  const size_t stride = CrashStride(2) * 3;
  const uint64_t seed = CrashSeed() + 100;
  size_t operations = 0;
  {
    FaultDisk disk;
    Workload workload(disk, seed);
    REQUIRE(workload.Run(60).ok());
    operations = disk.operations();
  }
  size_t met = 0;
  size_t runs = 0;
  for (size_t ordinal = 0; ordinal < operations; ordinal += stride) {
    for (const FaultDisk::Fault fault :
         {FaultDisk::Fault::kIoError, FaultDisk::Fault::kNoSpace, FaultDisk::Fault::kCut}) {
      const auto repeat = ordinal % 2 == 0 ? FaultDisk::Repeat::kOnce : FaultDisk::Repeat::kEver;
      FaultDisk disk;
      disk.FailAt(ordinal, fault, repeat);
      Workload workload(disk, seed);
      const absl::Status ended = workload.Run(60);
      workload.Close();
      ++runs;
      if (!disk.failed()) continue;
      ++met;
      INFO(fmt::format("operation {}, fault {}, seed {}, run ended with {}", ordinal,
                       static_cast<int>(fault), seed, kv::Describe(ended)));
      std::vector<Workload::Step> steps = workload.steps();
      const size_t acknowledged = steps.size() - 1;
      steps.push_back({.operations = disk.operations() + 1, .model = workload.pending()});
      steps[acknowledged].operations = 0;
      disk.Heal();
      for (const PowerLoss policy :
           {PowerLoss::kProcessOnly, PowerLoss::kDropAll, PowerLoss::kTorn}) {
        FaultDisk after(disk.image().AfterPowerLoss(policy, seed + ordinal));
        const auto opened = OpenLog(after);
        INFO(Name(policy) << ": " << kv::Describe(opened.status()));
        REQUIRE(opened.ok());
        const std::string failure =
            Compare(opened->found,
                    {steps.begin() + static_cast<std::ptrdiff_t>(acknowledged), steps.end()}, 0);
        INFO(failure);
        REQUIRE(failure.empty());
      }
    }
  }
  CHECK(met > runs / 2);
  std::cout << fmt::format("log, seed {}: {} runs with a failing operation, {} met it\n", seed,
                           runs, met);
}

TEST_CASE("a flipped bit in any synced file of the log is harmless or refused") {
  const uint64_t seed = CrashSeed() + 200;
  FaultDisk disk;
  Workload workload(disk, seed);
  REQUIRE(workload.Run(80).ok());
  workload.Close();
  const Model expected = workload.steps().back().model;
  const DiskImage image = disk.image().AfterPowerLoss(PowerLoss::kDropAll, seed);
  uint64_t total = 0;
  for (const std::string& path : image.Files()) {
    total += image.file(image.Find(path).value()).bytes.size();
  }
  const uint64_t every = 1 + total * CrashStride(2) / 3000;
  Dice dice(seed);
  size_t harmless = 0;
  size_t refused = 0;
  for (const std::string& path : image.Files()) {
    const InodeId inode = image.Find(path).value();
    const uint64_t size = image.file(inode).bytes.size();
    for (uint64_t offset = dice.Below(every); offset < size; offset += every) {
      const int bit = static_cast<int>(dice.Below(8));
      DiskImage damaged = image;
      damaged.FlipBit(inode, offset, bit);
      FaultDisk with(damaged);
      const auto opened = OpenLog(with);
      INFO(fmt::format("{} byte {} bit {}, seed {}", path, offset, bit, seed));
      if (opened.ok()) {
        INFO("found " << Describe(opened->found) << "\nexpected " << Describe(expected));
        REQUIRE(Matches(opened->found, expected));
        ++harmless;
      } else {
        INFO(kv::Describe(opened.status()));
        REQUIRE(Message(opened.status()).size() > 20);
        ++refused;
      }
    }
  }
  CHECK(refused > 0);
  CHECK(harmless > 0);
  std::cout << fmt::format("log, seed {}: {} flipped bits refused, {} harmless, none accepted\n",
                           seed, refused, harmless);
}

}  // namespace
}  // namespace kv::test

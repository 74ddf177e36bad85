// Power loss against everything that one member keeps: log, floor and machine together, with the
// recovery rule between them.
//
// The committed entries are fixed beforehand, and a reference machine that never crashes says what
// the state is after each of them. The member under test appends them, and tails that never get
// committed, applies what is durable and committed, flushes, drops, takes snapshots, adopts the
// reference's, and restarts.

#include <fmt/format.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <deque>
#include <iostream>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/kv_machine.h"
#include "server/replica/recovery.h"
#include "storage/files.h"
#include "storage/status.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr Floor::Owner kOwner{.cluster_id = 0xc, .member_id = 1};
constexpr Position kFounding{.index = 1, .term = 1};
constexpr Index kLast = 260;

raft::Members Founders() {
  raft::Members members;
  members.voters = {1};
  return members;
}

std::string Command(kvd::internal::Kind kind, const google::protobuf::MessageLite& body) {
  kvd::internal::Command command;
  command.set_kind(kind);
  command.set_min_version(1);
  command.set_body(body.SerializeAsString());
  return command.SerializeAsString();
}

EntryPtr SomeEntry(Index index, Term term, Dice& dice) {
  const auto key = [&dice] { return fmt::format("key{:02}", dice.Below(30)); };
  const auto value = [&dice] {
    return std::string(dice.Below(800), static_cast<char>('a' + dice.Below(26)));
  };
  std::string data;
  const uint64_t draw = dice.Below(10);
  if (draw == 0) return MakeEntry(index, term, EntryKind::kEmpty, "");
  if (draw < 7) {
    etcdserverpb::PutRequest put;
    put.set_key(key());
    put.set_value(value());
    data = Command(kvd::internal::PUT, put);
  } else if (draw < 8) {
    etcdserverpb::DeleteRangeRequest erase;
    erase.set_key(key());
    data = Command(kvd::internal::DELETE_RANGE, erase);
  } else if (draw < 9) {
    etcdserverpb::TxnRequest txn;
    for (int i = 0; i < 3; ++i) {
      etcdserverpb::PutRequest& put = *txn.add_success()->mutable_request_put();
      put.set_key(fmt::format("txn{}-{:02}", i, dice.Below(10)));
      put.set_value(value());
    }
    data = Command(kvd::internal::TXN, txn);
  } else {
    etcdserverpb::CompactionRequest compaction;
    compaction.set_revision(static_cast<int64_t>(1 + index / 2));
    data = Command(kvd::internal::COMPACT, compaction);
  }
  return MakeEntry(index, term, EntryKind::kCommand, std::move(data));
}

// A machine and the tasks it asked for.
class OpenMachine {
 public:
  static absl::StatusOr<std::unique_ptr<OpenMachine>> Open(FaultDisk& disk, bool found,
                                                           std::atomic<bool>* broken) {
    auto opened = std::make_unique<OpenMachine>();
    KvMachineOptions options;
    options.env = disk.env();
    options.data_dir = "/data";
    options.memtable_bytes = 64 << 10;
    options.block_cache_bytes = 1 << 20;
    options.record_cache_bytes = 64 << 10;
    options.work = [tasks = opened->tasks_](absl::AnyInvocable<void()&&> task) {
      tasks->push_back(std::move(task));
    };
    options.on_background_error = [broken](const absl::Status&) {
      if (broken) *broken = true;
    };
    if (found) {
      ASSIGN_OR_RETURN(const bool exists, KvMachine::Exists(options));
      if (!exists) RETURN_IF_ERROR(KvMachine::Found(options, kFounding, Founders()));
    }
    ASSIGN_OR_RETURN(opened->machine_, KvMachine::Open(options));
    return opened;
  }

  void Apply(const std::vector<EntryPtr>& run) {
    std::vector<Committed> committed;
    for (const EntryPtr& entry : run) committed.push_back({.entry = entry, .wants_reply = false});
    machine_->Apply(committed);
  }
  void Work() {
    while (!tasks_->empty()) {
      absl::AnyInvocable<void() &&> task = std::move(tasks_->front());
      tasks_->pop_front();
      std::move(task)();
    }
  }
  KvMachine* operator->() { return machine_.get(); }
  KvMachine& operator*() { return *machine_; }

 private:
  std::shared_ptr<std::deque<absl::AnyInvocable<void() &&>>> tasks_ =
      std::make_shared<std::deque<absl::AnyInvocable<void() &&>>>();
  std::unique_ptr<KvMachine> machine_;
};

std::string Describe(KvMachine& machine) {
  const auto hash = machine.HashKv(0);
  return fmt::format("applied {}@{} revision {} hash {:08x}", machine.applied().index,
                     machine.applied().term, machine.head().revision, hash.ok() ? hash->hash() : 0);
}

// What the cluster committed, and the state after each entry.
class Reference {
 public:
  explicit Reference(uint64_t seed) {
    Dice dice(seed);
    Term term = 1;
    for (Index index = 2; index <= kLast; ++index) {
      if (dice.Below(12) == 0) term += 10;  // Room for terms whose leaders got nowhere.
      entries_.push_back(SomeEntry(index, term, dice));
    }
    REQUIRE(CreateDirectory(disk_.env(), "/data").ok());
    auto opened = OpenMachine::Open(disk_, true, nullptr);
    INFO(kv::Describe(opened.status()));
    REQUIRE(opened.ok());
    states_.push_back("nothing");
    states_.push_back(Describe(***opened));
    for (const EntryPtr& entry : entries_) {
      (*opened)->Apply({entry});
      (*opened)->Work();
      states_.push_back(Describe(***opened));
      if (entry->index % 40 != 0) continue;
      const std::string path = fmt::format("/data/{}", entry->index);
      REQUIRE((**opened)->Take(path).ok());
    }
  }
  const EntryPtr& At(Index index) const { return entries_[index - 2]; }
  const std::string& StateAt(Index index) const { return states_.at(index); }
  // Copies the snapshot at `index`, a multiple of 40, as a transfer does.
  absl::StatusOr<Snapshot> CopyTo(FaultDisk& disk, Index index) const {
    const std::string source = fmt::format("/data/{}", index);
    RETURN_IF_ERROR(RemoveDirectory(disk.env(), "/data/incoming"));
    RETURN_IF_ERROR(CreateDirectory(disk.env(), "/data/incoming"));
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(disk_.env(), source));
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(const auto bytes, ReadFile(disk_.env(), source + "/" + name));
      RETURN_IF_ERROR(WriteFileAtomically(disk.env(), "/data/incoming/" + name, *bytes));
    }
    return VerifySnapshot(disk.env(), "/data/incoming");
  }

 private:
  mutable FaultDisk disk_;
  std::vector<EntryPtr> entries_;
  std::vector<std::string> states_;  // By index.
};

struct Member {
  std::unique_ptr<LogStore> store;
  std::unique_ptr<Floor> floor;
  std::unique_ptr<OpenMachine> machine;
  raft::Found found;
};

// As a restarting process does. The founding is repeated until the log knows of it.
absl::StatusOr<Member> OpenMember(FaultDisk& disk, std::atomic<bool>* broken = nullptr) {
  Member member;
  RETURN_IF_ERROR(CreateDirectory(disk.env(), "/data"));
  DatabaseOptions options;
  options.memtable_bytes = 64 << 10;
  options.background_jobs = 1;
  options.on_background_error = [broken](const absl::Status&) {
    if (broken) *broken = true;
  };
  ASSIGN_OR_RETURN(auto database, OpenRocksDatabase(disk.env(), "/data/log", options));
  member.store = std::make_unique<LogStore>(std::move(database));
  ASSIGN_OR_RETURN(LogStore::Contents contents, member.store->Load());
  ASSIGN_OR_RETURN(member.floor, Floor::Open(disk.env(), "/data/log/FLOOR", kOwner, contents));
  const bool founded = !contents.empty();
  ASSIGN_OR_RETURN(member.machine, OpenMachine::Open(disk, !founded, broken));
  if (!founded) {
    LogUpdate begin;
    begin.hard_state = HardState{.term = kFounding.term, .vote = 0};
    begin.reset = kFounding;
    RETURN_IF_ERROR(member.floor->LowerFor({&begin, 1}));
    RETURN_IF_ERROR(member.store->Commit({&begin, 1}));
    contents.hard_state = *begin.hard_state;
    contents.base = kFounding;
  }
  ASSIGN_OR_RETURN(member.found,
                   Recover(std::move(contents), *member.store, *member.floor, **member.machine));
  return member;
}

class Workload {
 public:
  struct Step {
    size_t operations = 0;
    HardState hard_state;
    Index base = 0;                 // The log begins after this at the latest.
    std::vector<EntryPtr> entries;  // Of the log; the first may be below `base`.
    Index flushed = 0;
    std::optional<Position> reset;  // Instead, the log may have been reset to this.

    Index last() const { return entries.empty() ? base : entries.back()->index; }
  };

  Workload(FaultDisk& disk, const Reference& reference, uint64_t seed)
      : disk_(disk), reference_(reference), dice_(seed) {
    steps_.emplace_back();
  }

  absl::Status Run() {
    ASSIGN_OR_RETURN(member_, OpenMember(disk_, &broken_));
    now_.hard_state = {.term = 1, .vote = 0};
    now_.base = now_.flushed = committed_ = applied_ = 1;
    Acknowledge();
    while (applied_ < kLast) {
      RETURN_IF_ERROR(TakeStep());
      if (broken_) return absl::UnavailableError("a background write failed");
      Acknowledge();
    }
    return absl::OkStatus();
  }
  void Close() { member_ = {}; }
  const std::vector<Step>& steps() const { return steps_; }
  size_t adoptions() const { return adoptions_; }

 private:
  void Acknowledge() {
    now_.operations = disk_.operations();
    steps_.push_back(now_);
  }
  absl::Status Commit(LogUpdate update) {
    RETURN_IF_ERROR(member_.floor->LowerFor({&update, 1}));
    return member_.store->Commit({&update, 1});
  }
  void CutFrom(Index index) {
    while (!now_.entries.empty() && now_.entries.back()->index >= index) now_.entries.pop_back();
  }

  // Committed entries in the place of whatever the log has above the last of them.
  absl::Status Append() {
    const Index from = held_ + 1;
    const Index to = std::min<Index>(kLast, from + dice_.Below(6));
    if (from > kLast) return absl::OkStatus();
    LogUpdate update;
    CutFrom(from);
    for (Index index = from; index <= to; ++index) {
      update.entries.push_back(reference_.At(index));
      now_.entries.push_back(reference_.At(index));
    }
    if (update.entries.back()->term > now_.hard_state.term) {
      now_.hard_state = {.term = update.entries.back()->term, .vote = 0};
      update.hard_state = now_.hard_state;
    }
    RETURN_IF_ERROR(Commit(std::move(update)));
    held_ = to;
    return absl::OkStatus();
  }
  // Entries of a leader that got nowhere: of a term between two that committed something.
  absl::Status AppendStray() {
    if (now_.last() > held_ || held_ < 2 || held_ + 1 > kLast) return absl::OkStatus();
    const Term next = reference_.At(held_ + 1)->term;
    if (next == reference_.At(held_)->term) return absl::OkStatus();
    LogUpdate update;
    if (now_.hard_state.term < next - 5) {
      now_.hard_state = {.term = next - 5, .vote = 0};
      update.hard_state = now_.hard_state;
    }
    const uint64_t count = 1 + dice_.Below(4);
    for (uint64_t i = 1; i <= count; ++i) {
      update.entries.push_back(SomeEntry(held_ + i, next - 5, dice_));
      now_.entries.push_back(update.entries.back());
    }
    return Commit(std::move(update));
  }
  absl::Status Apply() {
    committed_ = std::max(committed_, held_);
    std::vector<EntryPtr> run;
    const Index to = std::min(committed_, applied_ + 1 + dice_.Below(12));
    for (Index index = applied_ + 1; index <= to; ++index) run.push_back(reference_.At(index));
    if (run.empty()) return absl::OkStatus();
    member_.machine->Apply(run);
    applied_ = to;
    if (dice_.Coin()) member_.machine->Work();
    return absl::OkStatus();
  }
  absl::Status FlushAndDrop() {
    RETURN_IF_ERROR((*member_.machine)->Flush());
    ASSIGN_OR_RETURN(const Position durable, (*member_.machine)->Durable());
    if (durable.index != applied_) return absl::InternalError("a flush that did not cover all");
    now_.flushed = durable.index;
    Acknowledge();
    if (durable.index <= now_.base || dice_.Coin()) return absl::OkStatus();
    const Index through = now_.base + 1 + dice_.Below(durable.index - now_.base);
    const EntryPtr& entry = reference_.At(through);
    now_.base = through;
    return member_.store->DropThrough(entry->position());
  }
  absl::Status TakeSnapshot() {
    RETURN_IF_ERROR(CreateDirectory(disk_.env(), "/data/outgoing"));
    const std::string path = fmt::format("/data/outgoing/{}", disk_.operations());
    ASSIGN_OR_RETURN(const Snapshot snapshot, (*member_.machine)->Take(path));
    return RemoveDirectory(disk_.env(), snapshot.path);
  }
  absl::Status Adopt() {
    const Index index = (std::max(applied_, committed_) / 40 + 1) * 40;
    if (index >= kLast) return absl::OkStatus();
    ASSIGN_OR_RETURN(const Snapshot snapshot, reference_.CopyTo(disk_, index));
    const Position position = snapshot.manifest.position;
    if (position.term > now_.hard_state.term) {
      now_.hard_state = {.term = position.term, .vote = 0};
      LogUpdate promise;
      promise.hard_state = now_.hard_state;
      RETURN_IF_ERROR(Commit(std::move(promise)));
      Acknowledge();
    }
    RETURN_IF_ERROR(member_.store->BeginAdopting(position));
    Acknowledge();
    now_.reset = position;
    RETURN_IF_ERROR((*member_.machine)->Adopt(snapshot));
    now_.flushed = index;
    Acknowledge();
    now_.reset.reset();
    now_.entries.clear();
    now_.base = index;
    LogUpdate reset;
    reset.reset = position;
    RETURN_IF_ERROR(Commit(std::move(reset)));
    applied_ = committed_ = held_ = index;
    ++adoptions_;
    return absl::OkStatus();
  }
  absl::Status Restart() {
    member_ = {};
    ASSIGN_OR_RETURN(member_, OpenMember(disk_, &broken_));
    applied_ = member_.found.applied;
    return absl::OkStatus();
  }
  absl::Status TakeStep() {
    const uint64_t draw = dice_.Below(100);
    if (draw < 40) return Append();
    if (draw < 50) return AppendStray();
    if (draw < 75) return Apply();
    if (draw < 84) return FlushAndDrop();
    if (draw < 87) return TakeSnapshot();
    if (draw < 90) return Adopt();
    if (draw < 92) return Restart();
    return member_.floor->Raise(committed_, *member_.store);
  }

  FaultDisk& disk_;
  const Reference& reference_;
  Dice dice_;
  std::atomic<bool> broken_ = false;
  Step now_;
  std::vector<Step> steps_;
  Index held_ = 1;  // The log holds the committed entries up to here.
  Index committed_ = 0;
  Index applied_ = 0;
  size_t adoptions_ = 0;
  Member member_;
};

bool Matches(const raft::Found& found, const Workload::Step& step) {
  if (found.hard_state != step.hard_state || found.base.index > step.base) return false;
  const Index last = found.entries.empty() ? found.base.index : found.entries.back()->index;
  if (last != step.last()) return false;
  for (const EntryPtr& entry : step.entries) {
    if (entry->index <= step.base) continue;
    if (*found.entries[entry->index - found.base.index - 1] != *entry) return false;
  }
  return true;
}

std::string Judge(Member& member, const Reference& reference, const Workload::Step& before,
                  const Workload::Step& after) {
  const raft::Found& found = member.found;
  KvMachine& machine = **member.machine;
  const auto was_reset = [&found](const Workload::Step& step) {
    return step.reset == found.base && found.entries.empty() && found.hard_state == step.hard_state;
  };
  const bool same =
      Matches(found, before) || Matches(found, after) || was_reset(before) || was_reset(after);
  if (!same) {
    return fmt::format(
        "the log holds term {}, {} entries after {}; acknowledged term {}, entries to {} after {}",
        found.hard_state.term, found.entries.size(), found.base.index, before.hard_state.term,
        before.last(), before.base);
  }
  if (found.applied < before.flushed) {
    return fmt::format("the state stands at {}, {} was flushed", found.applied, before.flushed);
  }
  if (Describe(machine) != reference.StateAt(found.applied)) {
    return fmt::format("the state is {}, not {}", Describe(machine),
                       reference.StateAt(found.applied));
  }
  // Replay what is certainly committed: what the reference has too.
  std::vector<EntryPtr> rest;
  for (const EntryPtr& entry : found.entries) {
    if (entry->index <= found.applied) continue;
    if (*entry != *reference.At(entry->index)) break;
    rest.push_back(entry);
  }
  if (rest.empty()) return "";
  member.machine->Apply(rest);
  if (Describe(machine) != reference.StateAt(rest.back()->index)) {
    return fmt::format("after the replay the state is {}, not {}", Describe(machine),
                       reference.StateAt(rest.back()->index));
  }
  return "";
}

TEST_CASE("a member recovers log, floor and state together, wherever the power is cut") {
  const size_t stride = CrashStride(2) * 3;
  const uint64_t seed = CrashSeed() + 500;
  const Reference reference(seed);
  FaultDisk disk;
  Workload workload(disk, reference, seed);
  const absl::Status ran = workload.Run();
  INFO(kv::Describe(ran));
  REQUIRE(ran.ok());
  workload.Close();
  CHECK(workload.adoptions() > 0);
  const CutCount count =
      CutEverywhere(fmt::format("member, seed {}", seed), disk.trace(), seed, stride,
                    [&](FaultDisk& after, size_t operations) -> Verdict {
                      const std::vector<Workload::Step>& steps = workload.steps();
                      size_t acknowledged = 0;
                      while (acknowledged + 1 < steps.size() &&
                             steps[acknowledged + 1].operations <= operations) {
                        ++acknowledged;
                      }
                      auto member = OpenMember(after);
                      if (!member.ok())
                        return {.failure = kv::Describe(member.status()), .found = ""};
                      Verdict verdict;
                      verdict.found = fmt::format("base {}, {} entries", member->found.base.index,
                                                  member->found.entries.size());
                      verdict.failure = Judge(*member, reference, steps[acknowledged],
                                              steps[std::min(acknowledged + 1, steps.size() - 1)]);
                      return verdict;
                    });
  std::cout << fmt::format(
      "member, seed {}: {} operations, {} adoptions, {} cuts, {} of them "
      "twice\n",
      seed, disk.operations(), workload.adoptions(), count.cuts, count.nested);
}

}  // namespace
}  // namespace kv::test

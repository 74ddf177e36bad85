#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "storage/check.h"
#include "storage/status.h"
#include "tests/kv/machine_fixture.h"

namespace kv {
namespace {

using kvd::internal::CLUSTER_VERSION;
using kvd::internal::COMPACT;
using kvd::internal::DELETE_RANGE;
using kvd::internal::PUT;
using kvd::internal::TXN;

etcdserverpb::PutRequest PutOf(const std::string& key, const std::string& value) {
  etcdserverpb::PutRequest put;
  put.set_key(key);
  put.set_value(value);
  return put;
}

etcdserverpb::CompactionRequest CompactOf(int64_t revision) {
  etcdserverpb::CompactionRequest request;
  request.set_revision(revision);
  return request;
}

std::string Value(const KvMachine& machine, const std::string& key) {
  etcdserverpb::RangeRequest request;
  request.set_key(key);
  const auto response = machine.Range(request);
  REQUIRE(response.ok());
  return response->kvs_size() == 0 ? "" : response->kvs(0).value();
}

constexpr Revision kKeys = 8;
constexpr Revision kRevisions = 3000;

// A log in which everything happens that can.
std::vector<std::string> RandomCommands(Dice& dice, int count) {
  std::vector<std::string> commands;
  int64_t revision = 1;
  const auto key = [&dice] { return "key" + std::to_string(dice.Below(50)); };
  for (int i = 0; i < count; ++i) {
    const uint64_t choice = dice.Below(20);
    if (choice < 12) {
      commands.push_back(EncodeCommand(PUT, PutOf(key(), std::to_string(i))));
      ++revision;
    } else if (choice < 15) {
      etcdserverpb::DeleteRangeRequest request;
      request.set_key(key());
      if (dice.OneIn(3)) request.set_range_end(key());
      commands.push_back(EncodeCommand(DELETE_RANGE, request));
    } else if (choice < 19) {
      etcdserverpb::TxnRequest txn;
      auto& compare = *txn.add_compare();
      compare.set_key(key());
      compare.set_target(etcdserverpb::Compare::VERSION);
      compare.set_result(etcdserverpb::Compare::GREATER);
      compare.set_version(1);
      *txn.add_success()->mutable_request_put() = PutOf("then" + key(), "x");
      *txn.add_failure()->mutable_request_put() = PutOf("else" + key(), "y");
      commands.push_back(EncodeCommand(TXN, txn));
      ++revision;
    } else {
      commands.push_back(EncodeCommand(
          COMPACT,
          CompactOf(static_cast<int64_t>(dice.Below(static_cast<uint64_t>(revision)) + 1))));
    }
  }
  return commands;
}

void Fill(MachineFixture& fixture, const std::vector<std::string>& commands) {
  for (const std::string& command : commands) fixture.Append(EntryKind::kCommand, command);
}

std::vector<EntryPtr> Part(const MachineFixture& fixture, size_t from, size_t to) {
  return {fixture.entries().begin() + static_cast<std::ptrdiff_t>(from),
          fixture.entries().begin() + static_cast<std::ptrdiff_t>(to)};
}

Snapshot TakeFrom(MachineFixture& fixture, const std::string& name) {
  absl::StatusOr<Snapshot> snapshot = fixture.machine().Take(fixture.path() + "/" + name);
  INFO(Describe(snapshot.status()));
  REQUIRE(snapshot.ok());
  return *std::move(snapshot);
}

// Copies a snapshot beside another member's state, as a transfer does.
Snapshot Transfer(const Snapshot& snapshot, MachineFixture& to, const std::string& name) {
  Snapshot copy = snapshot;
  copy.path = to.path() + "/" + name;
  std::filesystem::copy(snapshot.path, copy.path);
  return copy;
}

std::vector<std::string> StateDirectories(const std::string& path) {
  std::vector<std::string> names;
  for (const auto& each : std::filesystem::directory_iterator(path)) {
    const std::string name = each.path().filename().string();
    if (name.rfind("state-", 0) == 0) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace

TEST_CASE(
    "members that applied the same entries agree, whatever their runs, crashes and snapshots") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  Dice dice(seed);
  const std::vector<std::string> commands = RandomCommands(dice, 600);
  MachineFixture one_by_one;
  MachineFixture in_runs(0);
  MachineFixture by_snapshot;
  Fill(one_by_one, commands);
  Fill(in_runs, commands);
  Fill(by_snapshot, commands);

  one_by_one.Apply(Part(one_by_one, 0, 400), 1);
  in_runs.Apply(Part(in_runs, 0, 600), 97);
  in_runs.Work();
  in_runs.CrashAndRecover();
  by_snapshot.Apply(Part(by_snapshot, 0, 5), 5);
  const Snapshot snapshot = Transfer(TakeFrom(one_by_one, "taken"), by_snapshot, "incoming");
  CHECK(snapshot.manifest.position == Position{.index = 401, .term = 1});
  REQUIRE(by_snapshot.machine().Adopt(snapshot).ok());
  CHECK(by_snapshot.machine().head() == one_by_one.machine().head());
  by_snapshot.Apply(Part(by_snapshot, 400, 600), 13);
  one_by_one.Apply(Part(one_by_one, 400, 600), 1);
  one_by_one.WorkOnce();

  const Head head = one_by_one.machine().head();
  CHECK(head == in_runs.machine().head());
  CHECK(head == by_snapshot.machine().head());
  const uint32_t hash = one_by_one.machine().HashKv(0)->hash();
  CHECK(hash == in_runs.machine().HashKv(0)->hash());
  CHECK(hash == by_snapshot.machine().HashKv(0)->hash());
  by_snapshot.Work();
  CHECK(hash == by_snapshot.machine().HashKv(0)->hash());
}

TEST_CASE("a different entry gives another digest") {
  MachineFixture a;
  MachineFixture b;
  a.Do(PUT, PutOf("k", "v"));
  b.Do(PUT, PutOf("k", "w"));
  CHECK(a.machine().head().digest != b.machine().head().digest);
  a.Do(PUT, PutOf("k", "x"));
  b.Do(PUT, PutOf("k", "x"));
  CHECK(a.machine().head().digest != b.machine().head().digest);
}

TEST_CASE("a view survives the adoption of a snapshot, and the old state goes with it") {
  MachineFixture source;
  for (int i = 0; i < 10; ++i) source.Do(PUT, PutOf("k", "new" + std::to_string(i)));
  MachineFixture target;
  target.Do(PUT, PutOf("k", "old"));
  {
    const View view = target.machine().Latest();
    REQUIRE(target.machine().Adopt(Transfer(TakeFrom(source, "taken"), target, "in")).ok());
    CHECK(Value(target.machine(), "k") == "new9");
    REQUIRE(view.Get("k").ok());
    CHECK((*view.Get("k"))->value == "old");
    CHECK(StateDirectories(target.path()) ==
          std::vector<std::string>{"state-000001", "state-000002"});
  }
  CHECK(StateDirectories(target.path()) == std::vector<std::string>{"state-000002"});
  CHECK_FALSE(std::filesystem::exists(target.path() + "/in"));
  CHECK(target.machine().Durable()->index == 11);
  target.Close();
  target.Open();
  CHECK(Value(target.machine(), "k") == "new9");
  CHECK(target.machine().applied().index == 11);
}

TEST_CASE("a snapshot that is not what its manifest says does not become the state") {
  MachineFixture source;
  source.Do(PUT, PutOf("k", "new"));
  MachineFixture target;
  target.Do(PUT, PutOf("k", "old"));
  Snapshot snapshot = Transfer(TakeFrom(source, "taken"), target, "in");
  snapshot.manifest.position.index += 1;
  CHECK(target.machine().Adopt(snapshot).code() == absl::StatusCode::kDataLoss);
  CHECK(Value(target.machine(), "k") == "old");
  // What it left behind is in nobody's way.
  REQUIRE(target.machine().Adopt(Transfer(TakeFrom(source, "again"), target, "in2")).ok());
  CHECK(Value(target.machine(), "k") == "new");
}

TEST_CASE("a crash while a snapshot is adopted leaves the old state or the new one") {
  MachineFixture fixture;
  fixture.Do(PUT, PutOf("k", "v"));
  REQUIRE(fixture.machine().Flush().ok());
  fixture.Close();
  // Placed, but STATE does not name it yet.
  std::filesystem::copy(fixture.path() + "/state-000001", fixture.path() + "/state-000002");
  fixture.Open();
  CHECK(StateDirectories(fixture.path()) == std::vector<std::string>{"state-000001"});
  CHECK(Value(fixture.machine(), "k") == "v");
  fixture.Close();
  // STATE names the new one, the old one is still there.
  std::filesystem::copy(fixture.path() + "/state-000001", fixture.path() + "/state-000002");
  std::ofstream(fixture.path() + "/STATE") << "state-000002\n";
  fixture.Open();
  CHECK(StateDirectories(fixture.path()) == std::vector<std::string>{"state-000002"});
  CHECK(Value(fixture.machine(), "k") == "v");
}

TEST_CASE("a state that cannot be believed is refused with a sentence") {
  MachineFixture fixture;
  fixture.Close();
  const std::string state = fixture.path() + "/STATE";
  const auto refusal = [&fixture] {
    const auto machine = KvMachine::Open(fixture.options());
    REQUIRE_FALSE(machine.ok());
    return std::string(Message(machine.status()));
  };
  std::ofstream(state) << "state-000009\n";
  CHECK(refusal().find("state-000009, which is not there") != std::string::npos);
  std::ofstream(state) << "../../etc\n";
  CHECK(refusal().find("does not name a state directory") != std::string::npos);
  CHECK(KvMachine::Exists(fixture.options()).status().code() == absl::StatusCode::kDataLoss);
  std::filesystem::remove(state);
  CHECK(refusal().find("holds no state") != std::string::npos);
  CHECK_FALSE(*KvMachine::Exists(fixture.options()));
}

TEST_CASE("a member is not founded twice, and a founding that broke off is begun again") {
  MachineFixture fixture;
  raft::Members members;
  members.voters = {7};
  CHECK(KvMachine::Found(fixture.options(), {.index = 1, .term = 1}, members).code() ==
        absl::StatusCode::kAlreadyExists);
  fixture.Close();
  std::filesystem::remove(fixture.path() + "/STATE");
  REQUIRE(KvMachine::Found(fixture.options(), {.index = 1, .term = 1}, members).ok());
  fixture.Open();
  CHECK(fixture.machine().members() == members);
  CHECK(fixture.machine().head() == Head{.applied = {.index = 1, .term = 1}});
}

TEST_CASE("a configuration takes effect with its entry and survives a restart and a snapshot") {
  MachineFixture fixture;
  raft::Members members;
  members.voters = {1, 2, 3};
  members.records = {{2, "record"}};
  fixture.Apply({fixture.Append(EntryKind::kMembers, raft::Encode(members)),
                 fixture.Append(EntryKind::kEmpty, "")});
  CHECK(fixture.machine().members() == members);
  CHECK(fixture.machine().applied().index == 3);
  CHECK(fixture.machine().head().revision == 1);
  CHECK(TakeFrom(fixture, "taken").manifest.members == raft::Encode(members));
  fixture.Close();
  fixture.Open();
  CHECK(fixture.machine().members() == members);
  MachineFixture other;
  REQUIRE(other.machine().Adopt(Transfer(TakeFrom(fixture, "again"), other, "in")).ok());
  CHECK(other.machine().members() == members);
}

TEST_CASE("the cluster version never goes down") {
  MachineFixture fixture;
  kvd::internal::ClusterVersion version;
  const auto move_to = [&](uint32_t number) {
    version.set_version(number);
    const Reply reply = fixture.Do(CLUSTER_VERSION, version);
    REQUIRE(reply.status.ok());
    kvd::internal::ClusterVersion answer;
    REQUIRE(answer.ParseFromString(reply.body));
    CHECK(answer.version() == fixture.machine().cluster_version());
    return answer.version();
  };
  CHECK(fixture.machine().cluster_version() == 1);
  CHECK(move_to(kMachineVersion) == kMachineVersion);
  CHECK(move_to(0) == kMachineVersion);
  fixture.CrashAndRecover();
  CHECK(fixture.machine().cluster_version() == kMachineVersion);
}

TEST_CASE("a command that this build does not understand stops the member") {
  struct Stopped {
    std::string why;
  };
  TheCheckHook() = [](std::string_view failure) { throw Stopped{std::string(failure)}; };
  const auto why = [](const kvd::internal::Command& command) {
    MachineFixture fixture;
    try {
      fixture.Apply({fixture.Append(EntryKind::kCommand, command.SerializeAsString())});
    } catch (const Stopped& stopped) {
      return stopped.why;
    }
    return std::string("nothing");
  };
  kvd::internal::Command command;
  command.set_kind(static_cast<kvd::internal::Kind>(77));
  CHECK(why(command).find("a command of kind 77 is not known") != std::string::npos);
  command.set_kind(PUT);
  command.set_min_version(kMachineVersion + 1);
  CHECK(why(command).find("needs machine version") != std::string::npos);
  command.Clear();
  kvd::internal::ClusterVersion version;
  version.set_version(kMachineVersion + 1);
  command.set_kind(CLUSTER_VERSION);
  command.set_body(version.SerializeAsString());
  CHECK(why(command).find("the cluster moves to machine version") != std::string::npos);
  TheCheckHook() = nullptr;
}

TEST_CASE("what is durable follows the flush") {
  MachineFixture fixture;
  fixture.Do(PUT, PutOf("k", "v"));
  CHECK(fixture.machine().Durable()->index == 1);
  CHECK(fixture.machine().UnflushedBytes() > 0);
  REQUIRE(fixture.machine().Flush().ok());
  CHECK(*fixture.machine().Durable() == Position{.index = 2, .term = 1});
}

TEST_CASE("who waits for a compaction hears of the machine's end") {
  MachineFixture fixture;
  fixture.Do(PUT, PutOf("k", "v"));
  fixture.Do(COMPACT, CompactOf(2));
  std::vector<absl::StatusCode> heard;
  fixture.machine().AwaitCompacted(
      2, [&heard](const absl::Status& status) { heard.push_back(status.code()); });
  CHECK(heard.empty());
  fixture.Close();
  CHECK(heard == std::vector<absl::StatusCode>{absl::StatusCode::kUnavailable});
}

TEST_CASE("a compaction under way when the state is replaced is finished on the new one") {
  MachineFixture source;
  for (int i = 0; i < 5; ++i) source.Do(PUT, PutOf("k", std::to_string(i)));
  source.Do(COMPACT, CompactOf(5));
  MachineFixture target;
  for (int i = 0; i < 5; ++i) target.Do(PUT, PutOf("k", std::to_string(i)));
  target.Do(COMPACT, CompactOf(3));
  bool heard = false;
  target.machine().AwaitCompacted(5, [&heard](const absl::Status& status) { heard = status.ok(); });
  REQUIRE(target.machine().Adopt(Transfer(TakeFrom(source, "taken"), target, "in")).ok());
  target.Work();
  CHECK(heard);
}

// Revision r, from 2 on, puts key r % kKeys; so what any key holds at any revision is known.
TEST_CASE("readers on other threads see each revision whole") {
  MachineFixture fixture(4096);
  const auto key = [](Revision revision) { return "k" + std::to_string(revision % kKeys); };
  std::atomic<bool> done = false;
  std::atomic<int> faults = 0;
  std::vector<std::thread> readers;
  const KvMachine& machine = fixture.machine();
  for (uint64_t reader = 0; reader < 2; ++reader) {
    readers.emplace_back([&machine, &done, &faults, &key, reader] {
      Dice dice(reader);
      Revision seen = 0;
      while (!done) {
        etcdserverpb::RangeRequest one;
        one.set_key(key(static_cast<Revision>(dice.Below(kKeys))));
        const auto answer = machine.Range(one);
        const Revision now = answer->header().revision();
        if (now < seen) ++faults;
        seen = now;
        Revision expected = now;
        while (expected >= 2 && key(expected) != one.key()) --expected;
        const Revision mod = answer->kvs_size() == 0 ? 1 : answer->kvs(0).mod_revision();
        if (std::max<Revision>(expected, 1) != mod) ++faults;

        etcdserverpb::RangeRequest all;
        all.set_key("k");
        all.set_range_end("l");
        all.set_count_only(dice.OneIn(2));
        const auto whole = machine.Range(all);
        const Revision live = std::min(whole->header().revision() - 1, kKeys);
        if (whole->count() != live) ++faults;
        for (const auto& kv : whole->kvs()) {
          if (kv.mod_revision() + kKeys <= whole->header().revision()) ++faults;
        }
      }
    });
  }
  for (Revision revision = 2; revision < kRevisions;) {
    std::vector<EntryPtr> run;
    for (int i = 0; i < 7; ++i, ++revision) {
      run.push_back(
          fixture.Append(EntryKind::kCommand, EncodeCommand(PUT, PutOf(key(revision), "value"))));
    }
    fixture.Apply(run);
    if (revision % 100 < 7) {
      fixture.Do(COMPACT, CompactOf(revision - 20));
      fixture.Work();
    }
  }
  done = true;
  for (std::thread& reader : readers) reader.join();
  CHECK(faults == 0);
}

}  // namespace kv

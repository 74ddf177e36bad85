// A few Replicas in one test: virtual time, a switchboard for a network, list machines, logs in
// memory that outlive a member's process.
#pragma once

#include <rocksdb/env.h>

#include <unistd.h>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "server/replica/forward.h"
#include "server/replica/recovery.h"
#include "server/replica/replica.h"
#include "storage/status.h"
#include "tests/replica/fake_network.h"
#include "tests/replica/fake_runtime.h"
#include "tests/replica/list_machine.h"
#include "tests/replica/memory_database.h"

namespace kv::test {

// A directory that goes with the test.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    static int count = 0;
    path_ = std::filesystem::temp_directory_path() /
            ("kvd-replica-test-" + std::to_string(::getpid()) + "-" + std::to_string(++count));
    std::filesystem::create_directories(path_);
  }
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string path(const std::string& below = {}) const {
    return below.empty() ? path_.string() : (path_ / below).string();
  }

 private:
  std::filesystem::path path_;
};

inline raft::Members FoundersOf(const std::vector<MemberId>& ids) {
  raft::Members members;
  members.voters = ids;
  for (MemberId id : ids) {
    members.records[id] = Encode(MemberRecord{.name = "m" + std::to_string(id),
                                              .peer_urls = {Switchboard::AddressOf(id)},
                                              .client_urls = {},
                                              .node_uuid = "uuid" + std::to_string(id)});
  }
  return members;
}

// One member's disk and process.
struct Member {
  MemberId id = 0;
  std::string directory;
  MemoryDisk disk;
  uint64_t boots = 0;
  std::vector<std::string> fatal;  // Sentences.
  ReplicaOptions options;
  std::unique_ptr<ListMachine> machine;
  std::unique_ptr<FakeNetwork> network;
  std::unique_ptr<Replica> replica;
};

class Cluster {
 public:
  explicit Cluster(std::vector<MemberId> founders, ReplicaOptions options = {}, uint64_t seed = 1)
      : runtime(seed), board(&runtime), founders_(FoundersOf(founders)) {
    for (MemberId id : founders) Add(id, founders_, options);
    for (MemberId id : founders) Start(id);
  }
  ~Cluster() {
    for (auto& [id, member] : members) member.replica.reset();
  }

  Member& Add(MemberId id, const raft::Members& as_of_founding, ReplicaOptions options = {}) {
    Member& member = members[id];
    member.id = id;
    member.directory = scratch_.path(std::to_string(id));
    std::filesystem::create_directories(member.directory);
    member.options = options;
    member.options.data_dir = member.directory;
    member.machine = std::make_unique<ListMachine>(as_of_founding);
    auto store = std::make_unique<LogStore>(std::make_unique<MemoryDatabase>(&member.disk));
    KV_CHECK(store->Load().ok());
    std::vector<LogUpdate> founding(1);
    founding[0].hard_state = HardState{.term = 1, .vote = 0};
    founding[0].reset = Position{.index = 1, .term = 1};
    // The floor file is made beside the empty log, as a member does when it is founded.
    KV_CHECK(Floor::Open(rocksdb::Env::Default(), FloorPath(member), OwnerOf(id), {}).ok());
    KV_CHECK(store->Commit(founding).ok());
    return member;
  }

  // From what the disk holds.
  void Start(MemberId id) {
    Member& member = members.at(id);
    auto store = std::make_unique<LogStore>(std::make_unique<MemoryDatabase>(&member.disk));
    absl::StatusOr<LogStore::Contents> contents = store->Load();
    KV_CHECK(contents.ok(), Describe(contents.status()));
    auto floor = Floor::Open(rocksdb::Env::Default(), FloorPath(member), OwnerOf(id), *contents);
    KV_CHECK(floor.ok(), Describe(floor.status()));
    absl::StatusOr<raft::Found> found =
        Recover(*std::move(contents), *store, **floor, *member.machine);
    KV_CHECK(found.ok(), Describe(found.status()));
    member.network = std::make_unique<FakeNetwork>(&board, id, member.directory);
    Replica::Parts parts;
    parts.runtime = &runtime;
    parts.network = member.network.get();
    parts.machine = member.machine.get();
    parts.env = rocksdb::Env::Default();
    parts.log_store = std::move(store);
    parts.floor = *std::move(floor);
    parts.fatal = [&member](std::string_view sentence) { member.fatal.emplace_back(sentence); };
    LocalIdentity self{.cluster_id = 7,
                       .member_id = id,
                       .name = "m" + std::to_string(id),
                       .node_uuid = "uuid" + std::to_string(id),
                       .boot_epoch = ++member.boots};
    member.replica =
        std::make_unique<Replica>(self, member.options, std::move(parts), *std::move(found));
    member.replica->Start();
  }
  // The process ends at once; the machine falls back to what was flushed.
  void Crash(MemberId id) {
    Member& member = members.at(id);
    member.replica.reset();
    member.network.reset();
    member.machine->Crash();
  }

  Replica& replica(MemberId id) { return *members.at(id).replica; }
  ListMachine& machine(MemberId id) { return *members.at(id).machine; }

  // Who leads, as everybody that runs and is not in `except` agrees; 0: nobody within the limit.
  MemberId AwaitLeader(MemberId except = 0) {
    MemberId leader = 0;
    runtime.RunUntil([&] {
      leader = 0;
      for (auto& [id, member] : members) {
        if (id == except || member.replica == nullptr) continue;
        MemberId known = member.replica->leader();
        if (known == 0 || known == except || (leader != 0 && leader != known)) return false;
        leader = known;
      }
      return leader != 0 && replica(leader).Status().standing.established;
    });
    return leader;
  }
  MemberId FollowerOf(MemberId leader) {
    for (auto& [id, member] : members) {
      if (id != leader) return id;
    }
    return 0;
  }

  // What a call of Propose came to; empty until it did.
  struct Outcome {
    int answers = 0;
    ProposalResult result;
    absl::Duration at;
  };
  std::shared_ptr<Outcome> Propose(MemberId at, std::string command,
                                   absl::Duration deadline = absl::Seconds(5)) {
    auto outcome = std::make_shared<Outcome>();
    replica(at).Propose(std::move(command), deadline, [this, outcome](ProposalResult result) {
      ++outcome->answers;
      outcome->result = std::move(result);
      outcome->at = runtime.Uptime();
    });
    return outcome;
  }
  std::shared_ptr<Outcome> Await(std::shared_ptr<Outcome> outcome) {
    runtime.RunUntil([&] { return outcome->answers > 0; });
    return outcome;
  }
  bool AwaitApplied(MemberId id, Index index) {
    return runtime.RunUntil([&] { return machine(id).applied().index >= index; });
  }

  FakeRuntime runtime;
  Switchboard board;
  std::map<MemberId, Member> members;

 private:
  static std::string FloorPath(const Member& member) { return member.directory + "/FLOOR"; }
  static Floor::Owner OwnerOf(MemberId id) { return {.cluster_id = 7, .member_id = id}; }

  ScratchDirectory scratch_;
  raft::Members founders_;
};

}  // namespace kv::test

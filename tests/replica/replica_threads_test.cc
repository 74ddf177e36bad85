// A Replica on real threads: what the sanitizers look at.
#include <spdlog/spdlog.h>
#include <catch2/catch_test_macros.hpp>

#include <atomic>
#include <future>
#include <thread>

#include "server/replica/replica.h"
#include "server/replica/thread_runtime.h"
#include "tests/replica/cluster.h"

namespace kv {
namespace {

// Nobody else is there.
class NoNetwork final : public Network {
 public:
  void Start(const LocalIdentity&, Handlers handlers) override { handlers_ = std::move(handlers); }
  void SetPeers(std::vector<PeerAddress>) override {}
  void Send(raft::Envelope) override {}
  void SendSnapshot(raft::Envelope, Snapshot, SnapshotDone done) override {
    std::move(done)(false);
  }
  void Call(const std::string&, const std::string&, std::string, absl::Duration,
            CallDone done) override {
    std::move(done)(absl::UnavailableError("nobody is there"));
  }
  void Handle(const std::string&, Serve) override {}

  Handlers handlers_;
};

struct Sole {
  Sole() : machine(test::FoundersOf({1})) {
    spdlog::set_level(spdlog::level::off);
    auto store = std::make_unique<LogStore>(std::make_unique<test::MemoryDatabase>(&disk));
    absl::StatusOr<LogStore::Contents> contents = store->Load();
    REQUIRE(contents.ok());
    auto floor = Floor::Open(rocksdb::Env::Default(), scratch.path("FLOOR"),
                             {.cluster_id = 7, .member_id = 1}, *contents);
    REQUIRE(floor.ok());
    std::vector<LogUpdate> founding(1);
    founding[0].hard_state = HardState{.term = 1, .vote = 0};
    founding[0].reset = Position{.index = 1, .term = 1};
    REQUIRE(store->Commit(founding).ok());
    Replica::Parts parts;
    parts.runtime = &runtime;
    parts.network = &network;
    parts.machine = &machine;
    parts.env = rocksdb::Env::Default();
    parts.log_store = std::move(store);
    parts.floor = *std::move(floor);
    ReplicaOptions options;
    options.tick = absl::Milliseconds(5);
    options.data_dir = scratch.path();
    options.flush_log_bytes = 10'000;
    raft::Found found{.hard_state = HardState{.term = 1, .vote = 0},
                      .base = {.index = 1, .term = 1},
                      .base_members = test::FoundersOf({1}),
                      .entries = {},
                      .applied = 1};
    replica = std::make_unique<Replica>(
        LocalIdentity{.cluster_id = 7, .member_id = 1, .name = "m1", .node_uuid = "uuid1"}, options,
        std::move(parts), std::move(found));
    replica->Start();
  }

  test::ScratchDirectory scratch;
  test::MemoryDisk disk;
  test::ListMachine machine;
  ThreadRuntime runtime;
  NoNetwork network;
  std::unique_ptr<Replica> replica;
};

}  // namespace

TEST_CASE("many threads propose, read and look at one replica until it stops") {
  Sole sole;
  constexpr int kThreads = 4;
  constexpr int kEach = 300;
  std::atomic<int> answered = 0;
  std::atomic<int> done = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        sole.replica->Propose(std::to_string(t) + "/" + std::to_string(i), absl::Seconds(60),
                              [&](ProposalResult result) {
                                ++answered;
                                if (result.error == ReplicaError::kNone) ++done;
                              });
        sole.replica->Read(absl::Seconds(60), [&](ReadResult) { ++answered; });
        (void)sole.replica->Status();
        (void)sole.replica->leaderless();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::promise<void> last;
  sole.replica->Read(absl::Seconds(60), [&](ReadResult) { last.set_value(); });
  last.get_future().wait();
  std::promise<void> stopped;
  sole.replica->Stop(absl::Seconds(60), [&] { stopped.set_value(); });
  stopped.get_future().wait();
  sole.replica.reset();
  CHECK(answered == 2 * kThreads * kEach);
  CHECK(done == kThreads * kEach);
  CHECK(sole.machine.commands().size() == kThreads * kEach);
}

TEST_CASE("a replica that is destroyed in the middle of its work answers everybody once") {
  Sole sole;
  constexpr int kProposals = 2000;
  std::atomic<int> answered = 0;
  for (int i = 0; i < kProposals; ++i) {
    sole.replica->Propose("x", absl::Seconds(60), [&](ProposalResult) { ++answered; });
  }
  Network::Handlers outlives = sole.network.handlers_;
  sole.replica.reset();
  CHECK(answered == kProposals);
  outlives.receive({.from = 2, .to = 1, .term = 9, .message = raft::TimeoutNow{}});
  outlives.peer_lost(2);
}

}  // namespace kv

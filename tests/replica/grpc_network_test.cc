#include "server/replica/grpc_network.h"

#include <spdlog/spdlog.h>
#include <catch2/catch_test_macros.hpp>

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <latch>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/replica/thread_runtime.h"
#include "storage/mutex.h"
#include "storage/status.h"
#include "tests/replica/cluster.h"

namespace kv {
namespace {

using test::ScratchDirectory;

const int quiet = [] {
  spdlog::set_level(spdlog::level::off);
  return 0;
}();

// What happened so far, for a test thread to wait on.
template <typename T>
class Arrivals {
 public:
  void Add(T value) {
    MutexLock lock(mutex_);
    values_.push_back(std::move(value));
    changed_.notify_all();
  }
  // Waits until there are `count`; the test's own time limit is the only one.
  std::vector<T> Await(size_t count) {
    MutexLock lock(mutex_);
    while (values_.size() < count) mutex_.Await(changed_);
    return values_;
  }
  std::vector<T> Now() {
    MutexLock lock(mutex_);
    return values_;
  }

 private:
  Mutex mutex_;
  std::condition_variable changed_;
  std::vector<T> values_ ABSL_GUARDED_BY(mutex_);
};

struct Peer {
  explicit Peer(MemberId member, int port = 0, GrpcNetworkOptions options = {},
                std::ptrdiff_t holds = 0)
      : id(member), may_read(holds) {
    options.listen_urls = {"http://127.0.0.1:" + std::to_string(port)};
    options.data_dir = scratch.path();
    options.env = rocksdb::Env::Default();
    options.version = "test";
    network = std::make_unique<GrpcNetwork>(&runtime, std::move(options));
    absl::Status listening = network->Listen();
    INFO(Describe(listening));
    REQUIRE(listening.ok());
  }

  LocalIdentity Identity() const {
    return {.cluster_id = 7,
            .member_id = id,
            .name = "m" + std::to_string(id),
            .node_uuid = "uuid" + std::to_string(id),
            .boot_epoch = 1};
  }
  void Start() { Start(Identity()); }
  void Start(const LocalIdentity& self) {
    network->Start(
        self,
        {.receive =
             [this](raft::Envelope e) {
               received.Add(std::move(e));
               may_read.wait();
             },
         .receive_snapshot =
             [this](raft::Envelope offer, Snapshot snapshot) {
               snapshots.Add({std::move(offer), std::move(snapshot)});
             },
         .peer_lost = [this](MemberId peer) { lost.Add(peer); },
         .peer_met =
             [this](MemberId peer, uint32_t) {
               if (on_met) on_met(peer);
               met.Add(peer);
             },
         .last_index = [] { return Index{3}; },
         .acknowledged_by =
             [this](MemberId peer) {
               const auto at = acknowledged.find(peer);
               return at == acknowledged.end() ? Index{0} : at->second;
             },
         .found_stale = [this](std::string evidence) { found_stale.Add(std::move(evidence)); }});
  }
  PeerAddress Address() const {
    return {.id = id,
            .node_uuid = "uuid" + std::to_string(id),
            .urls = {"http://127.0.0.1:" + std::to_string(network->port())}};
  }
  std::string Url() const { return Address().urls[0]; }

  const MemberId id;
  ScratchDirectory scratch;
  ThreadRuntime runtime;
  Arrivals<raft::Envelope> received;
  Arrivals<std::pair<raft::Envelope, Snapshot>> snapshots;
  Arrivals<MemberId> lost;
  Arrivals<MemberId> met;
  std::latch may_read;  // Until it opens, nothing is read after the first envelope.
  std::function<void(MemberId)> on_met;    // Set before Start.
  std::map<MemberId, Index> acknowledged;  // Set before Start.
  Arrivals<std::string> found_stale;
  std::unique_ptr<GrpcNetwork> network;
};

raft::Envelope Numbered(MemberId from, MemberId to, uint64_t number) {
  return {.from = from, .to = to, .term = 1, .message = raft::ReadRequest{.number = number}};
}
uint64_t NumberOf(const raft::Envelope& envelope) {
  return std::get<raft::ReadRequest>(envelope.message).number;
}

// Sends until the first message gets through: before the streams are up they are dropped.
void AwaitPath(Peer& from, Peer& to) {
  from.met.Await(1);
  while (from.network->Connected().empty()) std::this_thread::yield();
  (void)to;
}

absl::StatusOr<std::string> CallAndWait(Peer& from, const std::string& address,
                                        const std::string& method, std::string request,
                                        absl::Duration deadline = absl::Seconds(60)) {
  Arrivals<absl::StatusOr<std::string>> answers;
  from.network->Call(address, method, std::move(request), deadline,
                     [&](absl::StatusOr<std::string> answer) { answers.Add(std::move(answer)); });
  return answers.Await(1)[0];
}

}  // namespace

TEST_CASE("envelopes reach the member they are for, in order, both ways") {
  Peer a(1);
  Peer b(2);
  a.Start();
  b.Start();
  a.network->SetPeers({b.Address()});
  b.network->SetPeers({a.Address()});
  AwaitPath(a, b);
  AwaitPath(b, a);
  for (uint64_t i = 0; i < 1000; ++i) {
    a.network->Send(Numbered(1, 2, i));
    b.network->Send(Numbered(2, 1, i));
  }
  std::vector<raft::Envelope> at_b = b.received.Await(1000);
  std::vector<raft::Envelope> at_a = a.received.Await(1000);
  for (uint64_t i = 0; i < 1000; ++i) {
    CHECK(NumberOf(at_b[i]) == i);
    CHECK(at_b[i].from == 1);
    CHECK(NumberOf(at_a[i]) == i);
  }
}

TEST_CASE("appends of many megabytes arrive whole, and urgent messages overtake them") {
  Peer a(1);
  Peer b(2, 0, {}, 1);
  a.Start();
  b.Start();
  a.network->SetPeers({b.Address()});
  AwaitPath(a, b);
  std::string data(size_t{1} << 20, 'x');
  for (Index i = 0; i < 16; ++i) {
    a.network->Send(
        {.from = 1,
         .to = 2,
         .term = 1,
         .message = raft::Append{.prev = {.index = i, .term = 1},
                                 .entries = {MakeEntry(i + 1, 1, EntryKind::kCommand, data)},
                                 .commit = 0}});
  }
  a.network->Send(Numbered(1, 2, 99));
  b.may_read.count_down();
  std::vector<raft::Envelope> all = b.received.Await(17);
  Index next = 0;
  for (const raft::Envelope& envelope : all) {
    if (const auto* append = std::get_if<raft::Append>(&envelope.message)) {
      CHECK(append->prev.index == next++);
      CHECK(append->entries[0]->data == data);
    }
  }
  CHECK(next == 16);
  CHECK(std::holds_alternative<raft::Append>(all.back().message));
}

// gRPC aborts the process when a second write begins before the first, the handshake, is done.
TEST_CASE("what is sent the moment a peer is met goes after the handshake, both ways") {
  Peer a(1);
  Peer b(2);
  a.on_met = [&](MemberId) { a.network->Send(Numbered(1, 2, 5)); };
  b.on_met = [&](MemberId) { b.network->Send(Numbered(2, 1, 6)); };
  a.Start();
  b.Start();
  for (size_t round = 1; round <= 200; ++round) {
    a.network->SetPeers({b.Address()});
    CHECK(NumberOf(b.received.Await(round).back()) == 5);
    CHECK(NumberOf(a.received.Await(round).back()) == 6);
    a.network->SetPeers({});
  }
}

TEST_CASE("a peer that comes back is reached again") {
  Peer a(1);
  a.Start();
  auto b = std::make_unique<Peer>(2);
  b->Start();
  int port = b->network->port();
  a.network->SetPeers({b->Address()});
  AwaitPath(a, *b);
  b.reset();
  CHECK(a.lost.Await(1)[0] == 2);
  b = std::make_unique<Peer>(2, port);
  LocalIdentity second_start = b->Identity();
  second_start.boot_epoch = 2;
  b->Start(second_start);
  a.met.Await(2);
  while (a.network->Connected().empty()) std::this_thread::yield();
  a.network->Send(Numbered(1, 2, 5));
  CHECK(NumberOf(b->received.Await(1)[0]) == 5);
}

TEST_CASE("a handshake is refused unless all of it is right") {
  Peer b(2);
  b.Start();
  Peer good(1);
  struct Case {
    const char* what;
    std::function<void(LocalIdentity&, PeerAddress&)> change;
  };
  // Each dials b with one thing wrong, then again with all of it right on another network.
  std::vector<Case> cases = {
      {"another cluster", [](LocalIdentity& self, PeerAddress&) { self.cluster_id = 8; }},
      {"another member asked for", [](LocalIdentity&, PeerAddress& asked) { asked.id = 5; }},
      {"another disk asked for",
       [](LocalIdentity&, PeerAddress& asked) { asked.node_uuid = "other"; }},
      {"a disk that the member is not bound to",
       [](LocalIdentity& self, PeerAddress&) { self.node_uuid = "emptied"; }},
      {"the callee's own id", [](LocalIdentity& self, PeerAddress&) { self.member_id = 2; }},
      {"no id", [](LocalIdentity& self, PeerAddress&) { self.member_id = 0; }},
  };
  b.network->SetPeers({good.Address()});
  for (Case& wrong : cases) {
    INFO(wrong.what);
    Peer a(1);
    LocalIdentity self = a.Identity();
    PeerAddress asked = b.Address();
    wrong.change(self, asked);
    a.Start(self);
    a.network->SetPeers({asked});
    // A call goes through in the meantime, and so would a handshake have: it was refused.
    b.network->Handle("ping", [](std::string request, absl::Duration, Network::Answer answer) {
      std::move(answer)(std::move(request));
    });
    for (int i = 0; i < 20; ++i) {
      CHECK(CallAndWait(a, b.Url(), "ping", "x").ok());
      a.network->Send(Numbered(self.member_id, asked.id, 1));
    }
    CHECK(a.network->Connected().empty());
    CHECK(b.received.Now().empty());
  }
}

TEST_CASE("an older start of a member is refused once a newer one was seen") {
  Peer b(2);
  b.Start();
  Peer newer(1);
  b.network->SetPeers({newer.Address()});
  LocalIdentity self = newer.Identity();
  self.boot_epoch = 5;
  newer.Start(self);
  newer.network->SetPeers({b.Address()});
  AwaitPath(newer, b);
  Peer older(1);
  self.boot_epoch = 4;
  older.Start(self);
  older.network->SetPeers({b.Address()});
  b.network->Handle("ping", [](std::string request, absl::Duration, Network::Answer answer) {
    std::move(answer)(std::move(request));
  });
  for (int i = 0; i < 20; ++i) CHECK(CallAndWait(older, b.Url(), "ping", "x").ok());
  CHECK(older.network->Connected().empty());
  CHECK(older.found_stale.Await(1)[0] == "this is start 4 on it, and member 2 has seen start 5");
  newer.network->Send(Numbered(1, 2, 7));
  CHECK(NumberOf(b.received.Await(1)[0]) == 7);
}

TEST_CASE("a log that ends before what its member acknowledged is refused, and told so") {
  Peer knowing(1);
  knowing.acknowledged = {{2, 4}, {3, 3}};  // All logs here end at 3.
  Peer old(2);
  Peer sound(3);
  for (Peer* peer : {&knowing, &old, &sound}) {
    peer->Start();
    std::vector<PeerAddress> others;
    for (const Peer* other : {&knowing, &old, &sound}) others.push_back(other->Address());
    peer->network->SetPeers(std::move(others));
  }
  CHECK(old.found_stale.Await(2)[1] == "its log ends at entry 3, and member 1 knows of entry 4");
  // Two are connected to each other, and the old one to the one that knows nothing.
  AwaitPath(knowing, sound);
  while (old.network->Connected() != std::vector<MemberId>{3}) std::this_thread::yield();
  CHECK(knowing.network->Connected() == std::vector<MemberId>{3});
  CHECK(sound.found_stale.Now().empty());
  CHECK(knowing.found_stale.Now().empty());
}

TEST_CASE("a process that is no member yet takes no envelopes, and does once it is") {
  Peer a(1);
  Peer b(2);
  a.Start();
  a.network->SetPeers({b.Address()});
  for (int i = 0; i < 10; ++i) {
    // Nobody answers this call; that it was answered at all shows that b is up.
    CHECK(CallAndWait(a, b.Url(), "nothing", "").status().code() == absl::StatusCode::kUnavailable);
  }
  CHECK(a.network->Connected().empty());
  b.Start();
  AwaitPath(a, b);
  a.network->Send(Numbered(1, 2, 1));
  CHECK(b.received.Await(1).size() == 1);
}

TEST_CASE("a member whose address we do not know is answered along its own stream") {
  Peer a(1);
  Peer b(2);
  a.Start();
  b.Start();
  a.network->SetPeers({b.Address()});
  AwaitPath(a, b);
  b.met.Await(1);
  b.network->Send({.from = 2, .to = 1, .term = 1, .message = raft::Removed{}});
  CHECK(std::holds_alternative<raft::Removed>(a.received.Await(1)[0].message));
}

TEST_CASE("calls are answered once, before either side is a member, and carry errors") {
  Peer a(1);
  Peer b(2);
  b.network->Handle("echo", [](std::string request, absl::Duration, Network::Answer answer) {
    std::move(answer)(std::move(request));
  });
  b.network->Handle("refuse", [](std::string, absl::Duration, Network::Answer answer) {
    std::move(answer)(absl::FailedPreconditionError("as asked"));
  });
  b.network->Handle("drop", [](std::string, absl::Duration, Network::Answer) {});
  for (int i = 0; i < 100; ++i) {
    CHECK(*CallAndWait(a, b.Url(), "echo", std::to_string(i)) == std::to_string(i));
  }
  std::string large(size_t{8} << 20, 'l');
  CHECK(*CallAndWait(a, b.Url(), "echo", large) == large);
  CHECK(CallAndWait(a, b.Url(), "refuse", "").status() ==
        absl::FailedPreconditionError("as asked"));
  CHECK(CallAndWait(a, b.Url(), "nobody", "").status().code() == absl::StatusCode::kUnavailable);
  // Whoever dropped the call may have carried it out.
  CHECK(CallAndWait(a, b.Url(), "drop", "").status().code() == absl::StatusCode::kUnknown);
}

TEST_CASE("a call that was never sent is unavailable; one that was sent and not answered is not") {
  Peer a(1);
  int port = 0;
  {
    Peer gone(3);
    port = gone.network->port();
  }
  std::string nowhere = "http://127.0.0.1:" + std::to_string(port);
  CHECK(CallAndWait(a, nowhere, "x", "").status().code() == absl::StatusCode::kUnavailable);
  CHECK(CallAndWait(a, "https://127.0.0.1:1", "x", "").status().code() ==
        absl::StatusCode::kUnavailable);
  CHECK(CallAndWait(a, "no address", "x", "").status().code() == absl::StatusCode::kUnavailable);

  auto b = std::make_unique<Peer>(2);
  Arrivals<int> asked;
  Arrivals<Network::Answer*> kept;
  b->network->Handle("keep", [&](std::string, absl::Duration, Network::Answer answer) {
    kept.Add(new Network::Answer(std::move(answer)));
    asked.Add(1);
  });
  CHECK(CallAndWait(a, b->Url(), "keep", "", absl::Milliseconds(100)).status().code() ==
        absl::StatusCode::kDeadlineExceeded);
  Arrivals<absl::StatusOr<std::string>> answers;
  a.network->Call(b->Url(), "keep", "", absl::Seconds(60),
                  [&](absl::StatusOr<std::string> answer) { answers.Add(std::move(answer)); });
  asked.Await(2);
  b.reset();
  absl::StatusCode code = answers.Await(1)[0].status().code();
  CHECK(code == absl::StatusCode::kUnknown);
  for (Network::Answer* answer : kept.Now()) {
    std::move (*answer)(absl::UnknownError("too late"));  // Meets nobody.
    delete answer;
  }
}

TEST_CASE("stopping answers every call") {
  Peer b(2);
  b.network->Handle("keep", [](std::string, absl::Duration, Network::Answer answer) {
    static Arrivals<std::shared_ptr<Network::Answer>> kept;
    kept.Add(std::make_shared<Network::Answer>(std::move(answer)));
  });
  Arrivals<int> answered;
  {
    Peer a(1);
    for (int i = 0; i < 50; ++i) {
      a.network->Call(b.Url(), "keep", "", absl::Seconds(600),
                      [&](absl::StatusOr<std::string> answer) {
                        CHECK(!answer.ok());
                        answered.Add(1);
                      });
    }
    a.network->Stop();
    CHECK(answered.Now().size() == 50);
    a.network->Call(b.Url(), "keep", "", absl::Seconds(600),
                    [&](absl::StatusOr<std::string>) { answered.Add(1); });
  }
  CHECK(answered.Now().size() == 51);
}

TEST_CASE("a port that is taken is named") {
  Peer a(1);
  ThreadRuntime runtime;
  GrpcNetworkOptions options;
  options.listen_urls = {a.Url()};
  GrpcNetwork second(&runtime, std::move(options));
  absl::Status status = second.Listen();
  CHECK(!status.ok());
  CHECK(std::string(kv::Message(status)).find(a.Url()) != std::string::npos);
}

namespace {

Snapshot MakeSnapshot(const std::string& path, size_t bytes) {
  rocksdb::Env* env = rocksdb::Env::Default();
  REQUIRE(CreateDirectory(env, path).ok());
  REQUIRE(WriteFileAtomically(env, path + "/big", std::string(bytes, 'b')).ok());
  REQUIRE(WriteFileAtomically(env, path + "/empty", "").ok());
  REQUIRE(WriteFileAtomically(env, path + "/small", "small").ok());
  auto snapshot = SealSnapshot(env, path, {.index = 9, .term = 2}, "members");
  REQUIRE(snapshot.ok());
  return *snapshot;
}
raft::Envelope Offer(const Snapshot& snapshot) {
  return {.from = 1,
          .to = 2,
          .term = 2,
          .message = raft::SnapshotOffer{.at = snapshot.manifest.position,
                                         .members = snapshot.manifest.members}};
}
bool SendAndWait(Peer& from, const Snapshot& snapshot) {
  Arrivals<int> done;
  from.network->SendSnapshot(Offer(snapshot), snapshot,
                             [&](bool delivered) { done.Add(delivered ? 1 : 0); });
  return done.Await(1)[0] == 1;
}
bool NothingIn(const std::string& directory) {
  return !std::filesystem::exists(directory) || std::filesystem::is_empty(directory);
}

}  // namespace

TEST_CASE("a snapshot arrives file by file, verified, with its offer") {
  Peer a(1);
  Peer b(2);
  a.Start();
  b.Start();
  a.network->SetPeers({b.Address()});
  Snapshot snapshot = MakeSnapshot(a.scratch.path("out"), (size_t{5} << 20) + 17);
  REQUIRE(SendAndWait(a, snapshot));
  auto [offer, arrived] = b.snapshots.Await(1)[0];
  CHECK(offer == Offer(snapshot));
  CHECK(arrived.manifest.position == snapshot.manifest.position);
  CHECK(VerifySnapshot(rocksdb::Env::Default(), arrived.path).ok());
  CHECK(arrived.path.starts_with(b.scratch.path("incoming")));
}

TEST_CASE("a snapshot that changed on the sender's disk is refused and leaves nothing") {
  Peer a(1);
  Peer b(2);
  a.Start();
  b.Start();
  a.network->SetPeers({b.Address()});
  Snapshot snapshot = MakeSnapshot(a.scratch.path("out"), 3'000'000);
  std::string rotten(3'000'000, 'b');
  rotten[2'000'000] = 'c';
  REQUIRE(WriteFileAtomically(rocksdb::Env::Default(), snapshot.path + "/big", rotten).ok());
  CHECK(!SendAndWait(a, snapshot));
  CHECK(NothingIn(b.scratch.path("incoming")));
  // One that is shorter than its manifest says breaks off at the sender.
  REQUIRE(WriteFileAtomically(rocksdb::Env::Default(), snapshot.path + "/big", "short").ok());
  CHECK(!SendAndWait(a, snapshot));
  CHECK(b.snapshots.Now().empty());
  // Another one from the same member is welcome, once the receiver knows too that the last broke
  // off.
  const Snapshot again = MakeSnapshot(a.scratch.path("again"), 1000);
  bool taken = SendAndWait(a, again);
  for (int tries = 1; !taken && tries < 1000; ++tries) taken = SendAndWait(a, again);
  CHECK(taken);
}

TEST_CASE("a snapshot for nobody we know, or for somebody who is not there, is not delivered") {
  Peer a(1);
  a.Start();
  Snapshot snapshot = MakeSnapshot(a.scratch.path("out"), 1000);
  CHECK(!SendAndWait(a, snapshot));
  Peer b(2);
  a.network->SetPeers({b.Address()});
  CHECK(!SendAndWait(a, snapshot));  // Not a member yet: the handshake is refused.
  b.network->Stop();
  CHECK(!SendAndWait(a, snapshot));
}

TEST_CASE("a snapshot that is cut off midway leaves nothing") {
  auto a = std::make_unique<Peer>(1);
  Peer b(2);
  a->Start();
  b.Start();
  a->network->SetPeers({b.Address()});
  Snapshot snapshot = MakeSnapshot(a->scratch.path("out"), size_t{64} << 20);
  Arrivals<bool> done;
  a->network->SendSnapshot(Offer(snapshot), snapshot, [&](bool delivered) { done.Add(delivered); });
  while (NothingIn(b.scratch.path("incoming"))) std::this_thread::yield();
  a->network->Stop();
  bool delivered = done.Await(1)[0];
  b.network->Stop();
  if (!delivered) {
    CHECK(b.snapshots.Now().empty());
    CHECK(NothingIn(b.scratch.path("incoming")));
  }
}

TEST_CASE("three replicas on three ports commit proposals made on any of them") {
  std::vector<std::unique_ptr<Peer>> peers;
  for (MemberId id : std::vector<MemberId>{1, 2, 3}) peers.push_back(std::make_unique<Peer>(id));
  raft::Members founders;
  founders.voters = {1, 2, 3};
  for (auto& peer : peers) {
    founders.records[peer->id] = Encode(MemberRecord{.name = "m" + std::to_string(peer->id),
                                                     .peer_urls = {peer->Url()},
                                                     .client_urls = {},
                                                     .node_uuid = peer->Address().node_uuid});
  }
  struct Node {
    test::MemoryDisk disk;
    std::unique_ptr<test::ListMachine> machine;
    std::unique_ptr<Replica> replica;
  };
  std::vector<std::unique_ptr<Node>> nodes;
  for (auto& peer : peers) {
    auto node = std::make_unique<Node>();
    node->machine = std::make_unique<test::ListMachine>(founders);
    auto store = std::make_unique<LogStore>(std::make_unique<test::MemoryDatabase>(&node->disk));
    absl::StatusOr<LogStore::Contents> contents = store->Load();
    REQUIRE(contents.ok());
    auto floor = Floor::Open(rocksdb::Env::Default(), peer->scratch.path("FLOOR"),
                             {.cluster_id = 7, .member_id = peer->id}, *contents);
    REQUIRE(floor.ok());
    std::vector<LogUpdate> founding(1);
    founding[0].hard_state = HardState{.term = 1, .vote = 0};
    founding[0].reset = Position{.index = 1, .term = 1};
    REQUIRE(store->Commit(founding).ok());
    Replica::Parts parts;
    parts.runtime = &peer->runtime;
    parts.network = peer->network.get();
    parts.machine = node->machine.get();
    parts.env = rocksdb::Env::Default();
    parts.log_store = std::move(store);
    parts.floor = *std::move(floor);
    ReplicaOptions options;
    options.data_dir = peer->scratch.path();
    raft::Found found{.hard_state = founding[0].hard_state.value(),
                      .base = {.index = 1, .term = 1},
                      .base_members = founders,
                      .entries = {},
                      .applied = 1};
    node->replica =
        std::make_unique<Replica>(peer->Identity(), options, std::move(parts), std::move(found));
    node->replica->Start();
    nodes.push_back(std::move(node));
  }
  constexpr size_t kProposals = 300;
  Arrivals<ProposalResult> results;
  for (size_t i = 0; i < kProposals; ++i) {
    nodes[i % 3]->replica->Propose(std::to_string(i), absl::Seconds(60),
                                   [&](ProposalResult result) { results.Add(std::move(result)); });
  }
  for (const ProposalResult& result : results.Await(kProposals)) {
    CHECK(result.error == ReplicaError::kNone);
  }
  Arrivals<ReadResult> reads;
  for (auto& node : nodes) {
    node->replica->Read(absl::Seconds(60), [&](ReadResult result) { reads.Add(result); });
  }
  for (const ReadResult& read : reads.Await(3)) CHECK(read.error == ReplicaError::kNone);
  for (auto& node : nodes) {
    CHECK(node->machine->commands() == nodes[0]->machine->commands());
    CHECK(node->machine->commands().size() == kProposals);
  }
  for (auto& node : nodes) {
    Arrivals<int> stopped;
    node->replica->Stop(absl::Seconds(5), [&] { stopped.Add(1); });
    stopped.Await(1);
  }
  for (auto& peer : peers) peer->network->Stop();
  nodes.clear();
}

}  // namespace kv

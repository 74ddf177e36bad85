#include "server/replica/replica.h"

#include <spdlog/spdlog.h>
#include <catch2/catch_test_macros.hpp>

#include <algorithm>
#include <optional>

#include "tests/replica/cluster.h"

namespace kv {
namespace {

using test::Cluster;

const int quiet = [] {
  spdlog::set_level(spdlog::level::off);
  return 0;
}();

const std::vector<MemberId> kAll = {1, 2, 3};

size_t Count(const std::vector<std::string>& commands, const std::string& command) {
  return static_cast<size_t>(std::count(commands.begin(), commands.end(), command));
}

}  // namespace

TEST_CASE("a proposal is answered once, with what the machine made of it, and applied everywhere") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  REQUIRE(leader != 0);
  auto put = cluster.Await(cluster.Propose(leader, "a"));
  CHECK(put->result.error == ReplicaError::kNone);
  CHECK(put->result.reply.body == "did a");
  cluster.runtime.RunFor(absl::Seconds(1));
  CHECK(put->answers == 1);
  for (MemberId id : kAll) {
    CHECK(cluster.machine(id).commands() == std::vector<std::string>{"a"});
    CHECK(cluster.machine(id).applied() == put->result.position);
  }
}

TEST_CASE("a refusal by the machine reaches the caller as it is") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  for (MemberId at : {leader, cluster.FollowerOf(leader)}) {
    auto put = cluster.Await(cluster.Propose(at, "refuse"));
    CHECK(put->result.error == ReplicaError::kNone);
    CHECK(put->result.reply.status == absl::FailedPreconditionError("as asked"));
  }
}

TEST_CASE("a follower passes a proposal to the leader and has applied it when it answers") {
  Cluster cluster({1, 2, 3});
  MemberId follower = cluster.FollowerOf(cluster.AwaitLeader());
  auto put = cluster.Propose(follower, "b");
  bool applied_first = false;
  cluster.runtime.RunUntil([&] {
    if (put->answers == 0) return false;
    applied_first = cluster.machine(follower).applied().index >= put->result.position.index;
    return true;
  });
  CHECK(put->result.error == ReplicaError::kNone);
  CHECK(put->result.reply.body == "did b");
  CHECK(applied_first);
}

TEST_CASE("proposals that a follower gathers travel together") {
  Cluster cluster({1, 2, 3});
  MemberId follower = cluster.FollowerOf(cluster.AwaitLeader());
  int before = cluster.board.calls;
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 100; ++i) puts.push_back(cluster.Propose(follower, std::to_string(i)));
  for (int i = 0; i < 100; ++i) {
    CHECK(cluster.Await(puts[static_cast<size_t>(i)])->result.reply.body ==
          "did " + std::to_string(i));
  }
  CHECK(cluster.board.calls == before + 1);
}

TEST_CASE("many proposals become few writes and few runs of the machine") {
  Cluster cluster({1});
  REQUIRE(cluster.AwaitLeader() == 1);
  int syncs = cluster.members.at(1).disk.syncs;
  int runs = cluster.machine(1).runs();
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 1000; ++i) puts.push_back(cluster.Propose(1, std::to_string(i)));
  for (auto& put : puts) CHECK(cluster.Await(put)->result.error == ReplicaError::kNone);
  CHECK(cluster.members.at(1).disk.syncs - syncs <= 3);
  CHECK(cluster.machine(1).runs() - runs <= 3);
  for (size_t i = 0; i < 1000; ++i) CHECK(cluster.machine(1).commands()[i] == std::to_string(i));
}

TEST_CASE("without a leader a proposal waits for one, and fails for certain at its deadline") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(leader);
  for (MemberId id : kAll) cluster.board.Isolate(id);
  cluster.runtime.RunFor(absl::Seconds(5));
  REQUIRE(cluster.replica(follower).leader() == 0);
  CHECK(cluster.replica(follower).leaderless() > absl::Seconds(1));
  auto hopeless = cluster.Propose(follower, "hopeless", absl::Seconds(1));
  auto patient = cluster.Propose(follower, "patient", absl::Seconds(20));
  absl::Duration begun = cluster.runtime.Uptime();
  cluster.Await(hopeless);
  CHECK(hopeless->result.error == ReplicaError::kNoLeader);
  CHECK(hopeless->at - begun >= absl::Seconds(1));
  CHECK(hopeless->at - begun <= absl::Seconds(1) + 2 * ReplicaOptions{}.tick);
  cluster.board.Heal();
  CHECK(cluster.Await(patient)->result.error == ReplicaError::kNone);
  cluster.runtime.RunFor(absl::Seconds(1));
  for (MemberId id : kAll) {
    CHECK(Count(cluster.machine(id).commands(), "hopeless") == 0);
    CHECK(Count(cluster.machine(id).commands(), "patient") == 1);
  }
}

TEST_CASE("a proposal that cannot commit in time has an unknown outcome") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  cluster.board.Isolate(leader);
  auto put = cluster.Await(cluster.Propose(leader, "x", absl::Milliseconds(500)));
  CHECK(put->result.error == ReplicaError::kUnknown);
  cluster.board.Heal();
  cluster.runtime.RunFor(absl::Seconds(5));
  CHECK(put->answers == 1);
}

TEST_CASE("a proposal that another leader overwrote is not accepted, for certain") {
  Cluster cluster({1, 2, 3});
  MemberId old_leader = cluster.AwaitLeader();
  cluster.board.Isolate(old_leader);
  auto lost = cluster.Propose(old_leader, "lost", absl::Seconds(60));
  cluster.runtime.RunFor(absl::Milliseconds(50));
  MemberId leader = cluster.AwaitLeader(old_leader);
  REQUIRE(leader != 0);
  CHECK(cluster.Await(cluster.Propose(leader, "won"))->result.error == ReplicaError::kNone);
  CHECK(lost->answers == 0);
  cluster.board.Heal();
  CHECK(cluster.Await(lost)->result.error == ReplicaError::kNotAccepted);
  for (MemberId id : kAll) CHECK(Count(cluster.machine(id).commands(), "lost") == 0);
}

TEST_CASE("losing the leadership alone leaves a proposal to its fate") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(leader);
  // The entry reaches everybody; the replies do not come back, and another leader commits it.
  cluster.board.drop = [leader](const raft::Envelope& envelope) { return envelope.to == leader; };
  auto put = cluster.Propose(leader, "inherited", absl::Seconds(60));
  REQUIRE(cluster.AwaitLeader(leader) != 0);
  CHECK(put->answers == 0);
  cluster.board.drop = nullptr;
  CHECK(cluster.Await(put)->result.error == ReplicaError::kNone);
  CHECK(put->result.reply.body == "did inherited");
  CHECK(Count(cluster.machine(follower).commands(), "inherited") == 1);
}

TEST_CASE("a forwarded proposal whose answer is lost is never sent again") {
  Cluster cluster({1, 2, 3});
  MemberId follower = cluster.FollowerOf(cluster.AwaitLeader());
  cluster.board.lose_answers = true;
  auto put = cluster.Await(cluster.Propose(follower, "once"));
  CHECK(put->result.error == ReplicaError::kUnknown);
  cluster.board.lose_answers = false;
  cluster.runtime.RunFor(absl::Seconds(5));
  for (MemberId id : kAll) CHECK(Count(cluster.machine(id).commands(), "once") == 1);
}

TEST_CASE("a forwarded proposal that certainly did not arrive goes to the next leader") {
  Cluster cluster({1, 2, 3});
  MemberId old_leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(old_leader);
  cluster.board.Isolate(old_leader);
  auto put = cluster.Await(cluster.Propose(follower, "later", absl::Seconds(30)));
  CHECK(put->result.error == ReplicaError::kNone);
  CHECK(put->answers == 1);
  CHECK(cluster.replica(follower).leader() != old_leader);
  CHECK(Count(cluster.machine(follower).commands(), "later") == 1);
}

TEST_CASE("what exceeds the bytes in flight is refused at once") {
  ReplicaOptions options;
  options.inflight_bytes_max = 10'000;
  Cluster cluster({1, 2, 3}, options);
  MemberId leader = cluster.AwaitLeader();
  cluster.board.Isolate(leader);
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 20; ++i) puts.push_back(cluster.Propose(leader, std::string(1000, 'x')));
  CHECK(cluster.replica(leader).Status().inflight_bytes <= 10'000);
  CHECK(cluster.replica(leader).Status().proposals_pending == 7);
  for (size_t i = 7; i < 20; ++i) {
    CHECK(puts[i]->answers == 1);
    CHECK(puts[i]->result.error == ReplicaError::kOverloaded);
  }
  for (size_t i = 0; i < 7; ++i) CHECK(puts[i]->answers == 0);
  for (auto& put : puts) cluster.Await(put);
  CHECK(cluster.replica(leader).Status().inflight_bytes == 0);
  CHECK(cluster.replica(leader).Status().proposals_pending == 0);
}

TEST_CASE("a failed sync ends the member and nothing that waited for it is acknowledged") {
  Cluster cluster({1});
  REQUIRE(cluster.AwaitLeader() == 1);
  CHECK(cluster.Await(cluster.Propose(1, "good"))->result.error == ReplicaError::kNone);
  cluster.members.at(1).disk.fail_writes = true;
  auto put = cluster.Propose(1, "bad", absl::Seconds(3));
  cluster.runtime.RunFor(absl::Seconds(1));
  // The disk works again; what it says now is not believed (R92).
  cluster.members.at(1).disk.fail_writes = false;
  auto later = cluster.Propose(1, "later", absl::Seconds(3));
  CHECK(cluster.Await(put)->result.error == ReplicaError::kUnknown);
  CHECK(cluster.Await(later)->result.error == ReplicaError::kUnknown);
  REQUIRE(cluster.members.at(1).fatal.size() == 1);
  CHECK(cluster.members.at(1).fatal[0].find("the disk is gone") != std::string::npos);
  CHECK(cluster.machine(1).commands() == std::vector<std::string>{"good"});
}

TEST_CASE("a member that restarts applies again what its machine had not kept") {
  Cluster cluster({1});
  REQUIRE(cluster.AwaitLeader() == 1);
  for (int i = 0; i < 10; ++i) {
    CHECK(cluster.Await(cluster.Propose(1, std::to_string(i)))->result.error ==
          ReplicaError::kNone);
  }
  std::vector<std::string> before = cluster.machine(1).commands();
  cluster.Crash(1);
  CHECK(cluster.machine(1).commands().empty());
  cluster.Start(1);
  REQUIRE(cluster.AwaitLeader() == 1);
  CHECK(cluster.runtime.RunUntil([&] { return cluster.machine(1).commands() == before; }));
}

TEST_CASE("a read on any member waits until what was acknowledged before it is applied there") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  for (int i = 0; i < 20; ++i) {
    auto put = cluster.Await(cluster.Propose(leader, std::to_string(i)));
    for (MemberId id : kAll) {
      std::optional<ReadResult> read;
      bool fresh = false;
      cluster.replica(id).Read(absl::Seconds(5), [&](ReadResult result) {
        read = result;
        fresh = cluster.machine(id).applied().index >= put->result.position.index;
      });
      REQUIRE(cluster.runtime.RunUntil([&] { return read.has_value(); }));
      CHECK(read->error == ReplicaError::kNone);
      CHECK(read->index >= put->result.position.index);
      CHECK(fresh);
    }
  }
}

TEST_CASE("a leader that was deposed grants no read") {
  Cluster cluster({1, 2, 3});
  MemberId old_leader = cluster.AwaitLeader();
  cluster.board.Isolate(old_leader);
  std::optional<ReadResult> read;
  cluster.replica(old_leader).Read(absl::Seconds(3), [&](ReadResult result) { read = result; });
  MemberId leader = cluster.AwaitLeader(old_leader);
  CHECK(cluster.Await(cluster.Propose(leader, "new"))->result.error == ReplicaError::kNone);
  REQUIRE(cluster.runtime.RunUntil([&] { return read.has_value(); }));
  CHECK(read->error != ReplicaError::kNone);
}

TEST_CASE("a read that was dropped is asked again under another number and then succeeds") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(leader);
  std::vector<uint64_t> numbers;
  cluster.board.drop = [&numbers, follower](const raft::Envelope& envelope) {
    const auto* request = std::get_if<raft::ReadRequest>(&envelope.message);
    if (request == nullptr || envelope.from != follower) return false;
    numbers.push_back(request->number);
    return numbers.size() < 3;
  };
  cluster.board.Isolate(leader);
  std::optional<ReadResult> read;
  cluster.replica(follower).Read(absl::Seconds(30), [&](ReadResult result) { read = result; });
  REQUIRE(cluster.AwaitLeader(leader) != 0);
  cluster.board.Heal();
  // It may itself have become the leader: then it answers without asking anybody.
  REQUIRE(cluster.runtime.RunUntil([&] { return read.has_value(); }));
  CHECK(read->error == ReplicaError::kNone);
  std::sort(numbers.begin(), numbers.end());
  CHECK(std::adjacent_find(numbers.begin(), numbers.end()) == numbers.end());
}

TEST_CASE("a read without a leader fails at its deadline") {
  Cluster cluster({1, 2, 3});
  cluster.AwaitLeader();
  for (MemberId id : kAll) cluster.board.Isolate(id);
  cluster.runtime.RunFor(absl::Seconds(5));
  std::optional<ReadResult> read;
  cluster.replica(1).Read(absl::Seconds(1), [&](ReadResult result) { read = result; });
  REQUIRE(cluster.runtime.RunUntil([&] { return read.has_value(); }, absl::Seconds(2)));
  CHECK(read->error == ReplicaError::kNoLeader);
}

TEST_CASE(
    "the log is dropped behind what the machine keeps, and a member far behind gets a snapshot") {
  ReplicaOptions options;
  options.flush_log_bytes = 10'000;
  options.raft.max_log_bytes = 40'000;
  Cluster cluster({1, 2, 3}, options);
  MemberId leader = cluster.AwaitLeader();
  MemberId behind = cluster.FollowerOf(leader);
  cluster.board.Isolate(behind);
  for (int i = 0; i < 200; ++i) {
    auto put = cluster.Await(cluster.Propose(leader, std::to_string(i) + std::string(1000, '.')));
    REQUIRE(put->result.error == ReplicaError::kNone);
  }
  cluster.runtime.RunFor(absl::Seconds(2));
  CHECK(cluster.replica(leader).Status().log_bytes < 40'000);
  CHECK(cluster.machine(behind).commands().size() < 10);
  cluster.board.Heal();
  REQUIRE(cluster.AwaitApplied(behind, cluster.machine(leader).applied().index));
  CHECK(cluster.machine(behind).adopted() == 1);
  CHECK(cluster.machine(behind).commands() == cluster.machine(leader).commands());
  // It takes part again, also after a crash, and leaves no directory behind.
  CHECK(cluster.Await(cluster.Propose(behind, "after"))->result.error == ReplicaError::kNone);
  cluster.runtime.RunFor(absl::Seconds(1));
  for (auto& [id, member] : cluster.members) {
    CHECK(std::filesystem::is_empty(member.directory + "/outgoing"));
    CHECK(std::filesystem::is_empty(member.directory + "/incoming"));
  }
  cluster.Crash(behind);
  cluster.Start(behind);
  REQUIRE(cluster.AwaitApplied(behind, cluster.machine(leader).applied().index));
  CHECK(cluster.machine(behind).commands() == cluster.machine(leader).commands());
}

TEST_CASE("proposals wait for room in the log instead of failing") {
  ReplicaOptions options;
  options.flush_log_bytes = 10'000;
  options.raft.max_log_bytes = 40'000;
  Cluster cluster({1, 2, 3}, options);
  MemberId leader = cluster.AwaitLeader();
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 200; ++i) {
    puts.push_back(cluster.Propose(leader, std::string(1000, '.'), absl::Seconds(60)));
    if (i % 20 == 0) cluster.runtime.RunFor(absl::Milliseconds(1));
  }
  for (auto& put : puts) CHECK(cluster.Await(put)->result.error == ReplicaError::kNone);
  CHECK(cluster.machine(leader).commands().size() == 200);
}

TEST_CASE(
    "stopping hands the leadership over, answers what is in flight, and says when it is done") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 50; ++i) puts.push_back(cluster.Propose(leader, std::to_string(i)));
  cluster.runtime.RunFor(absl::Microseconds(1));
  bool stopped = false;
  cluster.replica(leader).Stop(absl::Seconds(5), [&] { stopped = true; });
  auto late = cluster.Propose(leader, "late");
  CHECK(late->result.error == ReplicaError::kStopped);
  absl::Duration begun = cluster.runtime.Uptime();
  REQUIRE(cluster.runtime.RunUntil([&] { return stopped; }));
  CHECK(cluster.runtime.Uptime() - begun < absl::Seconds(2));
  for (auto& put : puts) {
    CHECK(put->answers == 1);
    CHECK(put->result.error == ReplicaError::kNone);
  }
  cluster.members.at(leader).replica.reset();
  MemberId next = cluster.AwaitLeader(leader);
  CHECK(next != 0);
  CHECK(Count(cluster.machine(next).commands(), "late") == 0);
}

TEST_CASE("stopping without anybody to hand over to ends at once") {
  Cluster cluster({1});
  REQUIRE(cluster.AwaitLeader() == 1);
  CHECK(cluster.Await(cluster.Propose(1, "a"))->result.error == ReplicaError::kNone);
  bool stopped = false;
  absl::Duration begun = cluster.runtime.Uptime();
  cluster.replica(1).Stop(absl::Seconds(5), [&] { stopped = true; });
  REQUIRE(cluster.runtime.RunUntil([&] { return stopped; }));
  CHECK(cluster.runtime.Uptime() - begun < absl::Seconds(1));
}

TEST_CASE("stopping gives up at the end of its time, with every caller answered") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  cluster.board.Isolate(leader);
  auto put = cluster.Propose(leader, "x", absl::Seconds(60));
  cluster.runtime.RunFor(absl::Milliseconds(10));
  bool stopped = false;
  cluster.replica(leader).Stop(absl::Seconds(2), [&] { stopped = true; });
  REQUIRE(cluster.runtime.RunUntil([&] { return stopped; }, absl::Seconds(3)));
  CHECK(put->answers == 1);
  CHECK(put->result.error == ReplicaError::kUnknown);
}

TEST_CASE("a replica that is destroyed answers everybody") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(leader);
  cluster.board.Isolate(leader);
  std::vector<std::shared_ptr<Cluster::Outcome>> puts;
  for (int i = 0; i < 10; ++i) puts.push_back(cluster.Propose(leader, "queued"));
  cluster.runtime.RunFor(absl::Milliseconds(1));
  for (int i = 0; i < 10; ++i) puts.push_back(cluster.Propose(leader, "posted"));
  for (int i = 0; i < 10; ++i) puts.push_back(cluster.Propose(follower, "forwarded"));
  int reads = 0;
  cluster.replica(leader).Read(absl::Seconds(60), [&](ReadResult) { ++reads; });
  cluster.members.at(leader).replica.reset();
  cluster.members.at(follower).replica.reset();
  for (size_t i = 0; i < puts.size(); ++i) {
    CHECK(puts[i]->answers == 1);
    CHECK(puts[i]->result.error == (i < 10 ? ReplicaError::kUnknown : ReplicaError::kStopped));
  }
  CHECK(reads == 1);
  cluster.runtime.RunFor(absl::Seconds(1));
}

TEST_CASE("members come and go, asked for on any member") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  MemberId follower = cluster.FollowerOf(leader);
  CHECK(cluster.Await(cluster.Propose(leader, "a"))->result.error == ReplicaError::kNone);
  auto change = [&](raft::MemberChange wanted) {
    std::optional<MembersResult> result;
    cluster.replica(follower).ChangeMembers(std::move(wanted), absl::Seconds(20),
                                            [&](MembersResult done) { result = std::move(done); });
    REQUIRE(cluster.runtime.RunUntil([&] { return result.has_value(); }));
    return *result;
  };
  std::string record = Encode(MemberRecord{.name = "m4",
                                           .peer_urls = {test::Switchboard::AddressOf(4)},
                                           .client_urls = {},
                                           .node_uuid = "uuid4"});
  MembersResult added = change({{{.id = 4, .fate = raft::MemberFate::kLearner, .record = record}}});
  CHECK(added.error == ReplicaError::kNone);
  CHECK(added.members.learners == std::vector<MemberId>{4});
  CHECK(added.members.records.at(4) == record);

  MembersResult voter = change({{{.id = 4, .fate = raft::MemberFate::kVoter, .record = {}}}});
  CHECK(voter.error == ReplicaError::kNone);
  CHECK(voter.members.voters == std::vector<MemberId>{1, 2, 3, 4});
  CHECK(!voter.members.IsJoint());

  MembersResult removed = change({{{.id = 4, .fate = raft::MemberFate::kRemoved, .record = {}}}});
  CHECK(removed.error == ReplicaError::kNone);
  CHECK(removed.members.voters == std::vector<MemberId>{1, 2, 3});

  MembersResult again = change({{{.id = 4, .fate = raft::MemberFate::kVoter, .record = {}}}});
  CHECK(again.error == ReplicaError::kNotAccepted);
  CHECK(again.refusal == raft::ChangeRefusal::kWasRemoved);
}

TEST_CASE("leadership is handed to whom it was asked for, on any member") {
  Cluster cluster({1, 2, 3});
  MemberId leader = cluster.AwaitLeader();
  for (MemberId to : std::vector<MemberId>{1, 2, 3, 1}) {
    std::optional<ReplicaError> done;
    cluster.replica(cluster.FollowerOf(leader))
        .TransferLeadership(to, absl::Seconds(10), [&](ReplicaError error) { done = error; });
    REQUIRE(cluster.runtime.RunUntil([&] { return done.has_value(); }));
    CHECK(*done == ReplicaError::kNone);
    leader = cluster.AwaitLeader();
    CHECK(leader == to);
  }
  std::optional<ReplicaError> stranger;
  cluster.replica(1).TransferLeadership(9, absl::Seconds(10),
                                        [&](ReplicaError error) { stranger = error; });
  REQUIRE(cluster.runtime.RunUntil([&] { return stranger.has_value(); }));
  CHECK(*stranger == ReplicaError::kNotAccepted);
}

TEST_CASE("the leader raises the cluster's version once everybody has said what it can run") {
  ReplicaOptions options;
  std::vector<uint32_t> asked;
  options.raise_cluster_version = [&asked](uint32_t version) -> std::optional<std::string> {
    asked.push_back(version);
    return "version " + std::to_string(version);
  };
  Cluster cluster({1, 2, 3}, options);
  MemberId leader = cluster.AwaitLeader();
  cluster.runtime.RunFor(absl::Seconds(2));
  CHECK(asked.empty());
  for (MemberId from : kAll) {
    for (MemberId to : kAll) {
      if (from != to) cluster.members.at(to).network->handlers().peer_met(from, from == 2 ? 5 : 6);
    }
  }
  cluster.runtime.RunFor(absl::Seconds(2));
  // This build itself can run version 1 only.
  CHECK(asked == std::vector<uint32_t>{1});
  CHECK(Count(cluster.machine(leader).commands(), "version 1") == 1);
}

TEST_CASE("peers are those of the newest configuration") {
  Cluster cluster({1, 2, 3});
  cluster.AwaitLeader();
  std::vector<PeerAddress> peers = cluster.members.at(2).network->peers();
  REQUIRE(peers.size() == 2);
  CHECK(peers[0] == PeerAddress{.id = 1, .node_uuid = "uuid1", .urls = {"member:1"}});
  CHECK(peers[1] == PeerAddress{.id = 3, .node_uuid = "uuid3", .urls = {"member:3"}});
}

TEST_CASE("random crashes and cuts lose nothing that was acknowledged and apply nothing twice") {
  const char* replay = std::getenv("KVD_REPLICA_SEED");
  uint64_t first = replay != nullptr ? std::strtoull(replay, nullptr, 10) : 1;
  uint64_t last = replay != nullptr ? first : 12;
  size_t committed = 0;
  for (uint64_t seed = first; seed <= last; ++seed) {
    INFO("KVD_REPLICA_SEED=" << seed);
    ReplicaOptions options;
    options.flush_log_bytes = 2'000;
    options.raft.max_log_bytes = 8'000;
    Cluster cluster({1, 2, 3}, options, seed);
    raft::SplitMix64 chance(seed);
    std::vector<std::pair<std::string, std::shared_ptr<Cluster::Outcome>>> puts;
    for (int step = 0; step < 300; ++step) {
      MemberId at = 1 + chance.Below(3);
      uint64_t dice = chance.Below(100);
      if (dice < 80) {
        if (cluster.members.at(at).replica == nullptr) continue;
        std::string command = "put " + std::to_string(step) + std::string(chance.Below(300), '.');
        puts.emplace_back(command, cluster.Propose(at, command, absl::Seconds(3)));
      } else if (dice < 85) {
        cluster.board.Heal();
        cluster.board.Isolate(at);
      } else if (dice < 92) {
        cluster.board.Heal();
      } else if (dice < 96) {
        if (cluster.members.at(at).replica != nullptr) cluster.Crash(at);
      } else if (cluster.members.at(at).replica == nullptr) {
        cluster.Start(at);
      }
      cluster.runtime.RunFor(absl::Milliseconds(static_cast<int64_t>(chance.Below(200))));
    }
    cluster.board.Heal();
    for (auto& [id, member] : cluster.members) {
      if (member.replica == nullptr) cluster.Start(id);
    }
    cluster.runtime.RunFor(absl::Seconds(5));
    MemberId leader = cluster.AwaitLeader();
    REQUIRE(leader != 0);
    auto end = cluster.Await(cluster.Propose(leader, "end"));
    REQUIRE(end->result.error == ReplicaError::kNone);
    for (MemberId id : kAll) {
      REQUIRE(cluster.AwaitApplied(id, end->result.position.index));
      CHECK(cluster.machine(id).commands() == cluster.machine(leader).commands());
    }
    for (auto& [command, put] : puts) {
      CHECK(put->answers == 1);
      size_t times = Count(cluster.machine(leader).commands(), command);
      switch (put->result.error) {
        case ReplicaError::kNone:
          ++committed;
          CHECK(times == 1);
          CHECK(put->result.reply.body == "did " + command);
          break;
        case ReplicaError::kUnknown:
          CHECK(times <= 1);
          break;
        default:
          CHECK(times == 0);
          break;
      }
    }
  }
  CHECK(committed > 0);
}

}  // namespace kv

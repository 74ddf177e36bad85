// One story a test: a fault, or two that meet, and what a client must find afterwards.
#include <catch2/catch_test_macros.hpp>

#include "tests/sim/story.h"

namespace kv::sim {
namespace {

constexpr auto kVoter = raft::MemberFate::kVoter;
constexpr auto kLearner = raft::MemberFate::kLearner;

// A log that is soon past, so that whoever lags needs a snapshot.
void TinyLog(ClusterOptions& options) {
  options.raft.max_log_bytes = 3000;
  options.flush_log_bytes = 600;
}

// ---- disks

TEST_CASE("a write survives without the leader's disk") {
  Story story(3);
  Host& leader = story.Leader();
  leader.process->runtime->Hold(LoopKind::kLog);
  const OperationId put = story.AskPut(leader, "k", "v");
  story.cluster().Await(
      "the write on both followers",
      [&] { return story.cluster().judge().CommittedOperations().back() == put; }, 10 * kSecond);
  story.cluster().LosePower(leader);
  Host& next = story.AwaitOtherLeader(leader);
  CHECK(story.Outcome(put).outcome == Outcome::kUnknown);
  CHECK(story.Get(next, "k") == "v");
  story.CheckHistory();
}

TEST_CASE("a leader whose disk hangs goes on leading, and its own copy catches up") {
  Story story(3);
  Host& leader = story.Leader();
  leader.process->runtime->Hold(LoopKind::kLog);
  const OperationId put = story.AskPut(leader, "k", "v");
  story.RunFor(2 * kSecond);
  CHECK(story.cluster().Leader() == &leader);
  CHECK_FALSE(story.operation(put).returned.has_value());  // It answers what it has applied.
  leader.process->runtime->Release(LoopKind::kLog);
  CHECK(Story::IsDone(story.Outcome(put)));
  story.CheckHistory();
}

TEST_CASE("a follower whose disk hangs delays nobody") {
  Story story(3);
  Host& follower = story.Follower();
  follower.process->runtime->Hold(LoopKind::kLog);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  follower.process->runtime->Release(LoopKind::kLog);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("two disks that hang stop writes and lose none") {
  Story story(3);
  Host& leader = story.Leader();
  story.Follower(0).process->runtime->Hold(LoopKind::kLog);
  story.Follower(1).process->runtime->Hold(LoopKind::kLog);
  const OperationId put = story.AskPut(leader, "k", "v");
  story.RunFor(kSecond);
  CHECK_FALSE(story.operation(put).returned.has_value());
  story.Follower(0).process->runtime->Release(LoopKind::kLog);
  CHECK(Story::IsDone(story.Outcome(put)));
  story.CheckHistory();
}

TEST_CASE("a failed sync ends the leader, and what it wrote unheard is not lost") {
  Story story(3);
  Host& leader = story.Leader();
  leader.disk->FailNextSync(SyncFault::kUnheard);
  const OperationId put = story.AskPut(leader, "k", "v");
  Host& next = story.AwaitOtherLeader(leader);
  CHECK_FALSE(leader.up());
  CHECK(story.Outcome(put).outcome == Outcome::kUnknown);
  story.cluster().Start(leader);
  story.AwaitAllCaughtUp();
  CHECK(Story::IsDone(story.Put(next, "k", "w")));
  story.CheckHistory();
}

TEST_CASE("a failed sync of a follower ends it; it comes back and catches up") {
  Story story(3);
  Host& follower = story.Follower();
  follower.disk->FailNextSync(SyncFault::kLost);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  story.cluster().Await("its end", [&] { return !follower.up(); }, 5 * kSecond);
  story.cluster().Start(follower);
  story.AwaitAllCaughtUp();
  CHECK(story.Get(follower, "k") == "v");
  story.CheckHistory();
}

TEST_CASE("a full disk on the leader ends it, and the others go on") {
  Story story(3);
  Host& leader = story.Leader();
  leader.disk->SetFull(true);
  story.AskPut(leader, "k", "v");
  Host& next = story.AwaitOtherLeader(leader);
  CHECK(Story::IsDone(story.Put(next, "k", "w")));
  leader.disk->SetFull(false);
  story.cluster().Start(leader);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("a full disk refuses a start, and allows it once there is room") {
  Story story(3);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  follower.disk->SetFull(true);
  story.cluster().Start(follower);
  story.cluster().Await("the refusal", [&] { return !follower.up(); }, 5 * kSecond);
  CHECK(follower.refusal.find("No space") != std::string::npos);
  follower.disk->SetFull(false);
  story.cluster().Start(follower);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("a rotten log is refused at start with the entry's index, and its member replaced") {
  Story story(3);
  story.PutMany(story.Leader(), 5);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  REQUIRE(follower.disk->RotLog());
  follower.rotten = true;
  story.cluster().Start(follower);
  story.cluster().Await("the refusal", [&] { return !follower.up(); }, 5 * kSecond);
  CHECK(follower.refusal.find("checksum of entry") != std::string::npos);
  Host& fresh = story.Join(kLearner);
  CHECK(story
            .Change(story.Leader(),
                    {story.Remove(follower), {.id = fresh.id, .fate = kVoter, .record = {}}})
            .error == ReplicaError::kNone);
  CHECK(Story::IsDone(story.Put(fresh, "k", "v")));
  story.CheckHistory();
}

TEST_CASE("power lost everywhere at once loses nothing that was acknowledged") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Story story(3, seed);
    story.PutMany(story.Leader(), 10);
    REQUIRE(Story::IsDone(story.Put(story.Leader(), "k", "v")));
    for (Host& host : story.cluster().hosts()) story.cluster().LosePower(host);
    for (Host& host : story.cluster().hosts()) story.cluster().Start(host);
    CHECK(story.Get(story.Leader(), "k") == "v");
    story.CheckHistory();
  }
}

TEST_CASE("a cluster of one acknowledges only what is on its disk") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Story story(1, seed);
    REQUIRE(Story::IsDone(story.Put(story.Leader(), "k", "v")));
    story.AskPut(story.Leader(), "k", "w");
    story.cluster().LosePower(story.host(1));
    story.cluster().Start(story.host(1));
    CHECK_FALSE(story.Get(story.Leader(), "k").empty());
    story.CheckHistory();
  }
}

TEST_CASE("a state that was flushed halfway is replayed once") {
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    Story story(1, seed, [](ClusterOptions& options) { options.flush_by_itself_one_in = 3; });
    story.PutMany(story.Leader(), 20);
    story.cluster().Crash(story.host(1));
    story.cluster().Start(story.host(1));
    story.PutMany(story.Leader(), 3);
    CHECK_FALSE(story.Get(story.Leader(), "many1").empty());
    story.CheckHistory();
  }
}

// ---- leaders

TEST_CASE("an old leader returns with a longer log that nobody agreed to") {
  Story story(3);
  Host& old = story.Leader();
  story.cluster().Isolate(old);
  std::vector<OperationId> lost;
  for (int i = 0; i < 8; ++i) lost.push_back(story.AskPut(old, "k", "old" + std::to_string(i)));
  Host& next = story.AwaitOtherLeader(old);
  REQUIRE(Story::IsDone(story.Put(next, "k", "new")));
  story.wire().Heal();
  story.AwaitAllCaughtUp();
  CHECK(story.Get(old, "k") == "new");
  for (const OperationId id : lost) CHECK_FALSE(Story::IsDone(story.Outcome(id)));
  story.CheckHistory();
}

TEST_CASE("an isolated leader answers no linearizable read") {
  Story story(3);
  Host& old = story.Leader();
  REQUIRE(Story::IsDone(story.Put(old, "k", "before")));
  story.cluster().Isolate(old);
  const OperationId read = story.Ask(old, {.kind = Kind::kRange, .key = "k"});
  Host& next = story.AwaitOtherLeader(old);
  REQUIRE(Story::IsDone(story.Put(next, "k", "after")));
  CHECK_FALSE(Story::IsDone(story.Outcome(read)));
  story.CheckHistory();
}

TEST_CASE("a paused leader wakes up and serves nothing stale") {
  Story story(3);
  Host& old = story.Leader();
  REQUIRE(Story::IsDone(story.Put(old, "k", "before")));
  old.process->runtime->Pause();
  Host& next = story.AwaitOtherLeader(old);
  REQUIRE(Story::IsDone(story.Put(next, "k", "after")));
  const OperationId read = story.Ask(old, {.kind = Kind::kRange, .key = "k"});
  old.process->runtime->Continue();
  const Operation& answer = story.Outcome(read);
  if (Story::IsDone(answer)) CHECK(answer.answer.rows.front().value == "after");
  story.CheckHistory();
}

TEST_CASE("a leader that hears nobody steps down although all hear it") {
  Story story(3);
  Host& leader = story.Leader();
  for (const Host& other : story.cluster().hosts()) {
    if (&other != &leader) story.wire().Cut(other.url, leader.url);
  }
  Host& next = story.AwaitOtherLeader(leader);
  CHECK(Story::IsDone(story.Put(next, "k", "v")));
  story.CheckHistory();
}

TEST_CASE("a follower that hears nobody deposes nobody when it returns") {
  Story story(3);
  Host& leader = story.Leader();
  Host& follower = story.Follower();
  story.cluster().Isolate(follower);
  story.RunFor(20 * story.cluster().election_timeout());
  const Term term = leader.core().term();
  story.wire().Heal();
  story.RunFor(10 * story.cluster().election_timeout());
  CHECK(story.cluster().Leader() == &leader);
  CHECK(leader.core().term() == term);
}

TEST_CASE("a partial partition: who reaches a majority leads, and stays") {
  Story story(5);
  Host& leader = story.Leader();
  Host& cut = story.Follower();
  story.cluster().CutBetween(leader, cut);
  story.RunFor(30 * story.cluster().election_timeout());
  CHECK(story.cluster().Leader() == &leader);
  CHECK(Story::IsDone(story.Put(leader, "k", "v")));
  story.CheckHistory();
}

TEST_CASE("a link that flaps costs no leader and no write") {
  Story story(3);
  Host& leader = story.Leader();
  Host& follower = story.Follower();
  for (int i = 0; i < 20; ++i) {
    story.cluster().CutBetween(leader, follower);
    CHECK(Story::IsDone(story.Put(leader, "k", "v" + std::to_string(i))));
    story.wire().Heal();
    story.RunFor(150 * kMillisecond);
  }
  CHECK(story.cluster().Leader() == &leader);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("the minority of a partition answers nothing, the majority everything") {
  Story story(5);
  Host& leader = story.Leader();
  Host& with = story.Follower();
  for (Host& host : story.cluster().hosts()) {
    if (&host == &leader || &host == &with) continue;
    story.cluster().CutBetween(host, leader);
    story.cluster().CutBetween(host, with);
  }
  const OperationId refused = story.AskPut(leader, "k", "minority");
  Host& next = story.AwaitOtherLeader(leader);
  CHECK(Story::IsDone(story.Put(next, "k", "majority")));
  CHECK_FALSE(Story::IsDone(story.Outcome(refused)));
  story.wire().Heal();
  story.AwaitAllCaughtUp();
  CHECK(story.Get(with, "k") == "majority");
  story.CheckHistory();
}

TEST_CASE("leadership is handed over on request, and writes go on") {
  Story story(3);
  Host& leader = story.Leader();
  Host& heir = story.Follower();
  const OperationId put = story.AskPut(leader, "k", "v");
  CHECK(story.Transfer(leader, heir) == ReplicaError::kNone);
  CHECK(story.cluster().AwaitLeader().id == heir.id);
  CHECK(Story::IsDone(story.Outcome(put)));
  CHECK(Story::IsDone(story.Put(heir, "k", "w")));
  story.CheckHistory();
}

TEST_CASE("a hand-over to one that is not there fails, and the leader serves on") {
  Story story(3);
  Host& leader = story.Leader();
  Host& heir = story.Follower();
  story.cluster().Crash(heir);
  CHECK(story.Transfer(leader, heir) == ReplicaError::kNotAccepted);
  CHECK(Story::IsDone(story.Put(leader, "k", "v")));
  story.CheckHistory();
}

TEST_CASE("a leader that is stopped hands over first") {
  Story story(3);
  Host& leader = story.Leader();
  const Term term = leader.core().term();
  const OperationId put = story.AskPut(leader, "k", "v");
  story.cluster().Stop(leader, absl::Seconds(5));
  story.cluster().Await("its end", [&] { return !leader.up(); }, 10 * kSecond);
  Host& next = story.Leader();
  CHECK(next.core().term() == term + 1);
  CHECK(story.Outcome(put).returned.has_value());
  CHECK(Story::IsDone(story.Put(next, "k", "w")));
  story.CheckHistory();
}

TEST_CASE("clocks that run apart by half confuse nobody") {
  Story story(3);
  story.host(1).process->runtime->SetClockRate(800);
  story.host(2).process->runtime->SetClockRate(1250);
  story.RunFor(20 * kSecond);
  story.PutMany(story.Leader(), 5);
  CHECK_FALSE(story.Get(story.Follower(), "many1").empty());
  story.CheckHistory();
}

// ---- followers and forwarding

TEST_CASE("a write to a follower is answered by it") {
  Story story(3);
  CHECK(Story::IsDone(story.Put(story.Follower(), "k", "v")));
  CHECK(story.Get(story.Follower(1), "k") == "v");
  story.CheckHistory();
}

TEST_CASE("a forwarded write whose answer is lost is not repeated") {
  Story story(3);
  Host& follower = story.Follower();
  story.wire().options().lost_answer_permille = 1000;
  const OperationId put = story.AskPut(follower, "k", "v");
  CHECK(story.Outcome(put).outcome == Outcome::kUnknown);
  story.wire().options().lost_answer_permille = 0;
  CHECK(story.Get(follower, "k") == "v");
  story.CheckHistory();
}

TEST_CASE("a write waits for a leader, and is refused for certain if none comes") {
  Story story(3);
  Host& left = story.Leader();
  for (Host& host : story.cluster().hosts()) {
    if (&host != &left) story.cluster().Crash(host);
  }
  story.RunFor(3 * story.cluster().election_timeout());
  const OperationId put = story.AskPut(left, "k", "v");
  CHECK(story.Outcome(put).outcome == Outcome::kRefused);
  const OperationId second = story.AskPut(left, "k", "w");
  for (Host& host : story.cluster().hosts()) {
    if (!host.up()) story.cluster().Start(host);
  }
  CHECK(Story::IsDone(story.Outcome(second)));
  story.CheckHistory();
}

TEST_CASE("a follower reads its own writes although it applies late") {
  Story story(3);
  Host& follower = story.Follower();
  follower.process->runtime->Hold(LoopKind::kApply);
  const OperationId put = story.AskPut(follower, "k", "v");
  story.RunFor(kSecond);
  CHECK_FALSE(story.operation(put).returned.has_value());
  const OperationId read = story.Ask(follower, {.kind = Kind::kRange, .key = "k"});
  follower.process->runtime->Release(LoopKind::kApply);
  CHECK(Story::IsDone(story.Outcome(put)));
  CHECK(story.Outcome(read).answer.rows.size() == 1);
  story.CheckHistory();
}

TEST_CASE("messages that come twice and out of order change nothing") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Story story(3, seed);
    story.wire().options().repeat_permille = 500;
    story.wire().options().delay.spread = 60 * kMillisecond;
    story.PutMany(story.Leader(), 20);
    story.wire().Calm();
    story.AwaitAllCaughtUp();
    story.CheckHistory();
  }
}

TEST_CASE("a third of all messages lost: slower, and nothing else") {
  Story story(3);
  story.wire().options().loss_permille = 330;
  for (int i = 0; i < 10; ++i) story.Put(story.Leader(), "k", "v" + std::to_string(i));
  story.wire().Calm();
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("a clogged link delivers late what is long past") {
  Story story(3);
  Host& leader = story.Leader();
  Host& follower = story.Follower();
  story.wire().Clog(leader.url, follower.url, story.cluster().scheduler().now() + 5 * kSecond);
  story.PutMany(story.Leader(), 20);
  story.RunFor(8 * kSecond);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

// ---- snapshots

TEST_CASE("whoever lags past the log gets a snapshot") {
  Story story(3, 7, TinyLog);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  story.PutMany(story.Leader(), 80);
  story.cluster().Start(follower);
  story.AwaitAllCaughtUp();
  CHECK_FALSE(story.Get(follower, "many3").empty());
  story.CheckHistory();
}

TEST_CASE("a snapshot that is cut midway is sent again") {
  Story story(3, 7, TinyLog);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  story.PutMany(story.Leader(), 80);
  story.wire().options().snapshot_cut_permille = 1000;
  story.cluster().Start(follower);
  story.RunFor(5 * kSecond);
  CHECK(follower.machine().applied().index < story.cluster().judge().last_committed());
  story.wire().options().snapshot_cut_permille = 0;
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("power lost while a snapshot is adopted leaves something to start from") {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    Story story(3, seed, TinyLog);
    Host& follower = story.Follower();
    story.cluster().Crash(follower);
    story.PutMany(story.Leader(), 80);
    story.cluster().Start(follower);
    const uint64_t syncs = follower.disk->syncs() + seed % 6;
    const Index last = story.cluster().judge().last_committed();
    story.cluster().Await(
        "a moment in the middle",
        [&] {
          return follower.serving() &&
                 (follower.disk->syncs() > syncs || follower.machine().applied().index >= last);
        },
        30 * kSecond);
    story.cluster().LosePower(follower);
    story.cluster().Start(follower);
    story.AwaitAllCaughtUp();
    story.CheckHistory();
  }
}

TEST_CASE("a leader that dies while it sends a snapshot leaves it to the next") {
  Story story(3, 7, TinyLog);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  story.PutMany(story.Leader(), 80);
  story.wire().options().snapshot.least = 2 * kSecond;
  story.cluster().Start(follower);
  story.RunFor(kSecond);
  Host& old = story.Leader();
  story.cluster().Crash(old);
  story.wire().options().snapshot.least = kMillisecond;
  story.RunFor(2 * kSecond);
  story.cluster().Start(old);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("a snapshot during a change of members brings the members along") {
  Story story(3, 7, TinyLog);
  Host& follower = story.Follower();
  story.cluster().Crash(follower);
  story.PutMany(story.Leader(), 60);
  Host& fresh = story.Join(kLearner);
  REQUIRE(story.Change(story.Leader(), {{.id = fresh.id, .fate = kVoter, .record = {}}}).error ==
          ReplicaError::kNone);
  story.PutMany(story.Leader(), 60);
  story.cluster().Start(follower);
  story.AwaitCaughtUp(follower);
  CHECK(follower.machine().members().IsVoter(fresh.id));
  story.CheckHistory();
}

TEST_CASE("a log of four entries carries a cluster") {
  Story story(3, 7, [](ClusterOptions& options) {
    options.raft.max_log_bytes = 640;
    options.flush_log_bytes = 160;
    options.raft.max_append_bytes = 1;
    options.raft.max_inflight_appends = 1;
  });
  story.PutMany(story.Leader(), 60);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

// ---- members

TEST_CASE("a learner follows and counts for nothing") {
  Story story(3);
  Host& learner = story.Join(kLearner);
  story.cluster().Crash(story.Follower());
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  story.AwaitCaughtUp(learner);
  // Two of three voters are gone now: the learner is no replacement.
  for (Host& host : story.cluster().hosts()) {
    if (host.founder && host.up() && &host != &story.Leader()) {
      story.cluster().Crash(host);
      break;
    }
  }
  Host* left = nullptr;
  for (Host& host : story.cluster().hosts()) {
    if (host.founder && host.up()) left = &host;
  }
  const OperationId put = story.AskPut(*left, "k", "w");
  CHECK_FALSE(Story::IsDone(story.Outcome(put)));
  for (Host& host : story.cluster().hosts()) {
    if (!host.up()) story.cluster().Start(host);
  }
  story.Leader();
  story.CheckHistory();
}

TEST_CASE("three of five are replaced one by one under load") {
  Story story(5);
  for (int i = 1; i <= 3; ++i) {
    Host& fresh = story.Join(kLearner);
    story.PutMany(story.Leader(), 5);
    Host& leaves = story.host(i);
    REQUIRE(story
                .Change(story.Leader(),
                        {story.Remove(leaves), {.id = fresh.id, .fate = kVoter, .record = {}}})
                .error == ReplicaError::kNone);
    story.cluster().Await("its end", [&] { return !leaves.up(); }, 60 * kSecond);
    story.PutMany(story.Leader(), 5);
  }
  CHECK(story.Leader().core().members().voters.size() == 5);
  story.AwaitAllCaughtUp();
  story.CheckHistory();
}

TEST_CASE("a leader removes itself and another goes on at once") {
  Story story(3);
  Host& leader = story.Leader();
  CHECK(story.Change(story.Follower(), {story.Remove(leader)}).error == ReplicaError::kNone);
  Host& next = story.AwaitOtherLeader(leader);
  CHECK(Story::IsDone(story.Put(next, "k", "v")));
  story.cluster().Await("its end", [&] { return !leader.up(); }, 30 * kSecond);
  CHECK(leader.refusal.find("was removed") != std::string::npos);
  story.CheckHistory();
}

TEST_CASE("a removed member that was away learns of it and never comes back") {
  Story story(3);
  Host& away = story.Follower();
  story.cluster().Crash(away);
  REQUIRE(story.Change(story.Leader(), {story.Remove(away)}).error == ReplicaError::kNone);
  story.cluster().Start(away);
  story.cluster().Await("its end", [&] { return !away.up(); }, 60 * kSecond);
  CHECK(away.refusal.find("was removed") != std::string::npos);
  story.cluster().Start(away);
  story.cluster().Await("its refusal", [&] { return away.retired && !away.up(); }, 10 * kSecond);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
}

TEST_CASE("a leader crashes in the middle of a joint configuration") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    Story story(3, seed);
    Host& fresh = story.Join(kLearner);
    Host& leader = story.Leader();
    Host& leaves = story.Follower();
    leader.replica().ChangeMembers(
        {{story.Remove(leaves), {.id = fresh.id, .fate = kVoter, .record = {}}}}, absl::Seconds(5),
        [](const MembersResult&) {});
    story.cluster().Await(
        "a joint configuration", [&] { return leader.core().members().IsJoint(); }, 5 * kSecond);
    story.cluster().LosePower(leader);
    story.AwaitOtherLeader(leader);
    story.cluster().Start(leader);
    story.cluster().Await(
        "an end of the joint configuration",
        [&] {
          Host* leads = story.cluster().Leader();
          return leads != nullptr && !leads->core().members().IsJoint() &&
                 leads->core().log().members_index() <= leads->core().commit();
        },
        60 * kSecond);
    story.RunFor(5 * kSecond);  // Whoever led to the end may be the one that leaves.
    CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
    story.CheckHistory();
  }
}

TEST_CASE("a wiped follower returns under its address as somebody else") {
  Story story(3);
  story.PutMany(story.Leader(), 10);
  Host& wiped = story.Follower();
  story.cluster().LosePower(wiped);
  wiped.retired = true;
  Host& fresh = story.Join(kLearner, &wiped);
  CHECK(fresh.url == wiped.url);
  REQUIRE(story
              .Change(story.Leader(),
                      {story.Remove(wiped), {.id = fresh.id, .fate = kVoter, .record = {}}})
              .error == ReplicaError::kNone);
  CHECK(Story::IsDone(story.Put(fresh, "k", "v")));
  story.CheckHistory();
}

// Three members, one of which was down, came back with the disk that it had before `since`, and
// says that it is too old.
Host& PutBackOldDisk(Story& story, const std::function<void(Host& old)>& since) {
  Host& old = story.Follower();
  story.PutMany(story.Leader(), 10);
  story.AwaitCaughtUp(old);
  story.cluster().Crash(old);
  std::unique_ptr<SimDisk> copy = old.disk->Copy();
  story.cluster().Start(old);
  story.PutMany(story.Leader(), 10);
  story.AwaitCaughtUp(old);
  story.cluster().Crash(old);
  since(old);
  story.cluster().PutBack(old, std::move(copy));
  story.cluster().Start(old);
  story.cluster().Await(
      "the old disk to be found out",
      [&] {
        return old.refusal.find("is older than what its member acknowledged") != old.refusal.npos;
      },
      30 * kSecond);
  return old;
}

TEST_CASE("an old copy of a disk is found out by the leader and takes no part any more") {
  Story story(3);
  Host& old = PutBackOldDisk(story, [](Host&) {});
  story.RunFor(kSecond);
  CHECK(!old.up());
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  // Nor when it would make a majority, or after another start.
  Host& other = story.Follower();
  story.cluster().Crash(other);
  const OperationId lonely = story.AskPut(story.Leader(), "k", "w");
  story.cluster().Start(old);
  story.RunFor(20 * kSecond);
  CHECK(!old.up());
  CHECK(old.refusal.find("is older than what its member") != std::string::npos);
  CHECK(!Story::IsDone(story.operation(lonely)));
  story.cluster().Start(other);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "x")));
  story.CheckHistory();
}

TEST_CASE("an old copy of a disk elects nobody: every member has noted what it acknowledged") {
  Story story(3);
  Host* leader = nullptr;
  Host& old = PutBackOldDisk(story, [&](Host&) {
    story.RunFor(15 * kSecond);  // The leader's note comes every ten.
    leader = &story.Leader();
    story.AwaitAllCaughtUp();
    story.cluster().Crash(*leader);
  });
  story.RunFor(20 * kSecond);
  CHECK(!old.up());
  CHECK(story.cluster().Leader() == nullptr);
  story.cluster().Start(*leader);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  story.CheckHistory();
}

TEST_CASE("a cluster at rest writes nothing about who acknowledged what") {
  Story story(3);
  story.PutMany(story.Leader(), 10);
  story.RunFor(60 * kSecond);
  const Index before = story.Leader().core().commit();
  const auto noted = story.Leader().machine().maintenance().acknowledged;
  CHECK(noted.size() == 3);
  for (const auto& [id, index] : noted) CHECK(index + 1 >= before);
  story.RunFor(300 * kSecond);
  CHECK(story.Leader().core().commit() == before);
}

TEST_CASE("from one voter to five and back to one") {
  Story story(1);
  std::vector<Host*> fresh;
  for (int i = 0; i < 4; ++i) fresh.push_back(&story.Join(kVoter));
  story.PutMany(story.Leader(), 5);
  for (Host* host : fresh) {
    REQUIRE(story.Change(story.Leader(), {story.Remove(*host)}).error == ReplicaError::kNone);
  }
  CHECK(story.Leader().id == story.host(1).id);
  CHECK(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  story.CheckHistory();
}

TEST_CASE("two operators change members at once, and both changes hold") {
  Story story(3);
  Host& one = story.Join(kLearner);
  Host& two = story.Join(kLearner);
  int done = 0;
  for (Host* host : {&one, &two}) {
    story.Follower(host == &one ? 0 : 1)
        .replica()
        .ChangeMembers({{{.id = host->id, .fate = kVoter, .record = {}}}}, absl::Seconds(20),
                       [&done](const MembersResult& result) {
                         done += result.error == ReplicaError::kNone ? 1 : 0;
                       });
  }
  story.cluster().Await("both", [&] { return done == 2; }, 30 * kSecond);
  CHECK(story.Leader().core().members().voters.size() == 5);
}

// ---- keys

TEST_CASE("a compaction holds on every member and across restarts") {
  Story story(3);
  story.PutMany(story.Leader(), 20);
  REQUIRE(Story::IsDone(
      story.Outcome(story.Ask(story.Leader(), {.kind = Kind::kCompact, .revision = 15}))));
  for (Host& host : story.cluster().hosts()) {
    story.cluster().Crash(host);
    story.cluster().Start(host);
  }
  for (Host& host : story.cluster().hosts()) {
    story.AwaitCaughtUp(host);
    const OperationId read = story.Ask(host, {.kind = Kind::kRange, .key = "many1", .revision = 9});
    CHECK(story.Outcome(read).answer.refusal == Refusal::kCompacted);
  }
  story.CheckHistory();
}

TEST_CASE("a transaction is whole on every member whatever dies") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    Story story(3, seed);
    Request txn{.kind = Kind::kTxn};
    txn.then.push_back({.kind = Kind::kPut, .key = "a", .value = "1"});
    txn.then.push_back({.kind = Kind::kPut, .key = "b", .value = "1"});
    Host& leader = story.Leader();
    const OperationId asked = story.Ask(leader, txn);
    story.RunFor(static_cast<Time>(seed) * 300 * kMicrosecond);
    story.cluster().LosePower(leader);
    story.Outcome(asked);
    Host& next = story.AwaitOtherLeader(leader);
    CHECK(story.Get(next, "a") == story.Get(next, "b"));
    story.CheckHistory();
  }
}

TEST_CASE("a reader at an old revision sees what was there while others delete") {
  Story story(3);
  REQUIRE(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  const int64_t then = story.Put(story.Leader(), "k", "w").answer.revision;
  story.Outcome(story.Ask(story.Leader(), {.kind = Kind::kDelete, .key = "k"}));
  const Operation& read = story.Outcome(
      story.Ask(story.Follower(), {.kind = Kind::kRange, .key = "k", .revision = then}));
  REQUIRE(read.answer.rows.size() == 1);
  CHECK(read.answer.rows.front().value == "w");
  CHECK(story.Get(story.Follower(), "k").empty());
  story.CheckHistory();
}

// ---- leases, alarms, watchers

OperationId AskGrant(Story& story, int64_t lease, int64_t ttl) {
  story.cluster().Await(
      "leases", [&] { return story.Leader().machine().cluster_version() >= kLeaseMachineVersion; },
      30 * kSecond);
  return story.Ask(story.Leader(), {.kind = Kind::kGrant, .lease = lease, .ttl = ttl});
}

Request AlarmOf(Alarm::Type type, bool lifts) {
  Request request{.kind = Kind::kAlarm};
  request.alarm = {.type = type, .member = 1};
  request.lifts = lifts;
  return request;
}

TEST_CASE("a lease ends once, at one revision, by the fastest clock not too early") {
  for (const int64_t rate : {800, 1250}) {
    Story story(3);
    for (Host& host : story.cluster().hosts()) host.process->runtime->SetClockRate(rate);
    REQUIRE(Story::IsDone(story.Outcome(AskGrant(story, 7, 2))));
    for (const std::string key : {"a", "b", "c"}) {
      REQUIRE(Story::IsDone(story.Outcome(
          story.Ask(story.Leader(), {.kind = Kind::kPut, .key = key, .value = "v", .lease = 7}))));
    }
    story.cluster().Await(
        "its end", [&] { return story.Leader().machine().lease_count() == 0; }, 10 * kSecond);
    CHECK(story.Get(story.Leader(), "b").empty());
    story.AwaitAllCaughtUp();
    story.CheckHistory();
  }
}

TEST_CASE("a leader that slept through its end renews nothing that another has ended") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Story story(3, seed);
    REQUIRE(Story::IsDone(story.Outcome(AskGrant(story, 7, 1))));
    Host& old = story.Leader();
    story.AwaitAllCaughtUp();
    old.process->runtime->Pause();
    Host& next = story.AwaitOtherLeader(old);
    story.cluster().Await(
        "its end", [&] { return next.serving() && next.machine().lease_count() == 0; },
        20 * kSecond);
    const auto answer = story.AskRenewal(old, 7);
    old.process->runtime->Continue();
    story.cluster().Await("an answer", [&] { return answer->has_value(); }, 20 * kSecond);
    CHECK_FALSE(**answer);
    story.AwaitAllCaughtUp();
    story.CheckHistory();
  }
}

TEST_CASE("a lease whose time is over while nothing may change ends when it may again") {
  Story story(3);
  REQUIRE(Story::IsDone(story.Outcome(AskGrant(story, 7, 1))));
  REQUIRE(Story::IsDone(
      story.Outcome(story.Ask(story.Leader(), AlarmOf(Alarm::Type::kCorrupt, false)))));
  story.RunFor(10 * kSecond);
  CHECK(story.Leader().machine().lease_count() == 1);
  REQUIRE(Story::IsDone(
      story.Outcome(story.Ask(story.Leader(), AlarmOf(Alarm::Type::kCorrupt, true)))));
  story.cluster().Await(
      "its end", [&] { return story.Leader().machine().lease_count() == 0; }, 10 * kSecond);
  story.CheckHistory();
}

TEST_CASE("without space keys go and none come, on every member and after a restart") {
  Story story(3);
  REQUIRE(Story::IsDone(story.Put(story.Leader(), "k", "v")));
  REQUIRE(Story::IsDone(
      story.Outcome(story.Ask(story.Leader(), AlarmOf(Alarm::Type::kNoSpace, false)))));
  for (Host& host : story.cluster().hosts()) {
    story.cluster().Crash(host);
    story.cluster().Start(host);
  }
  for (Host& host : story.cluster().hosts()) {
    story.AwaitCaughtUp(host);
    const Operation& refused = story.Put(host, "k", "w");
    CHECK(refused.answer.refusal == Refusal::kNoSpace);
  }
  CHECK(
      story.Outcome(story.Ask(story.Leader(), {.kind = Kind::kDelete, .key = "k"})).answer.count ==
      1);
  REQUIRE(Story::IsDone(
      story.Outcome(story.Ask(story.Leader(), AlarmOf(Alarm::Type::kNoSpace, true)))));
  CHECK(story.Put(story.Leader(), "k", "w").answer.refusal == Refusal::kNone);
  story.CheckHistory();
}

}  // namespace
}  // namespace kv::sim

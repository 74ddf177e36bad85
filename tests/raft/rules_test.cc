// One test per rule of server/raft/README.md; the name begins with the rule's number. The last test
// reads the README and this file and checks that none is missing.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <fstream>
#include <iterator>
#include <regex>
#include <set>

#include "storage/check.h"
#include "tests/raft/bare_cluster.h"

namespace kv::raft {
namespace {

using Terms = std::vector<Term>;
using Ids = std::vector<MemberId>;

BareCluster Three(const Terms& log = {}, Term term = 1, const Options& options = {}) {
  BareCluster cluster(options);
  cluster.Found({.voters = {1, 2, 3}, .term = term, .log = log});
  return cluster;
}

// Three members, 1 leads in term 2, its empty entry 2@2 is committed everywhere.
BareCluster Led(const Options& options = {}) {
  BareCluster cluster = Three({}, 1, options);
  cluster.Elect(1);
  cluster.Tick(1);
  cluster.Settle();
  REQUIRE(cluster.core(1).standing().established);
  REQUIRE(cluster.core(3).commit() == 2);
  return cluster;
}

void Hear(BareCluster& cluster, MemberId from, MemberId to, Term term, Message message) {
  cluster.Step({.from = from, .to = to, .term = term, .message = std::move(message)});
}

void FinishWrites(BareCluster& cluster, MemberId id) {
  while (cluster.FinishWrite(id)) {
  }
}

EntryPtr Command(Index index, Term term, std::string data = "x") {
  return MakeEntry(index, term, EntryKind::kCommand, std::move(data));
}
EntryPtr Configuration(Index index, Term term, const Members& members) {
  return MakeEntry(index, term, EntryKind::kMembers, Encode(members));
}
Append AppendOf(Position prev, std::vector<EntryPtr> entries, Index commit = 1) {
  return {.prev = prev, .entries = std::move(entries), .commit = commit};
}
AppendReply Match(Index match, Flow flow = Flow::kOpen) {
  return {.verdict = Accepted{.match = match}, .flow = flow};
}
SnapshotOffer Offer(Position at, const Members& members) {
  return {.at = at, .members = Encode(members)};
}
constexpr VoteReply kYes{.vote = Vote::kGranted};
constexpr VoteReply kNo{.vote = Vote::kDenied};

size_t CountSent(BareCluster& cluster, MemberId id, std::string_view kind) {
  const auto& sent = cluster.record(id).sent;
  return static_cast<size_t>(std::count_if(
      sent.begin(), sent.end(), [kind](const auto& e) { return KindOf(e.message) == kind; }));
}
// The last message of one type that a member sent; the test ends if there is none.
template <typename T>
T LastSent(BareCluster& cluster, MemberId id) {
  const auto& sent = cluster.record(id).sent;
  const auto it = std::find_if(sent.rbegin(), sent.rend(),
                               [](const auto& e) { return std::holds_alternative<T>(e.message); });
  REQUIRE(it != sent.rend());
  return std::get<T>(it->message);
}
Index LastMatch(BareCluster& cluster, MemberId id) {
  const AppendReply reply = LastSent<AppendReply>(cluster, id);
  REQUIRE(std::holds_alternative<Accepted>(reply.verdict));
  return std::get<Accepted>(reply.verdict).match;
}
size_t CountEntriesSent(BareCluster& cluster, MemberId id, MemberId to) {
  size_t appends = 0;
  for (const Envelope& envelope : cluster.record(id).sent) {
    const auto* append = std::get_if<Append>(&envelope.message);
    if (append != nullptr && envelope.to == to && !append->entries.empty()) ++appends;
  }
  return appends;
}

FollowerStatus StatusOf(BareCluster& cluster, MemberId leader, MemberId id) {
  for (const FollowerStatus& status : cluster.core(leader).Followers()) {
    if (status.id == id) return status;
  }
  FAIL("no progress of member " << id);
  return {};
}

MemberTarget To(MemberId id, MemberFate fate) { return {.id = id, .fate = fate, .record = {}}; }

Role RoleOf(BareCluster& cluster, MemberId id) { return cluster.core(id).standing().role; }

// The member asks for votes: its candidacy is in a write that is not finished.
void MakeCandidate(BareCluster& cluster, MemberId id) {
  cluster.Campaign(id);
  REQUIRE(RoleOf(cluster, id) == Role::kPreCandidate);
  const Term next = cluster.core(id).term() + 1;
  for (const MemberId peer : cluster.core(id).members().All()) {
    if (peer == id || RoleOf(cluster, id) != Role::kPreCandidate) continue;
    Hear(cluster, peer, id, next - 1, PreVoteReply{.proposed = next, .vote = Vote::kGranted});
  }
  REQUIRE(RoleOf(cluster, id) == Role::kCandidate);
}

struct LawBroken {};
template <typename Act>
bool EndsTheProcess(const Act& act) {
  TheCheckHook() = [](std::string_view) { throw LawBroken{}; };
  bool ended = false;
  try {
    act();
  } catch (const LawBroken&) {
    ended = true;
  }
  TheCheckHook() = nullptr;
  return ended;
}

TEST_CASE("1 a member's term never goes back") {
  BareCluster cluster = Three({}, 5);
  Hear(cluster, 2, 1, 3, Heartbeat{});
  CHECK(cluster.core(1).term() == 5);
  Hear(cluster, 2, 1, 6, Heartbeat{.commit = 1, .round = 0});
  CHECK(cluster.core(1).term() == 6);
  FinishWrites(cluster, 1);
  cluster.Crash(1);
  cluster.Restart(1);
  CHECK(cluster.core(1).term() == 6);
}

TEST_CASE("2 a message of an older term changes nothing, and its sender may catch up") {
  BareCluster cluster = Three({}, 5);
  const HardState before = cluster.core(1).hard_state();
  Hear(cluster, 2, 1, 4, AppendOf({.index = 1, .term = 1}, {Command(2, 4)}));
  CHECK(cluster.record(1).sent.back().term == 5);
  Hear(cluster, 2, 1, 4, Heartbeat{.commit = 1, .round = 3});
  CHECK(cluster.record(1).sent.back().term == 5);
  Hear(cluster, 3, 1, 4, VoteRequest{.last = {.index = 9, .term = 4}, .cause = Cause::kTimeout});
  FinishWrites(cluster, 1);
  CHECK(LastSent<VoteReply>(cluster, 1) == kNo);
  CHECK(cluster.record(1).sent.back().term == 5);
  Hear(cluster, 3, 1, 4, PreVoteRequest{.proposed = 5, .last = {.index = 9, .term = 4}});
  CHECK(LastSent<PreVoteReply>(cluster, 1).vote == Vote::kDenied);
  CHECK(cluster.record(1).sent.back().term == 5);
  const size_t sent = cluster.record(1).sent.size();
  Hear(cluster, 3, 1, 4, kYes);
  Hear(cluster, 3, 1, 4, Match(2));
  CHECK(cluster.record(1).sent.size() == sent);
  CHECK(cluster.core(1).hard_state() == before);
  CHECK(cluster.core(1).log().last_index() == 1);
  CHECK(cluster.core(1).standing().leader == 0);
}

TEST_CASE("3 a message of a newer term makes a follower") {
  BareCluster cluster = Led();
  Hear(cluster, 3, 1, 7, HeartbeatReply{});
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).term() == 7);
  CHECK(cluster.core(1).standing().leader == 0);
  Hear(cluster, 3, 2, 7, Heartbeat{});
  CHECK(cluster.core(2).term() == 7);
  CHECK(cluster.core(2).standing().leader == 3);
  // Except for pre-votes, and for vote requests while a leader is heard from.
  Hear(cluster, 1, 2, 9, PreVoteRequest{.proposed = 10, .last = {.index = 9, .term = 9}});
  Hear(cluster, 1, 2, 9, VoteRequest{.last = {.index = 9, .term = 8}, .cause = Cause::kTimeout});
  CHECK(cluster.core(2).term() == 7);
}

TEST_CASE("4 a member gives one vote in a term") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, VoteRequest{.last = {.index = 1, .term = 1}, .cause = Cause::kTimeout});
  FinishWrites(cluster, 1);
  CHECK(LastSent<VoteReply>(cluster, 1) == kYes);
  Hear(cluster, 3, 1, 2, VoteRequest{.last = {.index = 9, .term = 1}, .cause = Cause::kTimeout});
  FinishWrites(cluster, 1);
  CHECK(LastSent<VoteReply>(cluster, 1) == kNo);
  cluster.Crash(1);
  cluster.Restart(1);
  Hear(cluster, 3, 1, 2, VoteRequest{.last = {.index = 9, .term = 1}, .cause = Cause::kTimeout});
  FinishWrites(cluster, 1);
  CHECK(LastSent<VoteReply>(cluster, 1) == kNo);
}

TEST_CASE("5 a vote is durable before it is given") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, VoteRequest{.last = {.index = 1, .term = 1}, .cause = Cause::kTimeout});
  CHECK(CountSent(cluster, 1, "vote-reply") == 0);
  REQUIRE(cluster[1].writing().size() == 1);
  const Write& write = cluster[1].writing().front();
  CHECK(write.update.hard_state == HardState{.term = 2, .vote = 2});
  CHECK(write.promises.size() == 1);
  cluster.FinishWrite(1);
  CHECK(cluster[1].disk().hard_state == HardState{.term = 2, .vote = 2});
  CHECK(CountSent(cluster, 1, "vote-reply") == 1);
}

TEST_CASE("6 a vote outlives stepping down in its term") {
  BareCluster cluster = Three();
  MakeCandidate(cluster, 1);
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 2, Heartbeat{});
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).hard_state() == HardState{.term = 2, .vote = 1});
  Hear(cluster, 3, 1, 2, VoteRequest{.last = {.index = 9, .term = 1}, .cause = Cause::kTransfer});
  FinishWrites(cluster, 1);
  CHECK(LastSent<VoteReply>(cluster, 1) == kNo);
  CHECK(cluster[1].disk().hard_state == HardState{.term = 2, .vote = 1});
}

TEST_CASE("7 a repeated vote request of the same candidate is granted again") {
  BareCluster cluster = Three();
  for (size_t i = 1; i <= 2; ++i) {
    Hear(cluster, 2, 1, 2, VoteRequest{.last = {.index = 1, .term = 1}, .cause = Cause::kTimeout});
    FinishWrites(cluster, 1);
    CHECK(CountSent(cluster, 1, "vote-reply") == i);
    CHECK(LastSent<VoteReply>(cluster, 1) == kYes);
  }
}

TEST_CASE("8 votes and pre-votes go only to logs at least as up to date") {
  struct Row {
    Position last;
    Vote vote;
  };
  // The voter's log ends at 4@2.
  const std::vector<Row> rows = {
      {{.index = 4, .term = 2}, Vote::kGranted}, {{.index = 5, .term = 2}, Vote::kGranted},
      {{.index = 2, .term = 3}, Vote::kGranted}, {{.index = 3, .term = 2}, Vote::kDenied},
      {{.index = 9, .term = 1}, Vote::kDenied},
  };
  for (const Row& row : rows) {
    BareCluster cluster = Three({1, 1, 2}, 3);
    Hear(cluster, 2, 1, 3, PreVoteRequest{.proposed = 4, .last = row.last});
    CHECK(LastSent<PreVoteReply>(cluster, 1).vote == row.vote);
    Hear(cluster, 2, 1, 4, VoteRequest{.last = row.last, .cause = Cause::kTimeout});
    FinishWrites(cluster, 1);
    CHECK(LastSent<VoteReply>(cluster, 1).vote == row.vote);
    CHECK(cluster[1].disk().hard_state.vote == (row.vote == Vote::kGranted ? 2U : 0U));
    CHECK(cluster[1].disk().hard_state.term == 4);
  }
}

TEST_CASE("9 a candidate's own vote counts once it is durable") {
  BareCluster cluster = Three();
  MakeCandidate(cluster, 1);
  Hear(cluster, 2, 1, 2, kYes);
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  FinishWrites(cluster, 1);
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  CHECK(cluster[1].disk().hard_state == HardState{.term = 2, .vote = 1});

  BareCluster sole;
  sole.Found({.voters = {1}});
  CHECK(RoleOf(sole, 1) == Role::kCandidate);
  sole.FinishWrite(1);
  CHECK(RoleOf(sole, 1) == Role::kLeader);
}

TEST_CASE("10 a vote request leaves once the candidacy is durable") {
  BareCluster cluster = Three();
  MakeCandidate(cluster, 1);
  CHECK(CountSent(cluster, 1, "vote-request") == 0);
  cluster.FinishWrite(1);
  CHECK(CountSent(cluster, 1, "vote-request") == 2);
  CHECK(cluster[1].disk().hard_state == HardState{.term = 2, .vote = 1});
}

TEST_CASE("11 votes count once per voter, in their term and role") {
  BareCluster cluster;
  cluster.Found({.voters = {1, 2, 3, 4, 5}, .learners = {6}});
  MakeCandidate(cluster, 1);
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 2, kYes);
  Hear(cluster, 2, 1, 2, kYes);
  Hear(cluster, 2, 1, 2, kYes);
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  Hear(cluster, 6, 1, 2, kYes);  // A learner.
  Hear(cluster, 9, 1, 2, kYes);  // A stranger.
  Hear(cluster, 3, 1, 1, kYes);  // An old term.
  Hear(cluster, 4, 1, 2, kNo);
  Hear(cluster, 5, 1, 1, PreVoteReply{.proposed = 2, .vote = Vote::kGranted});
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  Hear(cluster, 3, 1, 2, kYes);
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
}

const Members kJoint{.voters = {1, 4, 5}, .outgoing = {1, 2, 3}};

TEST_CASE("12 an election needs the majorities of the newest configuration in the log") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {Configuration(2, 2, kJoint)}));
  FinishWrites(cluster, 1);
  cluster.Campaign(1);
  const auto granted = [](Term proposed) {
    return PreVoteReply{.proposed = proposed, .vote = Vote::kGranted};
  };
  Hear(cluster, 4, 1, 2, granted(3));
  Hear(cluster, 5, 1, 2, granted(3));
  CHECK(RoleOf(cluster, 1) == Role::kPreCandidate);
  Hear(cluster, 2, 1, 2, granted(3));
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 3, kYes);
  Hear(cluster, 3, 1, 3, kYes);
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  Hear(cluster, 5, 1, 3, kYes);
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
}

TEST_CASE("13 a candidate that hears from the leader of its term follows it") {
  BareCluster cluster = Three();
  cluster.Campaign(1);
  Hear(cluster, 2, 1, 1, Heartbeat{.commit = 1, .round = 0});
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).standing().leader == 2);
  CHECK(cluster.core(1).term() == 1);
  cluster.Tick(1, 10);
  MakeCandidate(cluster, 1);
  Hear(cluster, 3, 1, 2, AppendOf({.index = 1, .term = 1}, {}));
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).standing().leader == 3);
  CHECK(cluster.core(1).term() == 2);
}

TEST_CASE("14 a candidate that cannot win any more waits") {
  BareCluster cluster = Three();
  cluster.Campaign(1);
  const PreVoteReply denied{.proposed = 2, .vote = Vote::kDenied};
  Hear(cluster, 2, 1, 1, denied);
  CHECK(RoleOf(cluster, 1) == Role::kPreCandidate);
  Hear(cluster, 3, 1, 1, denied);
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  MakeCandidate(cluster, 1);
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 2, kNo);
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  Hear(cluster, 3, 1, 2, kNo);
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).term() == 2);
}

TEST_CASE("15 election timeouts are drawn anew, from one to two times election_ticks") {
  BareCluster cluster = Three();
  std::set<int> waits;
  for (int life = 0; life < 40; ++life) {
    int ticks = 0;
    for (; RoleOf(cluster, 1) == Role::kFollower; ++ticks) cluster.Tick(1);
    CHECK(ticks >= 10);
    CHECK(ticks <= 20);
    waits.insert(ticks);
    cluster.Crash(1);
    cluster.Restart(1);
  }
  CHECK(waits.size() >= 5);
  // And within one life.
  waits.clear();
  for (int wait = 0; wait < 40; ++wait) {
    const size_t asked = CountSent(cluster, 1, "pre-vote-request");
    int ticks = 0;
    for (; CountSent(cluster, 1, "pre-vote-request") == asked; ++ticks) cluster.Tick(1);
    waits.insert(ticks);
  }
  CHECK(waits.size() >= 5);
  CHECK(*waits.begin() >= 10);
  CHECK(*waits.rbegin() <= 20);
}

TEST_CASE("16 a member raises its term only after a majority would vote for it") {
  BareCluster cluster = Three();
  cluster.Tick(1, 500);
  CHECK(cluster.core(1).term() == 1);
  CHECK(cluster[1].writing().empty());
  cluster.Settle();
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  CHECK(cluster.core(1).term() == 2);
}

TEST_CASE("17 a pre-vote is granted for a newer term and by those who miss a leader") {
  BareCluster cluster = Three({}, 3);
  const auto ask = [&cluster](Term proposed) {
    Hear(cluster, 2, 1, 3, PreVoteRequest{.proposed = proposed, .last = {.index = 9, .term = 3}});
    return LastSent<PreVoteReply>(cluster, 1).vote;
  };
  CHECK(ask(3) == Vote::kDenied);
  CHECK(ask(4) == Vote::kGranted);
  Hear(cluster, 3, 1, 3, Heartbeat{.commit = 1, .round = 0});
  CHECK(ask(4) == Vote::kDenied);
  cluster.Tick(1, 9);
  CHECK(ask(4) == Vote::kDenied);
  cluster.Tick(1, 1);
  CHECK(ask(4) == Vote::kGranted);
}

TEST_CASE("18 pre-votes change nothing at the voter") {
  BareCluster asked = Three();
  BareCluster left_alone = Three();
  for (int i = 0; i < 40; ++i) {
    Hear(asked, 2, 1, 1, PreVoteRequest{.proposed = 2, .last = {.index = 9, .term = 1}});
    CHECK(LastSent<PreVoteReply>(asked, 1).vote == Vote::kGranted);
    CHECK(asked.core(1).hard_state() == HardState{.term = 1, .vote = 0});
    CHECK(asked[1].writing().empty());
    asked.Tick(1);
    left_alone.Tick(1);
    CHECK(RoleOf(asked, 1) == RoleOf(left_alone, 1));
  }
}

TEST_CASE("19 a denied pre-vote brings a pre-candidate up to the voter's term") {
  BareCluster cluster = Three();
  cluster.Place(2, {.voters = {1, 2, 3}, .term = 7, .log = {7}}, {.term = 7, .vote = 0});
  cluster.Campaign(1);
  cluster.DeliverAll({.from = 1, .to = 2});
  cluster.DeliverAll({.from = 2, .to = 1});
  CHECK(cluster.core(1).term() == 7);
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
}

TEST_CASE("20 who hears from a leader, or leads, ignores vote requests") {
  BareCluster cluster = Led();
  const VoteRequest request{.last = {.index = 9, .term = 8}, .cause = Cause::kTimeout};
  for (const MemberId id : {MemberId{1}, MemberId{2}}) {
    const size_t sent = cluster.record(id).sent.size();
    Hear(cluster, 3, id, 9, request);
    FinishWrites(cluster, id);
    CHECK(cluster.core(id).term() == 2);
    CHECK(cluster.record(id).sent.size() == sent);
  }
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  // The leader itself asked for this one.
  Hear(cluster, 3, 2, 9, VoteRequest{.last = {.index = 9, .term = 8}, .cause = Cause::kTransfer});
  FinishWrites(cluster, 2);
  CHECK(LastSent<VoteReply>(cluster, 2) == kYes);
  CHECK(cluster.core(2).term() == 9);
}

TEST_CASE("21 a leader without its majority steps down in its term") {
  BareCluster cluster = Led();
  cluster.Isolate(1);
  cluster.Tick(1, 20);
  CHECK(RoleOf(cluster, 1) != Role::kLeader);
  CHECK(cluster.core(1).term() == 2);

  BareCluster lame = Led();  // One of two others is enough.
  lame.Cut(1, 3);
  lame.Cut(3, 1);
  for (int i = 0; i < 60; ++i) {
    lame.Tick(1);
    lame.Settle();
  }
  CHECK(RoleOf(lame, 1) == Role::kLeader);
}

TEST_CASE("22 a sole voter campaigns at start and asks nobody") {
  BareCluster cluster;
  cluster.Found({.voters = {1}, .learners = {2}});
  CHECK(RoleOf(cluster, 1) == Role::kCandidate);
  FinishWrites(cluster, 1);
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  CHECK(CountSent(cluster, 1, "vote-request") == 0);
  CHECK(CountSent(cluster, 1, "pre-vote-request") == 0);
}

TEST_CASE("23 learners and strangers never campaign but vote") {
  BareCluster cluster;
  cluster.Found({.voters = {1, 2}, .learners = {3}});
  cluster.PlaceBlank(4);
  for (const MemberId id : {MemberId{3}, MemberId{4}}) {
    cluster.Tick(id, 100);
    CHECK(RoleOf(cluster, id) == Role::kFollower);
    CHECK(cluster.record(id).sent.empty());
    Hear(cluster, 1, id, 2, VoteRequest{.last = {.index = 1, .term = 1}, .cause = Cause::kTimeout});
    FinishWrites(cluster, id);
    CHECK(LastSent<VoteReply>(cluster, id) == kYes);
  }
}

TEST_CASE("24 a voter on its way out campaigns until that is committed") {
  const Members joint{.voters = {2, 3}, .outgoing = {1, 2, 3}};
  const Members last{.voters = {2, 3}, .removed = {1}};
  for (const bool committed : {false, true}) {
    BareCluster cluster = Three();
    Hear(cluster, 2, 1, 2,
         AppendOf({.index = 1, .term = 1}, {Configuration(2, 2, joint), Configuration(3, 2, last)},
                  committed ? 3 : 2));
    FinishWrites(cluster, 1);
    cluster.Tick(1, 40);
    CHECK((RoleOf(cluster, 1) == Role::kPreCandidate) == !committed);
  }
}

TEST_CASE("25 a member that adopts a snapshot does not campaign") {
  BareCluster cluster = Three();
  cluster.HoldMachine(1);
  Hear(cluster, 2, 1, 2, Offer({.index = 9, .term = 2}, {.voters = {1, 2, 3}}));
  FinishWrites(cluster, 1);
  REQUIRE(cluster[1].adoption());
  cluster.Tick(1, 100);
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(CountSent(cluster, 1, "pre-vote-request") == 0);
  cluster.FinishAdoption(1);
  cluster.Tick(1, 40);
  CHECK(CountSent(cluster, 1, "pre-vote-request") > 0);
}

TEST_CASE("26 a removed member that asks for votes is told") {
  const Members joint{.voters = {2, 3}, .outgoing = {1, 2, 3}};
  const Members last{.voters = {2, 3}, .removed = {1}};
  BareCluster cluster = Three();
  Hear(cluster, 3, 2, 2,
       AppendOf({.index = 1, .term = 1}, {Configuration(2, 2, joint), Configuration(3, 2, last)},
                2));
  FinishWrites(cluster, 2);
  cluster.Campaign(1);
  cluster.Deliver({.from = 1, .to = 2});
  CHECK(CountSent(cluster, 2, "removed") == 0);  // Not committed yet.
  Hear(cluster, 3, 2, 2, Heartbeat{.commit = 3, .round = 0});
  cluster.Tick(1, 20);
  cluster.DeliverAll({.from = 1, .to = 2});
  CHECK(CountSent(cluster, 2, "removed") > 0);
  cluster.DeliverAll({.from = 2, .to = 1, .kind = "removed"});
  CHECK(cluster.core(1).standing().removed);
  const size_t asked = CountSent(cluster, 1, "pre-vote-request");
  cluster.Tick(1, 100);
  CHECK(CountSent(cluster, 1, "pre-vote-request") == asked);
}

TEST_CASE("27 a second leader in a term ends the process") {
  BareCluster leader = Led();
  CHECK(EndsTheProcess([&leader] { Hear(leader, 3, 1, 2, Heartbeat{}); }));
  BareCluster follower = Led();
  CHECK(EndsTheProcess(
      [&follower] { Hear(follower, 3, 2, 2, AppendOf({.index = 1, .term = 1}, {})); }));
}

TEST_CASE("28 TimeoutNow goes out once the successor's log is complete, and again") {
  BareCluster cluster = Led();
  cluster.HoldWrites(3);
  cluster.Propose(1, {"x"});
  cluster.Settle();
  cluster.Transfer(1, 3);
  cluster.Tick(1);
  CHECK(CountSent(cluster, 1, "timeout-now") == 0);
  cluster.FinishWrite(3);
  cluster.Deliver({.from = 3, .to = 1, .kind = "append-reply"});
  CHECK(CountSent(cluster, 1, "timeout-now") == 1);
  cluster.Tick(1);
  CHECK(CountSent(cluster, 1, "timeout-now") == 2);
}

TEST_CASE("29 a leader that hands over takes nothing, and leads on without success") {
  BareCluster cluster = Led();
  cluster.HoldWrites(3);
  cluster.Propose(1, {"x"});
  cluster.Settle();
  REQUIRE(cluster.Transfer(1, 3) == TransferRefusal::kNone);
  CHECK(cluster.core(1).standing().successor == 3);
  CHECK(cluster.Propose(1, {"y"}).refusal == ProposeRefusal::kTransferring);
  CHECK(cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}}).refusal ==
        ChangeRefusal::kTransferring);
  CHECK(cluster.Transfer(1, 2) == TransferRefusal::kUnderWay);
  for (int i = 0; i < 12; ++i) {
    cluster.Tick(1);
    cluster.Settle();
  }
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  CHECK(cluster.core(1).standing().successor == 0);
  CHECK(cluster.Propose(1, {"y"}).refusal == ProposeRefusal::kNone);
}

TEST_CASE("30 leadership goes to another voter or to nobody") {
  BareCluster cluster;
  cluster.Found({.voters = {1, 2, 3}, .learners = {4}});
  cluster.Elect(1);
  CHECK(cluster.Transfer(1, 1) == TransferRefusal::kNotVoter);
  CHECK(cluster.Transfer(1, 4) == TransferRefusal::kNotVoter);
  CHECK(cluster.Transfer(1, 9) == TransferRefusal::kNotVoter);
  CHECK(cluster.Transfer(2, 3) == TransferRefusal::kNotLeader);
  Hear(cluster, 3, 2, 2, TimeoutNow{});  // Not from the leader.
  Hear(cluster, 1, 4, 2, TimeoutNow{});  // To a learner.
  CHECK(RoleOf(cluster, 2) == Role::kFollower);
  CHECK(RoleOf(cluster, 4) == Role::kFollower);
  CHECK(cluster.Transfer(1, 2) == TransferRefusal::kNone);
  cluster.Settle();
  CHECK(RoleOf(cluster, 2) == Role::kLeader);
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
}

TEST_CASE("31 a new leader appends an empty entry at once") {
  BareCluster cluster = Three({1});
  cluster.Elect(1);
  REQUIRE(cluster.core(1).log().last_index() == 3);
  const EntryPtr& entry = cluster.core(1).log().At(3);
  CHECK(entry->kind == EntryKind::kEmpty);
  CHECK(entry->term == 2);
  CHECK(cluster.core(1).commit() == 3);  // And all before it.
}

TEST_CASE("32 a leader never overwrites its log") {
  BareCluster cluster = Led();
  const Position first = cluster.Propose(1, {"x"}).first;
  const EntryPtr entry = cluster.core(1).log().At(first.index);
  // Whatever others say in this or an older term.
  Hear(cluster, 2, 1, 1, AppendOf({.index = 1, .term = 1}, {Command(2, 1), Command(3, 1)}));
  Hear(cluster, 2, 1, 2,
       AppendReply{.verdict = Rejected{.prev = 3, .hint = {.index = 1, .term = 1}},
                   .flow = Flow::kOpen});
  CHECK(cluster.core(1).log().At(first.index) == entry);
  CHECK(cluster.Propose(1, {"y"}).first == Position{.index = first.index + 1, .term = 2});
}

TEST_CASE("33 entries are taken only after a position that is held") {
  for (const Position prev : {Position{.index = 3, .term = 2}, Position{.index = 9, .term = 1},
                              Position{.index = 9, .term = 0}, Position{.index = 3, .term = 0}}) {
    BareCluster cluster = Three({1, 1}, 2);
    Hear(cluster, 2, 1, 2, AppendOf(prev, {Command(prev.index + 1, 2)}));
    FinishWrites(cluster, 1);
    CHECK(cluster.core(1).log().last() == Position{.index = 3, .term = 1});
    CHECK(std::holds_alternative<Rejected>(LastSent<AppendReply>(cluster, 1).verdict));
  }
}

TEST_CASE("34 a late append cuts nothing that does not conflict") {
  BareCluster cluster = Three({1, 1, 1}, 2);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {Command(2, 1, "a")}));
  CHECK(cluster.core(1).log().last_index() == 4);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {}));
  CHECK(cluster.core(1).log().last_index() == 4);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 1}, {Command(3, 2)}));
  CHECK(cluster.core(1).log().last() == Position{.index = 3, .term = 2});
}

TEST_CASE("35 a reply acknowledges what the append verified") {
  BareCluster cluster = Three({1, 1, 1}, 2);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 1}, {}));
  FinishWrites(cluster, 1);
  CHECK(LastMatch(cluster, 1) == 2);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 1}, {Command(3, 1, "b")}));
  FinishWrites(cluster, 1);
  CHECK(LastMatch(cluster, 1) == 3);
}

TEST_CASE("36 an append reply waits for the write of its entries") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {Command(2, 2)}));
  CHECK(CountSent(cluster, 1, "append-reply") == 0);
  // An empty append behind it waits too.
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 2}, {}));
  CHECK(CountSent(cluster, 1, "append-reply") == 0);
  FinishWrites(cluster, 1);
  CHECK(CountSent(cluster, 1, "append-reply") == 2);
  CHECK(cluster[1].disk().Holds({.index = 2, .term = 2}));
}

TEST_CASE("37 a follower commits no further than it verified") {
  BareCluster cluster = Three({1, 1, 1}, 2);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 1}, {}, 4));
  CHECK(cluster.core(1).commit() == 2);
  Hear(cluster, 2, 1, 2, AppendOf({.index = 2, .term = 1}, {Command(3, 2)}, 9));
  CHECK(cluster.core(1).commit() == 3);
}

TEST_CASE("38 only entries of the leader's own term are committed by counting") {
  BareCluster cluster = Three({2}, 2);
  cluster.Campaign(1);
  Hear(cluster, 2, 1, 2, PreVoteReply{.proposed = 3, .vote = Vote::kGranted});
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 3, kYes);
  FinishWrites(cluster, 1);
  REQUIRE(RoleOf(cluster, 1) == Role::kLeader);
  Hear(cluster, 2, 1, 3, Match(2));
  Hear(cluster, 3, 1, 3, Match(2));
  CHECK(cluster.core(1).commit() == 1);  // 2@2 is on every disk, and yet not committed.
  Hear(cluster, 2, 1, 3, Match(3));
  CHECK(cluster.core(1).commit() == 3);
}

TEST_CASE("39 a leader counts itself as far as its own disk got") {
  BareCluster cluster = Led();
  cluster.HoldWrites(1);
  cluster.Propose(1, {"x"});
  cluster.HoldWrites(3);
  cluster.Settle();
  CHECK(cluster.core(1).commit() == 2);  // Durable on 2 only.
  cluster.ReleaseWrites(3);
  cluster.Settle();
  CHECK(cluster.core(1).commit() == 3);  // Durable on 2 and 3.
  CHECK(cluster.core(1).log().stable() == 2);

  BareCluster sole;
  sole.Found({.voters = {1}});
  FinishWrites(sole, 1);
  sole.Propose(1, {"x"});
  CHECK(sole.core(1).commit() == 2);
  FinishWrites(sole, 1);
  CHECK(sole.core(1).commit() == 3);
}

TEST_CASE("40 a leader sends entries without waiting for its disk") {
  BareCluster cluster = Led();
  cluster.Propose(1, {"x"});
  CHECK(cluster[1].writing().size() == 1);
  CHECK(cluster.CountOnNetwork({.from = 1, .to = 2, .kind = "append"}) == 1);
  CHECK(cluster.CountOnNetwork({.from = 1, .to = 3, .kind = "append"}) == 1);
}

TEST_CASE("41 the end of an overwritten write makes no new bytes durable") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {Command(2, 2), Command(3, 2)}));
  Hear(cluster, 3, 1, 3, AppendOf({.index = 1, .term = 1}, {Command(2, 3), Command(3, 3)}));
  REQUIRE(cluster[1].writing().size() == 2);
  cluster.FinishWrite(1);
  CHECK(cluster.core(1).log().stable() == 1);
  cluster.FinishWrite(1);
  CHECK(cluster.core(1).log().stable() == 3);
}

TEST_CASE("42 a promise that was not handed out dies with its term") {
  BareCluster cluster = Three();
  Core& core = cluster.core(1);
  core.Step({.from = 2,
             .to = 1,
             .term = 2,
             .message = AppendOf({.index = 1, .term = 1}, {Command(2, 2)})});
  core.Step({.from = 3, .to = 1, .term = 3, .message = Heartbeat{.commit = 1, .round = 0}});
  const Output output = core.TakeOutput();
  REQUIRE(output.write);
  CHECK(output.write->promises.empty());
  for (const Envelope& envelope : output.messages) {
    CHECK(KindOf(envelope.message) != "append-reply");
  }
}

TEST_CASE("43 to overwrite or miss what was committed ends the process") {
  BareCluster overwritten = Led();
  CHECK(EndsTheProcess([&overwritten] {
    Hear(overwritten, 3, 2, 3, AppendOf({.index = 1, .term = 1}, {Command(2, 3), Command(3, 3)}));
  }));
  BareCluster missing = Led();
  CHECK(EndsTheProcess([&missing] { Hear(missing, 1, 2, 2, Heartbeat{.commit = 3, .round = 0}); }));
}

TEST_CASE("44 what a follower holds never shrinks in the leader's eyes") {
  BareCluster cluster = Led();
  cluster.Propose(1, {"x"});
  cluster.Settle();
  REQUIRE(StatusOf(cluster, 1, 2).match == 3);
  Hear(cluster, 2, 1, 2, Match(1));
  Hear(cluster, 2, 1, 2,
       AppendReply{.verdict = Rejected{.prev = 2, .hint = {.index = 1, .term = 1}},
                   .flow = Flow::kOpen});
  CHECK(StatusOf(cluster, 1, 2).match == 3);
  CHECK(StatusOf(cluster, 1, 2).next == 4);
  cluster.Unreachable(1, 2);
  CHECK(StatusOf(cluster, 1, 2).match == 3);
  CHECK(StatusOf(cluster, 1, 2).next > 3);
}

TEST_CASE("45 the leader steps back by terms") {
  // Forty entries of term 4 against forty of terms 2 and 3.
  Terms mine(40, 4);
  Terms other(20, 2);
  other.insert(other.end(), 20, 3);
  BareCluster cluster = Three(mine, 4);
  cluster.Place(2, {.voters = {1, 2, 3}, .term = 4, .log = other}, {.term = 4, .vote = 0});
  cluster.Elect(1);
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.core(2).log().last() == cluster.core(1).log().last());
  size_t rejections = 0;
  for (const Envelope& envelope : cluster.record(2).sent) {
    const auto* reply = std::get_if<AppendReply>(&envelope.message);
    if (reply != nullptr && std::holds_alternative<Rejected>(reply->verdict)) ++rejections;
  }
  CHECK(rejections >= 1);
  CHECK(rejections <= 3);

  BareCluster follower = Three({1, 1, 3}, 4);
  Hear(follower, 2, 1, 4, AppendOf({.index = 4, .term = 2}, {}));
  FinishWrites(follower, 1);
  const Rejected rejected = std::get<Rejected>(LastSent<AppendReply>(follower, 1).verdict);
  CHECK(rejected == Rejected{.prev = 4, .hint = {.index = 3, .term = 1}});
}

TEST_CASE("46 a late rejection is ignored") {
  BareCluster cluster = Led();
  cluster.Propose(1, {"x"});
  cluster.Settle();
  const size_t appends = CountSent(cluster, 1, "append");
  const FollowerStatus before = StatusOf(cluster, 1, 2);
  for (const Index prev : {Index{1}, Index{3}, Index{9}}) {
    Hear(cluster, 2, 1, 2,
         AppendReply{.verdict = Rejected{.prev = prev, .hint = {.index = 1, .term = 1}},
                     .flow = Flow::kOpen});
  }
  CHECK(StatusOf(cluster, 1, 2).state == before.state);
  CHECK(StatusOf(cluster, 1, 2).next == before.next);
  CHECK(CountSent(cluster, 1, "append") == appends);
}

TEST_CASE("47 a probe is followed by nothing before a sign of life") {
  BareCluster cluster = Led();
  cluster.Unreachable(1, 2);
  REQUIRE(StatusOf(cluster, 1, 2).state == Progress::State::kProbe);
  cluster.ForgetRecords();
  cluster.Cut(1, 2);
  for (int i = 0; i < 5; ++i) cluster.Propose(1, {"x"});
  CHECK(CountEntriesSent(cluster, 1, 2) <= 1);
  cluster.Tick(1);
  CHECK(CountEntriesSent(cluster, 1, 2) <= 1);
  Hear(cluster, 2, 1, 2, HeartbeatReply{});
  CHECK(CountEntriesSent(cluster, 1, 2) >= 1);
  CHECK(CountEntriesSent(cluster, 1, 2) <= 2);
}

TEST_CASE("48 a window of appends runs ahead of the replies") {
  Options options;
  options.max_inflight_appends = 2;
  BareCluster cluster = Led(options);
  cluster.ForgetRecords();
  for (int i = 0; i < 5; ++i) cluster.Propose(1, {"x"});
  CHECK(CountEntriesSent(cluster, 1, 2) == 2);
  CHECK(StatusOf(cluster, 1, 2).in_flight == 2);
  cluster.Settle();
  CHECK(cluster.core(2).commit() == cluster.core(1).log().last_index());
}

TEST_CASE("49 no loss stops replication") {
  Options options;
  options.max_inflight_appends = 1;
  BareCluster cluster = Led(options);
  cluster.Propose(1, {"x"});
  cluster.Propose(1, {"y"});
  cluster.DropAll({.from = 1, .to = 2});
  cluster.Settle();
  CHECK(cluster.core(2).log().last_index() == 2);
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.core(2).log().last_index() == 4);
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.core(2).commit() == 4);
}

TEST_CASE("50 an append carries max_append_bytes at most, and one entry at least") {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{1000}}) {
    Options options;
    options.max_append_bytes = bytes;
    BareCluster cluster = Led(options);
    cluster.ForgetRecords();
    cluster.Propose(1, std::vector<std::string>(50, std::string(100, 'x')));
    cluster.Settle();
    for (const Envelope& envelope : cluster.record(1).sent) {
      const auto* append = std::get_if<Append>(&envelope.message);
      if (append == nullptr || append->entries.size() < 2) continue;
      uint64_t carried = 0;
      for (const EntryPtr& entry : append->entries) carried += EntryBytes(*entry);
      CHECK(carried <= bytes);
    }
    CHECK(CountEntriesSent(cluster, 1, 2) >= (bytes == 1 ? 50U : 5U));
    CHECK(CountEntriesSent(cluster, 1, 2) <= (bytes == 1 ? 50U : 25U));
    CHECK(cluster.core(2).log().last_index() == 52);
  }
}

TEST_CASE("51 a follower with too much to apply asks to hold") {
  Options options;
  options.max_log_bytes = 4000;
  BareCluster cluster = Led(options);
  cluster.HoldMachine(2);
  // Only 2 cannot get rid of its log: the others flush.
  while (StatusOf(cluster, 1, 2).flow == Flow::kOpen) {
    REQUIRE(cluster.core(1).log().last_index() < 200);
    REQUIRE(cluster.Propose(1, {std::string(200, 'x')}).refusal == ProposeRefusal::kNone);
    cluster.Settle();
    cluster.Tick(1);
    cluster.Settle();
    for (const MemberId id : {MemberId{1}, MemberId{3}}) cluster.Flush(id);
  }
  cluster.ForgetRecords();
  cluster.Propose(1, {std::string(200, 'x')});
  cluster.Tick(1);
  cluster.Settle();
  CHECK(CountEntriesSent(cluster, 1, 2) == 0);
  CHECK(cluster.core(2).log().last_index() < cluster.core(1).log().last_index());
  cluster.ReleaseMachine(2);
  cluster.Apply(2);
  cluster.Flush(2);
  cluster.Tick(1);
  cluster.Settle();
  cluster.Tick(1);
  cluster.Settle();
  if (!cluster.record(1).need_snapshot.empty()) {
    cluster.OfferSnapshot(1, 2);
    cluster.Settle();
    cluster.Tick(1);
    cluster.Settle();
  }
  CHECK(StatusOf(cluster, 1, 2).flow == Flow::kOpen);
  CHECK(cluster.core(2).log().last_index() == cluster.core(1).log().last_index());
}

TEST_CASE("52 what is given out is committed, durable here, in order and once") {
  BareCluster cluster = Led();
  cluster.ForgetRecords();
  cluster.HoldWrites(1);
  cluster.Propose(1, {"x", "y"});
  cluster.Settle();
  REQUIRE(cluster.core(1).commit() == 4);
  CHECK(cluster.record(1).committed.empty());
  FinishWrites(cluster, 1);
  REQUIRE(cluster.record(1).committed.size() == 2);
  CHECK(cluster.record(1).committed[0]->data == "x");
  CHECK(cluster.record(1).committed[1]->data == "y");
  cluster.ReleaseWrites(1);
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.record(1).committed.size() == 2);
  CHECK(cluster.record(2).committed.size() == 2);
}

TEST_CASE("53 the commit index moves forward only, and its moves are told at once") {
  BareCluster cluster = Led();
  cluster.Propose(1, {"x"});
  cluster.Settle();  // No tick.
  CHECK(cluster.core(2).commit() == 3);
  CHECK(cluster.core(3).commit() == 3);
  Hear(cluster, 1, 2, 2, Heartbeat{.commit = 1, .round = 0});
  Hear(cluster, 1, 2, 2, AppendOf({.index = 3, .term = 2}, {}, 2));
  CHECK(cluster.core(2).commit() == 3);
}

TEST_CASE("54 proposals are taken whole or refused") {
  BareCluster cluster = Led();
  const ProposeResult taken = cluster.Propose(1, {"x", "y", "z"});
  CHECK(taken.refusal == ProposeRefusal::kNone);
  CHECK(taken.first == Position{.index = 3, .term = 2});
  CHECK(cluster.core(1).log().last_index() == 5);
  CHECK(cluster.core(1).log().At(5)->data == "z");
  CHECK(cluster.Propose(2, {"x"}).refusal == ProposeRefusal::kNotLeader);
  CHECK(cluster.core(2).log().last_index() == 2);
}

TEST_CASE("55 a leader whose log is full takes nothing until its machine is durable") {
  Options options;
  options.max_log_bytes = 2000;
  BareCluster cluster = Led(options);
  ProposeResult result;
  int taken = 0;
  for (; taken < 100; ++taken) {
    result = cluster.Propose(1, {std::string(200, 'x')});
    if (result.refusal != ProposeRefusal::kNone) break;
    cluster.Settle();
  }
  CHECK(result.refusal == ProposeRefusal::kLogFull);
  CHECK(taken >= 4);
  CHECK(cluster.core(1).log().bytes() <= 2000 + 300);
  for (const MemberId id : cluster.Ids()) cluster.Flush(id);
  CHECK(cluster.Propose(1, {"x"}).refusal == ProposeRefusal::kNone);
}

TEST_CASE("56 malformed messages are dropped and counted") {
  BareCluster cluster = Three({1, 2}, 3);
  const HardState before = cluster.core(1).hard_state();
  const Position prev{.index = 3, .term = 2};
  const EntryPtr nonsense = MakeEntry(4, 3, EntryKind::kMembers, "nonsense");
  const std::vector<Envelope> malformed = {
      {.from = 0, .to = 1, .term = 3, .message = Heartbeat{}},
      {.from = 1, .to = 1, .term = 3, .message = Heartbeat{}},
      {.from = 2, .to = 1, .term = 0, .message = Heartbeat{}},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {Command(5, 3)})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {Command(4, 3), Command(4, 3)})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {Command(4, 1)})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {Command(4, 3), Command(5, 2)})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {Command(4, 4)})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf({.index = 3, .term = 4}, {})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {nonsense})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf(prev, {nullptr})},
      {.from = 2,
       .to = 1,
       .term = 3,
       .message = SnapshotOffer{.at = {.index = 9, .term = 3}, .members = "nonsense"}},
      {.from = 2, .to = 1, .term = 3, .message = Offer({.index = 9, .term = 4}, {.voters = {1}})},
      {.from = 2, .to = 1, .term = 3, .message = Offer({.index = 9, .term = 3}, {})},
  };
  uint64_t refused = cluster.core(1).refused_messages();
  for (size_t i = 0; i < malformed.size(); ++i) {
    INFO("row " << i);
    cluster.core(1).Step(malformed[i]);
    CHECK(cluster.core(1).refused_messages() == ++refused);
  }
  cluster.core(1).Step({.from = 2, .to = 3, .term = 3, .message = Heartbeat{}});
  CHECK(cluster.core(1).refused_messages() == ++refused);
  CHECK(cluster.core(1).hard_state() == before);
  CHECK(cluster.core(1).log().last() == Position{.index = 3, .term = 2});
  CHECK(cluster.core(1).TakeOutput().refused_snapshots.size() == 3);  // To be deleted.
}

TEST_CASE("57 terms and indexes that cannot be are dropped and counted") {
  BareCluster cluster = Three({}, 3);
  constexpr uint64_t kMax = ~uint64_t{0};
  const std::vector<Envelope> impossible = {
      {.from = 2, .to = 1, .term = kMax, .message = Heartbeat{}},
      {.from = 2, .to = 1, .term = kTermMax + 1, .message = Heartbeat{}},
      {.from = 2, .to = 1, .term = 3 + kTermJumpMax + 1, .message = Heartbeat{}},
      {.from = 2, .to = 1, .term = 3, .message = Heartbeat{.commit = kMax, .round = 0}},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf({.index = kMax, .term = 3}, {})},
      {.from = 2, .to = 1, .term = 3, .message = AppendOf({.index = 1, .term = 1}, {}, kMax)},
      {.from = 2, .to = 1, .term = 3, .message = Match(kMax)},
      {.from = 2, .to = 1, .term = 3, .message = PreVoteRequest{.proposed = kMax, .last = {}}},
      {.from = 2,
       .to = 1,
       .term = 3,
       .message = Offer({.index = kMax, .term = 3}, {.voters = {1}})},
      {.from = 2,
       .to = 1,
       .term = 4,
       .message = VoteRequest{.last = {.index = kMax, .term = 1}, .cause = Cause::kTimeout}},
  };
  uint64_t refused = 0;
  for (size_t i = 0; i < impossible.size(); ++i) {
    INFO("row " << i);
    Hear(cluster, 2, 1, impossible[i].term, impossible[i].message);
    CHECK(cluster.core(1).refused_messages() == ++refused);
    CHECK(cluster.core(1).term() == 3);
  }
  Hear(cluster, 2, 1, 3 + kTermJumpMax, Heartbeat{.commit = 1, .round = 0});
  CHECK(cluster.core(1).term() == 3 + kTermJumpMax);
}

TEST_CASE("58 an acknowledgement of what was never said is dropped and counted") {
  BareCluster cluster = Led();
  Hear(cluster, 2, 1, 2, Match(3));
  CHECK(cluster.core(1).refused_messages() == 1);
  CHECK(StatusOf(cluster, 1, 2).match == 2);
  Hear(cluster, 2, 1, 2, HeartbeatReply{.round = 1'000'000, .flow = Flow::kOpen});
  CHECK(cluster.core(1).refused_messages() == 2);
  cluster.Read(1, 7);
  CHECK(cluster.record(1).reads.empty());
}

TEST_CASE("59 a configuration rules from the moment it is in the log") {
  BareCluster cluster = Led();
  cluster.HoldWrites(1);
  REQUIRE(cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}}).refusal ==
          ChangeRefusal::kNone);
  CHECK(cluster.core(1).members().IsLearner(4));
  CHECK_FALSE(cluster.core(1).standing().members_committed);
  CHECK(StatusOf(cluster, 1, 4).id == 4);
  cluster.Deliver({.from = 1, .to = 2, .kind = "append"});
  CHECK(cluster.core(2).members().IsLearner(4));
}

TEST_CASE("60 a configuration that is cut away gives way to the one before it") {
  BareCluster cluster = Three();
  const Members before = cluster.core(1).members();
  const Members joint{.voters = {1, 2, 3, 4}, .outgoing = {1, 2, 3}};
  Hear(cluster, 2, 1, 2,
       AppendOf({.index = 1, .term = 1}, {Command(2, 2), Configuration(3, 2, joint)}));
  CHECK(cluster.core(1).members() == joint);
  CHECK(cluster.core(1).log().members_index() == 3);
  Hear(cluster, 3, 1, 3, AppendOf({.index = 2, .term = 2}, {Command(3, 3)}));
  CHECK(cluster.core(1).members() == before);
  CHECK(cluster.core(1).standing().members == before);
  CHECK(cluster.core(1).log().members_index() == 1);
}

TEST_CASE("61 changes of voters are joint, others are one entry") {
  BareCluster cluster = Led();
  const ChangeResult learner = cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}});
  CHECK_FALSE(learner.joint);
  CHECK_FALSE(cluster.core(1).members().IsJoint());
  cluster.Settle();
  const ChangeResult record =
      cluster.Change(1, {.targets = {{.id = 2, .fate = MemberFate::kVoter, .record = "here"}}});
  CHECK_FALSE(record.joint);
  cluster.Settle();
  const ChangeResult voter = cluster.Change(1, {.targets = {To(3, MemberFate::kLearner)}});
  CHECK(voter.joint);
  CHECK(cluster.core(1).members().IsJoint());
}

TEST_CASE("62 while joint both majorities decide") {
  BareCluster cluster = Led();
  for (const MemberId id : {MemberId{4}, MemberId{5}}) cluster.PlaceBlank(id);
  cluster.Isolate(2);
  cluster.Isolate(3);
  cluster.Cut(4, 5);
  const ChangeResult change =
      cluster.Change(1, {.targets = {To(4, MemberFate::kVoter), To(5, MemberFate::kVoter),
                                     To(2, MemberFate::kRemoved), To(3, MemberFate::kRemoved)}});
  REQUIRE(change.joint);
  auto beat = [&cluster, served = size_t{0}]() mutable {
    cluster.Tick(1);
    cluster.Settle();
    const Ids wanted = cluster.record(1).need_snapshot;
    for (; served < wanted.size(); ++served) cluster.OfferSnapshot(1, wanted[served]);
    cluster.Settle();
  };
  for (int i = 0; i < 4; ++i) beat();
  REQUIRE(cluster.core(4).log().last_index() == change.position.index);
  REQUIRE(cluster.core(5).log().last_index() == change.position.index);
  cluster.Read(1, 7);
  cluster.Settle();
  CHECK(cluster.core(1).commit() < change.position.index);  // The old half is silent.
  CHECK(cluster.record(1).reads.empty());
  cluster.Heal();
  for (int i = 0; i < 3; ++i) beat();
  CHECK(cluster.core(1).commit() >= change.position.index);
  CHECK(cluster.record(1).reads.size() == 1);
}

size_t CountConfigurations(const Core& core) {
  size_t count = 0;
  for (Index i = core.log().base().index + 1; i <= core.log().last_index(); ++i) {
    if (core.log().At(i)->kind == EntryKind::kMembers) ++count;
  }
  return count;
}

TEST_CASE("63 a joint configuration is left by itself, once, also by a later leader") {
  BareCluster cluster = Led();
  cluster.Change(1, {.targets = {To(3, MemberFate::kLearner)}});
  cluster.Settle();
  for (int i = 0; i < 5; ++i) {
    cluster.Tick(1);
    cluster.Settle();
  }
  CHECK(CountConfigurations(cluster.core(1)) == 2);
  CHECK(cluster.core(1).members() == Members{.voters = {1, 2}, .learners = {3}});

  BareCluster later = Led();
  later.HoldWrites(1);
  later.Change(1, {.targets = {To(3, MemberFate::kLearner)}});
  later.DeliverAll({.from = 1, .to = 2, .kind = "append"});
  later.Crash(1);
  later.Restart(1);
  later.ReleaseWrites(1);
  later.Elect(2);
  later.Tick(2);
  later.Settle();
  CHECK(CountConfigurations(later.core(2)) == 2);
  CHECK(later.core(2).members() == Members{.voters = {1, 2}, .learners = {3}});
}

TEST_CASE("64 no change before an entry of the leader's own term is committed") {
  BareCluster cluster = Three();
  cluster.Campaign(1);
  cluster.Settle({1, 2});
  BareCluster fresh = Three();
  fresh.Campaign(1);
  Hear(fresh, 2, 1, 1, PreVoteReply{.proposed = 2, .vote = Vote::kGranted});
  FinishWrites(fresh, 1);
  Hear(fresh, 2, 1, 2, kYes);
  REQUIRE(RoleOf(fresh, 1) == Role::kLeader);
  CHECK(fresh.Change(1, {.targets = {To(4, MemberFate::kLearner)}}).refusal ==
        ChangeRefusal::kNotEstablished);
  CHECK(cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}}).refusal ==
        ChangeRefusal::kNone);
}

TEST_CASE("65 one change at a time") {
  BareCluster cluster = Led();
  cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}});
  const MemberChange next{.targets = {To(5, MemberFate::kLearner)}};
  CHECK(cluster.Change(1, next).refusal == ChangeRefusal::kUnderWay);
  cluster.Settle();
  CHECK(cluster.Change(1, next).refusal == ChangeRefusal::kNone);
  cluster.Settle();
  REQUIRE(cluster.Change(1, {.targets = {To(3, MemberFate::kRemoved)}}).joint);
  CHECK(cluster.Change(1, {.targets = {To(6, MemberFate::kLearner)}}).refusal ==
        ChangeRefusal::kUnderWay);
}

TEST_CASE("66 the id of a removed member is never taken again") {
  BareCluster cluster = Led();
  cluster.Change(1, {.targets = {To(3, MemberFate::kRemoved)}});
  cluster.Settle();
  cluster.Tick(1);
  cluster.Settle();
  for (const MemberFate fate : {MemberFate::kVoter, MemberFate::kLearner}) {
    CHECK(cluster.Change(1, {.targets = {To(3, fate)}}).refusal == ChangeRefusal::kWasRemoved);
  }
}

TEST_CASE("67 senseless changes are refused by name") {
  BareCluster cluster = Led();
  const auto refusal = [&cluster](MemberId at, std::vector<MemberTarget> targets) {
    return cluster.Change(at, {.targets = std::move(targets)}).refusal;
  };
  using enum MemberFate;
  CHECK(refusal(1, {To(1, kRemoved), To(2, kRemoved), To(3, kLearner)}) == ChangeRefusal::kNoVoter);
  CHECK(refusal(1, {To(9, kRemoved)}) == ChangeRefusal::kUnknownMember);
  CHECK(refusal(1, {To(2, kVoter)}) == ChangeRefusal::kNothingChanges);
  CHECK(refusal(1, {To(4, kVoter), To(4, kRemoved)}) == ChangeRefusal::kInvalid);
  CHECK(refusal(2, {To(4, kVoter)}) == ChangeRefusal::kNotLeader);
  CHECK(cluster.core(1).log().last_index() == 2);
}

TEST_CASE("68 a leader that leaves goes on until that is committed, then makes way") {
  BareCluster cluster = Led();
  cluster.Change(1, {.targets = {To(1, MemberFate::kRemoved)}});
  cluster.DeliverAll({.from = 1, .to = 0, .kind = "append"});
  for (const MemberId id : cluster.Ids()) FinishWrites(cluster, id);
  cluster.DeliverAll({.from = 0, .to = 1, .kind = "append-reply"});
  cluster.HoldWrites(3);
  cluster.Settle();
  CHECK(RoleOf(cluster, 1) == Role::kLeader);
  REQUIRE_FALSE(cluster.core(1).members().IsVoter(1));
  CHECK(cluster.core(1).commit() == 3);  // Its own disk does not count for 4.
  cluster.ReleaseWrites(3);
  cluster.Settle();
  CHECK(RoleOf(cluster, 1) == Role::kFollower);
  CHECK(cluster.core(1).standing().removed);
  CHECK(CountSent(cluster, 1, "timeout-now") == 1);
  CHECK((RoleOf(cluster, 2) == Role::kLeader) != (RoleOf(cluster, 3) == Role::kLeader));
}

TEST_CASE("69 of new members nothing is known") {
  BareCluster cluster = Led();
  cluster.Change(1, {.targets = {To(4, MemberFate::kLearner)}});
  CHECK(StatusOf(cluster, 1, 4).match == 0);
  CHECK(StatusOf(cluster, 1, 4).state == Progress::State::kProbe);
  cluster.PlaceBlank(4);
  for (int i = 0; i < 4; ++i) {
    cluster.Tick(1);
    cluster.Settle();
    if (!cluster.record(1).need_snapshot.empty() && i == 1) cluster.OfferSnapshot(1, 4);
  }
  CHECK(cluster.core(4).commit() == cluster.core(1).commit());
}

TEST_CASE("70 a snapshot's configuration becomes the member's") {
  const std::vector<Members> configurations = {
      kJoint, {.voters = {2, 3}, .learners = {1}}, {.voters = {2, 3}, .removed = {1}}};
  for (const Members& members : configurations) {
    BareCluster cluster = Three();
    Hear(cluster, 2, 1, 2, Offer({.index = 9, .term = 2}, members));
    cluster.Settle({1});
    CHECK(cluster.core(1).log().base() == Position{.index = 9, .term = 2});
    CHECK(cluster.core(1).members() == members);
    cluster.Crash(1);
    cluster.Restart(1);
    CHECK(cluster.core(1).members() == members);
  }
}

// Four members; 4 is cut off while the others forget what it lacks.
BareCluster FarBehind() {
  Options options;
  options.max_log_bytes = 2000;
  BareCluster cluster(options);
  cluster.Found({.voters = {1, 2, 3, 4}});
  cluster.Elect(1);
  cluster.Isolate(4);
  cluster.Unreachable(1, 4);
  for (int i = 0; i < 60; ++i) {
    REQUIRE(cluster.Propose(1, {std::string(100, 'x')}).refusal == ProposeRefusal::kNone);
    cluster.Settle();
    cluster.Tick(1);
    cluster.Settle();
    for (const MemberId id : {MemberId{1}, MemberId{2}, MemberId{3}}) cluster.Flush(id);
  }
  REQUIRE(cluster.core(1).log().base().index > cluster.core(4).log().last_index());
  return cluster;
}

TEST_CASE("71 who needs what the log forgot gets a snapshot, once heard from") {
  BareCluster cluster = FarBehind();
  cluster.Propose(1, {"x"});
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.record(1).need_snapshot.empty());
  cluster.Heal();
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.record(1).need_snapshot == Ids{4});
  CHECK(StatusOf(cluster, 1, 4).state == Progress::State::kSnapshot);

  // Found to be unreachable just when the log forgets what it needs next: not before it is heard.
  Options options;
  options.max_log_bytes = 2000;
  BareCluster other = Led(options);
  other.Isolate(3);
  while (StatusOf(other, 1, 3).match >= other.core(1).log().base().index) {
    REQUIRE(other.core(1).log().last_index() < 200);
    REQUIRE(other.Propose(1, {std::string(100, 'x')}).refusal == ProposeRefusal::kNone);
    other.Settle();
    other.Flush(1);
  }
  other.Unreachable(1, 3);
  other.Tick(1);
  other.Settle();
  CHECK(other.record(1).need_snapshot.empty());
  other.Heal();
  other.Tick(1);
  other.Settle();
  CHECK(other.record(1).need_snapshot == Ids{3});
}

TEST_CASE("72 a snapshot that is not past the commit index is refused") {
  BareCluster cluster = Led();
  cluster.Propose(1, {"x"});
  cluster.Settle();
  const Members members = cluster.core(2).members();
  Hear(cluster, 1, 2, 2, Offer({.index = 2, .term = 2}, members));
  cluster.Settle({2});
  CHECK(cluster.record(2).refused_snapshots.size() == 1);
  CHECK_FALSE(cluster[2].adoption());
  CHECK(cluster.core(2).log().last_index() == 3);
  CHECK(LastMatch(cluster, 2) == 3);
}

TEST_CASE("73 a snapshot of what the log holds commits and keeps the tail") {
  BareCluster cluster = Three({1, 1, 1}, 2);
  Hear(cluster, 2, 1, 2, Offer({.index = 3, .term = 1}, {.voters = {1, 2, 3}}));
  cluster.Settle({1});
  CHECK(cluster.record(1).refused_snapshots.size() == 1);
  CHECK(cluster.core(1).commit() == 3);
  CHECK(cluster.core(1).log().last() == Position{.index = 4, .term = 1});
}

TEST_CASE("74 a snapshot is handed out once its term is durable") {
  BareCluster cluster = Three();
  Hear(cluster, 2, 1, 2, Offer({.index = 9, .term = 2}, {.voters = {1, 2, 3}}));
  CHECK_FALSE(cluster[1].adoption());
  cluster.FinishWrite(1);
  CHECK(cluster[1].disk().hard_state.term == 2);
  CHECK(cluster[1].adoption());
}

TEST_CASE("75 while a snapshot is adopted nothing else moves") {
  BareCluster cluster = Three();
  cluster.HoldMachine(1);
  const Members members{.voters = {1, 2, 3}};
  Hear(cluster, 2, 1, 2, Offer({.index = 9, .term = 2}, members));
  FinishWrites(cluster, 1);
  REQUIRE(cluster[1].adoption());
  Hear(cluster, 2, 1, 2, AppendOf({.index = 1, .term = 1}, {Command(2, 2)}, 2));
  Hear(cluster, 2, 1, 2, Heartbeat{.commit = 9, .round = 0});
  Hear(cluster, 2, 1, 2, Offer({.index = 12, .term = 2}, members));
  FinishWrites(cluster, 1);
  CHECK(cluster.core(1).log().last_index() == 1);
  CHECK(cluster.core(1).commit() == 1);
  CHECK(cluster.record(1).refused_snapshots.size() == 1);
  CHECK(cluster.record(1).committed.empty());
  cluster.FinishAdoption(1);
  CHECK(cluster.core(1).log().base() == Position{.index = 9, .term = 2});
}

TEST_CASE("76 the log begins behind the adopted snapshot, durably before it is said") {
  BareCluster cluster = Three({1, 1}, 2);
  Hear(cluster, 2, 1, 2, Heartbeat{.commit = 1, .round = 0});
  Hear(cluster, 2, 1, 2, Offer({.index = 9, .term = 2}, {.voters = {1, 2, 3}}));
  FinishWrites(cluster, 1);
  REQUIRE(cluster.FinishAdoption(1));
  CHECK(cluster.core(1).log().base() == Position{.index = 9, .term = 2});
  CHECK(cluster.core(1).log().last_index() == 9);
  CHECK(CountSent(cluster, 1, "append-reply") == 0);
  REQUIRE(cluster[1].writing().size() == 1);
  CHECK(cluster[1].writing().front().update.reset == Position{.index = 9, .term = 2});
  cluster.FinishWrite(1);
  CHECK(LastMatch(cluster, 1) == 9);
}

TEST_CASE("77 a delivered snapshot is followed by a probe, a failed one by another") {
  BareCluster cluster = FarBehind();
  cluster.Heal();
  cluster.Tick(1);
  cluster.Settle();
  REQUIRE(StatusOf(cluster, 1, 4).state == Progress::State::kSnapshot);
  cluster.FailSnapshot(1, 4);
  cluster.ForgetRecords();
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.record(1).need_snapshot == Ids{4});
  const Position at = cluster[1].applied();
  cluster.OfferSnapshot(1, 4);
  cluster.Deliver({.from = 1, .to = 4, .kind = "snapshot-offer"});
  CHECK(StatusOf(cluster, 1, 4).state == Progress::State::kProbe);
  CHECK(StatusOf(cluster, 1, 4).next == at.index + 1);
  cluster.Settle();
  cluster.Tick(1);
  cluster.Settle();
  CHECK(cluster.core(4).commit() == cluster.core(1).commit());
}

TEST_CASE("78 the log forgets only what the machine holds, and keeps a tail") {
  Options options;
  options.max_log_bytes = 4000;
  BareCluster cluster = Led(options);
  cluster.HoldMachine(2);
  for (int i = 0; i < 10; ++i) {
    cluster.Propose(1, {std::string(200, 'x')});
    cluster.Settle();
  }
  CHECK(cluster.core(1).log().base().index == 1);  // Applied, and not durable.
  cluster.Flush(1);
  cluster.Flush(2);
  cluster.Tick(1);
  CHECK(cluster.core(1).log().base().index > 1);
  CHECK(cluster.core(1).log().base().index <= cluster[1].disk().applied.index);
  CHECK(cluster.core(1).log().bytes() >= 1700);
  CHECK(cluster.core(2).log().base().index == 1);  // Its machine applied nothing.
}

TEST_CASE("79 no read before an entry of the leader's own term is committed") {
  BareCluster cluster = Three({1}, 1);
  cluster.Campaign(1);
  Hear(cluster, 2, 1, 1, PreVoteReply{.proposed = 2, .vote = Vote::kGranted});
  FinishWrites(cluster, 1);
  Hear(cluster, 2, 1, 2, kYes);
  REQUIRE(RoleOf(cluster, 1) == Role::kLeader);
  cluster.Read(1, 7);
  cluster.Tick(1);
  for (ReadRound round = 0; round < 4; ++round) {
    Hear(cluster, 2, 1, 2, HeartbeatReply{.round = round, .flow = Flow::kOpen});
  }
  CHECK(cluster.record(1).reads.empty());
  cluster.Settle();
  cluster.Tick(1);
  cluster.Settle();
  REQUIRE(cluster.record(1).reads.size() == 1);
  CHECK(cluster.record(1).reads[0] == ReadGrant{.id = 7, .index = 3});
}

TEST_CASE("80 a read is granted at the commit index at which its round began") {
  BareCluster cluster = Led();
  cluster.Read(1, 7);
  CHECK(cluster.record(1).reads.empty());
  const size_t beats = cluster.CountOnNetwork({.from = 1, .to = 0, .kind = "heartbeat"});
  CHECK(beats == 2);
  cluster.Deliver({.from = 1, .to = 2, .kind = "heartbeat"});
  CHECK(cluster.record(1).reads.empty());
  cluster.Deliver({.from = 2, .to = 1, .kind = "heartbeat-reply"});
  REQUIRE(cluster.record(1).reads.size() == 1);
  CHECK(cluster.record(1).reads[0] == ReadGrant{.id = 7, .index = 2});
}

TEST_CASE("81 only an answer to its own round or a later one confirms a read") {
  BareCluster cluster = Led();
  cluster.Read(1, 7);
  cluster.Deliver({.from = 1, .to = 2, .kind = "heartbeat"});
  cluster.Copy({.from = 2, .to = 1, .kind = "heartbeat-reply"});
  cluster.Deliver({.from = 2, .to = 1, .kind = "heartbeat-reply"});
  REQUIRE(cluster.record(1).reads.size() == 1);
  cluster.Read(1, 8);
  cluster.Deliver({.from = 2, .to = 1, .kind = "heartbeat-reply"});  // The copy.
  CHECK(cluster.record(1).reads.size() == 1);
  cluster.Settle();
  CHECK(cluster.record(1).reads.size() == 2);
}

TEST_CASE("82 one round is out and one gathers") {
  BareCluster cluster = Led();
  cluster.ForgetRecords();
  for (ReadId read = 1; read <= 20; ++read) cluster.Read(1, read);
  CHECK(CountSent(cluster, 1, "heartbeat") == 2);
  cluster.Settle();
  CHECK(cluster.record(1).reads.size() == 20);
  CHECK(CountSent(cluster, 1, "heartbeat") == 4);
}

TEST_CASE("83 a leader that is every majority confirms by itself") {
  BareCluster cluster;
  cluster.Found({.voters = {1}, .learners = {2}});
  FinishWrites(cluster, 1);
  cluster.Isolate(1);
  cluster.Read(1, 7);
  REQUIRE(cluster.record(1).reads.size() == 1);
  CHECK(cluster.record(1).reads[0].index == 2);
}

TEST_CASE("84 a follower asks the leader, one request at a time, each under a new number") {
  BareCluster cluster = Led();
  cluster.Read(2, 7);
  cluster.Read(2, 8);
  CHECK(CountSent(cluster, 2, "read-request") == 1);
  const uint64_t first = LastSent<ReadRequest>(cluster, 2).number;
  cluster.DropAll({});
  for (int i = 0; i < 5; ++i) {
    cluster.Tick(2);
    Hear(cluster, 1, 2, 2, Heartbeat{.commit = 2, .round = 0});
  }
  const uint64_t second = LastSent<ReadRequest>(cluster, 2).number;
  CHECK(second != first);
  Hear(cluster, 1, 2, 2, ReadReply{.number = first, .index = 1});  // Late.
  CHECK(cluster.record(2).reads.empty());
  cluster.Settle();
  REQUIRE(cluster.record(2).reads.size() == 2);
  CHECK(cluster.record(2).reads[0].index == 2);
  cluster.Crash(2);
  cluster.Restart(2);
  Hear(cluster, 1, 2, 2, Heartbeat{.commit = 2, .round = 0});
  cluster.Read(2, 9);
  const uint64_t next_life = LastSent<ReadRequest>(cluster, 2).number;
  CHECK(next_life != first);
  CHECK(next_life != second);
  CHECK(next_life != second + 1);
}

TEST_CASE("85 open reads are dropped when the leader changes or is lost") {
  BareCluster leader = Led();
  leader.Read(1, 7);
  leader.Read(1, 8);
  Hear(leader, 2, 1, 3, Heartbeat{});
  CHECK(leader.record(1).dropped_reads == std::vector<ReadId>{7, 8});
  CHECK(leader.record(1).reads.empty());

  BareCluster follower = Led();
  follower.Read(2, 7);
  Hear(follower, 3, 2, 3, Heartbeat{});
  CHECK(follower.record(2).dropped_reads == std::vector<ReadId>{7});
  follower.Isolate(2);
  follower.Read(2, 8);
  follower.Tick(2, 40);
  CHECK(follower.record(2).dropped_reads == std::vector<ReadId>{7, 8});
  follower.Read(2, 9);  // Nobody is known who could be asked.
  CHECK(follower.record(2).dropped_reads == std::vector<ReadId>{7, 8, 9});
}

TEST_CASE("86 handing over confirms no read") {
  BareCluster cluster = Led();
  cluster.HoldWrites(3);
  cluster.Propose(1, {"x"});
  cluster.Settle();
  cluster.Transfer(1, 3);
  cluster.Read(1, 7);
  CHECK(cluster.record(1).reads.empty());
  cluster.Deliver({.from = 1, .to = 2, .kind = "heartbeat"});
  cluster.Deliver({.from = 2, .to = 1, .kind = "heartbeat-reply"});
  REQUIRE(cluster.record(1).reads.size() == 1);
  CHECK(cluster.record(1).reads[0] == ReadGrant{.id = 7, .index = 3});
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(std::string(KVD_SOURCE_DIR) + "/" + path);
  REQUIRE(in);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::set<int> NumbersIn(const std::string& text, const std::regex& pattern) {
  std::set<int> numbers;
  for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
    numbers.insert(std::stoi((*it)[1]));
  }
  return numbers;
}

TEST_CASE("every rule of the README has its test") {
  const std::set<int> rules =
      NumbersIn(ReadFile("server/raft/README.md"), std::regex(R"(- RULE (\d+)\. )"));
  const std::set<int> tests =
      NumbersIn(ReadFile("tests/raft/rules_test.cc"), std::regex(R"re(TEST_CASE\("(\d+) )re"));
  CHECK(rules.size() >= 50);
  CHECK(rules == tests);
}

}  // namespace
}  // namespace kv::raft

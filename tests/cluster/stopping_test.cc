// What a member does between the order to stop and its end, step by step.
#include "server/cluster/stopping.h"

#include <catch2/catch_test_macros.hpp>
#include <string>

#include "storage/status.h"

namespace kv::cluster {
namespace {

using Kind = DesiredCount::Kind;
using Output = Stopping::Output;

constexpr absl::Duration kTick = absl::Milliseconds(200);
const std::string kGranted;

StoppingOptions InKubernetes(uint64_t slot) {
  return {.slot = slot,
          .delay = absl::Seconds(5),
          .guard_max_wait = absl::Seconds(120),
          .leave_timeout = absl::Seconds(45),
          .grace_period = absl::Seconds(180),
          .leaderless_max = absl::Seconds(10)};
}

// Drives one order to stop; time passes only here.
class Story {
 public:
  explicit Story(StoppingOptions options) : stopping_(std::move(options)) {}

  Output Tick() {
    now += kTick;
    return Note(stopping_.Tick(now, facts));
  }
  Output Read(DesiredCount count) { return Note(stopping_.DesiredRead(now, count)); }
  Output Permit(const absl::StatusOr<std::string>& sentence) {
    return Note(stopping_.PermitAnswered(now, sentence));
  }
  Output Leave(const absl::StatusOr<std::string>& sentence) {
    return Note(stopping_.LeaveAnswered(now, sentence));
  }
  Output Hurry() { return Note(stopping_.Hurry()); }

  // Ticks until it goes, at most for `limit`; what is asked is answered as the fields below say.
  absl::Duration RunUntilGone(absl::Duration limit) {
    const absl::Duration end = now + limit;
    while (!gone && now < end) {
      const Output output = Tick();
      if (output.read_desired && !gone) Read(desired);
      if (output.ask_permit && !gone) Permit(permit);
      if (output.ask_leave && !gone) Leave(leave);
    }
    return now;
  }

  absl::Duration now = absl::ZeroDuration();
  Stopping::Facts facts{.member = true, .leaderless = absl::ZeroDuration()};
  DesiredCount desired{.kind = Kind::kCount, .count = 3};
  absl::StatusOr<std::string> permit = kGranted;
  absl::StatusOr<std::string> leave = kGranted;

  std::string log;
  bool gone = false;
  bool retreated = false;
  int permits_asked = 0;
  int leaves_asked = 0;
  int reads = 0;
  PermitReason reason = PermitReason::kRestart;

 private:
  Output Note(Output output) {
    CHECK_FALSE(gone);
    for (const std::string& line : output.lines) log += line + "\n";
    gone = gone || output.go;
    retreated = retreated || output.retreat;
    permits_asked += output.ask_permit ? 1 : 0;
    if (output.ask_permit) reason = *output.ask_permit;
    leaves_asked += output.ask_leave ? 1 : 0;
    reads += output.read_desired ? 1 : 0;
    return output;
  }

  Stopping stopping_;
};

bool Holds(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

TEST_CASE("a restart waits for the permit, is ready until then, and then serves for the delay") {
  Story story(InKubernetes(1));
  CHECK(story.Tick().read_desired);
  CHECK(story.permits_asked == 0);
  story.Read({.kind = Kind::kCount, .count = 3});
  CHECK(story.Tick().ask_permit == PermitReason::kRestart);
  story.Permit("member 2 is not back yet");
  CHECK_FALSE(story.retreated);
  story.RunUntilGone(absl::Seconds(1));  // The next question is a second later.
  CHECK_FALSE(story.gone);
  CHECK(story.permits_asked == 2);
  CHECK(story.retreated);
  const absl::Duration granted = story.now;
  story.RunUntilGone(absl::Minutes(1));
  CHECK(story.gone);
  CHECK(story.now - granted >= absl::Seconds(4));
  CHECK(story.now - granted <= absl::Seconds(6));
  CHECK(Holds(story.log, "waits for the permit to stop: member 2 is not back yet"));
  CHECK(Holds(story.log, "the others can spare it; it stays a member"));
  CHECK(story.leaves_asked == 0);
}

TEST_CASE("a slot past the wanted number leaves, and goes only when it is no member any more") {
  Story story(InKubernetes(3));
  story.leave = "2 voters of 3 would be active";
  story.RunUntilGone(absl::Seconds(20));
  CHECK_FALSE(story.gone);
  CHECK_FALSE(story.retreated);
  CHECK(story.leaves_asked >= 15);
  CHECK(story.permits_asked == 0);
  story.leave = kGranted;
  story.RunUntilGone(absl::Seconds(3));
  CHECK(story.gone);
  CHECK(Holds(story.log, "3 members are wanted, from slot 0 on: slot 3 leaves"));
  CHECK(Holds(story.log, "waits to be removed: 2 voters of 3 would be active"));
}

TEST_CASE("a leaver that is refused votes until just before it is killed") {
  Story story(InKubernetes(3));
  story.leave = "not now";
  story.RunUntilGone(absl::Minutes(10));
  CHECK(story.gone);
  CHECK(story.now >= absl::Seconds(164));
  CHECK(story.now <= absl::Seconds(166));
  CHECK(Holds(story.log, "still a member after"));
}

TEST_CASE("a leaver that nobody answers waits for its timeout only") {
  Story story(InKubernetes(3));
  story.leave = MakeStatus(absl::StatusCode::kUnavailable, "no answer");
  story.RunUntilGone(absl::Minutes(10));
  CHECK(story.gone);
  CHECK(story.now >= absl::Seconds(45));
  CHECK(story.now <= absl::Seconds(47));
}

TEST_CASE("when all is over, nobody is asked") {
  for (const DesiredCount& count :
       {DesiredCount{.kind = Kind::kEnding, .reason = "there is no such StatefulSet"},
        DesiredCount{.kind = Kind::kCount, .count = 0}}) {
    Story story(InKubernetes(1));
    story.desired = count;
    story.RunUntilGone(absl::Minutes(10));
    CHECK(story.gone);
    CHECK(story.now <= absl::Seconds(1));
    CHECK(story.permits_asked + story.leaves_asked == 0);
  }
}

TEST_CASE("a number that may not be read is unknown: the leader decides what that means") {
  Story story(InKubernetes(1));
  story.desired = {.kind = Kind::kDenied, .reason = "HTTP 403: no"};
  story.RunUntilGone(absl::Minutes(10));
  CHECK(story.gone);
  CHECK(story.permits_asked == 1);
  CHECK(story.reason == PermitReason::kUnknown);
  CHECK(Holds(story.log, "may not be read, as when all is being uninstalled"));
}

TEST_CASE("silence about the number is waited out for a while, then taken for a restart") {
  Story story(InKubernetes(3));
  story.desired = {.kind = Kind::kUnknown, .reason = "no answer"};
  story.RunUntilGone(absl::Seconds(4));
  CHECK(story.permits_asked == 0);
  CHECK(story.reads >= 2);
  story.RunUntilGone(absl::Minutes(10));
  CHECK(story.gone);
  CHECK(story.reason == PermitReason::kUnknown);
  CHECK(story.leaves_asked == 0);
}

TEST_CASE("a number that comes late turns a restart into a departure, and back") {
  Story story(InKubernetes(3));
  story.desired = {.kind = Kind::kCount, .count = 5};
  story.permit = "wait";
  story.leave = "wait";
  story.RunUntilGone(absl::Seconds(10));
  CHECK(story.leaves_asked == 0);
  story.desired.count = 3;
  story.RunUntilGone(absl::Seconds(5));
  CHECK(story.leaves_asked > 0);
  story.desired.count = 4;
  story.RunUntilGone(absl::Seconds(5));
  const int leaves = story.leaves_asked;
  const int permits = story.permits_asked;
  story.RunUntilGone(absl::Seconds(5));
  CHECK(story.leaves_asked == leaves);
  CHECK(story.permits_asked > permits);
  CHECK_FALSE(story.gone);
}

TEST_CASE("once a number was read, losing sight of it changes nothing") {
  Story story(InKubernetes(3));
  story.leave = "wait";
  story.RunUntilGone(absl::Seconds(5));
  story.desired = {.kind = Kind::kUnknown, .reason = "timeout"};
  const int leaves = story.leaves_asked;
  story.RunUntilGone(absl::Seconds(10));
  CHECK(story.leaves_asked > leaves);
  CHECK(story.permits_asked == 0);
}

TEST_CASE("without a permit it stops all the same, after the wait") {
  Story story(InKubernetes(1));
  story.permit = "2 of 3 voters are away";
  story.RunUntilGone(absl::Minutes(10));
  CHECK(story.gone);
  CHECK(story.now >= absl::Seconds(125));
  CHECK(story.now <= absl::Seconds(127));
  CHECK(Holds(story.log, "no permit within 120 s, stops all the same; last reason: 2 of 3 voters"));
}

TEST_CASE("who is no member, or sees no leader for long, goes at once") {
  Story blank(InKubernetes(1));
  blank.facts.member = false;
  CHECK(blank.Tick().go);
  Story alone(InKubernetes(1));
  alone.facts.leaderless = absl::Seconds(10);
  CHECK(alone.Tick().go);
  Story later(InKubernetes(1));
  later.permit = "wait";
  later.RunUntilGone(absl::Seconds(20));
  CHECK_FALSE(later.gone);
  later.facts.leaderless = absl::Seconds(11);
  CHECK(later.Tick().go);
}

TEST_CASE("without slots and guard nothing is asked") {
  Story story({.leaderless_max = absl::Seconds(10)});
  CHECK(story.Tick().go);
  CHECK(story.reads + story.permits_asked + story.leaves_asked == 0);
}

TEST_CASE("slots count from where the ordinals begin") {
  Story inside(InKubernetes(5));
  inside.Tick();
  inside.Read({.kind = Kind::kCount, .count = 1, .first = 5});
  CHECK(inside.Tick().ask_permit.has_value());
  Story below(InKubernetes(4));
  below.Tick();
  below.Read({.kind = Kind::kCount, .count = 1, .first = 5});
  CHECK(below.Tick().ask_leave);
}

TEST_CASE("a second order ends every wait") {
  for (const absl::Duration wait : {kTick, absl::Seconds(3), absl::Seconds(30)}) {
    Story story(InKubernetes(3));
    story.leave = "wait";
    story.RunUntilGone(wait);
    CHECK_FALSE(story.gone);
    CHECK(story.Hurry().go);
    CHECK(Holds(story.log, "told so again"));
  }
}

TEST_CASE("what is waited for is said at once, and then every ten seconds") {
  Story story(InKubernetes(1));
  story.permit = "reason";
  story.RunUntilGone(absl::Seconds(35));
  size_t lines = 0;
  for (size_t at = story.log.find("waits for"); at != std::string::npos;
       at = story.log.find("waits for", at + 1)) {
    ++lines;
  }
  CHECK(lines == 4);
}

}  // namespace
}  // namespace kv::cluster

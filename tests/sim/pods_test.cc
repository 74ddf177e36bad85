// Clusters that look after their members by themselves, under a platform that scales, kills and
// loses pods while a client writes.
#include <catch2/catch_test_macros.hpp>
#include <initializer_list>
#include <memory>

#include "tests/sim/pods.h"
#include "tests/sim/story.h"

namespace kv::sim {
namespace {

using Kind = cluster::DesiredCount::Kind;
using Numbers = std::initializer_list<uint64_t>;

class PodStory {
 public:
  explicit PodStory(int voters, uint64_t seed = 7,
                    const std::function<void(ClusterOptions&)>& set = {})
      : story_(voters, seed,
               [&](ClusterOptions& options) {
                 options.desired = &desired_;
                 options.thorough = 64;
                 options.raft.max_log_bytes = 20000;  // Whoever joins late gets a snapshot.
                 options.flush_log_bytes = 4000;
                 if (set) set(options);
               }),
        pods_(&story_.cluster(), &desired_) {
    Write();
  }
  ~PodStory() { *writing_ = false; }

  Story& story() { return story_; }
  Pods& pods() { return pods_; }
  SimDesired& desired() { return desired_; }
  Cluster& cluster() { return story_.cluster(); }

  // As the platform does and says.
  void Scale(uint64_t count) {
    desired_.says.count = count;
    pods_.Scale(count);
  }
  void AwaitAsWanted(Time limit = 60 * kSecond) {
    cluster().Await(
        "the members to be those that are wanted", [&] { return pods_.AreAsWanted(); }, limit);
  }
  std::vector<MemberId> Voters() { return story_.Leader().core().members().voters; }
  // Nothing that was acknowledged is lost, and all answers are those of one history.
  void Check() {
    *writing_ = false;
    story_.CheckHistory();
  }

 private:
  // Through some member, all the time.
  void Write() {
    cluster().scheduler().After(200 * kMillisecond, [this, writing = writing_] {
      if (!*writing) return;
      std::vector<Host*> serving;
      for (Host& host : cluster().hosts()) {
        if (host.serving()) serving.push_back(&host);
      }
      if (!serving.empty()) {
        Host* host = serving[cluster().scheduler().Below(serving.size())];
        const std::string number = std::to_string(++writes_);
        story_.AskPut(*host, "k" + std::to_string(writes_ % 5), "v" + number);
      }
      Write();
    });
  }

  SimDesired desired_;
  Story story_;
  Pods pods_;
  std::shared_ptr<bool> writing_ = std::make_shared<bool>(true);
  uint64_t writes_ = 0;
};

TEST_CASE("members follow the wanted count up and down, a minute each") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    PodStory story(1, seed);
    for (const uint64_t count : Numbers{3, 5, 3, 1, 2, 5, 1}) {
      INFO("seed " << seed << " count " << count);
      story.Scale(count);
      story.AwaitAsWanted();
    }
    CHECK(story.pods().impatient() == 0);
    story.Check();
  }
}

TEST_CASE("a count of 0 stops everybody and loses nobody") {
  PodStory story(3);
  const std::vector<MemberId> before = story.Voters();
  story.Scale(0);
  story.story().RunFor(200 * kSecond);
  story.Scale(3);
  story.AwaitAsWanted();
  CHECK(story.Voters() == before);
  story.Scale(0);
  story.story().RunFor(30 * kSecond);
  story.Scale(5);
  story.AwaitAsWanted();
  story.Check();
}

TEST_CASE("lost volumes are replaced one after the other, with the same number of voters") {
  PodStory story(3);
  for (const uint64_t slot : Numbers{0, 2, 1, 0}) {
    const std::vector<MemberId> before = story.Voters();
    story.pods().LoseVolume(slot);
    story.AwaitAsWanted(90 * kSecond);
    const std::vector<MemberId> after = story.Voters();
    CHECK(after.size() == 3);
    CHECK(after != before);
  }
  story.Check();
}

TEST_CASE("two of three volumes lost: the rest waits, and nobody founds or joins anything") {
  PodStory story(3);
  const std::vector<MemberId> before = story.Voters();
  story.pods().LoseVolume(0);
  story.pods().LoseVolume(1);
  story.story().RunFor(300 * kSecond);
  CHECK(story.cluster().Leader() == nullptr);
  CHECK(story.pods().HostOf(0)->id == 0);
  CHECK(story.pods().HostOf(2)->core().members().voters == before);
  story.Check();
}

TEST_CASE("nobody is let go while the count is unknown, denied or the whole is ending") {
  for (const Kind kind : {Kind::kUnknown, Kind::kDenied, Kind::kEnding}) {
    PodStory story(5);
    story.desired().says.kind = kind;
    story.pods().Scale(3);
    story.story().RunFor(300 * kSecond);
    CHECK(story.Voters().size() == 5);
    CHECK(story.pods().impatient() == 2);
    story.desired().says = {.kind = Kind::kCount, .count = 3, .first = 0, .reason = {}};
    story.AwaitAsWanted(120 * kSecond);
    story.Check();
  }
}

TEST_CASE("a count that is stale on the leader lets nobody go who is wanted") {
  PodStory story(3);
  // What is read says 1 while all three run on.
  story.desired().says.count = 1;
  story.story().RunFor(200 * kSecond);
  CHECK(story.Voters().size() == 3);
  // And it says 3 while two were told to go: they lose patience and stay members.
  story.desired().says.count = 3;
  story.pods().Scale(1);
  story.story().RunFor(100 * kSecond);
  CHECK(story.pods().impatient() == 2);
  story.pods().Scale(3);
  story.AwaitAsWanted();
  story.Check();
}

TEST_CASE("three become one while the first is on a new disk, and three again") {
  PodStory story(3);
  story.pods().LoseVolume(0);
  story.story().RunFor(2 * kSecond);
  story.Scale(1);
  story.story().RunFor(5 * kSecond);
  CHECK(story.cluster().Leader() != nullptr);
  story.AwaitAsWanted(90 * kSecond);
  story.Scale(3);
  story.AwaitAsWanted();
  story.Check();
}

TEST_CASE("a pod that is down in range is waited for, however long") {
  PodStory story(3);
  const std::vector<MemberId> before = story.Voters();
  story.pods().KeepDown(1, true);
  story.pods().Kill(1);
  story.story().RunFor(600 * kSecond);
  CHECK(story.Voters() == before);
  story.pods().KeepDown(1, false);
  story.AwaitAsWanted();
  CHECK(story.Voters() == before);
  story.Check();
}

TEST_CASE("pods that are deleted all at once stop one after the other") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    INFO("seed " << seed);
    PodStory story(3, seed);
    story.story().RunFor(5 * kSecond);
    for (const uint64_t slot : Numbers{0, 1, 2}) story.pods().Restart(slot);
    story.cluster().Await(
        "three permits", [&] { return story.pods().permits() == 3; }, 100 * kSecond);
    story.AwaitAsWanted();
    CHECK(story.pods().most_stopped() == 1);
    CHECK(story.pods().impatient() == 0);
    story.Check();
  }
}

TEST_CASE("no permit while another member is down, and the one that never comes back ends") {
  PodStory story(3);
  story.story().RunFor(5 * kSecond);
  story.pods().KeepDown(1, true);
  story.pods().Kill(1);
  story.story().RunFor(3 * kSecond);
  story.pods().Restart(2);
  story.story().RunFor(60 * kSecond);
  CHECK(story.pods().permits() == 0);
  story.pods().KeepDown(1, false);
  story.cluster().Await("the permit", [&] { return story.pods().permits() == 1; }, 60 * kSecond);
  story.AwaitAsWanted();
  // Now with the permit, and never back: after a minute another one may go.
  story.pods().Restart(0);
  story.cluster().Await("its end", [&] { return !story.pods().HostOf(0)->up(); }, 60 * kSecond);
  story.pods().KeepDown(0, true);
  story.story().RunFor(10 * kSecond);
  CHECK(story.story().Leader().machine().maintenance().permit.has_value());
  story.cluster().Await(
      "the end of the permit",
      [&] {
        Host* leader = story.cluster().Leader();
        return leader != nullptr && !leader->machine().maintenance().permit;
      },
      120 * kSecond);
  story.pods().KeepDown(0, false);
  story.AwaitAsWanted();
  story.Check();
}

TEST_CASE("all may stop at once when none can say why") {
  PodStory story(3);
  story.story().RunFor(5 * kSecond);
  story.desired().says.kind = Kind::kDenied;
  for (const uint64_t slot : Numbers{0, 1, 2}) {
    story.pods().Restart(slot, cluster::PermitReason::kUnknown);
    story.pods().KeepDown(slot, true);
  }
  story.cluster().Await(
      "the end of all", [&] { return story.pods().most_stopped() == 3; }, 30 * kSecond);
  for (const uint64_t slot : Numbers{0, 1, 2}) story.pods().KeepDown(slot, false);
  story.AwaitAsWanted();
  story.Check();
}

// Everything at random; in the end what is wanted must come about.
TEST_CASE("members are as wanted after any faults") {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    INFO("seed " << seed);
    PodStory story(seed % 2 == 0 ? 3 : 1, seed, [](ClusterOptions& options) {
      options.wire.loss_permille = 30;
      options.wire.lost_answer_permille = 30;
      options.wire.repeat_permille = 20;
    });
    Scheduler& scheduler = story.cluster().scheduler();
    uint64_t count = seed % 2 == 0 ? 3U : 1U;
    for (int i = 0; i < 60; ++i) {
      const uint64_t slot = scheduler.Below(5);
      const uint64_t what = scheduler.Below(10);
      if (what == 0) {
        count = 1 + scheduler.Below(5);
        story.Scale(count);
      } else if (what == 1) {
        story.desired().says.kind = scheduler.Below(2) == 0 ? Kind::kUnknown : Kind::kCount;
      } else if (what == 2 && slot < count && story.pods().AreAsWanted() && count >= 3) {
        story.pods().LoseVolume(slot);
      } else if (what <= 4 && slot < count && story.pods().HostOf(slot) != nullptr) {
        story.pods().Kill(slot);
      } else if (what == 5 && slot < count) {
        story.pods().Restart(slot);
      }
      const Time pause = static_cast<Time>(scheduler.Below(8)) * kSecond;
      story.story().RunFor(pause);
    }
    story.desired().says.kind = Kind::kCount;
    // Pods that lost patience ended as members: the rest may need them to agree on anything.
    story.Scale(5);
    story.AwaitAsWanted(300 * kSecond);
    story.Scale(count);
    story.AwaitAsWanted(300 * kSecond);
    story.Check();
  }
}

}  // namespace
}  // namespace kv::sim

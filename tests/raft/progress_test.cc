#include "server/raft/progress.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

#include "server/raft/random.h"

namespace kv::raft {
namespace {

using State = Progress::State;

TEST_CASE("a probe is followed by nothing until a sign of life") {
  Progress progress(7);
  CHECK(progress.state() == State::kProbe);
  CHECK(progress.MaySend(64));
  progress.Sent(9);
  CHECK_FALSE(progress.MaySend(64));
  CHECK(progress.next() == 7);  // A probe moves nothing on.
  progress.HeardFrom();
  CHECK(progress.MaySend(64));
  progress.CheckInvariants();
}

TEST_CASE("an accepted probe begins replication behind it") {
  Progress progress(7);
  progress.Sent(6);
  CHECK(progress.Accepted(6));
  CHECK(progress.state() == State::kReplicate);
  CHECK(progress.match() == 6);
  CHECK(progress.next() == 7);
}

TEST_CASE("replication runs ahead as far as the window") {
  Progress progress(7);
  progress.Accepted(6);
  progress.Sent(8);
  progress.Sent(9);
  CHECK(progress.in_flight() == 2);
  CHECK(progress.next() == 10);
  CHECK_FALSE(progress.MaySend(2));
  CHECK(progress.MaySend(3));
  CHECK(progress.Accepted(8));
  CHECK(progress.in_flight() == 1);
  CHECK(progress.MaySend(2));
  CHECK_FALSE(progress.Accepted(8));  // No news.
  CHECK_FALSE(progress.Accepted(3));
  CHECK(progress.match() == 8);
  CHECK(progress.Accepted(9));
  CHECK(progress.in_flight() == 0);
  progress.CheckInvariants();
}

TEST_CASE("an empty append takes no room in the window") {
  Progress progress(7);
  progress.Accepted(6);
  progress.Sent(6);
  CHECK(progress.in_flight() == 0);
  CHECK(progress.next() == 7);
}

TEST_CASE("a rejection steps back and probes, never below what is known") {
  Progress progress(10);
  progress.Sent(9);
  CHECK(progress.Rejected(9, 5));
  CHECK(progress.state() == State::kProbe);
  CHECK(progress.next() == 5);
  CHECK(progress.MaySend(1));
  CHECK_FALSE(progress.Rejected(9, 2));  // An old answer.
  CHECK(progress.next() == 5);
  CHECK(progress.Accepted(4));
  CHECK_FALSE(progress.Rejected(4, 1));  // It acknowledged that.
  progress.Sent(7);
  CHECK(progress.Rejected(7, 2));
  CHECK(progress.state() == State::kProbe);
  CHECK(progress.next() == 5);
  CHECK(progress.match() == 4);
  progress.CheckInvariants();
}

TEST_CASE("a rejection always moves back") {
  Progress progress(10);
  progress.Sent(9);
  CHECK(progress.Rejected(9, 30));  // A hint that points forward.
  CHECK(progress.next() <= 9);
}

TEST_CASE("a rejection of what is not under way is ignored") {
  Progress progress(7);
  progress.Accepted(6);
  progress.Sent(8);
  CHECK_FALSE(progress.Rejected(9, 1));
  CHECK_FALSE(progress.Rejected(20, 1));
  CHECK(progress.state() == State::kReplicate);
  CHECK(progress.next() == 9);
}

TEST_CASE("a follower that may be lost is probed from what it has") {
  Progress progress(7);
  progress.Accepted(6);
  progress.Sent(8);
  progress.BecomeProbe();
  CHECK(progress.state() == State::kProbe);
  CHECK(progress.next() == 7);
  CHECK(progress.in_flight() == 0);
  CHECK(progress.MaySend(1));
}

TEST_CASE("a snapshot stops appends until it ended") {
  Progress progress(7);
  progress.BecomeSnapshot(20);
  CHECK_FALSE(progress.MaySend(64));
  progress.HeardFrom();
  CHECK_FALSE(progress.MaySend(64));
  CHECK_FALSE(progress.Rejected(6, 3));
  CHECK(progress.wanted() == 20);
  progress.SnapshotEnded(25);
  CHECK(progress.state() == State::kProbe);
  CHECK(progress.next() == 26);
  CHECK_FALSE(progress.MaySend(64));  // It must be heard from first.
  progress.HeardFrom();
  CHECK(progress.MaySend(64));
  CHECK(progress.match() == 0);  // Nothing is known until it says so.
  progress.CheckInvariants();
}

TEST_CASE("the end of a snapshot that nobody waits for changes nothing") {
  Progress progress(7);
  progress.Accepted(9);
  progress.SnapshotEnded(25);
  CHECK(progress.state() == State::kReplicate);
  CHECK(progress.next() == 10);
}

TEST_CASE("a follower in a snapshot that caught up otherwise is replicated to") {
  Progress progress(7);
  progress.BecomeSnapshot(20);
  CHECK(progress.Accepted(12));
  CHECK(progress.state() == State::kSnapshot);
  CHECK(progress.Accepted(20));
  CHECK(progress.state() == State::kReplicate);
  CHECK(progress.next() == 21);
}

TEST_CASE("whatever happens, match never shrinks and next lies beyond it") {
  const char* text = std::getenv("KVD_SEED");
  const uint64_t seed = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  for (int run = 0; run < 300; ++run) {
    Progress progress(1 + chance.Below(20));
    for (int step = 0; step < 100; ++step) {
      const Index before = progress.match();
      switch (chance.Below(7)) {
        case 0:
          progress.Accepted(chance.Below(progress.next() + 5));
          break;
        case 1: {
          const Index rejected = chance.Below(40);
          progress.Rejected(rejected, chance.Below(40));
          break;
        }
        case 2:
          progress.BecomeProbe();
          break;
        case 3:
          progress.BecomeSnapshot(progress.next() + chance.Below(10));
          break;
        case 4:
          progress.SnapshotEnded(chance.Below(2) == 0 ? 0 : progress.next() + chance.Below(10));
          break;
        case 5:
          progress.HeardFrom();
          break;
        default:
          if (progress.MaySend(4)) progress.Sent(progress.next() - 1 + chance.Below(5));
      }
      progress.CheckInvariants();
      REQUIRE(progress.match() >= before);
      REQUIRE(progress.next() > progress.match());
      REQUIRE(progress.in_flight() <= 4);
    }
  }
}

}  // namespace
}  // namespace kv::raft

// When leases end, by clocks that are wrong.
#include "server/kv/lessor.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <vector>

#include "tests/kv/machine_fixture.h"

namespace kv {
namespace {

constexpr absl::Duration kElection = absl::Seconds(1);

Lease MakeLease(int64_t id, int64_t ttl, int64_t remaining = 0) {
  return {.id = id, .ttl = ttl, .remaining = remaining, .granted = 1};
}

std::vector<int64_t> Ids(const std::vector<Lease>& leases) {
  std::vector<int64_t> ids;
  for (const Lease& lease : leases) ids.push_back(lease.id);
  return ids;
}

}  // namespace

TEST_CASE("the least TTL is three halves of an election, in whole seconds") {
  CHECK(LeaseTtlMin(absl::Seconds(1)) == 2);
  CHECK(LeaseTtlMin(absl::Milliseconds(1600)) == 3);
  CHECK(LeaseTtlMin(absl::Seconds(10)) == 15);
  CHECK(LeaseTtlMin(absl::Milliseconds(50)) == 1);
}

TEST_CASE("a lease ends a quarter of its time late, and is told to last its time") {
  Lessor lessor(kElection);
  const absl::Duration start = absl::Hours(3);
  lessor.Granted(MakeLease(1, 100), start);
  CHECK(lessor.SecondsLeft(1, start) == 100);
  CHECK(lessor.SecondsLeft(1, start + absl::Milliseconds(500)) == 99);
  CHECK(lessor.SecondsLeft(1, start + absl::Seconds(110)) == 0);
  CHECK(lessor.SecondsLeft(2, start) == std::nullopt);
  CHECK(lessor.TakeExpired(start + absl::Milliseconds(124'999), 10).empty());
  CHECK(Ids(lessor.TakeExpired(start + absl::Seconds(125), 10)) == std::vector<int64_t>{1});
  CHECK(lessor.TakeExpired(start + absl::Seconds(999), 10).empty());
  CHECK(lessor.SecondsLeft(1, start + absl::Seconds(125)) == std::nullopt);
}

TEST_CASE("who comes too late renews nothing, also while the end is on its way") {
  Lessor lessor(kElection);
  lessor.Granted(MakeLease(1, 4), absl::ZeroDuration());
  const auto renewal = lessor.Renew(1, absl::Seconds(4));
  REQUIRE(renewal);
  CHECK(renewal->ttl == 4);
  CHECK_FALSE(renewal->clears);
  CHECK_FALSE(lessor.Renew(1, absl::Seconds(9)));
  const std::vector<Lease> expired = lessor.TakeExpired(absl::Seconds(9), 10);
  CHECK(Ids(expired) == std::vector<int64_t>{1});
  CHECK_FALSE(lessor.Renew(1, absl::Seconds(9)));
  // The log did not take it: still over, and taken again.
  lessor.Retry(expired, absl::Seconds(10));
  CHECK_FALSE(lessor.Renew(1, absl::Seconds(10)));
  CHECK(Ids(lessor.TakeExpired(absl::Seconds(10), 10)) == std::vector<int64_t>{1});
  lessor.Ended(1);
  CHECK(lessor.empty());
  lessor.Retry(expired, absl::Seconds(11));
  CHECK(lessor.TakeExpired(absl::Seconds(99), 10).empty());
}

TEST_CASE("the longest over go first, as many as are asked for") {
  Lessor lessor(kElection);
  lessor.Granted(MakeLease(1, 30), absl::ZeroDuration());
  lessor.Granted(MakeLease(2, 10), absl::ZeroDuration());
  lessor.Granted(MakeLease(3, 20), absl::ZeroDuration());
  CHECK(lessor.InOrder() == std::vector<int64_t>{2, 3, 1});
  CHECK(Ids(lessor.TakeExpired(absl::Minutes(1), 2)) == std::vector<int64_t>{2, 3});
  CHECK(Ids(lessor.TakeExpired(absl::Minutes(1), 2)) == std::vector<int64_t>{1});
}

TEST_CASE("a new leader gives what the checkpoint left and an election more") {
  Lessor lessor(kElection);
  lessor.Begin({MakeLease(1, 3600), MakeLease(2, 3600, 40)}, absl::Hours(1));
  CHECK(lessor.SecondsLeft(1, absl::Hours(1)) == 3601);
  CHECK(lessor.SecondsLeft(2, absl::Hours(1)) == 41);
  const absl::Duration end = absl::Hours(1) + Stretched(absl::Seconds(41));
  CHECK(lessor.TakeExpired(end - absl::Milliseconds(1), 10).empty());
  CHECK(Ids(lessor.TakeExpired(end, 10)) == std::vector<int64_t>{2});
}

TEST_CASE("long leases are checkpointed, rounded up, and renewals take that back") {
  Lessor lessor(kElection);
  lessor.Granted(MakeLease(1, 3600), absl::ZeroDuration());
  lessor.Granted(MakeLease(2, 4), absl::ZeroDuration());
  CHECK(lessor.TakeCheckpoints(absl::Seconds(299), 10).empty());
  const std::vector<Lease> first = lessor.TakeCheckpoints(absl::Seconds(301), 10);
  REQUIRE(Ids(first) == std::vector<int64_t>{1});
  // By the slowest good clock 301 s here are 240.8 s, so up to 3359.2 s may be left.
  CHECK(first[0].remaining == 3360);
  CHECK(lessor.TakeCheckpoints(absl::Seconds(302), 10).empty());
  auto renewal = lessor.Renew(1, absl::Seconds(310));
  REQUIRE(renewal);
  REQUIRE(renewal->clears);
  CHECK(renewal->clears->remaining == 0);
  // Until that is in the log, whoever renews must see to it as well.
  CHECK(lessor.Renew(1, absl::Seconds(311))->clears);
  lessor.Cleared(*renewal->clears, renewal->after);
  CHECK_FALSE(lessor.Renew(1, absl::Seconds(312))->clears);
  // A checkpoint that was taken since is not overwritten by the old word.
  renewal = lessor.Renew(1, absl::Seconds(312));
  CHECK(lessor.TakeCheckpoints(absl::Seconds(700), 10).size() == 1);
  lessor.Cleared(first[0], 1);
  CHECK(lessor.Renew(1, absl::Seconds(701))->clears);
}

TEST_CASE("a lease that its owner renews in time is never checkpointed") {
  Lessor lessor(kElection);
  lessor.Granted(MakeLease(1, 60), absl::ZeroDuration());
  for (int second = 20; second < 1000; second += 20) {
    CHECK(lessor.TakeCheckpoints(absl::Seconds(second), 10).empty());
    CHECK_FALSE(lessor.Renew(1, absl::Seconds(second))->clears);
  }
}

// Leaders change at random, each with a clock that runs at most a quarter wrong; owners renew, or
// do not. True time is known to the test alone. No lease may end before its owner's time is over,
// and one that nobody renews must end, although each leader leads for minutes only.
TEST_CASE("no lease ends early on any clock that runs a quarter wrong, nor lives for ever") {
  Dice dice(SeedFrom("KVD_SEED"));
  for (int round = 0; round < 300; ++round) {
    const int64_t ttl = 2 + static_cast<int64_t>(dice.Below(2000));
    const absl::Duration lead = absl::Seconds(450 + dice.Below(1000));
    Lease stored = MakeLease(1, ttl);
    absl::Duration now = absl::ZeroDuration();  // True.
    absl::Duration promised_until = absl::Seconds(ttl);
    int renewals = static_cast<int>(dice.Below(20));
    int leaders = 0;
    bool ended = false;
    while (!ended) {
      CAPTURE(round, ttl, leaders, absl::FormatDuration(lead));
      REQUIRE(now < absl::Hours(200));
      const int64_t percent = 75 + static_cast<int64_t>(dice.Below(51));
      const absl::Duration began = now;
      const auto clock = [&] { return absl::Hours(1) + (now - began) * percent / 100; };
      Lessor lessor(kElection);
      if (leaders++ == 0) {
        lessor.Granted(stored, clock());
      } else {
        lessor.Begin({stored}, clock());
      }
      const absl::Duration until = now + lead;
      for (; now < until && !ended; now += absl::Milliseconds(700)) {
        for (const Lease& lease : lessor.TakeCheckpoints(clock(), 10)) stored = lease;
        if (renewals > 0 && dice.OneIn(40)) {
          --renewals;
          if (const auto renewal = lessor.Renew(1, clock())) {
            if (renewal->clears) {
              stored.remaining = 0;
              lessor.Cleared(*renewal->clears, renewal->after);
            }
            promised_until = now + absl::Seconds(renewal->ttl);
          } else {
            CHECK(now >= promised_until);
          }
        }
        if (!lessor.TakeExpired(clock(), 10).empty()) {
          ended = true;
          CHECK(now >= promised_until);
        }
      }
    }
  }
}

}  // namespace kv

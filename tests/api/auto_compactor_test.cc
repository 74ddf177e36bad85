#include "server/api/auto_compactor.h"

#include <catch2/catch_test_macros.hpp>
#include <utility>
#include <vector>

namespace kv::api {
namespace {

using Role = AutoCompactor::Role;

// A store that gains one revision a second, for `hours`; when what was compacted, in seconds.
std::vector<std::pair<int64_t, int64_t>> Run(AutoCompaction policy, int hours,
                                             Role role = Role::kLeader) {
  AutoCompactor compactor(policy);
  std::vector<std::pair<int64_t, int64_t>> decided;
  int64_t compacted = 0;
  for (int64_t second = 0; second <= hours * 3600; ++second) {
    const auto next = compactor.Next(absl::Seconds(1000 + second), role, 1 + second, compacted);
    if (!next) continue;
    decided.emplace_back(second, *next);
    compacted = *next;
  }
  return decided;
}

TEST_CASE("neither period nor count: never") { CHECK(Run({}, 10).empty()); }

TEST_CASE("by time, what was current within the period is kept") {
  for (const absl::Duration period : {absl::Minutes(10), absl::Hours(1), absl::Hours(3)}) {
    CAPTURE(absl::FormatDuration(period));
    const int64_t seconds = absl::ToInt64Seconds(period);
    const int64_t every = std::min<int64_t>(seconds, 3600);
    const auto decided = Run({.period = period}, 12);
    REQUIRE(!decided.empty());
    CHECK(decided.front().first >= seconds);
    for (size_t i = 0; i < decided.size(); ++i) {
      const auto [at, revision] = decided[i];
      CHECK(revision <= 1 + at - seconds);
      // Not much more is kept than was asked for: one sample's distance, and one compaction's.
      CHECK(revision >= 1 + at - seconds - every / 10 - 1);
      if (i > 0) CHECK(at - decided[i - 1].first >= every);
      if (i > 0) CHECK(at - decided[i - 1].first <= every + every / 10 + 1);
    }
  }
}

TEST_CASE("by count, so many revisions are kept") {
  const auto decided = Run({.revisions = 1000}, 2);
  REQUIRE(decided.size() > 10);
  for (const auto& [at, revision] : decided) CHECK(revision == 1 + at - 1000);
  CHECK(decided[1].first - decided[0].first == 300);
  CHECK(Run({.revisions = 100'000}, 2).empty());
}

TEST_CASE("who does not lead compacts nothing, and knows the past when it does lead") {
  CHECK(Run({.period = absl::Minutes(10)}, 5, Role::kOther).empty());
  AutoCompactor compactor({.period = absl::Minutes(10)});
  for (int64_t second = 0; second < 3600; ++second) {
    compactor.Next(absl::Seconds(second), Role::kOther, 1 + second, 0);
  }
  std::optional<int64_t> first;
  for (int64_t second = 3600; !first && second < 4300; ++second) {
    first = compactor.Next(absl::Seconds(second), Role::kLeader, 1 + second, 0);
  }
  REQUIRE(first);
  CHECK(*first > 2900);
}

TEST_CASE("what is compacted already is not asked for again") {
  AutoCompactor compactor({.period = absl::Minutes(10)});
  for (int64_t second = 0; second < 7200; ++second) {
    CHECK_FALSE(compactor.Next(absl::Seconds(second), Role::kLeader, 50, 50));
  }
}

}  // namespace
}  // namespace kv::api

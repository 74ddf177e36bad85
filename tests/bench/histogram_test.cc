#include "tests/bench/histogram.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace kv::bench {
namespace {

TEST_CASE("percentiles are within half a percent of the sorted values") {
  const char* given = std::getenv("KVD_SEED");
  const uint64_t seed = given != nullptr ? std::stoull(given) : std::random_device{}();
  INFO("KVD_SEED=" << seed);
  std::mt19937_64 random(seed);
  Histogram histogram;
  std::vector<uint64_t> values;
  for (int i = 0; i < 20'000; ++i) {
    const uint64_t width = random() % 43;
    values.push_back(random() >> (21 + width));
    histogram.Add(values.back());
  }
  std::sort(values.begin(), values.end());
  for (double share : {0.01, 0.5, 0.9, 0.99, 0.999, 1.0}) {
    const auto rank = static_cast<size_t>(share * static_cast<double>(values.size()));
    const uint64_t exact = values[std::max<size_t>(rank, 1) - 1];
    const uint64_t told = histogram.Percentile(share);
    INFO("share " << share << " exact " << exact << " told " << told);
    CHECK(told >= exact);
    CHECK(static_cast<double>(told - exact) <= 0.005 * static_cast<double>(exact) + 1);
  }
  CHECK(histogram.max() == values.back());
  CHECK(histogram.count() == values.size());
}

TEST_CASE("an empty histogram answers zero") {
  const Histogram histogram;
  CHECK(histogram.Percentile(0.99) == 0);
  CHECK(histogram.mean() == 0);
}

}  // namespace
}  // namespace kv::bench

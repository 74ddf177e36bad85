// Latencies in log-linear buckets, as HdrHistogram keeps them: 256 buckets to a power of two, so a
// reported percentile is within 0.4 % of the true one, in constant memory.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>

namespace kv::bench {

class Histogram {
 public:
  void Add(uint64_t nanoseconds) {
    ++counts_[BucketOf(nanoseconds)];
    ++count_;
    sum_ += nanoseconds;
    max_ = std::max(max_, nanoseconds);
  }

  uint64_t count() const { return count_; }
  uint64_t max() const { return max_; }
  double mean() const {
    return count_ == 0 ? 0 : static_cast<double>(sum_) / static_cast<double>(count_);
  }

  // The smallest bucket's upper edge below which at least `share` (0 to 1) of all values lie.
  uint64_t Percentile(double share) const {
    const auto wanted = static_cast<uint64_t>(std::ceil(share * static_cast<double>(count_)));
    uint64_t seen = 0;
    for (size_t bucket = 0; bucket < counts_.size(); ++bucket) {
      seen += counts_[bucket];
      if (seen >= wanted && seen > 0) return std::min(UpperEdge(bucket), max_);
    }
    return max_;
  }

 private:
  static constexpr unsigned kBits = 8;  // Buckets to a power of two: 2^kBits.
  static constexpr unsigned kPowers = 44 - kBits;

  static size_t BucketOf(uint64_t value) {
    value = std::min(value, (uint64_t{1} << 43) - 1);
    const auto width = static_cast<unsigned>(std::bit_width(value));
    if (width <= kBits) return static_cast<size_t>(value);
    const unsigned shift = width - kBits - 1;
    return (static_cast<size_t>(shift) << kBits) + static_cast<size_t>(value >> shift);
  }
  static uint64_t UpperEdge(size_t bucket) {
    if (bucket < (size_t{2} << kBits)) return bucket;
    const size_t shift = (bucket >> kBits) - 1;
    const uint64_t base = (bucket & ((size_t{1} << kBits) - 1)) + (size_t{1} << kBits);
    return ((base + 1) << shift) - 1;
  }

  std::array<uint64_t, (kPowers + 1) << kBits> counts_{};
  uint64_t count_ = 0;
  uint64_t sum_ = 0;
  uint64_t max_ = 0;
};

}  // namespace kv::bench

#include "server/api/auto_compactor.h"

#include <algorithm>

namespace kv::api {
namespace {

constexpr absl::Duration kPeriodMax = absl::Hours(1);  // Between two compactions by time.
constexpr int kSamplesPerPeriod = 10;                  // Of the time between two compactions.
constexpr absl::Duration kRevisionEvery = absl::Minutes(5);

}  // namespace

std::optional<int64_t> AutoCompactor::Target(absl::Duration now, int64_t revision) {
  if (policy_.period <= absl::ZeroDuration()) return revision - policy_.revisions;
  const absl::Duration between = std::min(policy_.period, kPeriodMax) / kSamplesPerPeriod;
  if (samples_.empty() || now - samples_.back().at >= between) {
    samples_.push_back({.at = now, .revision = revision});
  }
  while (samples_.size() > 1 && now - samples_[1].at >= policy_.period) samples_.pop_front();
  if (now - samples_.front().at < policy_.period) return std::nullopt;
  return samples_.front().revision;
}

std::optional<int64_t> AutoCompactor::Next(absl::Duration now, Role role, int64_t revision,
                                           int64_t compacted) {
  if (policy_.period <= absl::ZeroDuration() && policy_.revisions <= 0) return std::nullopt;
  if (!last_) last_ = now;
  const std::optional<int64_t> target = Target(now, revision);
  const absl::Duration every =
      policy_.period > absl::ZeroDuration() ? std::min(policy_.period, kPeriodMax) : kRevisionEvery;
  if (!target || now - *last_ < every) return std::nullopt;
  last_ = now;
  if (role != Role::kLeader || *target <= compacted || *target <= 0) return std::nullopt;
  return target;
}

}  // namespace kv::api

#include "storage/counts.h"

#include <iterator>
#include <utility>

#include "storage/check.h"
#include "storage/files.h"

namespace kv {
namespace {

// Two neighbours that together hold fewer become one: far enough below the split that keys coming
// and going at a boundary do not split and merge it for ever.
constexpr int64_t kMergedKeysMax = Counts::kRunKeysMax / 2;

}  // namespace

Counts::Counts() {
  runs_.emplace("", 0);
  dirty_.insert("");
}

Counts::Runs::iterator Counts::RunOf(std::string_view key) {
  return std::prev(runs_.upper_bound(key));
}

bool Counts::Add(std::string_view key, int64_t delta) {
  const Runs::iterator run = RunOf(key);
  if (run->second + delta < 0) return false;
  run->second += delta;
  keys_ += delta;
  dirty_.insert(run->first);
  if (run->second > kRunKeysMax) oversized_.insert(run->first);
  if (delta < 0 && run->second < kMergedKeysMax / 2) MergeAround(run);
  return true;
}

void Counts::MergeAround(Runs::iterator run) {
  if (const auto next = std::next(run);
      next != runs_.end() && run->second + next->second < kMergedKeysMax) {
    run->second += next->second;
    dirty_.insert(next->first);
    oversized_.erase(next->first);
    runs_.erase(next);
  }
  if (run == runs_.begin()) return;
  const auto previous = std::prev(run);
  if (previous->second + run->second >= kMergedKeysMax) return;
  previous->second += run->second;
  dirty_.insert(previous->first);
  oversized_.erase(run->first);
  runs_.erase(run);
}

Counts::Sum Counts::SumOf(const KeyRange& range) const {
  Sum sum;
  if (range.empty()) return sum;
  if (range.first.empty() && range.unbounded()) return {.whole = keys_, .ends = {}};
  for (auto run = std::prev(runs_.upper_bound(range.first)); run != runs_.end(); ++run) {
    const auto next = std::next(run);
    const bool last = next == runs_.end();
    if (!range.unbounded() && run->first >= range.end) break;
    const bool begins_inside = run->first >= range.first;
    const bool ends_inside = range.unbounded() || (!last && next->first <= range.end);
    if (begins_inside && ends_inside) {
      sum.whole += run->second;
    } else if (run->second > 0) {
      sum.ends.push_back({.first = begins_inside ? run->first : range.first,
                          .end = ends_inside ? (last ? "" : next->first) : range.end});
    }
  }
  return sum;
}

std::optional<Counts::Oversized> Counts::FindOversized() const {
  for (const std::string& first : oversized_) {
    const auto run = runs_.find(first);
    if (run == runs_.end() || run->second <= kRunKeysMax) continue;
    const auto next = std::next(run);
    return Oversized{.range = {.first = first, .end = next == runs_.end() ? "" : next->first},
                     .keys = run->second};
  }
  return std::nullopt;
}

void Counts::Split(const std::string& first, std::string middle, int64_t right) {
  const auto run = runs_.find(first);
  KV_CHECK(run != runs_.end() && right > 0 && right < run->second, "no such run to split");
  run->second -= right;
  dirty_.insert(first);
  dirty_.insert(middle);
  if (run->second <= kRunKeysMax) oversized_.erase(run->first);
  if (right > kRunKeysMax) oversized_.insert(middle);
  runs_.emplace(std::move(middle), right);
}

void Counts::Persist(WriteSet& writes) {
  for (const std::string& first : dirty_) {
    const auto run = runs_.find(first);
    if (run == runs_.end()) {
      writes.Delete(RunKey(first));
      continue;
    }
    std::string value;
    PutU64(value, static_cast<uint64_t>(run->second));
    writes.Put(RunKey(first), std::move(value));
  }
  dirty_.clear();
}

bool Counts::Load(std::string_view row_key, std::string_view row_value) {
  ByteReader reader(row_value);
  const uint64_t keys = reader.U64();
  if (row_key.empty() || !reader.AtEnd()) return false;
  const std::string first(row_key.substr(1));
  if (first.empty()) {
    runs_.begin()->second = static_cast<int64_t>(keys);
  } else {
    runs_.emplace_hint(runs_.end(), first, static_cast<int64_t>(keys));
  }
  keys_ += static_cast<int64_t>(keys);
  dirty_.erase(first);
  if (static_cast<int64_t>(keys) > kRunKeysMax) oversized_.insert(first);
  return true;
}

void Counts::Forget(std::string_view row_key) {
  if (!row_key.empty()) dirty_.insert(std::string(row_key.substr(1)));
}

void Counts::Append(std::string_view key) {
  auto run = std::prev(runs_.end());
  if (run->second >= kRunKeysMax / 2) {
    run = runs_.emplace_hint(runs_.end(), std::string(key), 0);
    dirty_.insert(run->first);
  }
  ++run->second;
  ++keys_;
}

}  // namespace kv

#include "storage/record_cache.h"

#include <functional>
#include <utility>

namespace kv {
namespace {

constexpr size_t kShards = 16;
// What an entry costs besides its key and value: two nodes, a control block, the record.
constexpr size_t kEntryBytes = 224;

size_t Cost(std::string_view key, const KeyRecordPtr& record) {
  return kEntryBytes + key.size() + (record == nullptr ? 0 : record->value.capacity());
}

}  // namespace

RecordCache::RecordCache(size_t bytes_max)
    : shard_bytes_max_(bytes_max / kShards), shards_(kShards) {}
RecordCache::~RecordCache() = default;

RecordCache::Shard& RecordCache::ShardOf(std::string_view key) {
  // The map inside a shard uses the low bits of the same hash.
  return shards_[(std::hash<std::string_view>{}(key) >> 48) % kShards];
}

std::optional<RecordCache::Found> RecordCache::Find(std::string_view key) {
  Shard& shard = ShardOf(key);
  const MutexLock lock(shard.mutex);
  const auto at = shard.by_key.find(key);
  if (at == shard.by_key.end()) return std::nullopt;
  shard.entries.splice(shard.entries.begin(), shard.entries, at->second);
  return at->second->found;
}

void RecordCache::Set(std::string_view key, KeyRecordPtr record, Revision since) {
  Shard& shard = ShardOf(key);
  const MutexLock lock(shard.mutex);
  shard.changed = since;
  Keep(shard, key, {.record = std::move(record), .since = since});
}

void RecordCache::Offer(std::string_view key, KeyRecordPtr record, Revision as_of) {
  Shard& shard = ShardOf(key);
  const MutexLock lock(shard.mutex);
  // Hazard: between the view and this call the key may have been set and evicted again; what the
  // view holds would then come back from the past.
  if (shard.changed > as_of) return;
  if (shard.by_key.find(key) != shard.by_key.end()) return;
  const Revision since = record == nullptr ? as_of : record->mod;
  Keep(shard, key, {.record = std::move(record), .since = since});
}

void RecordCache::Keep(Shard& shard, std::string_view key, Found found) {
  const size_t cost = Cost(key, found.record);
  const auto at = shard.by_key.find(key);
  if (at != shard.by_key.end()) {
    Entry& entry = *at->second;
    shard.bytes -= Cost(entry.key, entry.found.record);
    entry.found = std::move(found);
    shard.entries.splice(shard.entries.begin(), shard.entries, at->second);
  } else {
    if (cost > shard_bytes_max_) return;
    shard.entries.push_front({.key = std::string(key), .found = std::move(found)});
    shard.by_key.emplace(shard.entries.front().key, shard.entries.begin());
  }
  shard.bytes += cost;
  while (shard.bytes > shard_bytes_max_) {
    const Entry& oldest = shard.entries.back();
    shard.bytes -= Cost(oldest.key, oldest.found.record);
    shard.by_key.erase(oldest.key);
    shard.entries.pop_back();
  }
}

size_t RecordCache::bytes() const {
  size_t sum = 0;
  for (const Shard& shard : shards_) {
    const MutexLock lock(shard.mutex);
    sum += shard.bytes;
  }
  return sum;
}

}  // namespace kv

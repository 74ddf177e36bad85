#include "storage/record_cache.h"

#include <utility>

namespace kv {
namespace {

constexpr size_t kShards = 16;
// What an entry costs besides its key and value: its node, a control block, the record.
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
  const auto at = shard.entries.find(key);
  if (at == shard.entries.end()) return std::nullopt;
  at->second.used = true;
  return at->second.found;
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
  if (shard.entries.find(key) != shard.entries.end()) return;
  const Revision since = record == nullptr ? as_of : record->mod;
  Keep(shard, key, {.record = std::move(record), .since = since});
}

void RecordCache::Keep(Shard& shard, std::string_view key, Found found) {
  const size_t cost = Cost(key, found.record);
  if (const auto at = shard.entries.find(key); at != shard.entries.end()) {
    shard.bytes -= Cost(key, at->second.found.record);
    at->second.found = std::move(found);
    at->second.used = true;
  } else {
    if (cost > shard_bytes_max_) return;
    const auto added = shard.entries.emplace(key, Entry{.found = std::move(found), .used = false});
    shard.queue.push_back(&*added.first);
  }
  shard.bytes += cost;
  while (shard.bytes > shard_bytes_max_) EvictOne(shard);
}

void RecordCache::EvictOne(Shard& shard) {
  while (std::exchange(shard.queue.front()->second.used, false)) {
    shard.queue.push_back(shard.queue.front());
    shard.queue.pop_front();
  }
  const auto evicted = shard.entries.find(shard.queue.front()->first);
  shard.queue.pop_front();
  shard.bytes -= Cost(evicted->first, evicted->second.found.record);
  shard.entries.erase(evicted);
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

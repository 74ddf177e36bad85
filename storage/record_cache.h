// Current records of hot keys, absent ones too, within a bound of bytes.
//
// The apply loop sets what it changed; readers on any thread find, and offer what they read from
// the database. Coherent by revisions: an entry says since when it holds, and an offer made from a
// view older than the last change of its shard is dropped. Each call takes one shard's mutex,
// briefly.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "storage/key_record.h"
#include "storage/keys.h"
#include "storage/mutex.h"

namespace kv {

class RecordCache {
 public:
  explicit RecordCache(size_t bytes_max);
  ~RecordCache();

  struct Found {
    KeyRecordPtr record;  // Null: the key does not exist.
    Revision since = 0;   // The answer holds at this revision and at every later one so far.
  };
  std::optional<Found> Find(std::string_view key);

  // What a command at revision `since` left of `key`. In order of revisions; one thread.
  void Set(std::string_view key, KeyRecordPtr record, Revision since);
  // What a view at revision `as_of` holds of `key`.
  void Offer(std::string_view key, KeyRecordPtr record, Revision as_of);

  size_t bytes() const;

 private:
  struct Entry {
    Found found;
    bool used = false;  // Since it last came to the front of the queue.
  };
  // Not noexcept on purpose: libstdc++ then keeps each key's hash beside it.
  struct KeyHash {
    using is_transparent = void;
    size_t operator()(std::string_view key) const { return std::hash<std::string_view>{}(key); }
  };
  // Only looked up, never walked: its order differs between processes.
  using Entries = std::unordered_map<std::string, Entry, KeyHash, std::equal_to<>>;
  struct Shard {
    mutable Mutex mutex;
    Entries entries ABSL_GUARDED_BY(mutex);
    // Whoever is in front goes next, unless it was used: then it goes to the back. That comes near
    // the least recently used, and a hit writes nothing but its own entry.
    std::deque<Entries::value_type*> queue ABSL_GUARDED_BY(mutex);
    size_t bytes ABSL_GUARDED_BY(mutex) = 0;
    Revision changed ABSL_GUARDED_BY(mutex) = 0;  // Of the last Set.
  };

  Shard& ShardOf(std::string_view key);
  void Keep(Shard& shard, std::string_view key, Found found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);
  void EvictOne(Shard& shard) ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t shard_bytes_max_;
  std::vector<Shard> shards_;
};

}  // namespace kv

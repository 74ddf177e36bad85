// Current records of hot keys, absent ones too, within a bound of bytes.
//
// The apply loop sets what it changed; readers on any thread find, and offer what they read from
// the database. Coherent by revisions: an entry says since when it holds, and an offer made from a
// view older than the last change of its shard is dropped. Each call takes one shard's mutex,
// briefly.
#pragma once

#include <cstdint>
#include <list>
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
    std::string key;
    Found found;
  };
  struct Shard {
    mutable Mutex mutex;
    std::list<Entry> entries ABSL_GUARDED_BY(mutex);  // Most recently used first.
    // Only looked up, never walked: its order differs between processes.
    std::unordered_map<std::string_view, std::list<Entry>::iterator> by_key ABSL_GUARDED_BY(mutex);
    size_t bytes ABSL_GUARDED_BY(mutex) = 0;
    Revision changed ABSL_GUARDED_BY(mutex) = 0;  // Of the last Set.
  };

  Shard& ShardOf(std::string_view key);
  void Keep(Shard& shard, std::string_view key, Found found)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(shard.mutex);

  const size_t shard_bytes_max_;
  std::vector<Shard> shards_;
};

}  // namespace kv

// An ordered map of bytes on a disk: all that the stores above need of RocksDB.
//
// Two implementations: RocksDB with our options (OpenRocksDatabase), and, for the simulation, an
// ordered map that loses exactly what was not synced or flushed. Keys are ordered bytewise.
// Thread-safe: one writer at a time, any number of readers. A View is a consistent read of the
// whole map at the moment it was made and keeps what it reads alive.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
}

namespace kv {

// Changes that take effect together. Later changes of a key win over earlier ones. All their bytes
// lie in one buffer: a write of a thousand rows costs no allocation a row.
class WriteSet {
 public:
  struct Change {
    std::string_view key;
    std::optional<std::string_view> value;  // Nothing: delete the key.
    std::string_view upper = {};            // Not empty: delete all of [key, upper); no value then.
  };
  void Put(std::string_view key, std::string_view value) { Add(Kind::kPut, key, value); }
  void Delete(std::string_view key) { Add(Kind::kDelete, key, {}); }
  // For keys that nobody seeks across any more (a dropped log): cheap to write, and it slows down
  // walks over the range until a compaction has met it. Not for the state.
  void DeleteRange(std::string_view lower, std::string_view upper) {
    Add(Kind::kDeleteRange, lower, upper);
  }
  std::vector<Change> changes() const;  // Valid until the next change of the set.
  size_t size() const { return rows_.size(); }
  size_t bytes() const { return bytes_.size(); }  // Of keys and values.
  bool empty() const { return rows_.empty(); }

 private:
  enum class Kind : uint8_t { kPut, kDelete, kDeleteRange };
  struct Row {
    Kind kind = Kind::kPut;
    size_t key_bytes = 0;
    size_t rest_bytes = 0;  // Of the value, or of the upper end.
  };
  void Add(Kind kind, std::string_view key, std::string_view rest) {
    rows_.push_back({.kind = kind, .key_bytes = key.size(), .rest_bytes = rest.size()});
    bytes_.append(key).append(rest);
  }

  std::vector<Row> rows_;
  std::string bytes_;  // Of every row in turn.
};

// Walks keys of a View in ascending or descending order. An error ends the walk: status() tells.
class Cursor {
 public:
  virtual ~Cursor() = default;
  virtual void Seek(std::string_view key) = 0;         // To the first key >= `key`.
  virtual void SeekForPrev(std::string_view key) = 0;  // To the last key <= `key`.
  virtual void Next() = 0;
  virtual void Prev() = 0;
  virtual bool Valid() const = 0;
  virtual std::string_view key() const = 0;    // Until the next move.
  virtual std::string_view value() const = 0;  // Until the next move.
  virtual absl::Status status() const = 0;
};

class DatabaseView {
 public:
  virtual ~DatabaseView() = default;
  virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const = 0;
  // [lower, upper) bounds the walk; an empty upper means no bound. The cursor may outlive the view.
  virtual std::unique_ptr<Cursor> NewCursor(std::string_view lower,
                                            std::string_view upper) const = 0;
};

enum class Sync { kNo, kYes };

class Database {
 public:
  virtual ~Database() = default;

  // Latest value.
  virtual absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const = 0;
  // The value that a power loss now would leave (only meaningful without a write-ahead log).
  virtual absl::StatusOr<std::optional<std::string>> GetPersisted(std::string_view key) const = 0;
  virtual std::shared_ptr<const DatabaseView> View() const = 0;

  // Atomic. With a write-ahead log, Sync::kYes returns once it survives power loss. After an error
  // nothing is known of the outcome: the caller ends the process.
  virtual absl::Status Write(const WriteSet& writes, Sync sync) = 0;
  // Everything written before survives power loss once this returns. Any thread.
  virtual absl::Status Flush() = 0;
  // A copy of everything written so far, made of hard links where it can be, in the new directory
  // `path` (which must not exist); synced.
  virtual absl::Status Checkpoint(const std::string& path) = 0;
  virtual uint64_t SizeOnDisk() const = 0;      // Bytes of live files.
  virtual uint64_t UnflushedBytes() const = 0;  // Bytes that only memory holds.
};

struct DatabaseOptions {
  bool write_ahead_log = true;  // false: a power loss takes what was not flushed, to a prefix.
  size_t memtable_bytes = size_t{32} << 20;    // Of each of two.
  size_t block_cache_bytes = size_t{8} << 20;  // Blocks, indexes and filters.
  int open_files_max = 512;
  int background_jobs = 2;  // One flush, the rest compactions.
  // Flushes and compactions together write no faster than this: an unthrottled flush makes every
  // sync beside it wait for tens of milliseconds. Must stay above the steady rate of new bytes
  // times the rewrites that they cause.
  uint64_t background_bytes_per_second = uint64_t{64} << 20;
  bool create_if_missing = true;
  // Called from any thread, once, when a background write failed; the owner ends the process.
  std::function<void(const absl::Status&)> on_background_error;
};

// RocksDB in the directory `path`, its files under `env` (rocksdb::Env::Default() in production; a
// faulty disk in tests). Options are pinned so that members of different releases can read each
// other's files. What it returns with survives power loss, also where an earlier process died
// before it had synced. Views keep the files open after the Database is gone. An error names the
// directory, what is wrong, and the next step: NotFound when there is none and none may be created,
// DataLoss when it is damaged, FailedPrecondition when a newer release wrote it, Unavailable when
// another process has it open.
absl::StatusOr<std::unique_ptr<Database>> OpenRocksDatabase(rocksdb::Env* env,
                                                            const std::string& path,
                                                            const DatabaseOptions& options);

}  // namespace kv

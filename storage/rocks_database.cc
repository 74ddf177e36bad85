#include <rocksdb/cache.h>
#include <rocksdb/convenience.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/rate_limiter.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>

#include <algorithm>
#include <atomic>
#include <cstdarg>

#include "storage/check.h"
#include "storage/database.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv {
namespace {

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// Passes the first background failure on. RocksDB would retry by itself; after a failed sync a
// retry that succeeds proves nothing, so nobody may go on.
class FirstError : public rocksdb::EventListener {
 public:
  explicit FirstError(std::function<void(const absl::Status&)> report)
      : report_(std::move(report)) {}

  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    if (reported_.exchange(true) || !report_) return;
    report_(FromRocks(
        *error, fmt::format("a background write failed (reason {})", static_cast<int>(reason))));
  }

 private:
  const std::function<void(const absl::Status&)> report_;
  std::atomic<bool> reported_ = false;
};

// RocksDB's own log would be one more file on the disk that fills up: the distribution's builds
// abort when they write to a file that has failed once, and this one they go on writing to. What
// matters in it reaches us as errors.
class NoLog : public rocksdb::Logger {
 public:
  NoLog() : Logger(rocksdb::InfoLogLevel::FATAL_LEVEL) {}
  void Logv(const char*, va_list) override {}
};

rocksdb::BlockBasedTableOptions TableOptions(const DatabaseOptions& options) {
  rocksdb::BlockBasedTableOptions table;
  // The newest format that RocksDB 7.8 reads; 9.x would write 6 by default.
  table.format_version = 5;
  table.checksum = rocksdb::kXXH3;
  table.block_size = 8 << 10;
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.whole_key_filtering = true;
  table.partition_filters = false;
  table.index_type = rocksdb::BlockBasedTableOptions::kBinarySearch;
  // Hazard: RocksDB would cut a cache of this size into dozens of shards, each smaller than the
  // filter of one file; such a filter is never kept, and every Get reads and checks it anew.
  table.block_cache = rocksdb::NewLRUCache(options.block_cache_bytes, 2 /* bits: four shards */);
  table.cache_index_and_filter_blocks = true;
  table.cache_index_and_filter_blocks_with_high_priority = true;
  table.pin_l0_filter_and_index_blocks_in_cache = true;
  return table;
}

rocksdb::Options RocksOptions(rocksdb::Env* env, const DatabaseOptions& options) {
  rocksdb::Options rocks;
  rocks.env = env;
  rocks.create_if_missing = true;

  // Laws: stop at the first error, verify what can be verified, never guess.
  rocks.paranoid_checks = true;
  rocks.force_consistency_checks = true;
  rocks.verify_sst_unique_id_in_manifest = true;
  rocks.max_bgerror_resume_count = 0;
  rocks.listeners.push_back(std::make_shared<FirstError>(options.on_background_error));
  // Boots after every crash and never leaves a hole; the floor tells when it took too much.
  rocks.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocks.recycle_log_file_num = 0;
  rocks.manual_wal_flush = false;
  rocks.unordered_write = false;
  rocks.two_write_queues = false;
  rocks.enable_pipelined_write = false;
  rocks.allow_2pc = false;
  rocks.track_and_verify_wals_in_manifest = false;  // Reports false losses before 7.10.
  rocks.avoid_flush_during_shutdown = true;
  rocks.avoid_flush_during_recovery = true;  // Open() has synced what recovery reads.

  // One writer, one flush at a time. With three memtables and two flushes, 7.8 can order the
  // updates of a retried flush wrongly.
  rocks.allow_concurrent_memtable_write = false;
  rocks.write_buffer_size = options.memtable_bytes;
  rocks.max_write_buffer_number = 2;
  rocks.max_background_jobs = options.background_jobs;
  rocks.max_subcompactions = 1;
  rocks.rate_limiter.reset(rocksdb::NewGenericRateLimiter(
      static_cast<int64_t>(options.background_bytes_per_second), 10'000 /* us */));
  rocks.bytes_per_sync = 1 << 20;
  rocks.wal_bytes_per_sync = 0;
  rocks.max_open_files = options.open_files_max;
  rocks.skip_stats_update_on_db_open = true;
  rocks.avoid_unnecessary_blocking_io = true;

  // Files that every release of ours reads.
  rocks.level_compaction_dynamic_level_bytes = true;
  rocks.compression = options.write_ahead_log ? rocksdb::kNoCompression : rocksdb::kLZ4Compression;
  rocks.bottommost_compression = rocksdb::kDisableCompressionOption;
  rocks.table_factory.reset(rocksdb::NewBlockBasedTableFactory(TableOptions(options)));
  if (!options.write_ahead_log) {
    rocks.memtable_prefix_bloom_size_ratio = 0.1;
    rocks.memtable_whole_key_filtering = true;
  }

  rocks.allow_data_in_errors = false;
  rocks.info_log = std::make_shared<NoLog>();
  rocks.stats_dump_period_sec = 0;
  rocks.stats_persist_period_sec = 0;
  return rocks;
}

// What a view and a cursor keep alive. The options own the listener and the rate limiter.
struct OpenDatabase {
  std::string path;
  std::unique_ptr<rocksdb::DB> db;

  absl::Status Failed(const rocksdb::Status& status, std::string_view action) const {
    if (status.ok()) return absl::OkStatus();  // No sentence for nothing: this is asked every row.
    return FromRocks(status, fmt::format("cannot {} the database {}", action, path));
  }
  absl::StatusOr<std::optional<std::string>> Get(const rocksdb::ReadOptions& options,
                                                 std::string_view key) const {
    std::string value;
    const rocksdb::Status status =
        db->Get(options, db->DefaultColumnFamily(), ToSlice(key), &value);
    if (status.IsNotFound()) return std::nullopt;
    RETURN_IF_ERROR(Failed(status, "read"));
    return value;
  }
};

rocksdb::ReadOptions Verified() {
  rocksdb::ReadOptions options;
  options.verify_checksums = true;
  return options;
}

// A moment of the database that compactions keep until the last reader of it is gone.
struct Moment {
  explicit Moment(std::shared_ptr<OpenDatabase> open)
      : database(std::move(open)), snapshot(database->db->GetSnapshot()) {}
  ~Moment() { database->db->ReleaseSnapshot(snapshot); }
  Moment(const Moment&) = delete;
  Moment& operator=(const Moment&) = delete;

  rocksdb::ReadOptions ReadOptions() const {
    rocksdb::ReadOptions options = Verified();
    options.snapshot = snapshot;
    return options;
  }

  const std::shared_ptr<OpenDatabase> database;
  const rocksdb::Snapshot* const snapshot;
};

class RocksCursor : public Cursor {
 public:
  RocksCursor(std::shared_ptr<const Moment> moment, std::string_view lower, std::string_view upper)
      : moment_(std::move(moment)), lower_(lower), upper_(upper) {
    rocksdb::ReadOptions options = moment_->ReadOptions();
    lower_bound_ = lower_;
    upper_bound_ = upper_;
    if (!lower_.empty()) options.iterate_lower_bound = &lower_bound_;
    if (!upper_.empty()) options.iterate_upper_bound = &upper_bound_;
    iterator_.reset(moment_->database->db->NewIterator(options));
  }

  void Seek(std::string_view key) override { iterator_->Seek(ToSlice(key)); }
  void SeekForPrev(std::string_view key) override { iterator_->SeekForPrev(ToSlice(key)); }
  void Next() override { iterator_->Next(); }
  void Prev() override { iterator_->Prev(); }
  bool Valid() const override { return iterator_->Valid(); }
  std::string_view key() const override { return ToView(iterator_->key()); }
  std::string_view value() const override { return ToView(iterator_->value()); }
  absl::Status status() const override {
    return moment_->database->Failed(iterator_->status(), "walk");
  }

 private:
  const std::shared_ptr<const Moment> moment_;
  const std::string lower_;
  const std::string upper_;
  rocksdb::Slice lower_bound_;
  rocksdb::Slice upper_bound_;
  std::unique_ptr<rocksdb::Iterator> iterator_;  // Last: it goes before what it reads.
};

class RocksView : public DatabaseView {
 public:
  explicit RocksView(std::shared_ptr<const Moment> moment) : moment_(std::move(moment)) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    return moment_->database->Get(moment_->ReadOptions(), key);
  }
  std::unique_ptr<Cursor> NewCursor(std::string_view lower, std::string_view upper) const override {
    return std::make_unique<RocksCursor>(moment_, lower, upper);
  }

 private:
  const std::shared_ptr<const Moment> moment_;
};

class RocksDatabase : public Database {
 public:
  RocksDatabase(std::shared_ptr<OpenDatabase> open, rocksdb::Env* env, bool write_ahead_log)
      : open_(std::move(open)), env_(env), write_ahead_log_(write_ahead_log) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    return open_->Get(Verified(), key);
  }

  absl::StatusOr<std::optional<std::string>> GetPersisted(std::string_view key) const override {
    rocksdb::ReadOptions options = Verified();
    options.read_tier = rocksdb::kPersistedTier;
    return open_->Get(options, key);
  }

  std::shared_ptr<const DatabaseView> View() const override {
    return std::make_shared<RocksView>(std::make_shared<const Moment>(open_));
  }

  absl::Status Write(const WriteSet& writes, Sync sync) override {
    KV_CHECK(sync == Sync::kNo || write_ahead_log_, "a synced write needs a write-ahead log");
    // Head, and per change a tag, two lengths and, where they are asked for, the check bytes.
    rocksdb::WriteBatch batch(12 + writes.bytes() + writes.size() * 12);
    for (const WriteSet::Change& change : writes.changes()) {
      rocksdb::Status added;
      if (change.value) {
        added = batch.Put(ToSlice(change.key), ToSlice(*change.value));
      } else if (change.upper.empty()) {
        added = batch.Delete(ToSlice(change.key));
      } else {
        added = batch.DeleteRange(ToSlice(change.key), ToSlice(change.upper));
      }
      RETURN_IF_ERROR(open_->Failed(added, "write to"));
    }
    rocksdb::WriteOptions options;
    options.disableWAL = !write_ahead_log_;
    options.sync = sync == Sync::kYes;
    return open_->Failed(open_->db->Write(options, &batch), "write to");
  }

  absl::Status Flush() override {
    if (write_ahead_log_) return open_->Failed(open_->db->SyncWAL(), "sync");
    return open_->Failed(open_->db->Flush(rocksdb::FlushOptions()), "flush");
  }

  absl::Status Checkpoint(const std::string& path) override {
    rocksdb::Checkpoint* created = nullptr;
    RETURN_IF_ERROR(open_->Failed(rocksdb::Checkpoint::Create(open_->db.get(), &created), "copy"));
    const std::unique_ptr<rocksdb::Checkpoint> checkpoint(created);
    // Zero: flush whatever is in memory first, so that the copy needs no write-ahead log.
    RETURN_IF_ERROR(open_->Failed(checkpoint->CreateCheckpoint(path, 0),
                                  fmt::format("make the copy {} of", path)));
    return SyncDirectory(env_, ParentDirectory(path));
  }

  uint64_t SizeOnDisk() const override {
    uint64_t bytes = Property(rocksdb::DB::Properties::kLiveSstFilesSize);
    const absl::StatusOr<std::vector<std::string>> names = ListDirectory(env_, open_->path);
    if (!names.ok()) return bytes;
    for (const std::string& name : *names) {
      uint64_t size = 0;
      if (name.ends_with(".log") && env_->GetFileSize(open_->path + "/" + name, &size).ok()) {
        bytes += size;
      }
    }
    return bytes;
  }

  uint64_t UnflushedBytes() const override {
    // An empty memtable still counts its filter and first block.
    if (Property(rocksdb::DB::Properties::kNumEntriesActiveMemTable) +
            Property(rocksdb::DB::Properties::kNumEntriesImmMemTables) ==
        0) {
      return 0;
    }
    return Property(rocksdb::DB::Properties::kCurSizeAllMemTables);
  }

 private:
  uint64_t Property(const std::string& name) const {
    uint64_t value = 0;
    return open_->db->GetIntProperty(name, &value) ? value : 0;
  }

  const std::shared_ptr<OpenDatabase> open_;
  rocksdb::Env* const env_;
  const bool write_ahead_log_;
};

absl::Status DescribeOpenFailure(const std::string& path, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  const auto says = [&text](std::string_view words) { return text.find(words) != text.npos; };
  if (status.IsNoSpace()) {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "cannot open the database {}: the disk is full; free some space and start "
                      "again ({})",
                      path, text);
  }
  if (status.IsIOError() && (says("lock hold by") || says("While lock file"))) {
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "the database {} is open in another process; stop that process first ({})",
                      path, text);
  }
  if (says("format_version") || says("nknown format")) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "the database {} was written by a newer release; start that release, or a "
                      "newer one ({})",
                      path, text);
  }
  if (status.IsCorruption()) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the database {} is damaged; check the disk, then remove this member and add "
                      "it again with an empty disk, or restore the directory from a backup ({})",
                      path, text);
  }
  return FromRocks(status, fmt::format("cannot open the database {}; check the directory, its "
                                       "permissions and the disk, then start again",
                                       path));
}

// Without CURRENT RocksDB would found a new database over the files of the old one.
absl::Status CheckPresence(rocksdb::Env* env, const std::string& path, bool create_if_missing) {
  ASSIGN_OR_RETURN(const bool directory, FileExists(env, path));
  ASSIGN_OR_RETURN(const bool current, FileExists(env, path + "/CURRENT"));
  if (current) return absl::OkStatus();
  if (directory) {
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env, path));
    for (const std::string& name : names) {
      uint64_t size = 0;
      const bool file_of_data = name.ends_with(".sst") || name.ends_with(".log");
      if (!file_of_data || !env->GetFileSize(path + "/" + name, &size).ok() || size == 0) continue;
      return MakeStatus(absl::StatusCode::kDataLoss,
                        "the database {} is damaged: there is {} but no CURRENT; restore the "
                        "directory from a backup, or remove this member and add it again with an "
                        "empty disk",
                        path, name);
    }
  }
  if (create_if_missing) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kNotFound,
                    "there is no database in {}; restore the directory from a backup, or remove "
                    "this member and add it again with an empty disk",
                    path);
}

// A process that died before its sync leaves bytes that reads already show and power loss still
// takes. Recovery is about to build on what it reads, so it is synced first.
absl::Status SyncWhatRecoveryReads(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env, path));
  for (const std::string& name : names) {
    if (!name.ends_with(".log")) continue;
    RETURN_IF_ERROR(SyncFile(env, path + "/" + name));
  }
  return SyncDirectory(env, path);
}

}  // namespace

std::vector<WriteSet::Change> WriteSet::changes() const {
  std::vector<Change> changes;
  changes.reserve(rows_.size());
  std::string_view rest = bytes_;
  for (const Row& row : rows_) {
    Change change{.key = rest.substr(0, row.key_bytes), .value = std::nullopt};
    const std::string_view second = rest.substr(row.key_bytes, row.rest_bytes);
    if (row.kind == Kind::kPut) change.value = second;
    if (row.kind == Kind::kDeleteRange) change.upper = second;
    changes.push_back(change);
    rest.remove_prefix(row.key_bytes + row.rest_bytes);
  }
  return changes;
}

absl::StatusOr<std::unique_ptr<Database>> OpenRocksDatabase(rocksdb::Env* env,
                                                            const std::string& path,
                                                            const DatabaseOptions& options) {
  RETURN_IF_ERROR(CheckPresence(env, path, options.create_if_missing));
  RETURN_IF_ERROR(CreateDirectory(env, path));
  RETURN_IF_ERROR(SyncWhatRecoveryReads(env, path));
  rocksdb::DB* opened = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(RocksOptions(env, options), path, &opened);
  if (!status.ok()) return DescribeOpenFailure(path, status);
  auto open = std::make_shared<OpenDatabase>();
  open->path = path;
  open->db.reset(opened);
  return std::make_unique<RocksDatabase>(std::move(open), env, options.write_ahead_log);
}

}  // namespace kv

// One machine's disk: small files on a FaultDisk, and databases that lose exactly what was not
// synced or flushed.
//
// A SimDatabase's directory holds IMAGE (a checkpoint's rows, if it began as one) and STORE (which
// of the disk's stores it is from then on), both ordinary files: directories are renamed, removed
// and sent like any other, and lose their names at a power loss like any other.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/kv/state_directory.h"
#include "storage/database.h"
#include "storage/entry.h"
#include "tests/sim/scheduler.h"
#include "tests/storage/fault_disk.h"

namespace kv::sim {

// The rows of one database through its batches: every read names the batch that it reads at. Only
// what somebody may still read is kept.
class SimStore {
 public:
  using Sequence = uint64_t;  // Of a batch.

  explicit SimStore(bool write_ahead_log) : write_ahead_log_(write_ahead_log) {
    written_.fill(rows_.end());
  }

  Sequence last() const { return last_; }
  Sequence durable() const { return durable_; }
  bool write_ahead_log() const { return write_ahead_log_; }

  void Apply(const WriteSet& writes);
  void MakeDurable();
  // The batches after `kept` never happened. Nobody reads meanwhile.
  void RollBackTo(Sequence kept);

  const std::string* Get(std::string_view key, Sequence at) const;
  void Pin(Sequence at) { ++pins_[at]; }
  void Unpin(Sequence at);

  // As it is, read by nobody.
  std::shared_ptr<SimStore> Copy() const;
  // Turns a bit of a row's value over. False: there is no such row.
  bool FlipBit(std::string_view key, uint64_t bit);
  // The rows as of `at`, as a checkpoint holds them; and back.
  std::string Encode(Sequence at) const;
  void Decode(std::string_view image);

 private:
  friend class SimCursor;
  struct Version {
    Sequence sequence = 0;
    std::optional<std::string> value;  // Nothing: deleted.
  };
  using Versions = std::vector<Version>;  // Oldest first.
  using Rows = std::map<std::string, Versions, std::less<>>;

  static const Version* Find(const Versions& versions, Sequence at);
  Rows::iterator RowOf(std::string_view key);
  void Erase(Rows::iterator row);
  void Put(Versions& versions, std::optional<std::string> value);
  void DeleteRow(Rows::iterator row);
  bool IsRead(Sequence from, Sequence to) const;  // By anybody at [from, to).
  void Bury();

  const bool write_ahead_log_;
  Rows rows_;
  // Where rows of each kind, told by their first byte, were last written: the next one is often
  // there again, or comes right behind. The end: unknown.
  std::array<Rows::iterator, 256> written_;
  Sequence last_ = 0;
  Sequence durable_ = 0;
  std::map<Sequence, int> pins_;
  std::deque<std::pair<Sequence, std::string>> graves_;  // Deleted rows that nobody may need soon.
};

// How the next synced write of a database ends.
enum class SyncFault : uint8_t {
  kNone,
  kLost,     // It fails, and nothing of it is on the disk.
  kUnheard,  // It fails, but what it wrote is there: the process died before it heard.
};

class SimDisk {
 public:
  // `scheduler` draws what a power loss leaves. `real_rocksdb`: databases are RocksDB on the files.
  SimDisk(Scheduler* scheduler, bool real_rocksdb);

  rocksdb::Env* env() { return files_->env(); }
  // For NodeConfig; empty with the real RocksDB.
  OpenDatabase opener();

  // What the next process finds. The one that ran may still be torn down; it changes nothing more.
  void CutPower();
  void KillProcess();
  // The one that ran is torn down.
  void Forget() { replaced_.clear(); }
  // What the disk holds now, while no process runs on it.
  std::unique_ptr<SimDisk> Copy() const;

  void SetFull(bool full);
  bool full() const { return full_; }
  void FailNextSync(SyncFault fault) { next_sync_ = fault; }
  // One written batch in so many reaches the disk by itself, as a full memtable is flushed.
  void FlushByItself(uint64_t one_in) { flush_one_in_ = one_in; }

  // Bit rot in one durable entry of the log, drawn. False: there is none.
  bool RotLog();

  // The durable log, read by judges behind everybody's back.
  struct Held {
    Position base;
    std::optional<Term> term;  // Of the entry asked for.
  };
  std::optional<Held> DurableEntry(Index index) const;
  std::optional<HardState> DurableHardState() const;
  // Every configuration entry of the durable log.
  std::vector<std::string> DurableConfigurations() const;

  uint64_t syncs() const { return syncs_; }

 private:
  friend class SimDatabase;
  absl::StatusOr<std::unique_ptr<Database>> Open(const std::string& path,
                                                 const DatabaseOptions& options);
  SimStore* LogStoreHere() const;

  Scheduler* const scheduler_;
  const bool real_rocksdb_;
  std::unique_ptr<test::FaultDisk> files_;
  std::vector<std::unique_ptr<test::FaultDisk>> replaced_;  // Open files point into them.
  std::map<uint64_t, std::shared_ptr<SimStore>> stores_;
  uint64_t log_store_ = 0;  // The one that was last opened with a write-ahead log.
  uint64_t life_ = 1;       // Of a process on this disk: databases of earlier ones fail.
  bool full_ = false;
  SyncFault next_sync_ = SyncFault::kNone;
  uint64_t flush_one_in_ = 0;
  uint64_t syncs_ = 0;
};

}  // namespace kv::sim

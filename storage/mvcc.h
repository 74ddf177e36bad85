// The versioned map: every key at every revision that is not compacted, in one Database.
//
// Mvcc owns the database, the record cache and the counts of live keys. One thread at a time writes
// commands (Batch, Commit: the apply loop); any thread reads through a View, which is a consistent
// read at a revision and keeps what it reads alive. Compaction and flushing may run on other
// threads: writes to the database are serialized here.
// Tables: storage/keys.h. Format: storage/README.md, "State machine tables".
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/counts.h"
#include "storage/database.h"
#include "storage/entry.h"
#include "storage/key_record.h"
#include "storage/keys.h"
#include "storage/mutex.h"
#include "storage/record_cache.h"

namespace kv {

class Mvcc;

// The errors of reading at a revision (contract §1.3).
absl::Status CompactedError();
absl::Status FutureRevisionError();

// Where the map stands: written in one batch with what brought it there.
struct Head {
  Position applied;
  Revision revision = 1;    // Of the last command that changed something.
  Revision compacted = -1;  // Reads below are refused; -1: never compacted.
  int64_t keys = 0;         // Live at `revision`.
  uint64_t digest = 0;      // Over all applied entries; made by the machine.

  friend bool operator==(const Head&, const Head&) = default;
};
// Notes (keys.h) that others who lay a state down must know: the head, and the revision that the
// persisted counts are of.
inline constexpr std::string_view kHeadNote = "head";
inline constexpr std::string_view kCountsNote = "counts";
std::string EncodeHead(const Head& head);
absl::StatusOr<Head> DecodeHead(std::string_view bytes);

enum class Direction { kAscending, kDescending };

// What a run of commands did to one key, before it reaches the database.
struct PendingKey {
  KeyRecordPtr base;                   // In the database; null: not there.
  std::vector<KeyRecordPtr> versions;  // Written since, oldest first; tombstones too.
};
using PendingKeys = std::map<std::string, PendingKey, std::less<>>;

// Walks the live keys of a range in order. Costs what it passes, not what the range holds.
class Walk {
 public:
  ~Walk();
  Walk(Walk&&) noexcept;

  // To the first, then to the next key; false at the end and on an error.
  bool Next();
  std::string_view key() const { return key_; }
  const RecordView& record() const { return record_; }
  absl::Status status() const;

 private:
  friend class View;
  friend class Batch;
  // The live keys at `at` of the database that `view` shows at `head`; `pending`, if any, on top.
  // The walk may not outlive `pending`.
  Walk(std::shared_ptr<const DatabaseView> view, KeyRange range, Direction direction, Revision at,
       Revision head, const PendingKeys* pending);

  bool Ahead(std::string_view a, std::string_view b) const;  // Whether a comes before b.
  void LeaveKey();
  void Start();
  const PendingKeys::value_type* PendingKeyHere() const;
  void ReadVersionKey();
  bool Resolve(bool in_current, bool in_versions, const PendingKey* pending);
  bool ResolveVersion();
  bool Decode(std::string_view bytes);

  std::shared_ptr<const DatabaseView> view_;
  KeyRange range_;
  Direction direction_;
  Revision at_;

  std::unique_ptr<Cursor> current_;
  std::unique_ptr<Cursor> versions_;  // Only for a revision below the head.
  std::unique_ptr<Cursor> lookup_;
  std::string version_key_;  // The user key that versions_ stands on, and the revision.
  Revision version_revision_ = 0;
  // What is left of the pending keys in the range: from its front, or its back when descending.
  PendingKeys::const_iterator pending_begin_;
  PendingKeys::const_iterator pending_end_;

  bool started_ = false;
  std::string key_;
  RecordView record_;
  absl::Status status_;
};

// One change of a key, for watchers.
struct KeyEvent {
  std::string key;
  KeyRecordPtr record;    // A tombstone for a deletion.
  KeyRecordPtr previous;  // Null: there was none, or it is compacted.
};
size_t BytesOf(const KeyEvent& event);  // Of keys and values.

// Everything that one revision changed, in order.
struct RevisionEvents {
  Revision revision = 0;
  std::vector<KeyEvent> events;
};

// A consistent read of the map as it was at a revision. Cheap to copy; any thread. It keeps the
// files it reads on the disk, so nobody holds one for long.
class View {
 public:
  Revision revision() const { return revision_; }  // Read at.
  const Head& head() const { return head_; }       // When the view was made.

  // The same moment, read at an earlier revision, which is not compacted.
  View Before(Revision revision) const;

  absl::StatusOr<KeyRecordPtr> Get(std::string_view key) const;  // Null: not there.
  // The walk may not outlive the view.
  Walk NewWalk(const KeyRange& range, Direction direction) const;
  absl::StatusOr<int64_t> Count(const KeyRange& range) const;

  // The live keys that are attached to a lease, in order; nothing if they take more than
  // `bytes_max`. Of the moment when the view was made.
  absl::StatusOr<std::optional<std::vector<std::string>>> Attached(int64_t lease,
                                                                   uint64_t bytes_max) const;

  // What a command left under this name (Batch::SetNote), when the view was made.
  absl::StatusOr<std::optional<std::string>> Note(std::string_view name) const;

  // Changes from `first` up to the view's revision, whole revisions only, until `events_max` events
  // or `bytes_max` bytes of them are passed (a revision with more comes alone and whole). Empty:
  // there are none.
  absl::StatusOr<std::vector<RevisionEvents>> History(Revision first, size_t events_max,
                                                      size_t bytes_max = SIZE_MAX) const;

  // Over everything that may be read at revisions from the compacted one to the view's: the same on
  // every member, however far its compaction has come.
  absl::StatusOr<uint32_t> Hash() const;

 private:
  friend class Mvcc;
  View(std::shared_ptr<const Mvcc> store, std::shared_ptr<const DatabaseView> data, Head head,
       Revision revision);

  // By passing over the range.
  absl::StatusOr<int64_t> Passed(const KeyRange& range, Revision at) const;

  // A count of the range at the head, begun when the view was made and the runs stood there.
  struct BegunCount {
    KeyRange range;
    Counts::Sum sum;
  };

  std::shared_ptr<const Mvcc> store_;
  std::shared_ptr<const DatabaseView> data_;
  Head head_;
  Revision revision_;
  std::optional<BegunCount> begun_;
};

// The commands of one run: each reads what the ones before it wrote, and all become one write of
// the database. A failed read ends the process: a member that skips a command has diverged.
class Batch {
 public:
  explicit Batch(Mvcc& store);

  Revision revision() const { return head_.revision; }  // Of the last command that changed.
  Revision compacted() const { return head_.compacted; }
  bool changed() const { return sub_ > 0; }  // By the command under way.
  // Where a read inside the command under way stands.
  Revision reading() const { return head_.revision + (changed() ? 1 : 0); }

  KeyRecordPtr Get(std::string_view key);  // At reading(). Null: not there.
  Walk NewWalk(const KeyRange& range, Direction direction, Revision at) const;
  int64_t Count(const KeyRange& range, Revision at) const;

  void Put(std::string_view key, std::string value, int64_t lease);
  struct Deleted {
    std::string key;
    KeyRecordPtr record;  // What it was.
  };
  // In the order of the keys, which is the order of its events.
  std::vector<Deleted> DeleteRange(const KeyRange& range);
  // Leases. What a put or a deletion makes of a key moves, attaches or detaches it by itself.
  std::optional<Lease> FindLease(int64_t id) const;
  size_t leases() const { return lease_count_; }
  void SetLease(const Lease& lease);
  void EraseLease(int64_t id);
  std::vector<std::string> Attached(int64_t lease) const;  // Live, in order, at reading().

  void SetCompacted(Revision revision) { head_.compacted = revision; }
  void SetNote(std::string_view name, std::string value);
  // Ends the command: one revision if it changed anything.
  void Finish();

  // What the finished commands changed, as View::History will tell it once they are committed.
  std::vector<RevisionEvents> Events() const;

 private:
  friend class Mvcc;
  struct Change {
    Revision revision = 0;
    uint32_t sub = 0;
    const PendingKeys::value_type* key = nullptr;
    bool was_live = false;
    bool is_live = false;
    Revision previous = 0;  // Modification revision of what it replaced, if that was live.
  };

  KeyRecordPtr ReadBase(std::string_view key) const;
  PendingKeys::value_type& Pend(std::string_view key);
  void Delete(PendingKeys::value_type& key);
  void Write(PendingKeys::value_type& key, std::shared_ptr<KeyRecord> record);
  WriteSet Writes() const;

  Mvcc& store_;
  std::shared_ptr<const DatabaseView> base_;
  Revision base_revision_ = 0;
  Head head_;
  uint32_t sub_ = 0;
  PendingKeys pending_;
  std::vector<Change> changes_;
  std::map<std::string, std::string, std::less<>> notes_;
  std::map<int64_t, std::optional<Lease>> leases_;  // Set, or erased, by this run.
  size_t lease_count_ = 0;
  // What versions of this run attached, if it is still so.
  std::map<int64_t, std::vector<const PendingKeys::value_type*>> attached_;
};

struct MvccOptions {
  size_t cache_bytes = size_t{32} << 20;
};

class Mvcc : public std::enable_shared_from_this<Mvcc> {
 public:
  static constexpr uint32_t kFormat = 1;

  // An empty map in an empty database, standing at `applied`; durable when it returns.
  static absl::Status Create(Database& database, Position applied,
                             const std::map<std::string, std::string, std::less<>>& notes);
  // Makes what the database holds the beginning of another log, which stands at `applied`: keys and
  // leases stay, `notes` take the place of those before, revisions go on `bump` further. With
  // `mark_compacted`, what is below reads as compacted. Durable when it returns; until then the
  // database is of use to nobody.
  struct Refounding {
    Position applied;
    uint64_t bump = 0;
    bool mark_compacted = false;
    std::map<std::string, std::string, std::less<>> notes;
  };
  static absl::Status Refound(Database& database, const Refounding& refounding);
  // What the database holds. Refuses one that Create or Commit did not write, and a newer format.
  static absl::StatusOr<std::shared_ptr<Mvcc>> Open(std::shared_ptr<Database> database,
                                                    const MvccOptions& options);
  ~Mvcc();

  // Any thread.
  Head head() const;
  // The newest state. With `counted`, the view can count that range without passing over it.
  View Latest(const KeyRange* counted = nullptr) const;
  // At a revision that may be read; 0 is the newest. Otherwise CompactedError, FutureRevisionError.
  absl::StatusOr<View> At(Revision revision, const KeyRange* counted = nullptr) const;
  struct Current {
    KeyRecordPtr record;    // Null: not there.
    Revision revision = 0;  // That this is the state of.
  };
  absl::StatusOr<Current> GetCurrent(std::string_view key) const;
  std::optional<Lease> FindLease(int64_t id) const;
  std::vector<Lease> Leases() const;  // By id.
  size_t lease_count() const;

  absl::StatusOr<Head> DurableHead() const;  // What a power loss now would leave.
  absl::Status Flush();                      // Everything committed before survives a power loss.
  // A copy of what the returned view shows, in the new directory `path`. Holds up commits
  // meanwhile.
  absl::StatusOr<View> Checkpoint(const std::string& path);
  uint64_t SizeOnDisk() const { return database_->SizeOnDisk(); }
  uint64_t UnflushedBytes() const { return database_->UnflushedBytes(); }
  size_t cache_bytes() const { return cache_.bytes(); }

  // Deletes versions that no legal read can see any more: a bounded step. True: there is more.
  absl::StatusOr<bool> CompactStep(size_t rows_max);
  Revision compaction_finished() const;  // Nothing is left to delete below it.

  // The apply loop.
  // `applied` and `digest` go with what the batch holds, as one write.
  absl::Status Commit(Batch batch, Position applied, uint64_t digest);

 private:
  friend class Batch;
  friend class View;
  // How far versions are deleted.
  struct Compaction {
    Revision finished = -1;
    Revision target = -1;  // Of the job under way; as `finished` when there is none.
    HistoryOf next;        // The first row of the history that is still to be looked at.
  };
  static std::string EncodeCompaction(const Compaction& compaction);
  static absl::StatusOr<Compaction> DecodeCompaction(std::string_view bytes);

  // What the database held when it was opened.
  struct Found {
    std::shared_ptr<const DatabaseView> data;
    Head head;
    Compaction compaction;
    Counts counts;
    std::map<int64_t, Lease> leases;
  };
  Mvcc(std::shared_ptr<Database> database, const MvccOptions& options, Found found);
  static absl::StatusOr<bool> LoadCounts(Found& found);
  static absl::Status RebuildCounts(Found& found);
  static absl::Status LoadLeases(Found& found);
  void Publish(const Batch& batch);
  absl::Status SplitOversized() ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);
  absl::Status PersistCounts() ABSL_EXCLUSIVE_LOCKS_REQUIRED(write_mutex_);

  // Constant after construction.
  const std::shared_ptr<Database> database_;
  mutable RecordCache cache_;

  // Held over a write of the database and what must agree with it; taken before state_mutex_.
  Mutex write_mutex_;
  size_t changes_since_persisted_ ABSL_GUARDED_BY(write_mutex_) = 0;

  // What readers take at once. Invariant: data_, head_, counts_ and leases_ are of one position.
  mutable Mutex state_mutex_;
  std::shared_ptr<const DatabaseView> data_ ABSL_GUARDED_BY(state_mutex_);
  Head head_ ABSL_GUARDED_BY(state_mutex_);
  Counts counts_ ABSL_GUARDED_BY(state_mutex_);
  std::map<int64_t, Lease> leases_ ABSL_GUARDED_BY(state_mutex_);
  Compaction compaction_ ABSL_GUARDED_BY(state_mutex_);
  std::atomic<Revision> revision_{0};  // As head_.revision, for reads that need nothing else.
};

}  // namespace kv

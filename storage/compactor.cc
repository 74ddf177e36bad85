// Deletes versions that no legal read can see: what was superseded at or below the compacted
// revision, and tombstones below it (one that stands exactly at it is still seen by a watch from
// there). Each row of the history names what it superseded, so a step walks the history and looks
// nothing up: compaction costs in proportion to what changed.
#include <algorithm>
#include <utility>

#include "storage/mark.h"
#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv {

absl::StatusOr<bool> Mvcc::CompactStep(size_t rows_max) {
  Compaction compaction;
  std::shared_ptr<const DatabaseView> data;
  Revision compacted = -1;
  {
    const MutexLock lock(state_mutex_);
    compaction = compaction_;
    data = data_;
    compacted = head_.compacted;
  }
  if (compaction.target <= compaction.finished) {
    if (compacted <= compaction.finished) return false;
    // The history at the last target itself was kept, for watches from it.
    compaction.next = {.revision = std::max(compaction.finished, Revision{0}), .sub = 0};
    compaction.target = MUTANT("mvcc.compaction_goes_too_far") ? compacted + 2 : compacted;
  }

  WriteSet writes;
  size_t rows = 0;
  const std::string lower = HistoryKey(compaction.next.revision, compaction.next.sub);
  const std::unique_ptr<Cursor> history = data->NewCursor(lower, HistoryUpper(compaction.target));
  for (history->Seek(lower); history->Valid() && rows < rows_max; history->Next(), ++rows) {
    const std::optional<HistoryOf> at = ParseHistoryKey(history->key());
    const std::optional<HistoryRow> row = DecodeHistoryRow(history->value());
    if (!at || !row) {
      return MakeStatus(absl::StatusCode::kDataLoss, "a row of the history is malformed");
    }
    if (row->was_live && !MUTANT("mvcc.compaction_keeps_what_tombstone_hid")) {
      writes.Delete(VersionKey(row->key, row->previous));
    }
    if (at->revision < compaction.target) {
      if (!row->is_live) writes.Delete(VersionKey(row->key, at->revision));
      writes.Delete(std::string(history->key()));
    }
    compaction.next = {.revision = at->revision, .sub = at->sub + 1};
  }
  RETURN_IF_ERROR(history->status());
  if (!history->Valid()) compaction.finished = compaction.target;
  writes.Put(NoteKey("compaction"), EncodeCompaction(compaction));

  const MutexLock lock(write_mutex_);
  RETURN_IF_ERROR(database_->Write(writes, Sync::kNo));
  // A new view lets go of the one that pins what was just deleted.
  std::shared_ptr<const DatabaseView> after = database_->View();
  const MutexLock state_lock(state_mutex_);
  data_.swap(after);
  compaction_ = compaction;
  return compaction.finished < head_.compacted;
}

}  // namespace kv

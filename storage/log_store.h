// The durable Raft log: hard state, entries, and two notes that recovery needs.
//
// Not thread-safe: constructed and Loaded before the loops start, everything else on the log loop.
// Every error of Commit is fatal to the process (a failed fsync leaves nothing to believe). An
// update that would leave a gap, lower a term or forget a promise is a broken law of ours and ends
// the process before it is written.
// Format: storage/README.md.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/database.h"
#include "storage/entry.h"

namespace kv {

class LogStore {
 public:
  // What the disk held: verified (contiguous, terms never decrease, checksums good). `adopting` is
  // the position of the newest snapshot whose adoption had begun (storage/README.md, "Recovery":
  // it means something only when the state stands at just that position).
  struct Contents {
    HardState hard_state;
    Position base;  // The log begins after this position.
    std::vector<EntryPtr> entries;
    std::optional<Position> adopting;

    Position last() const { return entries.empty() ? base : entries.back()->position(); }
    // Holds an entry, or the base, at just this position.
    bool Holds(Position position) const;
    bool empty() const { return hard_state == HardState{} && last() == Position{} && !adopting; }
  };

  // `database` has a write-ahead log.
  explicit LogStore(std::unique_ptr<Database> database);
  ~LogStore();

  // Once, before anything else. An error names the record, what is wrong with it, and the next
  // step.
  absl::StatusOr<Contents> Load();

  // Applies the updates in order, as one batch with one sync.
  absl::Status Commit(std::span<const LogUpdate> updates);

  // Forgets entries up to and including `position` (which becomes the base). Unsynced: losing it
  // only keeps more log.
  absl::Status DropThrough(Position position);

  // Notes, synced, that the snapshot at `position` is about to become the state.
  absl::Status BeginAdopting(Position position);

  // What is durable here: as of Load or the last Commit.
  const HardState& hard_state() const { return hard_state_; }
  Position base() const { return base_; }
  Position last() const { return last_; }
  uint64_t SizeOnDisk() const { return database_->SizeOnDisk(); }  // Any thread.

 private:
  // The batch that is being put together: what the log will be, and the writes that make it so.
  struct Draft;
  void Reset(Draft& draft, Position position) const;
  void Append(Draft& draft, std::span<const EntryPtr> entries) const;
  absl::Status Write(Draft draft, Sync sync);

  const std::unique_ptr<Database> database_;
  bool loaded_ = false;
  bool formatted_ = false;  // The format record is on disk.
  HardState hard_state_;
  Position base_;
  Position last_;
};

}  // namespace kv

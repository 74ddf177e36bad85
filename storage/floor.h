// The least that the durable log must still hold: a witness beside the log, in a file of its own.
//
// RocksDB's recovery stops without a word at the first bad checksum in its write-ahead log, also
// when what it skips had been synced and acknowledged. The floor tells rot from a torn tail: it
// names a commit index, a term and a last position that were durable in the log when it was
// written, so a log that holds less has lost something. Power loss alone never makes the check
// fail, because the floor only ever names what the log's own sync has already covered, and is
// lowered before the log is cut below it.
//
// Not thread-safe: Open before the loops start, the rest on the log loop. A failed write is fatal
// to the process. Format: storage/README.md.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/entry.h"
#include "storage/log_store.h"

namespace rocksdb {
class Env;
class RandomRWFile;
}  // namespace rocksdb

namespace kv {

class Floor {
 public:
  // Whose log this is: another member's floor is refused.
  struct Owner {
    uint64_t cluster_id = 0;
    MemberId member_id = 0;
    friend bool operator==(const Owner&, const Owner&) = default;
  };
  struct Mark {
    Term term = 0;      // The hard state reached this term,
    MemberId vote = 0;  // and held this vote in it.
    Index commit = 0;   // The log reached at least this far, and these entries never change.
    Position last;      // The log reached this position; term 0: only the index is known.
    friend bool operator==(const Mark&, const Mark&) = default;
  };

  // Reads the floor in the file `path` (in production <data>/log/FLOOR) and checks the log against
  // it. A missing floor is created beside an empty log and refused beside any other. Every refusal
  // names the file, both positions and the next step. Call it after LogStore::Load and before
  // anything else changes the log, with what Load returned.
  static absl::StatusOr<std::unique_ptr<Floor>> Open(rocksdb::Env* env, const std::string& path,
                                                     Owner owner,
                                                     const LogStore::Contents& contents);
  ~Floor();

  // Moves the floor up to what `log` holds by now, durably. `commit` is the core's commit index;
  // the part of it that is not durable here is left for the next time. Call it now and then (every
  // 200 ms while something changes, and at a clean stop); not calling it only detects less. Does
  // nothing when the mark would not change.
  absl::Status Raise(Index commit, const LogStore& log);

  // Call before LogStore::Commit(updates): if the updates cut away what the floor names, lowers it
  // first, durably. Does nothing in all other cases.
  absl::Status LowerFor(std::span<const LogUpdate> updates);

  const Mark& mark() const { return mark_; }

 private:
  Floor(rocksdb::Env* env, std::string path, Owner owner);

  absl::Status Read();
  absl::Status Create();
  absl::Status Check(const LogStore::Contents& contents) const;
  absl::Status Write(const Mark& mark);
  std::string EncodeSlot(const Mark& mark, uint64_t sequence) const;

  rocksdb::Env* const env_;
  const std::string path_;
  const Owner owner_;
  Mark mark_;
  uint64_t sequence_ = 0;  // Of the slot that holds mark_; 0: there is no file yet.
  std::unique_ptr<rocksdb::RandomRWFile> file_;
};

}  // namespace kv

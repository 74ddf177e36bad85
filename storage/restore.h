// A backup in the data directory of a member that has not started yet.
//
//   <data>/restore/ORDER       what the member is to do with it (a record)
//   <data>/restore/snapshot/   a sealed snapshot
//
// `kvctl snapshot restore` makes the directory under another name, restore.part, and renames it:
// where it is, it is whole. `kvd` founds a cluster from it at its first start and removes it. The
// functions here are stateless and block. Format: storage/README.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/backup.h"
#include "storage/keys.h"

namespace kv {

struct RestoreOrder {
  // Of the backup; for people.
  uint64_t cluster_id = 0;
  Revision revision = 1;
  // The new cluster's revisions begin so much above `revision`.
  uint64_t bump = 0;
  // What is below the revision that it begins with reads as compacted.
  bool mark_compacted = false;
};

// Checks the backup `path` whole, and only then writes anything: into `data_dir`, which is made, or
// is empty but for what an interrupted attempt left. Gives back what the backup says of itself.
absl::StatusOr<Backup> PrepareRestore(rocksdb::Env* env, const std::string& path, SumCheck check,
                                      const std::string& data_dir, RestoreOrder order);

struct PendingRestore {
  RestoreOrder order;
  std::string snapshot;  // Path of the directory; not verified yet.
};
// Nothing when there is none. Refuses what an interrupted PrepareRestore left: whoever began it
// does not want an empty member.
absl::StatusOr<std::optional<PendingRestore>> FindRestore(rocksdb::Env* env,
                                                          const std::string& data_dir);
// Nothing to do where there is none. A crash may leave a part of it, which must not be looked for
// any more.
absl::Status RemoveRestore(rocksdb::Env* env, const std::string& data_dir);

}  // namespace kv

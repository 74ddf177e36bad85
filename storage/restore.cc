#include "storage/restore.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "storage/files.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kKind = "kvd restore";
constexpr uint32_t kFormat = 1;
constexpr std::string_view kDirectory = "restore";
constexpr std::string_view kUnfinished = "restore.part";
// Far more than anybody counts to, and far from the end of the integers.
constexpr uint64_t kRevisionMax = uint64_t{1} << 62;

std::string DirectoryIn(const std::string& data_dir) {
  return fmt::format("{}/{}", data_dir, kDirectory);
}
std::string UnfinishedIn(const std::string& data_dir) {
  return fmt::format("{}/{}", data_dir, kUnfinished);
}
std::string OrderIn(const std::string& restore) { return restore + "/ORDER"; }
std::string SnapshotIn(const std::string& restore) { return restore + "/snapshot"; }

Record Encode(const RestoreOrder& order) {
  Record record{
      .kind = std::string(kKind), .format = kFormat, .minimum_reader = kFormat, .body = {}};
  PutU64(record.body, order.cluster_id);
  PutU64(record.body, static_cast<uint64_t>(order.revision));
  PutU64(record.body, order.bump);
  PutU8(record.body, order.mark_compacted ? 1 : 0);
  return record;
}

absl::StatusOr<RestoreOrder> Decode(const Record& record, const std::string& path) {
  ByteReader reader(record.body);
  RestoreOrder order;
  order.cluster_id = reader.U64();
  order.revision = static_cast<Revision>(reader.U64());
  order.bump = reader.U64();
  order.mark_compacted = reader.U8() != 0;
  if (!reader.ok() || (record.format <= kFormat && !reader.AtEnd())) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is not a valid order: its fields end too early or too late; empty the "
                      "data directory and restore again",
                      path);
  }
  return order;
}

absl::Status CheckEmpty(rocksdb::Env* env, const std::string& data_dir) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, data_dir));
  if (!exists) return absl::OkStatus();
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env, data_dir));
  for (const std::string& name : names) {
    // The latter is what a file system's own top directory has.
    if (name == kUnfinished || name == "lost+found") continue;
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "the data directory {} is not empty (it holds {}); a backup is restored into "
                      "an empty one only",
                      data_dir, name);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Backup> PrepareRestore(rocksdb::Env* env, const std::string& path, SumCheck check,
                                      const std::string& data_dir, RestoreOrder order) {
  RETURN_IF_ERROR(CheckEmpty(env, data_dir));
  ASSIGN_OR_RETURN(Backup backup, ReadBackup(env, path, check));
  order.cluster_id = backup.header.cluster_id;
  order.revision = backup.header.revision;
  if (order.bump > kRevisionMax - std::min(kRevisionMax, static_cast<uint64_t>(order.revision))) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "the revision {} of the backup cannot be raised by {}; the limit is {}",
                      order.revision, order.bump, kRevisionMax);
  }
  RETURN_IF_ERROR(CreateDirectories(env, data_dir));
  const std::string unfinished = UnfinishedIn(data_dir);
  RETURN_IF_ERROR(RemoveDirectory(env, unfinished));
  RETURN_IF_ERROR(CreateDirectory(env, unfinished));
  RETURN_IF_ERROR(ReadBackup(env, path, SumCheck::kNo, SnapshotIn(unfinished)).status());
  RETURN_IF_ERROR(WriteRecord(env, OrderIn(unfinished), Encode(order)));
  const std::string restore = DirectoryIn(data_dir);
  RETURN_IF_ERROR(FromRocks(env->RenameFile(unfinished, restore),
                            fmt::format("cannot rename {} to {}", unfinished, restore)));
  RETURN_IF_ERROR(SyncDirectory(env, data_dir));
  return backup;
}

absl::StatusOr<std::optional<PendingRestore>> FindRestore(rocksdb::Env* env,
                                                          const std::string& data_dir) {
  const std::string restore = DirectoryIn(data_dir);
  const std::string unfinished = UnfinishedIn(data_dir);
  ASSIGN_OR_RETURN(const bool interrupted, FileExists(env, unfinished));
  if (interrupted) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "{} was left by a restore that did not come to its end; repeat \"kvctl "
                      "snapshot restore\", or remove it to begin without the backup",
                      unfinished);
  }
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, restore));
  if (!exists) return std::nullopt;
  // The rename that made it must not be undone by a power loss once somebody acts on it.
  RETURN_IF_ERROR(SyncDirectory(env, data_dir));
  const std::string path = OrderIn(restore);
  ASSIGN_OR_RETURN(const std::optional<Record> record, ReadRecord(env, path, kKind, kFormat));
  if (!record) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is missing; empty the data directory and restore again", path);
  }
  ASSIGN_OR_RETURN(const RestoreOrder order, Decode(*record, path));
  return PendingRestore{.order = order, .snapshot = SnapshotIn(restore)};
}

absl::Status RemoveRestore(rocksdb::Env* env, const std::string& data_dir) {
  return RemoveDirectory(env, DirectoryIn(data_dir));
}

}  // namespace kv

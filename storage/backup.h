// A backup: a snapshot directory as one stream of bytes, with what it is in front and its SHA-256
// behind. What `snapshot save` keeps in a file and `snapshot restore` begins a cluster from.
//
// The functions here are stateless and block. Format: storage/README.md.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/keys.h"
#include "storage/sha256.h"
#include "storage/snapshot.h"
#include "storage/snapshot_reader.h"

namespace rocksdb {
class Env;
class WritableFile;
}  // namespace rocksdb

namespace kv {

// What a backup says of itself, beside its sum.
struct BackupHeader {
  uint64_t cluster_id = 0;       // Of the cluster that it is of.
  uint32_t machine_version = 1;  // That a machine needs to understand the state.
  Revision revision = 1;
  Revision compacted = -1;
  int64_t keys = 0;  // Live at `revision`.
  SnapshotManifest manifest;
};

// The first bytes of the stream; the files in the manifest's order follow.
std::string EncodeBackupHeader(const BackupHeader& header);
// Zeros between `bytes` of header and files and the sum: the stream is a multiple of 512 bytes and
// 32 more, which is how etcd's tools see that a file ends with its sum.
size_t BackupPadding(uint64_t bytes);
// The kind and format of these bytes, as etcd's tools print a storage version.
inline constexpr std::string_view kBackupVersion = "kvd-1";

// The bytes of one backup, as they are read. Owns the snapshot's directory and removes it.
class BackupSource {
 public:
  BackupSource(rocksdb::Env* env, Snapshot snapshot, BackupHeader header);
  ~BackupSource();
  BackupSource(const BackupSource&) = delete;
  BackupSource& operator=(const BackupSource&) = delete;

  struct Piece {
    std::string bytes;  // Empty: there is no more.
    uint64_t left = 0;  // Of the bytes before the sum.
  };
  // The sum comes alone, as the last piece.
  absl::StatusOr<Piece> Next();

 private:
  absl::StatusOr<std::string> NextContent();

  rocksdb::Env* const env_;
  const std::string path_;
  const std::string header_;
  const uint64_t content_bytes_;  // Of header and files.
  SnapshotReader files_;
  Sha256 sum_;
  uint64_t left_;
  enum class Stage { kHeader, kFiles, kPadding, kSum, kOver } stage_ = Stage::kHeader;
};

struct Backup {
  BackupHeader header;
  uint64_t bytes = 0;   // Without the sum.
  uint32_t crc32c = 0;  // Of header and files.
};

enum class SumCheck { kYes, kNo };

// Reads the file `path` twice: its sum first, then header and files against their checksums. With
// `target`, a directory that does not exist yet, the second reading leaves the files there as a
// sealed and durable snapshot. A refusal says what is wrong with the file and what to do.
absl::StatusOr<Backup> ReadBackup(rocksdb::Env* env, const std::string& path, SumCheck check,
                                  const std::string& target = {});

// A backup on its way into a file, etcd's as well as ours: it goes to `path`.part, and becomes
// `path` only whole, with the right sum, and durable. Whatever ends before that leaves nothing.
class BackupFile {
 public:
  static absl::StatusOr<BackupFile> Create(rocksdb::Env* env, const std::string& path);
  BackupFile(BackupFile&&) noexcept;
  BackupFile& operator=(BackupFile&&) = delete;
  ~BackupFile();

  absl::Status Append(std::string_view bytes);
  absl::Status Finish();

 private:
  BackupFile(rocksdb::Env* env, std::string path, std::unique_ptr<rocksdb::WritableFile> file);
  std::string PartPath() const { return path_ + ".part"; }

  rocksdb::Env* const env_;
  const std::string path_;
  std::unique_ptr<rocksdb::WritableFile> file_;  // Null: finished, or moved from.
  Sha256 sum_;
  uint64_t bytes_ = 0;
  std::string last_;  // Not in sum_ yet: it may be the sum itself.
};

}  // namespace kv

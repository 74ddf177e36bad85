// A snapshot's files as a stream of pieces, and back: one to read them, one to write and verify
// them. Both block on the disk; not thread-safe, but may move between threads.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/snapshot.h"

namespace rocksdb {
class Env;
class SequentialFile;
class WritableFile;
}  // namespace rocksdb

namespace kv {

inline constexpr size_t kSnapshotPieceBytes = size_t{1} << 20;

class SnapshotReader {
 public:
  SnapshotReader(rocksdb::Env* env, Snapshot snapshot);
  ~SnapshotReader();

  // The next bytes of the files in the manifest's order, at most kSnapshotPieceBytes and of one
  // file; empty at the end.
  absl::StatusOr<std::string> Next();

 private:
  rocksdb::Env* const env_;
  const Snapshot snapshot_;
  size_t file_ = 0;
  uint64_t offset_ = 0;
  std::unique_ptr<rocksdb::SequentialFile> open_;
};

class SnapshotReceiver {
 public:
  // Takes the new directory `path`, which is removed with this unless Finish succeeded.
  SnapshotReceiver(rocksdb::Env* env, std::string path);
  ~SnapshotReceiver();

  // `manifest` as EncodeManifest made it.
  absl::Status Begin(std::string_view manifest);
  absl::Status Append(std::string_view piece);
  // Complete, verified against the manifest, synced: the caller owns the directory now.
  absl::StatusOr<Snapshot> Finish();

 private:
  absl::Status OpenNext();  // Past files that are complete.
  absl::Status CloseFile();

  rocksdb::Env* const env_;
  const std::string path_;
  bool keep_ = false;
  bool made_ = false;
  SnapshotManifest manifest_;
  size_t file_ = 0;
  uint64_t offset_ = 0;
  std::unique_ptr<rocksdb::WritableFile> open_;
};

}  // namespace kv

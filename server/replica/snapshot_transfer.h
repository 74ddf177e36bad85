// What a SnapshotReader (storage/snapshot_reader.h) reads elsewhere, written and verified here.
// Blocks on the disk; not thread-safe, but may move between threads.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/snapshot.h"
#include "storage/snapshot_reader.h"

namespace rocksdb {
class Env;
class WritableFile;
}  // namespace rocksdb

namespace kv {

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

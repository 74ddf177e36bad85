// A snapshot's files as a stream of pieces. Blocks on the disk; not thread-safe, but may move
// between threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "storage/snapshot.h"

namespace rocksdb {
class Env;
class SequentialFile;
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

}  // namespace kv

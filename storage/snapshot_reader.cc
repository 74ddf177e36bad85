#include "storage/snapshot_reader.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "storage/files.h"
#include "storage/status.h"

namespace kv {

SnapshotReader::SnapshotReader(rocksdb::Env* env, Snapshot snapshot)
    : env_(env), snapshot_(std::move(snapshot)) {}

SnapshotReader::~SnapshotReader() = default;

absl::StatusOr<std::string> SnapshotReader::Next() {
  const std::vector<SnapshotFile>& files = snapshot_.manifest.files;
  while (file_ < files.size() && offset_ == files[file_].bytes) {
    open_.reset();
    offset_ = 0;
    ++file_;
  }
  if (file_ == files.size()) return std::string();
  const SnapshotFile& file = files[file_];
  std::string path = snapshot_.path + "/" + file.name;
  if (open_ == nullptr) {
    RETURN_IF_ERROR(
        FromRocks(env_->NewSequentialFile(path, &open_, rocksdb::EnvOptions()), "opening " + path));
  }
  std::string piece(std::min<uint64_t>(kSnapshotPieceBytes, file.bytes - offset_), '\0');
  rocksdb::Slice read;
  RETURN_IF_ERROR(FromRocks(open_->Read(piece.size(), &read, piece.data()), "reading " + path));
  if (read.empty()) {
    return MakeStatus(absl::StatusCode::kDataLoss, "{} ends after {} of {} bytes", path, offset_,
                      file.bytes);
  }
  offset_ += read.size();
  if (read.data() != piece.data()) return read.ToString();
  piece.resize(read.size());
  return piece;
}

}  // namespace kv

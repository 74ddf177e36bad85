#include "server/replica/snapshot_transfer.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "storage/files.h"
#include "storage/status.h"

namespace kv {

SnapshotReceiver::SnapshotReceiver(rocksdb::Env* env, std::string path)
    : env_(env), path_(std::move(path)) {}

SnapshotReceiver::~SnapshotReceiver() {
  open_.reset();
  if (made_ && !keep_) RemoveDirectory(env_, path_).IgnoreError();
}

absl::Status SnapshotReceiver::Begin(std::string_view manifest) {
  ASSIGN_OR_RETURN(manifest_, DecodeManifest(manifest));
  RETURN_IF_ERROR(CreateDirectory(env_, ParentDirectory(path_)));
  RETURN_IF_ERROR(CreateDirectory(env_, path_));
  made_ = true;
  return OpenNext();
}

absl::Status SnapshotReceiver::OpenNext() {
  while (file_ < manifest_.files.size()) {
    if (open_ == nullptr) {
      std::string path = path_ + "/" + manifest_.files[file_].name;
      RETURN_IF_ERROR(FromRocks(env_->NewWritableFile(path, &open_, rocksdb::EnvOptions()),
                                "creating " + path));
    }
    if (offset_ < manifest_.files[file_].bytes) return absl::OkStatus();
    RETURN_IF_ERROR(CloseFile());
  }
  return absl::OkStatus();
}

absl::Status SnapshotReceiver::CloseFile() {
  std::string path = path_ + "/" + manifest_.files[file_].name;
  RETURN_IF_ERROR(FromRocks(open_->Sync(), "syncing " + path));
  RETURN_IF_ERROR(FromRocks(open_->Close(), "closing " + path));
  open_.reset();
  offset_ = 0;
  ++file_;
  return absl::OkStatus();
}

absl::Status SnapshotReceiver::Append(std::string_view piece) {
  while (!piece.empty()) {
    if (file_ == manifest_.files.size()) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "more bytes than the manifest's files have");
    }
    const SnapshotFile& file = manifest_.files[file_];
    size_t fits = std::min<uint64_t>(piece.size(), file.bytes - offset_);
    RETURN_IF_ERROR(FromRocks(open_->Append(rocksdb::Slice(piece.data(), fits)),
                              "writing " + path_ + "/" + file.name));
    offset_ += fits;
    piece.remove_prefix(fits);
    RETURN_IF_ERROR(OpenNext());
  }
  return absl::OkStatus();
}

absl::StatusOr<Snapshot> SnapshotReceiver::Finish() {
  if (file_ < manifest_.files.size()) {
    return MakeStatus(absl::StatusCode::kDataLoss, "the snapshot ends inside {}, after {} bytes",
                      manifest_.files[file_].name, offset_);
  }
  RETURN_IF_ERROR(WriteFileAtomically(env_, path_ + "/" + std::string(kManifestName),
                                      EncodeManifest(manifest_)));
  ASSIGN_OR_RETURN(Snapshot snapshot, VerifySnapshot(env_, path_));
  keep_ = true;
  return snapshot;
}

}  // namespace kv

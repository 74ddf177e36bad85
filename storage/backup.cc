#include "storage/backup.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "storage/entry.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kKind = "kvd backup";
constexpr uint32_t kFormat = 1;
constexpr uint64_t kBlockBytes = 512;
constexpr uint64_t kHeaderBytesMax = uint64_t{16} << 20;
constexpr size_t kReadBytes = size_t{1} << 20;

absl::Status Damaged(const std::string& path, std::string_view how) {
  return MakeStatus(absl::StatusCode::kDataLoss,
                    "{} is damaged: {}; use another copy of this backup, or another backup", path,
                    how);
}

absl::Status Foreign(const std::string& path, std::string_view why) {
  return MakeStatus(absl::StatusCode::kFailedPrecondition,
                    "{} is not a backup of kvd, or not a whole one: {}; name a file that \"kvctl "
                    "snapshot save\" made",
                    path, why);
}

// A file from its front, in pieces of a size that the caller knows.
class Input {
 public:
  static absl::StatusOr<Input> Open(rocksdb::Env* env, const std::string& path) {
    std::unique_ptr<rocksdb::SequentialFile> file;
    RETURN_IF_ERROR(FromRocks(env->NewSequentialFile(path, &file, rocksdb::EnvOptions()),
                              fmt::format("cannot read {}", path)));
    return Input(path, std::move(file));
  }

  // The next bytes, at most `bytes_max`, until the next call; never none.
  absl::StatusOr<std::string_view> Next(uint64_t bytes_max) {
    rocksdb::Slice part;
    const size_t wanted = std::min<uint64_t>(bytes_max, buffer_.size());
    RETURN_IF_ERROR(FromRocks(file_->Read(wanted, &part, buffer_.data()),
                              fmt::format("cannot read {}", path_)));
    if (part.empty()) return Damaged(path_, "it became shorter while it was read");
    return std::string_view(part.data(), part.size());
  }
  absl::StatusOr<std::string> Take(uint64_t bytes) {
    std::string taken;
    while (taken.size() < bytes) {
      ASSIGN_OR_RETURN(const std::string_view part, Next(bytes - taken.size()));
      taken.append(part);
    }
    return taken;
  }

 private:
  Input(std::string path, std::unique_ptr<rocksdb::SequentialFile> file)
      : path_(std::move(path)), file_(std::move(file)), buffer_(kReadBytes, '\0') {}

  std::string path_;
  std::unique_ptr<rocksdb::SequentialFile> file_;
  std::string buffer_;
};

// Bytes before the sum.
absl::StatusOr<uint64_t> ContentBytes(rocksdb::Env* env, const std::string& path) {
  uint64_t size = 0;
  RETURN_IF_ERROR(FromRocks(env->GetFileSize(path, &size), fmt::format("cannot read {}", path)));
  if (size == 0) return Foreign(path, "it is empty");
  if (size % kBlockBytes != Sha256::kBytes) {
    return Foreign(path,
                   fmt::format("it has {} bytes, and no backup with its sum has that size", size));
  }
  return size - Sha256::kBytes;
}

absl::Status CheckSum(rocksdb::Env* env, const std::string& path, uint64_t content_bytes) {
  ASSIGN_OR_RETURN(Input input, Input::Open(env, path));
  Sha256 sum;
  for (uint64_t left = content_bytes; left > 0;) {
    ASSIGN_OR_RETURN(const std::string_view part, input.Next(left));
    sum.Append(part);
    left -= part.size();
  }
  ASSIGN_OR_RETURN(const std::string stored, input.Take(Sha256::kBytes));
  const std::string computed = sum.Finish();
  if (stored == computed) return absl::OkStatus();
  return Damaged(
      path, fmt::format("its SHA-256 is {}, and it ends with {}", HexOf(computed), HexOf(stored)));
}

absl::StatusOr<BackupHeader> DecodeBackupHeader(std::string_view bytes, const std::string& path) {
  ASSIGN_OR_RETURN(const Record record, DecodeRecord(bytes, kKind, kFormat, path));
  ByteReader reader(record.body);
  BackupHeader header;
  header.cluster_id = reader.U64();
  header.machine_version = reader.U32();
  header.revision = static_cast<Revision>(reader.U64());
  header.compacted = static_cast<Revision>(reader.U64());
  header.keys = static_cast<int64_t>(reader.U64());
  const std::string_view manifest = reader.Bytes();
  // A newer format may append fields that this reader need not know.
  const bool ends = reader.ok() && (record.format > kFormat || reader.AtEnd());
  if (!ends || header.revision < 1 || header.keys < 0) {
    return Damaged(path, "its header says nothing that can be");
  }
  ASSIGN_OR_RETURN(header.manifest, DecodeManifest(manifest));
  return header;
}

// The header, and its own bytes, which the file's content holds.
absl::StatusOr<BackupHeader> TakeHeader(Input& input, const std::string& path,
                                        uint64_t content_bytes, std::string& bytes) {
  ASSIGN_OR_RETURN(bytes, input.Take(std::min<uint64_t>(content_bytes, kRecordHeadBytes)));
  if (!bytes.starts_with(kKind)) return Foreign(path, "it begins with other bytes");
  const uint64_t length = RecordBytes(bytes);
  if (length > std::min(content_bytes, kHeaderBytesMax)) {
    return Damaged(path, "its header is longer than can be");
  }
  ASSIGN_OR_RETURN(const std::string rest, input.Take(length - bytes.size()));
  bytes += rest;
  ASSIGN_OR_RETURN(BackupHeader header, DecodeBackupHeader(bytes, path));
  uint64_t expected = bytes.size();
  for (const SnapshotFile& file : header.manifest.files) {
    if (file.bytes > content_bytes) return Damaged(path, "it names files that are not in it");
    expected += file.bytes;
  }
  if (expected + BackupPadding(expected) != content_bytes) {
    return Damaged(path, fmt::format("it holds {} bytes, and its header speaks of {}",
                                     content_bytes, expected));
  }
  return header;
}

// One file's bytes: checked, and copied to `target` if that is not null.
absl::Status TakeFile(Input& input, const std::string& path, const SnapshotFile& file,
                      rocksdb::WritableFile* target, uint32_t& crc32c) {
  uint32_t own = 0;
  for (uint64_t left = file.bytes; left > 0;) {
    ASSIGN_OR_RETURN(const std::string_view part, input.Next(left));
    own = Crc32c(part, own);
    crc32c = Crc32c(part, crc32c);
    if (target != nullptr) {
      RETURN_IF_ERROR(FromRocks(target->Append({part.data(), part.size()}),
                                fmt::format("cannot write {}", file.name)));
    }
    left -= part.size();
  }
  if (own == file.crc32c) return absl::OkStatus();
  return Damaged(path, fmt::format("the checksum of {} in it is {:08x}, and its manifest says "
                                   "{:08x}",
                                   file.name, own, file.crc32c));
}

absl::Status WriteOut(Input& input, const std::string& path, const SnapshotFile& file,
                      rocksdb::Env* env, const std::string& target, uint32_t& crc32c) {
  const std::string name = target + "/" + file.name;
  const std::string what = fmt::format("cannot write {}", name);
  std::unique_ptr<rocksdb::WritableFile> out;
  RETURN_IF_ERROR(FromRocks(env->NewWritableFile(name, &out, rocksdb::EnvOptions()), what));
  RETURN_IF_ERROR(TakeFile(input, path, file, out.get(), crc32c));
  RETURN_IF_ERROR(FromRocks(out->Fsync(), what));
  return FromRocks(out->Close(), what);
}

}  // namespace

std::string EncodeBackupHeader(const BackupHeader& header) {
  Record record{
      .kind = std::string(kKind), .format = kFormat, .minimum_reader = kFormat, .body = {}};
  PutU64(record.body, header.cluster_id);
  PutU32(record.body, header.machine_version);
  PutU64(record.body, static_cast<uint64_t>(header.revision));
  PutU64(record.body, static_cast<uint64_t>(header.compacted));
  PutU64(record.body, static_cast<uint64_t>(header.keys));
  PutBytes(record.body, EncodeManifest(header.manifest));
  return EncodeRecord(record);
}

size_t BackupPadding(uint64_t bytes) {
  return static_cast<size_t>((kBlockBytes - bytes % kBlockBytes) % kBlockBytes);
}

BackupSource::BackupSource(rocksdb::Env* env, Snapshot snapshot, BackupHeader header)
    : env_(env),
      path_(snapshot.path),
      header_(EncodeBackupHeader(header)),
      content_bytes_(header_.size() + snapshot.manifest.TotalBytes()),
      files_(env, std::move(snapshot)),
      left_(content_bytes_ + BackupPadding(content_bytes_)) {}

BackupSource::~BackupSource() {
  // What cannot be removed goes at the next start.
  RemoveDirectory(env_, path_).IgnoreError();
}

absl::StatusOr<BackupSource::Piece> BackupSource::Next() {
  ASSIGN_OR_RETURN(std::string bytes, NextContent());
  if (!bytes.empty()) {
    sum_.Append(bytes);
    left_ -= bytes.size();
    return Piece{.bytes = std::move(bytes), .left = left_};
  }
  if (stage_ == Stage::kOver) return Piece{};
  stage_ = Stage::kOver;
  return Piece{.bytes = sum_.Finish(), .left = 0};
}

// Empty once only the sum is missing.
absl::StatusOr<std::string> BackupSource::NextContent() {
  if (stage_ == Stage::kHeader) {
    stage_ = Stage::kFiles;
    return header_;
  }
  if (stage_ == Stage::kFiles) {
    ASSIGN_OR_RETURN(std::string piece, files_.Next());
    if (!piece.empty()) return piece;
    stage_ = Stage::kPadding;
  }
  if (stage_ != Stage::kPadding) return std::string();
  stage_ = Stage::kSum;
  return std::string(BackupPadding(content_bytes_), '\0');
}

absl::StatusOr<Backup> ReadBackup(rocksdb::Env* env, const std::string& path, SumCheck check,
                                  const std::string& target) {
  ASSIGN_OR_RETURN(const uint64_t content_bytes, ContentBytes(env, path));
  ASSIGN_OR_RETURN(Input input, Input::Open(env, path));
  // What is no backup of ours is called that, and not damaged.
  std::string header_bytes;
  absl::StatusOr<BackupHeader> header = TakeHeader(input, path, content_bytes, header_bytes);
  if (absl::IsFailedPrecondition(header.status())) return header.status();
  if (check == SumCheck::kYes) RETURN_IF_ERROR(CheckSum(env, path, content_bytes));
  if (!header.ok()) return header.status();

  Backup backup{.header = *std::move(header), .bytes = content_bytes, .crc32c = 0};
  backup.crc32c = Crc32c(header_bytes);
  if (!target.empty()) RETURN_IF_ERROR(CreateDirectory(env, target));
  for (const SnapshotFile& file : backup.header.manifest.files) {
    RETURN_IF_ERROR(target.empty() ? TakeFile(input, path, file, nullptr, backup.crc32c)
                                   : WriteOut(input, path, file, env, target, backup.crc32c));
  }
  if (target.empty()) return backup;
  RETURN_IF_ERROR(WriteFileAtomically(env, fmt::format("{}/{}", target, kManifestName),
                                      EncodeManifest(backup.header.manifest)));
  return backup;
}

absl::StatusOr<BackupFile> BackupFile::Create(rocksdb::Env* env, const std::string& path) {
  std::unique_ptr<rocksdb::WritableFile> file;
  RETURN_IF_ERROR(FromRocks(env->NewWritableFile(path + ".part", &file, rocksdb::EnvOptions()),
                            fmt::format("cannot create {}.part", path)));
  return BackupFile(env, path, std::move(file));
}

BackupFile::BackupFile(rocksdb::Env* env, std::string path,
                       std::unique_ptr<rocksdb::WritableFile> file)
    : env_(env), path_(std::move(path)), file_(std::move(file)) {}
BackupFile::BackupFile(BackupFile&&) noexcept = default;

BackupFile::~BackupFile() {
  if (file_ == nullptr) return;
  file_.reset();
  RemoveFile(env_, PartPath()).IgnoreError();
}

absl::Status BackupFile::Append(std::string_view bytes) {
  RETURN_IF_ERROR(FromRocks(file_->Append({bytes.data(), bytes.size()}),
                            fmt::format("cannot write {}", PartPath())));
  bytes_ += bytes.size();
  if (bytes.size() >= Sha256::kBytes) {
    sum_.Append(last_);
    sum_.Append(bytes.substr(0, bytes.size() - Sha256::kBytes));
    last_ = bytes.substr(bytes.size() - Sha256::kBytes);
    return absl::OkStatus();
  }
  last_.append(bytes);
  if (last_.size() <= Sha256::kBytes) return absl::OkStatus();
  const size_t settled = last_.size() - Sha256::kBytes;
  sum_.Append(std::string_view(last_).substr(0, settled));
  last_.erase(0, settled);
  return absl::OkStatus();
}

absl::Status BackupFile::Finish() {
  if (bytes_ % kBlockBytes != Sha256::kBytes) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "what arrived has {} bytes and does not end with its SHA-256: it was cut "
                      "off; take it again",
                      bytes_);
  }
  const std::string computed = sum_.Finish();
  if (computed != last_) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "what arrived has the SHA-256 {}, and ends with {}: it was damaged on its "
                      "way; take it again",
                      HexOf(computed), HexOf(last_));
  }
  const std::string what = fmt::format("cannot write {}", PartPath());
  RETURN_IF_ERROR(FromRocks(file_->Fsync(), what));
  RETURN_IF_ERROR(FromRocks(file_->Close(), what));
  RETURN_IF_ERROR(FromRocks(env_->RenameFile(PartPath(), path_),
                            fmt::format("cannot rename {} to {}", PartPath(), path_)));
  file_.reset();
  return SyncDirectory(env_, ParentDirectory(path_));
}

}  // namespace kv

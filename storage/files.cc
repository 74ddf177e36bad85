#include "storage/files.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <memory>

#include "storage/check.h"
#include "storage/entry.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

// A frame: kind, format, minimum reader and body length, then the body, then the checksum.
constexpr size_t kKindBytes = 16;
static_assert(kRecordHeadBytes == kKindBytes + 3 * sizeof(uint32_t));
constexpr size_t kFrameBytes = kRecordHeadBytes + sizeof(uint32_t);
constexpr size_t kCopyBytes = size_t{1} << 20;

uint64_t Integer(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = bytes.size(); i-- > 0;) {
    value = (value << 8) | static_cast<unsigned char>(bytes[i]);
  }
  return value;
}

template <typename T>
void PutInteger(std::string& bytes, T value) {
  for (size_t i = 0; i < sizeof(T); ++i) bytes.push_back(static_cast<char>(value >> (8 * i)));
}

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }

absl::Status WriteNewFile(rocksdb::Env* env, const std::string& path, std::string_view bytes) {
  std::unique_ptr<rocksdb::WritableFile> file;
  RETURN_IF_ERROR(FromRocks(env->NewWritableFile(path, &file, rocksdb::EnvOptions()),
                            fmt::format("cannot create {}", path)));
  RETURN_IF_ERROR(FromRocks(file->Append(ToSlice(bytes)), fmt::format("cannot write {}", path)));
  if (!MUTANT("storage.small_file_not_synced")) {
    RETURN_IF_ERROR(FromRocks(file->Fsync(), fmt::format("cannot sync {}", path)));
  }
  return FromRocks(file->Close(), fmt::format("cannot close {}", path));
}

absl::Status RemoveTree(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env, path));
  for (const std::string& name : names) {
    const std::string child = path + "/" + name;
    bool is_directory = false;
    RETURN_IF_ERROR(
        FromRocks(env->IsDirectory(child, &is_directory), fmt::format("cannot look at {}", child)));
    if (is_directory) {
      RETURN_IF_ERROR(RemoveTree(env, child));
    } else {
      RETURN_IF_ERROR(FromRocks(env->DeleteFile(child), fmt::format("cannot remove {}", child)));
    }
  }
  return FromRocks(env->DeleteDir(path), fmt::format("cannot remove {}", path));
}

}  // namespace

absl::Status FromRocks(const rocksdb::Status& status, std::string_view what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = status.ToString();
  absl::StatusCode code = absl::StatusCode::kUnavailable;
  if (status.IsNotFound() || status.IsPathNotFound()) {
    code = absl::StatusCode::kNotFound;
  } else if (status.IsCorruption()) {
    code = absl::StatusCode::kDataLoss;
  } else if (status.IsNoSpace()) {
    code = absl::StatusCode::kResourceExhausted;
  } else if (status.IsInvalidArgument() || status.IsNotSupported()) {
    code = absl::StatusCode::kFailedPrecondition;
  }
  return MakeStatus(code, "{}: {}", what, text);
}

absl::StatusOr<std::optional<std::string>> ReadFile(rocksdb::Env* env, const std::string& path,
                                                    size_t bytes_max) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (!exists) return std::nullopt;
  const std::string what = fmt::format("cannot read {}", path);
  uint64_t size = 0;
  RETURN_IF_ERROR(FromRocks(env->GetFileSize(path, &size), what));
  if (size > bytes_max) {
    return MakeStatus(absl::StatusCode::kDataLoss, "{} has {} bytes; the limit is {}", path, size,
                      bytes_max);
  }
  std::unique_ptr<rocksdb::SequentialFile> file;
  RETURN_IF_ERROR(FromRocks(env->NewSequentialFile(path, &file, rocksdb::EnvOptions()), what));
  std::string bytes(size, '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    rocksdb::Slice part;
    RETURN_IF_ERROR(
        FromRocks(file->Read(bytes.size() - filled, &part, bytes.data() + filled), what));
    if (part.empty()) break;
    if (part.data() != bytes.data() + filled) {
      std::copy_n(part.data(), part.size(), bytes.data() + filled);
    }
    filled += part.size();
  }
  bytes.resize(filled);
  return bytes;
}

absl::Status WriteFileAtomically(rocksdb::Env* env, const std::string& path,
                                 std::string_view bytes) {
  const std::string temporary = path + ".tmp";
  RETURN_IF_ERROR(WriteNewFile(env, temporary, bytes));
  RETURN_IF_ERROR(FromRocks(env->RenameFile(temporary, path),
                            fmt::format("cannot rename {} to {}", temporary, path)));
  if (MUTANT("storage.rename_not_synced")) return absl::OkStatus();
  return SyncDirectory(env, ParentDirectory(path));
}

absl::Status RemoveFile(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (!exists) return absl::OkStatus();
  RETURN_IF_ERROR(FromRocks(env->DeleteFile(path), fmt::format("cannot remove {}", path)));
  return SyncDirectory(env, ParentDirectory(path));
}

absl::Status SyncFile(rocksdb::Env* env, const std::string& path) {
  const std::string what = fmt::format("cannot sync {}", path);
  std::unique_ptr<rocksdb::RandomRWFile> file;
  RETURN_IF_ERROR(FromRocks(env->NewRandomRWFile(path, &file, rocksdb::EnvOptions()), what));
  RETURN_IF_ERROR(FromRocks(file->Fsync(), what));
  return FromRocks(file->Close(), what);
}

absl::Status SyncDirectory(rocksdb::Env* env, const std::string& path) {
  const std::string what = fmt::format("cannot sync the directory {}", path);
  std::unique_ptr<rocksdb::Directory> directory;
  RETURN_IF_ERROR(FromRocks(env->NewDirectory(path, &directory), what));
  RETURN_IF_ERROR(FromRocks(directory->Fsync(), what));
  return FromRocks(directory->Close(), what);
}

absl::Status CreateDirectory(rocksdb::Env* env, const std::string& path) {
  RETURN_IF_ERROR(FromRocks(env->CreateDirIfMissing(path),
                            fmt::format("cannot create the directory {}", path)));
  return SyncDirectory(env, ParentDirectory(path));
}

absl::Status CreateDirectories(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (exists) return absl::OkStatus();
  const std::string parent = ParentDirectory(path);
  if (parent != path && parent != ".") RETURN_IF_ERROR(CreateDirectories(env, parent));
  return CreateDirectory(env, path);
}

absl::Status RemoveDirectory(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (!exists) return absl::OkStatus();
  RETURN_IF_ERROR(RemoveTree(env, path));
  return SyncDirectory(env, ParentDirectory(path));
}

absl::StatusOr<std::vector<std::string>> ListDirectory(rocksdb::Env* env, const std::string& path) {
  std::vector<std::string> names;
  RETURN_IF_ERROR(
      FromRocks(env->GetChildren(path, &names), fmt::format("cannot list the directory {}", path)));
  std::erase_if(names, [](const std::string& name) { return name == "." || name == ".."; });
  std::sort(names.begin(), names.end());
  return names;
}

absl::StatusOr<bool> FileExists(rocksdb::Env* env, const std::string& path) {
  const rocksdb::Status status = env->FileExists(path);
  if (status.IsNotFound()) return false;
  RETURN_IF_ERROR(FromRocks(status, fmt::format("cannot look at {}", path)));
  return true;
}

absl::Status CopyFile(rocksdb::Env* env, const std::string& from, const std::string& to) {
  const std::string what = fmt::format("cannot copy {} to {}", from, to);
  std::unique_ptr<rocksdb::SequentialFile> source;
  RETURN_IF_ERROR(FromRocks(env->NewSequentialFile(from, &source, rocksdb::EnvOptions()), what));
  std::unique_ptr<rocksdb::WritableFile> copy;
  RETURN_IF_ERROR(FromRocks(env->NewWritableFile(to, &copy, rocksdb::EnvOptions()), what));
  std::string buffer(kCopyBytes, '\0');
  while (true) {
    rocksdb::Slice part;
    RETURN_IF_ERROR(FromRocks(source->Read(buffer.size(), &part, buffer.data()), what));
    if (part.empty()) break;
    RETURN_IF_ERROR(FromRocks(copy->Append(part), what));
  }
  RETURN_IF_ERROR(FromRocks(copy->Fsync(), what));
  return FromRocks(copy->Close(), what);
}

std::string ParentDirectory(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::string EncodeRecord(const Record& record) {
  KV_CHECK(record.kind.size() <= kKindBytes, record.kind);
  std::string bytes = record.kind;
  bytes.resize(kKindBytes, '\0');
  PutU32(bytes, record.format);
  PutU32(bytes, record.minimum_reader);
  PutBytes(bytes, record.body);
  PutU32(bytes, Crc32c(bytes));
  return bytes;
}

uint64_t RecordBytes(std::string_view head) {
  ByteReader length(head.substr(0, kRecordHeadBytes).substr(kRecordHeadBytes - sizeof(uint32_t)));
  return kFrameBytes + uint64_t{length.U32()};
}

absl::StatusOr<Record> DecodeRecord(std::string_view bytes, std::string_view kind,
                                    uint32_t reader_format, std::string_view origin) {
  if (bytes.size() < kFrameBytes) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} has {} bytes, too few for a record of kvd ({}); restore it from a backup",
                      origin, bytes.size(), kind);
  }
  ByteReader tail(bytes.substr(bytes.size() - sizeof(uint32_t)));
  const uint32_t stored = tail.U32();
  const uint32_t computed = Crc32c(bytes.substr(0, bytes.size() - sizeof(uint32_t)));
  if (stored != computed) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is damaged: its checksum is {:08x}, its bytes give {:08x}; restore it "
                      "from a backup, or remove this member and add it again with an empty disk",
                      origin, stored, computed);
  }
  ByteReader reader(bytes.substr(0, bytes.size() - sizeof(uint32_t)));
  std::string found(reader.Take(kKindBytes));
  while (!found.empty() && found.back() == '\0') found.pop_back();
  Record record;
  record.kind = found;
  record.format = reader.U32();
  record.minimum_reader = reader.U32();
  record.body = std::string(reader.Bytes());
  if (!reader.AtEnd()) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is damaged: its length does not match its content; restore it from a "
                      "backup",
                      origin);
  }
  if (found != kind) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "{} is a record of kind \"{}\", not \"{}\"; put the right file there", origin,
                      found, kind);
  }
  if (record.minimum_reader > reader_format) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "{} has format {} and needs a release that reads format {}; this one reads "
                      "up to {}; start the release that wrote it, or a newer one",
                      origin, record.format, record.minimum_reader, reader_format);
  }
  return record;
}

absl::StatusOr<std::optional<Record>> ReadRecord(rocksdb::Env* env, const std::string& path,
                                                 std::string_view kind, uint32_t reader_format) {
  // A process that died after its rename and before its sync left a name that reads show and power
  // loss still takes. The caller is about to act on what it reads.
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (!exists) return std::nullopt;
  RETURN_IF_ERROR(SyncDirectory(env, ParentDirectory(path)));
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, ReadFile(env, path));
  if (!bytes) return std::nullopt;
  ASSIGN_OR_RETURN(Record record, DecodeRecord(*bytes, kind, reader_format, path));
  return record;
}

absl::Status WriteRecord(rocksdb::Env* env, const std::string& path, const Record& record) {
  return WriteFileAtomically(env, path, EncodeRecord(record));
}

void PutU8(std::string& bytes, uint8_t value) { bytes.push_back(static_cast<char>(value)); }
void PutU32(std::string& bytes, uint32_t value) { PutInteger(bytes, value); }
void PutU64(std::string& bytes, uint64_t value) { PutInteger(bytes, value); }

void PutBytes(std::string& bytes, std::string_view value) {
  PutU32(bytes, static_cast<uint32_t>(value.size()));
  bytes.append(value);
}

uint8_t ByteReader::U8() { return static_cast<uint8_t>(Integer(Take(1))); }
uint32_t ByteReader::U32() { return static_cast<uint32_t>(Integer(Take(4))); }
uint64_t ByteReader::U64() { return Integer(Take(8)); }

std::string_view ByteReader::Bytes() {
  const uint32_t length = U32();
  return Take(length);
}

std::string_view ByteReader::Take(size_t length) {
  if (!ok_ || length > rest_.size()) {
    ok_ = false;
    rest_ = {};
    return {};
  }
  const std::string_view taken = rest_.substr(0, length);
  rest_.remove_prefix(length);
  return taken;
}

}  // namespace kv

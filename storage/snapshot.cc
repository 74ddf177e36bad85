#include "storage/snapshot.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "storage/status.h"

namespace kv {
namespace {

constexpr uint32_t kFormat = 1;
constexpr std::string_view kKind = "kvd snapshot";
constexpr size_t kReadBytes = size_t{1} << 20;
constexpr size_t kNameBytesMax = 128;
constexpr size_t kFileBytesMin = 4 + 1 + 8 + 4;  // What one file takes in an encoded manifest.

bool IsFileName(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '-' || c == '_';
  });
}

// Reads the whole file, as whoever adopts or sends it will.
absl::StatusOr<SnapshotFile> Describe(rocksdb::Env* env, const std::string& directory,
                                      const std::string& name) {
  const std::string path = directory + "/" + name;
  const std::string what = fmt::format("cannot read {}", path);
  std::unique_ptr<rocksdb::SequentialFile> file;
  RETURN_IF_ERROR(FromRocks(env->NewSequentialFile(path, &file, rocksdb::EnvOptions()), what));
  SnapshotFile described{.name = name, .bytes = 0, .crc32c = 0};
  std::string buffer(kReadBytes, '\0');
  while (true) {
    rocksdb::Slice part;
    RETURN_IF_ERROR(FromRocks(file->Read(buffer.size(), &part, buffer.data()), what));
    if (part.empty()) return described;
    described.bytes += part.size();
    described.crc32c = Crc32c({part.data(), part.size()}, described.crc32c);
  }
}

absl::StatusOr<std::vector<std::string>> DatabaseFiles(rocksdb::Env* env, const std::string& path) {
  ASSIGN_OR_RETURN(std::vector<std::string> names, ListDirectory(env, path));
  std::erase_if(names, [](const std::string& name) { return name == kManifestName; });
  return names;
}

}  // namespace

uint64_t SnapshotManifest::TotalBytes() const {
  uint64_t total = 0;
  for (const SnapshotFile& file : files) total += file.bytes;
  return total;
}

std::string EncodeManifest(const SnapshotManifest& manifest) {
  Record record{.kind = std::string(kKind),
                .format = manifest.format,
                .minimum_reader = manifest.minimum_reader,
                .body = {}};
  PutU64(record.body, manifest.position.index);
  PutU64(record.body, manifest.position.term);
  PutBytes(record.body, manifest.members);
  PutU32(record.body, static_cast<uint32_t>(manifest.files.size()));
  for (const SnapshotFile& file : manifest.files) {
    PutBytes(record.body, file.name);
    PutU64(record.body, file.bytes);
    PutU32(record.body, file.crc32c);
  }
  return EncodeRecord(record);
}

absl::StatusOr<SnapshotManifest> DecodeManifest(std::string_view bytes) {
  ASSIGN_OR_RETURN(const Record record,
                   DecodeRecord(bytes, kKind, kFormat, "the snapshot's manifest"));
  SnapshotManifest manifest{.format = record.format,
                            .minimum_reader = record.minimum_reader,
                            .position = {},
                            .members = {},
                            .files = {}};
  ByteReader reader(record.body);
  manifest.position.index = reader.U64();
  manifest.position.term = reader.U64();
  manifest.members = std::string(reader.Bytes());
  const uint32_t count = reader.U32();
  manifest.files.reserve(std::min<size_t>(count, reader.rest().size() / kFileBytesMin));
  for (uint32_t i = 0; i < count && reader.ok(); ++i) {
    SnapshotFile file;
    file.name = std::string(reader.Bytes());
    file.bytes = reader.U64();
    file.crc32c = reader.U32();
    const bool in_order = manifest.files.empty() || manifest.files.back().name < file.name;
    if (reader.ok() && (!IsFileName(file.name) || file.name == kManifestName || !in_order)) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "the snapshot's manifest names a file \"{}\" that cannot be in it; take a "
                        "new snapshot",
                        file.name);
    }
    manifest.files.push_back(std::move(file));
  }
  // A newer format may append fields; this one ends here.
  if (!reader.ok() || (manifest.format <= kFormat && !reader.AtEnd())) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "the snapshot's manifest is {}; take a new snapshot",
                      reader.ok() ? "longer than its content" : "cut off");
  }
  return manifest;
}

absl::StatusOr<Snapshot> SealSnapshot(rocksdb::Env* env, const std::string& path, Position position,
                                      std::string members) {
  Snapshot snapshot{.path = path, .manifest = {}};
  snapshot.manifest.position = position;
  snapshot.manifest.members = std::move(members);
  ASSIGN_OR_RETURN(const std::vector<std::string> names, DatabaseFiles(env, path));
  for (const std::string& name : names) {
    RETURN_IF_ERROR(SyncFile(env, path + "/" + name));
    ASSIGN_OR_RETURN(SnapshotFile file, Describe(env, path, name));
    snapshot.manifest.files.push_back(std::move(file));
  }
  RETURN_IF_ERROR(WriteFileAtomically(env, fmt::format("{}/{}", path, kManifestName),
                                      EncodeManifest(snapshot.manifest)));
  return snapshot;
}

absl::StatusOr<Snapshot> VerifySnapshot(rocksdb::Env* env, const std::string& path) {
  const std::string manifest_path = fmt::format("{}/{}", path, kManifestName);
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, ReadFile(env, manifest_path));
  if (!bytes) {
    return MakeStatus(absl::StatusCode::kNotFound,
                      "the snapshot {} has no {}: it was never finished; take a new one", path,
                      kManifestName);
  }
  Snapshot snapshot{.path = path, .manifest = {}};
  ASSIGN_OR_RETURN(snapshot.manifest, DecodeManifest(*bytes));
  ASSIGN_OR_RETURN(const std::vector<std::string> names, DatabaseFiles(env, path));
  const std::vector<SnapshotFile>& files = snapshot.manifest.files;
  const bool same_names = std::equal(
      files.begin(), files.end(), names.begin(), names.end(),
      [](const SnapshotFile& file, const std::string& name) { return file.name == name; });
  if (!same_names) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the snapshot {} holds other files than its manifest names ({} against {}); "
                      "take a new one",
                      path, names.size(), files.size());
  }
  for (const SnapshotFile& expected : files) {
    ASSIGN_OR_RETURN(const SnapshotFile found, Describe(env, path, expected.name));
    if (found.bytes == expected.bytes && found.crc32c == expected.crc32c) continue;
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{}/{} is damaged: {} bytes with checksum {:08x}, but the manifest says {} "
                      "bytes with {:08x}; take a new snapshot",
                      path, expected.name, found.bytes, found.crc32c, expected.bytes,
                      expected.crc32c);
  }
  return snapshot;
}

absl::Status PlaceSnapshot(rocksdb::Env* env, const Snapshot& snapshot, const std::string& target) {
  for (const SnapshotFile& file : snapshot.manifest.files) {
    RETURN_IF_ERROR(SyncFile(env, snapshot.path + "/" + file.name));
  }
  RETURN_IF_ERROR(SyncDirectory(env, snapshot.path));
  RETURN_IF_ERROR(FromRocks(env->RenameFile(snapshot.path, target),
                            fmt::format("cannot rename {} to {}", snapshot.path, target)));
  RETURN_IF_ERROR(SyncDirectory(env, ParentDirectory(target)));
  RETURN_IF_ERROR(SyncDirectory(env, ParentDirectory(snapshot.path)));
  return RemoveFile(env, fmt::format("{}/{}", target, kManifestName));
}

absl::Status LinkSnapshot(rocksdb::Env* env, const Snapshot& snapshot, const std::string& target) {
  RETURN_IF_ERROR(CreateDirectory(env, target));
  for (const SnapshotFile& file : snapshot.manifest.files) {
    const std::string from = snapshot.path + "/" + file.name;
    const std::string to = target + "/" + file.name;
    // Tables are written once. All else a database may go on writing to.
    if (file.name.ends_with(".sst") && env->LinkFile(from, to).ok()) {
      RETURN_IF_ERROR(SyncFile(env, from));
    } else {
      RETURN_IF_ERROR(CopyFile(env, from, to));
    }
  }
  return SyncDirectory(env, target);
}

}  // namespace kv

// Snapshot directories: a copy of the machine's database at a position, with a manifest that names
// every file, its size and its checksum.
//
// A snapshot is made by a checkpoint (hard links), travels file by file, is verified against its
// manifest before anyone trusts it, and is adopted by renaming its files into a new state
// directory. Functions here are stateless; the caller owns the directory. Format:
// storage/README.md.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/entry.h"
#include "storage/files.h"

namespace rocksdb {
class Env;
}

namespace kv {

struct SnapshotFile {
  std::string name;  // In the snapshot's directory; letters, digits, '.', '-' and '_' only.
  uint64_t bytes = 0;
  uint32_t crc32c = 0;
};

struct SnapshotManifest {
  uint32_t format = 1;          // Of the manifest and the database in it.
  uint32_t minimum_reader = 1;  // The oldest format that a reader must know to adopt it.
  Position position;            // The machine's applied position.
  std::string members;          // The configuration at `position` (raft::Members, encoded).
  std::vector<SnapshotFile> files;

  uint64_t TotalBytes() const;
};

// A snapshot on this disk. Whoever holds it owns the directory and removes it when done.
struct Snapshot {
  std::string path;
  SnapshotManifest manifest;
};

std::string EncodeManifest(const SnapshotManifest& manifest);
absl::StatusOr<SnapshotManifest> DecodeManifest(std::string_view bytes);

// Describes the checkpoint in `path`: reads every file once, writes `path`/MANIFEST.kvd, syncs.
absl::StatusOr<Snapshot> SealSnapshot(rocksdb::Env* env, const std::string& path, Position position,
                                      std::string members);
// The manifest in `path`, with every file's size and checksum verified.
// A file that is missing, damaged, or not named by the manifest is an error that names it.
absl::StatusOr<Snapshot> VerifySnapshot(rocksdb::Env* env, const std::string& path);
// Moves the snapshot's database to the directory `target` (which must not exist, beside it on the
// same disk) and makes it durable there; the snapshot's directory is gone when it returns. After a
// crash either the snapshot or the target is whole.
absl::Status PlaceSnapshot(rocksdb::Env* env, const Snapshot& snapshot, const std::string& target);

// Makes the new directory `target` a second copy of the snapshot's database, of hard links where
// files never change and the disk has them. Durable; the snapshot stays as it is.
absl::Status LinkSnapshot(rocksdb::Env* env, const Snapshot& snapshot, const std::string& target);

inline constexpr std::string_view kManifestName = "MANIFEST.kvd";

}  // namespace kv

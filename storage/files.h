// Small files that survive power loss: written whole or not at all, and checked when they are read.
//
// Everything goes through rocksdb::Env, so that a faulty disk in tests sees every step. Stateless;
// any thread; blocks. A failed sync is fatal to the caller: nothing about the file may be believed
// afterwards. Paths have no trailing slash. Format of records: storage/README.md.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace rocksdb {
class Env;
class Status;
}  // namespace rocksdb

namespace kv {

// RocksDB's verdict as ours: the code, and "<what>: <its text>". `what` names file and action.
absl::Status FromRocks(const rocksdb::Status& status, std::string_view what);

// The whole file; nothing if there is none. Refuses files above `bytes_max`.
absl::StatusOr<std::optional<std::string>> ReadFile(rocksdb::Env* env, const std::string& path,
                                                    size_t bytes_max = size_t{16} << 20);
// Replaces `path`: writes `path`.tmp, syncs it, renames it, syncs the directory. After a crash the
// file is the old one or the new one.
absl::Status WriteFileAtomically(rocksdb::Env* env, const std::string& path,
                                 std::string_view bytes);
// Removes a file if it is there; durable when it returns.
absl::Status RemoveFile(rocksdb::Env* env, const std::string& path);

absl::Status SyncFile(rocksdb::Env* env, const std::string& path);
absl::Status SyncDirectory(rocksdb::Env* env, const std::string& path);
// The directory exists, and its name is durable in its parent (which must exist).
absl::Status CreateDirectory(rocksdb::Env* env, const std::string& path);
// The directory and those above it that are missing.
absl::Status CreateDirectories(rocksdb::Env* env, const std::string& path);
// The directory and all that is below it; nothing to do if there is none. Durable.
absl::Status RemoveDirectory(rocksdb::Env* env, const std::string& path);
// Names in the directory without "." and "..", sorted. An error if there is no directory.
absl::StatusOr<std::vector<std::string>> ListDirectory(rocksdb::Env* env, const std::string& path);
absl::StatusOr<bool> FileExists(rocksdb::Env* env, const std::string& path);

// A second file with the same bytes; they are durable, its name is not.
absl::Status CopyFile(rocksdb::Env* env, const std::string& from, const std::string& to);

// What precedes a path's last slash; "." if there is none.
std::string ParentDirectory(const std::string& path);

// A small file of ours with a frame around it: what it is, which format it has, who may read it,
// and a checksum over everything. The frame itself never changes, so every release can say of every
// other release's file whether it may read it.
struct Record {
  std::string kind;             // Such as "identity"; at most 16 bytes of ASCII.
  uint32_t format = 1;          // Of the body, as its writer knew it.
  uint32_t minimum_reader = 1;  // A reader that knows formats only below this must refuse.
  std::string body;
};

std::string EncodeRecord(const Record& record);
// The length of an encoded record, by its first kRecordHeadBytes.
inline constexpr size_t kRecordHeadBytes = 28;
uint64_t RecordBytes(std::string_view head);
// `origin` names the bytes in errors (a path). Refuses another kind, a damaged record, and one
// whose minimum_reader is above `reader_format` (the newest format that the caller knows); each
// with a sentence that says the next step.
absl::StatusOr<Record> DecodeRecord(std::string_view bytes, std::string_view kind,
                                    uint32_t reader_format, std::string_view origin);

// The record at `path`; nothing if there is no file. What it returns survives power loss, also if
// its writer died half-way: so callers may act on it.
absl::StatusOr<std::optional<Record>> ReadRecord(rocksdb::Env* env, const std::string& path,
                                                 std::string_view kind, uint32_t reader_format);
absl::Status WriteRecord(rocksdb::Env* env, const std::string& path, const Record& record);

// Fixed-width little-endian integers at the end of `bytes`, and their reader. A reader that ran
// past the end stays not ok() and gives zeros.
void PutU8(std::string& bytes, uint8_t value);
void PutU32(std::string& bytes, uint32_t value);
void PutU64(std::string& bytes, uint64_t value);
void PutBytes(std::string& bytes, std::string_view value);  // u32 length, then the bytes.

class ByteReader {
 public:
  explicit ByteReader(std::string_view bytes) : rest_(bytes) {}
  uint8_t U8();
  uint32_t U32();
  uint64_t U64();
  std::string_view Bytes();  // What PutBytes wrote; points into the input.
  std::string_view Take(size_t length);
  std::string_view rest() const { return rest_; }
  bool ok() const { return ok_; }
  bool AtEnd() const { return ok_ && rest_.empty(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace kv

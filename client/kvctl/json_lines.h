// The lines that import reads and export writes: one JSON object for each pair, bytes in base64,
// fields as in etcd's JSON.
//
//   {"key":"Zm9v","create_revision":5,"mod_revision":5,"version":1,"value":"YmFy"}
#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "proto/etcd/kv.pb.h"

namespace kv::kvctl {

struct ImportedPair {
  std::string key;
  std::string value;
  bool has_lease = false;
};

// A missing value is an empty one; fields other than key, value and lease are not looked at. The
// message of a failure says what is wrong with the line, but not which line it is.
absl::StatusOr<ImportedPair> ParseLine(std::string_view line);

std::string FormatLine(const mvccpb::KeyValue& pair);  // With its line end.

// Reads lines of bounded length. The file stays the caller's.
class LineReader {
 public:
  static constexpr size_t kLineBytesMax = 32 << 20;

  explicit LineReader(std::FILE* file) : file_(file), buffer_(1 << 16, '\0') {}

  // The next line without its end. OutOfRange at the end of the file.
  absl::StatusOr<std::string> Next();
  uint64_t lines() const { return lines_; }  // Read so far: the number of the last one.
  uint64_t bytes() const { return bytes_; }  // Consumed so far.

 private:
  std::FILE* const file_;
  std::string buffer_;
  size_t at_ = 0;
  size_t end_ = 0;
  uint64_t lines_ = 0;
  uint64_t bytes_ = 0;
};

}  // namespace kv::kvctl

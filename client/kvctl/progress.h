// How far an import has come, and the file that remembers it.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>

#include "absl/status/statusor.h"

namespace kv::kvctl {

// Lines are acknowledged in any order; `through` is the last one below which none is missing.
class AcknowledgedLines {
 public:
  explicit AcknowledgedLines(uint64_t through) : through_(through) {}
  void Add(uint64_t line);
  uint64_t through() const { return through_; }

 private:
  uint64_t through_;
  std::set<uint64_t> ahead_;  // Acknowledged lines above a missing one.
};

// Two lines of text: the number of the last line, and the cluster it was put into.
struct Progress {
  uint64_t line = 0;
  uint64_t cluster_id = 0;
  friend bool operator==(const Progress&, const Progress&) = default;
};

// Nothing if there is no such file. A file that is none of ours is refused.
absl::StatusOr<std::optional<Progress>> LoadProgress(const std::string& path);
// Replaces the file at once and for good: after a crash there is the old content or the new.
absl::Status SaveProgress(const std::string& path, const Progress& progress);

}  // namespace kv::kvctl

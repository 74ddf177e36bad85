// Decides when the leader compacts by itself, and at which revision (--auto-compaction-*).
//
// Pure: time and revisions come in. Every member keeps looking, so that a new leader knows the past
// as well as the old one did.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>

#include "absl/time/time.h"

namespace kv::api {

// At most one of the two; neither: never.
struct AutoCompaction {
  // Keep what was current within this time. Compacts every `period`, or every hour if that is less.
  absl::Duration period = absl::ZeroDuration();
  // Keep this many revisions. Compacts every five minutes.
  int64_t revisions = 0;
};

class AutoCompactor {
 public:
  explicit AutoCompactor(AutoCompaction policy) : policy_(policy) {}

  // About once a second. `now` is Uptime. Answers the revision to compact at, on the leader only.
  enum class Role { kLeader, kOther };
  std::optional<int64_t> Next(absl::Duration now, Role role, int64_t revision, int64_t compacted);

 private:
  struct Sample {
    absl::Duration at;
    int64_t revision = 0;
  };
  std::optional<int64_t> Target(absl::Duration now, int64_t revision);

  const AutoCompaction policy_;
  std::optional<absl::Duration> last_;  // When it was last decided; at first, the start.
  std::deque<Sample> samples_;          // Oldest first; the first is the newest that is old enough.
};

}  // namespace kv::api

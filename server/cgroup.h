// What the kernel lets this process have: the memory and processor limits of its control groups,
// version 1 and 2 (https://docs.kernel.org/admin-guide/cgroup-v2.html, cgroup-v1/).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "absl/status/statusor.h"

namespace kv {

struct CgroupLimits {
  std::optional<uint64_t> memory_bytes;
  std::optional<uint64_t> millicpus;  // 1000 is one processor.
  friend bool operator==(const CgroupLimits&, const CgroupLimits&) = default;
};

// The smallest limit on the way from the process's own group up to the root, as far as it can be
// seen: a container may be shown its own group as the root. What cannot be read limits nothing.
CgroupLimits ReadCgroupLimits(
    const std::function<absl::StatusOr<std::string>(const std::string& path)>& read_file);

}  // namespace kv

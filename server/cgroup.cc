#include "server/cgroup.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <vector>

#include "server/config_values.h"

namespace kv {
namespace {

using ReadFile = std::function<absl::StatusOr<std::string>(const std::string& path)>;

constexpr std::string_view kMount = "/sys/fs/cgroup";
// Version 1 says "none" as the largest multiple of a page.
constexpr uint64_t kMemoryMax = uint64_t{1} << 60;

std::optional<uint64_t> Number(std::string_view text) {
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::vector<std::string> Words(const ReadFile& read_file, const std::string& path) {
  const absl::StatusOr<std::string> text = read_file(path);
  return text.ok() ? Split(Trim(*text), ' ') : std::vector<std::string>();
}

void Lower(std::optional<uint64_t>& limit, std::optional<uint64_t> value) {
  if (value) limit = std::min(limit.value_or(*value), *value);
}

void LowerByQuota(std::optional<uint64_t>& limit, std::optional<uint64_t> quota,
                  std::optional<uint64_t> period) {
  if (quota && period && *period > 0) Lower(limit, *quota * 1000 / *period);
}

// `path` and everything above it, the root ("") last.
std::vector<std::string> Upwards(std::string_view path) {
  std::vector<std::string> paths;
  while (path.size() > 1) {
    paths.emplace_back(path);
    path = path.substr(0, path.rfind('/'));
  }
  paths.emplace_back();
  return paths;
}

void LookAtVersion2(const ReadFile& read_file, std::string_view path, CgroupLimits& limits) {
  for (const std::string& group : Upwards(path)) {
    const std::string folder = fmt::format("{}{}", kMount, group);
    for (const std::string& word : Words(read_file, folder + "/memory.max")) {
      Lower(limits.memory_bytes, Number(word));  // "max" is no number.
    }
    const std::vector<std::string> quota = Words(read_file, folder + "/cpu.max");
    if (quota.size() == 2) LowerByQuota(limits.millicpus, Number(quota[0]), Number(quota[1]));
  }
}

void LookAtVersion1(const ReadFile& read_file, std::string_view controller, std::string_view path,
                    CgroupLimits& limits) {
  const auto number = [&read_file](const std::string& file) -> std::optional<uint64_t> {
    const std::vector<std::string> words = Words(read_file, file);
    return words.empty() ? std::nullopt : Number(words.front());  // -1 is none.
  };
  for (const std::string& group : Upwards(path)) {
    const std::string folder = fmt::format("{}/{}{}", kMount, controller, group);
    if (controller == "memory") {
      const std::optional<uint64_t> bytes = number(folder + "/memory.limit_in_bytes");
      if (bytes && *bytes < kMemoryMax) Lower(limits.memory_bytes, bytes);
    } else {
      LowerByQuota(limits.millicpus, number(folder + "/cpu.cfs_quota_us"),
                   number(folder + "/cpu.cfs_period_us"));
    }
  }
}

}  // namespace

CgroupLimits ReadCgroupLimits(const ReadFile& read_file) {
  CgroupLimits limits;
  const absl::StatusOr<std::string> groups = read_file("/proc/self/cgroup");
  if (!groups.ok()) return limits;
  // Lines of number:controllers:path; version 2 has no controllers.
  for (const std::string& line : Split(Trim(*groups), '\n')) {
    const std::vector<std::string> parts = Split(line, ':');
    if (parts.size() < 3) continue;
    if (parts[1].empty()) {
      LookAtVersion2(read_file, parts[2], limits);
      continue;
    }
    for (const std::string& controller : Split(parts[1], ',')) {
      if (controller == "memory" || controller == "cpu") {
        LookAtVersion1(read_file, controller, parts[2], limits);
      }
    }
  }
  return limits;
}

}  // namespace kv

#include "client/kvctl/progress.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace kv::kvctl {
namespace {

absl::Status Failed(std::string_view what, const std::string& path) {
  return absl::Status(absl::StatusCode::kDataLoss,
                      fmt::format("{} cannot be {}: {}", path, what, std::strerror(errno)));
}

}  // namespace

void AcknowledgedLines::Add(uint64_t line) {
  if (line <= through_) return;
  ahead_.insert(line);
  while (!ahead_.empty() && *ahead_.begin() == through_ + 1) {
    ++through_;
    ahead_.erase(ahead_.begin());
  }
}

absl::StatusOr<std::optional<Progress>> LoadProgress(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    if (error) return absl::Status(absl::StatusCode::kDataLoss, path + ": " + error.message());
    return std::optional<Progress>();
  }
  std::ifstream file(path);
  std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return Failed("read", path);
  Progress progress;
  const char* end = text.data() + text.size();
  auto [line_end, line_error] = std::from_chars(text.data(), end, progress.line);
  constexpr std::string_view kCluster = "\ncluster ";
  bool fits = line_error == std::errc() &&
              std::string_view(line_end, static_cast<size_t>(end - line_end)).starts_with(kCluster);
  if (fits) {
    auto [id_end, id_error] =
        std::from_chars(line_end + kCluster.size(), end, progress.cluster_id, 16);
    fits = id_error == std::errc() && std::string_view(id_end, end) == "\n";
  }
  if (!fits) {
    return absl::Status(absl::StatusCode::kInvalidArgument,
                        path +
                            " is no progress file of an import; remove it to import from the "
                            "first line");
  }
  return std::optional<Progress>(progress);
}

absl::Status SaveProgress(const std::string& path, const Progress& progress) {
  std::string text = fmt::format("{}\ncluster {:x}\n", progress.line, progress.cluster_id);
  std::string next = path + ".next";
  int file = ::open(next.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (file < 0) return Failed("written", next);
  bool written = ::write(file, text.data(), text.size()) == static_cast<ssize_t>(text.size()) &&
                 ::fsync(file) == 0;
  if (!written) {
    absl::Status status = Failed("written", next);
    ::close(file);
    return status;
  }
  if (::close(file) != 0 || std::rename(next.c_str(), path.c_str()) != 0) {
    return Failed("written", path);
  }
  return absl::OkStatus();
}

}  // namespace kv::kvctl

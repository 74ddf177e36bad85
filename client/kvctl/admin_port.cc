#include "client/kvctl/admin_port.h"

#include <fmt/format.h>
#include <httplib.h>

#include <charconv>
#include <cstdlib>
#include <optional>
#include <string_view>
#include <vector>

#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

constexpr size_t kPageBytesMax = 16 << 20;
constexpr int kPatienceSeconds = 5;
constexpr std::string_view kScheme = "http://";

// `url` is http://HOST:PORT[/PATH].
std::optional<std::string> Fetch(const std::string& url) {
  const size_t slash = url.find('/', kScheme.size());
  httplib::Client client(url.substr(0, slash));
  client.set_connection_timeout(kPatienceSeconds, 0);
  client.set_read_timeout(kPatienceSeconds, 0);
  std::string page;
  const auto answer = client.Get(slash == std::string::npos ? "/metrics" : url.substr(slash),
                                 [&page](const char* data, size_t size) {
                                   page.append(data, size);
                                   return page.size() <= kPageBytesMax;
                                 });
  if (!answer || answer->status != 200) return std::nullopt;
  return page;
}

std::optional<double> Metric(std::string_view page, std::string_view name) {
  while (!page.empty()) {
    const std::string line(page.substr(0, page.find('\n')));
    page.remove_prefix(std::min(page.size(), line.size() + 1));
    if (line.starts_with(name) && line.size() > name.size() && line[name.size()] == ' ') {
      return std::strtod(line.c_str() + name.size(), nullptr);
    }
  }
  return std::nullopt;
}

// Whether httplib can be trusted with it.
bool Sound(std::string_view url) {
  if (!url.starts_with(kScheme)) return false;
  url.remove_prefix(kScheme.size());
  url = url.substr(0, url.find('/'));
  const size_t colon = url.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  uint16_t port = 0;
  const auto read = std::from_chars(url.data() + colon + 1, url.data() + url.size(), port);
  return read.ec == std::errc() && read.ptr == url.data() + url.size();
}

std::vector<std::string> Guesses(std::string endpoint) {
  if (endpoint.starts_with(kScheme)) endpoint.erase(0, kScheme.size());
  const size_t colon = endpoint.rfind(':');
  int port = 0;
  if (colon == std::string::npos || endpoint.find("://") != std::string::npos ||
      std::from_chars(endpoint.data() + colon + 1, endpoint.data() + endpoint.size(), port).ec !=
          std::errc()) {
    return {};
  }
  return {fmt::format("{}{}/metrics", kScheme, endpoint),
          fmt::format("{}{}:{}/metrics", kScheme, endpoint.substr(0, colon), port + 2)};
}

}  // namespace

absl::StatusOr<double> ResidentMemory(const std::string& endpoint, const std::string& url,
                                      uint64_t member_id) {
  if (!url.empty() && !Sound(url)) {
    return Refused(fmt::format("--metrics-url {} is no http://HOST:PORT/metrics", url));
  }
  const std::string mine = fmt::format("server_id=\"{:x}\"", member_id);
  for (const std::string& place : url.empty() ? Guesses(endpoint) : std::vector{url}) {
    if (!Sound(place)) continue;
    const std::optional<std::string> page = Fetch(place);
    if (!page || (url.empty() && page->find(mine) == std::string::npos)) continue;
    if (const auto bytes = Metric(*page, "process_resident_memory_bytes")) return *bytes;
  }
  return Refused(
      "process_resident_memory_bytes cannot be read; --metrics-url names the member's "
      "page of metrics (kvd's --listen-metrics-urls)",
      absl::StatusCode::kUnavailable);
}

}  // namespace kv::kvctl

// URLs to listen on, and the sockets that they become.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace kv::api {

struct ListenUrl {
  std::string host;  // Without brackets, also when it is IPv6. 0.0.0.0 and :: are both families.
  uint16_t port = 0;
  std::string HostPort() const;  // host:port, IPv6 in brackets.
};
// http://host:port. Anything else, https too, is refused with a sentence.
absl::StatusOr<ListenUrl> ParseListenUrl(std::string_view text);

// A socket that listens on every address that `url.host` stands for; none of them shared with
// another process. They do not block, and are the caller's to close. With port 0 all of them get
// the port that the first one was given.
struct Listeners {
  std::vector<int> sockets;
  uint16_t port = 0;
};
absl::StatusOr<Listeners> OpenListeners(const ListenUrl& url);

// Whether all of them could be listened on now. Says so early; only listening makes sure.
absl::Status CheckListenUrls(const std::vector<std::string>& urls);

}  // namespace kv::api

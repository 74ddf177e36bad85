#include "server/api/listen_url.h"

#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <memory>

#include "absl/status/status.h"
#include "storage/status.h"

namespace kv::api {
namespace {

constexpr int kBacklog = 1024;

struct FreeAddresses {
  void operator()(addrinfo* list) const { freeaddrinfo(list); }
};

void SetPort(sockaddr* address, uint16_t port) {
  if (address->sa_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6*>(address)->sin6_port = htons(port);
  } else {
    reinterpret_cast<sockaddr_in*>(address)->sin_port = htons(port);
  }
}

uint16_t PortOf(int socket) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getsockname(socket, reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<sockaddr_in6*>(&address)->sin6_port
                                             : reinterpret_cast<sockaddr_in*>(&address)->sin_port);
}

// A listening socket, or -1 with errno set.
int Listen(const addrinfo& address) {
  const int fd = socket(address.ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  const int on = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (address.ai_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on);
  if (bind(fd, address.ai_addr, address.ai_addrlen) == 0 && listen(fd, kBacklog) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

// The host has the name, but not this kind of address: a machine without IPv6, for one.
bool IsAbsent(int error) { return error == EAFNOSUPPORT || error == EADDRNOTAVAIL; }

absl::Status CannotListen(const ListenUrl& url, int error) {
  const char* advice = error == EADDRINUSE
                           ? "; another process has this port: stop it, or choose another port"
                       : error == EADDRNOTAVAIL ? "; this machine has no such address"
                       : error == EACCES        ? "; ports below 1024 need privileges"
                                                : "";
  return MakeStatus(absl::StatusCode::kUnavailable, "cannot listen on http://{}: {}{}",
                    url.HostPort(), std::strerror(error), advice);
}

}  // namespace

std::string ListenUrl::HostPort() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

absl::StatusOr<ListenUrl> ParseListenUrl(std::string_view text) {
  constexpr std::string_view kScheme = "http://";
  if (text.starts_with("https://")) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "cannot listen on {}: this version of kvd serves no TLS; use http:// and "
                      "keep the port within a trusted network",
                      text);
  }
  absl::Status wrong =
      MakeStatus(absl::StatusCode::kInvalidArgument,
                 "cannot listen on {}: a URL to listen on is http://HOST:PORT, for example "
                 "http://127.0.0.1:2379",
                 text);
  if (!text.starts_with(kScheme)) return wrong;
  std::string_view rest = text.substr(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return wrong;
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  if (host.front() == '[' && host.back() == ']') {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return wrong;
  }
  ListenUrl url{.host = std::string(host), .port = 0};
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), url.port);
  if (host.empty() || error != std::errc() || end != port.data() + port.size()) return wrong;
  return url;
}

absl::StatusOr<Listeners> OpenListeners(const ListenUrl& url) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  // Every address means those of both families, as with etcd: a pod may have either.
  const bool every = url.host == "0.0.0.0" || url.host == "::";
  const char* host = every ? nullptr : url.host.c_str();
  if (const int error = getaddrinfo(host, every ? "0" : nullptr, &hints, &found); error != 0) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "cannot listen on http://{}: the host name cannot be resolved: {}",
                      url.HostPort(), gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, FreeAddresses> addresses(found);
  Listeners listeners{.sockets = {}, .port = url.port};
  int absent = EADDRNOTAVAIL;
  for (addrinfo* address = found; address != nullptr; address = address->ai_next) {
    SetPort(address->ai_addr, listeners.port);
    const int fd = Listen(*address);
    if (fd >= 0) {
      listeners.sockets.push_back(fd);
      listeners.port = PortOf(fd);
    } else if (IsAbsent(errno)) {
      absent = errno;
    } else {
      const int error = errno;
      for (const int open : listeners.sockets) close(open);
      return CannotListen(url, error);
    }
  }
  if (listeners.sockets.empty()) return CannotListen(url, absent);
  return listeners;
}

absl::Status CheckListenUrls(const std::vector<std::string>& urls) {
  for (const std::string& text : urls) {
    ASSIGN_OR_RETURN(const ListenUrl url, ParseListenUrl(text));
    ASSIGN_OR_RETURN(const Listeners listeners, OpenListeners(url));
    for (const int socket : listeners.sockets) close(socket);
  }
  return absl::OkStatus();
}

}  // namespace kv::api

#include "server/api/http2_server.h"

#include <algorithm>
#include <utility>

#include "server/api/http2_connection.h"
#include "server/api/http2_loop.h"
#include "server/api/listen_url.h"
#include "storage/status.h"

namespace kv::api {

Http2Server::Http2Server() = default;
Http2Server::~Http2Server() { Stop(absl::ZeroDuration()); }

absl::Status Http2Server::Start(Runtime* runtime, const Http2Options& options, RpcMethods methods) {
  if (options.listen_urls.empty()) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "there is no URL to serve clients on; set --listen-client-urls");
  }
  std::vector<Descriptor> sockets;
  for (const std::string& text : options.listen_urls) {
    ASSIGN_OR_RETURN(const ListenUrl url, ParseListenUrl(text));
    ASSIGN_OR_RETURN(const Listeners listeners, OpenListeners(url));
    for (const int socket : listeners.sockets) sockets.emplace_back(socket);
    if (port_ == 0) port_ = listeners.port;
  }
  methods_ = std::move(methods);
  for (int i = 0; i < options.loops; ++i) {
    loops_.push_back(std::make_unique<Http2Loop>(runtime, options, &methods_));
  }
  // The first loop accepts for all: a kernel that spreads connections over listeners leaves some
  // loops idle when there are few.
  for (size_t i = 1; i < loops_.size(); ++i) loops_[i]->Start({}, nullptr);
  loops_[0]->Start(std::move(sockets), [this, next = size_t{0}](Descriptor socket) mutable {
    loops_[next++ % loops_.size()]->Adopt(std::move(socket));
  });
  return absl::OkStatus();
}

void Http2Server::Stop(absl::Duration grace) {
  for (const auto& loop : loops_) loop->BeginStop(grace);
  for (const auto& loop : loops_) loop->Join();
  loops_.clear();
}

int FrontLoops(uint64_t processors) {
  constexpr uint64_t kMost = 8;
  return static_cast<int>(std::clamp<uint64_t>(processors / 2, 1, kMost));
}

}  // namespace kv::api

#include "client/watcher.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace kv::client {
namespace {

using Code = absl::StatusCode;

constexpr absl::Duration kPauseMin = absl::Milliseconds(25);
constexpr absl::Duration kPauseMax = absl::Milliseconds(500);
// Of the search for an endpoint, after which it begins anew.
constexpr CallOptions kSearch{.timeout = absl::Seconds(5), .attempt_timeout = absl::Seconds(2)};

// Whether another stream may do better.
bool MayGoOn(const absl::Status& status) {
  switch (status.code()) {
    case Code::kOk:  // The server closed it; etcd never does.
    case Code::kCancelled:
    case Code::kUnknown:  // As gRPC calls a stream that broke; and overload.
    case Code::kDeadlineExceeded:
    case Code::kInternal:
    case Code::kUnavailable:
      return true;
    case Code::kUnauthenticated:
      return status.message() == "etcdserver: invalid auth token";
    default:
      return false;
  }
}

absl::Status WhyCanceled(const pb::WatchResponse& response) {
  if (response.compact_revision() != 0) {
    return absl::Status(Code::kOutOfRange,
                        "etcdserver: mvcc: required revision has been compacted");
  }
  return absl::Status(Code::kFailedPrecondition, response.cancel_reason().empty()
                                                     ? "the watch is canceled by the server"
                                                     : response.cancel_reason());
}

}  // namespace

Watcher::Watcher(Client* client, pb::WatchCreateRequest request)
    : client_(client), request_(std::move(request)), pause_(kPauseMin) {
  request_.clear_watch_id();
}

Watcher::~Watcher() = default;

std::optional<pb::WatchResponse> Watcher::Next() {
  while (!over_) {
    if (stream_ == nullptr && !Connect()) {
      if (over_) break;
      if (!status_.ok()) return End(status_, pb::WatchResponse());
      Pause();
      continue;
    }
    const std::optional<std::string> bytes = stream_->Read();
    pb::WatchResponse response;
    if (bytes && response.ParseFromString(*bytes)) {
      if (auto news = Take(std::move(response))) return news;
      continue;
    }
    if (bytes) stream_->Cancel();  // Whoever sends what is no response is not asked for more.
    const absl::Status status = stream_->Finish();
    Disconnect();
    if (!over_ && !MayGoOn(status)) return End(status, pb::WatchResponse());
    Pause();
  }
  return std::nullopt;
}

// False: not now; or never, with the reason in status_; or it is over.
bool Watcher::Connect() {
  auto opened = client_->OpenStream(kWatchPath, {{"hasleader", "true"}}, kSearch);
  const std::lock_guard lock(mutex_);
  over_ = canceled_;
  if (over_) return false;
  if (!opened.ok()) {
    if (!MayGoOn(opened.status())) status_ = opened.status();
    return false;
  }
  stream_ = *std::move(opened);
  pb::WatchRequest request;
  *request.mutable_create_request() = request_;
  stream_->Write(request.SerializeAsString());
  return true;
}

void Watcher::Disconnect() {
  const std::lock_guard lock(mutex_);
  stream_.reset();
  pieces_.Clear();
  over_ = over_ || canceled_;
}

void Watcher::Pause() {
  std::unique_lock lock(mutex_);
  woken_.wait_for(lock, absl::ToChronoNanoseconds(pause_), [this] { return canceled_; });
  over_ = over_ || canceled_;
  pause_ = std::min(pause_ * 2, kPauseMax);
}

// What of it is news.
std::optional<pb::WatchResponse> Watcher::Take(pb::WatchResponse response) {
  if (response.canceled()) {
    absl::Status why = WhyCanceled(response);
    return End(std::move(why), std::move(response));
  }
  pause_ = kPauseMin;
  const int64_t revision = response.header().revision();
  if (response.created()) {
    if (request_.start_revision() == 0) request_.set_start_revision(revision + 1);
    return std::nullopt;
  }
  if (response.events().empty() && pieces_.events().empty()) {
    request_.set_start_revision(std::max(request_.start_revision(), revision + 1));
    return response;
  }
  pieces_.MergeFrom(response);
  if (response.fragment()) return std::nullopt;
  pb::WatchResponse whole;
  whole.Swap(&pieces_);
  whole.set_fragment(false);
  request_.set_start_revision(whole.events().rbegin()->kv().mod_revision() + 1);
  return whole;
}

pb::WatchResponse Watcher::End(absl::Status status, pb::WatchResponse last) {
  status_ = std::move(status);
  over_ = true;
  Disconnect();
  last.set_canceled(true);
  return last;
}

void Watcher::AskProgress() {
  pb::WatchRequest request;
  request.mutable_progress_request();
  const std::lock_guard lock(mutex_);
  if (stream_ != nullptr) stream_->Write(request.SerializeAsString());
}

void Watcher::Cancel() {
  const std::lock_guard lock(mutex_);
  canceled_ = true;
  woken_.notify_all();
  if (stream_ != nullptr) stream_->Cancel();
}

}  // namespace kv::client

#include "client/lease_keeper.h"

#include <algorithm>
#include <utility>

namespace kv::client {
namespace {

// Between two renewals, however short the lease; and after one that failed.
constexpr absl::Duration kPauseMin = absl::Milliseconds(500);

}  // namespace

Answer<pb::LeaseKeepAliveResponse> RenewLease(Client* client, int64_t id,
                                              const CallOptions& options) {
  pb::LeaseKeepAliveRequest request;
  request.set_id(id);
  pb::LeaseKeepAliveResponse last;
  auto answer = client->StreamAndWait(
      kLeaseKeepAlive, request, options,
      [&last](pb::LeaseKeepAliveResponse response) { last = std::move(response); });
  answer.response = std::move(last);
  return answer;
}

LeaseKeeper::LeaseKeeper(Client* client, int64_t id, Options options)
    : client_(client),
      id_(id),
      options_(std::move(options)),
      until_(Clock::now() + absl::ToChronoNanoseconds(options_.left)),
      ttl_(options_.left),
      thread_([this] { Run(); }) {}

LeaseKeeper::~LeaseKeeper() {
  Cancel();
  thread_.join();
}

absl::Status LeaseKeeper::Wait() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return over_; });
  return end_;
}

void LeaseKeeper::Cancel() {
  const std::lock_guard lock(mutex_);
  canceled_ = true;
  changed_.notify_all();
}

void LeaseKeeper::Run() {
  absl::Status end = Keep();
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    tell = !canceled_;
    if (canceled_) end = absl::Status(absl::StatusCode::kCancelled, "the lease is kept no more");
    end_ = end;
    over_ = true;
    changed_.notify_all();
  }
  if (tell && options_.ended) options_.ended(end);
}

absl::Status LeaseKeeper::Keep() {
  for (;;) {
    const Clock::time_point sent = Clock::now();
    const auto answer = RenewLease(client_, id_, Patience());
    if (answer.ok()) {
      if (answer.response.ttl() <= 0) {
        return absl::Status(absl::StatusCode::kNotFound, "etcdserver: requested lease not found");
      }
      ttl_ = absl::Seconds(answer.response.ttl());
      until_ = sent + absl::ToChronoNanoseconds(ttl_);
      if (options_.renewed) options_.renewed(answer.response);
    } else if (ttl_ == absl::ZeroDuration()) {
      return answer.status;
    } else if (Clock::now() >= until_) {
      return absl::Status(
          absl::StatusCode::kDeadlineExceeded,
          "the lease could not be renewed in time: " + std::string(answer.status.message()));
    }
    const absl::Duration pause = answer.ok() ? std::max(ttl_ / 3, kPauseMin) : kPauseMin;
    if (!Pause(absl::ToChronoNanoseconds(pause))) return absl::OkStatus();
  }
}

CallOptions LeaseKeeper::Patience() const {
  CallOptions call = options_.call;
  if (ttl_ == absl::ZeroDuration()) return call;
  // Whoever hangs is left for the next endpoint while there is time for one more.
  const absl::Duration share = std::max(ttl_ / 3, kPauseMin);
  const absl::Duration left = absl::FromChrono(until_ - Clock::now());
  call.timeout = std::min({call.timeout, share, std::max(left, kPauseMin)});
  call.attempt_timeout = std::min(call.attempt_timeout, call.timeout);
  return call;
}

bool LeaseKeeper::Pause(Clock::duration pause) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, pause, [this] { return canceled_; });
  return !canceled_;
}

}  // namespace kv::client

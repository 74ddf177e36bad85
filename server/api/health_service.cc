#include "server/api/health_service.h"

#include <utility>

#include "server/api/errors.h"
#include "storage/status.h"

namespace kv::api {

void HealthService::SetServing(bool serving) {
  MutexLock lock(mutex_);
  serving_ = serving && !stopped_;
  for (const auto& watcher : watchers_) Tell(watcher);
}

void HealthService::Stop() {
  SetServing(false);
  std::set<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(mutex_);
    stopped_ = true;
    watchers = watchers_;
  }
  for (const auto& watcher : watchers) End(watcher, ToStatus(Error::kStopped));
}

void HealthService::Check(const Request& request, Done<Response> done) {
  if (!names_.contains(request.service())) {
    return std::move(done)(
        MakeStatus(absl::StatusCode::kNotFound, "unknown service {}", request.service()));
  }
  Response response;
  {
    MutexLock lock(mutex_);
    response.set_status(serving_ ? Response::SERVING : Response::NOT_SERVING);
  }
  std::move(done)(std::move(response));
}

void HealthService::Watch(const Request& request, Writer<Response>* writer) {
  auto watcher = std::make_shared<Watcher>();
  watcher->writer = writer;
  watcher->known = names_.contains(request.service());
  MutexLock lock(mutex_);
  if (stopped_) return writer->Finish(ToStatus(Error::kStopped));
  watchers_.insert(watcher);
  Tell(watcher);
  writer->OnGone([this, watcher] { End(watcher, absl::CancelledError()); });
}

HealthService::Status HealthService::StatusOf(const Watcher& watcher) const {
  if (!watcher.known) return Response::SERVICE_UNKNOWN;
  return serving_ ? Response::SERVING : Response::NOT_SERVING;
}

// A watcher that is slow hears the latest state when it has taken the one before.
void HealthService::Tell(const std::shared_ptr<Watcher>& watcher) {
  const Status status = StatusOf(*watcher);
  if (watcher->writing || watcher->told == status) return;
  watcher->writing = true;
  watcher->told = status;
  Response response;
  response.set_status(status);
  watcher->writer->Write(std::move(response),
                         [this, watcher](bool taken) { OnTold(watcher, taken); });
}

void HealthService::OnTold(const std::shared_ptr<Watcher>& watcher, bool taken) {
  if (!taken) return;  // OnGone ends it.
  MutexLock lock(mutex_);
  watcher->writing = false;
  if (watchers_.contains(watcher)) Tell(watcher);
}

void HealthService::End(const std::shared_ptr<Watcher>& watcher, absl::Status status) {
  MutexLock lock(mutex_);
  if (watchers_.erase(watcher) > 0) watcher->writer->Finish(std::move(status));
}

}  // namespace kv::api

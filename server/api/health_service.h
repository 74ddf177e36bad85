// grpc.health.v1: whether this member serves, for one who asks and for those who watch.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>

#include "absl/base/thread_annotations.h"
#include "proto/grpc/health.pb.h"
#include "server/api/call.h"
#include "storage/mutex.h"

namespace kv::api {

// Thread-safe. Every service of the server has the state of the server.
class HealthService {
 public:
  using Request = grpc::health::v1::HealthCheckRequest;
  using Response = grpc::health::v1::HealthCheckResponse;

  // `name` is a service that the server has.
  void AddService(std::string name) { names_.insert(std::move(name)); }

  void SetServing(bool serving);
  void Stop();  // Not serving, and nobody watches any more.

  void Check(const Request& request, Done<Response> done);
  void Watch(const Request& request, Writer<Response>* writer);

 private:
  using Status = Response::ServingStatus;
  struct Watcher {
    Writer<Response>* writer = nullptr;
    bool known = false;  // The service is.
    Status told = Response::UNKNOWN;
    bool writing = false;
  };

  Status StatusOf(const Watcher& watcher) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Tell(const std::shared_ptr<Watcher>& watcher) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTold(const std::shared_ptr<Watcher>& watcher, bool taken);
  void End(const std::shared_ptr<Watcher>& watcher, absl::Status status);

  std::set<std::string, std::less<>> names_ = {""};  // Constant once the server listens.

  Mutex mutex_;
  bool serving_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Watcher>> watchers_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv::api

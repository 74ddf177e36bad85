// etcdserverpb.Watch: orders in, news out, on streams that live as long as their clients.
//
// The hub decides what is told to whom; here it is put into messages. A stream holds what its
// client has not taken up to a bound, then says that it is full, and reads no further orders: a
// client that does not read costs that bound and nothing else.
#pragma once

#include <memory>
#include <set>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/watch/watch_hub.h"
#include "storage/mutex.h"

namespace kv::api {

// Thread-safe.
class WatchService {
 public:
  using Request = etcdserverpb::WatchRequest;
  using Response = Encoded<etcdserverpb::WatchResponse>;

  // Both outlive every stream.
  WatchService(Edge* edge, WatchHub* hub) : edge_(edge), hub_(hub) {}

  void Watch(const Call& call, Reader<Request>* reader, Writer<Response>* writer);

  // The streams of clients that asked not to be left without a leader.
  void EndWithoutLeader();
  void Stop();  // All streams, and those that still come.

 private:
  class Stream;

  void End(const std::shared_ptr<Stream>& stream, absl::Status status);
  // Now and then a little more than the interval, so that streams do not report all at once.
  absl::Duration ReportEvery() const;

  Edge* const edge_;
  WatchHub* const hub_;

  Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::set<std::shared_ptr<Stream>> streams_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv::api

// The one adapter from a server-streaming call to a service function.
//
// A message counts as taken when it is on its way to the socket, which waits for the client's
// window: a client that stops reading holds one message and stops its own stream.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/api/call.h"
#include "server/api/http2_call.h"
#include "server/api/metrics.h"
#include "server/api/wire.h"
#include "server/replica/runtime.h"

namespace kv::api {

// Lives until Finish.
template <typename Response>
class StreamWriter : public Writer<Response> {
 public:
  StreamWriter(Runtime* runtime, RpcMetrics* metrics, std::shared_ptr<Http2Call> call)
      : runtime_(runtime), metrics_(metrics), call_(std::move(call)), began_(runtime->Uptime()) {}

  void Write(Response response, absl::AnyInvocable<void(bool) &&> ready) override {
    Outgoing outgoing = Encode(std::move(response));
    outgoing.ready = std::move(ready);
    metrics_->Sent(outgoing.message->size());
    call_->Say(std::move(outgoing));
  }

  void Finish(absl::Status status) override {
    const std::unique_ptr<StreamWriter> self(this);
    metrics_->Handled(status.code(), runtime_->Uptime() - began_);
    Outgoing outgoing;
    outgoing.end = std::move(status);
    call_->Say(std::move(outgoing));
  }

  void OnGone(absl::AnyInvocable<void() &&> gone) override { call_->OnGone(std::move(gone)); }

 private:
  Runtime* const runtime_;
  RpcMetrics* const metrics_;
  const std::shared_ptr<Http2Call> call_;
  const absl::Duration began_;
};

// `function` is called as function(const Call&, Request, Writer<Response>*).
template <typename Request, typename Response, typename Function>
RpcMethod ServerStream(Runtime* runtime, RpcMetrics* metrics, Function function) {
  auto begin = [runtime, metrics, function](const std::shared_ptr<Http2Call>& call,
                                            std::string bytes) {
    metrics->Started();
    metrics->Received(bytes.size());
    Writer<Response>* writer = new StreamWriter<Response>(runtime, metrics, call);
    Request request;
    absl::Status decoded = RequestShape<Request>::Fill(std::move(bytes), &request);
    if (!decoded.ok()) {
      writer->Finish(std::move(decoded));
    } else {
      function(call->call(), std::move(request), writer);
    }
  };
  return {.takes_stream = false, .begin = std::move(begin)};
}

}  // namespace kv::api

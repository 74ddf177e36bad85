// The one adapter from a call that streams both ways to a service function.
//
// Messages that the service does not read stay within the stream's window: a client that sends too
// fast is held back, and nobody else.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/api/call.h"
#include "server/api/http2_call.h"
#include "server/api/metrics.h"
#include "server/api/server_stream.h"
#include "server/api/wire.h"
#include "server/replica/runtime.h"

namespace kv::api {

// Both halves of one call; live until Finish.
template <typename Request, typename Response>
class BidiStreamer final : public StreamWriter<Response>, public Reader<Request> {
 public:
  BidiStreamer(Runtime* runtime, RpcMetrics* metrics, const std::shared_ptr<Http2Call>& call)
      : StreamWriter<Response>(runtime, metrics, call), metrics_(metrics), call_(call) {}

  void Read(absl::AnyInvocable<void(std::optional<Request>) &&> next) override {
    // The call, not `this`, which may end before the message comes.
    call_->Read([metrics = metrics_, call = call_,
                 next = std::move(next)](std::optional<std::string> bytes) mutable {
      if (!bytes) return std::move(next)(std::nullopt);
      metrics->Received(bytes->size());
      Request request;
      absl::Status decoded = RequestShape<Request>::Fill(*std::move(bytes), &request);
      if (decoded.ok()) return std::move(next)(std::move(request));
      call->Fail(std::move(decoded));
      std::move(next)(std::nullopt);
    });
  }

 private:
  RpcMetrics* const metrics_;
  const std::shared_ptr<Http2Call> call_;
};

// `function` is called as function(const Call&, Reader<Request>*, Writer<Response>*).
template <typename Request, typename Response, typename Function>
RpcMethod BidiStream(Runtime* runtime, RpcMetrics* metrics, Function function) {
  auto begin = [runtime, metrics, function](const std::shared_ptr<Http2Call>& call,
                                            const std::string&) {
    metrics->Started();
    auto* streamer = new BidiStreamer<Request, Response>(runtime, metrics, call);
    function(call->call(), static_cast<Reader<Request>*>(streamer),
             static_cast<Writer<Response>*>(streamer));
  };
  return {.takes_stream = true, .begin = std::move(begin)};
}

}  // namespace kv::api

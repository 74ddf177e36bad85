// The one adapter from a unary call to a service function.
//
// The call is decoded and handed over on its connection's loop; whoever answers finishes it from
// its own thread.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/api/call.h"
#include "server/api/http2_call.h"
#include "server/api/metrics.h"
#include "server/api/wire.h"
#include "server/replica/runtime.h"

namespace kv::api {

// `function` is called as function(const Call&, Request, Done<Response>).
template <typename Request, typename Response, typename Function>
RpcMethod Unary(Runtime* runtime, RpcMetrics* metrics, Function function) {
  auto begin = [runtime, metrics, function](const std::shared_ptr<Http2Call>& call,
                                            std::string bytes) {
    const absl::Duration began = runtime->Uptime();
    metrics->Started();
    metrics->Received(bytes.size());
    auto finish = [runtime, metrics, call, began](absl::StatusOr<Response> response) {
      metrics->Handled(response.status().code(), runtime->Uptime() - began);
      Outgoing outgoing;
      absl::Status status = response.status();
      if (response.ok()) {
        outgoing = Encode(*std::move(response));
        metrics->Sent(outgoing.message->size());
      }
      outgoing.end = std::move(status);
      call->Say(std::move(outgoing));
    };
    Request request;
    absl::Status decoded = RequestShape<Request>::Fill(std::move(bytes), &request);
    if (!decoded.ok()) {
      finish(std::move(decoded));
    } else {
      function(call->call(), std::move(request), Done<Response>(std::move(finish)));
    }
  };
  return {.takes_stream = false, .begin = std::move(begin)};
}

}  // namespace kv::api

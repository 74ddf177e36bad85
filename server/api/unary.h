// The one adapter from a unary gRPC call to a service function.
//
// The call is decoded and handed over on gRPC's thread; whoever answers finishes it from its own.
// The reactor is the one inside the context, so a call costs no object of ours.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/api/call.h"
#include "server/api/metrics.h"
#include "server/api/wire.h"
#include "server/replica/runtime.h"

namespace kv::api {

using UnaryReactor = std::function<grpc::ServerUnaryReactor*(
    grpc::CallbackServerContext*, const grpc::ByteBuffer*, grpc::ByteBuffer*)>;

// `function` is called as function(const Call&, Request, Done<Response>).
template <typename Request, typename Response, typename Function>
UnaryReactor Unary(Runtime* runtime, RpcMetrics* metrics, Function function) {
  return [runtime, metrics, function](grpc::CallbackServerContext* context,
                                      const grpc::ByteBuffer* in, grpc::ByteBuffer* out) {
    grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
    const absl::Duration began = runtime->Uptime();
    metrics->Started();
    metrics->Received(in->Length());
    auto finish = [runtime, metrics, reactor, out, began](absl::StatusOr<Response> response) {
      if (response.ok()) {
        *out = Encode(*std::move(response));
        metrics->Sent(out->Length());
      }
      metrics->Handled(response.status().code(), runtime->Uptime() - began);
      reactor->Finish(ToGrpc(response.status()));
    };
    Request request;
    absl::Status decoded = RequestShape<Request>::Fill(Flatten(*in), &request);
    if (!decoded.ok()) {
      finish(std::move(decoded));
    } else {
      function(CallOf(*context), std::move(request), Done<Response>(std::move(finish)));
    }
    return reactor;
  };
}

}  // namespace kv::api

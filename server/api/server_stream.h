// The one adapter from a server-streaming gRPC call to a service function.
//
// gRPC reports that a message was written when its transport has taken it, which waits for the
// client's window: a client that stops reading holds one message and stops its own stream.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "server/api/call.h"
#include "server/api/metrics.h"
#include "server/api/wire.h"
#include "server/replica/runtime.h"

namespace kv::api {

using ServerStreamReactor = std::function<grpc::ServerWriteReactor<grpc::ByteBuffer>*(
    grpc::CallbackServerContext*, const grpc::ByteBuffer*)>;

// Owned by gRPC: deletes itself when the call is over, which is after Finish.
template <typename Response>
class StreamWriter final : public grpc::ServerWriteReactor<grpc::ByteBuffer>,
                           public Writer<Response> {
 public:
  StreamWriter(Runtime* runtime, RpcMetrics* metrics)
      : runtime_(runtime), metrics_(metrics), began_(runtime->Uptime()) {}

  void Write(Response response, absl::AnyInvocable<void(bool) &&> ready) override {
    ready_ = std::move(ready);
    message_ = Encode(std::move(response));
    metrics_->Sent(message_.Length());
    StartWrite(&message_);
  }

  void Finish(absl::Status status) override {
    metrics_->Handled(status.code(), runtime_->Uptime() - began_);
    grpc::ServerWriteReactor<grpc::ByteBuffer>::Finish(ToGrpc(status));
  }

  void OnWriteDone(bool ok) override {
    message_.Clear();
    std::exchange(ready_, nullptr)(ok);
  }
  void OnDone() override { delete this; }

 private:
  Runtime* const runtime_;
  RpcMetrics* const metrics_;
  const absl::Duration began_;
  grpc::ByteBuffer message_;
  absl::AnyInvocable<void(bool) &&> ready_;
};

// `function` is called as function(const Call&, Request, Writer<Response>*).
template <typename Request, typename Response, typename Function>
ServerStreamReactor ServerStream(Runtime* runtime, RpcMetrics* metrics, Function function) {
  return [runtime, metrics, function](
             grpc::CallbackServerContext* context,
             const grpc::ByteBuffer* in) -> grpc::ServerWriteReactor<grpc::ByteBuffer>* {
    metrics->Started();
    metrics->Received(in->Length());
    auto* writer = new StreamWriter<Response>(runtime, metrics);
    Request request;
    absl::Status decoded = RequestShape<Request>::Fill(Flatten(*in), &request);
    if (!decoded.ok()) {
      static_cast<Writer<Response>*>(writer)->Finish(std::move(decoded));
    } else {
      function(CallOf(*context), std::move(request), writer);
    }
    return writer;
  };
}

}  // namespace kv::api

#include "server/api/rpc_service.h"

#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/rpc_service_method.h>

#include "storage/check.h"

namespace kv::api {
namespace {

using google::protobuf::MethodDescriptor;
using grpc::ByteBuffer;
using grpc::internal::RpcMethod;
using grpc::internal::RpcServiceMethod;

RpcType TypeOf(const MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? RpcType::kBidiStream : RpcType::kClientStream;
  }
  return method.server_streaming() ? RpcType::kServerStream : RpcType::kUnary;
}

// Ends a stream at once; deletes itself when gRPC is done with it.
class Refusal final : public grpc::ServerBidiReactor<ByteBuffer, ByteBuffer> {
 public:
  explicit Refusal(const std::string& sentence) {
    Finish(grpc::Status(grpc::StatusCode::UNIMPLEMENTED, sentence));
  }
  void OnDone() override { delete this; }
};

}  // namespace

RpcService::RpcService(const google::protobuf::ServiceDescriptor* descriptor, Runtime* runtime,
                       Metrics* metrics)
    : descriptor_(descriptor), runtime_(runtime), metrics_(metrics) {
  KV_CHECK(descriptor != nullptr, "a service that the proto files do not have");
}

RpcMetrics* RpcService::MetricsOf(std::string_view method) {
  const MethodDescriptor* found = descriptor_->FindMethodByName(std::string(method));
  KV_CHECK(found != nullptr, method);
  return metrics_->ForRpc(descriptor_->full_name(), method, TypeOf(*found));
}

const char* RpcService::Claim(std::string_view method) {
  KV_CHECK(claimed_.insert(std::string(method)).second, "a method was added twice");
  names_.push_back("/" + descriptor_->full_name() + "/" + std::string(method));
  return names_.back().c_str();
}

void RpcService::AddUnary(std::string_view method, UnaryReactor reactor) {
  const int index = static_cast<int>(names_.size());
  AddMethod(new RpcServiceMethod(Claim(method), RpcMethod::NORMAL_RPC, nullptr));
  MarkMethodRawCallback(
      index, new grpc::internal::CallbackUnaryHandler<ByteBuffer, ByteBuffer>(std::move(reactor)));
}

void RpcService::AddServerStream(std::string_view method, ServerStreamReactor reactor) {
  const int index = static_cast<int>(names_.size());
  AddMethod(new RpcServiceMethod(Claim(method), RpcMethod::SERVER_STREAMING, nullptr));
  MarkMethodRawCallback(index,
                        new grpc::internal::CallbackServerStreamingHandler<ByteBuffer, ByteBuffer>(
                            std::move(reactor)));
}

void RpcService::RefuseTheRest(std::string_view sentence) {
  for (int i = 0; i < descriptor_->method_count(); ++i) {
    const MethodDescriptor& method = *descriptor_->method(i);
    if (!claimed_.contains(method.name())) Refuse(method, std::string(sentence));
  }
}

// As a stream whatever the method's own shape: it is answered before a message is read.
void RpcService::Refuse(const MethodDescriptor& method, const std::string& sentence) {
  RpcMetrics* metrics = MetricsOf(method.name());
  const int index = static_cast<int>(names_.size());
  AddMethod(new RpcServiceMethod(Claim(method.name()), RpcMethod::BIDI_STREAMING, nullptr));
  MarkMethodRawCallback(index, new grpc::internal::CallbackBidiHandler<ByteBuffer, ByteBuffer>(
                                   [metrics, sentence](grpc::CallbackServerContext*) {
                                     metrics->Started();
                                     metrics->Handled(absl::StatusCode::kUnimplemented,
                                                      absl::ZeroDuration());
                                     return new Refusal(sentence);
                                   }));
}

}  // namespace kv::api

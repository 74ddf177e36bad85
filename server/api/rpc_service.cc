#include "server/api/rpc_service.h"

#include <fmt/format.h>

#include "storage/check.h"

namespace kv::api {

using google::protobuf::MethodDescriptor;

namespace {

RpcType TypeOf(const MethodDescriptor& method) {
  if (method.client_streaming()) {
    return method.server_streaming() ? RpcType::kBidiStream : RpcType::kClientStream;
  }
  return method.server_streaming() ? RpcType::kServerStream : RpcType::kUnary;
}

}  // namespace

RpcService::RpcService(const google::protobuf::ServiceDescriptor* descriptor, Runtime* runtime,
                       Metrics* metrics, RpcMethods* methods)
    : descriptor_(descriptor), runtime_(runtime), metrics_(metrics), methods_(methods) {
  KV_CHECK(descriptor != nullptr, "a service that the proto files do not have");
}

const MethodDescriptor& RpcService::Find(std::string_view method) const {
  const MethodDescriptor* found = descriptor_->FindMethodByName(std::string(method));
  KV_CHECK(found != nullptr, method);
  return *found;
}

RpcMetrics* RpcService::MetricsOf(std::string_view method) const {
  return metrics_->ForRpc(descriptor_->full_name(), method, TypeOf(Find(method)));
}

std::string RpcService::PathOf(std::string_view method) const {
  return fmt::format("/{}/{}", descriptor_->full_name(), method);
}

void RpcService::Add(std::string_view method, RpcType type, RpcMethod rpc) {
  KV_CHECK(TypeOf(Find(method)) == type, method);
  KV_CHECK(methods_->emplace(PathOf(method), std::move(rpc)).second, "a method was added twice");
}

// As a stream whatever the method's own shape: it is answered before a message is read.
void RpcService::RefuseTheRest(std::string_view sentence) {
  for (int i = 0; i < descriptor_->method_count(); ++i) {
    const std::string& name = descriptor_->method(i)->name();
    if (methods_->contains(PathOf(name))) continue;
    RpcMetrics* metrics = MetricsOf(name);
    const absl::Status status(absl::StatusCode::kUnimplemented, std::string(sentence));
    methods_->emplace(
        PathOf(name),
        RpcMethod{.takes_stream = true, .begin = [metrics, status](const auto& call, const auto&) {
                    metrics->Started();
                    metrics->Handled(status.code(), absl::ZeroDuration());
                    Outgoing refusal;
                    refusal.end = status;
                    call->Say(std::move(refusal));
                  }});
  }
}

}  // namespace kv::api

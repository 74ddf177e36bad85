// The methods that the gRPC server answers, registered by name from a table instead of through one
// generated class a service: an RPC is one row, and what has no row is answered UNIMPLEMENTED with
// a sentence, so that no method of the contract is ever unknown.
#pragma once

#include <google/protobuf/descriptor.h>
#include <grpcpp/impl/service_type.h>

#include <deque>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "server/api/metrics.h"
#include "server/api/server_stream.h"
#include "server/api/unary.h"
#include "server/replica/runtime.h"

namespace kv::api {

// One protobuf service. Registered with a ServerBuilder, which it must outlive.
class RpcService final : public grpc::Service {
 public:
  RpcService(const google::protobuf::ServiceDescriptor* descriptor, Runtime* runtime,
             Metrics* metrics);

  // `method` must be one of the descriptor's, of this shape.
  template <typename Request, typename Response, typename Function>
  void AddUnary(std::string_view method, Function function) {
    AddUnary(method, Unary<Request, Response>(runtime_, MetricsOf(method), std::move(function)));
  }
  template <typename Request, typename Response, typename Function>
  void AddServerStream(std::string_view method, Function function) {
    AddServerStream(
        method, ServerStream<Request, Response>(runtime_, MetricsOf(method), std::move(function)));
  }
  const std::string& full_name() const { return descriptor_->full_name(); }

  // All methods that were not added. `sentence` says when they come, or why never.
  void RefuseTheRest(std::string_view sentence);

 private:
  RpcMetrics* MetricsOf(std::string_view method);
  const char* Claim(std::string_view method);  // Its full name, for as long as this lives.
  void AddUnary(std::string_view method, UnaryReactor reactor);
  void AddServerStream(std::string_view method, ServerStreamReactor reactor);
  void Refuse(const google::protobuf::MethodDescriptor& method, const std::string& sentence);

  const google::protobuf::ServiceDescriptor* const descriptor_;
  Runtime* const runtime_;
  Metrics* const metrics_;
  std::deque<std::string> names_;
  std::set<std::string, std::less<>> claimed_;
};

}  // namespace kv::api

// The methods that the client port answers, registered by name in a table instead of through one
// generated class a service: an RPC is one row, and what has no row is answered UNIMPLEMENTED with
// a sentence, so that no method of the contract is ever unknown.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>
#include <utility>

#include "server/api/bidi_stream.h"
#include "server/api/http2_call.h"
#include "server/api/metrics.h"
#include "server/api/server_stream.h"
#include "server/api/unary.h"
#include "server/replica/runtime.h"

namespace kv::api {

// One protobuf service: its rows go into `methods`.
class RpcService {
 public:
  RpcService(const google::protobuf::ServiceDescriptor* descriptor, Runtime* runtime,
             Metrics* metrics, RpcMethods* methods);

  // `method` must be one of the descriptor's, of this shape.
  template <typename Request, typename Response, typename Function>
  void AddUnary(std::string_view method, Function function) {
    Add(method, RpcType::kUnary,
        Unary<Request, Response>(runtime_, MetricsOf(method), std::move(function)));
  }
  template <typename Request, typename Response, typename Function>
  void AddServerStream(std::string_view method, Function function) {
    Add(method, RpcType::kServerStream,
        ServerStream<Request, Response>(runtime_, MetricsOf(method), std::move(function)));
  }
  template <typename Request, typename Response, typename Function>
  void AddBidiStream(std::string_view method, Function function) {
    Add(method, RpcType::kBidiStream,
        BidiStream<Request, Response>(runtime_, MetricsOf(method), std::move(function)));
  }

  // All methods that were not added. `sentence` says when they come, or why never.
  void RefuseTheRest(std::string_view sentence);

 private:
  const google::protobuf::MethodDescriptor& Find(std::string_view method) const;
  RpcMetrics* MetricsOf(std::string_view method) const;
  std::string PathOf(std::string_view method) const;
  void Add(std::string_view method, RpcType type, RpcMethod rpc);

  const google::protobuf::ServiceDescriptor* const descriptor_;
  Runtime* const runtime_;
  Metrics* const metrics_;
  RpcMethods* const methods_;
};

}  // namespace kv::api

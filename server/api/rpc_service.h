// The methods that the client port answers, registered by name in a table instead of through one
// generated class a service: an RPC is one row, and what has no row is answered UNIMPLEMENTED with
// a sentence, so that no method of the contract is ever unknown.
#pragma once

#include <google/protobuf/descriptor.h>

#include <string>
#include <string_view>
#include <type_traits>
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

  // The same for a service's member function, whose types say the rest. `service` outlives the
  // rows.
  template <typename Service, typename Request, typename Response>
  void AddUnary(std::string_view method, Service* service,
                void (Service::*function)(const Call&, Request, Done<Response>)) {
    using Value = std::remove_cvref_t<Request>;
    AddUnary<Value, Response>(
        method, [service, function](const Call& call, Value request, Done<Response> done) {
          (service->*function)(call, std::move(request), std::move(done));
        });
  }
  // A unary method that may take for ever: its service answers with one message of a stream, and so
  // can hear that the client is gone.
  template <typename Service, typename Request, typename Response>
  void AddWaiting(std::string_view method, Service* service,
                  void (Service::*function)(const Call&, Request, Writer<Response>*)) {
    Add(method, RpcType::kUnary,
        ServerStream<Request, Response>(
            runtime_, MetricsOf(method),
            [service, function](const Call& call, Request request, Writer<Response>* writer) {
              (service->*function)(call, std::move(request), writer);
            }));
  }
  template <typename Service, typename Request, typename Response>
  void AddServerStream(std::string_view method, Service* service,
                       void (Service::*function)(const Call&, Request, Writer<Response>*)) {
    AddServerStream<Request, Response>(
        method, [service, function](const Call& call, Request request, Writer<Response>* writer) {
          (service->*function)(call, std::move(request), writer);
        });
  }
  template <typename Service, typename Request, typename Response>
  void AddBidiStream(std::string_view method, Service* service,
                     void (Service::*function)(const Call&, Reader<Request>*, Writer<Response>*)) {
    AddBidiStream<Request, Response>(
        method,
        [service, function](const Call& call, Reader<Request>* reader, Writer<Response>* writer) {
          (service->*function)(call, reader, writer);
        });
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

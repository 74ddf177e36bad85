// Server reflection: which services this server has, and the .proto files behind them.
#pragma once

#include <set>
#include <string>

#include "proto/grpc/reflection.pb.h"
#include "server/api/call.h"

namespace kv::api {

// Thread-safe once the server listens.
class ReflectionService {
 public:
  using Request = grpc::reflection::v1::ServerReflectionRequest;
  using Response = grpc::reflection::v1::ServerReflectionResponse;

  void AddService(std::string name) { names_.insert(std::move(name)); }

  // Answers until the client has no more questions.
  void Info(Reader<Request>* reader, Writer<Response>* writer) const;

 private:
  Response Answer(const Request& request) const;

  std::set<std::string> names_;
};

}  // namespace kv::api

// The gRPC server of the client port: limits, keepalive, health and reflection around a table of
// methods. It knows no method by name.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace grpc {
class Server;
}

namespace kv::api {

struct Options;
class RpcService;

class GrpcServer {
 public:
  GrpcServer();
  ~GrpcServer();  // Stops at once if it was not stopped.
  GrpcServer(const GrpcServer&) = delete;
  GrpcServer& operator=(const GrpcServer&) = delete;

  // The services outlive the server. Fails with a sentence when a URL is not ours to have.
  absl::Status Start(const Options& options, const std::vector<RpcService*>& services);

  // What grpc.health.v1 answers for the whole server (service "") and for each service.
  void SetServing(bool serving);

  // Takes no new call, lets those in flight finish for at most `grace`, cancels the rest. Blocks
  // until the last one is over.
  void Stop(absl::Duration grace);

  int port() const { return port_; }  // Of the first URL.

 private:
  std::unique_ptr<grpc::Server> server_;
  std::vector<std::string> health_names_;
  int port_ = 0;
};

}  // namespace kv::api

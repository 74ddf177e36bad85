#include "server/api/grpc_server.h"

#include <grpc/impl/codegen/grpc_types.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/resource_quota.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>

#include "server/api/listen_url.h"
#include "server/api/rpc_service.h"
#include "server/api/services.h"
#include "storage/status.h"

namespace kv::api {
namespace {

// What a client may send above a request's limit, so that the limit's own error reaches it.
constexpr size_t kReceiveOverhead = size_t{512} << 10;
constexpr int kHandshakeTimeoutMs = 10'000;  // gRPC's own is two minutes of held connection.
constexpr int kMetadataBytesMax = 8 << 10;
// Reflection is the one service that blocks threads; this bounds how many.
constexpr int kThreadsMax = 16;

int Milliseconds(absl::Duration duration) {
  const int64_t milliseconds = absl::ToInt64Milliseconds(duration);
  return milliseconds > std::numeric_limits<int>::max() ? std::numeric_limits<int>::max()
                                                        : static_cast<int>(milliseconds);
}

void SetLimits(const Options& options, grpc::ServerBuilder* builder) {
  builder->SetMaxReceiveMessageSize(static_cast<int>(options.request_bytes_max + kReceiveOverhead));
  builder->SetMaxSendMessageSize(std::numeric_limits<int>::max());
  grpc::ResourceQuota quota("client port");
  quota.Resize(options.memory_bytes_max);
  quota.SetMaxThreads(kThreadsMax);
  builder->SetResourceQuota(quota);
  builder->AddChannelArgument(
      GRPC_ARG_MAX_CONCURRENT_STREAMS,
      static_cast<int>(
          std::min<uint32_t>(options.concurrent_streams_max, std::numeric_limits<int>::max())));
  builder->AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  builder->AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  // A second process on the same port must fail, not share its clients.
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
}

// A client that pings more often than every `keepalive_min_time` is told ENHANCE_YOUR_CALM, as
// etcd does; clients are set up for etcd's numbers.
void SetKeepalive(const Options& options, grpc::ServerBuilder* builder) {
  builder->AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                              Milliseconds(options.keepalive_min_time));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, Milliseconds(options.keepalive_interval));
  builder->AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS,
                              Milliseconds(options.keepalive_timeout));
}

// gRPC does not say why it cannot listen, so a socket of ours asks first.
absl::Status CheckFree(const ListenUrl& url) {
  ASSIGN_OR_RETURN(const Listeners listeners, OpenListeners(url));
  for (const int socket : listeners.sockets) close(socket);
  return absl::OkStatus();
}

}  // namespace

GrpcServer::GrpcServer() = default;
GrpcServer::~GrpcServer() { Stop(absl::ZeroDuration()); }

absl::Status GrpcServer::Start(const Options& options, const std::vector<RpcService*>& services) {
  // Both are switches of the whole process. Reflection is on as soon as its library is linked; the
  // call keeps the linker from leaving the library out.
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  grpc::ServerBuilder builder;
  SetLimits(options, &builder);
  SetKeepalive(options, &builder);
  std::vector<int> ports(options.listen_client_urls.size(), 0);
  for (size_t i = 0; i < ports.size(); ++i) {
    ASSIGN_OR_RETURN(const ListenUrl url, ParseListenUrl(options.listen_client_urls[i]));
    RETURN_IF_ERROR(CheckFree(url));
    builder.AddListeningPort(url.HostPort(), grpc::InsecureServerCredentials(), &ports[i]);
  }
  for (RpcService* service : services) {
    builder.RegisterService(service);
    health_names_.push_back(service->full_name());
  }
  server_ = builder.BuildAndStart();
  for (size_t i = 0; i < ports.size(); ++i) {
    if (server_ != nullptr && ports[i] != 0) continue;
    server_ = nullptr;
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "cannot listen on {}; another process may have taken this port",
                      options.listen_client_urls[i]);
  }
  if (server_ == nullptr) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "there is no URL to serve clients on; set --listen-client-urls");
  }
  port_ = ports.front();
  SetServing(false);
  return absl::OkStatus();
}

void GrpcServer::SetServing(bool serving) {
  grpc::HealthCheckServiceInterface* health = server_->GetHealthCheckService();
  health->SetServingStatus("", serving);
  for (const std::string& name : health_names_) health->SetServingStatus(name, serving);
}

void GrpcServer::Stop(absl::Duration grace) {
  if (server_ == nullptr) return;
  SetServing(false);
  server_->Shutdown(std::chrono::system_clock::now() + absl::ToChronoMilliseconds(grace));
  server_->Wait();
  server_ = nullptr;
}

}  // namespace kv::api

#include "server/platform.h"

#include <utility>

#include "server/kube/desired.h"
#include "server/kube/marker.h"
#include "storage/status.h"

namespace kv {

absl::StatusOr<std::unique_ptr<Platform>> Platform::Open(
    Runtime* runtime, const DiscoveryConfig& discovery,
    const std::function<std::string(const char* variable)>& environment) {
  std::unique_ptr<Platform> platform(new Platform);
  if (discovery.statefulset.empty()) return platform;
  const bool asks_server =
      discovery.desired_from == DiscoveryConfig::DesiredFrom::kApiServer || discovery.marker;
  if (asks_server) {
    absl::StatusOr<kube::ApiClientOptions> options = kube::InPod(environment);
    if (!options.ok()) {
      return MakeStatus(options.status().code(),
                        "--kubernetes-statefulset={}: {}; to do without, give "
                        "--desired-replicas-source=file and --bootstrap-marker=none",
                        discovery.statefulset, Message(options.status()));
    }
    platform->client_ = std::make_unique<kube::ApiClient>(runtime, *std::move(options));
  }
  const std::string& name_space = discovery.kubernetes_namespace;
  if (discovery.desired_from == DiscoveryConfig::DesiredFrom::kApiServer) {
    platform->desired_ = std::make_unique<kube::StatefulSetReplicas>(
        platform->client_.get(), name_space, discovery.statefulset);
  } else {
    platform->desired_ = std::make_unique<kube::ReplicasFile>(runtime, discovery.desired_file);
  }
  if (discovery.marker) {
    platform->marker_ = std::make_unique<kube::ConfigMapMarker>(platform->client_.get(), name_space,
                                                                discovery.marker_name);
  }
  return platform;
}

}  // namespace kv

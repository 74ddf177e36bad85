// What the settings say about the platform that runs this member, as the objects that speak to it
// (cluster/outside.h): who says how many members are wanted, and who keeps the marker.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "server/cluster/outside.h"
#include "server/config.h"
#include "server/kube/api_client.h"
#include "server/replica/runtime.h"

namespace kv {

class Platform {
 public:
  // Asks nobody yet. An error says what the process lacks to ask. `runtime` outlives the platform.
  static absl::StatusOr<std::unique_ptr<Platform>> Open(
      Runtime* runtime, const DiscoveryConfig& discovery,
      const std::function<std::string(const char* variable)>& environment);

  // Null: nobody says how many are wanted.
  cluster::DesiredSource* desired() const { return desired_.get(); }
  // Null: no marker is kept.
  cluster::MarkerStore* marker() const { return marker_.get(); }

 private:
  Platform() = default;

  // In the order in which they use each other.
  std::unique_ptr<kube::ApiClient> client_;
  std::unique_ptr<cluster::DesiredSource> desired_;
  std::unique_ptr<cluster::MarkerStore> marker_;
};

}  // namespace kv

// The marker of a cluster in a ConfigMap: data.clusterId (hexadecimal) and data.phase, "forming" or
// "formed". The ConfigMap comes with the chart and without these keys, so that no tool that applies
// the chart owns or resets them; it is only ever changed, never made.
#pragma once

#include <string>
#include <string_view>

#include "server/cluster/outside.h"
#include "server/kube/api_client.h"

namespace kv::kube {

class ConfigMapMarker final : public cluster::MarkerStore {
 public:
  // `client` outlives it.
  ConfigMapMarker(ApiClient* client, std::string_view name_space, std::string_view name);
  void Read(absl::AnyInvocable<void(absl::StatusOr<cluster::Marker>) &&> done) override;
  void Write(cluster::Marker marker, absl::AnyInvocable<void(absl::Status) &&> done) override;

 private:
  absl::Status Missing() const;

  ApiClient* const client_;
  const std::string namespace_;
  const std::string name_;
  const std::string path_;
};

}  // namespace kv::kube

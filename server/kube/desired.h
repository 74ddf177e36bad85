// Where the wanted number of members comes from (cluster::DesiredSource): the StatefulSet itself,
// or a file that somebody keeps.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "server/cluster/outside.h"
#include "server/kube/api_client.h"
#include "server/replica/runtime.h"

namespace kv::kube {

// Reads the StatefulSet's replicas, whether it is being deleted, and where its ordinals begin.
class StatefulSetReplicas final : public cluster::DesiredSource {
 public:
  // `client` outlives it.
  StatefulSetReplicas(ApiClient* client, std::string_view name_space, std::string_view name);
  void Read(absl::AnyInvocable<void(cluster::DesiredCount) &&> done) override;

 private:
  ApiClient* const client_;
  const std::string path_;
};

// What the API server's answer for a StatefulSet says. Pure.
cluster::DesiredCount ReadStatefulSet(const absl::StatusOr<ApiAnswer>& answer);

// A file that holds one number, as a mounted ConfigMap does. It is read anew each time.
class ReplicasFile final : public cluster::DesiredSource {
 public:
  ReplicasFile(Runtime* runtime, std::string path);
  void Read(absl::AnyInvocable<void(cluster::DesiredCount) &&> done) override;

 private:
  const std::string path_;
  std::unique_ptr<Loop> loop_;
};

}  // namespace kv::kube

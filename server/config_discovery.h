// Settings of members that find each other by themselves (--join, --kubernetes-…), and of how one
// stops.
#pragma once

#include <vector>

#include "absl/status/status.h"
#include "server/config.h"
#include "server/config_flags.h"

namespace kv {

// Of the groups "Discovery", "Kubernetes" and "Stopping".
std::vector<Flag> DiscoveryFlags();

// Under discovery: which slot this is, and from it name and addresses as far as nobody gave them.
// `config.name` is empty if nobody gave it. Without discovery it does nothing.
absl::Status FillDiscovery(const ConfigSources& sources, Config& config);

}  // namespace kv

// Endpoints from DNS.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kv::kvctl {

// The targets of the SRV records `_etcd-client-ssl._tcp.DOMAIN` (as https://…) and
// `_etcd-client._tcp.DOMAIN` (as http://…), by priority; a service name is a suffix:
// `_etcd-client-NAME._tcp.DOMAIN`.
absl::StatusOr<std::vector<std::string>> DiscoverEndpoints(const std::string& domain,
                                                           const std::string& service_name);

}  // namespace kv::kvctl

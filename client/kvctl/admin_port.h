// What a member tells over HTTP.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"

namespace kv::kvctl {

// Resident memory of the member that answers at `endpoint`, in bytes, from its page of metrics: at
// `url` if it is not empty; otherwise where etcd has it, the client's own address, or where kvd's
// admin port is by custom, two ports above. A guessed page must be that of `member_id`.
absl::StatusOr<double> ResidentMemory(const std::string& endpoint, const std::string& url,
                                      uint64_t member_id);

}  // namespace kv::kvctl

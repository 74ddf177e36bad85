// Refusals that depend on the state, with the contract's codes and texts (etcd-v3-api.md §1.3).
// Those that a request alone shows are the edge's.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

namespace kv {

absl::Status KeyNotFoundError();
absl::Status LeaseNotFoundError();
absl::Status LeaseExistsError();
absl::Status LeaseTtlTooLargeError();
absl::Status TooManyLeasesError();
absl::Status AuthOldRevisionError();
absl::Status NoSpaceError();
absl::Status CorruptError();
absl::Status DowngradeInProcessError();
// The reply is larger than a message may be; `applied` says whether its command took effect.
enum class Effect { kNone, kApplied };
absl::Status TooLargeError(uint64_t bytes_max, Effect effect);

}  // namespace kv

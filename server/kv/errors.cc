#include "server/kv/errors.h"

#include "storage/status.h"

namespace kv {

absl::Status KeyNotFoundError() {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "etcdserver: key not found");
}
absl::Status LeaseNotFoundError() {
  return MakeStatus(absl::StatusCode::kNotFound, "etcdserver: requested lease not found");
}
absl::Status LeaseExistsError() {
  return MakeStatus(absl::StatusCode::kFailedPrecondition, "etcdserver: lease already exists");
}
absl::Status LeaseTtlTooLargeError() {
  return MakeStatus(absl::StatusCode::kOutOfRange, "etcdserver: too large lease TTL");
}
absl::Status TooManyLeasesError() {
  return MakeStatus(absl::StatusCode::kResourceExhausted, "etcdserver: too many requests");
}
absl::Status AuthOldRevisionError() {
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    "etcdserver: revision of auth store is old");
}
absl::Status NoSpaceError() {
  return MakeStatus(absl::StatusCode::kResourceExhausted,
                    "etcdserver: mvcc: database space exceeded");
}
absl::Status CorruptError() {
  return MakeStatus(absl::StatusCode::kDataLoss, "etcdserver: corrupt cluster");
}
absl::Status DowngradeInProcessError() {
  return MakeStatus(absl::StatusCode::kFailedPrecondition,
                    "etcdserver: cluster has a downgrade job in progress");
}

absl::Status TooLargeError(uint64_t bytes_max, Effect effect) {
  if (effect == Effect::kApplied) {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "the request took effect, but its answer is larger than {} bytes; read what "
                      "it changed in parts",
                      bytes_max);
  }
  return MakeStatus(absl::StatusCode::kResourceExhausted,
                    "the answer is larger than {} bytes; ask with a limit, or use RangeStream",
                    bytes_max);
}

}  // namespace kv

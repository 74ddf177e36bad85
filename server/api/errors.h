// The errors of the contract, once: code and exact text (etcd-v3-api.md §1.3). Clients compare
// texts, so neither may change.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "absl/status/status.h"
#include "server/replica/replica.h"

namespace kv::api {

enum class Error : uint8_t {
  kEmptyKey,
  kKeyNotFound,
  kValueProvided,
  kLeaseProvided,
  kTooManyOps,
  kDuplicateKey,
  kInvalidClientApiVersion,
  kInvalidSortOption,
  kMemberBadUrls,
  kRequestTooLarge,
  kUserEmpty,
  kRoleEmpty,
  kAuthFailed,
  kPermissionNotGiven,
  kInvalidAuthMgmt,
  kAuthOldRevision,
  kWrongDowngradeVersionFormat,
  kInvalidDowngradeTargetVersion,
  kCompacted,
  kFutureRevision,
  kLeaseTtlTooLarge,
  kNoSpace,
  kTooManyRequests,
  kLeaseNotFound,
  kMemberNotFound,
  kLeaseExists,
  kMemberExists,
  kPeerUrlExists,
  kMemberNotEnoughStarted,
  kMemberNotLearner,
  kLearnerNotReady,
  kTooManyLearners,
  kClusterIdMismatch,
  kRootUserNotExist,
  kRootRoleNotExist,
  kUserAlreadyExists,
  kUserNotFound,
  kRoleAlreadyExists,
  kRoleNotFound,
  kRoleNotGranted,
  kPermissionNotGranted,
  kAuthNotEnabled,
  kNotLeader,
  kNotCapable,
  kNotSupportedForLearner,
  kBadLeaderTransferee,
  kClusterVersionUnavailable,
  kDowngradeInProcess,
  kNoInflightDowngrade,
  kNoLeader,
  kLeaderChanged,
  kStopped,
  kTimeout,
  kTimeoutDueToLeaderFail,
  kTimeoutDueToConnectionLost,
  kTimeoutWaitAppliedIndex,
  kUnhealthy,
  kCorrupt,
  kPermissionDenied,
  kInvalidAuthToken,
  kWatchCanceled,
  kCanceled,
  kDeadlineExceeded,
};

struct ContractError {
  Error error;
  absl::StatusCode code;
  std::string_view text;
};

// Every row, in the order of the enumeration.
std::span<const ContractError> ContractErrors();

absl::Status ToStatus(Error error);

// What a caller hears when the replica did not do what it was asked. Only kUnknown leaves open
// whether a write happened, and its text is one that no client retries a write for by itself.
absl::Status ToStatus(ReplicaError error);

}  // namespace kv::api

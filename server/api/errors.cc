#include "server/api/errors.h"

#include <array>
#include <cstddef>
#include <string>

#include "storage/check.h"

namespace kv::api {
namespace {

using Code = absl::StatusCode;

constexpr std::array kErrors = {
    ContractError{Error::kEmptyKey, Code::kInvalidArgument, "etcdserver: key is not provided"},
    ContractError{Error::kKeyNotFound, Code::kInvalidArgument, "etcdserver: key not found"},
    ContractError{Error::kValueProvided, Code::kInvalidArgument, "etcdserver: value is provided"},
    ContractError{Error::kLeaseProvided, Code::kInvalidArgument, "etcdserver: lease is provided"},
    ContractError{Error::kTooManyOps, Code::kInvalidArgument,
                  "etcdserver: too many operations in txn request"},
    ContractError{Error::kDuplicateKey, Code::kInvalidArgument,
                  "etcdserver: duplicate key given in txn request"},
    ContractError{Error::kInvalidClientApiVersion, Code::kInvalidArgument,
                  "etcdserver: invalid client api version"},
    ContractError{Error::kInvalidSortOption, Code::kInvalidArgument,
                  "etcdserver: invalid sort option"},
    ContractError{Error::kMemberBadUrls, Code::kInvalidArgument,
                  "etcdserver: given member URLs are invalid"},
    ContractError{Error::kRequestTooLarge, Code::kInvalidArgument,
                  "etcdserver: request is too large"},
    ContractError{Error::kUserEmpty, Code::kInvalidArgument, "etcdserver: user name is empty"},
    ContractError{Error::kRoleEmpty, Code::kInvalidArgument, "etcdserver: role name is empty"},
    ContractError{Error::kAuthFailed, Code::kInvalidArgument,
                  "etcdserver: authentication failed, invalid user ID or password"},
    ContractError{Error::kPermissionNotGiven, Code::kInvalidArgument,
                  "etcdserver: permission not given"},
    ContractError{Error::kInvalidAuthMgmt, Code::kInvalidArgument,
                  "etcdserver: invalid auth management"},
    ContractError{Error::kAuthOldRevision, Code::kInvalidArgument,
                  "etcdserver: revision of auth store is old"},
    ContractError{Error::kWrongDowngradeVersionFormat, Code::kInvalidArgument,
                  "etcdserver: wrong downgrade target version format"},
    ContractError{Error::kInvalidDowngradeTargetVersion, Code::kInvalidArgument,
                  "etcdserver: invalid downgrade target version"},
    ContractError{Error::kCompacted, Code::kOutOfRange,
                  "etcdserver: mvcc: required revision has been compacted"},
    ContractError{Error::kFutureRevision, Code::kOutOfRange,
                  "etcdserver: mvcc: required revision is a future revision"},
    ContractError{Error::kLeaseTtlTooLarge, Code::kOutOfRange, "etcdserver: too large lease TTL"},
    ContractError{Error::kNoSpace, Code::kResourceExhausted,
                  "etcdserver: mvcc: database space exceeded"},
    ContractError{Error::kTooManyRequests, Code::kResourceExhausted,
                  "etcdserver: too many requests"},
    ContractError{Error::kLeaseNotFound, Code::kNotFound, "etcdserver: requested lease not found"},
    ContractError{Error::kMemberNotFound, Code::kNotFound, "etcdserver: member not found"},
    ContractError{Error::kLeaseExists, Code::kFailedPrecondition,
                  "etcdserver: lease already exists"},
    ContractError{Error::kMemberExists, Code::kFailedPrecondition,
                  "etcdserver: member ID already exist"},
    ContractError{Error::kPeerUrlExists, Code::kFailedPrecondition,
                  "etcdserver: Peer URLs already exists"},
    ContractError{Error::kMemberNotEnoughStarted, Code::kFailedPrecondition,
                  "etcdserver: re-configuration failed due to not enough started members"},
    ContractError{Error::kMemberNotLearner, Code::kFailedPrecondition,
                  "etcdserver: can only promote a learner member"},
    ContractError{Error::kLearnerNotReady, Code::kFailedPrecondition,
                  "etcdserver: can only promote a learner member which is in sync with leader"},
    ContractError{Error::kTooManyLearners, Code::kFailedPrecondition,
                  "etcdserver: too many learner members in cluster"},
    ContractError{Error::kClusterIdMismatch, Code::kFailedPrecondition,
                  "etcdserver: cluster ID mismatch"},
    ContractError{Error::kRootUserNotExist, Code::kFailedPrecondition,
                  "etcdserver: root user does not exist"},
    ContractError{Error::kRootRoleNotExist, Code::kFailedPrecondition,
                  "etcdserver: root user does not have root role"},
    ContractError{Error::kUserAlreadyExists, Code::kFailedPrecondition,
                  "etcdserver: user name already exists"},
    ContractError{Error::kUserNotFound, Code::kFailedPrecondition,
                  "etcdserver: user name not found"},
    ContractError{Error::kRoleAlreadyExists, Code::kFailedPrecondition,
                  "etcdserver: role name already exists"},
    ContractError{Error::kRoleNotFound, Code::kFailedPrecondition,
                  "etcdserver: role name not found"},
    ContractError{Error::kRoleNotGranted, Code::kFailedPrecondition,
                  "etcdserver: role is not granted to the user"},
    ContractError{Error::kPermissionNotGranted, Code::kFailedPrecondition,
                  "etcdserver: permission is not granted to the role"},
    ContractError{Error::kAuthNotEnabled, Code::kFailedPrecondition,
                  "etcdserver: authentication is not enabled"},
    ContractError{Error::kNotLeader, Code::kFailedPrecondition, "etcdserver: not leader"},
    ContractError{Error::kNotCapable, Code::kFailedPrecondition, "etcdserver: not capable"},
    ContractError{Error::kNotSupportedForLearner, Code::kFailedPrecondition,
                  "etcdserver: rpc not supported for learner"},
    ContractError{Error::kBadLeaderTransferee, Code::kFailedPrecondition,
                  "etcdserver: bad leader transferee"},
    ContractError{Error::kClusterVersionUnavailable, Code::kFailedPrecondition,
                  "etcdserver: cluster version not found during downgrade"},
    ContractError{Error::kDowngradeInProcess, Code::kFailedPrecondition,
                  "etcdserver: cluster has a downgrade job in progress"},
    ContractError{Error::kNoInflightDowngrade, Code::kFailedPrecondition,
                  "etcdserver: no inflight downgrade job"},
    ContractError{Error::kNoLeader, Code::kUnavailable, "etcdserver: no leader"},
    ContractError{Error::kLeaderChanged, Code::kUnavailable, "etcdserver: leader changed"},
    ContractError{Error::kStopped, Code::kUnavailable, "etcdserver: server stopped"},
    ContractError{Error::kTimeout, Code::kUnavailable, "etcdserver: request timed out"},
    ContractError{Error::kTimeoutDueToLeaderFail, Code::kUnavailable,
                  "etcdserver: request timed out, possibly due to previous leader failure"},
    ContractError{Error::kTimeoutDueToConnectionLost, Code::kUnavailable,
                  "etcdserver: request timed out, possibly due to connection lost"},
    ContractError{Error::kTimeoutWaitAppliedIndex, Code::kUnavailable,
                  "etcdserver: request timed out, waiting for the applied index took too long"},
    ContractError{Error::kUnhealthy, Code::kUnavailable, "etcdserver: unhealthy cluster"},
    ContractError{Error::kCorrupt, Code::kDataLoss, "etcdserver: corrupt cluster"},
    ContractError{Error::kPermissionDenied, Code::kPermissionDenied,
                  "etcdserver: permission denied"},
    ContractError{Error::kInvalidAuthToken, Code::kUnauthenticated,
                  "etcdserver: invalid auth token"},
    ContractError{Error::kWatchCanceled, Code::kCancelled, "etcdserver: watch canceled"},
    ContractError{Error::kCanceled, Code::kCancelled, "etcdserver: request canceled"},
    ContractError{Error::kDeadlineExceeded, Code::kDeadlineExceeded,
                  "etcdserver: context deadline exceeded"},
};

constexpr bool InOrder() {
  for (size_t i = 0; i < kErrors.size(); ++i) {
    if (static_cast<size_t>(kErrors[i].error) != i) return false;
  }
  return true;
}
static_assert(InOrder(), "a row of the table is missing or out of place");

}  // namespace

std::span<const ContractError> ContractErrors() { return kErrors; }

absl::Status ToStatus(Error error) {
  const ContractError& row = kErrors[static_cast<size_t>(error)];
  return absl::Status(row.code, std::string(row.text));
}

absl::Status ToStatus(ReplicaError error) {
  switch (error) {
    case ReplicaError::kNone:
      return absl::OkStatus();
    case ReplicaError::kNoLeader:
      return ToStatus(Error::kNoLeader);
    case ReplicaError::kOverloaded:
      return ToStatus(Error::kTooManyRequests);
    case ReplicaError::kNotAccepted:
      return ToStatus(Error::kLeaderChanged);
    case ReplicaError::kStopped:
      return ToStatus(Error::kStopped);
    case ReplicaError::kUnknown:
      return ToStatus(Error::kTimeout);
  }
  KV_CHECK(false, "a replica error without a name");
}

}  // namespace kv::api

// The table of errors is the contract's, row by row.
#include "server/api/errors.h"

#include <catch2/catch_test_macros.hpp>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/kv/errors.h"
#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using Code = absl::StatusCode;

struct Row {
  Code code;
  std::string_view text;
};

// etcd-v3-api.md §1.3, in its order.
const std::vector<Row> kContract = {
    {Code::kInvalidArgument, "etcdserver: key is not provided"},
    {Code::kInvalidArgument, "etcdserver: key not found"},
    {Code::kInvalidArgument, "etcdserver: value is provided"},
    {Code::kInvalidArgument, "etcdserver: lease is provided"},
    {Code::kInvalidArgument, "etcdserver: too many operations in txn request"},
    {Code::kInvalidArgument, "etcdserver: duplicate key given in txn request"},
    {Code::kInvalidArgument, "etcdserver: invalid client api version"},
    {Code::kInvalidArgument, "etcdserver: invalid sort option"},
    {Code::kInvalidArgument, "etcdserver: given member URLs are invalid"},
    {Code::kInvalidArgument, "etcdserver: request is too large"},
    {Code::kInvalidArgument, "etcdserver: user name is empty"},
    {Code::kInvalidArgument, "etcdserver: role name is empty"},
    {Code::kInvalidArgument, "etcdserver: authentication failed, invalid user ID or password"},
    {Code::kInvalidArgument, "etcdserver: permission not given"},
    {Code::kInvalidArgument, "etcdserver: invalid auth management"},
    {Code::kInvalidArgument, "etcdserver: revision of auth store is old"},
    {Code::kInvalidArgument, "etcdserver: wrong downgrade target version format"},
    {Code::kInvalidArgument, "etcdserver: invalid downgrade target version"},
    {Code::kOutOfRange, "etcdserver: mvcc: required revision has been compacted"},
    {Code::kOutOfRange, "etcdserver: mvcc: required revision is a future revision"},
    {Code::kOutOfRange, "etcdserver: too large lease TTL"},
    {Code::kResourceExhausted, "etcdserver: mvcc: database space exceeded"},
    {Code::kResourceExhausted, "etcdserver: too many requests"},
    {Code::kNotFound, "etcdserver: requested lease not found"},
    {Code::kNotFound, "etcdserver: member not found"},
    {Code::kFailedPrecondition, "etcdserver: lease already exists"},
    {Code::kFailedPrecondition, "etcdserver: member ID already exist"},
    {Code::kFailedPrecondition, "etcdserver: Peer URLs already exists"},
    {Code::kFailedPrecondition,
     "etcdserver: re-configuration failed due to not enough started members"},
    {Code::kFailedPrecondition, "etcdserver: can only promote a learner member"},
    {Code::kFailedPrecondition,
     "etcdserver: can only promote a learner member which is in sync with leader"},
    {Code::kFailedPrecondition, "etcdserver: too many learner members in cluster"},
    {Code::kFailedPrecondition, "etcdserver: cluster ID mismatch"},
    {Code::kFailedPrecondition, "etcdserver: root user does not exist"},
    {Code::kFailedPrecondition, "etcdserver: root user does not have root role"},
    {Code::kFailedPrecondition, "etcdserver: user name already exists"},
    {Code::kFailedPrecondition, "etcdserver: user name not found"},
    {Code::kFailedPrecondition, "etcdserver: role name already exists"},
    {Code::kFailedPrecondition, "etcdserver: role name not found"},
    {Code::kFailedPrecondition, "etcdserver: role is not granted to the user"},
    {Code::kFailedPrecondition, "etcdserver: permission is not granted to the role"},
    {Code::kFailedPrecondition, "etcdserver: authentication is not enabled"},
    {Code::kFailedPrecondition, "etcdserver: not leader"},
    {Code::kFailedPrecondition, "etcdserver: not capable"},
    {Code::kFailedPrecondition, "etcdserver: rpc not supported for learner"},
    {Code::kFailedPrecondition, "etcdserver: bad leader transferee"},
    {Code::kFailedPrecondition, "etcdserver: cluster version not found during downgrade"},
    {Code::kFailedPrecondition, "etcdserver: cluster has a downgrade job in progress"},
    {Code::kFailedPrecondition, "etcdserver: no inflight downgrade job"},
    {Code::kUnavailable, "etcdserver: no leader"},
    {Code::kUnavailable, "etcdserver: leader changed"},
    {Code::kUnavailable, "etcdserver: server stopped"},
    {Code::kUnavailable, "etcdserver: request timed out"},
    {Code::kUnavailable, "etcdserver: request timed out, possibly due to previous leader failure"},
    {Code::kUnavailable, "etcdserver: request timed out, possibly due to connection lost"},
    {Code::kUnavailable,
     "etcdserver: request timed out, waiting for the applied index took too long"},
    {Code::kUnavailable, "etcdserver: unhealthy cluster"},
    {Code::kDataLoss, "etcdserver: corrupt cluster"},
    {Code::kPermissionDenied, "etcdserver: permission denied"},
    {Code::kUnauthenticated, "etcdserver: invalid auth token"},
    {Code::kCancelled, "etcdserver: watch canceled"},
    {Code::kCancelled, "etcdserver: request canceled"},
    {Code::kDeadlineExceeded, "etcdserver: context deadline exceeded"},
};

}  // namespace

TEST_CASE("every error of the contract has its code and its exact text") {
  const auto errors = ContractErrors();
  REQUIRE(errors.size() == kContract.size());
  for (size_t i = 0; i < errors.size(); ++i) {
    CAPTURE(kContract[i].text);
    CHECK(errors[i].code == kContract[i].code);
    CHECK(errors[i].text == kContract[i].text);
    const absl::Status status = ToStatus(errors[i].error);
    CHECK(status.code() == kContract[i].code);
    CHECK(Message(status) == kContract[i].text);
  }
}

TEST_CASE("no two errors of the contract have one text") {
  std::set<std::string_view> texts;
  for (const ContractError& error : ContractErrors()) CHECK(texts.insert(error.text).second);
}

TEST_CASE("the machine's refusals are the contract's") {
  CHECK(KeyNotFoundError() == ToStatus(Error::kKeyNotFound));
  CHECK(LeaseNotFoundError() == ToStatus(Error::kLeaseNotFound));
  CHECK(AuthOldRevisionError() == ToStatus(Error::kAuthOldRevision));
  CHECK(CompactedError() == ToStatus(Error::kCompacted));
  CHECK(FutureRevisionError() == ToStatus(Error::kFutureRevision));
}

TEST_CASE("only an unknown outcome is answered as one") {
  CHECK(ToStatus(ReplicaError::kNone).ok());
  CHECK(ToStatus(ReplicaError::kUnknown) == ToStatus(Error::kTimeout));
  CHECK(ToStatus(ReplicaError::kNoLeader) == ToStatus(Error::kNoLeader));
  CHECK(ToStatus(ReplicaError::kOverloaded) == ToStatus(Error::kTooManyRequests));
  CHECK(ToStatus(ReplicaError::kNotAccepted) == ToStatus(Error::kLeaderChanged));
  CHECK(ToStatus(ReplicaError::kStopped) == ToStatus(Error::kStopped));
}

}  // namespace kv::api

#include "server/kv/lease_commands.h"

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/errors.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

using Changes = std::vector<LeaseChange>;
using Kind = LeaseChange::Kind;

Reply Refused(absl::Status status) { return {.status = std::move(status), .body = {}}; }

template <typename Response>
Reply Replied(const Batch& batch, Response& response) {
  response.mutable_header()->set_revision(batch.revision());
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

// The keys in their order, the lease with them, as one revision.
void End(Batch& batch, const Lease& lease) {
  for (const std::string& key : batch.Attached(lease.id)) {
    batch.DeleteRange(KeyRange::FromRequest(key, {}));
    if (MUTANT("lease.ends_in_pieces")) batch.Finish();
  }
  batch.EraseLease(lease.id);
  batch.Finish();
}

// The lease that the leader means: not one of the same id that was granted since.
std::optional<Lease> FindGranted(const Batch& batch, int64_t id, uint64_t granted) {
  std::optional<Lease> lease = batch.FindLease(id);
  if (lease && lease->granted != granted) return std::nullopt;
  return lease;
}

Reply Grant(Batch& batch, const etcdserverpb::LeaseGrantRequest& request, Position at,
            Changes& changes) {
  if (request.id() == 0) return Refused(LeaseNotFoundError());
  if (request.ttl() > kLeaseTtlMax) return Refused(LeaseTtlTooLargeError());
  if (batch.FindLease(request.id())) return Refused(LeaseExistsError());
  if (batch.leases() >= kLeasesMax) return Refused(TooManyLeasesError());
  const Lease lease{.id = request.id(), .ttl = request.ttl(), .remaining = 0, .granted = at.index};
  batch.SetLease(lease);
  changes.push_back({.kind = Kind::kGranted, .lease = lease});
  etcdserverpb::LeaseGrantResponse response;
  response.set_id(lease.id);
  response.set_ttl(lease.ttl);
  return Replied(batch, response);
}

Reply Revoke(Batch& batch, const etcdserverpb::LeaseRevokeRequest& request, Changes& changes) {
  const std::optional<Lease> lease = batch.FindLease(request.id());
  if (!lease) return Refused(LeaseNotFoundError());
  End(batch, *lease);
  changes.push_back({.kind = Kind::kRevoked, .lease = *lease});
  etcdserverpb::LeaseRevokeResponse response;
  return Replied(batch, response);
}

// Whether the leader that decided is the one whose entry this is. One that was deposed meanwhile
// knows nothing of what its successor renewed.
bool IsOf(uint64_t term, Position at) {
  if (term == at.term) return true;
  MARK("lease.told_by_an_old_leader");
  return MUTANT("lease.expiry_of_an_old_term");
}

Reply Expire(Batch& batch, const kvd::internal::LeaseExpiry& expiry, Position at,
             Changes& changes) {
  if (!IsOf(expiry.term(), at)) return {};
  for (const auto& expired : expiry.leases()) {
    const std::optional<Lease> lease = FindGranted(batch, expired.id(), expired.granted());
    if (!lease) continue;
    End(batch, *lease);
    changes.push_back({.kind = Kind::kExpired, .lease = *lease});
  }
  return {};
}

Reply Checkpoint(Batch& batch, const kvd::internal::LeaseCheckpoints& checkpoints, Position at,
                 Changes& changes) {
  if (!IsOf(checkpoints.term(), at)) return {};
  for (const auto& checkpoint : checkpoints.checkpoints()) {
    std::optional<Lease> lease = FindGranted(batch, checkpoint.id(), checkpoint.granted());
    if (!lease) continue;
    lease->remaining = checkpoint.remaining();
    batch.SetLease(*lease);
    changes.push_back({.kind = Kind::kCheckpointed, .lease = *lease});
  }
  return {};
}

template <typename Body, typename Function>
Reply WithBody(const CommandView& command, std::string_view name, Function function) {
  Body body;
  if (!body.ParseFromArray(command.body.data(), static_cast<int>(command.body.size()))) {
    return Refused(MakeStatus(absl::StatusCode::kInvalidArgument,
                              "the body of a command is not a {}; nothing was changed", name));
  }
  return function(body);
}

}  // namespace

Reply DoLeaseCommand(Batch& batch, const CommandView& command, Position at, Changes& changes) {
  switch (command.kind) {
    case kvd::internal::LEASE_GRANT:
      return WithBody<etcdserverpb::LeaseGrantRequest>(
          command, "LeaseGrantRequest",
          [&](const auto& request) { return Grant(batch, request, at, changes); });
    case kvd::internal::LEASE_REVOKE:
      return WithBody<etcdserverpb::LeaseRevokeRequest>(
          command, "LeaseRevokeRequest",
          [&](const auto& request) { return Revoke(batch, request, changes); });
    case kvd::internal::LEASE_EXPIRE:
      return WithBody<kvd::internal::LeaseExpiry>(command, "LeaseExpiry", [&](const auto& expiry) {
        return Expire(batch, expiry, at, changes);
      });
    default:
      return WithBody<kvd::internal::LeaseCheckpoints>(
          command, "LeaseCheckpoints",
          [&](const auto& checkpoints) { return Checkpoint(batch, checkpoints, at, changes); });
  }
}

}  // namespace kv

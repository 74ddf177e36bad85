// Leases, as commands of the log: granted, revoked, expired, checkpointed.
//
// The machine knows no time. It keeps what was granted and what was left at the latest checkpoint;
// when a lease is over is for the leader to say (lessor.h). What its keys are follows from the keys
// (Batch), so a revoke deletes them as a DeleteRange would.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "server/kv/command.h"
#include "server/replica/machine.h"
#include "storage/mvcc.h"

namespace kv {

// The first machine version that knows leases: none is granted before the cluster is there.
inline constexpr uint32_t kLeaseMachineVersion = 2;

inline constexpr int64_t kLeaseTtlMax = 9'000'000'000;  // Seconds; the contract's.
// Leases are kept in memory: more than this many at once are refused.
inline constexpr size_t kLeasesMax = size_t{1} << 20;

// What a command did to a lease, for the leader's lessor.
struct LeaseChange {
  enum class Kind : uint8_t { kGranted, kRevoked, kExpired, kCheckpointed };
  Kind kind = Kind::kGranted;
  Lease lease;  // As it is now, or was before it went.
};

// Does one of the LEASE_ commands on the batch, which may be several revisions, and appends what it
// did to `changes`. `at` is the entry's position.
Reply DoLeaseCommand(Batch& batch, const CommandView& command, Position at,
                     std::vector<LeaseChange>& changes);

}  // namespace kv

// A member's leases, its machine and its replica, put together.
#pragma once

#include <memory>

#include "server/kv/kv_machine.h"
#include "server/kv/lease_keeper.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"

namespace kv {

// Whoever owns the two may make them later: they are looked for when they are needed. Election
// timeout and metrics are left to be set.
LeaseKeeper::Parts LeaseParts(Runtime& runtime, const std::unique_ptr<KvMachine>& machine,
                              const std::unique_ptr<Replica>& replica);

}  // namespace kv

// What a member starts from, out of what its disk holds.
//
// The log is the only thing that is synced; the machine's state may be behind it, never ahead,
// except while a snapshot is being adopted (decided in this order: noted in the log, state
// switched, log reset).
#pragma once

#include "absl/status/statusor.h"
#include "server/raft/core.h"
#include "server/replica/machine.h"
#include "storage/floor.h"
#include "storage/log_store.h"

namespace kv {

// The log holds the machine's applied position, index and term: replay the rest. Otherwise, if the
// adoption of a snapshot at just that position was under way: reset the log to it, durably.
// Otherwise refuse with a sentence that names both positions. Before the loops start; `contents` is
// what `store` loaded, and Floor::Open has agreed to it.
absl::StatusOr<raft::Found> Recover(LogStore::Contents contents, LogStore& store, Floor& floor,
                                    const Machine& machine);

}  // namespace kv

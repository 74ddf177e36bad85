#include "server/replica/recovery.h"

#include <utility>
#include <vector>

#include "storage/mark.h"
#include "storage/status.h"

namespace kv {

absl::StatusOr<raft::Found> Recover(LogStore::Contents contents, LogStore& store, Floor& floor,
                                    const Machine& machine) {
  Position applied = machine.applied();
  if (contents.hard_state.term < applied.term) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the state stands at index {}, term {}, but the log has only seen term {}; "
                      "they do not belong together or the log lost its end: remove this member "
                      "from the cluster and add it again with an empty data directory",
                      applied.index, applied.term, contents.hard_state.term);
  }
  const bool by_index = MUTANT("replica.recover_by_index_alone") &&
                        applied.index >= contents.base.index &&
                        applied.index <= contents.last().index;
  if (contents.Holds(applied) || by_index) {
    if (applied.index < contents.last().index) MARK("replica.replay_after_start");
    // Below `applied` no configuration is ever rolled back to, so the machine's may stand for the
    // base's.
    return raft::Found{.hard_state = contents.hard_state,
                       .base = contents.base,
                       .base_members = machine.members(),
                       .entries = std::move(contents.entries),
                       .applied = applied.index};
  }
  if (contents.adopting == applied) {
    MARK("replica.finish_adoption_at_start");
    std::vector<LogUpdate> updates(1);
    updates[0].reset = applied;
    RETURN_IF_ERROR(floor.LowerFor(updates));
    RETURN_IF_ERROR(store.Commit(updates));
    return raft::Found{.hard_state = contents.hard_state,
                       .base = applied,
                       .base_members = machine.members(),
                       .entries = {},
                       .applied = applied.index};
  }
  return MakeStatus(absl::StatusCode::kDataLoss,
                    "the state stands at index {}, term {}, but the log holds ({}, {}] up to term "
                    "{} and not that position; part of the log is lost or is of another member: "
                    "remove this member from the cluster and add it again with an empty data "
                    "directory",
                    applied.index, applied.term, contents.base.index, contents.last().index,
                    contents.last().term);
}

}  // namespace kv

// How far each member is known to have acknowledged what is committed. The leader notes it in the
// log now and then, so that every member knows when another one's disk is older than its word: a
// copy that was put back, or a disk that lost what it had synced. Such a member must not vote,
// since an entry that it helped to commit may be elected away with its vote.
//
// Pure. What was acknowledged since the last note is known to the leader alone.
#pragma once

#include <map>
#include <optional>
#include <vector>

#include "server/raft/core.h"

namespace kv::cluster {

using Acknowledged = std::map<MemberId, Index>;

struct AcknowledgedFacts {  // Of a leader.
  MemberId self = 0;
  raft::Members members;
  Index commit = 0;
  Index stable = 0;  // The leader's own durable log.
  std::vector<raft::FollowerStatus> followers;
  Acknowledged noted;  // As of what is applied.
};

// What is worth a note: nothing while the members are as far as the last note says, or only that
// note farther, so that a cluster at rest writes nothing.
std::optional<Acknowledged> WorthNoting(const AcknowledgedFacts& facts);

}  // namespace kv::cluster

// What a Replica answers: whether a request took effect, for certain or not, and with what result.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "server/raft/members.h"
#include "server/replica/machine.h"
#include "storage/entry.h"

namespace kv {

// Why a proposal, a read or a change did not succeed. The edge turns it into the contract's error.
// Numbers travel between members (ProposalAnswer).
enum class ReplicaError : uint8_t {
  kNone = 0,
  kNoLeader = 1,     // Certain: not appended.
  kOverloaded = 2,   // Certain: not appended (too many bytes in flight, or the log is full).
  kNotAccepted = 3,  // Certain: the leader refused it before appending, or it was overwritten.
  kStopped = 4,      // Certain: not appended.
  kUnknown = 5,      // Appended somewhere, or on its way there, when the time was over.
};
std::string_view Describe(ReplicaError error);

struct ProposalResult {
  ReplicaError error = ReplicaError::kNone;
  Reply reply{};        // The machine's, when error is kNone.
  Position position{};  // Where it was applied.
};

struct ReadResult {
  ReplicaError error = ReplicaError::kNone;  // kUnknown: the time was over.
  Index index = 0;  // The machine on this member has applied at least this.
};

struct MembersResult {
  ReplicaError error = ReplicaError::kNone;
  // With kNotAccepted: why the leader refused; kNone if the change was overwritten.
  raft::ChangeRefusal refusal = raft::ChangeRefusal::kNone;
  raft::Members members{};  // With error kNone: as they are now, the change included.
};

}  // namespace kv

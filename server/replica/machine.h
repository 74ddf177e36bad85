// What the log means. A Replica drives a Machine; KvMachine is ours.
//
// Deterministic: no clock, no chance, no iteration order that differs between members. Called on
// the apply loop unless stated.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/raft/members.h"
#include "storage/entry.h"
#include "storage/snapshot.h"

namespace kv {

// The machine's answer to one command: a certain refusal, or the bytes of the response message.
struct Reply {
  absl::Status status;
  std::string body;
};

struct Committed {
  EntryPtr entry;
  bool wants_reply = false;  // Somebody on this member waits: spare the work otherwise.
};

class Machine {
 public:
  virtual ~Machine() = default;

  // Applies a run of committed entries, in order, as one atomic batch that carries the new applied
  // position. Returns one Reply an entry (empty where none was wanted). An entry that this build
  // does not understand, or a failed write, ends the process.
  virtual std::vector<Reply> Apply(std::span<const Committed> run) = 0;

  virtual Position applied() const = 0;  // Any thread.
  // Survives power loss; the log may drop through it. Any thread.
  virtual absl::StatusOr<Position> Durable() const = 0;
  virtual raft::Members members() const = 0;  // As of applied(). Any thread.
  virtual absl::Status Flush() = 0;           // Any thread. Advances Durable().
  // A sealed snapshot of the state at some position >= the one applied at the call, in the new
  // directory `path`. Any thread.
  virtual absl::StatusOr<Snapshot> Take(const std::string& path) = 0;
  // The verified snapshot becomes the state, durably; its directory is consumed.
  virtual absl::Status Adopt(const Snapshot& snapshot) = 0;
};

}  // namespace kv

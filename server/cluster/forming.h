// What a member does about the marker (outside.h): until the marker says that its cluster is
// formed, no client may be answered; the leader makes it say so, after its first commit by a
// quorum.
//
// So of two foundings that share a marker at most one ever acknowledges a write, whatever happened
// to disks and processes: only one compare-and-swap from forming succeeds, and the other's members
// find another id and halt. Once formed, a member never needs the marker again; the leader puts it
// back when somebody deleted it.
//
// Pure: an input in, one Output out. Owned by the node's loop.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cluster/outside.h"

namespace kv::cluster {

class Forming {
 public:
  struct Output {
    bool read = false;            // Answered by MarkerRead.
    std::optional<Marker> write;  // Answered by MarkerWritten.
    bool formed = false;          // Just learned; to be durable before a client is answered.
    std::string warning;          // A sentence; new.
    std::string halt;             // A contradiction: this member must not go on.
  };

  // `formed`: it was learned by an earlier start.
  Forming(uint64_t cluster_id, bool formed) : cluster_id_(cluster_id), formed_(formed) {}

  // About once a second. `leads`: with a commit of its own term, so by a quorum.
  Output Tick(bool leads);
  Output MarkerRead(const absl::StatusOr<Marker>& marker);
  Output MarkerWritten(const absl::Status& status);

  bool formed() const { return formed_; }
  // Why clients are not answered yet; empty: they are.
  std::string Waits() const;

 private:
  Output Learn();

  const uint64_t cluster_id_;
  bool formed_ = false;
  bool leads_ = false;
  bool asking_ = false;  // A read or a write is on its way.
  uint64_t ticks_ = 0;
  uint64_t warned_of_ = 0;  // The foreign cluster id that was warned of.
  std::string reason_ = "the marker was not read yet";
};

}  // namespace kv::cluster

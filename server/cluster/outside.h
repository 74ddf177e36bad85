// What a member hears from outside the cluster about how many members there should be, and the one
// note that it keeps there: whether this name ever had a cluster.
//
// Both are implemented next door to the platform (server/kube) and in the simulation. A call
// returns at once; `done` comes once, from any thread, within the implementation's own time bound,
// and never after the object is destroyed. Source: kubernetes.md §3.0, §3.4, §3.5.
#pragma once

#include <cstdint>
#include <string>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kv::cluster {

// How many members are wanted, as read once.
struct DesiredCount {
  enum class Kind {
    kUnknown,  // Could not be read now; `reason` says why. Nothing follows from it.
    kDenied,   // The outside answers, and not to us (401, 403): before a first good answer a
               // misconfiguration, after one perhaps an uninstall. `reason` says more.
    kCount,    // `count` members, slots `first` to `first + count - 1`. 0 suspends; nobody leaves.
    kEnding,   // The whole is being deleted, or is gone.
  };
  Kind kind = Kind::kUnknown;
  uint64_t count = 0;
  uint64_t first = 0;
  std::string reason{};
  // Of a kCount.
  bool Wants(uint64_t slot) const { return slot >= first && slot - first < count; }
  friend bool operator==(const DesiredCount&, const DesiredCount&) = default;
};

class DesiredSource {
 public:
  virtual ~DesiredSource() = default;
  virtual void Read(absl::AnyInvocable<void(DesiredCount) &&> done) = 0;
};

// Which cluster the slots of this name belong to, kept where a lost volume does not reach.
struct Marker {
  enum class Phase {
    kNone,     // Never written.
    kForming,  // A founding was promised; it may be given up for another one.
    kFormed,   // A quorum has committed: if all its members are gone, that is a loss.
  };
  Phase phase = Phase::kNone;
  uint64_t cluster_id = 0;  // Unless kNone.
  std::string version;      // Of the object, to be given back with a write.
  friend bool operator==(const Marker&, const Marker&) = default;
};

class MarkerStore {
 public:
  virtual ~MarkerStore() = default;
  virtual void Read(absl::AnyInvocable<void(absl::StatusOr<Marker>) &&> done) = 0;
  // Writes phase and id if the object still has `marker.version`. OK: written. kAborted: it changed
  // meanwhile. Any other error: unknown; read again.
  virtual void Write(Marker marker, absl::AnyInvocable<void(absl::Status) &&> done) = 0;
};

}  // namespace kv::cluster

#include "server/cluster/forming.h"

#include <fmt/format.h>

#include "storage/mark.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

// A formed cluster's leader looks after the marker every so many ticks.
constexpr uint64_t kFormedTicks = 60;

}  // namespace

Forming::Output Forming::Tick(bool leads) {
  Output output;
  leads_ = leads;
  const uint64_t tick = ticks_++;
  if (MUTANT("forming.serves_before_formed") && !formed_) return Learn();
  if (asking_ || (formed_ && (!leads || tick % kFormedTicks != 0))) return output;
  asking_ = true;
  output.read = true;
  return output;
}

Forming::Output Forming::MarkerRead(const absl::StatusOr<Marker>& marker) {
  Output output;
  asking_ = false;
  if (!marker.ok()) {
    reason_ = fmt::format("the marker cannot be read: {}", Message(marker.status()));
    return output;
  }
  const bool own = marker->phase != Marker::Phase::kNone && marker->cluster_id == cluster_id_;
  if (own && marker->phase == Marker::Phase::kFormed) return formed_ ? output : Learn();
  if (marker->phase != Marker::Phase::kNone && !own) {
    const std::string names =
        fmt::format("the marker names cluster {:x}, and this is a member of {:x}",
                    marker->cluster_id, cluster_id_);
    if (formed_) {
      if (warned_of_ != marker->cluster_id) output.warning = names;
      warned_of_ = marker->cluster_id;
    } else if (!MUTANT("forming.foreign_marker_overlooked")) {
      output.halt = fmt::format(
          "{}, which never served: two foundings met. Next: empty this data directory, and start "
          "again",
          names);
    }
    return output;
  }
  // Forming this cluster, or nothing: deleted, or forgotten by a person.
  reason_ = "the leader's first commit and its note in the marker";
  if (!leads_) return output;
  asking_ = true;
  output.write = Marker{
      .phase = Marker::Phase::kFormed, .cluster_id = cluster_id_, .version = marker->version};
  return output;
}

Forming::Output Forming::MarkerWritten(const absl::Status& status) {
  asking_ = false;
  if (status.ok() || MUTANT("forming.unknown_write_is_done")) return formed_ ? Output() : Learn();
  // Not known whether it was: the next read tells.
  reason_ = fmt::format("the marker was not written: {}", Message(status));
  return {};
}

Forming::Output Forming::Learn() {
  formed_ = true;
  Output output;
  output.formed = true;
  return output;
}

std::string Forming::Waits() const { return formed_ ? "" : reason_; }

}  // namespace kv::cluster

// What a member hears from outside, as a test says it: answered at once.
#pragma once

#include <string>
#include <utility>

#include "server/cluster/outside.h"
#include "storage/status.h"

namespace kv::test {

class FakeDesired final : public cluster::DesiredSource {
 public:
  explicit FakeDesired(uint64_t count) { Set(count); }
  void Set(uint64_t count) {
    count_.kind = cluster::DesiredCount::Kind::kCount;
    count_.count = count;
  }
  void Read(absl::AnyInvocable<void(cluster::DesiredCount) &&> done) override {
    std::move(done)(count_);
  }

 private:
  cluster::DesiredCount count_;
};

class FakeMarker final : public cluster::MarkerStore {
 public:
  bool down = false;

  const cluster::Marker& marker() const { return marker_; }
  void Set(cluster::Marker::Phase phase, uint64_t cluster_id) {
    marker_ = {.phase = phase, .cluster_id = cluster_id, .version = std::to_string(++version_)};
  }
  void Read(absl::AnyInvocable<void(absl::StatusOr<cluster::Marker>) &&> done) override {
    if (down) return std::move(done)(Down());
    std::move(done)(marker_);
  }
  void Write(cluster::Marker marker, absl::AnyInvocable<void(absl::Status) &&> done) override {
    if (down) return std::move(done)(Down());
    if (marker.version != marker_.version) return std::move(done)(absl::AbortedError("changed"));
    Set(marker.phase, marker.cluster_id);
    std::move(done)(absl::OkStatus());
  }

 private:
  static absl::Status Down() {
    return MakeStatus(absl::StatusCode::kUnavailable, "the API server does not answer");
  }

  cluster::Marker marker_{.phase = cluster::Marker::Phase::kNone, .cluster_id = 0, .version = "0"};
  int version_ = 0;
};

}  // namespace kv::test

// Whether the member is alive and ready: the questions behind /livez, /readyz, /health and
// grpc.health.v1. One set of answers, asked by all of them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "storage/mutex.h"

namespace kv::api {

// One named question. `ask` answers exactly once, from any thread, and never blocks.
struct Probe {
  using Done = absl::AnyInvocable<void(absl::Status) &&>;
  std::string name;
  std::function<void(Done)> ask;
};

enum class ProbeKind {
  kLive,                // /livez: this process; never peers, leader or disk space.
  kReady,               // /readyz: this member can serve clients.
  kHealth,              // /health: etcd's older question. Its first failure is the reason.
  kHealthSerializable,  // /health?serializable=true
};

// The probes of one member, in the order they are printed. Closed until the member serves and
// again once it stopped; whoever holds them may ask at any time. Thread-safe.
class Probes {
 public:
  // `waits_for`: until the first Open, what keeps it closed; from any thread.
  explicit Probes(std::function<std::string()> waits_for = {}) : waits_for_(std::move(waits_for)) {}
  using Set = std::vector<std::pair<ProbeKind, Probe>>;
  void Open(Set set);
  // After it returns no probe of the set is begun any more. `reason` answers those who ask.
  void Close(std::string_view reason);

  struct Answer {
    std::string name;
    absl::Status status;
  };
  using Answers = std::vector<Answer>;
  using Done = absl::AnyInvocable<void(Answers) &&>;
  // Asks, all at the same time, the probes of `kind` whose name `wanted` likes; answers in order.
  // While closed: one answer, named kClosed, with the reason.
  static constexpr std::string_view kClosed = "started";
  void Ask(ProbeKind kind, const std::function<bool(std::string_view)>& wanted, Done done);
  bool Has(ProbeKind kind, std::string_view name) const;

 private:
  std::string WhyClosed() const;

  const std::function<std::string()> waits_for_;
  mutable Mutex mutex_;
  bool was_open_ ABSL_GUARDED_BY(mutex_) = false;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  std::string reason_ ABSL_GUARDED_BY(mutex_) = "the member has not started to serve";
  Set set_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv::api

// Carries a Stopping out: reads the wanted number, asks the leader, and tells when it is time to
// go.
//
// Everything runs on a loop of its own. Its owner outlives it and may destroy it at any time;
// answers that come later are dropped.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/outside.h"
#include "server/cluster/stopping.h"
#include "server/replica/door.h"
#include "server/replica/runtime.h"

namespace kv::cluster {

class StoppingDriver {
 public:
  // As Stopping takes it: empty means granted.
  using Answered = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
  // All outlive the driver; called on its loop, answered from anywhere.
  struct Parts {
    Runtime* runtime = nullptr;
    DesiredSource* desired = nullptr;  // Null where no slot is.
    std::function<Stopping::Facts()> facts;
    std::function<void(PermitReason reason, Answered done)> ask_permit;
    std::function<void(Answered done)> ask_leave;
    std::function<void(std::string_view line)> log;
    std::function<void()> retreat;  // Not ready from now on.
    std::function<void()> go;       // Called once.
  };

  StoppingDriver(Parts parts, StoppingOptions options);
  ~StoppingDriver();
  StoppingDriver(const StoppingDriver&) = delete;
  StoppingDriver& operator=(const StoppingDriver&) = delete;

  void Start();  // The order to stop. Once.
  void Hurry();  // It came again. Any thread.

 private:
  void Tick() ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  void Carry(Stopping::Output output) ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_);
  absl::Duration Now() const;
  Answered Back(Stopping::Output (Stopping::*input)(absl::Duration,
                                                    const absl::StatusOr<std::string>&));

  const Parts parts_;
  const absl::Duration began_;
  const std::shared_ptr<Door> door_;
  Stopping stopping_;
  bool retreated_ = false;
  std::unique_ptr<Loop> loop_;
};

}  // namespace kv::cluster

// Decides what a member does between the order to stop and its end: whether it leaves the cluster,
// waits until the others can spare it, or just goes.
//
// An orchestrator gives no reason with the order. The only fact to be trusted is how many members
// are wanted: a slot past that number is scaled down and leaves, which it does while it still
// votes; any other is restarted or moved, and stays a member. Unknown is taken for a restart; the
// leader cleans up if it was not. The number is read again until the end, since it may come late.
//
// Pure: time comes in with every input, counted from the order. The owner ticks several times a
// second and carries outputs out. Source: kubernetes.md §3.0.11–3.0.14, §3.5, §3.7.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/join.h"
#include "server/cluster/outside.h"

namespace kv::cluster {

struct StoppingOptions {
  // This member's slot, if somebody says how many there should be; otherwise it never leaves.
  std::optional<uint64_t> slot{};
  absl::Duration delay{};  // Not ready and still serving, so that clients go elsewhere first.
  absl::Duration guard_max_wait{};  // For the others to be able to spare it; zero: nobody is asked.
  absl::Duration leave_timeout{};   // For an answer to the wish to leave.
  absl::Duration grace_period{};    // After which the process is killed; zero: never.
  absl::Duration leaderless_max{};  // Without a leader for so long, nobody can answer.
  // Whether there is anything to wait for before the end.
  bool waits() const {
    return slot || guard_max_wait > absl::ZeroDuration() || delay > absl::ZeroDuration();
  }
};

class Stopping {
 public:
  // What the owner sees of its member now.
  struct Facts {
    bool member = false;
    absl::Duration leaderless;  // Zero: a leader is known.
  };

  // Lines first; then at most one of each.
  struct Output {
    std::vector<std::string> lines{};  // For the log.
    bool read_desired = false;         // Each asks for one answer, given back below.
    std::optional<PermitReason> ask_permit{};
    bool ask_leave = false;
    bool retreat = false;  // Not ready from now on.
    bool go = false;       // Hand leadership over, answer what is in flight, end.
  };

  explicit Stopping(StoppingOptions options);

  // Inputs. Answers may come late or never.
  Output Tick(absl::Duration now, const Facts& facts);
  Output DesiredRead(absl::Duration now, const DesiredCount& count);
  // Empty: granted. Otherwise what is waited for. An error: nobody answered.
  Output PermitAnswered(absl::Duration now, const absl::StatusOr<std::string>& sentence);
  // Empty: it is no member any more.
  Output LeaveAnswered(absl::Duration now, const absl::StatusOr<std::string>& sentence);
  // Whoever sent the order sent it again: no waiting any more.
  Output Hurry();

  // For /readyz?verbose and the status: what is waited for.
  std::string_view waits_for() const { return waits_for_; }

 private:
  enum class Step { kBegin, kDecide, kPermit, kLeave, kRetreat, kGone };
  enum class Plan { kRestart, kUnknown, kLeave, kEnd };

  void Decide(absl::Duration now, Output& output);
  void Follow(absl::Duration now, Plan plan, Output& output);
  void Ask(absl::Duration now, Output& output);
  void GiveUpIfDue(absl::Duration now, Output& output);
  void Retreat(absl::Duration now, std::string_view why, Output& output);
  void Go(std::string_view why, Output& output);
  void Wait(absl::Duration now, const absl::StatusOr<std::string>& sentence, Output& output);
  Plan PlanFor(const DesiredCount& count) const;
  absl::Duration LeaveDeadline() const;

  const StoppingOptions options_;
  Step step_ = Step::kBegin;
  Plan plan_ = Plan::kRestart;
  absl::Duration step_began_;
  std::optional<absl::Duration> asked_;  // The last question of this step.
  std::optional<absl::Duration> read_;   // The last reading that was begun.
  std::optional<DesiredCount> count_;
  bool refused_ = false;  // Leaving was asked for and answered with "not now".
  std::optional<absl::Duration> reported_;
  std::string waits_for_;
};

}  // namespace kv::cluster

#include "server/cluster/stopping.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "storage/status.h"

namespace kv::cluster {
namespace {

constexpr absl::Duration kAskPeriod = absl::Seconds(1);
constexpr absl::Duration kReadPeriod = absl::Seconds(2);
constexpr absl::Duration kReportPeriod = absl::Seconds(10);
// For the first reading of the wanted number: two tries of the reader's own bound.
constexpr absl::Duration kDecideMax = absl::Seconds(5);
// Of the grace period, kept for handing over and draining.
constexpr absl::Duration kGraceMargin = absl::Seconds(15);

std::string Seconds(absl::Duration duration) {
  return fmt::format("{} s", absl::ToInt64Seconds(duration));
}

}  // namespace

Stopping::Stopping(StoppingOptions options) : options_(std::move(options)) {}

Stopping::Output Stopping::Tick(absl::Duration now, const Facts& facts) {
  Output output;
  if (step_ == Step::kGone) return output;
  if (step_ != Step::kRetreat) {
    if (!facts.member) {
      Go("this process is no member; nobody waits for it", output);
      return output;
    }
    if (facts.leaderless >= options_.leaderless_max) {
      Go(fmt::format("there is no leader for {}, so nobody can be asked",
                     Seconds(facts.leaderless)),
         output);
      return output;
    }
  }
  if (options_.slot && (!read_ || now - *read_ >= kReadPeriod)) {
    read_ = now;
    output.read_desired = true;
  }
  Decide(now, output);
  Ask(now, output);
  GiveUpIfDue(now, output);
  return output;
}

// Until the wanted number was read, or for a while.
void Stopping::Decide(absl::Duration now, Output& output) {
  if (step_ == Step::kBegin) {
    step_ = Step::kDecide;
    step_began_ = now;
    if (options_.slot) {
      waits_for_ = "how many members are wanted";
    } else {
      Follow(now, Plan::kRestart, output);
    }
  } else if (step_ == Step::kDecide && now - step_began_ >= kDecideMax) {
    output.lines.emplace_back("how many members are wanted is not known; taken for a restart");
    Follow(now, Plan::kUnknown, output);
  }
}

Stopping::Plan Stopping::PlanFor(const DesiredCount& count) const {
  switch (count.kind) {
    case DesiredCount::Kind::kEnding:
      return Plan::kEnd;
    case DesiredCount::Kind::kCount:
      if (count.count == 0) return Plan::kEnd;
      return count.Wants(*options_.slot) ? Plan::kRestart : Plan::kLeave;
    case DesiredCount::Kind::kUnknown:
    case DesiredCount::Kind::kDenied:
      return Plan::kUnknown;
  }
  return Plan::kUnknown;
}

Stopping::Output Stopping::DesiredRead(absl::Duration now, const DesiredCount& count) {
  Output output;
  if (step_ == Step::kGone || !options_.slot) return output;
  const Plan plan = PlanFor(count);
  if (plan == Plan::kUnknown) {
    // A number that was read stands; a second try may still bring the first.
    if (step_ == Step::kDecide && count.kind == DesiredCount::Kind::kDenied) {
      output.lines.push_back(fmt::format(
          "how many members are wanted may not be read, as when all is being uninstalled: {}",
          count.reason));
      Follow(now, Plan::kUnknown, output);
    }
    return output;
  }
  const bool news = !count_ || *count_ != count;
  count_ = count;
  if (step_ != Step::kDecide && plan == plan_) return output;
  if (news && plan == Plan::kLeave) {
    output.lines.push_back(fmt::format("{} members are wanted, from slot {} on: slot {} leaves",
                                       count.count, count.first, *options_.slot));
  }
  if (plan == Plan::kEnd) {
    Go(count.kind == DesiredCount::Kind::kEnding
           ? fmt::format("everything is being stopped: {}", count.reason)
           : "no member is wanted for now: all stop, and stay members",
       output);
    return output;
  }
  Follow(now, plan, output);
  return output;
}

void Stopping::Follow(absl::Duration now, Plan plan, Output& output) {
  plan_ = plan;
  step_began_ = now;
  asked_.reset();
  reported_.reset();
  if (plan == Plan::kLeave) {
    step_ = Step::kLeave;
    waits_for_ = "its removal from the cluster";
    return;
  }
  if (step_ == Step::kRetreat) return;
  if (options_.guard_max_wait == absl::ZeroDuration()) {
    Retreat(now, "stays a member", output);
    return;
  }
  step_ = Step::kPermit;
  waits_for_ = "the leader's permit to stop";
}

void Stopping::Ask(absl::Duration now, Output& output) {
  if (step_ != Step::kPermit && step_ != Step::kLeave) return;
  if (asked_ && now - *asked_ < kAskPeriod) return;
  asked_ = now;
  if (step_ == Step::kLeave) {
    output.ask_leave = true;
  } else {
    output.ask_permit = plan_ == Plan::kUnknown ? PermitReason::kUnknown : PermitReason::kRestart;
  }
}

absl::Duration Stopping::LeaveDeadline() const {
  // Whoever may not go yet is needed: it votes for as long as it can.
  if (refused_ && options_.grace_period > kGraceMargin) {
    return std::max(options_.grace_period - kGraceMargin, step_began_ + options_.leave_timeout);
  }
  return step_began_ + options_.leave_timeout;
}

void Stopping::GiveUpIfDue(absl::Duration now, Output& output) {
  const bool killed_soon =
      options_.grace_period > kGraceMargin && now >= options_.grace_period - kGraceMargin;
  switch (step_) {
    case Step::kPermit:
      if (killed_soon || now - step_began_ >= options_.guard_max_wait) {
        Retreat(now,
                fmt::format("no permit within {}, stops all the same; last reason: {}",
                            Seconds(now - step_began_), waits_for_),
                output);
      }
      break;
    case Step::kLeave:
      if (killed_soon || now >= LeaveDeadline()) {
        Go(fmt::format("still a member after {}; the leader removes it later; last reason: {}",
                       Seconds(now - step_began_), waits_for_),
           output);
      }
      break;
    case Step::kRetreat:
      if (killed_soon || now - step_began_ >= options_.delay) Go("", output);
      break;
    case Step::kBegin:
    case Step::kDecide:
    case Step::kGone:
      break;
  }
}

void Stopping::Wait(absl::Duration now, const absl::StatusOr<std::string>& sentence,
                    Output& output) {
  waits_for_ = sentence.ok() ? *sentence : std::string(Message(sentence.status()));
  if (reported_ && now - *reported_ < kReportPeriod) return;
  reported_ = now;
  output.lines.push_back(fmt::format(
      "{}: {}", step_ == Step::kLeave ? "waits to be removed" : "waits for the permit to stop",
      waits_for_));
}

Stopping::Output Stopping::PermitAnswered(absl::Duration now,
                                          const absl::StatusOr<std::string>& sentence) {
  Output output;
  if (step_ != Step::kPermit) return output;
  if (sentence.ok() && sentence->empty()) {
    Retreat(now, "the others can spare it; it stays a member", output);
  } else {
    Wait(now, sentence, output);
  }
  return output;
}

Stopping::Output Stopping::LeaveAnswered(absl::Duration now,
                                         const absl::StatusOr<std::string>& sentence) {
  Output output;
  if (step_ != Step::kLeave) return output;
  if (sentence.ok() && sentence->empty()) {
    Go("it is no member any more", output);
  } else {
    refused_ = sentence.ok();
    Wait(now, sentence, output);
  }
  return output;
}

void Stopping::Retreat(absl::Duration now, std::string_view why, Output& output) {
  output.lines.push_back(
      options_.delay == absl::ZeroDuration()
          ? fmt::format("stops: {}", why)
          : fmt::format("stops: {}; serves for another {}", why, Seconds(options_.delay)));
  output.retreat = true;
  step_ = Step::kRetreat;
  step_began_ = now;
  waits_for_ = "clients to go elsewhere";
  if (options_.delay == absl::ZeroDuration()) Go("", output);
}

void Stopping::Go(std::string_view why, Output& output) {
  if (!why.empty()) output.lines.push_back(fmt::format("stops: {}", why));
  step_ = Step::kGone;
  output.retreat = true;
  output.go = true;
  output.read_desired = output.ask_leave = false;
  output.ask_permit.reset();
}

Stopping::Output Stopping::Hurry() {
  Output output;
  if (step_ != Step::kGone) {
    Go(fmt::format("told so again; waited for {}", waits_for_.empty() ? "nothing" : waits_for_),
       output);
  }
  return output;
}

}  // namespace kv::cluster

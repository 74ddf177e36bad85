#include "server/cluster/permits.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "storage/mark.h"

namespace kv::cluster {
namespace {

constexpr absl::Duration kPermitLasts = absl::Seconds(60);
constexpr absl::Duration kAskLasts = absl::Seconds(10);

}  // namespace

// What cannot be told from the end of all is taken for it once nobody means to stay.
bool Permits::AllEndUnknown(const Facts& facts) const {
  return std::ranges::all_of(facts.members.voters, [&](MemberId id) {
    if (facts.held && facts.held->member == id) return facts.held->unknown_reason;
    const auto at = asked_.find(id);
    return at != asked_.end() && at->second.reason == PermitReason::kUnknown &&
           facts.now - at->second.at <= kAskLasts;
  });
}

void Permits::Look(const Facts& facts) {
  std::erase_if(asked_, [&facts](const auto& entry) {
    return facts.now - entry.second.at > kAskLasts || !facts.members.IsMember(entry.first);
  });
  if (!facts.held) {
    seen_.reset();
  } else if (!seen_ || seen_->permit != *facts.held) {
    seen_ = Seen{.permit = *facts.held, .since = facts.now};
  }
}

Permits::Decision Permits::Decide(const PermitRequest& request, const Facts& facts) {
  Look(facts);
  const MemberId id = request.member_id;
  // Its going costs no vote.
  if (!facts.members.IsVoter(id)) return {.verdict = Verdict::kGranted, .sentence = {}};
  asked_[id] = {.reason = request.reason, .at = facts.now};
  const bool has_it =
      facts.held && facts.held->member == id && facts.held->boot_epoch == request.boot_epoch;
  if (has_it) return {.verdict = Verdict::kGranted, .sentence = {}};
  if (AllEndUnknown(facts)) return {.verdict = Verdict::kGranted, .sentence = {}};
  if (facts.held && facts.held->member != id && !MUTANT("permit.many_at_a_time")) {
    return {.verdict = Verdict::kWait,
            .sentence = fmt::format("waits until {}, which is stopping, is back, or a minute is "
                                    "over",
                                    NameOf(facts.members, facts.held->member))};
  }
  if (facts.members.IsJoint()) {
    return {.verdict = Verdict::kWait, .sentence = "the members are changing right now"};
  }
  std::vector<MemberId> rest = facts.members.voters;
  std::erase(rest, id);
  std::erase_if(rest, [&facts](MemberId other) { return SightOf(facts.sights, other).leaving; });
  const size_t active = CountActive(rest, facts.sights);
  // One of two cannot be spared ever: waiting would not help.
  const bool few = facts.members.voters.size() <= 2;
  if (few || IsMajority(active, facts.members.voters) || MUTANT("permit.quorum_not_guarded")) {
    return {.verdict = Verdict::kNote, .sentence = {}};
  }
  return {.verdict = Verdict::kWait,
          .sentence = fmt::format("without it {} of {} voters would answer: too few", active,
                                  facts.members.voters.size())};
}

std::optional<HeldPermit> Permits::Overdue(const Facts& facts) {
  Look(facts);
  if (!seen_ || MUTANT("permit.lasts_for_ever")) return std::nullopt;
  const bool gone = !facts.members.IsMember(seen_->permit.member);
  if (!gone && facts.now - seen_->since < kPermitLasts) return std::nullopt;
  return seen_->permit;
}

}  // namespace kv::cluster

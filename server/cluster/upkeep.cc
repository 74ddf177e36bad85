#include "server/cluster/upkeep.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "storage/mark.h"

namespace kv::cluster {
namespace {

// Close enough to vote: what it lacks is sent within moments.
constexpr Index kLagMax = 1000;
constexpr absl::Duration kKeepsUpFor = absl::Seconds(3);
// So that two that come together are given their votes together, and the count never is even.
constexpr absl::Duration kGatherCandidates = absl::Seconds(5);
// So that many pods that are told to stop at once leave in one change.
constexpr absl::Duration kGatherLeavers = absl::Seconds(2);
constexpr absl::Duration kWishLasts = absl::Seconds(10);
constexpr int kSameReadings = 3;

bool KeepsUp(const raft::FollowerStatus& follower, Index commit) {
  if (MUTANT("upkeep.anybody_is_ready")) return true;
  return follower.match + kLagMax >= commit && follower.match >= commit - commit / 100;
}

std::string Names(const raft::Members& members, const std::vector<MemberId>& ids) {
  std::vector<std::string> names;
  for (const MemberId id : ids) names.push_back(NameOf(members, id));
  return fmt::format("{}", fmt::join(names, ", "));
}

bool Contains(const std::vector<MemberId>& ids, MemberId id) {
  return std::ranges::find(ids, id) != ids.end();
}

// kvd-2 before kvd-10, whatever their ids are.
bool ComesFirst(const UpkeepOptions& options, const raft::Members& members, MemberId left,
                MemberId right) {
  const auto key = [&](MemberId id) {
    const std::optional<MemberRecord> record = RecordOf(members, id);
    const std::string name = record ? record->name : "";
    return std::pair(SlotNumber(options.slot_prefix, name).value_or(UINT64_MAX), name);
  };
  return key(left) < key(right);
}

}  // namespace

Upkeep::Upkeep(UpkeepOptions options) : options_(std::move(options)) {}

void Upkeep::CountRead(absl::Duration now, const DesiredCount& desired) {
  if (desired.kind != DesiredCount::Kind::kCount) {
    if (!MUTANT("upkeep.last_count_holds")) reading_.reset();
    return;
  }
  const bool same = reading_ && reading_->desired.count == desired.count &&
                    reading_->desired.first == desired.first;
  if (!same) reading_ = Reading{.desired = desired, .first = now, .last = now, .times = 0};
  reading_->last = now;
  ++reading_->times;
  desired_ = desired;
}

void Upkeep::WantsToLeave(absl::Duration now, MemberId id) {
  Wish& wish = wishes_.try_emplace(id, Wish{.first = now, .last = now}).first->second;
  wish.last = now;
}

bool Upkeep::WantsCount() const {
  return std::ranges::any_of(wishes_, [this](const auto& entry) {
    return !reading_ || reading_->last < entry.second.first;
  });
}

std::string Upkeep::WhyStillHere(MemberId id) const {
  const auto at = why_here_.find(id);
  return at == why_here_.end() ? "waits for the leader's next look" : at->second;
}

Upkeep::Output Upkeep::Tick(const Facts& facts) {
  Output output;
  ForgetWishes(facts);
  Watch(facts);
  why_here_.clear();
  Warn(facts, output);
  if (!facts.settled) {
    for (const auto& [id, wish] : wishes_) why_here_[id] = "the members are changing right now";
    return output;
  }
  Promote(facts, output);
  if (!output.change) LetGo(facts, output);
  return output;
}

void Upkeep::ForgetWishes(const Facts& facts) {
  std::erase_if(wishes_, [&facts](const auto& entry) {
    return facts.now - entry.second.last > kWishLasts || !facts.members.IsMember(entry.first);
  });
}

void Upkeep::Watch(const Facts& facts) {
  std::erase_if(watched_,
                [&facts](const auto& entry) { return !facts.members.IsMember(entry.first); });
  sights_.clear();
  for (const raft::FollowerStatus& follower : facts.followers) {
    if (facts.members.IsMember(follower.id)) WatchOne(facts, follower);
  }
  sights_[facts.self] = {.active = true, .spoke = true, .ready = true};
  for (auto& [id, sight] : sights_) {
    sight.stopping = id == facts.permitted;
    sight.leaving = wishes_.contains(id);
  }
}

void Upkeep::WatchOne(const Facts& facts, const raft::FollowerStatus& follower) {
  Watched& watched =
      watched_.try_emplace(follower.id, Watched{.last_active = facts.now, .keeps_up_since = {}})
          .first->second;
  const bool active = follower.active && follower.state == raft::Progress::State::kReplicate;
  if (active) watched.last_active = facts.now;
  if (!active || !KeepsUp(follower, facts.commit)) {
    watched.keeps_up_since.reset();
  } else if (!watched.keeps_up_since) {
    watched.keeps_up_since = facts.now;
  }
  sights_[follower.id] = {
      .active = active,
      .spoke = follower.match > 0,
      .ready = watched.keeps_up_since && facts.now - *watched.keeps_up_since >= kKeepsUpFor,
      .silent = facts.now - watched.last_active};
}

// Votes do no harm while nobody knows what is wanted.
bool Upkeep::MayBeWanted(std::string_view name) const {
  return !desired_ || desired_->count == 0 || IsWanted(options_, *desired_, name);
}

std::optional<Upkeep::Candidate> Upkeep::CandidateOf(const Facts& facts, MemberId id,
                                                     Output& output) const {
  const std::optional<MemberRecord> record = RecordOf(facts.members, id);
  if (!record || (!record->kept && !MUTANT("upkeep.added_learners_promoted"))) return std::nullopt;
  const Sight& sight = SightOf(sights_, id);
  if (!MayBeWanted(record->name) || !sight.ready || sight.stopping || sight.leaving) {
    return std::nullopt;
  }
  Candidate candidate{
      .id = id, .lost = 0, .ready_since = *watched_.at(id).keeps_up_since + kKeepsUpFor};
  for (const MemberId holder : Holders(facts.members, record->name)) {
    if (!facts.members.IsVoter(holder)) continue;
    const Sight& held = SightOf(sights_, holder);
    const bool is_lost = !held.active && held.silent >= options_.replace_after_inactive;
    if (candidate.lost != 0 || (!is_lost && !MUTANT("upkeep.living_are_replaced"))) {
      output.sentences.push_back(
          fmt::format("SLOT_IN_USE: {} has caught up, but {} is not lost; end one of the two "
                      "processes",
                      NameOf(facts.members, id), NameOf(facts.members, holder)));
      return std::nullopt;
    }
    candidate.lost = holder;
  }
  return candidate;
}

// Who can have a vote now, the lowest slots first, as many as there may be voters.
std::vector<Upkeep::Candidate> Upkeep::Candidates(const Facts& facts, Output& output) const {
  std::vector<Candidate> ready;
  for (const MemberId id : facts.members.learners) {
    if (const auto candidate = CandidateOf(facts, id, output)) ready.push_back(*candidate);
  }
  std::ranges::sort(ready, [&](const Candidate& left, const Candidate& right) {
    return ComesFirst(options_, facts.members, left.id, right.id);
  });
  std::vector<Candidate> chosen;
  size_t voters = facts.members.voters.size();
  for (const Candidate& candidate : ready) {
    if (candidate.lost == 0) {
      if (voters >= options_.max_voters && !MUTANT("upkeep.voters_without_end")) {
        if (options_.standby_learners) continue;
        output.sentences.push_back(fmt::format("{} stays a learner: there are {} voters, the most",
                                               NameOf(facts.members, candidate.id), voters));
        continue;
      }
      ++voters;
    }
    chosen.push_back(candidate);
  }
  return chosen;
}

// Whether one more will soon be ready, which makes the count odd.
bool Upkeep::ExpectsMore(const Facts& facts, const std::vector<Candidate>& chosen) const {
  size_t voters = facts.members.voters.size();
  std::optional<absl::Duration> waiting_since;
  for (const Candidate& candidate : chosen) {
    if (candidate.lost != 0) continue;
    ++voters;
    waiting_since = std::min(waiting_since.value_or(candidate.ready_since), candidate.ready_since);
  }
  if (!waiting_since || voters % 2 == 1 || voters >= options_.max_voters) return false;
  if (facts.now - *waiting_since >= kGatherCandidates) return false;
  return std::ranges::any_of(facts.members.learners, [&](MemberId id) {
    const std::optional<MemberRecord> record = RecordOf(facts.members, id);
    const Sight& sight = SightOf(sights_, id);
    return record && record->kept && sight.active && !sight.ready && !sight.leaving &&
           MayBeWanted(record->name) && Holders(facts.members, record->name).size() == 1;
  });
}

void Upkeep::Promote(const Facts& facts, Output& output) const {
  std::vector<Candidate> chosen = Candidates(facts, output);
  if (ExpectsMore(facts, chosen)) {
    std::erase_if(chosen, [](const Candidate& candidate) { return candidate.lost == 0; });
  }
  if (chosen.empty()) return;
  raft::MemberChange change;
  std::vector<MemberId> voters = facts.members.voters;
  std::vector<MemberId> come;
  std::vector<MemberId> lost;
  for (const Candidate& candidate : chosen) {
    change.targets.push_back({.id = candidate.id, .fate = raft::MemberFate::kVoter, .record = {}});
    voters.push_back(candidate.id);
    come.push_back(candidate.id);
    if (candidate.lost == 0 || MUTANT("upkeep.lost_are_kept")) continue;
    change.targets.push_back(
        {.id = candidate.lost, .fate = raft::MemberFate::kRemoved, .record = {}});
    std::erase(voters, candidate.lost);
    lost.push_back(candidate.lost);
  }
  const size_t active = CountActive(voters, sights_);
  const size_t before = CountActive(facts.members.voters, sights_);
  if (!IsMajority(active, voters) || !IsMajority(before, facts.members.voters)) {
    output.sentences.push_back(
        fmt::format("{} has caught up, but {} of {} voters answer: its vote waits for the others",
                    Names(facts.members, come), before, facts.members.voters.size()));
    return;
  }
  change.from = facts.members;
  change.guard = raft::MemberGuard::kCaughtUp;
  output.change = std::move(change);
  output.what = fmt::format("giving a vote to {}", Names(facts.members, come));
  if (!lost.empty()) output.what += fmt::format(" in the place of {}", Names(facts.members, lost));
}

// A count that was read long ago is none.
bool Upkeep::IsCountFresh(absl::Duration now) const {
  if (!reading_ || now - reading_->last > options_.stability_window) return false;
  return reading_->desired.count > 0 || MUTANT("upkeep.zero_removes");
}

bool Upkeep::IsCountStable() const {
  if (MUTANT("upkeep.one_reading_is_enough")) return true;
  return reading_->times >= kSameReadings &&
         reading_->last - reading_->first >= options_.stability_window;
}

// Whether the count lets the member go: it said so itself and the count, read since, agrees; or it
// is gone, and the count is the same for long.
bool Upkeep::MayGo(const Facts& facts, MemberId id) {
  const std::optional<MemberRecord> record = RecordOf(facts.members, id);
  const auto wish = wishes_.find(id);
  const bool wishes = wish != wishes_.end();
  if (!record || !record->kept || !SlotNumber(options_.slot_prefix, record->name)) {
    if (wishes) why_here_[id] = "it did not come by itself; \"kvctl member remove\" lets it go";
    return false;
  }
  if (!IsCountFresh(facts.now) || (wishes && reading_->last < wish->second.first)) {
    const bool suspended = reading_ && reading_->desired.count == 0;
    if (wishes) {
      why_here_[id] = suspended ? "suspended: the wanted count is 0, which lets nobody go"
                                : "the wanted count is not known";
    }
    return false;
  }
  if (IsWanted(options_, reading_->desired, record->name)) {
    if (wishes) {
      why_here_[id] =
          fmt::format("its slot is wanted: the wanted count is {}", reading_->desired.count);
    }
    return MUTANT("upkeep.wanted_may_leave") && wishes;
  }
  if (wishes) return true;
  return SightOf(sights_, id).silent >= options_.unreachable_before_remove && IsCountStable();
}

std::vector<MemberId> Upkeep::Leavers(const Facts& facts) {
  std::vector<MemberId> leavers;
  for (const MemberId id : facts.members.All()) {
    if (MayGo(facts, id)) leavers.push_back(id);
  }
  return leavers;
}

bool Upkeep::GathersMore(const Facts& facts, const std::vector<MemberId>& leavers) const {
  return std::ranges::any_of(leavers, [&](MemberId id) {
    const auto wish = wishes_.find(id);
    return wish != wishes_.end() && facts.now - wish->second.first < kGatherLeavers;
  });
}

void Upkeep::LetGo(const Facts& facts, Output& output) {
  const std::vector<MemberId> leavers = Leavers(facts);
  if (leavers.empty()) return;
  const auto wait = [&](std::string why) {
    for (const MemberId id : leavers) why_here_[id] = why;
    output.sentences.push_back(
        fmt::format("{} would go: {}", Names(facts.members, leavers), std::move(why)));
  };
  if (GathersMore(facts, leavers)) return wait("others may want to leave, too");
  std::vector<MemberId> rest = facts.members.voters;
  std::erase_if(rest, [&leavers](MemberId id) { return Contains(leavers, id); });
  const size_t active = CountActive(rest, sights_);
  if (!IsMajority(active, rest) && (rest.empty() || !MUTANT("upkeep.quorum_not_guarded"))) {
    return wait(fmt::format("of the {} voters that would be left {} answer", rest.size(), active));
  }
  if (Contains(leavers, facts.self) && !MUTANT("upkeep.leader_lets_itself_go")) {
    output.hand_over = Successor(facts.members, rest);
    return wait(output.hand_over == 0 ? "nobody who stays has caught up to lead"
                                      : "it leads, and hands that over first");
  }
  raft::MemberChange change;
  for (const MemberId id : leavers) {
    change.targets.push_back({.id = id, .fate = raft::MemberFate::kRemoved, .record = {}});
  }
  change.from = facts.members;
  change.guard = raft::MemberGuard::kQuorumActive;
  output.change = std::move(change);
  output.what = fmt::format("letting go {}: the wanted count is {}", Names(facts.members, leavers),
                            reading_->desired.count);
  for (const MemberId id : leavers) why_here_[id] = "the change is under way";
}

// Updates stop the highest slot first, so who leads from the lowest moves once.
MemberId Upkeep::Successor(const raft::Members& members, const std::vector<MemberId>& rest) const {
  MemberId best = 0;
  for (const MemberId id : rest) {
    const Sight& sight = SightOf(sights_, id);
    if (!sight.ready || sight.stopping || sight.leaving) continue;
    if (best == 0 || ComesFirst(options_, members, id, best)) best = id;
  }
  return best;
}

void Upkeep::Warn(const Facts& facts, Output& output) const {
  const size_t voters = facts.members.voters.size();
  if (voters % 2 == 1 || facts.members.IsJoint() || voters == 0) return;
  output.sentences.push_back(
      fmt::format("{} voters can lose {}, as {} could; an odd count is better", voters,
                  (voters - 1) / 2, voters - 1));
}

}  // namespace kv::cluster

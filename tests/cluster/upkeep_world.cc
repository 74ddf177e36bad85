#include "tests/cluster/upkeep_world.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

namespace kv::cluster {
namespace {

constexpr Index kCommit = 100000;
constexpr uint64_t kPollEvery = 10;

// "kvd-1''" is of slot kvd-1.
std::string SlotOf(const std::string& disk) { return disk.substr(0, disk.find('\'')); }

size_t Spare(size_t up, size_t voters) {
  const size_t quorum = voters / 2 + 1;
  return up < quorum ? 0 : up - quorum;
}

}  // namespace

void UpkeepWorld::Break(const std::string& why) {
  if (broken_.empty()) broken_ = fmt::format("{} s: {}", seconds_, why);
}

void UpkeepWorld::Add(const std::string& disk, bool voter, bool kept) {
  Disk& added = disks_[disk];
  added = {.slot = SlotOf(disk), .uuid = "uuid of " + disk, .id = next_id_++, .kept = kept};
  (voter ? members_.voters : members_.learners).push_back(added.id);
  members_.records[added.id] = Encode(MemberRecord{.name = added.slot,
                                                   .peer_urls = {"http://" + added.slot},
                                                   .client_urls = {},
                                                   .node_uuid = added.uuid,
                                                   .kept = kept});
}

void UpkeepWorld::Crash(const std::string& disk) { disks_.at(disk).up = false; }

void UpkeepWorld::Start(const std::string& name) {
  Disk& disk = disks_.at(name);
  disk.up = true;
  ++disk.boot_epoch;
  disk.back_at = 0;
  stopping_.erase(disk.id);
  // What the member does by itself once it has caught up.
  if (permit_ && permit_->member == disk.id) permit_.reset();
}

std::string UpkeepWorld::DiskOf(MemberId id) const {
  for (const auto& [name, disk] : disks_) {
    if (disk.id == id) return name;
  }
  return fmt::format("member {:x}", id);
}

const UpkeepWorld::Disk* UpkeepWorld::leader() const {
  return leader_ == 0 ? nullptr : &disks_.at(DiskOf(leader_));
}

bool UpkeepWorld::IsUp(MemberId id) const {
  return std::ranges::any_of(
      disks_, [id](const auto& entry) { return entry.second.id == id && entry.second.up; });
}

size_t UpkeepWorld::CountUp(const std::vector<MemberId>& ids) const {
  return static_cast<size_t>(std::ranges::count_if(ids, [this](MemberId id) { return IsUp(id); }));
}

bool UpkeepWorld::HasQuorum() const {
  return IsMajority(CountUp(members_.voters), members_.voters);
}

bool UpkeepWorld::CanLose(const std::set<std::string>& gone) const {
  const auto stays = [&](MemberId id) { return !gone.contains(DiskOf(id)); };
  return IsMajority(static_cast<size_t>(std::ranges::count_if(members_.voters, stays)),
                    members_.voters);
}

void UpkeepWorld::Elect() {
  if (leader_ != 0 && members_.IsVoter(leader_) && IsUp(leader_) && HasQuorum()) return;
  leader_ = 0;
  upkeep_.reset();
  permits_.reset();
  polled_.reset();
  polled_at_.reset();
  if (!HasQuorum()) return;
  for (const MemberId id : members_.voters) {
    if (IsUp(id) && !disks_.at(DiskOf(id)).lags) leader_ = id;
  }
  if (leader_ == 0) return;
  upkeep_.emplace(options_);
  permits_.emplace();
  events_.push_back(fmt::format("{} s: {} leads", seconds_, DiskOf(leader_)));
}

void UpkeepWorld::Poll() {
  if (!counted_) return;
  const bool due = !polled_at_ || seconds_ - *polled_at_ >= kPollEvery;
  if (!due && !upkeep_->WantsCount()) return;
  polled_at_ = seconds_;
  const DesiredCount desired{.kind = answers_, .count = count_, .first = 0, .reason = {}};
  polled_.reset();
  if (answers_ == DesiredCount::Kind::kCount) polled_ = desired;
  upkeep_->CountRead(absl::Seconds(seconds_), desired);
}

Upkeep::Facts UpkeepWorld::FactsNow() const {
  Upkeep::Facts facts{.now = absl::Seconds(seconds_),
                      .self = leader_,
                      .members = members_,
                      .settled = true,
                      .commit = kCommit,
                      .followers = {},
                      .permitted = permit_ ? permit_->member : 0};
  for (const MemberId id : members_.All()) {
    if (id == leader_) continue;
    const Disk& disk = disks_.at(DiskOf(id));
    const bool heard = disk.up && !disk.cut;
    facts.followers.push_back(
        {.id = id,
         .state = heard ? raft::Progress::State::kReplicate : raft::Progress::State::kProbe,
         .match = disk.lags ? kCommit / 2 : kCommit,
         .active = heard});
    // Nothing of it came yet.
    if (!heard && members_.IsLearner(id)) facts.followers.back().match = 0;
  }
  return facts;
}

void UpkeepWorld::Tick() {
  ++seconds_;
  std::vector<std::string> back;
  for (const auto& [name, disk] : disks_) {
    if (disk.back_at != 0 && seconds_ >= disk.back_at) back.push_back(name);
  }
  for (const std::string& name : back) Start(name);
  Elect();
  if (leader_ == 0) return;
  Poll();
  seen_.clear();
  for (const MemberId id : members_.All()) {
    if (IsUp(id)) seen_.insert(id);
  }
  const Upkeep::Output output = upkeep_->Tick(FactsNow());
  for (const std::string& sentence : output.sentences) {
    if (std::ranges::find(said_, sentence) != said_.end()) continue;
    events_.push_back(fmt::format("{} s: {}", seconds_, sentence));
  }
  said_ = output.sentences;
  if (output.change) Apply(*output.change, output.what);
  if (output.hand_over != 0) {
    if (!members_.IsVoter(output.hand_over) || !IsUp(output.hand_over)) {
      Break("leadership goes to nobody");
    }
    events_.push_back(fmt::format("{} s: {} leads now", seconds_, DiskOf(output.hand_over)));
    leader_ = output.hand_over;
    upkeep_.emplace(options_);
    permits_.emplace();
    polled_.reset();
    polled_at_.reset();
  }
  const std::optional<HeldPermit> overdue = permits_->Overdue({.now = absl::Seconds(seconds_),
                                                               .members = members_,
                                                               .sights = upkeep_->sights(),
                                                               .held = permit_});
  if (overdue) {
    events_.push_back(
        fmt::format("{} s: the permit of {} is over", seconds_, DiskOf(overdue->member)));
    stopping_.erase(overdue->member);
    permit_.reset();
  }
}

void UpkeepWorld::Apply(const raft::MemberChange& change, const std::string& what) {
  const raft::ChangeOutcome outcome = raft::PlanChange(members_, change);
  if (outcome.refusal != raft::ChangeRefusal::kNone) return Break("a change that cannot be made");
  const raft::Members next = outcome.next.IsJoint() ? raft::LeaveJoint(outcome.next) : outcome.next;
  JudgeChange(change, next);
  members_ = next;
  events_.push_back(fmt::format("{} s: {}", seconds_, what));
  for (auto& [name, disk] : disks_) {
    if (disk.id == 0 || !members_.IsRemoved(disk.id)) continue;
    disk.up = false;
    disk.back_at = 0;
    stopping_.erase(disk.id);
  }
}

void UpkeepWorld::JudgeChange(const raft::MemberChange& change, const raft::Members& next) {
  const size_t before = members_.voters.size();
  const size_t after = next.voters.size();
  bool fell = false;  // Somebody goes because fewer are wanted.
  for (const raft::MemberTarget& target : change.targets) {
    const std::optional<MemberRecord> record = RecordOf(members_, target.id);
    if (record && !record->kept) Break("a member that a person added is touched");
    if (target.fate == raft::MemberFate::kVoter) JudgePromoted(target.id);
    if (target.fate == raft::MemberFate::kRemoved) {
      JudgeRemoved(change, target.id);
      if (polled_ && polled_->count > 0 && !IsWanted(options_, *polled_, record->name)) fell = true;
    }
  }
  const size_t up = CountUp(next.voters);
  if (!IsMajority(up, next.voters)) Break("the change leaves no majority that answers");
  const bool lower = Spare(up, after) < Spare(CountUp(members_.voters), before) ||
                     (after - 1) / 2 < (before - 1) / 2;
  if (lower && !fell) Break("the change lowers the losses that can be survived");
}

void UpkeepWorld::JudgeRemoved(const raft::MemberChange& change, MemberId id) {
  const std::string slot = RecordOf(members_, id)->name;
  if (id == leader_) Break("the leader removes itself");
  if (polled_ && polled_->count > 0 && !IsWanted(options_, *polled_, slot)) return;
  if (IsUp(id)) return Break("a member that answers is taken for lost");
  const bool replaced = std::ranges::any_of(change.targets, [&](const raft::MemberTarget& target) {
    if (target.fate == raft::MemberFate::kRemoved || target.id == id) return false;
    const std::optional<MemberRecord> record =
        target.record ? DecodeMemberRecord(*target.record) : RecordOf(members_, target.id);
    return record && record->name == slot &&
           (target.fate == raft::MemberFate::kVoter || members_.IsLearner(id));
  });
  if (!replaced) Break("a member is removed whose slot is wanted, and nobody takes its place");
}

void UpkeepWorld::JudgePromoted(MemberId id) {
  const Disk& disk = disks_.at(DiskOf(id));
  if (!disk.up || disk.lags) Break("a vote for one that lags or does not answer");
  for (const MemberId holder : Holders(members_, disk.slot)) {
    if (holder != id && IsUp(holder)) Break("two living members of one slot");
  }
  if (Holders(members_, disk.slot).size() == 1 && members_.voters.size() >= options_.max_voters) {
    Break("more voters than there may be");
  }
}

JoinDecision UpkeepWorld::Join(const std::string& name, const std::string& token,
                               uint32_t machine_version) {
  Disk& disk = disks_[name];
  if (disk.uuid.empty()) disk = {.slot = SlotOf(name), .uuid = "uuid of " + name};
  if (leader_ == 0 || !IsUp(leader_) || !HasQuorum()) {
    return {
        .kind = JoinAnswer::Kind::kRetry, .sentence = "no leader", .member_id = 0, .change = {}};
  }
  const JoinRequest request{.name = disk.slot,
                            .node_uuid = disk.uuid,
                            .peer_urls = {"http://" + disk.slot},
                            .client_urls = {},
                            .version = "1",
                            .machine_version = machine_version,
                            .token_hash = token,
                            .slot = {}};
  JoinFacts facts{.cluster_version = 3,
                  .token_hash = "token",
                  .counted = counted_,
                  .desired = upkeep_->desired(),
                  .sights = upkeep_->sights(),
                  .answering = {},
                  .fresh_id = next_id_++};
  for (const MemberRecord& rival : Rivals(members_, request)) {
    for (const auto& [other, at] : disks_) {
      if (at.uuid == rival.node_uuid && at.up && !at.deaf) facts.answering.insert(at.uuid);
    }
  }
  JoinDecision decision = Decide(options_, members_, request, facts);
  if (decision.kind == JoinAnswer::Kind::kRefused) disk.refused = true;
  if (decision.kind != JoinAnswer::Kind::kGranted) return decision;
  if (token != "token") Break("a stranger joins");
  if (!decision.change && members_.IsVoter(decision.member_id))
    Break("a voter that forgot comes back");
  disk.id = decision.member_id;
  if (decision.change) Apply(*decision.change, name + " joins");
  size_t fresh = 0;
  for (const MemberId id : members_.learners) {
    if (IsUp(id) && disks_.at(DiskOf(id)).lags) ++fresh;
  }
  if (fresh > options_.max_catching_up) Break("too many catch up at a time");
  return decision;
}

void UpkeepWorld::Leave(const std::string& disk) {
  if (upkeep_)
    upkeep_->WantsToLeave(absl::Seconds(seconds_) + absl::Milliseconds(500), disks_.at(disk).id);
}

std::string UpkeepWorld::WhyStillHere(const std::string& disk) const {
  return upkeep_ ? upkeep_->WhyStillHere(disks_.at(disk).id) : "no leader";
}

void UpkeepWorld::JudgePermit(const Disk& disk) {
  std::vector<MemberId> rest = members_.voters;
  std::erase(rest, disk.id);
  const auto stays = [this](MemberId id) { return seen_.contains(id) && !stopping_.contains(id); };
  const auto up = static_cast<size_t>(std::ranges::count_if(rest, stays));
  if (members_.voters.size() > 2 && !IsMajority(up, members_.voters)) {
    Break("a permit leaves no majority");
  }
  if (permit_ && permit_->member != disk.id) Break("two have the permit");
}

Permits::Decision UpkeepWorld::AskPermit(const std::string& name, PermitReason reason) {
  Disk& disk = disks_.at(name);
  if (leader_ == 0) return {.verdict = Permits::Verdict::kWait, .sentence = "no leader"};
  Permits::Decision decision =
      permits_->Decide({.member_id = disk.id, .boot_epoch = disk.boot_epoch, .reason = reason},
                       {.now = absl::Seconds(seconds_),
                        .members = members_,
                        .sights = upkeep_->sights(),
                        .held = permit_});
  if (decision.verdict != Permits::Verdict::kNote) return decision;
  JudgePermit(disk);
  permit_ = HeldPermit{.member = disk.id,
                       .boot_epoch = disk.boot_epoch,
                       .unknown_reason = reason == PermitReason::kUnknown};
  stopping_.insert(disk.id);
  return decision;
}

std::string UpkeepWorld::Describe() const {
  const auto names = [this](const std::vector<MemberId>& ids) {
    std::vector<std::string> out;
    for (const MemberId id : ids) out.push_back(DiskOf(id) + (IsUp(id) ? "" : " (down)"));
    std::ranges::sort(out);
    return fmt::format("{}", fmt::join(out, " "));
  };
  return fmt::format("voters: {}\nlearners: {}\n", names(members_.voters),
                     names(members_.learners));
}

}  // namespace kv::cluster

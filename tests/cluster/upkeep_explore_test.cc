// Random stories of members that come, go, crash and are lost, judged at each step
// (upkeep_world.h); at the end everything is well again, and the members must be those that are
// wanted.
#include <catch2/catch_test_macros.hpp>
#include <set>
#include <string>
#include <vector>

#include "server/raft/random.h"
#include "tests/cluster/upkeep_world.h"

namespace kv::cluster {
namespace {

constexpr uint64_t kSeeds = 300;
constexpr uint64_t kSlotsMax = 7;

class Story {
 public:
  explicit Story(uint64_t seed) : random_(seed), world_(Options(random_)) {
    count_ = 1 + random_.Below(5);
    for (uint64_t slot = 0; slot < std::min<uint64_t>(count_, 3); ++slot) {
      world_.Add(Newest(slot), true, true);
    }
    world_.Want(count_);
    if (random_.Below(4) == 0) world_.Add("by-hand", false, false);
  }

  // What was broken; empty: nothing.
  std::string Run() {
    for (int i = 0; i < 400 && world_.broken().empty(); ++i) {
      Disturb();
      Live();
    }
    return world_.broken().empty() ? Settle() : world_.broken();
  }

  std::vector<std::string> events() { return world_.TakeEvents(); }

 private:
  static UpkeepOptions Options(raft::SplitMix64& random) {
    UpkeepOptions options{.slot_prefix = "kvd"};
    options.max_voters = random.Below(3) == 0 ? 3 : 7;
    options.standby_learners = true;
    return options;
  }

  std::string Newest(uint64_t slot) const {
    const auto at = lives_.find(slot);
    return "kvd-" + std::to_string(slot) + std::string(at == lives_.end() ? 0 : at->second, '\'');
  }
  bool IsMember(const std::string& disk) {
    const auto at = world_.disks().find(disk);
    return at != world_.disks().end() && world_.members().IsMember(at->second.id);
  }

  void Disturb() {
    switch (random_.Below(40)) {
      case 0:
        count_ = random_.Below(kSlotsMax + 1);
        world_.Want(count_);
        break;
      case 1:
        world_.Answer(random_.Below(2) == 0 ? DesiredCount::Kind::kCount
                                            : DesiredCount::Kind::kUnknown);
        break;
      case 2:
        world_.Answer(DesiredCount::Kind::kCount);
        break;
      case 3:
      case 4:
        Crash();
        break;
      case 5:
        LoseDisk();
        break;
      case 6:
      case 7:
        StartAll();
        break;
      case 8:
        AskPermit();
        break;
      case 9:
        ForgetfulJoin();
        break;
      default:
        break;
    }
  }

  void Crash() {
    const uint64_t slot = random_.Below(kSlotsMax);
    if (IsMember(Newest(slot))) world_.Crash(Newest(slot));
  }

  // For ever; never more than the members can lose, for nobody could help them then.
  void LoseDisk() {
    const uint64_t slot = random_.Below(kSlotsMax);
    const std::string disk = Newest(slot);
    if (!world_.disks().contains(disk)) return;
    std::set<std::string> gone = gone_;
    gone.insert(disk);
    // With one more spare: a vote may be on its way to another one.
    if (!world_.CanLose(gone) || world_.members().voters.size() < 3) return;
    gone_ = gone;
    world_.Crash(disk);
    world_.disks().at(disk).back_at = 0;
    ++lives_[slot];
  }

  void StartAll() {
    for (auto& [name, disk] : world_.disks()) {
      if (!disk.up && disk.id != 0 && !gone_.contains(name) && world_.members().IsMember(disk.id)) {
        world_.Start(name);
      }
    }
  }

  void AskPermit() {
    const std::string disk = Newest(random_.Below(kSlotsMax));
    if (!IsMember(disk) || !world_.disks().at(disk).up) return;
    if (world_.AskPermit(disk, PermitReason::kRestart).verdict == Permits::Verdict::kWait) return;
    world_.Crash(disk);
    world_.disks().at(disk).back_at = world_.seconds() + 1 + random_.Below(90);
  }

  // A copy of the volume from before it was a member.
  void ForgetfulJoin() {
    const std::string disk = Newest(random_.Below(kSlotsMax));
    if (!IsMember(disk) || world_.disks().at(disk).up) return;
    const bool counted = world_.members().IsVoter(world_.disks().at(disk).id);
    if (!counted) return;
    world_.Join(disk);
    world_.disks().at(disk).refused = false;  // The right copy is there as well.
  }

  // One second of every pod: blank ones ask, unwanted ones leave and end, learners catch up.
  void Live() {
    for (uint64_t slot = 0; slot < kSlotsMax; ++slot) {
      const bool wanted = slot < count_ || count_ == 0;
      if (wanted && count_ > 0) {
        JoinIfBlank(slot);
      } else if (!wanted && IsMember(Newest(slot))) {
        if (random_.Below(10) > 0) {
          world_.Leave(Newest(slot));
        } else if (!settling_ && random_.Below(10) == 0) {
          world_.Crash(Newest(slot));
        }
      }
    }
    world_.Tick();
    for (auto& [name, disk] : world_.disks()) {
      if (disk.lags && random_.Below(8) == 0) disk.lags = false;
    }
  }

  void JoinIfBlank(uint64_t slot) {
    std::string name = Newest(slot);
    const auto at = world_.disks().find(name);
    if (at != world_.disks().end() &&
        (at->second.refused || world_.members().IsRemoved(at->second.id))) {
      ++lives_[slot];  // Moved aside.
      name = Newest(slot);
    }
    if (IsMember(name) || random_.Below(2) == 0) return;
    const JoinDecision decision = world_.Join(name, random_.Below(10) == 0 ? "another" : "token");
    UpkeepWorld::Disk& disk = world_.disks().at(name);
    if (decision.kind == JoinAnswer::Kind::kRefused) disk.refused = false;  // It was the token.
    if (decision.kind == JoinAnswer::Kind::kGranted) disk.lags = true;
  }

  std::string Settle() {
    settling_ = true;
    world_.Answer(DesiredCount::Kind::kCount);
    count_ = std::max<uint64_t>(count_, 1);
    world_.Want(count_);
    for (int i = 0; i < 900; ++i) {
      StartAll();
      Live();
    }
    std::set<std::string> expected;
    for (uint64_t slot = 0; slot < count_; ++slot) expected.insert(Newest(slot));
    std::set<std::string> found;
    for (const MemberId id : world_.members().All()) {
      if (world_.DiskOf(id) != "by-hand") found.insert(world_.DiskOf(id));
    }
    if (!world_.broken().empty()) return world_.broken();
    if (world_.HasQuorum() && found == expected) return "";
    return "the members are not those that are wanted, " + std::to_string(count_) + ":\n" +
           world_.Describe();
  }

  raft::SplitMix64 random_;
  UpkeepWorld world_;
  uint64_t count_ = 0;
  std::map<uint64_t, size_t> lives_;  // Disks that a slot had before.
  std::set<std::string> gone_;
  bool settling_ = false;
};

TEST_CASE(
    "whatever happens to members, the leader breaks no law, and in the end all is as wanted") {
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    Story story(seed);
    const std::string broken = story.Run();
    if (broken.empty()) continue;
    std::string events;
    for (const std::string& event : story.events()) events += event + "\n";
    FAIL("seed " << seed << ": " << broken << "\n" << events);
  }
}

}  // namespace
}  // namespace kv::cluster

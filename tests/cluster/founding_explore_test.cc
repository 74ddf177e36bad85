// Random schedules of bare foundings: loss, duplication, reordering, partitions, crashes between
// any two effects, emptied disks. Every step is checked against the laws of founding.h.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <string>
#include <vector>

#include "tests/cluster/founding_cluster.h"

namespace kv::cluster {
namespace {

constexpr uint64_t kRuns = 3000;

// KVD_FOUNDING_SEED replays one run.
std::optional<uint64_t> SeedFromEnvironment() {
  const char* text = std::getenv("KVD_FOUNDING_SEED");
  if (text == nullptr) return std::nullopt;
  return std::strtoull(text, nullptr, 10);
}

class Run {
 public:
  Run(uint64_t seed, bool wipes) : random_(seed), wipes_(wipes), cluster_(random_.Next()) {
    const uint64_t count = 1 + random_.Below(5);
    for (uint64_t i = 0; i < count; ++i) names_.push_back("m" + std::to_string(i));
    flags_.list = names_;
  }

  void Storm() {
    const uint64_t steps = 100 + random_.Below(300);
    for (uint64_t i = 0; i < steps && cluster_.broken().empty(); ++i) Step();
  }

  // No more faults; everybody runs until nothing changes any more.
  void Calm() {
    cluster_.Heal();
    for (int round = 0; round < 12 && cluster_.broken().empty(); ++round) {
      for (const std::string& name : names_) {
        // A crash that was still to come falls away with a restart.
        if (round == 0) cluster_.Crash(name);
        if (round == 0 || (!cluster_.Runs(name) && !cluster_.halted(name))) {
          cluster_.Start(name, flags_);
        }
        cluster_.Tick(name);
      }
      while (!cluster_.packets().empty() && cluster_.broken().empty()) {
        cluster_.Deliver(random_.Below(cluster_.packets().size()));
      }
    }
  }

  const FoundingCluster& cluster() const { return cluster_; }
  const std::vector<std::string>& names() const { return names_; }
  bool wiped() const { return wiped_; }

 private:
  const std::string& Anybody() { return names_[random_.Below(names_.size())]; }

  void Step() {
    const std::string& name = Anybody();
    const uint64_t packets = cluster_.packets().size();
    const uint64_t dice = random_.Below(100);
    if (packets > 200 || (packets > 0 && dice < 50)) {
      cluster_.Deliver(random_.Below(packets));
    } else if (packets > 0 && dice < 55) {
      cluster_.Drop(random_.Below(packets));
    } else if (packets > 0 && dice < 60) {
      cluster_.Double(random_.Below(packets));
    } else if (dice < 75) {
      cluster_.Tick(name);
    } else if (dice < 85) {
      if (!cluster_.Runs(name)) cluster_.Start(name, flags_);
    } else if (dice < 88) {
      cluster_.Crash(name);
    } else if (dice < 92) {
      cluster_.CrashAfter(name, static_cast<int>(random_.Below(6)));
    } else if (dice < 94) {
      cluster_.Cut(name, Anybody());
    } else if (dice < 98) {
      cluster_.Heal();
    } else if (wipes_) {
      cluster_.Crash(name);
      cluster_.Wipe(name);
      wiped_ = true;
    }
  }

  raft::SplitMix64 random_;
  const bool wipes_;
  FoundingCluster cluster_;
  std::vector<std::string> names_;
  FoundingCluster::Flags flags_;
  bool wiped_ = false;
};

void CheckRun(uint64_t seed, bool wipes) {
  INFO("replay with KVD_FOUNDING_SEED=" << seed);
  Run run(seed, wipes);
  run.Storm();
  REQUIRE(run.cluster().broken() == "");
  run.Calm();
  REQUIRE(run.cluster().broken() == "");
  if (!run.wiped()) {
    // Everybody is alive and connected: exactly one cluster, and everybody in it.
    REQUIRE(run.cluster().clusters_with_members() == 1);
    for (const std::string& name : run.names()) {
      REQUIRE_FALSE(run.cluster().halted(name));
      REQUIRE(run.cluster().disks().at(name).identity.state == State::kMember);
    }
    return;
  }
  // A disk was emptied: founded all the same, or everybody who is no member says why not.
  for (const std::string& name : run.names()) {
    if (run.cluster().disks().at(name).identity.state == State::kMember) continue;
    const Founding* process = run.cluster().process(name);
    const bool says_why =
        run.cluster().halted(name) || (process != nullptr && !process->Missing().empty());
    const bool another_says = std::ranges::any_of(run.names(), [&run](const std::string& other) {
      const Founding* peer = run.cluster().process(other);
      return run.cluster().halted(other) || (peer != nullptr && !peer->Missing().empty());
    });
    REQUIRE((says_why || another_says));
  }
}

TEST_CASE("random schedules found exactly one cluster") {
  if (const std::optional<uint64_t> seed = SeedFromEnvironment()) {
    CheckRun(*seed, false);
    return;
  }
  for (uint64_t seed = 1; seed <= kRuns; ++seed) CheckRun(seed, false);
}

TEST_CASE("emptied disks never found a second cluster beside the first") {
  if (const std::optional<uint64_t> seed = SeedFromEnvironment()) {
    CheckRun(*seed, true);
    return;
  }
  size_t wiped = 0;
  for (uint64_t seed = 1; seed <= kRuns; ++seed) CheckRun(seed, true);
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Run run(seed, true);
    run.Storm();
    if (run.wiped()) ++wiped;
  }
  CHECK(wiped >= 50);  // The fault was there at all.
}

}  // namespace
}  // namespace kv::cluster

// A platform that keeps a wanted number of processes running, as a StatefulSet does: what a cluster
// meets that looks after its members by itself.
//
// A pod has a slot and a disk. It is started again whenever it ends; one beyond the wanted count is
// told to leave, votes on until it is let go or loses patience, and ends. A slot without a member
// gets an empty disk, which asks to join.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/cluster/join.h"
#include "tests/sim/cluster.h"

namespace kv::sim {

// How many are wanted, and whether anybody says so.
class SimDesired final : public cluster::DesiredSource {
 public:
  void Read(absl::AnyInvocable<void(cluster::DesiredCount) &&> done) override {
    ++reads;
    std::move(done)(says);
  }
  cluster::DesiredCount says{
      .kind = cluster::DesiredCount::Kind::kCount, .count = 0, .first = 0, .reason = {}};
  uint64_t reads = 0;
};

class Pods {
 public:
  // The cluster was founded with pods 0 to its number of voters.
  Pods(Cluster* cluster, SimDesired* desired);
  ~Pods();
  Pods(const Pods&) = delete;
  Pods& operator=(const Pods&) = delete;

  void Scale(uint64_t count);  // What the platform does; what it says is SimDesired's.
  void LoseVolume(uint64_t slot);
  // Ended in order, and started again. Asks for the permit first, as long as it has patience.
  void Restart(uint64_t slot, cluster::PermitReason reason = cluster::PermitReason::kRestart);
  void Kill(uint64_t slot);
  void KeepDown(uint64_t slot, bool down) { pods_[slot].kept_down = down; }

  // The members are the wanted slots' pods, all of them voters, and every one serves.
  bool AreAsWanted();
  Host* HostOf(uint64_t slot);
  // The most pods that were down in order at a time, and how often one lost patience.
  size_t most_stopped() const { return most_stopped_; }
  size_t impatient() const { return impatient_; }
  uint64_t permits() const { return permits_; }

 private:
  enum class Phase { kRuns, kAsksPermit, kLeaves, kGone };
  struct Pod {
    Host* host = nullptr;  // Its newest disk; null: none yet.
    Phase phase = Phase::kRuns;
    cluster::PermitReason reason = cluster::PermitReason::kRestart;
    Time since = 0;  // In this phase.
    bool asking = false;
    bool kept_down = false;
    bool stopped = false;               // In order, and not back.
    std::unique_ptr<SimNetwork> joins;  // While its disk is blank.
  };

  void TickLater();
  void Tick(uint64_t slot, Pod& pod);
  void Run(uint64_t slot, Pod& pod);
  void AskToJoin(uint64_t slot, Pod& pod);
  void OnJoinAnswered(uint64_t slot, const Host* host, const absl::StatusOr<std::string>& answer);
  void AskPermit(uint64_t slot, Pod& pod);
  void AskToLeave(uint64_t slot, Pod& pod);
  void StopNow(Pod& pod);
  void GiveDisk(uint64_t slot, Pod& pod, Host* before);

  Cluster* const cluster_;
  SimDesired* const desired_;
  std::map<uint64_t, Pod> pods_;
  uint64_t count_ = 0;
  size_t most_stopped_ = 0;
  size_t impatient_ = 0;
  uint64_t permits_ = 0;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace kv::sim

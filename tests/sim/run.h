// One random run: a function of its seed.
//
// A cluster is founded, clients work on it while everything that may go wrong does, then the faults
// stop: some majority is healed, the rest is dead for ever, and it must go on from there. At the
// end the whole history is judged.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/sim/client.h"
#include "tests/sim/cluster.h"
#include "tests/sim/watchers.h"

namespace kv::sim {

enum class Fault : uint8_t {
  kCrash,
  kPowerLoss,
  kPowerLossOfAll,
  kRestart,
  kPause,
  kHoldLog,
  kSlowDisk,
  kClockRate,
  kIsolate,
  kCutOneWay,
  kPartition,
  kFlap,
  kClog,
  kSlowLink,
  kHealWire,
  kFailSync,
  kFullDisk,
  kRot,
  kWipe,
  kAddMember,
  kChangeMember,
  kReplace,
  kTransfer,
  kStop,
  kDieAdopting,
  kTransferToNewborn,
  kLonelyWriter,
};
inline constexpr size_t kFaults = 27;
std::string_view NameOf(Fault fault);
std::optional<Fault> FaultNamed(std::string_view name);

// What a run draws from its seed: some are calm, some mad, some lack one kind of fault, so that no
// fault always hides what another would show.
struct Swarm {
  ClusterOptions cluster;
  WorkloadOptions workload;
  WatchersOptions watchers;
  Time faults_for = 20 * kSecond;
  Delay between_faults{.least = 50 * kMillisecond, .spread = 2 * kSecond};
  std::array<uint64_t, kFaults> weights{};  // By Fault.
};
Swarm DrawSwarm(uint64_t seed);

// What is left out of a run, to find a smaller one that fails, and to replay that.
struct Shrink {
  int voters = 0;        // At most; 0: as drawn.
  uint64_t clients = 0;  // At most; 0: as drawn.
  Time faults_for = 0;   // At most; 0: as drawn.
  std::array<bool, kFaults> without{};
};

struct Verdict {
  uint64_t digest = 0;
  Time virtual_time = 0;
  uint64_t operations = 0;  // Answered.
  uint64_t events = 0;
  uint64_t faults = 0;
};

class Run {
 public:
  explicit Run(const Swarm& swarm);
  // Ends the process at the first broken law (through the check hook).
  Verdict Judge();
  Cluster& cluster() { return cluster_; }
  uint64_t step() const { return faults_; }

 private:
  void NextFault();
  void Do(Fault fault);
  Host* DrawUp();
  Host* DrawServing();
  Host* DrawVictim();  // Often the leader: that is where it hurts.
  void RestartLater(Host& host);
  void Cut(Fault fault);
  void TransferToNewborn();
  void TransferOnce(const Host& newborn, int tries);
  void LeaveWriterAlone();
  void AddMember();
  void ChangeMember();
  void Replace();
  void Wipe();
  void Change(raft::MemberChange change, const std::function<void(const MembersResult&)>& done);
  bool KeepsQuorum(const raft::MemberChange& change);
  bool MayLose(const Host& host);
  void Heal();
  void StartFallen();
  void CheckProgress();
  void CheckOldDisks();
  void LiftAlarms();
  void CheckLeasesEnd();
  void CheckWatchers();
  void CheckRest();
  void CheckContents();

  const Swarm swarm_;
  Cluster cluster_;
  Scheduler& scheduler_;
  History history_;
  Workload workload_;
  Watchers watchers_;
  // What a host's disk held when it went down first.
  struct OldDisk {
    Index last = 0;  // Of its log, at most.
    std::unique_ptr<SimDisk> disk;
  };
  std::map<int, OldDisk> old_disks_;
  std::set<int> dead_;  // For ever, since the faults stopped.
  bool faulty_ = true;
  uint64_t faults_ = 0;
  uint64_t changes_ = 0;
  Time changing_until_ = 0;  // A change that was asked for may still take effect.
};

}  // namespace kv::sim

// A leader's view of members that come, go and are lost, a second at a time, without any Raft
// below: changes take effect at once. What the leader decides by itself is judged at each step.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/cluster/admission.h"
#include "server/cluster/permits.h"
#include "server/cluster/upkeep.h"

namespace kv::cluster {

class UpkeepWorld {
 public:
  // A volume and the process on it. "kvd-1'" is the second one of slot kvd-1.
  struct Disk {
    std::string slot;
    std::string uuid;
    MemberId id = 0;  // Once it is a member.
    bool up = true;
    bool lags = false;
    bool cut = false;      // The leader does not hear it; who asks it by address does.
    bool deaf = false;     // Its address belongs to another process by now.
    bool refused = false;  // For good.
    bool kept = true;
    uint64_t boot_epoch = 1;
    uint64_t back_at = 0;  // Stopped with a permit until then; 0: not.
  };

  explicit UpkeepWorld(UpkeepOptions options) : options_(std::move(options)) {}

  // Before anything else: who is a member already.
  void Add(const std::string& disk, bool voter, bool kept);
  void Crash(const std::string& disk);
  void Start(const std::string& disk);
  void SetLag(const std::string& disk, bool lags) { disks_.at(disk).lags = lags; }

  // What the platform wants, and whether it says so.
  void Want(uint64_t count) { count_ = count; }
  void Answer(DesiredCount::Kind kind) { answers_ = kind; }
  // Nobody says how many: every slot may join, nobody is let go.
  void CountNobody() { counted_ = false; }

  JoinDecision Join(const std::string& disk, const std::string& token = "token",
                    uint32_t machine_version = 3);
  void Leave(const std::string& disk);
  Permits::Decision AskPermit(const std::string& disk, PermitReason reason);
  void Tick();  // One second.

  uint64_t seconds() const { return seconds_; }
  std::map<std::string, Disk>& disks() { return disks_; }
  const raft::Members& members() const { return members_; }
  const Disk* leader() const;
  std::string DiskOf(MemberId id) const;
  bool HasQuorum() const;
  // Whether a majority of the voters would remain if these disks were gone for ever.
  bool CanLose(const std::set<std::string>& gone) const;
  std::string WhyStillHere(const std::string& disk) const;
  std::string Describe() const;
  std::vector<std::string> TakeEvents() { return std::exchange(events_, {}); }
  const std::string& broken() const { return broken_; }

 private:
  void Elect();
  void Poll();
  Upkeep::Facts FactsNow() const;
  bool IsUp(MemberId id) const;
  size_t CountUp(const std::vector<MemberId>& ids) const;
  void Apply(const raft::MemberChange& change, const std::string& what);
  void JudgeChange(const raft::MemberChange& change, const raft::Members& next);
  void JudgeRemoved(const raft::MemberChange& change, MemberId id);
  void JudgePromoted(MemberId id);
  void JudgePermit(const Disk& disk);
  void Break(const std::string& why);

  const UpkeepOptions options_;
  std::map<std::string, Disk> disks_;
  raft::Members members_;
  MemberId leader_ = 0;
  MemberId next_id_ = 1;
  uint64_t seconds_ = 0;
  uint64_t count_ = 0;
  bool counted_ = true;
  DesiredCount::Kind answers_ = DesiredCount::Kind::kCount;
  std::optional<DesiredCount> polled_;  // By this leader; nothing: unknown.
  std::optional<uint64_t> polled_at_;
  std::optional<HeldPermit> permit_;
  std::set<MemberId> seen_;      // Up when the leader looked last.
  std::set<MemberId> stopping_;  // With a permit, and not back.
  std::optional<Upkeep> upkeep_;
  std::optional<Permits> permits_;
  std::vector<std::string> said_;
  std::vector<std::string> events_;
  std::string broken_;
};

}  // namespace kv::cluster

// Several Foundings in a for-loop: their disks, and the requests and answers between them, which a
// test delivers, drops, doubles and reorders at will. Crashes fall between any two effects of one
// Output. After every step the laws of founding.h are checked; a broken one is in broken().
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/cluster/founding.h"

namespace kv::cluster {

class FoundingCluster {
 public:
  using Names = std::vector<std::string>;

  struct Disk {
    Identity identity;
    std::string bytes;  // As it lies on the disk.
  };
  // How a process is started.
  struct Flags {
    Names list;
    std::string token = "token";
  };
  struct Packet {
    std::string from;
    std::string to;
    Founding::Ask ask;  // The request, or the one that is answered.
    Standing standing;  // The speaker's, with a Hello.
    bool is_answer = false;
    bool is_failure = false;             // An answer of the network: nobody there.
    std::optional<std::string> refusal;  // Answers to Prepare and Commit.
    uint64_t life = 0;                   // Answers reach only the life that asked.
  };

  explicit FoundingCluster(uint64_t seed) : random_(seed) {}

  void Start(const std::string& name, const Flags& flags);
  void Crash(const std::string& name);
  void Wipe(const std::string& name);  // A stopped process' disk is replaced by a blank one.
  // The process dies after this many more effects (a write, an answer, a request); its next Start
  // clears it.
  void CrashAfter(const std::string& name, int effects) { effects_left_[name] = effects; }
  void Cut(const std::string& one, const std::string& other);
  void Heal() { cuts_.clear(); }

  void Tick(const std::string& name);
  void Deliver(size_t packet);  // Takes it out of packets().
  void Drop(size_t packet);
  void Double(size_t packet);

  bool Runs(const std::string& name) const { return processes_.contains(name); }
  const std::vector<Packet>& packets() const { return packets_; }
  const std::map<std::string, Disk>& disks() const { return disks_; }
  const Founding* process(const std::string& name) const;
  std::optional<std::string> halted(const std::string& name) const;
  std::string DescribePacket(const Packet& packet);
  // F1, F2, … in the order of appearance.
  std::string NameOf(uint64_t cluster_id);
  // What happened since the last call, one line each.
  std::vector<std::string> TakeEvents();
  const std::string& broken() const { return broken_; }
  size_t clusters_with_members() const { return members_of_.size(); }

 private:
  struct Process {
    Flags flags;
    std::unique_ptr<Founding> founding;
    uint64_t life = 0;
  };

  void Fail(const Packet& packet);
  bool Effect(const std::string& name);
  void Carry(const std::string& name, Founding::Output output, const Packet* asked);
  void Persist(const std::string& name, const Identity& identity);
  void CheckStep(const Identity& before, const Identity& after);
  Standing StandingOf(const Process& process) const { return process.founding->standing(); }

  raft::SplitMix64 random_;
  std::map<std::string, Disk> disks_;
  std::map<std::string, Process> processes_;
  std::map<std::string, std::string> halted_;
  std::map<std::string, int> effects_left_;
  std::set<std::pair<std::string, std::string>> cuts_;
  std::vector<Packet> packets_;
  std::vector<std::string> events_;
  std::vector<uint64_t> named_;
  uint64_t lives_ = 0;
  std::string broken_;

  // What ever was, across all disks.
  std::map<uint64_t, std::set<std::string>> promised_by_;  // Cluster id → uuids.
  std::map<uint64_t, FoundingRecord> members_of_;          // Cluster ids that gained a member.
  std::set<std::string> wiped_;                            // Uuids.
};

}  // namespace kv::cluster

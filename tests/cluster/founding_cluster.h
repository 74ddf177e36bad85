// Several Foundings in a for-loop: their disks, the marker, and the requests and answers between
// them, which a test delivers, drops, doubles and reorders at will. Crashes fall between any two
// effects of one Output. After every step the laws of founding.h and forming.h are checked; a
// broken one is in broken().
//
// A process is known by its key. Its name is the key up to a prime: a and a' are twins, two
// processes that both believe to be a, on two disks; what is sent to a reaches the one that was
// started last.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "server/cluster/forming.h"
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
    enum class Mode { kList, kJoin, kCounted };  // kCounted: the slots kvd-0, kvd-1, …
    Mode mode = Mode::kList;
    size_t founders_max = 3;
    bool marker = false;
    bool alone = false;
    bool reinitialize = false;
  };
  enum class Outside { kNone, kReadMarker, kWriteMarker, kReadDesired };
  struct Packet {
    std::string from;
    std::string to;
    Founding::Ask ask;  // The request, or the one that is answered.
    Standing standing;  // The speaker's, with a Hello.
    bool is_answer = false;
    bool is_failure = false;             // An answer of the network: nobody there.
    std::optional<std::string> refusal;  // Answers to Prepare, Commit and Join.
    Outside outside = Outside::kNone;    // Instead of a request to another process.
    std::optional<Marker> marker;        // What is to be written, or was read.
    DesiredCount desired;                // What was read.
    uint64_t cluster_id = 0;             // A grant: of what, to whom.
    MemberId member_id = 0;
    uint64_t life = 0;  // Answers reach only the life that asked.
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

  // What is outside. A source that is down answers with an error.
  void SetDesired(DesiredCount desired) { desired_ = std::move(desired); }
  void SetMarker(std::optional<Marker> marker);  // Nothing: down, until it is set or up again.
  void MarkerUp() { marker_down_ = false; }
  // The strict law of founding.h does not hold: foundings of one, or of changing numbers.
  void LetMarkerDecide() { marker_decides_ = true; }
  const Marker& marker() const { return marker_; }

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
  // Clusters that could acknowledge a write.
  size_t clusters_that_served() const { return served_.size(); }
  bool Serves(const std::string& name) const;

 private:
  struct Process {
    Flags flags;
    std::unique_ptr<Founding> founding;
    std::unique_ptr<Forming> forming;  // Once it is a member, where there is a marker.
    uint64_t life = 0;
  };

  static std::string SlotOf(const std::string& key) { return key.substr(0, key.find('\'')); }
  std::string KeyOf(const std::string& name) const;
  FoundingOptions OptionsOf(const std::string& name, const Flags& flags) const;
  void AskOutside(const std::string& name, Outside outside, std::optional<Marker> marker);
  void AnswerOutside(Packet packet);
  void TellOutside(const Packet& packet);
  void TickForming(const std::string& name);
  void CarryForming(const std::string& name, Forming::Output output);
  void AnswerJoin(const Packet& packet);
  bool CanCommit(uint64_t cluster_id) const;
  void Fail(const Packet& packet);
  bool Effect(const std::string& name);
  void Carry(const std::string& name, Founding::Output output, const Packet* asked);
  void Persist(const std::string& name, const Identity& identity);
  void NoteHalt(const std::string& name);
  void CheckStep(const Identity& before, const Identity& after, bool discovers, bool uses_marker);
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
  std::map<uint64_t, std::set<std::string>> promised_by_;       // Cluster id → uuids.
  std::map<uint64_t, FoundingRecord> members_of_;               // Cluster ids that gained a member.
  std::set<std::string> wiped_;                                 // Uuids.
  std::map<uint64_t, std::map<std::string, MemberId>> joined_;  // Cluster id → uuids.
  std::set<uint64_t> served_;
  std::set<uint64_t> marked_;  // What the marker ever named.
  bool marker_decides_ = false;
  bool forgotten_ = false;  // A person, or a setting, gave a served cluster up.

  DesiredCount desired_{.kind = DesiredCount::Kind::kCount, .count = 3, .first = 0, .reason = {}};
  Marker marker_{.phase = Marker::Phase::kNone, .cluster_id = 0, .version = "0"};
  uint64_t marker_version_ = 0;
  bool marker_down_ = false;
};

}  // namespace kv::cluster

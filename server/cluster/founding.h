// Decides how blank disks become exactly one cluster: two phases, unanimous; and, under discovery,
// how a blank disk joins the cluster that it finds.
//
// Pure: an input in, one Output out; no clock, disk, network or dice (chance is a seed). The driver
// next door carries outputs out. Owned by the node's loop.
//
// Two ways to be told who the others are:
//   list       --initial-cluster: all of it founds, by name. A blank disk that meets a member ends.
//   discovery  slots, given by --join or counted by whoever starts the processes (outside.h). All
//              wanted slots are surveyed, the first few found, the others join. A blank disk that
//              meets a member joins its cluster. A contradiction is never an end of the process but
//              HALTED: it stays up, does nothing more, and says why.
//
// The first founder coordinates. Once every surveyed slot has answered two rounds in a row (none a
// member, same configuration, all disks different), the coordinator draws a record F of random ids
// and asks every founder to promise it. A promise is durable before it is answered. With all
// promises in hand the coordinator becomes a member of F and tells the others, who also learn it
// from any later Hello.
//
// Law: at most one F ever gains a member, unless every disk of its founders was emptied. A member
// of F exists only after F's coordinator became one on its own disk, durably; so as long as that
// disk still says PROMISED, nobody is a member and it may propose anew, with a higher attempt. A
// founder that promised F therefore takes another record only from the disk that proposed F.
//
// A marker (outside.h), where there is one, remembers what emptied disks forget. The coordinator
// turns it to forming F before it becomes a member. Where it says formed, nothing is founded beside
// what it names.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cluster/identity.h"
#include "server/cluster/outside.h"
#include "server/raft/members.h"
#include "server/raft/random.h"

namespace kv::cluster {

struct JoinAnswer;
struct JoinRequest;

inline constexpr uint32_t kProtocolMin = 1;
inline constexpr uint32_t kProtocolMax = 1;

// Who a process is: what Hello says, before there is a cluster and after.
struct Standing {
  std::string name;
  std::string node_uuid;
  State state = State::kBlank;
  uint64_t cluster_id = 0;
  MemberId member_id = 0;
  uint64_t boot_epoch = 0;
  std::optional<FoundingRecord> record;
  std::string token_hash;
  std::string config_hash;  // Empty: not known yet how many slots are wanted.
  std::string version;
  uint32_t protocol_min = kProtocolMin;
  uint32_t protocol_max = kProtocolMax;
  uint64_t features = 0;
  uint32_t format = kIdentityFormat;
  uint32_t minimum_reader = 1;
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  MemberId leader = 0;
  friend bool operator==(const Standing&, const Standing&) = default;
};

// One line of --initial-cluster, or one slot.
struct Listed {
  std::string name;
  std::vector<std::string> peer_urls;
  friend bool operator==(const Listed&, const Listed&) = default;
};

// Slots instead of a list.
struct Discovery {
  // --join, in the order given. A process that is not among them never founds. Empty: a
  // StatefulSet, whose slot n is named `<slot_prefix>-<n>`; how many there are is read.
  std::vector<Listed> slots;
  std::string slot_prefix;
  std::function<std::vector<std::string>(const std::string& name)> slot_urls;
  size_t founders_max = 3;  // --bootstrap-max-founders
  bool has_marker = false;
  // --initial-cluster-state=new: a slot that is alone founds although no marker could tell it that
  // there was a cluster.
  bool may_found_alone = false;
  // --bootstrap-on-total-loss=reinitialize
  bool reinitialize = false;

  bool counts_slots() const { return slots.empty(); }
  // A slot's number, where slots are counted.
  std::optional<uint64_t> Ordinal(std::string_view name) const;
};

struct FoundingOptions {
  std::string name;
  std::vector<Listed> list;              // By name; holds `name`. Not under discovery.
  std::optional<Discovery> discovery{};  // Instead of the list.
  std::vector<std::string> peer_urls{};
  std::vector<std::string> client_urls;
  std::string token_hash;
  std::string config_hash;  // With a list.
  std::string version;
  uint32_t machine_version = 1;
};

class Founding {
 public:
  // A request to another process; its answer comes back through the input of the same name.
  struct Ask {
    enum class Kind { kHello, kPrepare, kCommit, kJoin };
    Kind kind = Kind::kHello;
    std::string to;                        // A name among peers().
    uint64_t round = 0;                    // kHello: to be given back with the answer.
    std::optional<FoundingRecord> record;  // kPrepare, kCommit.
  };

  // Carry out in this order.
  struct Output {
    std::optional<Identity> persist;     // Durable before anything below is done.
    std::optional<std::string> refusal;  // Prepare and Commit asked: the answer; empty: granted.
    std::vector<Ask> asks;
    std::optional<Marker> write_marker;  // Answered by MarkerWritten.
    bool read_marker = false;            // Answered by MarkerRead.
    bool read_desired = false;           // Answered by DesiredRead.
    // This removed disk's slot is wanted, or a leader takes in what this old disk is to become: a
    // blank one. Nothing else is asked.
    bool begin_anew = false;
    // With a list, this process must not go on: a sentence with the reason and the next step.
    std::optional<std::string> halt;
  };

  Founding(FoundingOptions options, Identity identity, uint64_t seed);

  // Inputs. Answers may come late, twice or never; those of the marker and of Join come once.
  Output Tick();  // About once a second: begins a round.
  Output HelloAnswered(const std::string& name, uint64_t round,
                       const absl::StatusOr<Standing>& answer);
  Output PrepareAnswered(const std::string& name, const FoundingRecord& record,
                         const absl::StatusOr<std::string>& refusal);
  Output JoinAnswered(const std::string& name, const absl::StatusOr<JoinAnswer>& answer);
  Output HelloAsked(const Standing& from);
  Output PrepareAsked(const FoundingRecord& record);
  Output CommitAsked(const FoundingRecord& record);
  Output DesiredRead(const DesiredCount& desired);
  Output MarkerRead(const absl::StatusOr<Marker>& marker);
  Output MarkerWritten(const absl::Status& status);
  // What the owner found out by itself that speaks against going on. Under discovery only.
  void Halt(std::string sentence) { halted_ = std::move(sentence); }

  // What Hello answers now.
  Standing standing() const;
  const Identity& identity() const { return identity_; }
  // A member that knows the others: it may start.
  bool founded() const;
  // Under discovery: the contradiction; empty: none.
  const std::string& halted() const { return halted_; }
  // With which members this disk was taken in; nothing if it founded.
  const std::optional<raft::Members>& joined() const { return joined_; }
  JoinRequest MakeJoinRequest() const;
  // Where another process is; nothing if it is not asked any more.
  const Listed* Find(const std::string& name) const;

  // What is waited for, and why: `m2 (http://10.0.0.2:2380): connection refused`. By name.
  std::vector<std::string> Missing() const;

 private:
  struct Peer {
    Listed listed;
    bool surveyed = false;                 // Nothing is founded without its answers.
    std::map<uint64_t, Standing> answers;  // Good ones of the last rounds, by round.
    std::optional<Standing> member;        // A member, seen in `member_round`.
    uint64_t member_round = 0;
    std::string reason = "no answer yet";  // Why the last answer was not a good one; empty: it was.
  };
  // Why nothing is done, where it is not another process that is waited for.
  struct Waits {
    std::string desired;
    std::string marker;
    std::string join;
    std::string alone;
  };

  bool Coordinates() const { return !survey_.empty() && survey_.front().name == options_.name; }
  bool InSurvey(std::string_view name) const;
  bool UsesMarker() const { return options_.discovery && options_.discovery->has_marker; }
  std::string_view Source() const;  // Where names and addresses come from, for sentences.
  bool IsFounder(std::string_view name) const;
  std::vector<Listed> Slots(uint64_t first, uint64_t count) const;
  void SetSlots(const std::vector<Listed>& candidates, std::vector<Listed> survey);
  void AskOutside(Output& output);
  std::string FaultOf(const DesiredCount& desired) const;
  // What speaks against founding with a peer that stands so; empty: nothing.
  std::string FaultOf(const Peer& peer, const Standing& standing) const;
  std::string ConfigFaultOf(const Standing& standing) const;
  // What speaks against promising the record; empty: nothing.
  std::string FaultOf(const FoundingRecord& record) const;
  bool IsOfSurvey(const FoundingRecord& record) const;
  // An earlier promise that only another disk may replace; empty: there is none.
  std::string BoundTo(std::string_view proposer_uuid) const;
  void NoteMember(const Standing& standing, Output& output);
  // Under discovery: the members that answered lately.
  std::vector<const Standing*> Members() const;
  // Whether there are any; if so, asks one of them to be taken in, or halts.
  bool MetMembers(Output& output);
  std::string ContradictionAmong(const std::vector<const Standing*>& members) const;
  bool IsPromiseVoid(const std::vector<const Standing*>& members) const;
  void AskToJoin(const std::vector<const Standing*>& members, Output& output);
  // The founders, once two rounds in a row of the whole survey were good.
  std::optional<std::vector<Founder>> Survey() const;
  void ProposeIfAllAnswered(Output& output);
  // Whether nothing outside the survey speaks against founding.
  bool MayFound();
  bool MarkerAllows() const;
  bool IsMarkedAsFormed() const;
  bool IsTotalLoss();
  bool IsWantedAgain() const;
  std::string WhyRemoved() const;
  std::string WhyStale() const;
  // Of this disk, or of the blank one that it asks to become.
  const std::string& uuid() const {
    return identity_.state == State::kStale ? identity_.next_uuid : identity_.node_uuid;
  }
  FoundingRecord MakeRecord(std::vector<Founder> founders);
  void AskPromises(Output& output);
  void FoundIfAllPromised(Output& output);
  void MarkAndFound(Output& output);
  void BecomeMember(const FoundingRecord& record, Output& output);
  std::string ContradictionWith(const Standing& member) const;

  const FoundingOptions options_;
  Identity identity_;
  raft::SplitMix64 random_;
  uint64_t round_ = 0;
  // The list, or the wanted slots in their order; empty while that is not known.
  std::vector<Listed> survey_;
  size_t founders_ = 0;  // So many of the survey.
  std::string config_hash_;
  std::map<std::string, Peer, std::less<>> peers_;  // All that are asked, but this one.
  // Coordinator: the record that is being promised, and by whom already.
  struct Proposal {
    FoundingRecord record;
    std::map<std::string, bool, std::less<>> promised;
  };
  std::optional<Proposal> proposal_;

  // Discovery.
  std::optional<DesiredCount> desired_;
  std::optional<Marker> marker_;          // As it was last read; nothing while it is not known.
  std::optional<Marker> writing_marker_;  // Its outcome is on its way.
  bool joining_ = false;                  // An answer to Join is on its way.
  std::string halted_;
  bool lost_ = false;  // `halted_` is the total loss, which a person may say is meant.
  std::optional<raft::Members> joined_;
  Waits waits_;
};

}  // namespace kv::cluster

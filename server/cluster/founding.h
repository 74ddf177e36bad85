// Decides how a list of blank disks becomes exactly one cluster: two phases, unanimous.
//
// Pure: an input in, one Output out; no clock, disk, network or dice (chance is a seed). The driver
// next door carries outputs out. Owned by the node's loop.
//
// The founders are the --initial-cluster list; the first by name coordinates. Once every founder
// has answered two rounds in a row (none a member, same configuration, all disks different), the
// coordinator draws a record F of random ids and asks every founder to promise it. A promise is
// durable before it is answered. With all promises in hand the coordinator becomes a member of F
// and tells the others, who also learn it from any later Hello.
//
// Law: at most one F ever gains a member, unless every disk of its founders was emptied. A member
// of F exists only after F's coordinator became one on its own disk, durably; so as long as that
// disk still says PROMISED, nobody is a member and it may propose anew, with a higher attempt. A
// founder that promised F therefore takes another record only from the disk that proposed F.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cluster/identity.h"
#include "server/raft/random.h"

namespace kv::cluster {

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
  std::string config_hash;
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

// One line of --initial-cluster.
struct Listed {
  std::string name;
  std::vector<std::string> peer_urls;
  friend bool operator==(const Listed&, const Listed&) = default;
};

struct FoundingOptions {
  std::string name;
  std::vector<Listed> list;  // By name; holds `name`.
  std::vector<std::string> client_urls;
  std::string token_hash;
  std::string config_hash;
  std::string version;
};

class Founding {
 public:
  // A request to another founder; its answer comes back through the input of the same name.
  struct Ask {
    enum class Kind { kHello, kPrepare, kCommit };
    Kind kind = Kind::kHello;
    std::string to;                        // A name of the list.
    uint64_t round = 0;                    // kHello: to be given back with the answer.
    std::optional<FoundingRecord> record;  // kPrepare, kCommit.
  };

  // Carry out in this order.
  struct Output {
    std::optional<Identity> persist;     // Durable before anything below is done.
    std::optional<std::string> refusal;  // Prepare and Commit asked: the answer; empty: granted.
    std::vector<Ask> asks;
    // This process must not go on: a sentence with the reason and the next step.
    std::optional<std::string> halt;
  };

  Founding(FoundingOptions options, Identity identity, uint64_t seed);

  // Inputs. Answers may come late, twice or never.
  Output Tick();  // About once a second: begins a round.
  Output HelloAnswered(const std::string& name, uint64_t round,
                       const absl::StatusOr<Standing>& answer);
  Output PrepareAnswered(const std::string& name, const FoundingRecord& record,
                         const absl::StatusOr<std::string>& refusal);
  Output HelloAsked(const Standing& from);
  Output PrepareAsked(const FoundingRecord& record);
  Output CommitAsked(const FoundingRecord& record);

  // What Hello answers now.
  Standing standing() const;
  const Identity& identity() const { return identity_; }
  bool founded() const { return identity_.state == State::kMember; }

  // Who is waited for, and why: `m2 (http://10.0.0.2:2380): connection refused`. By name.
  std::vector<std::string> Missing() const;

 private:
  struct Peer {
    Listed listed;
    std::map<uint64_t, Standing> answers;  // Good ones of the last rounds, by round.
    std::string reason = "no answer yet";  // Why the last answer was not a good one; empty: it was.
  };

  bool Coordinates() const { return options_.list.front().name == options_.name; }
  // What speaks against founding with a peer that stands so; empty: nothing.
  std::string FaultOf(const Peer& peer, const Standing& standing) const;
  // What speaks against promising the record; empty: nothing.
  std::string FaultOf(const FoundingRecord& record) const;
  // An earlier promise that only another disk may replace; empty: there is none.
  std::string BoundTo(std::string_view proposer_uuid) const;
  void NoteMember(const Standing& standing, Output& output);
  // All founders, once two rounds in a row were good.
  std::optional<std::vector<Founder>> Survey() const;
  void ProposeIfAllAnswered(Output& output);
  FoundingRecord MakeRecord(std::vector<Founder> founders);
  void AskPromises(Output& output);
  void FoundIfAllPromised(Output& output);
  void BecomeMember(const FoundingRecord& record, Output& output);
  std::string ContradictionWith(const Standing& member) const;

  const FoundingOptions options_;
  Identity identity_;
  raft::SplitMix64 random_;
  uint64_t round_ = 0;
  std::map<std::string, Peer, std::less<>> peers_;  // All of the list but this one.
  // Coordinator: the record that is being promised, and by whom already.
  struct Proposal {
    FoundingRecord record;
    std::map<std::string, bool, std::less<>> promised;
  };
  std::optional<Proposal> proposal_;
};

}  // namespace kv::cluster

// Who may stop now and come back. A member that is told to stop asks the leader, who lets one go at
// a time and only while the others still make a majority. Pure.
//
// The permit is an entry of the log, so that the next leader knows of it; the machine keeps at most
// one. It is given back by the member itself, once that is back and has caught up, or taken back by
// the leader: when it has seen it for a minute, or when its member is none any more.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/cluster/join.h"
#include "server/cluster/slots.h"

namespace kv::cluster {

struct HeldPermit {
  MemberId member = 0;
  uint64_t boot_epoch = 0;  // Of the start that may end.
  bool unknown_reason = false;
  friend bool operator==(const HeldPermit&, const HeldPermit&) = default;
};

// One leadership has one of these.
class Permits {
 public:
  struct Facts {
    absl::Duration now;  // Uptime.
    raft::Members members;
    Sights sights;
    std::optional<HeldPermit> held;  // What the log says.
  };
  enum class Verdict {
    kWait,
    kGranted,  // As it is: nothing needs to be noted.
    kNote,     // Granted once the log says so.
  };
  struct Decision {
    Verdict verdict = Verdict::kWait;
    std::string sentence;  // kWait: for what.
  };

  Decision Decide(const PermitRequest& request, const Facts& facts);
  // Asked about once a second: the permit that is to be taken back.
  std::optional<HeldPermit> Overdue(const Facts& facts);

 private:
  struct Asked {
    PermitReason reason = PermitReason::kRestart;
    absl::Duration at;
  };
  struct Seen {
    HeldPermit permit;
    absl::Duration since;
  };

  bool AllEndUnknown(const Facts& facts) const;
  void Look(const Facts& facts);

  std::map<MemberId, Asked> asked_;
  std::optional<Seen> seen_;
};

}  // namespace kv::cluster

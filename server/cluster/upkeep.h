// What the leader does about members by itself, a look at a time: gives votes to those who came by
// themselves and caught up, lets them take the place of lost ones, and lets go those whose slots
// are no longer wanted.
//
// Pure: facts in, at most one change out; no clock, disk, network or dice. One leadership has one
// Upkeep; the next begins with nothing but the log. Owned by the loop that asks it.
//
// Laws. No change lowers the number of voters that can still be lost, unless the wanted count fell.
// Nothing is removed while the count is unknown, or 0, or the whole is ending. A change leaves a
// majority that answers. Members added by a person (MemberAdd) are never touched.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "server/cluster/slots.h"
#include "server/raft/core.h"

namespace kv::cluster {

class Upkeep {
 public:
  // What the leader's replica says now.
  struct Facts {
    absl::Duration now;  // Uptime.
    MemberId self = 0;
    raft::Members members;
    bool settled = false;  // They are committed and not joint, and no change is under way.
    Index commit = 0;
    std::vector<raft::FollowerStatus> followers;
    MemberId permitted = 0;  // Has the permit to stop; 0: nobody.
  };
  struct Output {
    std::optional<raft::MemberChange> change;
    std::string what;                    // The change, for the log.
    MemberId hand_over = 0;              // Leadership, to this voter: the leader itself is to go.
    std::vector<std::string> sentences;  // What is waited for, or wrong.
  };

  explicit Upkeep(UpkeepOptions options);

  // The count was read, or could not be.
  void CountRead(absl::Duration now, const DesiredCount& desired);
  // A member whose process is ending says that its slot is not wanted. Forgotten if not repeated.
  void WantsToLeave(absl::Duration now, MemberId id);
  Output Tick(const Facts& facts);

  const Sights& sights() const { return sights_; }
  // As read last; unknowns left out.
  const std::optional<DesiredCount>& desired() const { return desired_; }
  // Somebody wants to leave, and the count was not read since.
  bool WantsCount() const;
  // Why the member that wants to leave is still one.
  std::string WhyStillHere(MemberId id) const;

 private:
  struct Watched {
    absl::Duration last_active;
    std::optional<absl::Duration> keeps_up_since;
  };
  struct Wish {
    absl::Duration first;
    absl::Duration last;
  };
  struct Reading {  // Of the same count, several times in a row.
    DesiredCount desired;
    absl::Duration first;
    absl::Duration last;
    int times = 0;
  };
  // A learner that can have its vote.
  struct Candidate {
    MemberId id = 0;
    MemberId lost = 0;  // Whose place it takes; 0: nobody's.
    absl::Duration ready_since;
  };

  void Watch(const Facts& facts);
  void WatchOne(const Facts& facts, const raft::FollowerStatus& follower);
  void ForgetWishes(const Facts& facts);
  bool MayBeWanted(std::string_view name) const;
  std::vector<Candidate> Candidates(const Facts& facts, Output& output) const;
  std::optional<Candidate> CandidateOf(const Facts& facts, MemberId id, Output& output) const;
  bool ExpectsMore(const Facts& facts, const std::vector<Candidate>& chosen) const;
  void Promote(const Facts& facts, Output& output) const;
  bool IsCountFresh(absl::Duration now) const;
  bool IsCountStable() const;
  std::vector<MemberId> Leavers(const Facts& facts);
  bool MayGo(const Facts& facts, MemberId id);
  bool GathersMore(const Facts& facts, const std::vector<MemberId>& leavers) const;
  void LetGo(const Facts& facts, Output& output);
  MemberId Successor(const raft::Members& members, const std::vector<MemberId>& rest) const;
  void Warn(const Facts& facts, Output& output) const;

  const UpkeepOptions options_;
  std::map<MemberId, Watched> watched_;
  Sights sights_;
  std::map<MemberId, Wish> wishes_;
  std::map<MemberId, std::string> why_here_;
  std::optional<Reading> reading_;  // The latest; nothing if that was not a count.
  std::optional<DesiredCount> desired_;
};

}  // namespace kv::cluster

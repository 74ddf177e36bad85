// What the leader answers to a blank disk that asks to be taken in (join.h). Pure.
//
// Law: a slot has one member, but for the time in which the disk that took a lost one's place
// catches up; nobody is taken for lost who still answers; a disk that forgot what it acknowledged
// never comes back under the id that it had.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "server/cluster/join.h"
#include "server/cluster/slots.h"

namespace kv::cluster {

struct JoinFacts {
  uint32_t cluster_version = 1;  // The machine version that every member can run.
  std::string token_hash;
  bool counted = false;                 // Somebody says how many are wanted.
  std::optional<DesiredCount> desired;  // What they said last, unknowns left out.
  Sights sights;
  std::set<std::string> answering;  // Disks that answered a Hello just now.
  MemberId fresh_id = 0;            // Drawn at random, for a new member.
};

struct JoinDecision {
  JoinAnswer::Kind kind = JoinAnswer::Kind::kRetry;
  std::string sentence;                      // Unless granted.
  MemberId member_id = 0;                    // Granted: whose record the disk has, or will have.
  std::optional<raft::MemberChange> change;  // To be made before it is granted.
};
// `members` are not joint.
JoinDecision Decide(const UpkeepOptions& options, const raft::Members& members,
                    const JoinRequest& request, const JoinFacts& facts);

// The members that the disk would replace: whoever speaks to the leader for Decide asks them
// whether they are still there. Peer URLs and disks.
std::vector<MemberRecord> Rivals(const raft::Members& members, const JoinRequest& request);

}  // namespace kv::cluster

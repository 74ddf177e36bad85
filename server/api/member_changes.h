// What a request to change the members comes to, decided on who they are: etcd's rules and texts.
//
// Pure. An answer holds for exactly the members that it was made for (MemberChange::from), so two
// requests at the same time cannot both pass a rule that only one of them may. A voter that was
// added and has not started counts as one for every rule, though it has no vote yet.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "server/raft/members.h"
#include "server/replica/forward.h"

namespace kv::api {

// A member as the API shows it.
struct ShownMember {
  MemberId id = 0;
  bool learner = false;
  MemberRecord record{};
  bool started() const { return !record.name.empty(); }
};
// By the first peer URL, as etcd lists them.
std::vector<ShownMember> ShownMembers(const raft::Members& members);

struct NewMember {
  MemberId id = 0;
  std::vector<std::string> peer_urls{};
  bool learner = false;
};
absl::StatusOr<raft::MemberChange> PlanAdd(const raft::Members& members, const NewMember& added,
                                           size_t learners_max);
absl::StatusOr<raft::MemberChange> PlanRemove(const raft::Members& members, MemberId id);
absl::StatusOr<raft::MemberChange> PlanUpdate(const raft::Members& members, MemberId id,
                                              std::vector<std::string> peer_urls);
absl::StatusOr<raft::MemberChange> PlanPromote(const raft::Members& members, MemberId id);

// Sorted. Refused as the contract says unless every one is http(s)://host:port.
absl::StatusOr<std::vector<std::string>> CheckPeerUrls(std::vector<std::string> urls);

}  // namespace kv::api

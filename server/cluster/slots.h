// What the leader knows when it decides about members by itself: whose slot is whose, who answers,
// how many are wanted. Plain values and pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "server/cluster/outside.h"
#include "server/raft/members.h"
#include "server/replica/forward.h"

namespace kv::cluster {

// The leader touches only members that came by themselves (MemberRecord::kept) and, where slots are
// numbered, only those with a numbered name.
struct UpkeepOptions {
  std::string slot_prefix;  // "kvd": slots are kvd-0, kvd-1, …; empty: they have no numbers.
  // A count decides over members that do not speak for themselves once it was read the same for
  // this long, three times at least.
  absl::Duration stability_window = absl::Seconds(30);
  absl::Duration unreachable_before_remove = absl::Seconds(30);
  absl::Duration replace_after_inactive = absl::Seconds(10);
  bool standby_learners = false;  // Members beyond max_voters stay learners, and that is well.
  size_t max_voters = 7;
  size_t max_catching_up = 2;  // Learners that came by themselves and are not ready yet.
};

// Of a name such as `kvd-3`, the prefix being `kvd`; nothing for others, `kvd-03` among them.
std::optional<uint64_t> SlotNumber(std::string_view prefix, std::string_view name);

// Whether the count wants the name's slot. Names without a number are nobody's business: wanted.
bool IsWanted(const UpkeepOptions& options, const DesiredCount& desired, std::string_view name);

// What the leader sees of a member.
struct Sight {
  bool active = false;    // It answers, and its log follows the leader's.
  bool spoke = false;     // It acknowledged something to this leader.
  bool ready = false;     // It has kept up with the leader for a while.
  bool stopping = false;  // It has the permit to stop: it may go any moment.
  bool leaving = false;   // It wants to leave, and votes on until it is let go.
  // Since it was last active, or since this leader began to look.
  absl::Duration silent = absl::ZeroDuration();
};
using Sights = std::map<MemberId, Sight>;
const Sight& SightOf(const Sights& sights, MemberId id);  // Nobody's is of one that never answered.

// Whether they have a URL in common.
bool ShareAny(const std::vector<std::string>& left, const std::vector<std::string>& right);
std::string NameOf(const raft::Members& members, MemberId id);  // "kvd-3 (member 1f)"
// Members under that name that came by themselves.
std::vector<MemberId> Holders(const raft::Members& members, std::string_view name);

// How many of the voters can be counted on, and whether more than half.
size_t CountActive(const std::vector<MemberId>& voters, const Sights& sights);
bool IsMajority(size_t some, const std::vector<MemberId>& voters);

}  // namespace kv::cluster

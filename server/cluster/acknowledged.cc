#include "server/cluster/acknowledged.h"

#include <algorithm>

#include "storage/mark.h"

namespace kv::cluster {

std::optional<Acknowledged> WorthNoting(const AcknowledgedFacts& facts) {
  Acknowledged now;
  bool news = false;
  for (const MemberId id : facts.members.All()) {
    const auto noted = facts.noted.find(id);
    now[id] = noted == facts.noted.end() ? 0 : noted->second;
  }
  if (now.size() < 2) return std::nullopt;
  const auto reached = [&](MemberId id, Index index) {
    const auto at = now.find(id);
    if (at == now.end()) return;
    index = std::min(index, facts.commit);
    news |= index > at->second + 1;
    at->second = std::max(at->second, index);
  };
  reached(facts.self, facts.stable);
  for (const raft::FollowerStatus& follower : facts.followers) {
    reached(follower.id, MUTANT("acknowledged.what_is_not") ? facts.commit : follower.match);
  }
  if (!news) return std::nullopt;
  return now;
}

}  // namespace kv::cluster

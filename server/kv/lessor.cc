#include "server/kv/lessor.h"

#include <algorithm>

#include "storage/mark.h"

namespace kv {
namespace {

// Between checkpoints of one lease: half its time, so that a lease that its owner renews in time is
// never checkpointed, and not so often that leases without an owner fill the log.
constexpr absl::Duration kCheckpointMin = absl::Seconds(5);
constexpr absl::Duration kCheckpointMax = absl::Minutes(5);

absl::Duration CheckpointInterval(const Lease& lease) {
  return std::clamp(absl::Seconds(lease.ttl) / 2, kCheckpointMin, kCheckpointMax);
}

int64_t SecondsUp(absl::Duration time) {
  return absl::ToInt64Seconds(absl::Ceil(time, absl::Seconds(1)));
}

}  // namespace

absl::Duration Stretched(absl::Duration time) {
  return MUTANT("lease.clocks_are_trusted") ? time : time + time / 4;
}

int64_t LeaseTtlMin(absl::Duration election_timeout) {
  return std::max<int64_t>(SecondsUp(election_timeout * 3 / 2), 1);
}

void Lessor::Begin(const std::vector<Lease>& leases, absl::Duration now) {
  Clear();
  for (const Lease& lease : leases) {
    Granted(lease, now);
    if (lease.remaining == 0 || lease.remaining >= lease.ttl) continue;
    Entry& entry = leases_.at(lease.id);
    entry.checkpoints = 1;
    Set(entry, absl::Seconds(lease.remaining), now);
  }
  // What the log shows may be older than what the last leader promised by so much.
  for (auto& [id, entry] : leases_) {
    const absl::Duration left =
        MUTANT("lease.time_lost_at_promotion") ? absl::ZeroDuration() : entry.promised - now;
    Set(entry, left + election_timeout_, now);
  }
}

void Lessor::Clear() {
  leases_.clear();
  ends_.clear();
  checkpoints_.clear();
}

void Lessor::Granted(const Lease& lease, absl::Duration now) {
  if (const auto at = leases_.find(lease.id); at != leases_.end()) Forget(at->second);
  Entry& entry = leases_[lease.id] = {.lease = lease};
  Set(entry, absl::Seconds(lease.ttl), now);
}

void Lessor::Ended(int64_t id) {
  const auto at = leases_.find(id);
  if (at == leases_.end()) return;
  Forget(at->second);
  leases_.erase(at);
}

std::optional<Lessor::Renewal> Lessor::Renew(int64_t id, absl::Duration now) {
  const auto at = leases_.find(id);
  if (at == leases_.end()) return std::nullopt;
  Entry& entry = at->second;
  if (entry.taken || entry.ends <= now) {
    return std::nullopt;
  }
  Renewal renewal{.ttl = entry.lease.ttl, .clears = std::nullopt};
  if (entry.checkpoints > entry.cleared) {
    renewal.clears = entry.lease;
    renewal.clears->remaining = 0;
    renewal.after = entry.checkpoints;
  }
  Set(entry, absl::Seconds(entry.lease.ttl), now);
  return renewal;
}

void Lessor::Cleared(const Lease& lease, uint64_t after) {
  const auto at = leases_.find(lease.id);
  if (at == leases_.end() || at->second.lease.granted != lease.granted) return;
  at->second.cleared = std::max(at->second.cleared, after);
}

std::optional<int64_t> Lessor::SecondsLeft(int64_t id, absl::Duration now) const {
  const auto at = leases_.find(id);
  if (at == leases_.end() || at->second.taken || at->second.ends <= now) return std::nullopt;
  return std::max<int64_t>(absl::ToInt64Seconds(at->second.promised - now), 0);
}

std::vector<int64_t> Lessor::InOrder() const {
  std::vector<int64_t> ids;
  ids.reserve(leases_.size());
  for (const auto& [id, entry] : leases_) {
    if (entry.taken) ids.push_back(id);
  }
  for (const auto& [ends, id] : ends_) ids.push_back(id);
  return ids;
}

std::vector<Lease> Lessor::TakeExpired(absl::Duration now, size_t max) {
  std::vector<Lease> expired;
  while (expired.size() < max && !ends_.empty() && ends_.begin()->first <= now) {
    Entry& entry = leases_.at(ends_.begin()->second);
    Forget(entry);
    entry.checkpoint = absl::InfiniteDuration();
    entry.taken = true;
    expired.push_back(entry.lease);
  }
  return expired;
}

void Lessor::Retry(const std::vector<Lease>& expired, absl::Duration now) {
  if (MUTANT("lease.expiry_not_repeated")) return;
  for (const Lease& lease : expired) {
    const auto at = leases_.find(lease.id);
    if (at == leases_.end() || at->second.lease.granted != lease.granted) continue;
    if (!at->second.taken) continue;
    at->second.taken = false;
    at->second.ends = now;
    ends_.emplace(now, lease.id);
  }
}

std::vector<Lease> Lessor::TakeCheckpoints(absl::Duration now, size_t max) {
  std::vector<Lease> due;
  while (due.size() < max && !checkpoints_.empty() && checkpoints_.begin()->first <= now) {
    Entry& entry = leases_.at(checkpoints_.begin()->second);
    Lease lease = entry.lease;
    // What is left of the stretched time, in seconds of the lease, rounded up: never too little.
    lease.remaining = SecondsUp((entry.ends - now) * 4 / 5);
    ScheduleCheckpoint(entry, now);
    if (lease.remaining <= 0 || lease.remaining >= lease.ttl) continue;
    MARK("lease.checkpoint");
    ++entry.checkpoints;
    due.push_back(lease);
  }
  return due;
}

void Lessor::Set(Entry& entry, absl::Duration left, absl::Duration now) {
  ends_.erase({entry.ends, entry.lease.id});
  entry.promised = now + left;
  entry.ends = now + Stretched(left);
  ends_.emplace(entry.ends, entry.lease.id);
  ScheduleCheckpoint(entry, now);
}

void Lessor::ScheduleCheckpoint(Entry& entry, absl::Duration now) {
  checkpoints_.erase({entry.checkpoint, entry.lease.id});
  entry.checkpoint = now + CheckpointInterval(entry.lease);
  if (entry.checkpoint >= entry.ends) {
    entry.checkpoint = absl::InfiniteDuration();
  } else {
    checkpoints_.emplace(entry.checkpoint, entry.lease.id);
  }
}

void Lessor::Forget(const Entry& entry) {
  ends_.erase({entry.ends, entry.lease.id});
  checkpoints_.erase({entry.checkpoint, entry.lease.id});
}

}  // namespace kv

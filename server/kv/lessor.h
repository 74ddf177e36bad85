// When leases end, by the clock of the leader: a value that is told the time.
//
// Only a leader has deadlines, and they are nowhere else: the log knows what was granted and, for
// long leases, what was left at the latest checkpoint. A new leader gives every lease that much
// again and an election timeout more, so no change of leaders ends one early, and long leases do
// not start over for ever.
//
// A lease never ends before its time on any clock that runs at most 25 % fast or slow: a second of
// a TTL is waited for as 5/4 seconds here. What clients are told to be left is not stretched.
//
// Times are the runtime's uptime. Not thread-safe; LeaseKeeper owns it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "storage/mvcc.h"

namespace kv {

// How long to wait by our clock until at least `time` has passed by every good one.
absl::Duration Stretched(absl::Duration time);
// Leases below this are not granted: twice the time in which a leader is missed, near enough.
// Seconds.
int64_t LeaseTtlMin(absl::Duration election_timeout);

class Lessor {
 public:
  explicit Lessor(absl::Duration election_timeout) : election_timeout_(election_timeout) {}

  // The leadership begins: with these leases, each with what its last checkpoint left it.
  void Begin(const std::vector<Lease>& leases, absl::Duration now);
  void Clear();
  bool empty() const { return leases_.empty(); }

  // What the log did. A lease that is granted has its whole time.
  void Granted(const Lease& lease, absl::Duration now);
  void Ended(int64_t id);

  // Gives the lease its whole time from `now` on. Nothing: there is no such lease, or its time is
  // over. A renewal counts only once `clears`, if it is set, is in the log: a leader that came
  // before that would start from the checkpoint.
  struct Renewal {
    int64_t ttl = 0;
    std::optional<Lease> clears;  // A checkpoint that gives the whole time back.
    uint64_t after = 0;           // For Cleared.
  };
  std::optional<Renewal> Renew(int64_t id, absl::Duration now);
  // The renewal's checkpoint is in the log, and so behind all that were taken before it.
  void Cleared(const Lease& lease, uint64_t after);
  // What clients may count on, rounded down to seconds. Nothing: there is no such lease, or its
  // time is over.
  std::optional<int64_t> SecondsLeft(int64_t id, absl::Duration now) const;
  // By what is left; those that are over too.
  std::vector<int64_t> InOrder() const;

  // Leases whose time is over, at most `max`, the longest over first. They count as gone: nobody
  // renews them any more. Retry: the log did not take their end; they are taken again.
  std::vector<Lease> TakeExpired(absl::Duration now, size_t max);
  void Retry(const std::vector<Lease>& expired, absl::Duration now);

  // Checkpoints that are due, at most `max`. Whatever becomes of them, the next comes in its time.
  std::vector<Lease> TakeCheckpoints(absl::Duration now, size_t max);

 private:
  using Times = std::set<std::pair<absl::Duration, int64_t>>;
  struct Entry {
    Lease lease;
    absl::Duration promised = absl::ZeroDuration();        // Until then clients may count on it.
    absl::Duration ends = absl::ZeroDuration();            // In ends_, unless it was taken.
    absl::Duration checkpoint = absl::InfiniteDuration();  // In checkpoints_, unless infinite.
    bool taken = false;                                    // Its end is on its way.
    uint64_t checkpoints = 0;  // Of less than the whole time: found in the log or taken since.
    uint64_t cleared = 0;      // Of those, so many are overwritten.
  };
  void Set(Entry& entry, absl::Duration left, absl::Duration now);
  void ScheduleCheckpoint(Entry& entry, absl::Duration now);
  void Forget(const Entry& entry);

  const absl::Duration election_timeout_;
  std::map<int64_t, Entry> leases_;
  Times ends_;
  Times checkpoints_;
};

}  // namespace kv

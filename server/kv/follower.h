// Who hears of every revision of the keys as it is applied: the watchers' hub.
#pragma once

#include <vector>

#include "storage/mvcc.h"

namespace kv {

// Revisions (before, after], which are readable from now on.
struct AppliedRevisions {
  Revision before = 0;
  Revision after = 0;
  // Everything that they changed; without it, the history has to be read for it: nobody wanted
  // events when the commands were carried out, or a snapshot took the place of the state.
  bool complete = false;
  std::vector<RevisionEvents> events;
};

class Follower {
 public:
  virtual ~Follower() = default;
  // Whether to collect events. Asked before the commit and again after it: a follower that begins
  // to want them sees every revision that was not readable before.
  virtual bool WantsEvents() const = 0;
  // On the apply loop, in order.
  virtual void OnApplied(AppliedRevisions applied) = 0;
};

}  // namespace kv

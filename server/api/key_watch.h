// One watcher of this member's own, for services that wait for keys.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "server/watch/watch_hub.h"

namespace kv::api {

// Who hears of it; on the hub's loop, and never waits.
class KeyListener {
 public:
  virtual ~KeyListener() = default;
  virtual bool full() const { return false; }  // As WatchSink's.
  // False: it has heard enough, and hears nothing more.
  virtual bool OnEvent(Revision store, const SharedEvent& event) = 0;
  // Nothing more is heard. OK: the history that it asked for is compacted, but the present is
  // there.
  virtual void OnLost(absl::Status why) = 0;
};

// Ended by the listener's answer, or with hub->Close(). An event that is on its way then is heard
// all the same.
WatchHub::StreamId WatchKeys(WatchHub* hub, WatchOrder order,
                             std::shared_ptr<KeyListener> listener);

}  // namespace kv::api

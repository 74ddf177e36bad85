// Turns under a name, which locks and elections are made of: everybody who comes leaves a key that
// lives as long as a lease does, and it is the oldest key's turn. Whoever is not the oldest watches
// the one just before, so that a key that goes wakes one waiter and not all.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "absl/functional/any_invocable.h"
#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/inner_calls.h"
#include "server/api/waiting_calls.h"
#include "server/watch/watch_hub.h"

namespace kv::api {

struct TurnRequest {
  enum class Kind : uint8_t { kLock, kElection };
  Kind kind = Kind::kLock;
  std::string name;
  int64_t lease = 0;  // 0: one of its own.
  std::string value;  // Of an election's key.
};

struct Turn {
  std::string key;
  Revision revision = 0;  // The key's first.
  int64_t lease = 0;
  etcdserverpb::ResponseHeader header;
};

// Thread-safe.
class Turns {
 public:
  // All outlive every call.
  Turns(Edge* edge, InnerCalls* inner, WatchHub* hub, WaitingCalls* waiting)
      : edge_(edge), inner_(inner), hub_(hub), waiting_(waiting) {}

  // Answers when the turn has come. A lease that has a key under the name already takes no second
  // place. Whoever is gone while waiting gives the place up; a place is kept through a stop of this
  // member, so that the client may go on waiting at another.
  using OnGone = std::function<void(absl::AnyInvocable<void() &&> gone)>;  // Writer's.
  void Take(const Call& call, TurnRequest request, const OnGone& on_gone, Done<Turn> done);

 private:
  class Waiter;

  Edge* const edge_;
  InnerCalls* const inner_;
  WatchHub* const hub_;
  WaitingCalls* const waiting_;
};

}  // namespace kv::api

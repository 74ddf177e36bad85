// v3lockpb.Lock as plain functions: a lock is held by whose turn it is (turns.h), and given back by
// deleting the key.
#pragma once

#include "proto/etcd/lock.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/inner_calls.h"
#include "server/api/turns.h"

namespace kv::api {

// Thread-safe.
class LockService {
 public:
  LockService(Edge* edge, InnerCalls* inner, Turns* turns)
      : edge_(edge), inner_(inner), turns_(turns) {}

  void Lock(const Call& call, v3lockpb::LockRequest request,
            Writer<v3lockpb::LockResponse>* writer);
  void Unlock(const Call& call, const v3lockpb::UnlockRequest& request,
              Done<v3lockpb::UnlockResponse> done);

 private:
  Edge* const edge_;
  InnerCalls* const inner_;
  Turns* const turns_;
};

}  // namespace kv::api

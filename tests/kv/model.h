// The contract of the keys, as plainly as it can be said: every revision is a whole std::map.
//
// What a KvMachine answers is compared with what this answers. It knows nothing of layouts, caches
// or batches, and takes every request at its word.
#pragma once

#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/etcd/rpc.pb.h"

namespace kv {

class Model {
 public:
  Model() : states_(2) {}  // Revision 1 is empty; there is no revision 0.

  absl::StatusOr<etcdserverpb::PutResponse> Put(const etcdserverpb::PutRequest& request);
  absl::StatusOr<etcdserverpb::DeleteRangeResponse> DeleteRange(
      const etcdserverpb::DeleteRangeRequest& request);
  absl::StatusOr<etcdserverpb::TxnResponse> Txn(const etcdserverpb::TxnRequest& request);
  absl::StatusOr<etcdserverpb::CompactionResponse> Compact(
      const etcdserverpb::CompactionRequest& request);
  absl::StatusOr<etcdserverpb::LeaseGrantResponse> Grant(
      const etcdserverpb::LeaseGrantRequest& request);
  absl::StatusOr<etcdserverpb::LeaseRevokeResponse> Revoke(
      const etcdserverpb::LeaseRevokeRequest& request);
  absl::StatusOr<etcdserverpb::RangeResponse> Range(
      const etcdserverpb::RangeRequest& request) const;

  int64_t revision() const { return static_cast<int64_t>(states_.size()) - 1; }
  int64_t compacted() const { return compacted_; }
  // Every lease with its keys.
  std::map<int64_t, std::vector<std::string>> Leases() const;

  struct Event {
    bool is_delete = false;
    mvccpb::KeyValue kv;
    mvccpb::KeyValue previous;  // No key: there was none, or it is compacted.
  };
  // What changed at a revision, by key.
  std::vector<Event> EventsAt(int64_t revision) const;

 private:
  using State = std::map<std::string, mvccpb::KeyValue, std::less<>>;

  // A command under way: the state it makes, and whether that differs from what was.
  struct Command {
    State state;
    bool changed = false;
  };
  int64_t Reading(const Command& command) const { return revision() + (command.changed ? 1 : 0); }
  Command Begin() const { return {.state = states_.back(), .changed = false}; }
  void End(Command command);

  absl::Status CheckRevision(int64_t revision) const;
  absl::Status CheckPut(const etcdserverpb::PutRequest& request) const;
  absl::Status CheckTxn(const etcdserverpb::TxnRequest& request) const;
  bool Succeeds(const etcdserverpb::TxnRequest& request) const;
  void DoPut(Command& command, const etcdserverpb::PutRequest& request,
             etcdserverpb::PutResponse& response) const;
  void DoDelete(Command& command, const etcdserverpb::DeleteRangeRequest& request,
                etcdserverpb::DeleteRangeResponse& response) const;
  void DoTxn(Command& command, const etcdserverpb::TxnRequest& request,
             etcdserverpb::TxnResponse& response) const;
  static void Answer(const State& state, const etcdserverpb::RangeRequest& request,
                     etcdserverpb::RangeResponse& response);

  std::vector<State> states_;  // By revision.
  int64_t compacted_ = -1;
  std::set<int64_t> leases_;
};

}  // namespace kv

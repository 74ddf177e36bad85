// What all services stand on: the member behind them, the limits, and the rules that hold for
// every request before its own.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/call.h"
#include "server/api/services.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"

namespace etcdserverpb {
class ResponseHeader;
}

namespace kv::api {

// Thread-safe. Outlives every call.
class Edge {
 public:
  Edge(const Options& options, const Services::Parts& parts, Loop* readers);

  const Options& options() const { return options_; }
  Runtime& runtime() const { return *parts_.runtime; }
  Replica& replica() const { return *parts_.replica; }
  KvMachine& machine() const { return *parts_.machine; }
  Metrics& metrics() const { return *parts_.metrics; }
  LeaseKeeper& leases() const { return *parts_.leases; }

  // What etcd asks of every call before it looks at the request. A learner answers only some.
  enum class OnLearner { kServed, kRefused };
  absl::Status Admit(const Call& call, OnLearner on_learner) const;

  // How long the replica may take: the caller's deadline within the request timeout.
  absl::Duration TimeFor(const Call& call) const;

  // cluster_id, member_id and raft_term, which every header carries, beside the revision in it.
  void FillHeader(etcdserverpb::ResponseHeader* header) const;
  // The same for the machine's reply: a response whose first field is a header with a revision.
  std::string WithHeader(std::string response) const;

  // Of the database; 0 and less: until the disk is full.
  int64_t quota_bytes() const { return quota_bytes_.load(std::memory_order_relaxed); }
  void SetQuota(int64_t bytes) { quota_bytes_ = bytes; }
  // Whether the database may grow by `bytes` (QuotaCost). Nothing to add is always allowed.
  bool HasRoom(int64_t bytes);
  // Refuses a write that has no room: `then` gets the contract's error once the alarm of this
  // member is raised, as etcd does it. Without a quota there is no alarm: the disk lifts it itself.
  using Then = absl::AnyInvocable<void(absl::Status) &&>;
  void RaiseNoSpace(const Call& call, Then then);

  // Begins a linearizable or a local read: `then` runs, on whatever thread, once this member has
  // applied what the read must see, or with the contract's error.
  enum class Consistency { kLinearizable, kSerializable };
  static Consistency ConsistencyOf(bool serializable) {
    return serializable ? Consistency::kSerializable : Consistency::kLinearizable;
  }
  void Read(const Call& call, Consistency consistency, Then then) const;
  // Runs work that may wait for the disk. Refused when too much is waiting already.
  absl::Status ReadLater(Loop::Task work);
  void After(absl::Duration delay, Loop::Task task) { readers_->PostAfter(delay, std::move(task)); }

  // Room for answers of unbounded size. Refused while too many bytes of them are being sent.
  absl::Status CheckAnswerRoom() const;
  std::shared_ptr<void> HoldAnswer(size_t bytes) const;  // Null when they are few.

  // No new call comes; those that may take for ever end themselves.
  void BeginStop() { stopping_ = true; }
  bool stopping() const { return stopping_.load(std::memory_order_relaxed); }

  bool learner() const { return learner_.load(std::memory_order_relaxed); }
  // No leader for so long that a stream with `hasleader` is ended.
  bool LeaderLost() const;
  // What is too dear to look up for every request; called now and then.
  void Refresh();

 private:
  // Constant after construction.
  const Options options_;
  const Services::Parts parts_;
  Loop* const readers_;

  std::atomic<int64_t> quota_bytes_;
  std::atomic<bool> stopping_ = false;
  std::atomic<bool> learner_ = false;
  std::atomic<bool> disk_full_ = false;
  std::atomic<uint64_t> db_bytes_ = 0;
  std::atomic<int64_t> grown_bytes_ = 0;  // Admitted since db_bytes_ was looked up.
  std::atomic<size_t> waiting_reads_ = 0;
  const std::shared_ptr<std::atomic<size_t>> answer_bytes_ =
      std::make_shared<std::atomic<size_t>>(0);
};

}  // namespace kv::api

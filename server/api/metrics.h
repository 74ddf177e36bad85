// Every number that kvd shows to Prometheus, under etcd's names where the meaning is etcd's
// (contract §3.3), kvd_ names otherwise.
//
// Two kinds: counted as it happens, by the functions below, from any thread, without a lock; and
// read when somebody asks, from the functions that Watch() takes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/kv/lease_keeper.h"
#include "server/replica/replica.h"
#include "server/watch/watch_hub.h"
#include "storage/entry.h"

namespace kv::api {

// One RPC's counters; made once when the method is registered.
class RpcMetrics {
 public:
  virtual ~RpcMetrics() = default;
  virtual void Started() = 0;
  virtual void Handled(absl::StatusCode code, absl::Duration took) = 0;
  virtual void Received(size_t bytes) = 0;  // One message.
  virtual void Sent(size_t bytes) = 0;
};
enum class RpcType { kUnary, kClientStream, kServerStream, kBidiStream };

// What a member is at the moment of a scrape.
struct Gauges {
  ReplicaStatus replica;
  uint64_t member_id = 0;
  bool learner = false;
  uint64_t db_bytes = 0;
  uint64_t db_bytes_in_use = 0;
  int64_t quota_bytes = 0;
  int64_t revision = 0;
  int64_t compact_revision = 0;
  WatchHub::Counts watch;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  // For Replica::Parts.metrics. The functions hold a pointer to this.
  ReplicaMetrics ForReplica();
  LeaseMetrics ForLeases();
  // For peer transports.
  void PeerSent(MemberId to, size_t bytes);
  void PeerReceived(MemberId from, size_t bytes);
  void PeerSendFailed(MemberId to);
  void PeerRoundTrip(MemberId to, absl::Duration took);

  RpcMetrics* ForRpc(std::string_view service, std::string_view method, RpcType type);

  // What is asked at each scrape; an empty function ends it. After Watch({}) returns the old one
  // is not called any more.
  void Watch(std::function<Gauges()> gauges);
  // Operations that this member's clients asked for, those in transactions included.
  void CountRange();
  void CountPut(size_t bytes);
  void CountDelete();
  void CountTxn();
  // One probe's answer; `type` is livez or readyz.
  void CountProbe(std::string_view type, std::string_view name, bool ok);
  void CountHealth(bool ok);  // One /health.

  // The page, in Prometheus' text format.
  std::string Scrape();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace kv::api

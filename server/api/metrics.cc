#include "server/api/metrics.h"

#include <dirent.h>
#include <fmt/format.h>
#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <charconv>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "server/api/version.h"
#include "storage/mutex.h"

namespace kv::api {
namespace {

using prometheus::ClientMetric;
using prometheus::Counter;
using prometheus::Family;
using prometheus::Histogram;
using prometheus::MetricFamily;
using prometheus::MetricType;

using Buckets = Histogram::BucketBoundaries;

Buckets Doubling(double first, int count) {
  Buckets buckets;
  for (int i = 0; i < count; ++i, first *= 2) buckets.push_back(first);
  return buckets;
}
// Of etcd's families of the same names, so that its dashboards fit.
Buckets DiskBuckets() { return Doubling(0.001, 14); }
Buckets RoundTripBuckets() { return Doubling(0.0001, 16); }
Buckets RpcBuckets() { return {.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}; }

constexpr absl::Duration kSlowApply = absl::Milliseconds(100);

std::string_view ToString(RpcType type) {
  switch (type) {
    case RpcType::kUnary:
      return "unary";
    case RpcType::kClientStream:
      return "client_stream";
    case RpcType::kServerStream:
      return "server_stream";
    case RpcType::kBidiStream:
      return "bidi_stream";
  }
  return "unary";
}

// As the gRPC libraries for Go spell them, which is what alerts look for.
constexpr std::array<std::string_view, 17> kCodes = {
    "OK",       "Canceled",       "Unknown",          "InvalidArgument",   "DeadlineExceeded",
    "NotFound", "AlreadyExists",  "PermissionDenied", "ResourceExhausted", "FailedPrecondition",
    "Aborted",  "OutOfRange",     "Unimplemented",    "Internal",          "Unavailable",
    "DataLoss", "Unauthenticated"};

std::string Hex(uint64_t id) { return fmt::format("{:x}", id); }

MetricFamily One(std::string name, std::string help, MetricType type, double value,
                 std::vector<ClientMetric::Label> labels = {}) {
  ClientMetric metric;
  metric.label = std::move(labels);
  if (type == MetricType::Counter) {
    metric.counter.value = value;
  } else {
    metric.gauge.value = value;
  }
  return {std::move(name), std::move(help), type, {std::move(metric)}};
}

size_t CountOpenFiles() {
  DIR* directory = opendir("/proc/self/fd");
  if (directory == nullptr) return 0;
  size_t files = 0;
  while (const dirent* entry = readdir(directory)) files += entry->d_name[0] != '.' ? 1 : 0;
  closedir(directory);
  return files - 1;  // The directory itself is one of them.
}

double BootTime() {
  std::ifstream stat("/proc/stat");
  std::string word;
  while (stat >> word) {
    double seconds = 0;
    if (word == "btime" && stat >> seconds) return seconds;
  }
  return 0;
}

// The fields of /proc/self/stat behind the command's name; field 3 of proc(5) is the first.
std::vector<std::string> ProcessStat() {
  std::ifstream file("/proc/self/stat");
  std::string line;
  std::getline(file, line);
  std::vector<std::string> fields;
  size_t at = line.rfind(')');
  while (at != std::string::npos && at + 1 < line.size()) {
    const size_t begin = line.find_first_not_of(' ', at + 1);
    if (begin == std::string::npos) break;
    at = line.find(' ', begin);
    fields.push_back(line.substr(begin, at == std::string::npos ? at : at - begin));
  }
  return fields;
}

double Number(const std::vector<std::string>& fields, size_t field) {
  double value = 0;
  if (field < fields.size()) {
    std::from_chars(fields[field].data(), fields[field].data() + fields[field].size(), value);
  }
  return value;
}

void AddProcess(std::vector<MetricFamily>* page) {
  const std::vector<std::string> stat = ProcessStat();
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page_bytes = static_cast<double>(sysconf(_SC_PAGESIZE));
  const auto files = static_cast<double>(CountOpenFiles());
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  const auto files_max = static_cast<double>(limit.rlim_cur);
  const auto gauge = MetricType::Gauge;
  page->push_back(One("process_cpu_seconds_total", "CPU time of the process, user and system.",
                      MetricType::Counter, (Number(stat, 11) + Number(stat, 12)) / ticks));
  page->push_back(One("process_start_time_seconds", "When the process began, since the epoch.",
                      gauge, BootTime() + Number(stat, 19) / ticks));
  page->push_back(
      One("process_virtual_memory_bytes", "Address space in use.", gauge, Number(stat, 20)));
  page->push_back(
      One("process_resident_memory_bytes", "Memory in use.", gauge, Number(stat, 21) * page_bytes));
  page->push_back(One("process_open_fds", "Open file descriptors.", gauge, files));
  page->push_back(One("process_max_fds", "Limit of open file descriptors.", gauge, files_max));
  page->push_back(One("os_fd_used", "Open file descriptors.", gauge, files));
  page->push_back(One("os_fd_limit", "Limit of open file descriptors.", gauge, files_max));
}

void AddGauges(const Gauges& g, std::vector<MetricFamily>* page) {
  const auto gauge = [page](std::string name, std::string help, double value) {
    page->push_back(One(std::move(name), std::move(help), MetricType::Gauge, value));
  };
  const raft::Standing& standing = g.replica.standing;
  const auto number = [](auto value) { return static_cast<double>(value); };
  gauge("etcd_server_has_leader", "1 if a leader is known.", standing.leader != 0 ? 1 : 0);
  gauge("etcd_server_is_leader", "1 if this member leads.",
        standing.leader != 0 && standing.leader == g.member_id ? 1 : 0);
  gauge("etcd_server_is_learner", "1 if this member is a learner.", g.learner ? 1 : 0);
  page->push_back(One("etcd_server_id", "The member's id, as a label.", MetricType::Gauge, 1,
                      {{"server_id", Hex(g.member_id)}}));
  gauge("etcd_server_proposals_committed_total", "Index of the last committed entry.",
        number(g.replica.commit));
  gauge("etcd_server_proposals_applied_total", "Index of the last applied entry.",
        number(g.replica.applied.index));
  gauge("etcd_server_proposals_pending", "Proposals that wait for their answer.",
        number(g.replica.proposals_pending));
  gauge("etcd_server_quota_backend_bytes", "Limit of the database's size; 0: none.",
        g.quota_bytes > 0 ? number(g.quota_bytes) : 0);
  gauge("etcd_mvcc_db_total_size_in_bytes", "Size of the database on disk and in memory.",
        number(g.db_bytes));
  gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "Part of it that holds live data.",
        number(g.db_bytes_in_use));
  gauge("etcd_debugging_mvcc_current_revision", "The store's revision.", number(g.revision));
  gauge("etcd_debugging_mvcc_compact_revision", "The revision the store is compacted to.",
        number(g.compact_revision));
  gauge("etcd_debugging_mvcc_watch_stream_total", "Streams of watchers.", number(g.watch.streams));
  gauge("etcd_debugging_mvcc_watcher_total", "Watchers.", number(g.watch.watchers));
  gauge("etcd_debugging_mvcc_slow_watcher_total",
        "Watchers that are behind, or whose client does not read.", number(g.watch.slow));
  gauge("etcd_debugging_mvcc_pending_events_total", "Events that were not yet looked at.",
        number(g.watch.unheard));
  page->push_back(One("etcd_debugging_mvcc_events_total", "Events sent to watchers.",
                      MetricType::Counter, number(g.watch.told)));
  gauge("kvd_raft_term", "The current term.", number(standing.term));
  gauge("kvd_raft_last_index", "Index of the last entry in the log.", number(g.replica.last_index));
  gauge("kvd_raft_durable_index", "Index of the last entry that is durable here.",
        number(g.replica.stable_index));
  gauge("kvd_raft_log_bytes", "Size of the log kept in memory.", number(g.replica.log_bytes));
  gauge("kvd_inflight_bytes", "Size of what was admitted and is not yet answered.",
        number(g.replica.inflight_bytes));
  gauge("kvd_leaderless_seconds", "How long no leader has been known.",
        absl::ToDoubleSeconds(g.replica.leaderless));
}

// A counter or histogram for each peer, made when the peer is first met.
template <typename Metric>
class PerPeer {
 public:
  template <typename... Args>
  Metric& Of(Family<Metric>& family, const char* label, MemberId id, const Args&... args) {
    MutexLock lock(mutex_);
    auto at = metrics_.find(id);
    if (at == metrics_.end()) {
      at = metrics_.emplace(id, &family.Add({{label, Hex(id)}}, args...)).first;
    }
    return *at->second;
  }

 private:
  Mutex mutex_;
  std::map<MemberId, Metric*> metrics_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

// Families are made first and filled as labels appear. Everything registered lives as long as the
// registry.
struct Metrics::State {
  prometheus::Registry registry;

  Family<Counter>& NewCounter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Histogram>& NewHistogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }

  Family<Counter>& rpc_started =
      NewCounter("grpc_server_started_total", "RPCs that began on the server.");
  Family<Counter>& rpc_handled =
      NewCounter("grpc_server_handled_total", "RPCs that were answered, by code.");
  Family<Counter>& rpc_received =
      NewCounter("grpc_server_msg_received_total", "Messages received from clients.");
  Family<Counter>& rpc_sent = NewCounter("grpc_server_msg_sent_total", "Messages sent to clients.");
  Family<Histogram>& rpc_took =
      NewHistogram("grpc_server_handling_seconds", "How long RPCs took until they were answered.");
  Counter& client_received_bytes =
      NewCounter("etcd_network_client_grpc_received_bytes_total", "Bytes received from clients.")
          .Add({});
  Counter& client_sent_bytes =
      NewCounter("etcd_network_client_grpc_sent_bytes_total", "Bytes sent to clients.").Add({});

  Histogram& fsync = NewHistogram("etcd_disk_wal_fsync_duration_seconds",
                                  "How long the log took to make a batch durable.")
                         .Add({}, DiskBuckets());
  Counter& log_bytes =
      NewCounter("etcd_disk_wal_write_bytes_total", "Bytes of entries made durable in the log.")
          .Add({});
  Histogram& apply = NewHistogram("etcd_disk_backend_commit_duration_seconds",
                                  "How long the machine took to apply a run of entries.")
                         .Add({}, DiskBuckets());
  Counter& slow_apply =
      NewCounter("etcd_server_slow_apply_total", "Runs of entries that took over 100 ms to apply.")
          .Add({});
  Counter& proposals_failed =
      NewCounter("etcd_server_proposals_failed_total", "Proposals that failed.").Add({});
  Counter& reads_failed =
      NewCounter("etcd_server_read_indexes_failed_total", "Linearizable reads that failed.")
          .Add({});
  Counter& leader_changes =
      NewCounter("etcd_server_leader_changes_seen_total", "Leaders that this member has seen.")
          .Add({});
  Histogram& snapshot_sent =
      NewHistogram("kvd_snapshot_send_duration_seconds", "How long a snapshot took to be sent.")
          .Add({}, Doubling(0.1, 14));
  Histogram& snapshot_adopted =
      NewHistogram("kvd_snapshot_adopt_duration_seconds", "How long a snapshot took to be adopted.")
          .Add({}, Doubling(0.1, 14));

  Family<Counter>& peer_sent = NewCounter("etcd_network_peer_sent_bytes_total", "Bytes to a peer.");
  Family<Counter>& peer_received =
      NewCounter("etcd_network_peer_received_bytes_total", "Bytes from a peer.");
  Family<Counter>& peer_failed =
      NewCounter("etcd_network_peer_sent_failures_total", "Messages that a peer did not get.");
  Family<Histogram>& peer_took =
      NewHistogram("etcd_network_peer_round_trip_time_seconds", "How long a peer took to answer.");
  PerPeer<Counter> peers_sent;
  PerPeer<Counter> peers_received;
  PerPeer<Counter> peers_failed;
  PerPeer<Histogram> peers_took;

  Counter& ranges = NewCounter("etcd_mvcc_range_total", "Ranges that clients asked for.").Add({});
  Counter& puts = NewCounter("etcd_mvcc_put_total", "Puts that clients asked for.").Add({});
  Counter& put_bytes =
      NewCounter("etcd_debugging_mvcc_total_put_size_in_bytes", "Keys and values of those puts.")
          .Add({});
  Counter& deletes =
      NewCounter("etcd_mvcc_delete_total", "Range deletes that clients asked for.").Add({});
  Counter& txns = NewCounter("etcd_mvcc_txn_total", "Transactions that clients asked for.").Add({});

  Counter& leases_granted =
      NewCounter("etcd_debugging_lease_granted_total", "Leases granted.").Add({});
  Counter& leases_revoked =
      NewCounter("etcd_debugging_lease_revoked_total", "Leases that ended, expired ones included.")
          .Add({});
  Counter& leases_renewed =
      NewCounter("etcd_debugging_lease_renewed_total", "Renewals by this member as the leader.")
          .Add({});
  Counter& leases_expired = NewCounter("etcd_debugging_server_lease_expired_total",
                                       "Leases that expired while this member led.")
                                .Add({});
  Histogram& lease_ttl =
      NewHistogram("etcd_debugging_lease_ttl_total", "Seconds that leases were granted for.")
          .Add({}, Doubling(1, 24));

  Family<Counter>& probes =
      NewCounter("etcd_server_healthchecks_total", "Answers to probes, by name and outcome.");
  Counter& health_good =
      NewCounter("etcd_server_health_success", "/health that answered true.").Add({});
  Counter& health_bad =
      NewCounter("etcd_server_health_failures", "/health that answered false.").Add({});

  Mutex rpcs_mutex;
  std::map<std::string, std::unique_ptr<RpcMetrics>> rpcs ABSL_GUARDED_BY(rpcs_mutex);
  Mutex gauges_mutex;
  std::function<Gauges()> gauges ABSL_GUARDED_BY(gauges_mutex);
};

namespace {

class CountedRpc final : public RpcMetrics {
 public:
  struct Families {
    Family<Counter>& started;
    Family<Counter>& handled;
    Family<Counter>& received;
    Family<Counter>& sent;
    Family<Histogram>& took;
    Counter& received_bytes;
    Counter& sent_bytes;
  };
  CountedRpc(Families families, prometheus::Labels labels)
      : handled_family_(families.handled),
        took_family_(families.took),
        labels_(std::move(labels)),
        started_(families.started.Add(labels_)),
        received_(families.received.Add(labels_)),
        sent_(families.sent.Add(labels_)),
        received_bytes_(families.received_bytes),
        sent_bytes_(families.sent_bytes) {}

  void Started() override { started_.Increment(); }

  void Handled(absl::StatusCode code, absl::Duration took) override {
    const auto index = static_cast<size_t>(code) < kCodes.size() ? static_cast<size_t>(code) : 2;
    Counter* counter = handled_[index].load(std::memory_order_acquire);
    if (counter == nullptr) {
      prometheus::Labels labels = labels_;
      labels["grpc_code"] = std::string(kCodes[index]);
      counter = &handled_family_.Add(labels);  // The same one for the same labels.
      handled_[index].store(counter, std::memory_order_release);
    }
    counter->Increment();
    Histogram* histogram = took_.load(std::memory_order_acquire);
    if (histogram == nullptr) {
      histogram = &took_family_.Add(labels_, RpcBuckets());
      took_.store(histogram, std::memory_order_release);
    }
    histogram->Observe(absl::ToDoubleSeconds(took));
  }

  void Received(size_t bytes) override {
    received_.Increment();
    received_bytes_.Increment(static_cast<double>(bytes));
  }
  void Sent(size_t bytes) override {
    sent_.Increment();
    sent_bytes_.Increment(static_cast<double>(bytes));
  }

 private:
  Family<Counter>& handled_family_;
  Family<Histogram>& took_family_;
  const prometheus::Labels labels_;
  Counter& started_;
  Counter& received_;
  Counter& sent_;
  Counter& received_bytes_;
  Counter& sent_bytes_;
  std::array<std::atomic<Counter*>, kCodes.size()> handled_{};
  std::atomic<Histogram*> took_ = nullptr;
};

}  // namespace

Metrics::Metrics() : state_(std::make_unique<State>()) {
  prometheus::BuildGauge()
      .Name("etcd_server_version")
      .Help("The etcd version whose API this member speaks, as a label.")
      .Register(state_->registry)
      .Add({{"server_version", std::string(kApiVersion)}})
      .Set(1);
  prometheus::BuildGauge()
      .Name("etcd_cluster_version")
      .Help("The etcd version whose API this cluster speaks, as a label.")
      .Register(state_->registry)
      .Add({{"cluster_version", std::string(kApiMinorVersion)}})
      .Set(1);
  prometheus::BuildGauge()
      .Name("kvd_build_info")
      .Help("This build of kvd, as a label.")
      .Register(state_->registry)
      .Add({{"version", std::string(kKvdVersion)}})
      .Set(1);
}

Metrics::~Metrics() = default;

ReplicaMetrics Metrics::ForReplica() {
  State* state = state_.get();
  ReplicaMetrics metrics;
  metrics.log_synced = [state](absl::Duration took, size_t, size_t bytes) {
    state->fsync.Observe(absl::ToDoubleSeconds(took));
    state->log_bytes.Increment(static_cast<double>(bytes));
  };
  metrics.applied = [state](absl::Duration took, size_t) {
    state->apply.Observe(absl::ToDoubleSeconds(took));
    if (took > kSlowApply) state->slow_apply.Increment();
  };
  metrics.proposal_failed = [state] { state->proposals_failed.Increment(); };
  metrics.leader_changed = [state](MemberId leader) {
    if (leader != 0) state->leader_changes.Increment();
  };
  metrics.snapshot_sent = [state](bool delivered, absl::Duration took, uint64_t) {
    if (delivered) state->snapshot_sent.Observe(absl::ToDoubleSeconds(took));
  };
  metrics.snapshot_adopted = [state](absl::Duration took, uint64_t) {
    state->snapshot_adopted.Observe(absl::ToDoubleSeconds(took));
  };
  metrics.read_failed = [state] { state->reads_failed.Increment(); };
  return metrics;
}

LeaseMetrics Metrics::ForLeases() {
  State* state = state_.get();
  return {.granted =
              [state](int64_t ttl) {
                state->leases_granted.Increment();
                state->lease_ttl.Observe(static_cast<double>(ttl));
              },
          .revoked = [state] { state->leases_revoked.Increment(); },
          .renewed = [state] { state->leases_renewed.Increment(); },
          .expired = [state] { state->leases_expired.Increment(); }};
}

void Metrics::PeerSent(MemberId to, size_t bytes) {
  state_->peers_sent.Of(state_->peer_sent, "To", to).Increment(static_cast<double>(bytes));
}

void Metrics::PeerReceived(MemberId from, size_t bytes) {
  state_->peers_received.Of(state_->peer_received, "From", from)
      .Increment(static_cast<double>(bytes));
}

void Metrics::PeerSendFailed(MemberId to) {
  state_->peers_failed.Of(state_->peer_failed, "To", to).Increment();
}

void Metrics::PeerRoundTrip(MemberId to, absl::Duration took) {
  state_->peers_took.Of(state_->peer_took, "To", to, RoundTripBuckets())
      .Observe(absl::ToDoubleSeconds(took));
}

RpcMetrics* Metrics::ForRpc(std::string_view service, std::string_view method, RpcType type) {
  MutexLock lock(state_->rpcs_mutex);
  std::unique_ptr<RpcMetrics>& rpc = state_->rpcs[fmt::format("{}/{}", service, method)];
  if (rpc == nullptr) {
    rpc = std::make_unique<CountedRpc>(
        CountedRpc::Families{state_->rpc_started, state_->rpc_handled, state_->rpc_received,
                             state_->rpc_sent, state_->rpc_took, state_->client_received_bytes,
                             state_->client_sent_bytes},
        prometheus::Labels{{"grpc_service", std::string(service)},
                           {"grpc_method", std::string(method)},
                           {"grpc_type", std::string(ToString(type))}});
  }
  return rpc.get();
}

void Metrics::Watch(std::function<Gauges()> gauges) {
  MutexLock lock(state_->gauges_mutex);
  state_->gauges = std::move(gauges);
}

void Metrics::CountRange() { state_->ranges.Increment(); }

void Metrics::CountPut(size_t bytes) {
  state_->puts.Increment();
  state_->put_bytes.Increment(static_cast<double>(bytes));
}

void Metrics::CountDelete() { state_->deletes.Increment(); }

void Metrics::CountTxn() { state_->txns.Increment(); }

void Metrics::CountProbe(std::string_view type, std::string_view name, bool ok) {
  state_->probes
      .Add({{"type", std::string(type)},
            {"name", std::string(name)},
            {"status", ok ? "success" : "error"}})
      .Increment();
}

void Metrics::CountHealth(bool ok) { (ok ? state_->health_good : state_->health_bad).Increment(); }

std::string Metrics::Scrape() {
  std::vector<MetricFamily> page = state_->registry.Collect();
  {
    MutexLock lock(state_->gauges_mutex);
    if (state_->gauges) AddGauges(state_->gauges(), &page);
  }
  AddProcess(&page);
  return prometheus::TextSerializer().Serialize(page);
}

}  // namespace kv::api

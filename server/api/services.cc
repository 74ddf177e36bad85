#include "server/api/services.h"

#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <string_view>
#include <utility>

#include "proto/etcd/election.pb.h"
#include "proto/etcd/lock.pb.h"
#include "proto/etcd/rpc.pb.h"
#include "proto/grpc/health.pb.h"
#include "proto/grpc/reflection.pb.h"
#include "proto/grpc/reflection_v1alpha.pb.h"
#include "proto/kvd/v1/kv.pb.h"
#include "server/api/answers.h"
#include "server/api/cluster_service.h"
#include "server/api/edge.h"
#include "server/api/election_service.h"
#include "server/api/errors.h"
#include "server/api/health_service.h"
#include "server/api/http2_server.h"
#include "server/api/inner_calls.h"
#include "server/api/kv_service.h"
#include "server/api/lease_service.h"
#include "server/api/lock_service.h"
#include "server/api/maintenance_service.h"
#include "server/api/reflection_service.h"
#include "server/api/rpc_service.h"
#include "server/api/small_kv_service.h"
#include "server/api/turns.h"
#include "server/api/waiting_calls.h"
#include "server/api/watch_service.h"
#include "server/kv/kv_machine.h"
#include "server/watch/watch_hub.h"
#include "storage/mutex.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using namespace etcdserverpb;  // NOLINT(google-build-using-namespace): the rows below name them
                               // all.

// A leader is noticed, or missed, within this time by health checkers.
constexpr absl::Duration kHealthEvery = absl::Milliseconds(100);
// The disk, the size of the database and the membership are looked at this often.
constexpr int kRefreshEvery = 10;  // Of the former.
// Below the patience of a usual probe.
constexpr absl::Duration kProbeRead = absl::Seconds(3);
// A raft loop that ticks answers a read at its deadline at the latest.
constexpr absl::Duration kProbeTick = absl::Milliseconds(100);
constexpr Index kLagMax = 5000;

// What a client may send above a request's limit, so that the limit's own error reaches it.
constexpr size_t kReceiveOverhead = size_t{512} << 10;

constexpr std::string_view kWithAuth = "arrives with users, roles and TLS";

const google::protobuf::ServiceDescriptor* Find(const std::string& name) {
  // A reference into each file keeps the linker from leaving it out.
  static_cast<void>(RangeRequest::descriptor());
  static_cast<void>(v3lockpb::LockRequest::descriptor());
  static_cast<void>(v3electionpb::LeaderRequest::descriptor());
  static_cast<void>(kvd::v1::PutRequest::descriptor());
  static_cast<void>(grpc::health::v1::HealthCheckRequest::descriptor());
  static_cast<void>(grpc::reflection::v1::ServerReflectionRequest::descriptor());
  static_cast<void>(grpc::reflection::v1alpha::Anchor::descriptor());
  return google::protobuf::DescriptorPool::generated_pool()->FindServiceByName(name);
}

Http2Options FrontOptions(const Options& options) {
  Http2Options front;
  front.listen_urls = options.listen_client_urls;
  front.loops = FrontLoops(options.processors);
  front.message_bytes_max = options.request_bytes_max + kReceiveOverhead;
  front.concurrent_streams_max = options.concurrent_streams_max;
  front.memory_bytes_max = options.memory_bytes_max;
  front.keepalive_min_time = options.keepalive_min_time;
  front.keepalive_interval = options.keepalive_interval;
  front.keepalive_timeout = options.keepalive_timeout;
  return front;
}

// Counts what was begun and has not ended.
class Pending {
 public:
  void Begin() {
    MutexLock lock(mutex_);
    ++count_;
  }
  void End() {
    MutexLock lock(mutex_);
    if (--count_ == 0) none_.notify_all();
  }
  void AwaitNone() {
    MutexLock lock(mutex_);
    while (count_ > 0) mutex_.Await(none_);
  }

 private:
  Mutex mutex_;
  std::condition_variable none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace

class Services::Running {
 public:
  Running(Options options, Parts parts)
      : parts_(parts),
        readers_(parts.runtime->NewUnorderedLoop("read", options.read_threads)),
        edge_(options, parts, readers_.get()),
        hub_(parts.runtime, parts.machine, readers_.get(), {}),
        compactor_(options.auto_compaction),
        loop_(parts.runtime->NewLoop("edge")) {}
  ~Running() { Stop(absl::ZeroDuration()); }

  absl::Status Start() {
    AddKv();
    AddSmallKv();
    AddLease();
    AddMaintenance();
    AddCluster();
    AddWatch();
    AddLock();
    AddElection();
    Refuse("etcdserverpb.Auth", "Auth", kWithAuth);
    AddHealth();
    AddReflection("grpc.reflection.v1.ServerReflection");
    AddReflection("grpc.reflection.v1alpha.ServerReflection");
    RETURN_IF_ERROR(
        server_.Start(parts_.runtime, FrontOptions(edge_.options()), std::move(methods_)));
    started_ = true;
    parts_.metrics->Watch([this] { return ReadGauges(); });
    OpenProbes();
    loop_->Post([this] { Beat(0); });
    return absl::OkStatus();
  }

  void Drain() { draining_ = true; }
  void SetQuota(int64_t bytes) { edge_.SetQuota(bytes); }

  void Stop(absl::Duration grace) {
    if (!started_) return;
    started_ = false;
    draining_ = true;
    probes_->Close("the member is stopping");
    edge_.BeginStop();
    loop_->Stop();  // Before the health that it tells.
    health_.Stop();
    watch_.Stop();
    maintenance_.Stop();
    waiting_.Stop();
    server_.Stop(grace);
    asked_.AwaitNone();
    hub_.Stop();
    readers_.reset();
    parts_.metrics->Watch(nullptr);
  }

  std::shared_ptr<Probes> probes() const { return probes_; }
  int port() const { return server_.port(); }

 private:
  RpcService Add(const std::string& name) {
    health_.AddService(name);
    reflection_.AddService(name);
    return {Find(name), parts_.runtime, parts_.metrics, &methods_};
  }

  void Refuse(const std::string& name, std::string_view what, std::string_view when) {
    Add(name).RefuseTheRest(fmt::format("{} {}", what, when));
  }

  void AddKv() {
    RpcService rpcs = Add("etcdserverpb.KV");
    rpcs.AddUnary("Range", &kv_, &KvService::Range);
    rpcs.AddUnary("Put", &kv_, &KvService::Put);
    rpcs.AddUnary("DeleteRange", &kv_, &KvService::DeleteRange);
    rpcs.AddUnary("Txn", &kv_, &KvService::Txn);
    rpcs.AddUnary("Compact", &kv_, &KvService::Compact);
    rpcs.AddServerStream("RangeStream", &kv_, &KvService::RangeStream);
  }

  void AddSmallKv() {
    RpcService rpcs = Add("kvd.v1.KV");
    rpcs.AddUnary("Put", &small_kv_, &SmallKvService::Put);
    rpcs.AddUnary("Get", &small_kv_, &SmallKvService::Get);
    rpcs.AddUnary("Delete", &small_kv_, &SmallKvService::Delete);
    rpcs.AddServerStream("Scan", &small_kv_, &SmallKvService::Scan);
  }

  void AddLease() {
    RpcService rpcs = Add("etcdserverpb.Lease");
    rpcs.AddUnary("LeaseGrant", &lease_, &LeaseService::Grant);
    rpcs.AddUnary("LeaseRevoke", &lease_, &LeaseService::Revoke);
    rpcs.AddBidiStream("LeaseKeepAlive", &lease_, &LeaseService::KeepAlive);
    rpcs.AddUnary("LeaseTimeToLive", &lease_, &LeaseService::TimeToLive);
    rpcs.AddUnary<LeaseLeasesRequest, Encoded<LeaseLeasesResponse>>(
        "LeaseLeases", [this](const Call& call, const LeaseLeasesRequest&, auto done) {
          lease_.Leases(call, std::move(done));
        });
  }

  void AddMaintenance() {
    RpcService rpcs = Add("etcdserverpb.Maintenance");
    rpcs.AddUnary("Status", &maintenance_, &MaintenanceService::Status);
    rpcs.AddUnary("Alarm", &maintenance_, &MaintenanceService::Alarm);
    rpcs.AddUnary("HashKV", &maintenance_, &MaintenanceService::HashKv);
    rpcs.AddUnary("Hash", &maintenance_, &MaintenanceService::Hash);
    rpcs.AddUnary("Defragment", &maintenance_, &MaintenanceService::Defragment);
    rpcs.AddUnary("MoveLeader", &maintenance_, &MaintenanceService::MoveLeader);
    rpcs.AddUnary("Downgrade", &maintenance_, &MaintenanceService::Downgrade);
    rpcs.AddServerStream("Snapshot", &maintenance_, &MaintenanceService::Snapshot);
  }

  void AddCluster() {
    RpcService rpcs = Add("etcdserverpb.Cluster");
    rpcs.AddUnary("MemberList", &cluster_, &ClusterService::MemberList);
    rpcs.AddUnary("MemberAdd", &cluster_, &ClusterService::MemberAdd);
    rpcs.AddUnary("MemberRemove", &cluster_, &ClusterService::MemberRemove);
    rpcs.AddUnary("MemberUpdate", &cluster_, &ClusterService::MemberUpdate);
    rpcs.AddUnary("MemberPromote", &cluster_, &ClusterService::MemberPromote);
  }

  void AddWatch() {
    Add("etcdserverpb.Watch").AddBidiStream("Watch", &watch_, &WatchService::Watch);
  }

  void AddLock() {
    RpcService rpcs = Add("v3lockpb.Lock");
    rpcs.AddWaiting("Lock", &lock_, &LockService::Lock);
    rpcs.AddUnary("Unlock", &lock_, &LockService::Unlock);
  }

  void AddElection() {
    RpcService rpcs = Add("v3electionpb.Election");
    rpcs.AddWaiting("Campaign", &election_, &ElectionService::Campaign);
    rpcs.AddUnary("Proclaim", &election_, &ElectionService::Proclaim);
    rpcs.AddUnary("Leader", &election_, &ElectionService::Leader);
    rpcs.AddServerStream("Observe", &election_, &ElectionService::Observe);
    rpcs.AddUnary("Resign", &election_, &ElectionService::Resign);
  }

  void AddHealth() {
    using grpc::health::v1::HealthCheckRequest;
    using grpc::health::v1::HealthCheckResponse;
    RpcService rpcs = Add("grpc.health.v1.Health");
    rpcs.AddUnary<HealthCheckRequest, HealthCheckResponse>(
        "Check", [this](const Call&, const HealthCheckRequest& request, auto done) {
          health_.Check(request, std::move(done));
        });
    rpcs.AddServerStream<HealthCheckRequest, HealthCheckResponse>(
        "Watch", [this](const Call&, const HealthCheckRequest& request, auto* writer) {
          health_.Watch(request, writer);
        });
  }

  void AddReflection(const std::string& name) {
    Add(name).AddBidiStream<ReflectionService::Request, ReflectionService::Response>(
        "ServerReflectionInfo",
        [this](const Call&, auto* reader, auto* writer) { reflection_.Info(reader, writer); });
  }

  // On the edge loop: tells health checkers when a leader comes or goes.
  void Beat(int count) {
    if (count % kRefreshEvery == 0) {
      edge_.Refresh();
      Compact();
    }
    const bool serving = !draining_ && parts_.replica->leader() != 0;
    if (serving != serving_) health_.SetServing(serving);
    serving_ = serving;
    if (edge_.LeaderLost()) {
      watch_.EndWithoutLeader();
      waiting_.EndWithoutLeader();
    }
    loop_->PostAfter(kHealthEvery, [this, count] { Beat(count + 1); });
  }

  // On the edge loop: what --auto-compaction-* asks for. A compaction that fails is made good by
  // the next one.
  void Compact() {
    using Role = AutoCompactor::Role;
    const Head head = parts_.machine->head();
    const auto revision = compactor_.Next(parts_.runtime->Uptime(),
                                          parts_.replica->leading() ? Role::kLeader : Role::kOther,
                                          head.revision, head.compacted);
    if (!revision) return;
    CompactionRequest request;
    request.set_revision(*revision);
    parts_.replica->Propose(EncodeCommand(kvd::internal::COMPACT, request.SerializeAsString()),
                            RequestTimeout(edge_.options()), [](const ProposalResult&) {});
  }

  Gauges ReadGauges() const {
    const Head head = parts_.machine->head();
    const uint64_t bytes = parts_.machine->SizeOnDisk() + parts_.machine->UnflushedBytes();
    return {.replica = parts_.replica->Status(),
            .member_id = parts_.replica->id(),
            .learner = edge_.learner(),
            .db_bytes = bytes,
            .db_bytes_in_use = bytes,
            .quota_bytes = edge_.quota_bytes(),
            .revision = head.revision,
            .compact_revision = head.compacted,
            .watch = hub_.counts()};
  }

  void OpenProbes() {
    Probes::Set set;
    const auto add = [this, &set](ProbeKind kind, std::string name, auto ask) {
      const auto counted = [this, ask = std::move(ask)](Probe::Done done) {
        asked_.Begin();
        ask([this, done = std::move(done)](absl::Status status) mutable {
          std::move(done)(std::move(status));
          asked_.End();
        });
      };
      set.push_back({kind, {.name = std::move(name), .ask = counted}});
    };
    const auto local_read = [this](Probe::Done done) { ReadLocally(std::move(done)); };
    const auto shared_read = [this](Probe::Done done) { ReadLinearizably(std::move(done)); };
    add(ProbeKind::kLive, "serializable_read", local_read);
    add(ProbeKind::kLive, "raft_loop", [this](Probe::Done done) {
      // Any answer, a refusal too, says that the loop is alive.
      parts_.replica->Read(kProbeTick, [done = std::move(done)](ReadResult) mutable {
        std::move(done)(absl::OkStatus());
      });
    });
    add(ProbeKind::kReady, "serializable_read", local_read);
    add(ProbeKind::kReady, "linearizable_read", shared_read);
    add(ProbeKind::kReady, "non_learner", [this](Probe::Done done) {
      std::move(done)(edge_.learner() ? ToStatus(Error::kNotSupportedForLearner)
                                      : absl::OkStatus());
    });
    add(ProbeKind::kReady, "applied", [this](Probe::Done done) {
      const ReplicaStatus status = parts_.replica->Status();
      const Index lag = status.commit - std::min(status.commit, status.applied.index);
      std::move(done)(lag <= kLagMax
                          ? absl::OkStatus()
                          : MakeStatus(absl::StatusCode::kUnavailable,
                                       "{} committed entries are not applied yet; ready below {}",
                                       lag, kLagMax));
    });
    add(ProbeKind::kReady, "not_draining", [this](Probe::Done done) {
      std::move(done)(
          draining_ ? MakeStatus(absl::StatusCode::kUnavailable, "the member is about to stop")
                    : absl::OkStatus());
    });
    const auto no_alarm = [this](etcdserverpb::AlarmType type, std::string_view text) {
      return [this, type, text](Probe::Done done) {
        std::move(done)(parts_.machine->maintenance().Raised(type)
                            ? MakeStatus(absl::StatusCode::kUnavailable, "{} {}", text,
                                         etcdserverpb::AlarmType_Name(type))
                            : absl::OkStatus());
      };
    };
    add(ProbeKind::kReady, "data_corruption", no_alarm(CORRUPT, "alarm activated:"));
    for (const ProbeKind kind : {ProbeKind::kHealth, ProbeKind::kHealthSerializable}) {
      add(kind, "NOSPACE", no_alarm(NOSPACE, "ALARM"));
      add(kind, "CORRUPT", no_alarm(CORRUPT, "ALARM"));
    }
    add(ProbeKind::kHealth, "health", [this, shared_read](Probe::Done done) {
      if (parts_.replica->leader() == 0) {
        std::move(done)(MakeStatus(absl::StatusCode::kUnavailable, "RAFT NO LEADER"));
        return;
      }
      shared_read([done = std::move(done)](absl::Status status) mutable {
        std::move(done)(status.ok() ? status
                                    : MakeStatus(status.code(), "RANGE ERROR:{}", Message(status)));
      });
    });
    add(ProbeKind::kHealthSerializable, "health", local_read);
    probes_->Open(std::move(set));
  }

  absl::Status ReadOneKey() const {
    RangeRequest request;
    request.set_key("a");  // Any; it need not be there.
    request.set_keys_only(true);
    return parts_.machine->Range(request).status();
  }

  void ReadLocally(Probe::Done done) {
    auto shared = std::make_shared<Probe::Done>(std::move(done));
    absl::Status status = edge_.ReadLater([this, shared] { std::move (*shared)(ReadOneKey()); });
    if (!status.ok()) std::move (*shared)(std::move(status));
  }

  void ReadLinearizably(Probe::Done done) {
    parts_.replica->Read(kProbeRead, [this, done = std::move(done)](ReadResult result) mutable {
      if (result.error != ReplicaError::kNone) {
        std::move(done)(ToStatus(result.error));
      } else {
        ReadLocally(std::move(done));
      }
    });
  }

  const Parts parts_;
  const std::shared_ptr<Probes> probes_ = std::make_shared<Probes>();
  std::unique_ptr<Loop> readers_;
  Edge edge_;
  WatchHub hub_;
  AutoCompactor compactor_;  // The edge loop's.
  KvService kv_{&edge_};
  SmallKvService small_kv_{&edge_, &kv_};
  LeaseService lease_{&edge_};
  MaintenanceService maintenance_{&edge_};
  ClusterService cluster_{&edge_};
  WatchService watch_{&edge_, &hub_};
  WaitingCalls waiting_;
  InnerCalls inner_{&kv_, &lease_};
  Turns turns_{&edge_, &inner_, &hub_, &waiting_};
  LockService lock_{&edge_, &inner_, &turns_};
  ElectionService election_{&edge_, &inner_, &hub_, &waiting_, &turns_};
  HealthService health_;
  ReflectionService reflection_;
  RpcMethods methods_;
  Http2Server server_;
  Pending asked_;  // Probes.
  bool started_ = false;
  std::atomic<bool> draining_ = false;
  bool serving_ = false;  // The edge loop's.
  std::unique_ptr<Loop> loop_;
};

Services::Services(Options options, Parts parts)
    : running_(std::make_unique<Running>(std::move(options), parts)) {}
Services::~Services() = default;
absl::Status Services::Start() { return running_->Start(); }
void Services::Drain() { running_->Drain(); }
void Services::SetQuota(int64_t bytes) { running_->SetQuota(bytes); }
void Services::Stop(absl::Duration grace) { running_->Stop(grace); }
std::shared_ptr<Probes> Services::probes() const { return running_->probes(); }
int Services::port() const { return running_->port(); }

}  // namespace kv::api

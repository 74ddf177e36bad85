#include "tests/api/lone_member.h"

#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <rocksdb/env.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <stdexcept>

#include "server/lease_parts.h"
#include "server/node.h"
#include "server/replica/forward.h"
#include "server/replica/recovery.h"
#include "storage/database.h"
#include "storage/status.h"

namespace kv::api {
namespace {

constexpr Position kFounded{.index = 1, .term = 1};
constexpr MemberId kAbsent = 7;

void Must(const absl::Status& status) {
  if (!status.ok()) throw std::runtime_error(Describe(status));
}
template <typename T>
T Must(absl::StatusOr<T> value) {
  Must(value.status());
  return *std::move(value);
}

std::string NewDirectory() {
  std::string path = (std::filesystem::temp_directory_path() / "kvd-api-XXXXXX").string();
  if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("cannot make " + path);
  return path;
}

}  // namespace

// A network without a peer.
class LoneMember::Nobody final : public Network {
 public:
  void Start(const LocalIdentity&, Handlers) override {}
  void SetPeers(std::vector<PeerAddress>) override {}
  void Send(raft::Envelope) override {}
  void SendSnapshot(raft::Envelope, Snapshot, SnapshotDone done) override {
    std::move(done)(false);
  }
  void Call(const std::string&, const std::string&, std::string, absl::Duration,
            CallDone done) override {
    std::move(done)(absl::UnavailableError("nobody is there"));
  }
  void Handle(const std::string&, Serve) override {}
};

LoneMember::LoneMember(Options options, Cluster cluster)
    : directory_(NewDirectory()),
      options_(std::move(options)),
      network_(std::make_unique<Nobody>()),
      work_(runtime_.NewUnorderedLoop("work", 2)) {
  rocksdb::Env* env = rocksdb::Env::Default();
  KvMachineOptions machine;
  machine.env = env;
  machine.data_dir = directory_;
  machine.work = [this](absl::AnyInvocable<void()&&> task) { work_->Post(std::move(task)); };
  machine.on_background_error = [](const absl::Status& status) { Must(status); };
  machine.on_leases = [this](std::vector<LeaseChange> changes) {
    if (leases_) leases_->OnLeases(std::move(changes));
  };

  raft::Members members;
  members.voters = {kId};
  if (cluster == Cluster::kWithAbsentVoter) members.voters = {kAbsent, kId};
  if (cluster == Cluster::kAsLearner) {
    members.voters = {kAbsent};
    members.learners = {kId};
  }
  members.records[kId] = Encode(MemberRecord{.name = "lone",
                                             .peer_urls = {"http://127.0.0.1:1"},
                                             .client_urls = {"http://127.0.0.1:2"},
                                             .node_uuid = std::string(32, 'a')});
  Must(KvMachine::Found(machine, kFounded, members));

  const auto open_log = [&] {
    DatabaseOptions log_options;
    log_options.write_ahead_log = true;
    log_options.create_if_missing = true;
    return std::make_unique<LogStore>(
        Must(OpenRocksDatabase(env, directory_ + "/log", log_options)));
  };
  const auto open_floor = [&](const LogStore::Contents& contents) {
    return Must(Floor::Open(env, directory_ + "/log/FLOOR",
                            {.cluster_id = kClusterId, .member_id = kId}, contents));
  };
  {
    const auto log = open_log();
    open_floor(Must(log->Load()));
    LogUpdate begin;
    begin.hard_state = HardState{.term = kFounded.term, .vote = 0};
    begin.reset = kFounded;
    Must(log->Commit({&begin, 1}));
  }
  auto log = open_log();
  LogStore::Contents contents = Must(log->Load());
  auto floor = open_floor(contents);
  machine_ = Must(KvMachine::Open(std::move(machine)));
  raft::Found found = Must(Recover(std::move(contents), *log, *floor, *machine_));

  Replica::Parts parts;
  parts.runtime = &runtime_;
  parts.network = network_.get();
  parts.machine = machine_.get();
  parts.env = env;
  parts.log_store = std::move(log);
  parts.floor = std::move(floor);
  parts.fatal = [](std::string_view sentence) { throw std::runtime_error(std::string(sentence)); };
  parts.metrics = metrics_.ForReplica();
  parts.metrics.leader_changed = [this](MemberId) { leases_->OnLeadership(); };
  ReplicaOptions replica;
  replica.tick = absl::Milliseconds(20);
  replica.raise_cluster_version = [this](uint32_t version) -> std::optional<std::string> {
    if (machine_->cluster_version() >= version) return std::nullopt;
    return kv::RaiseClusterVersion(version);
  };
  LeaseKeeper::Parts leases = LeaseParts(runtime_, machine_, replica_);
  leases.election_timeout = options_.election_timeout;
  leases.metrics = metrics_.ForLeases();
  leases_ = std::make_unique<LeaseKeeper>(std::move(leases));
  replica.data_dir = directory_;
  replica_ = std::make_unique<Replica>(LocalIdentity{.cluster_id = kClusterId,
                                                     .member_id = kId,
                                                     .name = "lone",
                                                     .node_uuid = std::string(32, 'a'),
                                                     .boot_epoch = 1,
                                                     .machine_version = kMachineVersion},
                                       replica, std::move(parts), std::move(found));
  replica_->Start();
  if (cluster == Cluster::kAlone) {
    std::promise<ReplicaError> leads;
    replica_->Read(absl::Seconds(30), [&](ReadResult result) { leads.set_value(result.error); });
    if (leads.get_future().get() != ReplicaError::kNone) throw std::runtime_error("no leader");
    RaiseClusterVersion();
  }

  options_.data_dir = directory_;
  if (options_.listen_client_urls.empty()) options_.listen_client_urls = {"http://127.0.0.1:0"};
  services_ = std::make_unique<Services>(options_, Services::Parts{.runtime = &runtime_,
                                                                   .replica = replica_.get(),
                                                                   .machine = machine_.get(),
                                                                   .metrics = &metrics_,
                                                                   .leases = leases_.get()});
  Must(services_->Start());
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  channel_ = grpc::CreateCustomChannel(address(), grpc::InsecureChannelCredentials(), arguments);
  kv_ = etcdserverpb::KV::NewStub(channel_);
  maintenance_ = etcdserverpb::Maintenance::NewStub(channel_);
  lease_ = etcdserverpb::Lease::NewStub(channel_);
}

// The whole cluster runs this build: nothing that it knows is held back, not for a tick either.
void LoneMember::RaiseClusterVersion() {
  std::promise<ReplicaError> raised;
  replica_->Propose(kv::RaiseClusterVersion(kMachineVersion), absl::Seconds(30),
                    [&](const ProposalResult& result) { raised.set_value(result.error); });
  if (raised.get_future().get() != ReplicaError::kNone) throw std::runtime_error("no version");
}

LoneMember::~LoneMember() {
  services_->Stop(absl::Seconds(1));
  std::promise<void> stopped;
  replica_->Stop(absl::ZeroDuration(), [&] { stopped.set_value(); });
  stopped.get_future().wait();
  services_.reset();
  leases_->Close();
  replica_.reset();
  leases_.reset();
  machine_.reset();
  std::filesystem::remove_all(directory_);
}

std::string LoneMember::address() const { return fmt::format("127.0.0.1:{}", services_->port()); }

grpc::Status LoneMember::Put(const std::string& key, const std::string& value) {
  grpc::ClientContext context;
  etcdserverpb::PutRequest request;
  request.set_key(key);
  request.set_value(value);
  etcdserverpb::PutResponse response;
  return kv_->Put(&context, request, &response);
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace kv::api

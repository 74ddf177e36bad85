#include "server/server.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/stubs/logging.h>
#include <rocksdb/env.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <utility>

#include "server/api/admin_server.h"
#include "server/api/listen_url.h"
#include "server/api/metrics.h"
#include "server/api/services.h"
#include "server/api/version.h"
#include "server/cluster/slots.h"
#include "server/cluster/stopping_driver.h"
#include "server/node.h"
#include "server/platform.h"
#include "server/replica/grpc_network.h"
#include "server/replica/thread_runtime.h"
#include "storage/check.h"
#include "storage/mutex.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr absl::Duration kDrainGrace = absl::Seconds(5);  // To hand leadership over and drain.
constexpr absl::Duration kReadyAttempt = absl::Seconds(5);
// Room beside a command on the wire between members.
constexpr size_t kEnvelopeBytes = size_t{4} << 20;

std::vector<std::string> Texts(const std::vector<Url>& urls) {
  std::vector<std::string> texts;
  for (const Url& url : urls) texts.push_back(url.Text());
  return texts;
}

// The setting that says it.
std::string WhereTheOthersAre(const Config& config) {
  if (!config.discovery.statefulset.empty()) {
    return fmt::format("kubernetes-statefulset={}", config.discovery.statefulset);
  }
  const bool joins = !config.discovery.join.empty();
  std::vector<std::string_view> names;
  for (const ListedMember& listed : joins ? config.discovery.join : config.initial_cluster) {
    names.push_back(listed.name);
  }
  return fmt::format("{}={}", joins ? "join" : "initial-cluster", fmt::join(names, ","));
}

spdlog::level::level_enum LevelOf(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

void OpenLog(const Config& config) {
  std::shared_ptr<spdlog::logger> logger;
  if (config.log_output == LogOutput::kStdout) {
    logger =
        std::make_shared<spdlog::logger>("kvd", std::make_shared<spdlog::sinks::stdout_sink_mt>());
  } else {
    logger =
        std::make_shared<spdlog::logger>("kvd", std::make_shared<spdlog::sinks::stderr_sink_mt>());
  }
  logger->set_level(LevelOf(config.log_level));
  logger->flush_on(spdlog::level::debug);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %v", spdlog::pattern_time_type::utc);
  spdlog::set_default_logger(std::move(logger));
  // What members or clients send malformed is refused, counted and logged by us.
  google::protobuf::SetLogHandler(nullptr);
  TheCheckHook() = [](std::string_view failure) { spdlog::critical("{}", failure); };
}

// Nothing that was acknowledged is lost by this: it is in the synced log.
[[noreturn]] void EndProcess(std::string_view sentence) {
  spdlog::critical("{}", sentence);
  std::_Exit(1);
}

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Nothing with --initial-cluster.
std::optional<cluster::Discovery> MakeDiscovery(const Config& config) {
  const DiscoveryConfig& settings = config.discovery;
  if (!settings.on()) return std::nullopt;
  cluster::Discovery discovery;
  for (const ListedMember& listed : settings.join) {
    discovery.slots.push_back({.name = listed.name, .peer_urls = Texts(listed.peer_urls)});
  }
  discovery.slot_prefix = settings.statefulset;
  const uint16_t port = config.initial_advertise_peer_urls.front().port;
  discovery.slot_urls = [&settings = config.discovery, port](const std::string& name) {
    const Url url{
        fmt::format("{}.{}.{}.svc", name, settings.peer_service, settings.kubernetes_namespace),
        port};
    return std::vector<std::string>{url.Text()};
  };
  discovery.founders_max = settings.max_founders;
  discovery.has_marker = !settings.statefulset.empty() && settings.marker;
  discovery.may_found_alone = config.initial_cluster_is_new;
  discovery.reinitialize = settings.reinitialize;
  return discovery;
}

// A server of many connections needs more files than a shell's usual limit.
void RaiseFileLimit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) spdlog::debug("the file limit stays as it is");
}

}  // namespace

class Server::Running {
 public:
  Running(Config config, std::function<void()> ended);
  ~Running() { network_.Stop(); }

  absl::Status Start();
  void Reload(const Config& now);
  void Stop(std::function<void()> stopped);
  bool Hurry();

 private:
  api::AdminOptions MakeAdminOptions();
  NodeConfig MakeNodeConfig();
  void AddDiscovery(NodeConfig& node) const;
  GrpcNetworkOptions MakeNetworkOptions();
  api::Options MakeApiOptions() const;
  void OnStarted(absl::Status status);
  void AwaitReady();
  void End(std::string_view sentence);
  cluster::DesiredSource* Counted() const;
  cluster::StoppingOptions MakeStoppingOptions() const;
  cluster::StoppingDriver::Parts MakeStoppingParts();
  cluster::Stopping::Facts StoppingFacts();
  void Retreat();
  void Go();
  void StopAll();

  const Config config_;
  const std::function<void()> ended_;
  LogLevel log_level_;  // Of whoever reloads.
  ThreadRuntime runtime_;
  api::Metrics metrics_;
  api::AdminServer admin_;
  GrpcNetwork network_;
  const absl::StatusOr<std::unique_ptr<Platform>> platform_;
  Node node_;

  Mutex mutex_;
  std::condition_variable changed_;
  int64_t quota_bytes_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool node_stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::unique_ptr<api::Services> services_ ABSL_GUARDED_BY(mutex_);

  std::function<void()> stopped_;
  std::optional<absl::Duration> leaderless_since_;  // Of the stopping driver's loop.
  std::unique_ptr<Loop> stop_loop_;
  std::unique_ptr<cluster::StoppingDriver> stopping_driver_;
};

Server::Running::Running(Config config, std::function<void()> ended)
    : config_(std::move(config)),
      ended_(std::move(ended)),
      log_level_(config_.log_level),
      admin_(&runtime_, MakeAdminOptions(), &metrics_),
      network_(&runtime_, MakeNetworkOptions()),
      platform_(Platform::Open(&runtime_, config_.discovery, Variable)),
      node_(runtime_, network_, rocksdb::Env::Default(), MakeNodeConfig()),
      quota_bytes_(config_.quota_backend_bytes),
      stop_loop_(runtime_.NewLoop("stop")) {}

// It is started, and asked, after the node was made.
api::AdminOptions Server::Running::MakeAdminOptions() {
  api::AdminOptions options;
  options.urls = Texts(config_.listen_metrics_urls);
  options.idle = [this] { return !node_.standing().waits.empty(); };
  return options;
}

GrpcNetworkOptions Server::Running::MakeNetworkOptions() {
  GrpcNetworkOptions options;
  options.listen_urls = Texts(config_.listen_peer_urls);
  options.data_dir = config_.data_dir + "/member";
  options.env = rocksdb::Env::Default();
  options.message_bytes_max =
      std::max(options.message_bytes_max, config_.max_request_bytes + kEnvelopeBytes);
  options.version = std::string(api::kKvdVersion);
  options.sent = [this](MemberId peer, uint64_t bytes) { metrics_.PeerSent(peer, bytes); };
  options.received = [this](MemberId peer, uint64_t bytes) { metrics_.PeerReceived(peer, bytes); };
  return options;
}

NodeConfig Server::Running::MakeNodeConfig() {
  const MemoryShares shares = config_.Memory();
  NodeConfig node;
  node.name = config_.name;
  node.data_dir = config_.data_dir;
  for (const ListedMember& listed : config_.initial_cluster) {
    node.initial_cluster.push_back({.name = listed.name, .peer_urls = Texts(listed.peer_urls)});
  }
  node.initial_cluster_token = config_.initial_cluster_token;
  node.initial_cluster_exists = config_.initial_cluster_exists;
  node.peer_urls = Texts(config_.initial_advertise_peer_urls);
  node.client_urls = Texts(config_.advertise_client_urls);
  node.version = std::string(api::kKvdVersion);
  AddDiscovery(node);
  node.tick = config_.heartbeat_interval;
  node.raft.election_ticks = config_.ElectionTicks();
  node.raft.max_log_bytes = shares.log_bytes;
  node.flush_log_bytes = shares.flush_log_bytes;
  node.memtable_bytes = shares.memtable_bytes;
  node.block_cache_bytes = shares.block_cache_bytes;
  node.record_cache_bytes = shares.record_cache_bytes;
  node.state_check_interval = config_.hash_check_interval;
  node.disk_taken = [this] { return network_.Listen(); };
  node.log = [](LineLevel level, std::string_view line) {
    switch (level) {
      case LineLevel::kDebug:
        spdlog::debug("{}", line);
        break;
      case LineLevel::kInfo:
        spdlog::info("{}", line);
        break;
      case LineLevel::kWarn:
        spdlog::warn("{}", line);
        break;
    }
  };
  node.fatal = EndProcess;
  node.metrics = metrics_.ForReplica();
  node.lease_metrics = metrics_.ForLeases();
  return node;
}

void Server::Running::AddDiscovery(NodeConfig& node) const {
  node.discovery = MakeDiscovery(config_);
  if (!node.discovery || !platform_.ok()) return;
  const DiscoveryConfig& discovery = config_.discovery;
  node.desired = (*platform_)->desired();
  node.marker = (*platform_)->marker();
  node.count_decides = Counted() != nullptr;
  node.desired_poll_interval = discovery.desired_poll_interval;
  node.founders_are_kept = true;
  node.upkeep = {.slot_prefix = discovery.statefulset,
                 .stability_window = discovery.stability_window,
                 .unreachable_before_remove = discovery.unreachable_before_remove,
                 .replace_after_inactive = discovery.replace_after_inactive,
                 .standby_learners = discovery.standby_learners,
                 .max_voters = discovery.max_voters,
                 .max_catching_up = discovery.max_catching_up};
}

api::Options Server::Running::MakeApiOptions() const {
  api::Options options;
  options.listen_client_urls = Texts(config_.listen_client_urls);
  options.data_dir = config_.data_dir;
  options.election_timeout = config_.election_timeout;
  options.request_bytes_max = config_.max_request_bytes;
  options.txn_ops_max = config_.max_txn_ops;
  options.quota_bytes = config_.quota_backend_bytes;
  options.learners_max = config_.max_learners;
  options.auto_compaction = {.period = config_.compact_before,
                             .revisions = config_.compact_revisions};
  options.concurrent_streams_max = config_.max_concurrent_streams;
  options.keepalive_min_time = config_.grpc_keepalive_min_time;
  options.keepalive_interval = config_.grpc_keepalive_interval;
  options.keepalive_timeout = config_.grpc_keepalive_timeout;
  options.processors = config_.processors;
  if (const uint64_t limit = config_.memory_limit_bytes; limit != 0) {
    options.memory_bytes_max = std::min<size_t>(options.memory_bytes_max, limit / 8);
    options.range_bytes_max = std::min<size_t>(options.range_bytes_max, limit / 8);
  }
  options.watch_progress_interval = config_.watch_progress_notify_interval;
  return options;
}

absl::Status Server::Running::Start() {
  RETURN_IF_ERROR(platform_.status());
  // Clients are listened to once there is something to serve. A port that cannot be had should not
  // found a cluster first.
  RETURN_IF_ERROR(api::CheckListenUrls(Texts(config_.listen_client_urls)));
  admin_.SetProbes(std::make_shared<api::Probes>(
      [this] { return fmt::format("{}", fmt::join(node_.standing().waits, "; ")); }));
  RETURN_IF_ERROR(admin_.Start());
  node_.Start([this](absl::Status status) { OnStarted(std::move(status)); });
  return absl::OkStatus();
}

void Server::Running::OnStarted(absl::Status status) {
  if (!status.ok()) {
    End(fmt::format("cannot start: {}", Message(status)));
    return;
  }
  auto services = std::make_unique<api::Services>(MakeApiOptions(),
                                                  api::Services::Parts{.runtime = &runtime_,
                                                                       .replica = &node_.replica(),
                                                                       .machine = &node_.machine(),
                                                                       .metrics = &metrics_,
                                                                       .leases = &node_.leases()});
  {
    const MutexLock held(mutex_);
    if (stopping_) return;
    services->SetQuota(quota_bytes_);  // It may have changed since the settings were read.
    status = services->Start();
    services_ = std::move(services);
    if (status.ok()) admin_.SetProbes(services_->probes());
  }
  if (!status.ok()) {
    End(fmt::format("cannot start: {}", Message(status)));
    return;
  }
  admin_.SetStarted();
  AwaitReady();
}

// Reads through the leader until it works once: from then on clients are served in full.
void Server::Running::AwaitReady() {
  node_.replica().Read(kReadyAttempt, [this](ReadResult result) {
    if (result.error == ReplicaError::kStopped) return;
    if (result.error != ReplicaError::kNone) {
      spdlog::info("no leader yet; only serializable reads are served");
      AwaitReady();
      return;
    }
    spdlog::info("ready to serve client requests: name={} client-urls={}", config_.name,
                 fmt::join(Texts(config_.advertise_client_urls), ","));
  });
}

void Server::Running::End(std::string_view sentence) {
  spdlog::critical("{}", sentence);
  ended_();
}

void Server::Running::Reload(const Config& now) {
  if (now.log_level != log_level_) {
    spdlog::info("log-level changes: {} to {}", spdlog::level::to_string_view(LevelOf(log_level_)),
                 spdlog::level::to_string_view(LevelOf(now.log_level)));
    log_level_ = now.log_level;
    spdlog::default_logger()->set_level(LevelOf(log_level_));
  }
  const MutexLock held(mutex_);
  if (now.quota_backend_bytes == quota_bytes_) return;
  spdlog::info("quota-backend-bytes changes: {} to {}", quota_bytes_, now.quota_backend_bytes);
  quota_bytes_ = now.quota_backend_bytes;
  if (services_) services_->SetQuota(quota_bytes_);
}

void Server::Running::Stop(std::function<void()> stopped) {
  stopped_ = std::move(stopped);
  const cluster::StoppingOptions options = MakeStoppingOptions();
  if (!options.waits()) return Go();
  stopping_driver_ = std::make_unique<cluster::StoppingDriver>(MakeStoppingParts(), options);
  stopping_driver_->Start();
}

void Server::Running::Go() {
  {
    const MutexLock held(mutex_);
    stopping_ = true;
  }
  stop_loop_->Post([this] {
    StopAll();
    stopped_();
  });
}

bool Server::Running::Hurry() {
  {
    const MutexLock held(mutex_);
    if (stopping_) return false;
  }
  stopping_driver_->Hurry();
  return true;
}

// By whose word members come and go; null: only by a person's.
cluster::DesiredSource* Server::Running::Counted() const {
  const bool counted = config_.discovery.desired_from != DiscoveryConfig::DesiredFrom::kNone;
  return platform_.ok() && counted ? (*platform_)->desired() : nullptr;
}

cluster::StoppingOptions Server::Running::MakeStoppingOptions() const {
  cluster::StoppingOptions options{.slot = {},
                                   .delay = config_.stop.delay,
                                   .guard_max_wait = config_.stop.guard_max_wait,
                                   .leave_timeout = config_.stop.leave_timeout,
                                   .grace_period = config_.stop.grace_period,
                                   .leaderless_max = 10 * config_.election_timeout};
  if (Counted() != nullptr) {
    options.slot = cluster::SlotNumber(config_.discovery.statefulset, config_.name);
  }
  return options;
}

cluster::StoppingDriver::Parts Server::Running::MakeStoppingParts() {
  return {
      .runtime = &runtime_,
      .desired = Counted(),
      .facts = [this] { return StoppingFacts(); },
      .ask_permit =
          [this](cluster::PermitReason reason, cluster::StoppingDriver::Answered done) {
            node_.AskPermit(reason, std::move(done));
          },
      .ask_leave = [this](cluster::StoppingDriver::Answered done) { node_.Leave(std::move(done)); },
      .log = [](std::string_view line) { spdlog::info("{}", line); },
      .retreat = [this] { Retreat(); },
      .go = [this] { Go(); }};
}

cluster::Stopping::Facts Server::Running::StoppingFacts() {
  cluster::Stopping::Facts facts;
  const MutexLock held(mutex_);
  if (!services_) return facts;
  facts.member = true;
  if (node_.replica().leader() != 0) {
    leaderless_since_.reset();
  } else {
    if (!leaderless_since_) leaderless_since_ = runtime_.Uptime();
    facts.leaderless = runtime_.Uptime() - *leaderless_since_;
  }
  return facts;
}

void Server::Running::Retreat() {
  const MutexLock held(mutex_);
  if (services_) services_->Drain();
}

void Server::Running::StopAll() {
  std::unique_ptr<api::Services> services;
  {
    const MutexLock held(mutex_);
    stopping_ = true;
    services = std::move(services_);
  }
  if (services) {
    services->Drain();
    services->Stop(config_.stop.drain_timeout);
  }
  node_.Stop(kDrainGrace, [this] {
    const MutexLock held(mutex_);
    node_stopped_ = true;
    changed_.notify_all();
  });
  {
    const MutexLock held(mutex_);
    while (!node_stopped_) mutex_.Await(changed_);
  }
  services.reset();
  network_.Stop();
  admin_.Stop();
  spdlog::info("stopped");
}

Server::Server(Config config, std::function<void()> ended) {
  OpenLog(config);
  RaiseFileLimit();
  for (const std::string& warning : config.warnings) spdlog::warn("{}", warning);
  for (const std::string& note : config.debug_notes) spdlog::debug("{}", note);
  spdlog::info("kvd {}: name={} data-dir={} client={} peer={} admin={} {}", api::kKvdVersion,
               config.name, config.data_dir, fmt::join(Texts(config.listen_client_urls), ","),
               fmt::join(Texts(config.listen_peer_urls), ","),
               config.listen_metrics_urls.empty()
                   ? "off"
                   : fmt::format("{}", fmt::join(Texts(config.listen_metrics_urls), ",")),
               WhereTheOthersAre(config));
  running_ = std::make_unique<Running>(std::move(config), std::move(ended));
}

Server::~Server() = default;

absl::Status Server::Start() { return running_->Start(); }

void Server::Reload(const Config& now) { running_->Reload(now); }

void Server::Stop(std::function<void()> stopped) { running_->Stop(std::move(stopped)); }

bool Server::Hurry() { return running_->Hurry(); }

}  // namespace kv

#include "server/node.h"

#include <fmt/format.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "proto/internal/command.pb.h"
#include "server/cluster/claim.h"
#include "server/cluster/hello.h"
#include "server/lease_parts.h"
#include "server/raft/describe.h"
#include "server/replica/forward.h"
#include "server/replica/recovery.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr int kWorkThreads = 2;
constexpr absl::Duration kLockRetry = absl::Seconds(1);
constexpr absl::Duration kLockReport = absl::Seconds(10);
constexpr absl::Duration kWatch = absl::Seconds(1);
constexpr absl::Duration kChangeDeadline = absl::Seconds(5);
// The log's database holds little: what is written there is read at starts only.
constexpr size_t kLogMemtableBytes = size_t{16} << 20;
constexpr size_t kLogBlockCacheBytes = size_t{1} << 20;
// A founded member begins here, on every founder alike (raft::Found).
constexpr Position kFoundingPosition{.index = 1, .term = 1};
// A member that begins with a backup: behind what blank disks begin with, so that whoever joins
// gets a snapshot of the keys and never takes its empty state for this one.
constexpr Position kRestoredPosition{.index = 2, .term = 1};

absl::Status Refuse(std::string_view sentence) {
  return MakeStatus(absl::StatusCode::kFailedPrecondition, "{}", sentence);
}

}  // namespace

std::string RaiseClusterVersion(uint32_t version) {
  kvd::internal::ClusterVersion body;
  body.set_version(version);
  return EncodeCommand(kvd::internal::CLUSTER_VERSION, body.SerializeAsString());
}

Node::Node(Runtime& runtime, Network& network, rocksdb::Env* env, NodeConfig config)
    : runtime_(runtime),
      network_(network),
      env_(env),
      config_(std::move(config)),
      door_(std::make_shared<Door>()),
      loop_(runtime.NewLoop("node")) {
  door_->Open(loop_.get());
}

Node::~Node() {
  if (claim_) claim_->Close();
  if (driver_) driver_->Close();
  door_->Close();
  loop_->Stop();
  state_check_.reset();
  keeper_.reset();
  claim_.reset();
  driver_.reset();
  if (leases_) leases_->Close();
  replica_.reset();
  leases_.reset();
  machine_.reset();
  if (lock_ != nullptr) env_->UnlockFile(lock_);
}

std::string Node::Path(std::string_view name) const {
  return fmt::format("{}/{}", config_.data_dir, name);
}

void Node::Start(absl::AnyInvocable<void(absl::Status) &&> started) {
  loop_->Post([this, started = std::move(started)]() mutable {
    loop_->AssertCurrent();
    started_ = std::move(started);
    if (absl::Status status = CreateDirectories(env_, config_.data_dir); !status.ok()) {
      Answer(std::move(status));
      return;
    }
    TakeLock();
  });
}

void Node::Answer(absl::Status status) {
  if (started_ == nullptr) return;
  const bool contradiction = status.code() == absl::StatusCode::kFailedPrecondition ||
                             status.code() == absl::StatusCode::kDataLoss;
  if (config_.discovery && contradiction) return Halt(std::string(Message(status)));
  if (status.ok()) SetStanding(cluster::State::kMember, {});
  auto started = std::move(started_);
  started_ = nullptr;
  std::move(started)(std::move(status));
}

void Node::TakeLock() {
  if (stopping_) return;
  const std::string path = Path("LOCK");
  const rocksdb::Status locked = env_->LockFile(path, &lock_);
  if (locked.ok()) {
    absl::Status status = ReadWhoThisIs();
    if (status.ok()) status = TakeUpRestore();
    if (status.ok()) status = OpenPorts();
    if (!status.ok()) {
      Answer(std::move(status));
    } else {
      JoinOrFound();
    }
    return;
  }
  lock_ = nullptr;
  // RocksDB opens the file first; only what comes after says that somebody holds it.
  if (locked.ToString().find("open a file for lock") != std::string::npos) {
    Answer(FromRocks(locked, fmt::format("cannot lock {}; check the directory's owner and "
                                         "permissions",
                                         path)));
    return;
  }
  const absl::Duration now = runtime_.Uptime();
  if (!lock_reported_ || now - *lock_reported_ >= kLockReport) {
    lock_reported_ = now;
    Log(LineLevel::kWarn, fmt::format("another process uses the data directory; waiting until it "
                                      "ends: data-dir={}",
                                      config_.data_dir));
  }
  loop_->PostAfter(kLockRetry, [this] {
    loop_->AssertCurrent();
    TakeLock();
  });
}

absl::Status Node::OpenPorts() {
  if (std::exchange(ports_open_, true) || !config_.disk_taken) return absl::OkStatus();
  return config_.disk_taken();
}

absl::Status Node::ReadWhoThisIs() {
  const std::string path = Path("identity");
  ASSIGN_OR_RETURN(std::optional<cluster::Identity> identity, cluster::ReadIdentity(env_, path));
  ASSIGN_OR_RETURN(const bool has_member, FileExists(env_, Path("member")));
  if (!identity && has_member) {
    return Refuse(fmt::format(
        "{} is missing beside {}: this disk holds a member's data, but not who it is; restore the "
        "file, or replace the member: \"kvctl member remove\" and \"kvctl member add\" on a live "
        "member, and start with an empty data directory",
        path, Path("member")));
  }
  if (!identity) {
    identity.emplace();
    const uint64_t high = runtime_.Random();
    const uint64_t low = runtime_.Random();
    identity->node_uuid = cluster::MakeNodeUuid(high, low);
  }
  identity_ = *std::move(identity);
  RETURN_IF_ERROR(CheckSlot());
  switch (identity_.state) {
    case cluster::State::kHalted:
      break;  // Never on a disk.
    case cluster::State::kRemoved:
      if (config_.discovery) {
        ChooseNextUuid();
        break;
      }
      return Refuse(
          fmt::format("this member was removed from its cluster and cannot come back: member={:x} "
                      "cluster={:x}; empty {} and add it as a new one with \"kvctl member add {}\"",
                      identity_.member_id, identity_.cluster_id, config_.data_dir, config_.name));
    case cluster::State::kStale:
      if (config_.discovery) {
        ChooseNextUuid();
        break;
      }
      return Refuse(fmt::format("{} is older than what its member {:x} acknowledged: {}",
                                config_.data_dir, identity_.member_id, WhatStaleNeeds()));
    case cluster::State::kBlank:
    case cluster::State::kPromised:
      if (has_member) {
        return Refuse(
            fmt::format("{} says that this disk is {}, but {} exists; one of them is "
                        "from another disk: restore the right one, or start with an "
                        "empty data directory",
                        path, ToString(identity_.state), Path("member")));
      }
      if (config_.initial_cluster_exists && identity_.state == cluster::State::kPromised) {
        return Refuse(fmt::format(
            "{} has promised to found a cluster, which is not over; finish it with "
            "--initial-cluster-state=new, or empty the data directory to join another cluster",
            path));
      }
      break;
    case cluster::State::kMember:
      RETURN_IF_ERROR(CheckMember());
      break;
  }
  ++identity_.boot_epoch;
  return cluster::WriteIdentity(env_, path, identity_);
}

absl::Status Node::CheckMember() const {
  const bool listed = std::ranges::find(config_.initial_cluster, identity_.name,
                                        &cluster::Listed::name) != config_.initial_cluster.end();
  if (identity_.name != config_.name && listed) {
    return Refuse(
        fmt::format("{} holds the data of member \"{}\", which --initial-cluster lists beside this "
                    "one, \"{}\"; "
                    "correct --data-dir or --name",
                    config_.data_dir, identity_.name, config_.name));
  }
  return absl::OkStatus();
}

// The backup stays until the state that is made of it is durable: a crash before that makes the
// state anew.
absl::Status Node::TakeUpRestore() {
  if (identity_.data_laid) return RemoveRestore(env_, config_.data_dir);
  ASSIGN_OR_RETURN(restore_, FindRestore(env_, config_.data_dir));
  if (!restore_) return absl::OkStatus();
  if (config_.initial_cluster_exists) {
    return Refuse(
        fmt::format("{} holds a backup to be restored, which founds a new cluster; start with "
                    "--initial-cluster-state=new, or empty it to join another cluster",
                    config_.data_dir));
  }
  if (identity_.state == cluster::State::kBlank) return FoundFromBackup();
  const bool begun = identity_.state == cluster::State::kMember && identity_.record &&
                     identity_.record->founders.size() == 1;
  if (begun) return absl::OkStatus();
  return Refuse(fmt::format(
      "{} holds a backup to be restored, and a disk that is {} already; restore into an "
      "empty data directory",
      config_.data_dir, ToString(identity_.state)));
}

// The one founder of a new cluster: whoever else belonged to the old one joins with a blank disk.
absl::Status Node::FoundFromBackup() {
  RETURN_IF_ERROR(VerifySnapshot(env_, restore_->snapshot).status());
  const auto draw = [this] {
    uint64_t id = runtime_.Random();
    while (id == 0) id = runtime_.Random();
    return id;
  };
  cluster::FoundingRecord record;
  record.cluster_id = draw();
  record.attempt = 1;
  record.token_hash = cluster::HashToken(config_.initial_cluster_token);
  record.founders.push_back({.name = config_.name,
                             .node_uuid = identity_.node_uuid,
                             .member_id = draw(),
                             .peer_urls = config_.peer_urls,
                             .client_urls = config_.client_urls});
  identity_.state = cluster::State::kMember;
  identity_.cluster_id = record.cluster_id;
  identity_.member_id = record.founders.front().member_id;
  identity_.name = config_.name;
  identity_.record = std::move(record);
  RETURN_IF_ERROR(cluster::WriteIdentity(env_, Path("identity"), identity_));
  const RestoreOrder& order = restore_->order;
  Log(LineLevel::kInfo,
      fmt::format("founding a cluster from a backup: cluster={:x} member={:x} backup_of={:x} "
                  "revision={} bump={} mark_compacted={}",
                  identity_.cluster_id, identity_.member_id, order.cluster_id, order.revision,
                  order.bump, order.mark_compacted));
  return absl::OkStatus();
}

// A crash between the grant and the first files leaves a member that does not know the others.
bool Node::MustClaim() const {
  if (config_.discovery) return false;
  if (identity_.state == cluster::State::kBlank) return config_.initial_cluster_exists;
  return identity_.state == cluster::State::kMember && !identity_.data_laid && !identity_.record;
}

void Node::JoinOrFound() { MustClaim() ? Join() : Found(); }

void Node::Join() {
  std::vector<std::string> urls;
  for (const cluster::Listed& listed : config_.initial_cluster) {
    if (listed.name == config_.name) continue;
    urls.insert(urls.end(), listed.peer_urls.begin(), listed.peer_urls.end());
  }
  // The disk's uuid must outlive a crash: the record is bound to it.
  claim_ = std::make_unique<cluster::ClaimDriver>(
      cluster::ClaimDriver::Parts{
          .runtime = &runtime_,
          .network = &network_,
          .loop = loop_.get(),
          .log = [this](std::string_view line) { Log(LineLevel::kInfo, line); }},
      cluster::Claim{.name = config_.name,
                     .node_uuid = identity_.node_uuid,
                     .peer_urls = config_.peer_urls,
                     .client_urls = config_.client_urls},
      std::move(urls));
  claim_->Start([this](absl::StatusOr<cluster::ClaimAnswer> answer) {
    loop_->AssertCurrent();
    if (stopping_) return;
    absl::Status taken = answer.ok() ? TakeRecord(*std::move(answer)) : answer.status();
    if (!taken.ok()) return Answer(std::move(taken));
    Found();
  });
}

absl::Status Node::TakeRecord(cluster::ClaimAnswer answer) {
  if (identity_.state == cluster::State::kMember &&
      (identity_.cluster_id != answer.cluster_id || identity_.member_id != answer.member_id)) {
    return Refuse(fmt::format(
        "this disk was granted member {:x} of cluster {:x}, and now member {:x} of cluster {:x}; "
        "list members of the right cluster in --initial-cluster, or empty {}",
        identity_.member_id, identity_.cluster_id, answer.member_id, answer.cluster_id,
        config_.data_dir));
  }
  identity_.state = cluster::State::kMember;
  identity_.cluster_id = answer.cluster_id;
  identity_.member_id = answer.member_id;
  identity_.name = config_.name;
  joined_ = std::move(answer.members);
  return cluster::WriteIdentity(env_, Path("identity"), identity_);
}

void Node::Found() {
  MakeDriver();
  driver_->Start([this](absl::Status founded) {
    loop_->AssertCurrent();
    OnFounded(std::move(founded));
  });
}

void Node::OnFounded(absl::Status founded) {
  if (stopping_) return;
  identity_ = driver_->identity();
  if (driver_->joined()) joined_ = *driver_->joined();
  if (founded.ok()) founded = OpenMember();
  if (founded.ok() && forming_ && !forming_->formed()) return;  // Form answers.
  Answer(std::move(founded));
}

void Node::MakeDriver() {
  cluster::FoundingDriver::Parts parts{
      .runtime = &runtime_,
      .network = &network_,
      .loop = loop_.get(),
      .env = env_,
      .identity_path = Path("identity"),
      .desired = config_.desired,
      .marker = config_.marker,
      .log = [this](std::string_view line) { Log(LineLevel::kInfo, line); },
      .warn = [this](std::string_view line) { Log(LineLevel::kWarn, line); },
      .leader = [this] { return replica_ ? replica_->leader() : MemberId{0}; },
      .begin_anew =
          [this] {
            // The driver is on the stack, and will be another one.
            loop_->Post([this] {
              loop_->AssertCurrent();
              BeginAnew();
            });
          },
      .stands = [this](cluster::State state,
                       const std::vector<std::string>& waits) { SetStanding(state, waits); }};
  driver_ =
      std::make_unique<cluster::FoundingDriver>(std::move(parts), MakeFoundingOptions(), identity_);
}

cluster::FoundingOptions Node::MakeFoundingOptions() const {
  cluster::FoundingOptions options{.name = config_.name,
                                   .list = config_.initial_cluster,
                                   .discovery = config_.discovery,
                                   .peer_urls = config_.peer_urls,
                                   .client_urls = config_.client_urls,
                                   .token_hash = cluster::HashToken(config_.initial_cluster_token),
                                   .config_hash = {},
                                   .version = config_.version,
                                   .machine_version = kMachineVersion};
  if (options.discovery) options.discovery->has_marker = config_.marker != nullptr;
  if (!config_.discovery) {
    options.config_hash =
        cluster::HashConfiguration(config_.initial_cluster_token, config_.initial_cluster);
  }
  return options;
}

absl::StatusOr<std::unique_ptr<LogStore>> Node::OpenLog(bool create) {
  DatabaseOptions options{
      .write_ahead_log = true,
      .memtable_bytes = kLogMemtableBytes,
      .block_cache_bytes = kLogBlockCacheBytes,
      .create_if_missing = create,
      .on_background_error = [this](const absl::Status& status) {
        config_.fatal(fmt::format("the log cannot be written: {}", Message(status)));
      }};
  const std::string path = Path("member/log");
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database,
                   config_.open_database ? config_.open_database(path, options)
                                         : OpenRocksDatabase(env_, path, options));
  return std::make_unique<LogStore>(std::move(database));
}

KvMachineOptions Node::MachineOptions() {
  return {.env = env_,
          .data_dir = Path("member"),
          .memtable_bytes = config_.memtable_bytes,
          .block_cache_bytes = config_.block_cache_bytes,
          .record_cache_bytes = config_.record_cache_bytes,
          .work = [this](absl::AnyInvocable<void()&&> task) { work_loop_->Post(std::move(task)); },
          .on_background_error =
              [this](const absl::Status& status) {
                config_.fatal(fmt::format("the state cannot be written: {}", Message(status)));
              },
          .open_database = config_.open_database,
          .on_leases =
              [this](std::vector<LeaseChange> changes) {
                if (leases_) leases_->OnLeases(std::move(changes));
              }};
}

ReplicaMetrics Node::WatchedMetrics() {
  ReplicaMetrics metrics = config_.metrics;
  metrics.leader_changed = [this, counted = config_.metrics.leader_changed](MemberId leader) {
    if (counted) counted(leader);
    leases_->OnLeadership();
  };
  return metrics;
}

// Before the replica starts: from then on both it and the machine tell what happens.
void Node::KeepLeases() {
  LeaseKeeper::Parts parts = LeaseParts(runtime_, machine_, replica_);
  parts.election_timeout = config_.tick * config_.raft.election_ticks;
  parts.metrics = config_.lease_metrics;
  leases_ = std::make_unique<LeaseKeeper>(std::move(parts));
}

// A member that joined begins with a guess: the log tells it the truth before it has a vote.
raft::Members Node::FirstMembers() const {
  if (!identity_.record) return joined_;
  raft::Members members;
  for (const cluster::Founder& founder : identity_.record->founders) {
    members.voters.push_back(founder.member_id);
    members.records[founder.member_id] = Encode(MemberRecord{.name = founder.name,
                                                             .peer_urls = founder.peer_urls,
                                                             .client_urls = founder.client_urls,
                                                             .node_uuid = founder.node_uuid,
                                                             .kept = config_.founders_are_kept});
  }
  std::ranges::sort(members.voters);
  return members;
}

// Until data_laid is on the disk this member has said nothing, so what a crash left is made anew;
// afterwards a missing log or state is lost data and refused.
absl::Status Node::LayDown() {
  const std::string path = Path("member");
  const Position at = restore_ ? kRestoredPosition : kFoundingPosition;
  RETURN_IF_ERROR(RemoveDirectory(env_, path));
  RETURN_IF_ERROR(CreateDirectory(env_, path));
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<LogStore> log, OpenLog(/*create=*/true));
    ASSIGN_OR_RETURN(const LogStore::Contents contents, log->Load());
    RETURN_IF_ERROR(
        Floor::Open(env_, Path("member/log/FLOOR"),
                    {.cluster_id = identity_.cluster_id, .member_id = identity_.member_id},
                    contents)
            .status());
    LogUpdate begin;
    begin.hard_state = HardState{.term = at.term, .vote = 0};
    begin.reset = at;
    RETURN_IF_ERROR(log->Commit({&begin, 1}));
  }
  RETURN_IF_ERROR(LayDownState(at));
  identity_.data_laid = true;
  RETURN_IF_ERROR(cluster::WriteIdentity(env_, Path("identity"), identity_));
  if (!restore_) return absl::OkStatus();
  restore_.reset();
  return RemoveRestore(env_, config_.data_dir);
}

absl::Status Node::LayDownState(Position at) {
  if (!restore_) return KvMachine::Found(MachineOptions(), at, FirstMembers());
  ASSIGN_OR_RETURN(const Snapshot snapshot, VerifySnapshot(env_, restore_->snapshot));
  return KvMachine::FoundFrom(
      MachineOptions(), at, FirstMembers(), snapshot,
      {.revision_bump = restore_->order.bump, .mark_compacted = restore_->order.mark_compacted});
}

absl::Status Node::OpenMember() {
  if (!work_loop_) work_loop_ = runtime_.NewUnorderedLoop("machine-work", kWorkThreads);
  if (!identity_.data_laid) {
    MARK("node.lay_down");
    RETURN_IF_ERROR(LayDown());
  } else {
    for (const std::string_view part : {"member/log", "member/STATE"}) {
      ASSIGN_OR_RETURN(const bool exists, FileExists(env_, Path(part)));
      if (exists) continue;
      return Refuse(fmt::format(
          "{} is missing: the data of member {:x} is lost, and a member that forgot must not vote; "
          "\"kvctl member remove {:x}\" and \"kvctl member add {}\" on a live member, and start "
          "with "
          "an empty data directory",
          Path(part), identity_.member_id, identity_.member_id, config_.name));
    }
  }
  const absl::Duration begun = runtime_.Uptime();
  ASSIGN_OR_RETURN(std::unique_ptr<LogStore> log, OpenLog(/*create=*/false));
  ASSIGN_OR_RETURN(LogStore::Contents contents, log->Load());
  const Position last = contents.last();
  ASSIGN_OR_RETURN(std::unique_ptr<Floor> floor, Floor::Open(env_, Path("member/log/FLOOR"),
                                                             {.cluster_id = identity_.cluster_id,
                                                              .member_id = identity_.member_id},
                                                             contents));
  ASSIGN_OR_RETURN(machine_, KvMachine::Open(MachineOptions()));
  const raft::Members members = machine_->members();
  // Only founders are in every configuration that their log can show: whoever came later replays
  // those from before its time first, and may be stopped while it does.
  if (identity_.record && !members.IsMember(identity_.member_id) &&
      !members.IsRemoved(identity_.member_id)) {
    return Refuse(
        fmt::format("{} holds the state of a cluster that does not know member {:x}; it "
                    "is from another disk: restore the right one, or replace the member",
                    Path("member"), identity_.member_id));
  }
  ASSIGN_OR_RETURN(raft::Found found, Recover(std::move(contents), *log, *floor, *machine_));
  Log(LineLevel::kInfo, fmt::format("log and state are open: log={} term={} state={} took={}ms",
                                    last.index, found.hard_state.term, found.applied,
                                    absl::ToInt64Milliseconds(runtime_.Uptime() - begun)));

  LocalIdentity self{.cluster_id = identity_.cluster_id,
                     .member_id = identity_.member_id,
                     .name = config_.name,
                     .node_uuid = identity_.node_uuid,
                     .boot_epoch = identity_.boot_epoch,
                     .machine_version = kMachineVersion};
  ReplicaOptions options;
  options.tick = config_.tick;
  options.raft = config_.raft;
  options.inflight_bytes_max = config_.inflight_bytes_max;
  options.flush_log_bytes = config_.flush_log_bytes;
  options.data_dir = Path("member");
  options.raise_cluster_version =
      [machine = machine_.get()](uint32_t version) -> std::optional<std::string> {
    if (machine->cluster_version() >= version) return std::nullopt;
    return RaiseClusterVersion(version);
  };
  Replica::Parts parts;
  parts.runtime = &runtime_;
  parts.network = &network_;
  parts.machine = machine_.get();
  parts.env = env_;
  parts.log_store = std::move(log);
  parts.floor = std::move(floor);
  parts.fatal = config_.fatal;
  parts.noted_of = [machine = machine_.get()](MemberId member) {
    const std::map<MemberId, Index> noted = machine->maintenance().acknowledged;
    const auto at = noted.find(member);
    return at == noted.end() ? Index{0} : at->second;
  };
  parts.found_stale = [this, door = door_](std::string evidence) {
    door->Post([this, evidence = std::move(evidence)] {
      loop_->AssertCurrent();
      EndAsStale(evidence);
    });
  };
  parts.metrics = WatchedMetrics();
  KeepLeases();
  replica_ = std::make_unique<Replica>(std::move(self), std::move(options), std::move(parts),
                                       std::move(found));
  replica_->AnswerAsLeader(kLeaseCall, [this, door = door_](std::string request,
                                                            absl::Duration deadline,
                                                            Network::Answer answer) {
    Caller<absl::StatusOr<std::string>> caller(
        std::move(answer), MakeStatus(absl::StatusCode::kUnavailable, "this member is going away"));
    door->Post(
        [this, deadline, request = std::move(request), caller = std::move(caller)]() mutable {
          leases_->Serve(request, deadline,
                         [caller = std::move(caller)](absl::StatusOr<std::string> result) mutable {
                           caller.Answer(std::move(result));
                         });
        });
  });
  replica_->Start();
  ServeClaims();
  state_check_ = std::make_unique<StateCheck>(
      StateCheck::Parts{.runtime = &runtime_,
                        .network = &network_,
                        .replica = replica_.get(),
                        .machine = machine_.get(),
                        .loop = loop_.get(),
                        .work = work_loop_.get(),
                        .log = [this](std::string_view line) { Log(LineLevel::kWarn, line); }},
      config_.state_check_interval);
  state_check_->Start();
  KeepMembers();
  WatchLater();
  if (config_.discovery) Form();
  return absl::OkStatus();
}

void Node::KeepMembers() {
  cluster::Standing self{.name = config_.name,
                         .node_uuid = identity_.node_uuid,
                         .state = identity_.state,
                         .cluster_id = identity_.cluster_id,
                         .member_id = identity_.member_id,
                         .boot_epoch = identity_.boot_epoch,
                         .record = identity_.record,
                         .token_hash = cluster::HashToken(config_.initial_cluster_token),
                         .config_hash = {},
                         .version = config_.version,
                         .peer_urls = config_.peer_urls,
                         .client_urls = config_.client_urls};
  keeper_ = std::make_unique<MemberKeeper>(
      MemberKeeper::Parts{.runtime = &runtime_,
                          .network = &network_,
                          .replica = replica_.get(),
                          .machine = machine_.get(),
                          .loop = loop_.get(),
                          .desired = config_.count_decides ? config_.desired : nullptr,
                          .log = [this](std::string_view line) { Log(LineLevel::kInfo, line); }},
      MemberKeeper::Options{.upkeep = config_.upkeep,
                            .poll_interval = config_.desired_poll_interval,
                            .note_interval = config_.note_interval,
                            .self = std::move(self)});
  keeper_->Start();
}

// What the membership is to remember of this member. Peer URLs are said once a start: after that an
// operator may have changed them for the next one.
std::string Node::Record(const raft::Members& members) const {
  std::optional<MemberRecord> record = RecordOf(members, identity_.member_id);
  if (!record) record.emplace();
  record->name = config_.name;
  record->client_urls = config_.client_urls;
  record->node_uuid = identity_.node_uuid;
  if (!published_) record->peer_urls = config_.peer_urls;
  return Encode(*record);
}

void Node::WatchLater() {
  loop_->PostAfter(kWatch, [this] {
    loop_->AssertCurrent();
    Watch();
  });
}

void Node::Watch() {
  if (stopping_) return;
  const ReplicaStatus status = replica_->Status();
  if (status.standing.removed || keeper_->removed()) {
    EndAsRemoved();
    return;
  }
  if (!changing_ && status.standing.leader != 0) Publish(status.standing.members);
  if (!changing_ && status.standing.role == raft::Role::kLeader) {
    GiveVote(status.standing.members);
  }
  if (!changing_) keeper_->Tick();
  WatchLater();
}

// Name and URLs may have changed since the last start; the others learn it from the log.
void Node::Publish(const raft::Members& members) {
  const MemberId self = identity_.member_id;
  if (!members.IsMember(self) || members.IsJoint()) return;
  const auto known = members.records.find(self);
  std::string record = Record(members);
  if (known != members.records.end() && known->second == record) {
    published_ = true;
    return;
  }
  const raft::MemberFate fate =
      members.IsVoter(self) ? raft::MemberFate::kVoter : raft::MemberFate::kLearner;
  raft::MemberChange change;
  change.targets.push_back({.id = self, .fate = fate, .record = std::move(record)});
  // Its own role may be changing right now: this must not set it back.
  change.from = members;
  Change(std::move(change),
         fmt::format("publishing this member's name and addresses: name={}", config_.name));
}

void Node::GiveVote(const raft::Members& members) {
  std::optional<raft::MemberChange> change = cluster::NextVoter(members);
  if (!change) return;
  const MemberId id = change->targets.front().id;
  Change(*std::move(change), fmt::format("giving an added voter its vote: member={:x}", id));
}

void Node::Change(raft::MemberChange change, std::string_view what) {
  changing_ = true;
  replica_->ChangeMembers(
      std::move(change), kChangeDeadline,
      [this, door = door_, what = std::string(what)](MembersResult result) {
        door->Post([this, what, result = std::move(result)] {
          loop_->AssertCurrent();
          changing_ = false;
          if (result.error == ReplicaError::kNone) return Log(LineLevel::kInfo, what);
          const std::string_view reason = result.error == ReplicaError::kNotAccepted
                                              ? raft::Describe(result.refusal)
                                              : Describe(result.error);
          Log(LineLevel::kDebug, fmt::format("{} reason={}; trying again", what, reason));
        });
      });
}

void Node::ServeClaims() {
  network_.Handle(
      cluster::kClaimCall,
      [this, door = door_](std::string request, absl::Duration deadline, Network::Answer answer) {
        // A task that is dropped with the loop answers, too.
        ClaimCaller caller(std::move(answer),
                           MakeStatus(absl::StatusCode::kUnavailable, "the member is stopping"));
        door->Post([this, door, deadline, request = std::move(request),
                    caller = std::move(caller)]() mutable {
          loop_->AssertCurrent();
          absl::StatusOr<cluster::Claim> claim = cluster::DecodeClaim(request);
          if (stopping_) return;
          if (!claim.ok()) return caller.Answer(claim.status());
          // What was added and acknowledged anywhere must be seen.
          replica_->Read(deadline, [this, door, deadline, claim = *std::move(claim),
                                    caller = std::move(caller)](ReadResult read) mutable {
            if (read.error != ReplicaError::kNone) {
              return caller.Answer(
                  MakeStatus(absl::StatusCode::kUnavailable, "{}", Describe(read.error)));
            }
            door->Post(
                [this, deadline, claim = std::move(claim), caller = std::move(caller)]() mutable {
                  loop_->AssertCurrent();
                  OnClaim(claim, deadline, std::move(caller));
                });
          });
        });
      });
}

void Node::OnClaim(const cluster::Claim& claim, absl::Duration deadline, ClaimCaller caller) {
  if (stopping_) return;
  raft::Members members = machine_->members();
  if (members.IsJoint()) {
    return caller.Answer(
        MakeStatus(absl::StatusCode::kUnavailable, "the members are changing right now"));
  }
  cluster::ClaimDecision decision = cluster::Decide(members, claim);
  cluster::ClaimAnswer granted{.refusal = std::move(decision.refusal),
                               .cluster_id = identity_.cluster_id,
                               .member_id = decision.member_id,
                               .members = std::move(members)};
  if (!decision.change) return caller.Answer(cluster::EncodeClaimAnswer(granted));
  Log(LineLevel::kInfo, fmt::format("a disk claims the record of member {:x}: name={} uuid={}",
                                    granted.member_id, claim.name, claim.node_uuid));
  replica_->ChangeMembers(
      *std::move(decision.change), deadline,
      [granted = std::move(granted), caller = std::move(caller)](MembersResult result) mutable {
        if (result.error != ReplicaError::kNone) {
          return caller.Answer(
              MakeStatus(absl::StatusCode::kUnavailable, "{}", Describe(result.error)));
        }
        granted.members = std::move(result.members);
        if (!granted.members.IsMember(granted.member_id)) {
          return caller.Answer(
              MakeStatus(absl::StatusCode::kUnavailable, "the member was removed meanwhile"));
        }
        caller.Answer(cluster::EncodeClaimAnswer(granted));
      });
}

void Node::EndAsRemoved() {
  MARK("node.ends_as_removed");
  EndAs(cluster::State::kRemoved,
        fmt::format("this member was removed from its cluster: member={:x} cluster={:x}; it will "
                    "not start again {}{}",
                    identity_.member_id, identity_.cluster_id,
                    config_.discovery ? "as this one in " : "from ", config_.data_dir));
}

void Node::EndAsStale(std::string_view evidence) {
  if (stopping_ || halted_ || identity_.state != cluster::State::kMember) return;
  MARK("node.ends_as_stale");
  EndAs(cluster::State::kStale,
        fmt::format("this disk is older than what its member acknowledged: {}; {}", evidence,
                    WhatStaleNeeds()));
}

std::string Node::WhatStaleNeeds() const {
  if (config_.discovery) {
    return fmt::format(
        "an old copy of it was put back, or it lost what was synced. It takes no part any more; it "
        "joins as another one once a leader takes it in, and what {} holds stays until then",
        config_.data_dir);
  }
  return fmt::format(
      "an old copy of it was put back, or it lost what was synced. It must not vote any more: on a "
      "live member \"kvctl member remove {:x}\" and \"kvctl member add {}\", then start with an "
      "empty data directory instead of {}",
      identity_.member_id, config_.name, config_.data_dir);
}

void Node::EndAs(cluster::State state, std::string sentence) {
  identity_.state = state;
  identity_.formed = false;
  if (config_.discovery) ChooseNextUuid();
  const absl::Status written = cluster::WriteIdentity(env_, Path("identity"), identity_);
  if (!written.ok()) sentence += fmt::format(" (which could not be noted: {})", Message(written));
  config_.fatal(sentence);
}

void Node::Stop(absl::Duration drain, absl::AnyInvocable<void() &&> stopped) {
  loop_->Post([this, drain, stopped = std::move(stopped)]() mutable {
    loop_->AssertCurrent();
    stopping_ = true;
    stopped_ = std::move(stopped);
    if (!replica_ || halted_) {
      Close();
      return;
    }
    replica_->Stop(drain, [this, door = door_] {
      door->Post([this] {
        loop_->AssertCurrent();
        Close();
      });
    });
  });
}

void Node::Close() {
  if (claim_) claim_->Close();
  if (driver_) driver_->Close();
  std::move(stopped_)();
}

}  // namespace kv

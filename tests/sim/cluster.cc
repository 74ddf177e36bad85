#include "tests/sim/cluster.h"

#include <fmt/format.h>
#include <rocksdb/env.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <thread>
#include <utility>

#include "server/cluster/identity.h"
#include "server/kv/kv_machine.h"
#include "server/raft/describe.h"
#include "server/replica/forward.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv::sim {

using kv::Describe;

namespace {

constexpr Position kFounding{.index = 1, .term = 1};
constexpr size_t kTimelineMax = 400;
const std::string kDataDir = "/data";

bool IsSafeToRefuse(const Host& host) {
  return host.rotten || host.retired || host.disk->full() ||
         host.refusal.find("was removed") != std::string::npos;
}

}  // namespace

Cluster::Cluster(const ClusterOptions& options)
    : options_(options),
      delays_(options.delays),
      scheduler_(options.seed),
      wire_(&scheduler_, options.wire),
      judge_([this](MemberId id) { return DiskOf(id); }, options.thorough) {
  spdlog::set_level(spdlog::level::off);  // The timeline says more.
  scheduler_.SetObserver([this](SimLoop& loop) { After(loop); });
  wire_.tap = [this](const raft::Envelope& envelope) {
    judge_.Sent(envelope);
    if (options_.trace_wire) Note(HostOf(envelope.from), "sends " + raft::Describe(envelope));
    return false;
  };
  for (int number = 1; number <= options_.voters; ++number) {
    Host& host = hosts_.emplace_back();
    host.number = number;
    host.name = NameOf(number);
    host.url = fmt::format("http://{}:2380", host.name);
    host.founder = true;
    host.disk = std::make_unique<SimDisk>(&scheduler_, options_.real_rocksdb);
    host.disk->FlushByItself(options_.flush_by_itself_one_in);
  }
}

Cluster::~Cluster() {
  for (Host& host : hosts_) {
    if (host.up()) End(host);
  }
}

// Pods count from 0.
std::string Cluster::NameOf(int number) const {
  return pods() ? fmt::format("kvd-{}", number - 1) : fmt::format("m{}", number);
}

NodeConfig Cluster::ConfigOf(const Host& host, Process* process) {
  NodeConfig config;
  config.name = host.name;
  config.data_dir = kDataDir;
  for (const Host& listed : hosts_) {
    if (host.founder ? listed.founder : &listed == &host) {
      config.initial_cluster.push_back({.name = listed.name, .peer_urls = {listed.url}});
    }
  }
  config.initial_cluster_token = "sim";
  config.peer_urls = {host.url};
  config.client_urls = {"http://" + host.name + ":2379"};
  config.version = "sim";
  config.tick = options_.tick;
  config.raft = options_.raft;
  config.state_check_interval = absl::Nanoseconds(options_.state_check_interval);
  config.note_interval = absl::Nanoseconds(options_.note_interval);
  config.founders_are_kept = pods();
  if (pods()) config.upkeep.slot_prefix = "kvd";
  config.desired = options_.desired;
  config.inflight_bytes_max = options_.inflight_bytes_max;
  config.flush_log_bytes = options_.flush_log_bytes;
  config.record_cache_bytes = size_t{64} << 10;
  config.memtable_bytes = size_t{1} << 20;
  config.block_cache_bytes = size_t{1} << 20;
  config.open_database = host.disk->opener();
  config.log = [this, number = host.number](LineLevel, std::string_view line) {
    if (tracing()) Note(&this->host(number), std::string(line));
  };
  // The process ends at the next event, as soon as nothing of it is on the stack.
  config.fatal = [this, process, number = host.number,
                  thread = std::this_thread::get_id()](std::string_view sentence) {
    // RocksDB's own threads notice that the power is off when they please. The process is ending.
    if (std::this_thread::get_id() != thread) return;
    Host& ending = this->host(number);
    ending.refusal = sentence;
    if (tracing()) Note(&ending, fmt::format("ends: {}", sentence));
    scheduler_.After(0, [this, number, life = process->number] {
      Host& dying = this->host(number);
      if (dying.up() && dying.process->number == life) Crash(dying);
    });
  };
  return config;
}

void Cluster::Start(Host& host) {
  KV_CHECK(!host.up(), "a host runs one process at a time");
  if (tracing()) Note(&host, "starts");
  host.disk->Forget();
  host.refusal.clear();
  host.process = std::make_unique<Process>();
  Process* const process = host.process.get();
  process->number = ++processes_;
  process->host = &host;
  process->runtime = std::make_unique<SimRuntime>(&scheduler_, scheduler_.Draw(), delays_);
  process->runtime->owner = process;
  process->network = std::make_unique<SimNetwork>(&wire_, host.url, host.disk->env(),
                                                  kDataDir + "/member/incoming");
  process->node = std::make_unique<Node>(*process->runtime, *process->network, host.disk->env(),
                                         ConfigOf(host, process));
  process->node->Start([this, process, number = host.number](absl::Status status) {
    Host& started = this->host(number);
    process->started = status;
    if (status.ok()) {
      started.id = process->node->identity().member_id;
      cluster_id_ = process->node->identity().cluster_id;
      return;
    }
    started.refusal = Describe(status);
    if (tracing()) Note(&started, "refused to start: " + started.refusal);
    if (!IsSafeToRefuse(started)) {
      Condemn(fmt::format("{} refuses to start, and nothing is wrong with its disk: {}",
                          started.name, started.refusal));
    }
    if (started.refusal.find("was removed") != std::string::npos) started.retired = true;
    scheduler_.After(0, [this, number, life = process->number] {
      Host& dying = this->host(number);
      if (dying.up() && dying.process->number == life) Crash(dying);
    });
  });
}

// Its disk has been told already that the process is dead, so nothing of this reaches it.
void Cluster::End(Host& host) {
  host.process->network->Close();
  const std::unique_ptr<Process> ending = std::move(host.process);
  ending->hub.reset();
  ending->watch_work.reset();
  ending->node.reset();
}

void Cluster::Crash(Host& host) {
  if (tracing()) Note(&host, "crashes");
  host.disk->KillProcess();
  End(host);
}

void Cluster::PutBack(Host& host, std::unique_ptr<SimDisk> disk) {
  KV_CHECK(!host.up(), "a disk is changed while nobody runs on it");
  if (tracing()) Note(&host, "has an old copy of its disk");
  host.rotten = true;
  // What its last process left in the air may still point to the other one.
  replaced_disks_.push_back(std::exchange(host.disk, std::move(disk)));
}

void Cluster::LosePower(Host& host) {
  if (tracing()) Note(&host, "loses power");
  host.disk->CutPower();
  if (host.up()) End(host);
}

void Cluster::Stop(Host& host, absl::Duration drain) {
  if (std::exchange(host.process->stopping, true)) return Crash(host);
  if (tracing()) Note(&host, "is told to stop");
  host.process->node->Stop(drain, [this, number = host.number, life = host.process->number] {
    scheduler_.After(0, [this, number, life] {
      Host& stopped = this->host(number);
      if (stopped.up() && stopped.process->number == life) Crash(stopped);
    });
  });
}

void Cluster::Found(Time limit) {
  for (Host& host : hosts_) Start(host);
  Await(
      "the founding of a cluster",
      [this] {
        for (Host& host : hosts_) {
          if (!host.up()) Start(host);
          if (!host.serving()) return false;
        }
        return Leader() != nullptr;
      },
      limit);
  judge_.Founded(Leader()->machine().members());
}

WatchHub& Cluster::HubOf(Host& host) {
  Process& process = *host.process;
  if (process.hub == nullptr) {
    process.watch_work = process.runtime->NewUnorderedLoop("watch-work", 2);
    process.hub = std::make_unique<WatchHub>(process.runtime.get(), &host.machine(),
                                             process.watch_work.get(), options_.watch);
  }
  return *process.hub;
}

Host* Cluster::HostOf(MemberId id) {
  for (Host& host : hosts_) {
    if (host.id == id) return &host;
  }
  return nullptr;
}

const SimDisk* Cluster::DiskOf(MemberId id) {
  Host* host = HostOf(id);
  const bool unknown = options_.real_rocksdb || host == nullptr || host->retired || host->rotten;
  return unknown ? nullptr : host->disk.get();
}

Host* Cluster::Leader() {
  Host* leader = nullptr;
  for (Host& host : hosts_) {
    if (!host.serving()) continue;
    const raft::Standing& standing = host.core().standing();
    if (standing.role != raft::Role::kLeader || !standing.established) continue;
    if (leader == nullptr || leader->core().term() < standing.term) leader = &host;
  }
  return leader;
}

Time Cluster::election_timeout() const {
  return absl::ToInt64Nanoseconds(options_.tick) * options_.raft.election_ticks;
}

Host& Cluster::AwaitLeader(Time limit) {
  Await("a leader", [this] { return Leader() != nullptr; }, limit);
  return *Leader();
}

void Cluster::Await(std::string_view what, const std::function<bool()>& happened, Time limit) {
  if (!scheduler_.RunUntil(happened, limit)) CondemnWait(what, limit);
}

void Cluster::AwaitCaughtUp(std::string_view what, const std::function<bool()>& happened,
                            Time limit) {
  const auto applied = [this] {
    uint64_t sum = 0;
    for (Host& host : hosts_) {
      if (host.serving()) sum += host.machine().applied().index;
    }
    return sum;
  };
  uint64_t before = applied();
  while (!scheduler_.RunUntil(happened, limit)) {
    const uint64_t now = applied();
    if (now <= before) CondemnWait(what, limit);
    before = now;
  }
}

void Cluster::CondemnWait(std::string_view what, Time limit) {
  std::string text = fmt::format("waited {} ms in vain for {}", limit / kMillisecond, what);
  for (const Host& host : hosts_) {
    text +=
        fmt::format("; {} {}", host.name,
                    host.serving() ? fmt::format("applied={} {}", host.machine().applied().index,
                                                 raft::Describe(host.core().standing()))
                                   : (host.up() ? "starts" : "is down"));
  }
  Condemn(text);
}

Host& Cluster::AddHost(Host* at) {
  Host& host = hosts_.emplace_back();
  host.number = static_cast<int>(hosts_.size());
  host.name = pods() && at != nullptr ? at->name : NameOf(host.number);
  host.url = at == nullptr ? fmt::format("http://{}:2380", host.name) : at->url;
  host.disk = std::make_unique<SimDisk>(&scheduler_, options_.real_rocksdb);
  host.disk->FlushByItself(options_.flush_by_itself_one_in);
  host.id = scheduler_.Draw() | 1;
  host.uuid = cluster::MakeNodeUuid(host.id, host.id);
  return host;
}

raft::MemberTarget Cluster::TargetFor(const Host& host, raft::MemberFate fate) const {
  raft::MemberTarget target{.id = host.id, .fate = fate, .record = {}};
  if (fate != raft::MemberFate::kRemoved) {
    target.record = Encode(MemberRecord{.name = host.name,
                                        .peer_urls = {host.url},
                                        .client_urls = {"http://" + host.name + ":2379"},
                                        .node_uuid = host.uuid,
                                        .kept = pods()});
  }
  return target;
}

void Cluster::MakeMember(Host& host) {
  const auto must = [](const absl::Status& status) { KV_CHECK(status.ok(), Describe(status)); };
  rocksdb::Env* env = host.disk->env();
  raft::Members members;
  for (Host& other : hosts_) {
    if (other.serving() && other.machine().members().voters.size() > members.voters.size()) {
      members = other.machine().members();
    }
  }
  members.outgoing.clear();
  members.learners_next.clear();
  std::erase(members.voters, host.id);
  if (!members.IsLearner(host.id)) {
    members.learners.insert(
        std::lower_bound(members.learners.begin(), members.learners.end(), host.id), host.id);
  }
  members.records[host.id] = *TargetFor(host, raft::MemberFate::kLearner).record;
  std::erase_if(members.records,
                [&members](const auto& record) { return !members.IsMember(record.first); });

  must(CreateDirectory(env, kDataDir));
  must(CreateDirectory(env, kDataDir + "/member"));
  const std::string log_path = kDataDir + "/member/log";
  DatabaseOptions database;
  database.write_ahead_log = true;
  auto opened = options_.real_rocksdb ? OpenRocksDatabase(env, log_path, database)
                                      : host.disk->opener()(log_path, database);
  must(opened.status());
  {
    LogStore log(*std::move(opened));
    const auto contents = log.Load();
    must(contents.status());
    must(Floor::Open(env, log_path + "/FLOOR", {.cluster_id = cluster_id_, .member_id = host.id},
                     *contents)
             .status());
    LogUpdate begin;
    begin.hard_state = HardState{.term = kFounding.term, .vote = 0};
    begin.reset = kFounding;
    must(log.Commit({&begin, 1}));
  }
  KvMachineOptions machine;
  machine.env = env;
  machine.data_dir = kDataDir + "/member";
  machine.open_database = host.disk->opener();
  must(KvMachine::Found(machine, kFounding, members));
  must(cluster::WriteIdentity(env, kDataDir + "/identity",
                              {.state = cluster::State::kMember,
                               .node_uuid = host.uuid,
                               .boot_epoch = 0,
                               .cluster_id = cluster_id_,
                               .member_id = host.id,
                               .name = host.name,
                               .data_laid = true,
                               .record = std::nullopt,
                               .next_uuid = {}}));
}

void Cluster::CalmLoops() {
  for (size_t kind = 0; kind < kLoopKinds; ++kind) {
    delays_[kind].tail_permille = 0;
    delays_[kind].spread = std::min(delays_[kind].spread, kMillisecond);
    for (Host& host : hosts_) {
      if (host.up()) host.process->runtime->delay(static_cast<LoopKind>(kind)) = delays_[kind];
    }
  }
}

void Cluster::Isolate(const Host& host) {
  for (const Host& other : hosts_) {
    if (&other != &host) CutBetween(host, other);
  }
}

void Cluster::CutBetween(const Host& a, const Host& b) {
  wire_.Cut(a.url, b.url);
  wire_.Cut(b.url, a.url);
}

bool Cluster::SurvivesWithout(const std::vector<const Host*>& lost) {
  const auto whole = [&](MemberId id) {
    const Host* host = HostOf(id);
    return host != nullptr && !host->rotten && !host->retired &&
           std::find(lost.begin(), lost.end(), host) == lost.end();
  };
  if (!raft::IsQuorum(judge_.committed_members(), whole)) return false;
  for (Host& host : hosts_) {
    if (host.rotten || host.retired) continue;
    if (host.serving() && !raft::IsQuorum(host.core().members(), whole)) return false;
    for (const std::string& bytes : host.disk->DurableConfigurations()) {
      const std::optional<raft::Members> members = raft::DecodeMembers(bytes);
      if (members && !raft::IsQuorum(*members, whole)) return false;
    }
  }
  return true;
}

void Cluster::After(SimLoop& loop) {
  auto* const process = static_cast<Process*>(loop.runtime().owner);
  if (!process->serving() || process->host->process.get() != process) return;
  if (loop.kind() == LoopKind::kRaft) {
    const raft::Core& core = process->node->replica().core();
    const raft::Role before = process->life.led ? raft::Role::kLeader : raft::Role::kFollower;
    judge_.AfterRaft(process->life, core, scheduler_.now());
    if (tracing() && process->life.led && before != raft::Role::kLeader) {
      Note(process->host, fmt::format("leads in term {}", core.term()));
    }
  } else if (loop.kind() == LoopKind::kApply) {
    judge_.AfterApply(process->life, process->host->id, process->node->machine());
    if (process->host->dies_adopting) DieIfAdopting(*process);
  }
}

// The machine is ahead of what the core knows to be committed only while it adopts.
void Cluster::DieIfAdopting(const Process& process) {
  if (process.life.applied <= process.node->replica().core().commit()) return;
  process.host->dies_adopting = false;
  scheduler_.After(0, [this, number = process.host->number, life = process.number] {
    Host& dying = this->host(number);
    if (dying.up() && dying.process->number == life) Crash(dying);
  });
}

void Cluster::Note(const Host* host, std::string text) {
  std::string line = fmt::format("{:>10}.{:03} ", scheduler_.now() / kMillisecond,
                                 scheduler_.now() / kMicrosecond % 1000);
  for (const Host& each : hosts_) {
    char mark = '.';
    if (each.retired) {
      mark = 'x';
    } else if (each.up() && !each.serving()) {
      mark = 's';
    } else if (each.up() && each.process->runtime->paused()) {
      mark = 'p';
    } else if (each.up()) {
      const raft::Role role = each.core().standing().role;
      mark = role == raft::Role::kLeader ? 'L' : role == raft::Role::kFollower ? 'f' : 'c';
    }
    line += &each == host ? fmt::format("[{}]", mark) : fmt::format(" {} ", mark);
  }
  if (host != nullptr) text = host->name + " " + text;
  timeline_.push_back(line + "  " + text);
  if (timeline_.size() > kTimelineMax * (options_.trace_wire ? 100 : 1)) timeline_.pop_front();
}

std::string Cluster::Timeline() const {
  std::string text =
      "       ms        one column a host: L leads, f follows, c campaigns, s starts, p paused, "
      ". down, x gone\n";
  for (const std::string& line : timeline_) text += line + "\n";
  return text;
}

}  // namespace kv::sim

#include "tests/sim/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "server/raft/describe.h"
#include "server/replica/forward.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv::sim {

using kv::Describe;

namespace {

// By Fault, as --without names them.
constexpr std::array<std::string_view, kFaults> kFaultNames = {
    "crash",
    "power-loss",
    "power-loss-of-all",
    "restart",
    "pause",
    "hold-log",
    "slow-disk",
    "clock-rate",
    "isolate",
    "cut-one-way",
    "partition",
    "flap",
    "clog",
    "slow-link",
    "heal-wire",
    "fail-sync",
    "full-disk",
    "rot",
    "wipe",
    "add-member",
    "change-member",
    "replace",
    "transfer",
    "stop",
    "die-adopting",
    "transfer-to-newborn",
    "lonely-writer",
};

constexpr size_t kHostsMax = 14;
constexpr size_t kMembersMax = 9;
constexpr Time kChangeDeadline = 4 * kSecond;
// The heartbeats of a dead leader may be on the wire for 5 s; whoever stopped last starts in 2.
constexpr Time kSettled = 7 * kSecond;
constexpr Time kDecided = 60 * kSecond;  // By then every deadline of a client is over.

}  // namespace

std::string_view NameOf(Fault fault) { return kFaultNames[static_cast<size_t>(fault)]; }

std::optional<Fault> FaultNamed(std::string_view name) {
  const auto at = std::find(kFaultNames.begin(), kFaultNames.end(), name);
  if (at == kFaultNames.end()) return std::nullopt;
  return static_cast<Fault>(at - kFaultNames.begin());
}

Swarm DrawSwarm(uint64_t seed) {
  raft::SplitMix64 chance(seed * 0x2545f4914f6cdd1d + 1);
  const auto one_of = [&chance](auto... values) {
    const std::array all = {values...};
    return all[chance.Below(all.size())];
  };
  const auto sometimes = [&chance](uint64_t most) {
    const bool never = chance.Below(3) == 0;
    const uint64_t drawn = 1 + chance.Below(most);
    return never ? 0 : drawn;
  };
  Swarm swarm;
  ClusterOptions& cluster = swarm.cluster;
  cluster.seed = chance.Next();
  cluster.voters = one_of(1, 2, 3, 3, 3, 3, 4, 5, 5, 5, 6, 7);
  cluster.tick = absl::Milliseconds(one_of(20, 50, 100, 100));
  cluster.raft.election_ticks = static_cast<int>(4 + chance.Below(9));
  cluster.raft.heartbeat_ticks = static_cast<int>(1 + chance.Below(2));
  cluster.raft.max_append_bytes = one_of(uint64_t{1}, uint64_t{300}, uint64_t{1} << 20);
  cluster.raft.max_inflight_appends = one_of(size_t{1}, size_t{2}, size_t{64});
  constexpr uint64_t kEntry = 160;  // What a small command costs in the log.
  cluster.raft.max_log_bytes =
      one_of(4 * kEntry, 16 * kEntry, 64 * kEntry, 400 * kEntry, uint64_t{32} << 20);
  cluster.flush_log_bytes =
      std::max<size_t>(kEntry, cluster.raft.max_log_bytes / one_of(size_t{2}, size_t{4}));
  cluster.flush_by_itself_one_in = one_of(uint64_t{0}, uint64_t{10}, uint64_t{100});
  for (size_t kind = 0; kind < kLoopKinds; ++kind) {
    Delay& delay = cluster.delays[kind];
    delay.spread = one_of(5, 50, 500) * kMicrosecond;
    delay.tail_permille = sometimes(10);
    delay.tail = one_of(1, 20, 200) * kMillisecond;
  }
  cluster.delays[static_cast<size_t>(LoopKind::kLog)].spread =
      one_of(50, 500, 2000, 10'000) * kMicrosecond;
  cluster.thorough = one_of(uint64_t{8}, uint64_t{64}, uint64_t{256});

  WireOptions& wire = cluster.wire;
  wire.delay.least = one_of(50, 200, 2000) * kMicrosecond;
  wire.delay.spread = one_of(100, 1000, 20'000) * kMicrosecond;
  wire.delay.tail_permille = sometimes(30);
  wire.delay.tail = one_of(50, 500, 5000) * kMillisecond;
  wire.loss_permille = sometimes(150);
  wire.repeat_permille = sometimes(300);
  wire.ordered = chance.Below(3) == 0;
  wire.snapshot.spread = one_of(10, 200, 2000) * kMillisecond;
  wire.snapshot_cut_permille = sometimes(400);
  wire.lost_answer_permille = sometimes(150);

  WorkloadOptions& work = swarm.workload;
  work.clients = 1 + chance.Below(8);
  work.think.spread = one_of(10, 50, 200) * kMillisecond;
  work.keys = one_of(uint64_t{2}, uint64_t{6}, uint64_t{20}, uint64_t{60});
  work.value_bytes = one_of(uint64_t{4}, uint64_t{20}, uint64_t{200});
  work.deadline.least = one_of(100, 1000, 3000) * kMillisecond;
  work.puts = 10 + chance.Below(60);
  work.deletes = sometimes(20);
  work.ranges = 10 + chance.Below(40);
  work.txns = sometimes(30);
  work.compactions = sometimes(6);
  work.faithful = chance.Below(2) == 0;

  swarm.faults_for = one_of(8, 15, 25) * kSecond;
  swarm.between_faults.spread = one_of(200, 1000, 4000) * kMillisecond;
  const auto weight = [&swarm, &sometimes](Fault fault, uint64_t most) {
    swarm.weights[static_cast<size_t>(fault)] = sometimes(most);
  };
  weight(Fault::kCrash, 20);
  weight(Fault::kPowerLoss, 20);
  weight(Fault::kPowerLossOfAll, 3);
  weight(Fault::kPause, 12);
  weight(Fault::kHoldLog, 10);
  weight(Fault::kSlowDisk, 6);
  weight(Fault::kClockRate, 6);
  weight(Fault::kIsolate, 12);
  weight(Fault::kCutOneWay, 12);
  weight(Fault::kPartition, 12);
  weight(Fault::kFlap, 6);
  weight(Fault::kClog, 8);
  weight(Fault::kSlowLink, 4);
  weight(Fault::kFailSync, 8);
  weight(Fault::kFullDisk, 4);
  weight(Fault::kRot, 2);
  weight(Fault::kWipe, 3);
  weight(Fault::kAddMember, 8);
  weight(Fault::kChangeMember, 12);
  weight(Fault::kReplace, 5);
  weight(Fault::kTransfer, 16);
  weight(Fault::kStop, 5);
  if (chance.Below(50) == 0) {
    // A start takes milliseconds of real time, so these are few and small.
    cluster.real_rocksdb = true;
    cluster.voters = std::min(cluster.voters, 3);
    swarm.faults_for = 6 * kSecond;
    swarm.weights[static_cast<size_t>(Fault::kRot)] = 0;
    swarm.weights[static_cast<size_t>(Fault::kWipe)] = 0;
    swarm.weights[static_cast<size_t>(Fault::kFailSync)] = 0;
    // Threads of its own would meet it at a time that no seed decides.
    swarm.weights[static_cast<size_t>(Fault::kFullDisk)] = 0;
  }
  swarm.weights[static_cast<size_t>(Fault::kRestart)] = 10 + chance.Below(20);
  swarm.weights[static_cast<size_t>(Fault::kHealWire)] = 10 + chance.Below(20);
  // What chance alone hardly ever brings about.
  weight(Fault::kDieAdopting, 8);
  weight(Fault::kTransferToNewborn, 4);
  weight(Fault::kLonelyWriter, 6);
  cluster.state_check_interval = one_of(500, 2000, 60'000) * kMillisecond;
  cluster.note_interval = kSecond;
  work.grants = sometimes(10);
  work.revokes = sometimes(4);
  work.alarms = chance.Below(3) == 0 ? 1 + chance.Below(4) : 0;
  work.leased_permille = one_of(uint64_t{100}, uint64_t{400});
  swarm.watchers.clients = sometimes(3);
  swarm.watchers.keys = work.keys;
  swarm.watchers.room = one_of(size_t{1}, size_t{4}, size_t{100});
  cluster.watch.page_events = one_of(size_t{1}, size_t{3}, size_t{1000});
  cluster.watch.page_bytes = one_of(size_t{1}, size_t{100}, size_t{1} << 20);
  cluster.watch.recent_bytes_max = one_of(size_t{0}, size_t{3000}, size_t{16} << 20);
  cluster.watch.inbox_bytes_max = one_of(size_t{0}, size_t{500}, size_t{16} << 20);
  for (Delay& delay : cluster.delays)
    delay.at_once_permille = one_of(uint64_t{0}, uint64_t{0}, uint64_t{500}, uint64_t{950});
  return swarm;
}

Run::Run(const Swarm& swarm)
    : swarm_(swarm),
      cluster_(swarm.cluster),
      scheduler_(cluster_.scheduler()),
      history_(&cluster_),
      workload_(&cluster_, &history_, swarm.workload),
      watchers_(&cluster_, swarm.watchers) {}

Verdict Run::Judge() {
  // Founding is another story (tests/cluster explores it): here it shall only succeed.
  const WireOptions wild = cluster_.wire().options();
  cluster_.wire().Calm();
  cluster_.Found();
  cluster_.wire().options() = wild;
  workload_.Start();
  watchers_.Start();
  NextFault();
  scheduler_.RunFor(swarm_.faults_for);
  Heal();
  CheckProgress();
  CheckOldDisks();
  CheckLeasesEnd();
  CheckRest();
  CheckContents();
  CheckWatchers();
  Verdict verdict;
  scheduler_.Note(history_.answered());
  scheduler_.Note(cluster_.judge().last_committed());
  verdict.digest = scheduler_.digest();
  verdict.virtual_time = scheduler_.now();
  verdict.operations = history_.answered();
  verdict.events = scheduler_.events();
  verdict.faults = faults_;
  return verdict;
}

void Run::NextFault() {
  scheduler_.After(scheduler_.Draw(swarm_.between_faults), [this] {
    if (!faulty_) return;
    uint64_t total = 0;
    for (const uint64_t weight : swarm_.weights) total += weight;
    uint64_t drawn = scheduler_.Below(total);
    size_t fault = 0;
    while (drawn >= swarm_.weights[fault]) drawn -= swarm_.weights[fault++];
    ++faults_;
    Do(static_cast<Fault>(fault));
    NextFault();
  });
}

Host* Run::DrawUp() {
  Host& host = cluster_.hosts()[scheduler_.Below(cluster_.hosts().size())];
  return host.up() ? &host : nullptr;
}

Host* Run::DrawServing() {
  Host* host = DrawUp();
  return host != nullptr && host->serving() ? host : nullptr;
}

Host* Run::DrawVictim() {
  const bool any = scheduler_.Below(2) == 0;
  Host* leader = any ? nullptr : cluster_.Leader();
  return leader != nullptr ? leader : DrawServing();
}

void Run::RestartLater(Host& host) {
  const Time after = scheduler_.Draw({.least = 10 * kMillisecond,
                                      .spread = 2 * kSecond,
                                      .tail_permille = 100,
                                      .tail = 8 * kSecond});
  scheduler_.After(after, [this, number = host.number] {
    Host& down = cluster_.host(number);
    if (faulty_ && !down.up() && !down.retired) cluster_.Start(down);
  });
}

void Run::Do(Fault fault) {
  switch (fault) {
    case Fault::kCrash:
    case Fault::kPowerLoss: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      const Index last = host->serving() ? host->core().log().last_index() : 0;
      if (fault == Fault::kCrash) {
        cluster_.Crash(*host);
      } else {
        cluster_.LosePower(*host);
      }
      if (last > 0 && !swarm_.cluster.real_rocksdb && !old_disks_.contains(host->number)) {
        old_disks_[host->number] = {.last = last, .disk = host->disk->Copy()};
      }
      if (scheduler_.Below(3) > 0) RestartLater(*host);
      return;
    }
    case Fault::kPowerLossOfAll:
      for (Host& host : cluster_.hosts()) {
        if (host.retired) continue;
        cluster_.LosePower(host);
        RestartLater(host);
      }
      return;
    case Fault::kRestart:
      for (Host& host : cluster_.hosts()) {
        if (!host.up() && !host.retired && scheduler_.Below(2) == 0) cluster_.Start(host);
      }
      return;
    case Fault::kPause: {
      Host* host = DrawVictim();
      if (host == nullptr || host->process->runtime->paused()) return;
      host->process->runtime->Pause();
      if (cluster_.tracing()) cluster_.Note(host, "is paused");
      const Time span = scheduler_.Draw(
          {.least = 0, .spread = 3 * kSecond, .tail_permille = 100, .tail = 8 * kSecond});
      scheduler_.After(span, [this, number = host->number, life = host->process->number] {
        Host& paused = cluster_.host(number);
        if (paused.up() && paused.process->number == life) paused.process->runtime->Continue();
      });
      return;
    }
    case Fault::kHoldLog: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      const auto kind = scheduler_.Below(4) == 0 ? LoopKind::kApply : LoopKind::kLog;
      host->process->runtime->Hold(kind);
      if (cluster_.tracing()) cluster_.Note(host, "has a disk that hangs");
      const Time span = scheduler_.Draw({.least = kMillisecond, .spread = 4 * kSecond});
      const bool then_dies = scheduler_.Below(4) == 0;
      scheduler_.After(
          span, [this, then_dies, kind, number = host->number, life = host->process->number] {
            Host& held = cluster_.host(number);
            if (!held.up() || held.process->number != life) return;
            if (then_dies) {
              cluster_.LosePower(held);
              RestartLater(held);
            } else {
              held.process->runtime->Release(kind);
            }
          });
      return;
    }
    case Fault::kSlowDisk: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      Delay& delay = host->process->runtime->delay(LoopKind::kLog);
      delay.spread = delay.spread < 20 * kMillisecond ? 200 * kMillisecond : kMillisecond;
      return;
    }
    case Fault::kClockRate: {
      Host* host = DrawServing();
      if (host == nullptr) return;
      host->process->runtime->SetClockRate(800 + static_cast<int64_t>(scheduler_.Below(451)));
      return;
    }
    case Fault::kIsolate:
    case Fault::kCutOneWay:
    case Fault::kPartition:
    case Fault::kFlap:
    case Fault::kClog:
    case Fault::kSlowLink:
      return Cut(fault);
    case Fault::kHealWire:
      if (cluster_.tracing()) cluster_.Note(nullptr, "every link is whole again");
      cluster_.wire().Heal();
      return;
    case Fault::kFailSync: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      const bool unheard = scheduler_.Below(2) == 0;
      host->disk->FailNextSync(unheard ? SyncFault::kUnheard : SyncFault::kLost);
      if (cluster_.tracing()) cluster_.Note(host, "has a disk that fails a sync");
      RestartLater(*host);
      return;
    }
    case Fault::kFullDisk: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      host->disk->SetFull(true);
      if (cluster_.tracing()) cluster_.Note(host, "has a full disk");
      const Time span = scheduler_.Draw({.least = 100 * kMillisecond, .spread = 4 * kSecond});
      scheduler_.After(span, [this, number = host->number] {
        Host& full = cluster_.host(number);
        full.disk->SetFull(false);
        RestartLater(full);
      });
      return;
    }
    case Fault::kRot: {
      Host& host = cluster_.hosts()[scheduler_.Below(cluster_.hosts().size())];
      if (host.rotten || host.retired || !MayLose(host)) return;
      if (!host.disk->RotLog()) return;
      host.rotten = true;
      if (cluster_.tracing()) cluster_.Note(&host, "has a disk that rots");
      if (host.up()) cluster_.Crash(host);
      return;
    }
    case Fault::kWipe:
      return Wipe();
    case Fault::kAddMember:
      return AddMember();
    case Fault::kChangeMember:
      return ChangeMember();
    case Fault::kReplace:
      return Replace();
    case Fault::kTransfer: {
      Host* host = DrawVictim();
      Host* to = DrawServing();
      if (host == nullptr || to == nullptr) return;
      const bool to_anybody = scheduler_.Below(3) == 0;
      if (cluster_.tracing()) cluster_.Note(host, "is asked to hand over to " + to->name);
      host->replica().TransferLeadership(to_anybody ? 0 : to->id, absl::Seconds(3),
                                         [](ReplicaError) {});
      return;
    }
    case Fault::kStop: {
      Host* host = DrawVictim();
      if (host == nullptr) return;
      const Time drain = scheduler_.Draw({.least = 0, .spread = 2 * kSecond});
      cluster_.Stop(*host, absl::Nanoseconds(drain));
      RestartLater(*host);
      return;
    }
    case Fault::kDieAdopting: {
      Host& host = cluster_.hosts()[scheduler_.Below(cluster_.hosts().size())];
      host.dies_adopting = true;
      return;
    }
    case Fault::kTransferToNewborn:
      return TransferToNewborn();
    case Fault::kLonelyWriter:
      return LeaveWriterAlone();
  }
}

// A follower that has just come back, before its leader speaks to it, is told to take over.
void Run::TransferToNewborn() {
  Host* leader = cluster_.Leader();
  Host* host = DrawServing();
  if (leader == nullptr || host == nullptr || host == leader) return;
  cluster_.Crash(*host);
  cluster_.Start(*host);
  TransferOnce(*host, 300);
}

void Run::TransferOnce(const Host& newborn, int tries) {
  Host* leader = cluster_.Leader();
  if (leader == nullptr || tries == 0) return;
  if (newborn.serving()) {
    if (cluster_.tracing()) cluster_.Note(leader, "is asked to hand over to " + newborn.name);
    leader->replica().TransferLeadership(newborn.id, absl::Seconds(3), [](ReplicaError) {});
    return;
  }
  scheduler_.After(200 * kMicrosecond, [this, number = newborn.number, tries] {
    TransferOnce(cluster_.host(number), tries - 1);
  });
}

// A leader is cut off while its disk hangs, and takes in what clients and an operator ask: the
// next leader overwrites it, sometimes before the disk is back, sometimes with a snapshot.
void Run::LeaveWriterAlone() {
  Host* leader = cluster_.Leader();
  if (leader == nullptr) return;
  cluster_.Isolate(*leader);
  leader->process->runtime->Hold(LoopKind::kLog);
  if (cluster_.tracing()) cluster_.Note(leader, "is cut off, and its disk hangs");
  // No vote changes hands by this: only where clients find the member.
  raft::MemberChange change;
  change.from = leader->core().members();
  if (change.from->IsVoter(leader->id)) {
    std::optional<MemberRecord> record = DecodeMemberRecord(change.from->records.at(leader->id));
    record->client_urls.push_back("http://elsewhere:2379");
    change.targets.push_back(
        {.id = leader->id, .fate = raft::MemberFate::kVoter, .record = Encode(*record)});
    leader->replica().ChangeMembers(std::move(change), absl::Seconds(3), [](MembersResult) {});
  }
  const Time timeout = cluster_.election_timeout();
  const Time apart = scheduler_.Draw({.least = 2 * timeout, .spread = 4 * timeout});
  const Time hangs = scheduler_.Draw({.least = 0, .spread = 2 * timeout});
  const auto again = [this](Time after, int number, uint64_t life, auto task) {
    scheduler_.After(after, [this, number, life, task] {
      Host& host = cluster_.host(number);
      if (host.up() && host.process->number == life) task(host);
    });
  };
  const int number = leader->number;
  const uint64_t life = leader->process->number;
  for (int i = 0; i < 4; ++i) {
    const Time when = scheduler_.Draw({.least = 0, .spread = timeout});
    again(when, number, life, [this](Host& host) {
      if (!host.serving()) return;
      history_.Issue(host, {.kind = Kind::kPut, .key = "lonely", .value = "l"}, absl::Seconds(8));
    });
  }
  again(apart, number, life, [this](Host&) { cluster_.wire().Heal(); });
  again(apart + hangs, number, life,
        [](Host& host) { host.process->runtime->Release(LoopKind::kLog); });
}

void Run::Cut(Fault fault) {
  std::deque<Host>& hosts = cluster_.hosts();
  Host* victim = DrawVictim();
  if (victim == nullptr || hosts.size() < 2) return;
  const Host& other = hosts[scheduler_.Below(hosts.size())];
  Wire& wire = cluster_.wire();
  if (cluster_.tracing()) {
    cluster_.Note(victim, fmt::format("meets fault {} of its links, with {}",
                                      static_cast<int>(fault), other.name));
  }
  switch (fault) {
    case Fault::kIsolate:
      cluster_.Isolate(*victim);
      return;
    case Fault::kCutOneWay: {
      const bool out = scheduler_.Below(2) == 0;
      const bool all = scheduler_.Below(3) == 0;
      for (const Host& each : hosts) {
        if (!all && &each != &other) continue;
        out ? wire.Cut(victim->url, each.url) : wire.Cut(each.url, victim->url);
      }
      return;
    }
    case Fault::kPartition: {
      const uint64_t sides = scheduler_.Draw();
      for (const Host& a : hosts) {
        for (const Host& b : hosts) {
          if ((sides >> a.number & 1) != (sides >> b.number & 1)) wire.Cut(a.url, b.url);
        }
      }
      return;
    }
    case Fault::kFlap: {
      const uint64_t times = 4 + scheduler_.Below(20);
      Time at = 0;
      for (uint64_t i = 0; i < times; ++i) {
        at += scheduler_.Draw({.least = kMillisecond, .spread = 200 * kMillisecond});
        scheduler_.After(at, [this, i, a = victim->url, b = other.url] {
          if (!faulty_) return;
          i % 2 == 0 ? cluster_.wire().Cut(a, b) : cluster_.wire().Join(a, b);
        });
      }
      return;
    }
    case Fault::kClog: {
      const Time until =
          scheduler_.now() + scheduler_.Draw({.least = kMillisecond, .spread = 3 * kSecond});
      wire.Clog(victim->url, other.url, until);
      return;
    }
    case Fault::kSlowLink: {
      const Time extra = scheduler_.Draw({.least = kMillisecond, .spread = 300 * kMillisecond});
      wire.Slow(victim->url, other.url, extra);
      return;
    }
    default:
      return;
  }
}

// What an operator must see to before he asks: one change at a time, and those who are left can go
// on, whichever of the configurations that may be in force it is made to.
bool Run::KeepsQuorum(const raft::MemberChange& change) {
  if (scheduler_.now() < changing_until_) return false;
  std::vector<raft::Members> from = {cluster_.judge().committed_members()};
  for (const Host& host : cluster_.hosts()) {
    if (host.retired || host.rotten) continue;
    if (host.serving()) from.push_back(host.core().members());
    for (const std::string& bytes : host.disk->DurableConfigurations()) {
      if (auto members = raft::DecodeMembers(bytes)) from.push_back(*std::move(members));
    }
  }
  const auto whole = [this](MemberId id) {
    const Host* host = cluster_.HostOf(id);
    return host != nullptr && !host->rotten && !host->retired;
  };
  bool first = true;
  for (const raft::Members& members : from) {
    const raft::ChangeOutcome outcome =
        raft::PlanChange(members.IsJoint() ? raft::LeaveJoint(members) : members, change);
    if (outcome.refusal != raft::ChangeRefusal::kNone) {
      if (std::exchange(first, false)) return false;
      continue;
    }
    first = false;
    const raft::Members next =
        outcome.next.IsJoint() ? raft::LeaveJoint(outcome.next) : outcome.next;
    if (next.voters.size() > 7 || next.All().size() > kMembersMax) return false;
    if (!raft::IsQuorum(next, whole)) return false;
  }
  return true;
}

// Whether its disk may be lost for ever. A change that may still take effect could count on it.
bool Run::MayLose(const Host& host) {
  return scheduler_.now() >= changing_until_ && cluster_.SurvivesWithout({&host});
}

void Run::Change(raft::MemberChange change, const std::function<void(const MembersResult&)>& done) {
  Host* host = DrawServing();
  if (host == nullptr) return;
  if (cluster_.tracing()) {
    std::string text;
    for (const raft::MemberTarget& target : change.targets) {
      text += fmt::format(" {:x} {}", target.id, static_cast<int>(target.fate));
    }
    cluster_.Note(host, "is asked to change members:" + text);
  }
  changing_until_ = scheduler_.now() + 3 * kChangeDeadline;
  host->replica().ChangeMembers(
      std::move(change), absl::Nanoseconds(kChangeDeadline),
      [this, done, number = ++changes_](const MembersResult& result) {
        // What certainly happened or certainly did not is over.
        if (number == changes_ && result.error != ReplicaError::kUnknown) changing_until_ = 0;
        if (cluster_.tracing()) {
          cluster_.Note(nullptr, fmt::format("the change: {} {}", Describe(result.error),
                                             raft::Describe(result.refusal)));
        }
        if (done) done(result);
      });
}

void Run::AddMember() {
  if (cluster_.hosts().size() >= kHostsMax) return;
  Host* any = DrawServing();
  if (any == nullptr || any->machine().members().voters.empty()) return;
  Host& host = cluster_.AddHost();
  cluster_.MakeMember(host);
  cluster_.Start(host);
  const bool as_voter = scheduler_.Below(4) == 0;
  raft::MemberChange change;
  change.targets.push_back(
      cluster_.TargetFor(host, as_voter ? raft::MemberFate::kVoter : raft::MemberFate::kLearner));
  // A learner more changes no majority, whatever else is under way.
  if (as_voter && !KeepsQuorum(change)) return;
  Change(std::move(change), {});
}

void Run::ChangeMember() {
  Host* leader = cluster_.Leader();
  if (leader == nullptr) return;
  const raft::Members& members = leader->core().members();
  const std::vector<MemberId> all = members.All();
  raft::MemberChange change;
  const uint64_t count = 1 + scheduler_.Below(3);
  std::set<MemberId> named;
  for (uint64_t i = 0; i < count; ++i) {
    const MemberId id = all[scheduler_.Below(all.size())];
    if (!named.insert(id).second) continue;
    const uint64_t fate = scheduler_.Below(4);
    raft::MemberTarget target{.id = id, .fate = raft::MemberFate::kVoter, .record = {}};
    if (fate == 0) target.fate = raft::MemberFate::kRemoved;
    if (fate == 1) target.fate = raft::MemberFate::kLearner;
    // Nobody becomes a voter who is not there: its vote would be missed (replica/README.md).
    const Host* host = cluster_.HostOf(id);
    if (target.fate == raft::MemberFate::kVoter && (host == nullptr || !host->serving())) continue;
    change.targets.push_back(target);
  }
  if (change.targets.empty() || !KeepsQuorum(change)) return;
  Change(std::move(change), {});
}

// One goes, one comes, in one change.
void Run::Replace() {
  if (cluster_.hosts().size() >= kHostsMax) return;
  Host* leader = cluster_.Leader();
  if (leader == nullptr) return;
  const std::vector<MemberId>& voters = leader->core().members().voters;
  const MemberId leaves = voters[scheduler_.Below(voters.size())];
  Host& host = cluster_.AddHost();
  cluster_.MakeMember(host);
  cluster_.Start(host);
  raft::MemberChange change;
  change.targets.push_back({.id = leaves, .fate = raft::MemberFate::kRemoved, .record = {}});
  change.targets.push_back(cluster_.TargetFor(host, raft::MemberFate::kVoter));
  if (!KeepsQuorum(change)) return;
  Change(std::move(change), {});
}

// A disk is lost with everything on it; another comes in its place, under the same address, and the
// old member is removed.
void Run::Wipe() {
  if (cluster_.hosts().size() >= kHostsMax) return;
  Host* victim = DrawVictim();
  if (victim == nullptr || !MayLose(*victim)) return;
  if (cluster_.tracing()) cluster_.Note(victim, "loses its disk");
  cluster_.LosePower(*victim);
  victim->retired = true;
  Host* any = nullptr;
  for (Host& host : cluster_.hosts()) {
    if (host.serving()) any = &host;
  }
  if (any == nullptr) return;
  Host& host = cluster_.AddHost(victim);
  cluster_.MakeMember(host);
  cluster_.Start(host);
  raft::MemberChange change;
  change.targets.push_back({.id = victim->id, .fate = raft::MemberFate::kRemoved, .record = {}});
  change.targets.push_back(cluster_.TargetFor(host, raft::MemberFate::kLearner));
  if (!KeepsQuorum(change)) return;
  Change(std::move(change), {});
}

// The faults stop. Some are dead for ever: as many as every configuration in force can spare.
void Run::Heal() {
  faulty_ = false;
  if (cluster_.tracing()) cluster_.Note(nullptr, "the faults stop");
  // Whoever was held up goes on, and what was asked before is decided: a change that came into
  // force later could count on those who are about to die.
  for (Host& host : cluster_.hosts()) {
    if (host.disk->full()) host.disk->SetFull(false);
    host.disk->FailNextSync(SyncFault::kNone);
    if (!host.up()) continue;
    SimRuntime& runtime = *host.process->runtime;
    runtime.SetClockRate(1000);
    if (runtime.paused()) runtime.Continue();
    for (const LoopKind kind : {LoopKind::kLog, LoopKind::kApply}) {
      if (runtime.held(kind)) runtime.Release(kind);
    }
  }
  cluster_.CalmLoops();
  scheduler_.RunFor(kChangeDeadline + 2 * kSecond);
  cluster_.wire().Calm();
  std::vector<const Host*> dead;
  for (Host& host : cluster_.hosts()) {
    // What RocksDB's log of one that is down says of the members, nobody can tell: all live.
    if (host.retired || host.rotten || swarm_.cluster.real_rocksdb) continue;
    dead.push_back(&host);
    if (scheduler_.Below(2) > 0 || !cluster_.SurvivesWithout(dead)) dead.pop_back();
  }
  for (Host& host : cluster_.hosts()) {
    if (host.retired || host.rotten) continue;
    if (std::find(dead.begin(), dead.end(), &host) != dead.end()) {
      if (host.up()) cluster_.LosePower(host);
      continue;
    }
    if (!host.up()) cluster_.Start(host);
  }
  for (const Host* host : dead) {
    cluster_.host(host->number).retired = true;
    dead_.insert(host->number);
  }
}

// Whoever was being stopped, or just fails a sync that was under way, comes back once more.
void Run::StartFallen() {
  for (Host& host : cluster_.hosts()) {
    if (!host.up() && !host.retired && !host.rotten) cluster_.Start(host);
  }
}

void Run::CheckProgress() {
  const Time timeout = cluster_.election_timeout();
  cluster_.Await(
      "a leader after the faults stopped",
      [&] {
        StartFallen();
        return cluster_.Leader() != nullptr;
      },
      10 * timeout + kSettled);
  workload_.Stop();
  cluster_.Await(
      "the answers to all that was asked",
      [&] {
        StartFallen();
        return history_.open() == 0;
      },
      kDecided);
  LiftAlarms();
  // New requests are served by everybody who is a member.
  OperationId probe = 0;
  cluster_.Await(
      "a write to succeed",
      [&] {
        StartFallen();
        if (probe != 0 && !history_.operation(probe).returned) return false;
        if (probe != 0 && history_.operation(probe).outcome == Outcome::kAnswered) return true;
        Host* leader = cluster_.Leader();
        if (leader == nullptr) return false;
        probe = history_.Issue(*leader, {.kind = Kind::kPut, .key = "probe", .value = "p"},
                               absl::Nanoseconds(20 * timeout));
        return false;
      },
      100 * timeout);
}

// A dead member comes back with what its disk held long ago. Where everybody who serves knows that
// it had acknowledged more, it takes no part; it may also be told that it was removed meanwhile.
void Run::CheckOldDisks() {
  for (auto& [number, old] : old_disks_) {
    Host& host = cluster_.host(number);
    const bool known = std::ranges::all_of(cluster_.hosts(), [&](Host& other) {
      if (!other.serving()) return true;
      const auto acknowledged = other.machine().maintenance().acknowledged;
      const auto at = acknowledged.find(host.id);
      return at != acknowledged.end() && at->second > old.last;
    });
    if (!dead_.contains(number) || !known) continue;
    host.retired = false;
    cluster_.PutBack(host, std::move(old.disk));
    cluster_.Start(host);
    cluster_.Await(
        "an old disk to be found out",
        [&host] {
          return host.refusal.find("is older than what its") != std::string::npos ||
                 host.refusal.find("was removed") != std::string::npos;
        },
        60 * kSecond);
  }
}

// What clients raised, an operator lifts.
void Run::LiftAlarms() {
  OperationId asked = 0;
  cluster_.Await(
      "the alarms to be lifted",
      [&] {
        StartFallen();
        Host* leader = cluster_.Leader();
        if (leader == nullptr || (asked != 0 && !history_.operation(asked).returned)) return false;
        if (leader->machine().applied().index < cluster_.judge().last_committed()) return false;
        const std::vector<RaisedAlarm> alarms = leader->machine().maintenance().alarms;
        if (alarms.empty()) return true;
        Request request{.kind = Kind::kAlarm};
        request.alarm = {.type = static_cast<Alarm::Type>(alarms.front().type),
                         .member = alarms.front().member};
        request.lifts = true;
        asked = history_.Issue(*leader, std::move(request), absl::Seconds(5));
        return false;
      },
      60 * kSecond);
}

// Nobody keeps them any more: each ends a quarter of its time too late at most, by the leader's
// clock, when its leader has been one for an election timeout.
void Run::CheckLeasesEnd() {
  constexpr Time kLongest = 20 * kSecond;
  cluster_.Await(
      "every lease to end",
      [this] {
        StartFallen();
        Host* leader = cluster_.Leader();
        return leader != nullptr && leader->machine().lease_count() == 0;
      },
      kLongest * 5 / 4 + 10 * cluster_.election_timeout() + 10 * kSecond);
}

void Run::CheckWatchers() {
  const Model model = Replayed(history_.operations(), cluster_.judge().Log());
  watchers_.Calm();
  cluster_.Await(
      "the watchers to hear of everything",
      [&] {
        StartFallen();
        return watchers_.AreCurrent(model.events());
      },
      60 * kSecond);
  if (const auto fault = watchers_.Check(model.events(), model.compactions())) Condemn(*fault);
}

// Everybody agrees, nothing is left in any queue, and nobody talks more than there is to say.
void Run::CheckRest() {
  const Time timeout = cluster_.election_timeout();
  const auto agree = [this] {
    Host* leader = cluster_.Leader();
    if (leader == nullptr) return false;
    const raft::Core& core = leader->core();
    if (core.members().IsJoint() || core.commit() != core.log().last_index()) return false;
    for (const MemberId id : core.members().All()) {
      Host* host = cluster_.HostOf(id);
      if (host == nullptr || !host->serving()) {
        if (host == nullptr || host->retired || host->rotten) continue;
        if (!host->up()) cluster_.Start(*host);
        return false;
      }
      if (host->machine().applied().index != core.commit()) return false;
      const ReplicaStatus status = host->replica().Status();
      if (status.proposals_pending != 0 || status.inflight_bytes != 0) return false;
    }
    for (const raft::FollowerStatus& follower : core.Followers()) {
      const Host* host = cluster_.HostOf(follower.id);
      const bool there = host != nullptr && host->serving();
      if (there && follower.in_flight != 0) return false;
    }
    return true;
  };
  cluster_.AwaitCaughtUp("the members to agree and come to rest", agree,
                         100 * timeout + 30 * kSecond);

  // What is still on its way says nothing of those at rest.
  scheduler_.RunFor(10 * timeout);
  const uint64_t before = cluster_.wire().messages();
  const auto sent_before = cluster_.judge().sent();
  const auto led = [this] { return cluster_.Leader() != nullptr; };
  if (!led()) Condemn("a leader is lost although nothing happens");
  const uint64_t members = cluster_.Leader()->core().members().All().size();
  scheduler_.RunFor(20 * timeout);
  const uint64_t ticks = 20 * static_cast<uint64_t>(cluster_.options().raft.election_ticks);
  uint64_t others = 0;  // Removed ones that nobody told: they ask on.
  for (const Host& host : cluster_.hosts()) {
    if (host.up()) ++others;
  }
  const uint64_t most = 100 + ticks * 4 * (members + others);
  if (cluster_.wire().messages() - before <= most) return;
  std::string kinds;
  const auto& sent = cluster_.judge().sent();
  for (size_t kind = 0; kind < sent.size(); ++kind) {
    kinds += fmt::format(" {}", sent[kind] - sent_before[kind]);
  }
  Condemn(fmt::format("{} messages within {} ms at rest, at most {} were due; by kind:{}",
                      cluster_.wire().messages() - before, 20 * timeout / kMillisecond, most,
                      kinds));
}

void Run::CheckContents() {
  const std::vector<Taken> committed = cluster_.judge().Log();
  const Operations& history = history_.operations();
  if (const auto fault = CheckHistory(history, committed)) Condemn(*fault);
  if (const auto fault = CheckLeases(history, committed, history_.renewals())) Condemn(*fault);
  const Model model = Replayed(history, committed);
  const std::vector<Row> rows = model.Rows();
  Host* leader = cluster_.AwaitLeader().up() ? cluster_.Leader() : nullptr;
  std::optional<uint32_t> hash;
  for (const MemberId id : leader->core().members().All()) {
    Host* host = cluster_.HostOf(id);
    if (host == nullptr || !host->serving()) continue;
    if (host->machine().head().revision != model.revision()) {
      if (host->machine().applied().index < cluster_.judge().last_committed()) continue;
      Condemn(fmt::format("{} ends at revision {}, not {}", host->name,
                          host->machine().head().revision, model.revision()));
    }
    etcdserverpb::RangeRequest all;
    all.set_key(std::string(1, '\0'));
    all.set_range_end(std::string(1, '\0'));
    const auto found = host->machine().Range(all);
    KV_CHECK(found.ok(), Describe(found.status()));
    std::vector<Row> held;
    for (const mvccpb::KeyValue& kv : found->kvs()) {
      held.push_back({.key = kv.key(),
                      .value = kv.value(),
                      .create = kv.create_revision(),
                      .mod = kv.mod_revision(),
                      .version = kv.version(),
                      .lease = kv.lease()});
    }
    if (held != rows) Condemn(host->name + " holds other keys than the log makes");
    const auto hashed = host->machine().HashKv(0);
    KV_CHECK(hashed.ok(), Describe(hashed.status()));
    if (!hash) hash = hashed->hash();
    if (*hash != hashed->hash()) Condemn(host->name + " hashes its history to something else");
  }
}

}  // namespace kv::sim

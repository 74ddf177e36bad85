#include "tests/sim/pods.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/cluster/hello.h"
#include "storage/status.h"

namespace kv::sim {

using kv::Describe;

namespace {

constexpr Time kTick = kSecond;
constexpr Time kPatienceToLeave = 45 * kSecond;
constexpr Time kPatienceForPermit = 120 * kSecond;
// Without a leader for so many election timeouts there is nobody to ask.
constexpr int kLeaderlessTimeouts = 10;
constexpr absl::Duration kDrain = absl::Seconds(2);

}  // namespace

Pods::Pods(Cluster* cluster, SimDesired* desired) : cluster_(cluster), desired_(desired) {
  for (Host& host : cluster_->hosts()) pods_[count_++].host = &host;
  desired_->says.count = count_;
  TickLater();
}

Pods::~Pods() { *alive_ = false; }

void Pods::TickLater() {
  cluster_->scheduler().After(kTick, [this, alive = alive_] {
    if (!*alive) return;
    for (auto& [slot, pod] : pods_) Tick(slot, pod);
    size_t stopped = 0;
    for (auto& [slot, pod] : pods_) {
      if (pod.stopped) ++stopped;
    }
    most_stopped_ = std::max(most_stopped_, stopped);
    TickLater();
  });
}

void Pods::Scale(uint64_t count) {
  count_ = count;
  const Time now = cluster_->scheduler().now();
  for (uint64_t slot = 0; slot < count; ++slot) {
    Pod& pod = pods_[slot];
    // Whoever was told to leave ends first and is started then.
    if (pod.phase == Phase::kGone) pod.phase = Phase::kRuns;
  }
  for (auto& [slot, pod] : pods_) {
    if (slot < count || pod.phase == Phase::kGone || pod.phase == Phase::kLeaves) continue;
    // A count of 0 is no reason to leave.
    pod.phase = count == 0 ? Phase::kGone : Phase::kLeaves;
    pod.since = now;
    pod.joins.reset();
    if (count == 0 && pod.host != nullptr && pod.host->up()) StopNow(pod);
  }
}

Host* Pods::HostOf(uint64_t slot) { return pods_.at(slot).host; }

void Pods::Kill(uint64_t slot) {
  Pod& pod = pods_.at(slot);
  if (pod.host != nullptr && pod.host->up()) cluster_->Crash(*pod.host);
}

void Pods::LoseVolume(uint64_t slot) {
  Pod& pod = pods_.at(slot);
  Host* const lost = pod.host;
  if (cluster_->tracing()) cluster_->Note(lost, "loses its volume");
  cluster_->LosePower(*lost);
  lost->retired = true;
  pod.phase = slot < count_ ? Phase::kRuns : Phase::kGone;
  GiveDisk(slot, pod, lost);
}

void Pods::Restart(uint64_t slot, cluster::PermitReason reason) {
  Pod& pod = pods_.at(slot);
  if (pod.phase != Phase::kRuns) return;
  pod.phase = Phase::kAsksPermit;
  pod.reason = reason;
  pod.since = cluster_->scheduler().now();
}

void Pods::GiveDisk(uint64_t slot, Pod& pod, Host* before) {
  pod.joins.reset();
  pod.stopped = false;
  Host& host = cluster_->AddHost(before);
  host.name = fmt::format("kvd-{}", slot);
  host.url = fmt::format("http://{}:2380", host.name);
  host.id = 0;
  pod.host = &host;
}

void Pods::Tick(uint64_t slot, Pod& pod) {
  if (pod.phase == Phase::kGone) return;
  if (pod.phase == Phase::kRuns) {
    if (!pod.kept_down) Run(slot, pod);
    return;
  }
  const bool serves = pod.host != nullptr && pod.host->serving();
  if (serves && absl::ToInt64Nanoseconds(pod.host->replica().leaderless()) >
                    kLeaderlessTimeouts * cluster_->election_timeout()) {
    if (pod.phase == Phase::kAsksPermit) pod.phase = Phase::kRuns;
    return StopNow(pod);
  }
  if (pod.phase == Phase::kAsksPermit) {
    if (!serves) pod.phase = Phase::kRuns;  // It ended by itself.
    if (serves && !pod.asking) AskPermit(slot, pod);
    return;
  }
  if (!serves) {
    if (pod.host != nullptr && pod.host->up()) return;  // It starts, and hears of it then.
    pod.phase = slot < count_ ? Phase::kRuns : Phase::kGone;
    return;
  }
  if (!pod.asking) AskToLeave(slot, pod);
}

void Pods::Run(uint64_t slot, Pod& pod) {
  if (pod.host != nullptr && pod.host->serving()) pod.stopped = false;
  if (pod.host == nullptr) GiveDisk(slot, pod, nullptr);
  // A removed member's disk is moved aside.
  if (pod.host->retired) GiveDisk(slot, pod, pod.host);
  if (pod.host->up()) return;
  if (pod.host->id != 0) return cluster_->Start(*pod.host);
  AskToJoin(slot, pod);
}

void Pods::AskToJoin(uint64_t slot, Pod& pod) {
  Host* const host = pod.host;
  if (pod.joins == nullptr) {
    pod.joins = std::make_unique<SimNetwork>(&cluster_->wire(), host->url, host->disk->env(), "");
    pod.joins->Handle(cluster::kHelloCall,
                      [name = host->name, uuid = host->uuid](std::string, absl::Duration,
                                                             Network::Answer answer) {
                        cluster::Standing standing;
                        standing.name = name;
                        standing.node_uuid = uuid;
                        std::move(answer)(cluster::EncodeHelloAnswer(standing));
                      });
  }
  std::vector<const Host*> others;
  for (const auto& [other, at] : pods_) {
    if (other != slot && at.host != nullptr && at.host->serving()) others.push_back(at.host);
  }
  if (others.empty()) return;
  const Host* asked = others[cluster_->scheduler().Below(others.size())];
  const cluster::JoinRequest request{.name = host->name,
                                     .node_uuid = host->uuid,
                                     .peer_urls = {host->url},
                                     .client_urls = {"http://" + host->name + ":2379"},
                                     .version = "sim",
                                     .machine_version = kMachineVersion,
                                     .token_hash = cluster::HashToken("sim"),
                                     .slot = slot};
  pod.joins->Call(asked->url, cluster::kJoinCall, Encode(request), absl::Seconds(5),
                  [this, alive = alive_, slot, host](absl::StatusOr<std::string> answer) {
                    if (*alive) OnJoinAnswered(slot, host, answer);
                  });
}

void Pods::OnJoinAnswered(uint64_t slot, const Host* host,
                          const absl::StatusOr<std::string>& answer) {
  Pod& pod = pods_.at(slot);
  if (pod.host != host || pod.host->id != 0 || pod.joins == nullptr) return;
  const absl::StatusOr<cluster::JoinAnswer> decoded =
      answer.ok() ? cluster::DecodeJoinAnswer(*answer)
                  : absl::StatusOr<cluster::JoinAnswer>(answer.status());
  if (!decoded.ok() || decoded->kind != cluster::JoinAnswer::Kind::kGranted) {
    if (cluster_->tracing()) {
      cluster_->Note(host, "does not join yet: " +
                               (decoded.ok() ? decoded->sentence : Describe(decoded.status())));
    }
    return;
  }
  // Its network is this very caller's: it goes with the next event.
  cluster_->scheduler().After(0, [this, alive = alive_, slot, host, id = decoded->member_id] {
    if (!*alive) return;
    Pod& joined = pods_.at(slot);
    if (joined.host != host || joined.host->id != 0) return;
    joined.joins.reset();
    joined.host->id = id;
    cluster_->MakeMember(*joined.host);
    if (joined.phase == Phase::kRuns) cluster_->Start(*joined.host);
  });
}

void Pods::StopNow(Pod& pod) {
  pod.stopped = true;
  cluster_->Stop(*pod.host, kDrain);
}

void Pods::AskPermit(uint64_t slot, Pod& pod) {
  if (cluster_->scheduler().now() - pod.since >= kPatienceForPermit) {
    ++impatient_;
    pod.phase = Phase::kRuns;
    return StopNow(pod);
  }
  pod.asking = true;
  pod.host->process->node->AskPermit(
      pod.reason, [this, alive = alive_, slot, host = pod.host](absl::StatusOr<std::string> why) {
        if (!*alive) return;
        cluster_->scheduler().After(0, [this, alive, slot, host, why = std::move(why)] {
          if (!*alive) return;
          Pod& asked = pods_.at(slot);
          asked.asking = false;
          if (asked.host != host || !host->serving() || asked.phase != Phase::kAsksPermit) return;
          if (cluster_->tracing()) {
            cluster_->Note(host, "permit to stop: " + (why.ok() ? *why : Describe(why.status())));
          }
          if (!why.ok() || !why->empty()) return;
          ++permits_;
          asked.phase = Phase::kRuns;  // Started again once it has ended.
          StopNow(asked);
        });
      });
}

void Pods::AskToLeave(uint64_t slot, Pod& pod) {
  if (cluster_->scheduler().now() - pod.since >= kPatienceToLeave) {
    ++impatient_;
    return StopNow(pod);
  }
  pod.asking = true;
  pod.host->process->node->Leave(
      [this, alive = alive_, slot, host = pod.host](absl::StatusOr<std::string> why) {
        if (!*alive) return;
        cluster_->scheduler().After(0, [this, alive, slot, host, why = std::move(why)] {
          if (!*alive) return;
          Pod& asked = pods_.at(slot);
          asked.asking = false;
          if (asked.host != host || !host->serving() || asked.phase != Phase::kLeaves) return;
          if (cluster_->tracing()) {
            cluster_->Note(host, "leaves: " + (why.ok() ? *why : Describe(why.status())));
          }
          if (!why.ok() || !why->empty()) return;
          host->retired = true;
          cluster_->Stop(*host, kDrain);
        });
      });
}

bool Pods::AreAsWanted() {
  Host* leader = cluster_->Leader();
  if (leader == nullptr) return false;
  const raft::Members& members = leader->core().members();
  if (members.IsJoint() || !members.learners.empty() || members.voters.size() != count_) {
    return false;
  }
  for (uint64_t slot = 0; slot < count_; ++slot) {
    const Host* host = pods_.at(slot).host;
    if (pods_.at(slot).phase != Phase::kRuns) return false;  // It was told to end.
    if (host == nullptr || !host->serving() || !members.IsVoter(host->id)) return false;
    const raft::Standing& standing = host->core().standing();
    if (standing.members != members || !standing.members_committed) return false;
  }
  return true;
}

}  // namespace kv::sim

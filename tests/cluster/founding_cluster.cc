#include "tests/cluster/founding_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/cluster/hello.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

std::vector<Listed> ListOf(const FoundingCluster::Names& names) {
  std::vector<Listed> list;
  for (const std::string& name : names) {
    list.push_back({.name = name, .peer_urls = {"http://" + name + ":2380"}});
  }
  std::ranges::sort(list, {}, &Listed::name);
  return list;
}

std::string_view ToString(Founding::Ask::Kind kind) {
  switch (kind) {
    case Founding::Ask::Kind::kHello:
      return "hello";
    case Founding::Ask::Kind::kPrepare:
      return "prepare";
    case Founding::Ask::Kind::kCommit:
      return "commit";
  }
  return "?";
}

}  // namespace

void FoundingCluster::Start(const std::string& name, const Flags& flags) {
  KV_CHECK(!Runs(name));
  effects_left_.erase(name);
  halted_.erase(name);
  if (!disks_.contains(name)) {
    const uint64_t high = random_.Next();
    Identity blank;
    blank.node_uuid = MakeNodeUuid(high, random_.Next());
    disks_[name] = {.identity = blank, .bytes = EncodeIdentity(blank)};
  }
  Disk& disk = disks_.at(name);
  Identity identity = DecodeIdentity(disk.bytes, name).value();
  ++identity.boot_epoch;
  Persist(name, identity);
  std::vector<Listed> list = ListOf(flags.list);
  FoundingOptions options{.name = name,
                          .list = list,
                          .client_urls = {"http://" + name + ":2379"},
                          .token_hash = HashToken(flags.token),
                          .config_hash = HashConfiguration(flags.token, list),
                          .version = "test"};
  Process process{.flags = flags, .founding = {}, .life = ++lives_};
  process.founding = std::make_unique<Founding>(options, identity, random_.Next());
  processes_[name] = std::move(process);
}

void FoundingCluster::Crash(const std::string& name) { processes_.erase(name); }

void FoundingCluster::Wipe(const std::string& name) {
  KV_CHECK(!Runs(name));
  const auto at = disks_.find(name);
  if (at == disks_.end()) return;
  wiped_.insert(at->second.identity.node_uuid);
  disks_.erase(at);
}

void FoundingCluster::Cut(const std::string& one, const std::string& other) {
  cuts_.insert({one, other});
  cuts_.insert({other, one});
}

const Founding* FoundingCluster::process(const std::string& name) const {
  const auto at = processes_.find(name);
  return at == processes_.end() ? nullptr : at->second.founding.get();
}

std::optional<std::string> FoundingCluster::halted(const std::string& name) const {
  const auto at = halted_.find(name);
  if (at == halted_.end()) return std::nullopt;
  return at->second;
}

void FoundingCluster::Tick(const std::string& name) {
  if (Runs(name)) Carry(name, processes_.at(name).founding->Tick(), nullptr);
}

void FoundingCluster::Drop(size_t packet) {
  packets_.erase(packets_.begin() + static_cast<std::ptrdiff_t>(packet));
}

void FoundingCluster::Double(size_t packet) {
  const Packet copy = packets_.at(packet);
  packets_.push_back(copy);
}

void FoundingCluster::Deliver(size_t index) {
  const Packet packet = packets_.at(index);
  Drop(index);
  const auto at = processes_.find(packet.to);
  const bool cut = !packet.is_failure && cuts_.contains({packet.from, packet.to});
  if (at == processes_.end() || cut) {
    if (!packet.is_answer) Fail(packet);
    return;
  }
  Founding& founding = *at->second.founding;
  if (packet.is_answer) {
    if (at->second.life != packet.life) return;
    if (packet.is_failure) {
      const absl::Status refused = MakeStatus(absl::StatusCode::kUnavailable, "connection refused");
      if (packet.ask.kind == Founding::Ask::Kind::kHello) {
        Carry(packet.to, founding.HelloAnswered(packet.from, packet.ask.round, refused), nullptr);
      } else if (packet.ask.kind == Founding::Ask::Kind::kPrepare) {
        Carry(packet.to, founding.PrepareAnswered(packet.from, *packet.ask.record, refused),
              nullptr);
      }
      return;
    }
    switch (packet.ask.kind) {
      case Founding::Ask::Kind::kHello:
        Carry(packet.to,
              founding.HelloAnswered(packet.from, packet.ask.round,
                                     DecodeHelloAnswer(EncodeHelloAnswer(packet.standing))),
              nullptr);
        return;
      case Founding::Ask::Kind::kPrepare:
        Carry(packet.to, founding.PrepareAnswered(packet.from, *packet.ask.record, *packet.refusal),
              nullptr);
        return;
      case Founding::Ask::Kind::kCommit:
        return;
    }
  }
  switch (packet.ask.kind) {
    case Founding::Ask::Kind::kHello:
      Carry(packet.to, founding.HelloAsked(packet.standing), &packet);
      return;
    case Founding::Ask::Kind::kPrepare:
      Carry(packet.to, founding.PrepareAsked(*packet.ask.record), &packet);
      return;
    case Founding::Ask::Kind::kCommit:
      Carry(packet.to, founding.CommitAsked(*packet.ask.record), &packet);
      return;
  }
}

void FoundingCluster::Fail(const Packet& packet) {
  Packet failure = packet;
  failure.from = packet.to;
  failure.to = packet.from;
  failure.is_answer = true;
  failure.is_failure = true;
  // The network's own word crosses no cut.
  packets_.push_back(std::move(failure));
}

bool FoundingCluster::Effect(const std::string& name) {
  if (!Runs(name)) return false;
  const auto at = effects_left_.find(name);
  if (at == effects_left_.end()) return true;
  if (at->second-- > 0) return true;
  events_.push_back(name + ": crashed");
  Crash(name);
  return false;
}

void FoundingCluster::Carry(const std::string& name, Founding::Output output, const Packet* asked) {
  if (output.persist) {
    if (!Effect(name)) return;
    Persist(name, *output.persist);
  }
  if (asked != nullptr) {
    if (!Effect(name)) return;
    Packet answer = *asked;
    answer.from = name;
    answer.to = asked->from;
    answer.is_answer = true;
    answer.refusal = output.refusal;
    answer.standing = StandingOf(processes_.at(name));
    if (output.refusal && !output.refusal->empty()) {
      events_.push_back(
          fmt::format("{}: refuses {}: {}", name, ToString(asked->ask.kind), *output.refusal));
    }
    packets_.push_back(std::move(answer));
  }
  for (Founding::Ask& ask : output.asks) {
    if (!Effect(name)) return;
    const Process& process = processes_.at(name);
    packets_.push_back({.from = name,
                        .to = ask.to,
                        .ask = std::move(ask),
                        .standing = StandingOf(process),
                        .is_answer = false,
                        .refusal = {},
                        .life = process.life});
  }
  if (output.halt) {
    halted_[name] = *output.halt;
    events_.push_back(fmt::format("{}: halts: {}", name, *output.halt));
    Crash(name);
  }
}

void FoundingCluster::Persist(const std::string& name, const Identity& identity) {
  Disk& disk = disks_.at(name);
  CheckStep(disk.identity, identity);
  if (identity.state != disk.identity.state ||
      (identity.record && identity.record != disk.identity.record)) {
    const std::string which = identity.record ? " " + NameOf(identity.record->cluster_id) : "";
    events_.push_back(fmt::format("{}: {}{}", name, cluster::ToString(identity.state), which));
  }
  disk.identity = identity;
  disk.bytes = EncodeIdentity(identity);
}

void FoundingCluster::CheckStep(const Identity& before, const Identity& after) {
  const auto law = [this](bool holds, const char* text) {
    if (!holds && broken_.empty()) broken_ = text;
  };
  law(after.node_uuid == before.node_uuid, "a disk keeps its uuid");
  law(after.boot_epoch >= before.boot_epoch, "the boot epoch never goes down");
  law(after.state >= before.state, "a disk never goes back");
  if (before.state == State::kMember) {
    law(after.cluster_id == before.cluster_id && after.member_id == before.member_id,
        "a member stays the member it is");
  }
  if (after.state == State::kPromised) {
    promised_by_[after.record->cluster_id].insert(after.node_uuid);
  }
  if (after.state != State::kMember || before.state == State::kMember) return;
  const FoundingRecord& record = *after.record;
  // The coordinator's own promise and membership may be one write.
  if (record.founders.size() == 1) promised_by_[record.cluster_id].insert(after.node_uuid);
  for (const Founder& founder : record.founders) {
    law(promised_by_[record.cluster_id].contains(founder.node_uuid),
        "a member exists only after every founder promised");
  }
  for (const auto& [cluster_id, other] : members_of_) {
    if (cluster_id == record.cluster_id) {
      law(other == record, "all members know one founding record");
      continue;
    }
    const bool all_emptied = std::ranges::all_of(other.founders, [this](const Founder& founder) {
      return wiped_.contains(founder.node_uuid);
    });
    law(all_emptied, "a second cluster is founded only when every disk of the first is gone");
  }
  members_of_[record.cluster_id] = record;
}

std::string FoundingCluster::NameOf(uint64_t cluster_id) {
  if (cluster_id == 0) return "none";
  auto at = std::ranges::find(named_, cluster_id);
  if (at == named_.end()) at = named_.insert(named_.end(), cluster_id);
  return fmt::format("F{}", at - named_.begin() + 1);
}

std::string FoundingCluster::DescribePacket(const Packet& packet) {
  std::string text = fmt::format("{}->{} {}{}", packet.from, packet.to, ToString(packet.ask.kind),
                                 packet.is_answer ? "-answer" : "");
  if (packet.ask.record) text += " " + NameOf(packet.ask.record->cluster_id);
  if (packet.is_answer && packet.ask.kind == Founding::Ask::Kind::kHello) {
    text += fmt::format(" {}",
                        packet.is_failure ? "failure" : cluster::ToString(packet.standing.state));
  }
  if (packet.refusal) text += packet.refusal->empty() ? " granted" : " refused";
  return text;
}

std::vector<std::string> FoundingCluster::TakeEvents() { return std::exchange(events_, {}); }

}  // namespace kv::cluster

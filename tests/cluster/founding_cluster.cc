#include "tests/cluster/founding_cluster.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/cluster/hello.h"
#include "server/cluster/join.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

std::vector<std::string> UrlsOf(const std::string& name) { return {"http://" + name + ":2380"}; }

std::vector<Listed> ListOf(const FoundingCluster::Names& names) {
  std::vector<Listed> list;
  for (const std::string& name : names) list.push_back({.name = name, .peer_urls = UrlsOf(name)});
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
    case Founding::Ask::Kind::kJoin:
      return "join";
  }
  return "?";
}

std::string_view ToString(FoundingCluster::Outside outside) {
  switch (outside) {
    case FoundingCluster::Outside::kNone:
      break;
    case FoundingCluster::Outside::kReadMarker:
      return "read-marker";
    case FoundingCluster::Outside::kWriteMarker:
      return "write-marker";
    case FoundingCluster::Outside::kReadDesired:
      return "read-desired";
  }
  return "?";
}

std::string_view ToString(Marker::Phase phase) {
  switch (phase) {
    case Marker::Phase::kNone:
      return "none";
    case Marker::Phase::kForming:
      return "forming";
    case Marker::Phase::kFormed:
      return "formed";
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
  Process process{.flags = flags, .founding = {}, .forming = {}, .life = ++lives_};
  process.founding =
      std::make_unique<Founding>(OptionsOf(SlotOf(name), flags), identity, random_.Next());
  processes_[name] = std::move(process);
}

FoundingOptions FoundingCluster::OptionsOf(const std::string& name, const Flags& flags) const {
  std::vector<Listed> list = ListOf(flags.list);
  FoundingOptions options;
  options.name = name;
  options.peer_urls = UrlsOf(name);
  options.client_urls = {"http://" + name + ":2379"};
  options.token_hash = HashToken(flags.token);
  options.version = "test";
  if (flags.mode == Flags::Mode::kList) {
    std::ranges::sort(list, {}, &Listed::name);
    options.config_hash = HashConfiguration(flags.token, list);
    options.list = std::move(list);
    return options;
  }
  Discovery& discovery = options.discovery.emplace();
  if (flags.mode == Flags::Mode::kJoin) discovery.slots = std::move(list);
  discovery.slot_prefix = "kvd";
  discovery.slot_urls = UrlsOf;
  discovery.founders_max = flags.founders_max;
  discovery.has_marker = flags.marker;
  discovery.may_found_alone = flags.alone;
  discovery.reinitialize = flags.reinitialize;
  return options;
}

std::string FoundingCluster::KeyOf(const std::string& name) const {
  const std::pair<const std::string, Process>* newest = nullptr;
  for (const auto& entry : processes_) {
    if (SlotOf(entry.first) != name) continue;
    if (newest == nullptr || newest->second.life < entry.second.life) newest = &entry;
  }
  return newest == nullptr ? name : newest->first;
}

void FoundingCluster::SetMarker(std::optional<Marker> marker) {
  marker_down_ = !marker;
  if (!marker) return;
  forgotten_ = true;
  marker_ = *std::move(marker);
  marker_.version = std::to_string(++marker_version_);
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
  if (Runs(name)) TickForming(name);
}

void FoundingCluster::TickForming(const std::string& name) {
  Process& process = processes_.at(name);
  const Identity& identity = process.founding->identity();
  if (!process.founding->founded() || !process.founding->halted().empty()) return;
  const bool commits = CanCommit(identity.cluster_id);
  if (process.flags.marker) {
    if (!process.forming) {
      process.forming = std::make_unique<Forming>(identity.cluster_id, identity.formed);
    }
    CarryForming(name, process.forming->Tick(commits && identity.record.has_value()));
  }
  if (!Serves(name) || !served_.insert(identity.cluster_id).second) return;
  if (process.flags.mode != Flags::Mode::kList) {
    events_.push_back(fmt::format("{}: serves {}", name, NameOf(identity.cluster_id)));
  }
  if (served_.size() > 1 && !forgotten_ && process.flags.marker && broken_.empty()) {
    broken_ = "two clusters acknowledge writes";
  }
}

void FoundingCluster::CarryForming(const std::string& name, Forming::Output output) {
  if (output.formed) {
    if (!Effect(name)) return;
    Identity identity = disks_.at(name).identity;
    identity.formed = true;
    Persist(name, identity);
  }
  if (output.read) AskOutside(name, Outside::kReadMarker, {});
  if (output.write) AskOutside(name, Outside::kWriteMarker, output.write);
  if (!output.warning.empty()) events_.push_back(name + ": warns: " + output.warning);
  if (!output.halt.empty()) processes_.at(name).founding->Halt(output.halt);
  NoteHalt(name);
}

void FoundingCluster::NoteHalt(const std::string& name) {
  const std::string& now = processes_.at(name).founding->halted();
  if (now.empty() || halted_[name] == now) return;
  halted_[name] = now;
  events_.push_back(fmt::format("{}: halts: {}", name, now));
}

// A quorum of its founders runs. Who joined since is left out: this is about its first days.
bool FoundingCluster::CanCommit(uint64_t cluster_id) const {
  const auto at = members_of_.find(cluster_id);
  if (at == members_of_.end()) return false;
  size_t alive = 0;
  for (const Founder& founder : at->second.founders) {
    for (const auto& [name, process] : processes_) {
      const Identity& identity = process.founding->identity();
      if (identity.node_uuid == founder.node_uuid && identity.cluster_id == cluster_id &&
          identity.state == State::kMember && process.founding->halted().empty()) {
        ++alive;
      }
    }
  }
  return alive > at->second.founders.size() / 2;
}

bool FoundingCluster::Serves(const std::string& name) const {
  const auto at = processes_.find(name);
  if (at == processes_.end() || !at->second.founding->founded()) return false;
  const Process& process = at->second;
  return process.founding->halted().empty() && CanCommit(process.founding->identity().cluster_id) &&
         (!process.flags.marker || (process.forming && process.forming->formed()));
}

void FoundingCluster::Drop(size_t index) {
  Packet packet = packets_.at(index);
  packets_.erase(packets_.begin() + static_cast<std::ptrdiff_t>(index));
  // Whoever carries these answers in any case: with an error then.
  if (packet.outside != Outside::kNone) {
    if (!packet.is_answer) std::swap(packet.from, packet.to);
    packet.is_answer = true;
    packet.is_failure = true;
    TellOutside(packet);
  } else if (packet.ask.kind == Founding::Ask::Kind::kJoin) {
    if (packet.is_answer) std::swap(packet.from, packet.to);
    Fail(packet);
    Deliver(packets_.size() - 1);
  }
}

void FoundingCluster::Double(size_t packet) {
  const Packet copy = packets_.at(packet);
  packets_.push_back(copy);
}

void FoundingCluster::Deliver(size_t index) {
  const Packet packet = packets_.at(index);
  packets_.erase(packets_.begin() + static_cast<std::ptrdiff_t>(index));
  if (packet.outside != Outside::kNone) {
    if (packet.is_answer) {
      TellOutside(packet);
    } else {
      AnswerOutside(packet);
    }
    return;
  }
  const std::string to = packet.is_answer ? packet.to : KeyOf(packet.to);
  const auto at = processes_.find(to);
  const bool cut = !packet.is_failure && cuts_.contains({packet.from, packet.to});
  if (at == processes_.end() || cut) {
    if (!packet.is_answer) Fail(packet);
    return;
  }
  Founding& founding = *at->second.founding;
  if (packet.is_answer) {
    if (at->second.life != packet.life) return;
    const absl::Status refused = MakeStatus(absl::StatusCode::kUnavailable, "connection refused");
    const std::string from = SlotOf(packet.from);
    switch (packet.ask.kind) {
      case Founding::Ask::Kind::kHello: {
        absl::StatusOr<Standing> answer = refused;
        if (!packet.is_failure) answer = DecodeHelloAnswer(EncodeHelloAnswer(packet.standing));
        Carry(to, founding.HelloAnswered(from, packet.ask.round, answer), nullptr);
        return;
      }
      case Founding::Ask::Kind::kPrepare: {
        absl::StatusOr<std::string> answer = refused;
        if (!packet.is_failure) answer = *packet.refusal;
        Carry(to, founding.PrepareAnswered(from, *packet.ask.record, answer), nullptr);
        return;
      }
      case Founding::Ask::Kind::kCommit:
        return;
      case Founding::Ask::Kind::kJoin: {
        absl::StatusOr<JoinAnswer> answer = refused;
        if (!packet.is_failure) {
          answer = JoinAnswer{.kind = packet.refusal->empty() ? JoinAnswer::Kind::kGranted
                                                              : JoinAnswer::Kind::kRetry,
                              .sentence = *packet.refusal,
                              .cluster_id = packet.cluster_id,
                              .member_id = packet.member_id,
                              .members = {}};
        }
        Carry(to, founding.JoinAnswered(from, answer), nullptr);
        return;
      }
    }
  }
  switch (packet.ask.kind) {
    case Founding::Ask::Kind::kHello:
      Carry(to, founding.HelloAsked(packet.standing), &packet);
      return;
    case Founding::Ask::Kind::kPrepare:
      Carry(to, founding.PrepareAsked(*packet.ask.record), &packet);
      return;
    case Founding::Ask::Kind::kCommit:
      Carry(to, founding.CommitAsked(*packet.ask.record), &packet);
      return;
    case Founding::Ask::Kind::kJoin:
      AnswerJoin(packet);
      return;
  }
}

// As a leader with a quorum does; the rules of its own are tested elsewhere.
void FoundingCluster::AnswerJoin(const Packet& packet) {
  const std::string to = KeyOf(packet.to);
  const Process& process = processes_.at(to);
  const Identity& identity = process.founding->identity();
  Packet answer = packet;
  answer.from = to;
  answer.to = packet.from;
  answer.is_answer = true;
  answer.refusal = "";
  if (!process.founding->founded() || !CanCommit(identity.cluster_id)) {
    answer.refusal = "there is no leader";
  } else {
    MemberId& id = joined_[identity.cluster_id][packet.standing.node_uuid];
    if (id == 0) id = random_.Next() | 1;
    answer.cluster_id = identity.cluster_id;
    answer.member_id = id;
  }
  packets_.push_back(std::move(answer));
}

void FoundingCluster::AskOutside(const std::string& name, Outside outside,
                                 std::optional<Marker> marker) {
  Packet packet;
  packet.from = name;
  packet.to = "outside";
  packet.outside = outside;
  packet.marker = std::move(marker);
  packet.life = processes_.at(name).life;
  packets_.push_back(std::move(packet));
}

void FoundingCluster::AnswerOutside(Packet packet) {
  std::swap(packet.from, packet.to);
  packet.is_answer = true;
  if (packet.outside == Outside::kReadDesired) {
    packet.desired = desired_;
  } else if (marker_down_) {
    packet.is_failure = true;
  } else if (packet.outside == Outside::kReadMarker) {
    packet.marker = marker_;
  } else if (packet.marker->version != marker_.version) {
    packet.refusal = "it changed meanwhile";
  } else {
    const bool was_formed = marker_.phase == Marker::Phase::kFormed;
    if (was_formed && marker_.cluster_id != packet.marker->cluster_id) forgotten_ = true;
    marker_ = *packet.marker;
    marker_.version = std::to_string(++marker_version_);
    marked_.insert(marker_.cluster_id);
    events_.push_back(
        fmt::format("marker: {} {}", ToString(marker_.phase), NameOf(marker_.cluster_id)));
  }
  packets_.push_back(std::move(packet));
}

void FoundingCluster::TellOutside(const Packet& packet) {
  const auto at = processes_.find(packet.to);
  if (at == processes_.end() || at->second.life != packet.life) return;
  Process& process = at->second;
  absl::Status status = absl::OkStatus();
  if (packet.is_failure) status = MakeStatus(absl::StatusCode::kUnavailable, "it does not answer");
  if (packet.refusal) status = MakeStatus(absl::StatusCode::kAborted, "{}", *packet.refusal);
  if (packet.outside == Outside::kReadDesired) {
    DesiredCount desired = packet.desired;
    if (!status.ok()) desired = {.reason = std::string(Message(status))};
    Carry(packet.to, process.founding->DesiredRead(desired), nullptr);
    return;
  }
  const absl::StatusOr<Marker> read =
      status.ok() ? absl::StatusOr<Marker>(*packet.marker) : absl::StatusOr<Marker>(status);
  const bool reads = packet.outside == Outside::kReadMarker;
  if (process.forming) {
    CarryForming(packet.to, reads ? process.forming->MarkerRead(read)
                                  : process.forming->MarkerWritten(status));
  } else {
    Carry(packet.to,
          reads ? process.founding->MarkerRead(read) : process.founding->MarkerWritten(status),
          nullptr);
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
  if (output.write_marker) {
    if (!Effect(name)) return;
    AskOutside(name, Outside::kWriteMarker, output.write_marker);
  }
  if (output.read_marker) AskOutside(name, Outside::kReadMarker, {});
  if (output.read_desired) AskOutside(name, Outside::kReadDesired, {});
  for (Founding::Ask& ask : output.asks) {
    if (!Effect(name)) return;
    const Process& process = processes_.at(name);
    Packet packet;
    packet.from = name;
    packet.to = ask.to;
    packet.ask = std::move(ask);
    packet.standing = StandingOf(process);
    packet.life = process.life;
    packets_.push_back(std::move(packet));
  }
  NoteHalt(name);
  if (output.halt) {
    halted_[name] = *output.halt;
    events_.push_back(fmt::format("{}: halts: {}", name, *output.halt));
    Crash(name);
  }
}

void FoundingCluster::Persist(const std::string& name, const Identity& identity) {
  Disk& disk = disks_.at(name);
  const auto at = processes_.find(name);
  CheckStep(disk.identity, identity,
            at != processes_.end() && at->second.flags.mode != Flags::Mode::kList,
            at != processes_.end() && at->second.flags.marker);
  if (identity.state != disk.identity.state ||
      (identity.record && identity.record != disk.identity.record)) {
    const std::string which = identity.record ? " " + NameOf(identity.record->cluster_id) : "";
    events_.push_back(fmt::format("{}: {}{}", name, cluster::ToString(identity.state), which));
  }
  disk.identity = identity;
  disk.bytes = EncodeIdentity(identity);
}

void FoundingCluster::CheckStep(const Identity& before, const Identity& after, bool discovers,
                                bool uses_marker) {
  const auto law = [this](bool holds, const char* text) {
    if (!holds && broken_.empty()) broken_ = text;
  };
  law(after.node_uuid == before.node_uuid, "a disk keeps its uuid");
  law(after.boot_epoch >= before.boot_epoch, "the boot epoch never goes down");
  law(after.state >= before.state, "a disk never goes back");
  if (after.state == State::kMember && after.record && uses_marker) {
    law(marked_.contains(after.cluster_id),
        "a member exists only after the marker named its cluster");
  }
  law(after.formed || !before.formed, "what is formed stays formed");
  if (before.state == State::kMember) {
    law(after.cluster_id == before.cluster_id && after.member_id == before.member_id,
        "a member stays the member it is");
  }
  if (after.state == State::kPromised) {
    promised_by_[after.record->cluster_id].insert(after.node_uuid);
  }
  if (after.state != State::kMember || before.state == State::kMember) return;
  if (!after.record) {
    law(joined_[after.cluster_id][after.node_uuid] == after.member_id, "who joined was granted it");
    return;
  }
  const FoundingRecord& record = *after.record;
  // The coordinator's own promise and membership may be one write.
  if (record.founders.size() == 1) promised_by_[record.cluster_id].insert(after.node_uuid);
  for (const Founder& founder : record.founders) {
    law(promised_by_[record.cluster_id].contains(founder.node_uuid),
        "a member exists only after every founder promised");
  }
  for (const auto& entry : members_of_) {
    const uint64_t cluster_id = entry.first;
    const FoundingRecord& other = entry.second;
    if (cluster_id == record.cluster_id) {
      law(other == record, "all members know one founding record");
      continue;
    }
    const bool all_emptied = std::ranges::all_of(other.founders,
                                                 [this](const Founder& founder) {
                                                   return wiped_.contains(founder.node_uuid);
                                                 }) &&
                             std::ranges::none_of(disks_, [cluster_id](const auto& disk) {
                               return disk.second.identity.cluster_id == cluster_id;
                             });
    // Of those who found alone, and where the number of founders changes, the marker decides who
    // may serve; without a marker a person has vouched for it.
    law(all_emptied || marker_decides_ || (discovers && record.founders.size() == 1),
        "a second cluster is founded only when every disk of the first is gone");
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
  const std::string_view what =
      packet.outside == Outside::kNone ? ToString(packet.ask.kind) : ToString(packet.outside);
  std::string text =
      fmt::format("{}->{} {}{}", packet.from, packet.to, what, packet.is_answer ? "-answer" : "");
  if (packet.outside != Outside::kNone) {
    if (packet.marker) {
      text +=
          fmt::format(" {} {}", ToString(packet.marker->phase), NameOf(packet.marker->cluster_id));
    }
    return text + (packet.is_failure ? " failure" : packet.refusal ? " refused" : "");
  }
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

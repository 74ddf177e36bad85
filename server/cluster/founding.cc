#include "server/cluster/founding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "server/cluster/hello.h"
#include "server/cluster/join.h"
#include "server/cluster/slots.h"
#include "storage/check.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

// Answers older than this many rounds say nothing about two rounds in a row.
constexpr uint64_t kRoundsKept = 4;
// Marker and desired count are read every so many rounds.
constexpr uint64_t kOutsideRounds = 5;
// More slots than any cluster can have members: a count above is a mistake, not a wish.
constexpr uint64_t kSlotsMax = raft::kMembersMax;

std::string Id(uint64_t id) { return fmt::format("{:x}", id); }

// The same disks under the same names and addresses; member ids are drawn anew for each record.
bool SameFounders(const std::vector<Founder>& left, const std::vector<Founder>& right) {
  return std::ranges::equal(left, right, [](const Founder& a, const Founder& b) {
    return a.name == b.name && a.node_uuid == b.node_uuid && a.peer_urls == b.peer_urls &&
           a.client_urls == b.client_urls;
  });
}

}  // namespace

std::optional<uint64_t> Discovery::Ordinal(std::string_view name) const {
  return counts_slots() ? SlotNumber(slot_prefix, name) : std::nullopt;
}

Founding::Founding(FoundingOptions options, Identity identity, uint64_t seed)
    : options_(std::move(options)), identity_(std::move(identity)), random_(seed) {
  if (options_.discovery) {
    const Discovery& discovery = *options_.discovery;
    if (discovery.counts_slots()) waits_.desired = "how many members are wanted was not read yet";
    if (UsesMarker()) waits_.marker = "the marker was not read yet";
    SetSlots(discovery.counts_slots() ? Slots(0, discovery.founders_max) : discovery.slots,
             discovery.slots);
    return;
  }
  KV_CHECK(std::ranges::is_sorted(options_.list, {}, &Listed::name));
  KV_CHECK(std::ranges::find(options_.list, options_.name, &Listed::name) != options_.list.end());
  SetSlots(options_.list, options_.list);
}

std::vector<Listed> Founding::Slots(uint64_t first, uint64_t count) const {
  std::vector<Listed> slots;
  for (uint64_t ordinal = first; ordinal < first + count; ++ordinal) {
    const std::string name = fmt::format("{}-{}", options_.discovery->slot_prefix, ordinal);
    slots.push_back({.name = name, .peer_urls = options_.discovery->slot_urls(name)});
  }
  return slots;
}

bool Founding::IsFounder(std::string_view name) const {
  const auto at = std::ranges::find(survey_, name, &Listed::name);
  return static_cast<size_t>(at - survey_.begin()) < founders_;
}

void Founding::SetSlots(const std::vector<Listed>& candidates, std::vector<Listed> survey) {
  survey_ = std::move(survey);
  founders_ = options_.discovery ? std::min(survey_.size(), options_.discovery->founders_max)
                                 : survey_.size();
  if (!options_.discovery) {
    config_hash_ = options_.config_hash;
  } else {
    config_hash_ = survey_.empty() ? "" : HashSurvey(options_.token_hash, survey_, founders_);
  }
  // What was answered before was answered about other slots; who is a member stays one.
  std::map<std::string, Peer, std::less<>> known = std::exchange(peers_, {});
  for (const Listed& listed : candidates) {
    if (listed.name == options_.name) continue;
    Peer& peer = peers_[listed.name];
    if (const auto at = known.find(listed.name); at != known.end()) peer = std::move(at->second);
    peer.answers.clear();
    peer.listed = listed;
    peer.surveyed = InSurvey(listed.name);
  }
  proposal_.reset();
}

bool Founding::InSurvey(std::string_view name) const {
  return std::ranges::find(survey_, name, &Listed::name) != survey_.end();
}

std::string_view Founding::Source() const {
  if (!options_.discovery) return "--initial-cluster";
  return options_.discovery->counts_slots() ? "the names of the peer Service" : "--join";
}

bool Founding::founded() const {
  if (identity_.state != State::kMember) return false;
  // A crash between the grant and the first files leaves a member that does not know the others.
  return !options_.discovery || identity_.record || identity_.data_laid || joined_;
}

const Listed* Founding::Find(const std::string& name) const {
  const auto at = peers_.find(name);
  return at == peers_.end() ? nullptr : &at->second.listed;
}

Founding::Output Founding::Tick() {
  Output output;
  if (founded() || (!halted_.empty() && !lost_)) return output;
  ++round_;
  if (identity_.state == State::kRemoved) {
    AskOutside(output);
    output.begin_anew = IsWantedAgain();
    return output;
  }
  for (auto& [name, peer] : peers_) {
    std::erase_if(peer.answers,
                  [this](const auto& answer) { return answer.first + kRoundsKept <= round_; });
    if (peer.member && peer.member_round + kRoundsKept <= round_) peer.member.reset();
    output.asks.push_back({.kind = Ask::Kind::kHello, .to = name, .round = round_, .record = {}});
  }
  AskOutside(output);
  if (MetMembers(output) || identity_.state == State::kStale || IsTotalLoss() ||
      identity_.state == State::kMember) {
    return output;
  }
  if (proposal_) {
    AskPromises(output);
    FoundIfAllPromised(output);
  } else {
    ProposeIfAllAnswered(output);
  }
  return output;
}

// Whom a person removed is asked for by a person; only a count says by itself that a slot is
// wanted.
bool Founding::IsWantedAgain() const {
  return options_.discovery && options_.discovery->counts_slots() && InSurvey(options_.name);
}

void Founding::AskOutside(Output& output) {
  if (!options_.discovery || (round_ - 1) % kOutsideRounds != 0) return;
  output.read_desired = options_.discovery->counts_slots();
  output.read_marker = UsesMarker();
}

Founding::Output Founding::DesiredRead(const DesiredCount& desired) {
  Output output;
  if (founded() || !options_.discovery || !options_.discovery->counts_slots()) return output;
  waits_.desired = FaultOf(desired);
  const bool counted = waits_.desired.empty();
  const std::vector<Listed> survey =
      counted ? Slots(desired.first, desired.count) : std::vector<Listed>();
  if (survey == survey_) return output;
  if (counted) {
    SetSlots(
        Slots(desired.first, std::max<uint64_t>(desired.count, options_.discovery->founders_max)),
        survey);
  } else {
    std::vector<Listed> candidates;
    for (const auto& [name, peer] : peers_) candidates.push_back(peer.listed);
    SetSlots(candidates, {});
  }
  return output;
}

std::string Founding::FaultOf(const DesiredCount& desired) const {
  switch (desired.kind) {
    case DesiredCount::Kind::kUnknown:
      return fmt::format("how many members are wanted is not known: {}", desired.reason);
    case DesiredCount::Kind::kDenied:
      return fmt::format("how many members are wanted may not be read: {}", desired.reason);
    case DesiredCount::Kind::kEnding:
      return "all of it is being deleted";
    case DesiredCount::Kind::kCount:
      break;
  }
  if (desired.count == 0) return "suspended: 0 members are wanted";
  if (desired.count <= kSlotsMax && desired.first <= UINT32_MAX) return "";
  return fmt::format("{} members are wanted, which is more than the {} that a cluster can have",
                     desired.count, kSlotsMax);
}

Founding::Output Founding::HelloAnswered(const std::string& name, uint64_t round,
                                         const absl::StatusOr<Standing>& answer) {
  Output output;
  const auto at = peers_.find(name);
  if (founded() || at == peers_.end()) return output;
  Peer& peer = at->second;
  if (!answer.ok()) {
    peer.reason = std::string(Message(answer.status()));
    return output;
  }
  if (answer->state == State::kMember && answer->name == name) {
    NoteMember(*answer, output);
    return output;
  }
  peer.member.reset();
  peer.reason = FaultOf(peer, *answer);
  if (!peer.reason.empty()) {
    peer.answers.clear();
    return output;
  }
  if (round + kRoundsKept > round_) peer.answers[round] = *answer;
  if (identity_.state == State::kMember) return output;
  if (!proposal_ || (Survey() && !SameFounders(*Survey(), proposal_->record.founders))) {
    ProposeIfAllAnswered(output);
  }
  return output;
}

std::string Founding::FaultOf(const Peer& peer, const Standing& standing) const {
  if (standing.name != peer.listed.name) {
    return fmt::format("the address belongs to \"{}\"; check {}", standing.name, Source());
  }
  if (standing.protocol_max < kProtocolMin || standing.protocol_min > kProtocolMax) {
    return fmt::format("speaks protocol {}..{}, this build {}..{}; run the same release",
                       standing.protocol_min, standing.protocol_max, kProtocolMin, kProtocolMax);
  }
  if (standing.state == State::kHalted) return "has halted; its log says why";
  if (standing.state == State::kRemoved && options_.discovery) {
    return fmt::format("was removed from cluster {} and has not begun anew",
                       Id(standing.cluster_id));
  }
  if (standing.state == State::kRemoved) {
    return fmt::format("was removed from cluster {}; empty its data directory to use it again",
                       Id(standing.cluster_id));
  }
  if (standing.token_hash != options_.token_hash) return "has another --initial-cluster-token";
  if (std::string fault = ConfigFaultOf(standing); peer.surveyed && !fault.empty()) return fault;
  if (standing.node_uuid == identity_.node_uuid) {
    return "its data directory is a copy of this member's; empty one of them";
  }
  for (const auto& [name, other] : peers_) {
    if (name != standing.name && !other.answers.empty() &&
        other.answers.rbegin()->second.node_uuid == standing.node_uuid) {
      return fmt::format("its data directory is a copy of that of \"{}\"; empty one of them", name);
    }
  }
  if (Coordinates() && standing.record && !IsMarkedAsFormed()) {
    const Founder& proposer = standing.record->founders.front();
    if (proposer.node_uuid != identity_.node_uuid && proposer.node_uuid != standing.node_uuid) {
      return fmt::format(
          "has promised to found cluster {} with disk {} of \"{}\", which is not this one; if that "
          "disk is gone and the cluster never served, empty the data directory of \"{}\"",
          Id(standing.record->cluster_id), proposer.node_uuid, proposer.name, standing.name);
    }
  }
  return "";
}

std::string Founding::ConfigFaultOf(const Standing& standing) const {
  if (standing.config_hash == config_hash_ && !config_hash_.empty()) return "";
  if (!options_.discovery) return "has another --initial-cluster list";
  if (standing.config_hash.empty()) return "does not know yet how many members are wanted";
  return options_.discovery->counts_slots()
             ? "was told of another number of members, or of founders"
             : "has another --join list, or another --bootstrap-max-founders";
}

void Founding::NoteMember(const Standing& standing, Output& output) {
  const auto at = peers_.find(standing.name);
  if (options_.discovery && standing.token_hash != options_.token_hash) {
    at->second.answers.clear();
    at->second.reason = "has another --initial-cluster-token";
    return;
  }
  if (identity_.state == State::kPromised && identity_.record->cluster_id == standing.cluster_id &&
      (halted_.empty() || lost_)) {
    BecomeMember(*identity_.record, output);
    return;
  }
  if (!options_.discovery) {
    output.halt = ContradictionWith(standing);
    return;
  }
  // All answers of the round are looked at together.
  at->second.answers.clear();
  at->second.reason.clear();
  at->second.member = standing;
  at->second.member_round = round_;
}

std::vector<const Standing*> Founding::Members() const {
  std::vector<const Standing*> members;
  for (const auto& [name, peer] : peers_) {
    if (peer.member) members.push_back(&*peer.member);
  }
  return members;
}

bool Founding::MetMembers(Output& output) {
  const std::vector<const Standing*> members = Members();
  if (members.empty()) {
    waits_.join.clear();
    return false;
  }
  lost_ = false;
  halted_ = ContradictionAmong(members);
  if (halted_.empty()) AskToJoin(members, output);
  return true;
}

std::string Founding::ContradictionAmong(const std::vector<const Standing*>& members) const {
  const Standing& first = *members.front();
  for (const Standing* member : members) {
    if (member->cluster_id != first.cluster_id && !MUTANT("founding.two_clusters_overlooked")) {
      return fmt::format(
          "\"{}\" is a member of cluster {} and \"{}\" of cluster {}: two clusters have these "
          "names. Next: find out which one holds the data, stop the other one's members, and start "
          "this member again",
          first.name, Id(first.cluster_id), member->name, Id(member->cluster_id));
    }
    if (member->node_uuid == uuid()) {
      return fmt::format("the data directory of \"{}\" is a copy of this member's; empty this one",
                         member->name);
    }
  }
  if (identity_.state == State::kMember && identity_.cluster_id != first.cluster_id) {
    return fmt::format(
        "this disk was taken in by cluster {}, but \"{}\" is a member of cluster {}; if the first "
        "is gone, empty this data directory",
        Id(identity_.cluster_id), first.name, Id(first.cluster_id));
  }
  if (identity_.state == State::kPromised && !IsPromiseVoid(members)) {
    return ContradictionWith(first);
  }
  return "";
}

// Nobody is a member of what this disk promised, and nobody will be: the disk that proposed it is a
// member elsewhere.
bool Founding::IsPromiseVoid(const std::vector<const Standing*>& members) const {
  const std::string& proposer = identity_.record->founders.front().node_uuid;
  return std::ranges::any_of(
      members, [&proposer](const Standing* member) { return member->node_uuid == proposer; });
}

void Founding::AskToJoin(const std::vector<const Standing*>& members, Output& output) {
  if (joining_) return;
  const Standing& member = *members[round_ % members.size()];
  const bool counted = options_.discovery->counts_slots() && waits_.desired.empty();
  if (counted && !InSurvey(options_.name)) {
    waits_.join =
        fmt::format("\"{}\" is not wanted: {} members are, \"{}\" to \"{}\"", options_.name,
                    survey_.size(), survey_.front().name, survey_.back().name);
    return;
  }
  if (marker_ && marker_->phase == Marker::Phase::kFormed &&
      marker_->cluster_id != member.cluster_id) {
    waits_.join = fmt::format(
        "\"{}\" is a member of cluster {}, but the marker names cluster {}; correct the marker, or "
        "stop the members of the wrong one",
        member.name, Id(member.cluster_id), Id(marker_->cluster_id));
    return;
  }
  joining_ = true;
  if (waits_.join.empty()) waits_.join = fmt::format("\"{}\" to take this disk in", member.name);
  output.asks.push_back({.kind = Ask::Kind::kJoin, .to = member.name, .round = 0, .record = {}});
}

JoinRequest Founding::MakeJoinRequest() const {
  return {.name = options_.name,
          .node_uuid = uuid(),
          .peer_urls = options_.peer_urls,
          .client_urls = options_.client_urls,
          .version = options_.version,
          .machine_version = options_.machine_version,
          .token_hash = options_.token_hash,
          .slot = options_.discovery->Ordinal(options_.name)};
}

Founding::Output Founding::JoinAnswered(const std::string& name,
                                        const absl::StatusOr<JoinAnswer>& answer) {
  Output output;
  joining_ = false;
  if (founded() || !halted_.empty()) return output;
  if (!answer.ok() || answer->kind != JoinAnswer::Kind::kGranted) {
    waits_.join =
        fmt::format("\"{}\": {}", name, answer.ok() ? answer->sentence : Message(answer.status()));
    return output;
  }
  if (identity_.state == State::kMember &&
      (identity_.cluster_id != answer->cluster_id || identity_.member_id != answer->member_id)) {
    halted_ = fmt::format(
        "this disk was granted member {} of cluster {}, and now member {} of cluster {}; if the "
        "first is gone, empty this data directory",
        Id(identity_.member_id), Id(identity_.cluster_id), Id(answer->member_id),
        Id(answer->cluster_id));
    return output;
  }
  if (identity_.state == State::kStale) {
    // The grant is for the next uuid: the blank disk that this one becomes asks again and has it.
    output.begin_anew = true;
    return output;
  }
  identity_.state = State::kMember;
  identity_.cluster_id = answer->cluster_id;
  identity_.member_id = answer->member_id;
  identity_.name = options_.name;
  identity_.record.reset();
  joined_ = answer->members;
  output.persist = identity_;
  return output;
}

std::string Founding::ContradictionWith(const Standing& member) const {
  if (identity_.state == State::kPromised) {
    return fmt::format(
        "this disk has promised to found cluster {}, but \"{}\" is a member of cluster {}; a disk "
        "of one of the founders was replaced. Next: empty this data directory, then \"kvctl member "
        "add {}\" on a live member of the cluster that is to stay",
        Id(identity_.record->cluster_id), member.name, Id(member.cluster_id), options_.name);
  }
  const Founder* lost = member.record ? member.record->Find(options_.name) : nullptr;
  const std::string remove =
      lost != nullptr ? fmt::format("\"kvctl member remove {}\"", Id(lost->member_id))
                      : fmt::format("\"kvctl member remove\" if \"kvctl member list\" shows \"{}\"",
                                    options_.name);
  return fmt::format(
      "this disk is blank, but \"{}\" is a member of cluster {}: this member's data is lost, or it "
      "never belonged there; a disk that was emptied cannot come back under its old id. Next: on a "
      "live member {}, then \"kvctl member add {}\"",
      member.name, Id(member.cluster_id), remove, options_.name);
}

std::optional<std::vector<Founder>> Founding::Survey() const {
  for (const uint64_t round : {round_, round_ - 1}) {
    const bool good = std::ranges::all_of(peers_, [this, round](const auto& entry) {
      const bool overlooked =
          MUTANT("founding.only_founders_surveyed") && !IsFounder(entry.second.listed.name);
      if (!entry.second.surveyed || overlooked) return true;
      const std::map<uint64_t, Standing>& answers = entry.second.answers;
      const auto now = answers.find(round);
      const auto before = answers.find(round - 1);
      return now != answers.end() && before != answers.end() &&
             now->second.node_uuid == before->second.node_uuid;
    });
    if (!good || survey_.empty()) continue;
    std::vector<Founder> founders;
    std::set<std::string> uuids;
    for (const Listed& listed : survey_) {
      const bool self = listed.name == options_.name;
      const Peer* peer = self ? nullptr : &peers_.at(listed.name);
      if (peer != nullptr && !peer->answers.contains(round)) continue;
      Founder& founder = founders.emplace_back();
      founder.name = listed.name;
      founder.peer_urls = listed.peer_urls;
      founder.node_uuid = self ? identity_.node_uuid : peer->answers.at(round).node_uuid;
      founder.client_urls = self ? options_.client_urls : peer->answers.at(round).client_urls;
      uuids.insert(founder.node_uuid);
    }
    if (uuids.size() != founders.size()) continue;
    founders.resize(founders_);
    return founders;
  }
  return std::nullopt;
}

void Founding::ProposeIfAllAnswered(Output& output) {
  if (!Coordinates() || !BoundTo(identity_.node_uuid).empty()) return;
  std::optional<std::vector<Founder>> founders = Survey();
  if (!founders || !MayFound()) return;
  // After a crash of the coordinator its promise still stands; the same founders take it up again.
  const bool again = identity_.state == State::kPromised &&
                     identity_.record->token_hash == options_.token_hash &&
                     SameFounders(identity_.record->founders, *founders) && !IsMarkedAsFormed();
  if (!again) {
    identity_.record = MakeRecord(*std::move(founders));
    identity_.state = State::kPromised;
    identity_.name = options_.name;
    output.persist = identity_;
  }
  proposal_ = Proposal{.record = *identity_.record, .promised = {}};
  AskPromises(output);
  FoundIfAllPromised(output);
}

bool Founding::IsMarkedAsFormed() const {
  return marker_ && marker_->phase == Marker::Phase::kFormed;
}

bool Founding::MayFound() {
  if (!options_.discovery) return true;
  if (!halted_.empty() || !Members().empty() || joining_) return false;
  if (UsesMarker()) return MarkerAllows();
  if (founders_ > 1 || options_.discovery->may_found_alone) return true;
  waits_.alone = fmt::format(
      "\"{}\" would found alone, and no marker tells whether it had a cluster before; start it "
      "once "
      "with --initial-cluster-state=new if it had none",
      options_.name);
  return false;
}

bool Founding::MarkerAllows() const {
  if (MUTANT("founding.marker_unheeded")) return true;
  if (!marker_) return false;
  if (MUTANT("founding.formed_is_refounded")) return true;
  return !IsMarkedAsFormed() || options_.discovery->reinitialize;
}

// Every wanted slot has answered, nobody is a member, and yet there was a cluster.
bool Founding::IsTotalLoss() {
  if (halted_.empty() || lost_) {
    lost_ = UsesMarker() && IsMarkedAsFormed() && !options_.discovery->reinitialize &&
            InSurvey(options_.name) && Survey().has_value() &&
            !MUTANT("founding.formed_is_refounded");
    halted_.clear();
  }
  if (!lost_) return !halted_.empty();
  halted_ = fmt::format(
      "no disk holds data, but cluster {} existed: it is lost. Next: restore a backup, or "
      "\"kvctl cluster forget {}\" to begin anew",
      Id(marker_->cluster_id), Id(marker_->cluster_id));
  return true;
}

Founding::Output Founding::MarkerRead(const absl::StatusOr<Marker>& marker) {
  Output output;
  if (founded() || writing_marker_) return output;
  if (!marker.ok()) {
    marker_.reset();
    waits_.marker = fmt::format("the marker cannot be read: {}", Message(marker.status()));
    return output;
  }
  marker_ = *marker;
  waits_.marker.clear();
  if (proposal_) FoundIfAllPromised(output);
  return output;
}

Founding::Output Founding::MarkerWritten(const absl::Status& status) {
  Output output;
  const std::optional<Marker> written = std::exchange(writing_marker_, std::nullopt);
  if (founded() || !written) return output;
  if (status.ok() || MUTANT("founding.unknown_write_is_done")) {
    marker_ = written;
    if (proposal_) FoundIfAllPromised(output);
    if (founded()) return output;
  } else {
    waits_.marker = fmt::format("the marker was not written: {}", Message(status));
  }
  // Its version is another one now, or what it says is not known.
  marker_.reset();
  output.read_marker = true;
  return output;
}

FoundingRecord Founding::MakeRecord(std::vector<Founder> founders) {
  const auto draw = [this](const std::set<uint64_t>& taken) {
    uint64_t id = random_.Next();
    while (id == 0 || taken.contains(id)) id = random_.Next();
    return id;
  };
  FoundingRecord record;
  record.cluster_id = draw({});
  record.attempt = identity_.record ? identity_.record->attempt + 1 : 1;
  record.token_hash = options_.token_hash;
  std::set<uint64_t> taken;
  for (Founder& founder : founders) {
    founder.member_id = draw(taken);
    taken.insert(founder.member_id);
  }
  record.founders = std::move(founders);
  return record;
}

void Founding::AskPromises(Output& output) {
  for (const Founder& founder : proposal_->record.founders) {
    if (founder.name == options_.name || proposal_->promised.contains(founder.name)) continue;
    output.asks.push_back(
        {.kind = Ask::Kind::kPrepare, .to = founder.name, .round = 0, .record = proposal_->record});
  }
}

Founding::Output Founding::PrepareAnswered(const std::string& name, const FoundingRecord& record,
                                           const absl::StatusOr<std::string>& refusal) {
  Output output;
  const auto at = peers_.find(name);
  if (founded() || !proposal_ || proposal_->record != record || at == peers_.end()) return output;
  if (!refusal.ok()) {
    at->second.reason = std::string(Message(refusal.status()));
    return output;
  }
  if (!refusal->empty()) {
    // What the survey saw is not so any more: look again.
    at->second.reason = *refusal;
    at->second.answers.clear();
    proposal_.reset();
    return output;
  }
  proposal_->promised[name] = true;
  FoundIfAllPromised(output);
  return output;
}

void Founding::FoundIfAllPromised(Output& output) {
  const size_t others = proposal_->record.founders.size() - 1;
  const size_t needed = MUTANT("founding.majority_promises") ? (others + 1) / 2 : others;
  if (proposal_->promised.size() < needed) return;
  if (!UsesMarker() || MUTANT("founding.member_before_marker")) {
    BecomeMember(proposal_->record, output);
  } else {
    MarkAndFound(output);
  }
}

void Founding::MarkAndFound(Output& output) {
  const uint64_t cluster_id = proposal_->record.cluster_id;
  if (writing_marker_ || !marker_) return;
  if (marker_->phase == Marker::Phase::kForming && marker_->cluster_id == cluster_id) {
    BecomeMember(proposal_->record, output);
  } else if (MarkerAllows() && !(IsMarkedAsFormed() && marker_->cluster_id == cluster_id)) {
    writing_marker_ = Marker{
        .phase = Marker::Phase::kForming, .cluster_id = cluster_id, .version = marker_->version};
    output.write_marker = writing_marker_;
  } else {
    proposal_.reset();
  }
}

void Founding::BecomeMember(const FoundingRecord& record, Output& output) {
  const Founder* self = record.Find(options_.name);
  KV_CHECK(self != nullptr && self->node_uuid == identity_.node_uuid);
  identity_.state = State::kMember;
  identity_.cluster_id = record.cluster_id;
  identity_.member_id = self->member_id;
  identity_.name = options_.name;
  identity_.data_laid = false;
  identity_.record = record;
  output.persist = identity_;
  output.asks.clear();
  if (proposal_) {
    for (const Founder& founder : record.founders) {
      if (founder.name == options_.name) continue;
      output.asks.push_back(
          {.kind = Ask::Kind::kCommit, .to = founder.name, .round = 0, .record = record});
    }
    proposal_.reset();
  }
}

Founding::Output Founding::HelloAsked(const Standing& from) {
  Output output;
  if (!founded() && from.state == State::kMember && peers_.contains(from.name)) {
    NoteMember(from, output);
  }
  return output;
}

Founding::Output Founding::PrepareAsked(const FoundingRecord& record) {
  Output output;
  output.refusal = FaultOf(record);
  if (!output.refusal->empty()) return output;
  if (identity_.state == State::kPromised && *identity_.record == record) return output;
  identity_.state = State::kPromised;
  identity_.name = options_.name;
  identity_.record = record;
  output.persist = identity_;
  return output;
}

std::string Founding::FaultOf(const FoundingRecord& record) const {
  if (identity_.cluster_id != 0) {
    const std::string_view is = identity_.state == State::kMember    ? "a member"
                                : identity_.state == State::kRemoved ? "a removed member"
                                                                     : "on an old disk of a member";
    return fmt::format("\"{}\" is {} of cluster {}", options_.name, is, Id(identity_.cluster_id));
  }
  if (!halted_.empty()) return fmt::format("\"{}\" has halted: {}", options_.name, halted_);
  if (joining_ || !Members().empty()) {
    return fmt::format("\"{}\" has met a cluster and joins it", options_.name);
  }
  if (record.token_hash != options_.token_hash) return "another --initial-cluster-token";
  if (!IsOfSurvey(record)) {
    if (!options_.discovery) return "another --initial-cluster list";
    return survey_.empty() ? fmt::format("\"{}\" waits: {}", options_.name, waits_.desired)
                           : fmt::format("other founders than \"{}\" was told of", options_.name);
  }
  std::set<uint64_t> ids;
  std::set<std::string> uuids;
  for (const Founder& founder : record.founders) {
    ids.insert(founder.member_id);
    uuids.insert(founder.node_uuid);
  }
  if (record.cluster_id == 0 || ids.contains(0) || ids.size() != record.founders.size() ||
      uuids.size() != record.founders.size()) {
    return "a founding record with ids or disks that are not all different";
  }
  if (record.Find(options_.name)->node_uuid != identity_.node_uuid) {
    return fmt::format("\"{}\" has another disk now", options_.name);
  }
  const Founder& proposer = record.founders.front();
  if (std::string bound = BoundTo(proposer.node_uuid); !bound.empty()) return bound;
  if (identity_.state == State::kPromised && *identity_.record != record &&
      identity_.record->founders.front().node_uuid == proposer.node_uuid &&
      record.attempt <= identity_.record->attempt && !MUTANT("founding.old_record_promised")) {
    return "a newer founding record was promised";
  }
  return "";
}

// The founders are the first of the survey, in its order, and this process is one of them.
bool Founding::IsOfSurvey(const FoundingRecord& record) const {
  const auto same = [](const Founder& a, const Listed& b) {
    return a.name == b.name && a.peer_urls == b.peer_urls;
  };
  const auto end = survey_.begin() + static_cast<std::ptrdiff_t>(founders_);
  return !survey_.empty() && record.Find(options_.name) != nullptr &&
         std::equal(record.founders.begin(), record.founders.end(), survey_.begin(), end, same);
}

std::string Founding::BoundTo(std::string_view proposer_uuid) const {
  if (identity_.state != State::kPromised || MUTANT("founding.promise_binds_nobody")) return "";
  const Founder& promised = identity_.record->founders.front();
  // What this disk proposed itself never became a cluster: it would be a member of it.
  if (promised.node_uuid == proposer_uuid || promised.node_uuid == identity_.node_uuid) return "";
  return fmt::format(
      "\"{}\" has promised to found cluster {} with disk {} of \"{}\"; if that disk is gone and "
      "the "
      "cluster never served, empty the data directory of \"{}\"",
      options_.name, Id(identity_.record->cluster_id), promised.node_uuid, promised.name,
      options_.name);
}

Founding::Output Founding::CommitAsked(const FoundingRecord& record) {
  Output output;
  output.refusal = "";
  if (founded()) {
    if (identity_.cluster_id != record.cluster_id) {
      output.refusal =
          fmt::format("\"{}\" is a member of cluster {}", options_.name, Id(identity_.cluster_id));
    }
    return output;
  }
  if (identity_.state != State::kPromised || *identity_.record != record ||
      (!halted_.empty() && !lost_)) {
    output.refusal = fmt::format("\"{}\" has not promised this record", options_.name);
    return output;
  }
  BecomeMember(record, output);
  return output;
}

Standing Founding::standing() const {
  Standing standing;
  standing.name = options_.name;
  standing.node_uuid = uuid();
  // Who found that all is lost goes on asking, and is asked.
  standing.state = halted_.empty() || lost_ ? identity_.state : State::kHalted;
  standing.cluster_id = identity_.cluster_id;
  standing.member_id = identity_.member_id;
  standing.boot_epoch = identity_.boot_epoch;
  standing.record = identity_.record;
  standing.token_hash = options_.token_hash;
  standing.config_hash = config_hash_;
  standing.version = options_.version;
  standing.peer_urls = options_.peer_urls;
  standing.client_urls = options_.client_urls;
  return standing;
}

std::string Founding::WhyRemoved() const {
  const std::string was = fmt::format("member {} was removed from cluster {}",
                                      Id(identity_.member_id), Id(identity_.cluster_id));
  if (!options_.discovery || !options_.discovery->counts_slots()) {
    return fmt::format("{}; to join again, start with an empty data directory", was);
  }
  if (!waits_.desired.empty()) return fmt::format("{}; {}", was, waits_.desired);
  return fmt::format("{}; \"{}\" is wanted again when there are more than {} members", was,
                     options_.name, survey_.size());
}

std::string Founding::WhyStale() const {
  return fmt::format(
      "a leader with a quorum to take this disk in as another one: it is older than what member {} "
      "of cluster {} acknowledged, and its data stays where it is until then",
      Id(identity_.member_id), Id(identity_.cluster_id));
}

std::vector<std::string> Founding::Missing() const {
  if (!halted_.empty()) return {halted_};
  std::vector<std::string> missing;
  if (founded()) return missing;
  if (identity_.state == State::kRemoved) return {WhyRemoved()};
  if (identity_.state == State::kStale) missing.push_back(WhyStale());
  const bool met = !Members().empty();
  for (const std::string& wait : {waits_.desired, waits_.join}) {
    if (!wait.empty()) missing.push_back(wait);
  }
  if (met) return missing;
  for (const std::string& wait : {waits_.marker, waits_.alone}) {
    if (!wait.empty()) missing.push_back(wait);
  }
  for (const auto& [name, peer] : peers_) {
    if (peer.reason.empty() || (!peer.surveyed && !survey_.empty())) continue;
    missing.push_back(
        fmt::format("{} ({}): {}", name, fmt::join(peer.listed.peer_urls, ","), peer.reason));
  }
  if (Coordinates()) {
    if (std::string bound = BoundTo(identity_.node_uuid); !bound.empty()) missing.push_back(bound);
  } else if (options_.discovery && missing.empty()) {
    missing.push_back(fmt::format("\"{}\" to found the cluster", survey_.front().name));
  }
  return missing;
}

}  // namespace kv::cluster

#include "server/cluster/founding.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "storage/check.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

// Answers older than this many rounds say nothing about two rounds in a row.
constexpr uint64_t kRoundsKept = 4;

std::string Id(uint64_t id) { return fmt::format("{:x}", id); }

// The same disks under the same names and addresses; member ids are drawn anew for each record.
bool SameFounders(const std::vector<Founder>& left, const std::vector<Founder>& right) {
  return std::ranges::equal(left, right, [](const Founder& a, const Founder& b) {
    return a.name == b.name && a.node_uuid == b.node_uuid && a.peer_urls == b.peer_urls &&
           a.client_urls == b.client_urls;
  });
}

}  // namespace

Founding::Founding(FoundingOptions options, Identity identity, uint64_t seed)
    : options_(std::move(options)), identity_(std::move(identity)), random_(seed) {
  KV_CHECK(std::ranges::is_sorted(options_.list, {}, &Listed::name));
  KV_CHECK(std::ranges::find(options_.list, options_.name, &Listed::name) != options_.list.end());
  for (const Listed& listed : options_.list) {
    if (listed.name != options_.name) peers_[listed.name].listed = listed;
  }
}

Founding::Output Founding::Tick() {
  Output output;
  if (founded()) return output;
  ++round_;
  for (auto& [name, peer] : peers_) {
    std::erase_if(peer.answers,
                  [this](const auto& answer) { return answer.first + kRoundsKept <= round_; });
    output.asks.push_back({.kind = Ask::Kind::kHello, .to = name, .round = round_, .record = {}});
  }
  if (proposal_) {
    AskPromises(output);
  } else {
    ProposeIfAllAnswered(output);
  }
  return output;
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
  peer.reason = FaultOf(peer, *answer);
  if (!peer.reason.empty()) {
    peer.answers.clear();
    return output;
  }
  if (round + kRoundsKept > round_) peer.answers[round] = *answer;
  if (!proposal_ || (Survey() && !SameFounders(*Survey(), proposal_->record.founders))) {
    ProposeIfAllAnswered(output);
  }
  return output;
}

std::string Founding::FaultOf(const Peer& peer, const Standing& standing) const {
  if (standing.name != peer.listed.name) {
    return fmt::format("the address belongs to \"{}\"; check --initial-cluster", standing.name);
  }
  if (standing.protocol_max < kProtocolMin || standing.protocol_min > kProtocolMax) {
    return fmt::format("speaks protocol {}..{}, this build {}..{}; run the same release",
                       standing.protocol_min, standing.protocol_max, kProtocolMin, kProtocolMax);
  }
  if (standing.state == State::kRemoved) {
    return fmt::format("was removed from cluster {}; empty its data directory to use it again",
                       Id(standing.cluster_id));
  }
  if (standing.token_hash != options_.token_hash) return "has another --initial-cluster-token";
  if (standing.config_hash != options_.config_hash) return "has another --initial-cluster list";
  if (standing.node_uuid == identity_.node_uuid) {
    return "its data directory is a copy of this member's; empty one of them";
  }
  for (const auto& [name, other] : peers_) {
    if (name != standing.name && !other.answers.empty() &&
        other.answers.rbegin()->second.node_uuid == standing.node_uuid) {
      return fmt::format("its data directory is a copy of that of \"{}\"; empty one of them", name);
    }
  }
  if (Coordinates() && standing.record) {
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

void Founding::NoteMember(const Standing& standing, Output& output) {
  if (identity_.state == State::kPromised && identity_.record->cluster_id == standing.cluster_id) {
    BecomeMember(*identity_.record, output);
    return;
  }
  output.halt = ContradictionWith(standing);
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
    const bool good = std::ranges::all_of(peers_, [round](const auto& entry) {
      const std::map<uint64_t, Standing>& answers = entry.second.answers;
      const auto now = answers.find(round);
      const auto before = answers.find(round - 1);
      return now != answers.end() && before != answers.end() &&
             now->second.node_uuid == before->second.node_uuid;
    });
    if (!good) continue;
    std::vector<Founder> founders;
    std::set<std::string> uuids;
    for (const Listed& listed : options_.list) {
      Founder& founder = founders.emplace_back();
      founder.name = listed.name;
      founder.peer_urls = listed.peer_urls;
      if (listed.name == options_.name) {
        founder.node_uuid = identity_.node_uuid;
        founder.client_urls = options_.client_urls;
      } else {
        const Standing& standing = peers_.at(listed.name).answers.at(round);
        founder.node_uuid = standing.node_uuid;
        founder.client_urls = standing.client_urls;
      }
      uuids.insert(founder.node_uuid);
    }
    if (uuids.size() == founders.size()) return founders;
  }
  return std::nullopt;
}

void Founding::ProposeIfAllAnswered(Output& output) {
  if (!Coordinates() || !BoundTo(identity_.node_uuid).empty()) return;
  std::optional<std::vector<Founder>> founders = Survey();
  if (!founders) return;
  // After a crash of the coordinator its promise still stands; the same founders take it up again.
  const bool again = identity_.state == State::kPromised &&
                     identity_.record->token_hash == options_.token_hash &&
                     SameFounders(identity_.record->founders, *founders);
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
  for (const auto& [name, peer] : peers_) {
    if (proposal_->promised.contains(name)) continue;
    output.asks.push_back(
        {.kind = Ask::Kind::kPrepare, .to = name, .round = 0, .record = proposal_->record});
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
  if (proposal_->promised.size() == peers_.size()) BecomeMember(proposal_->record, output);
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
    for (const auto& [name, peer] : peers_) {
      output.asks.push_back({.kind = Ask::Kind::kCommit, .to = name, .round = 0, .record = record});
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
  if (identity_.state == State::kMember || identity_.state == State::kRemoved) {
    return fmt::format("\"{}\" is {} of cluster {}", options_.name,
                       identity_.state == State::kMember ? "a member" : "a removed member",
                       Id(identity_.cluster_id));
  }
  if (record.token_hash != options_.token_hash) return "another --initial-cluster-token";
  const bool same_list =
      std::ranges::equal(record.founders, options_.list, [](const Founder& a, const Listed& b) {
        return a.name == b.name && a.peer_urls == b.peer_urls;
      });
  if (!same_list) return "another --initial-cluster list";
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
      record.attempt <= identity_.record->attempt) {
    return "a newer founding record was promised";
  }
  return "";
}

std::string Founding::BoundTo(std::string_view proposer_uuid) const {
  if (identity_.state != State::kPromised) return "";
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
  if (identity_.state != State::kPromised || *identity_.record != record) {
    output.refusal = fmt::format("\"{}\" has not promised this record", options_.name);
    return output;
  }
  BecomeMember(record, output);
  return output;
}

Standing Founding::standing() const {
  Standing standing;
  standing.name = options_.name;
  standing.node_uuid = identity_.node_uuid;
  standing.state = identity_.state;
  standing.cluster_id = identity_.cluster_id;
  standing.member_id = identity_.member_id;
  standing.boot_epoch = identity_.boot_epoch;
  standing.record = identity_.record;
  standing.token_hash = options_.token_hash;
  standing.config_hash = options_.config_hash;
  standing.version = options_.version;
  const auto self = std::ranges::find(options_.list, options_.name, &Listed::name);
  standing.peer_urls = self->peer_urls;
  standing.client_urls = options_.client_urls;
  return standing;
}

std::vector<std::string> Founding::Missing() const {
  std::vector<std::string> missing;
  if (founded()) return missing;
  for (const auto& [name, peer] : peers_) {
    if (peer.reason.empty()) continue;
    missing.push_back(
        fmt::format("{} ({}): {}", name, fmt::join(peer.listed.peer_urls, ","), peer.reason));
  }
  if (Coordinates()) {
    if (std::string bound = BoundTo(identity_.node_uuid); !bound.empty()) missing.push_back(bound);
  }
  return missing;
}

}  // namespace kv::cluster

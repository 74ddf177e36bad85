#include "server/cluster/admission.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "server/raft/describe.h"
#include "storage/mark.h"

namespace kv::cluster {
namespace {

using Kind = JoinAnswer::Kind;

JoinDecision Refused(std::string sentence) {
  return {.kind = Kind::kRefused, .sentence = std::move(sentence), .member_id = 0, .change = {}};
}

JoinDecision Retry(std::string sentence) {
  return {.kind = Kind::kRetry, .sentence = std::move(sentence), .member_id = 0, .change = {}};
}

JoinDecision Granted(MemberId id, std::optional<raft::MemberChange> change) {
  return {.kind = Kind::kGranted, .sentence = {}, .member_id = id, .change = std::move(change)};
}

// Whether the disk fits the cluster at all. Empty: it does.
std::string Misfit(const JoinRequest& request, const JoinFacts& facts) {
  if (request.token_hash != facts.token_hash && !MUTANT("join.any_token")) {
    return "its token differs from the cluster's; give it the same --initial-cluster-token";
  }
  if (request.machine_version < facts.cluster_version) {
    return fmt::format(
        "its release ({}) has machine version {}, and the members run {}: start a newer one",
        request.version, request.machine_version, facts.cluster_version);
  }
  return {};
}

// A disk that is known already. It may ask again as long as nobody counts on what it holds.
JoinDecision GrantAgain(const raft::Members& members, MemberId id, const JoinFacts& facts) {
  const bool relied_on = members.IsVoter(id) || SightOf(facts.sights, id).spoke;
  if (!relied_on || MUTANT("join.forgetful_disk_is_granted_again")) return Granted(id, {});
  return Refused(fmt::format(
      "this disk was {} and has forgotten it: a copy from before that was put back; empty it "
      "whole, and it joins as a new one",
      NameOf(members, id)));
}

// Whether the slot is one of those that are wanted. Empty: it is.
std::string Unwanted(const UpkeepOptions& options, const JoinRequest& request,
                     const JoinFacts& facts) {
  if (options.slot_prefix.empty() || !facts.counted) return {};
  if (!SlotNumber(options.slot_prefix, request.name)) {
    return fmt::format("\"{}\" is no slot: those are {}-0, {}-1 and so on", request.name,
                       options.slot_prefix, options.slot_prefix);
  }
  if (!facts.desired) return "how many members are wanted is not known yet";
  if (facts.desired->count == 0) return "the wanted count is 0: suspended";
  if (IsWanted(options, *facts.desired, request.name)) return {};
  return fmt::format("slot {} is not wanted: the wanted count is {}", request.name,
                     facts.desired->count);
}

// Somebody else under the same address or name whom the leader may not touch. Empty: nobody.
std::string Obstacle(const raft::Members& members, const JoinRequest& request) {
  for (const MemberId id : members.All()) {
    const std::optional<MemberRecord> record = RecordOf(members, id);
    if (!record || (record->kept && record->name == request.name)) continue;
    const bool shares = ShareAny(request.peer_urls, record->peer_urls);
    if (!shares && record->name != request.name) continue;
    return fmt::format(
        "the {} belongs to {}, which did not come by itself under that name; if it is gone, "
        "\"kvctl member remove {:x}\"",
        shares ? "address" : "name", NameOf(members, id), id);
  }
  return {};
}

// Why the slot's member may not be taken for lost. Empty: it may.
std::string StillThere(const UpkeepOptions& options, const raft::Members& members, MemberId holder,
                       const JoinFacts& facts) {
  const Sight& sight = SightOf(facts.sights, holder);
  const std::optional<MemberRecord> record = RecordOf(members, holder);
  const bool answers =
      record && facts.answering.contains(record->node_uuid) && !MUTANT("join.hello_unheeded");
  if ((sight.active && !MUTANT("join.active_is_lost")) || answers) {
    return fmt::format("SLOT_IN_USE: {} still answers, from another disk; end that process",
                       NameOf(members, holder));
  }
  if (sight.silent < options.replace_after_inactive && !MUTANT("join.lost_at_once")) {
    return fmt::format("waits until {} has been silent for {}", NameOf(members, holder),
                       absl::FormatDuration(options.replace_after_inactive));
  }
  if (!members.IsVoter(holder)) return {};
  std::vector<MemberId> rest = members.voters;
  std::erase(rest, holder);
  const size_t active = CountActive(rest, facts.sights);
  if (IsMajority(active, members.voters)) return {};
  return fmt::format(
      "{} is lost, and {} of {} voters answer: too few to replace it; start the others, or see "
      "\"kvctl recover plan\"",
      NameOf(members, holder), active, members.voters.size());
}

size_t CountCatchingUp(const UpkeepOptions& options, const raft::Members& members,
                       const Sights& sights) {
  return static_cast<size_t>(std::ranges::count_if(members.learners, [&](MemberId id) {
    const std::optional<MemberRecord> record = RecordOf(members, id);
    const Sight& sight = SightOf(sights, id);
    // One that went away holds up nobody for long.
    return record && record->kept && !sight.ready && sight.silent < options.replace_after_inactive;
  }));
}

// Whether there is room for one more. Empty: there is.
std::string Crowded(const UpkeepOptions& options, const raft::Members& members, bool replaces,
                    const JoinFacts& facts) {
  const size_t catching_up = CountCatchingUp(options, members, facts.sights);
  if (catching_up >= options.max_catching_up && !MUTANT("join.everybody_at_once")) {
    return fmt::format("waits for {} that are catching up", catching_up);
  }
  const size_t others = members.voters.size() + catching_up;
  if (!replaces && others >= options.max_voters && !options.standby_learners) {
    return fmt::format("there are {} voters, the most; allow --standby-learners, or want fewer",
                       members.voters.size());
  }
  return {};
}

JoinDecision TakeIn(const raft::Members& members, const JoinRequest& request,
                    const std::vector<MemberId>& holders, MemberId id) {
  raft::MemberChange change;
  change.targets.push_back({.id = id,
                            .fate = raft::MemberFate::kLearner,
                            .record = Encode(MemberRecord{.name = request.name,
                                                          .peer_urls = request.peer_urls,
                                                          .client_urls = request.client_urls,
                                                          .node_uuid = request.node_uuid,
                                                          .kept = true})});
  // A lost learner's place is free at once; a lost voter stays until the new disk can vote.
  for (const MemberId holder : holders) {
    if (members.IsVoter(holder) && !MUTANT("join.lost_voter_goes_first")) continue;
    change.targets.push_back({.id = holder, .fate = raft::MemberFate::kRemoved, .record = {}});
  }
  change.from = members;
  return Granted(id, std::move(change));
}

}  // namespace

JoinDecision Decide(const UpkeepOptions& options, const raft::Members& members,
                    const JoinRequest& request, const JoinFacts& facts) {
  if (std::string why = Misfit(request, facts); !why.empty()) return Refused(std::move(why));
  for (const MemberId id : members.All()) {
    const std::optional<MemberRecord> record = RecordOf(members, id);
    if (record && record->node_uuid == request.node_uuid) return GrantAgain(members, id, facts);
  }
  if (std::string why = Unwanted(options, request, facts); !why.empty()) {
    return Retry(std::move(why));
  }
  if (std::string why = Obstacle(members, request); !why.empty()) return Retry(std::move(why));
  const std::vector<MemberId> holders = Holders(members, request.name);
  for (const MemberId holder : holders) {
    std::string why = StillThere(options, members, holder, facts);
    if (!why.empty()) return Retry(std::move(why));
  }
  if (std::string why = Crowded(options, members, !holders.empty(), facts); !why.empty()) {
    return Retry(std::move(why));
  }
  const MemberId id = facts.fresh_id;
  if (id == 0 || members.IsMember(id) || members.IsRemoved(id)) return Retry("drawing another id");
  return TakeIn(members, request, holders, id);
}

std::vector<MemberRecord> Rivals(const raft::Members& members, const JoinRequest& request) {
  std::vector<MemberRecord> rivals;
  for (const MemberId id : Holders(members, request.name)) {
    std::optional<MemberRecord> record = RecordOf(members, id);
    if (record->node_uuid != request.node_uuid) rivals.push_back(*std::move(record));
  }
  return rivals;
}

}  // namespace kv::cluster

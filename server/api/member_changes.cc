#include "server/api/member_changes.h"

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <string_view>
#include <utility>

#include "server/api/errors.h"
#include "storage/status.h"

namespace kv::api {
namespace {

bool Before(const ShownMember& a, const ShownMember& b) {
  const auto first = [](const ShownMember& member) {
    return member.record.peer_urls.empty() ? std::string() : member.record.peer_urls.front();
  };
  return first(a) != first(b) ? first(a) < first(b) : a.id < b.id;
}

const ShownMember* Find(const std::vector<ShownMember>& members, MemberId id) {
  const auto at = std::ranges::find(members, id, &ShownMember::id);
  return at == members.end() ? nullptr : &*at;
}

// Another member listens there.
bool IsTaken(const std::vector<ShownMember>& members, MemberId but,
             const std::vector<std::string>& urls) {
  return std::ranges::any_of(members, [&](const ShownMember& member) {
    return member.id != but && std::ranges::any_of(urls, [&member](const std::string& url) {
             return std::ranges::find(member.record.peer_urls, url) !=
                    member.record.peer_urls.end();
           });
  });
}

// How many voters there are, and how many of them ever started.
struct Voters {
  size_t all = 0;
  size_t started = 0;
  bool StartedQuorum() const { return started >= all / 2 + 1; }
};
Voters CountVoters(const std::vector<ShownMember>& members, MemberId but) {
  Voters voters;
  for (const ShownMember& member : members) {
    if (member.learner || member.id == but) continue;
    ++voters.all;
    if (member.started()) ++voters.started;
  }
  return voters;
}

raft::MemberChange ChangeOf(const raft::Members& members, raft::MemberTarget target,
                            raft::MemberGuard guard) {
  raft::MemberChange change;
  change.targets.push_back(std::move(target));
  change.from = members;
  change.guard = guard;
  return change;
}

bool IsPeerUrl(std::string_view url) {
  bool known = false;
  for (const std::string_view scheme : {"http://", "https://"}) {
    if (!url.starts_with(scheme)) continue;
    url.remove_prefix(scheme.size());
    known = true;
    break;
  }
  const size_t colon = url.rfind(':');
  if (!known || colon == std::string_view::npos || colon == 0) return false;
  const std::string_view host = url.substr(0, colon);
  const std::string_view port = url.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (!bracketed && host.find(':') != std::string_view::npos) return false;
  if (host.find_first_of("/?#@ ") != std::string_view::npos) return false;
  uint16_t number = 0;
  const auto read = std::from_chars(port.data(), port.data() + port.size(), number);
  return read.ec == std::errc() && read.ptr == port.data() + port.size();
}

}  // namespace

std::vector<ShownMember> ShownMembers(const raft::Members& members) {
  std::vector<ShownMember> shown;
  for (const MemberId id : members.All()) {
    ShownMember& member = shown.emplace_back();
    member.id = id;
    std::optional<MemberRecord> record = RecordOf(members, id);
    if (record) member.record = *std::move(record);
    member.learner = members.IsLearner(id) && !member.record.joins_as_voter;
  }
  std::ranges::sort(shown, Before);
  return shown;
}

absl::StatusOr<raft::MemberChange> PlanAdd(const raft::Members& members, const NewMember& added,
                                           size_t learners_max) {
  const std::vector<ShownMember> shown = ShownMembers(members);
  if (!added.learner) {
    Voters voters = CountVoters(shown, 0);
    ++voters.all;
    // One member that grows to two: there is no other way to begin.
    const bool first = voters.started == 1 && voters.all == 2;
    if (!first && !voters.StartedQuorum()) return ToStatus(Error::kMemberNotEnoughStarted);
  }
  if (IsTaken(shown, 0, added.peer_urls)) return ToStatus(Error::kPeerUrlExists);
  const auto learners = static_cast<size_t>(std::ranges::count_if(shown, &ShownMember::learner));
  if (added.learner && learners >= learners_max) return ToStatus(Error::kTooManyLearners);
  const MemberRecord record{.name = {},
                            .peer_urls = added.peer_urls,
                            .client_urls = {},
                            .node_uuid = {},
                            .joins_as_voter = !added.learner};
  return ChangeOf(members,
                  {.id = added.id, .fate = raft::MemberFate::kLearner, .record = Encode(record)},
                  raft::MemberGuard::kAllActive);
}

absl::StatusOr<raft::MemberChange> PlanRemove(const raft::Members& members, MemberId id) {
  const std::vector<ShownMember> shown = ShownMembers(members);
  const ShownMember* gone = Find(shown, id);
  if (gone == nullptr) return ToStatus(Error::kMemberNotFound);
  if (!gone->learner && !CountVoters(shown, id).StartedQuorum()) {
    return ToStatus(Error::kMemberNotEnoughStarted);
  }
  return ChangeOf(
      members, {.id = id, .fate = raft::MemberFate::kRemoved, .record = std::nullopt},
      members.IsVoter(id) ? raft::MemberGuard::kQuorumActive : raft::MemberGuard::kNone);
}

absl::StatusOr<raft::MemberChange> PlanUpdate(const raft::Members& members, MemberId id,
                                              std::vector<std::string> peer_urls) {
  const std::vector<ShownMember> shown = ShownMembers(members);
  const ShownMember* member = Find(shown, id);
  if (member == nullptr) return ToStatus(Error::kMemberNotFound);
  if (IsTaken(shown, id, peer_urls)) return ToStatus(Error::kPeerUrlExists);
  ASSIGN_OR_RETURN(peer_urls, CheckPeerUrls(std::move(peer_urls)));
  MemberRecord record = member->record;
  record.peer_urls = std::move(peer_urls);
  return ChangeOf(
      members,
      {.id = id,
       .fate = members.IsVoter(id) ? raft::MemberFate::kVoter : raft::MemberFate::kLearner,
       .record = Encode(record)},
      raft::MemberGuard::kNone);
}

absl::StatusOr<raft::MemberChange> PlanPromote(const raft::Members& members, MemberId id) {
  const std::vector<ShownMember> shown = ShownMembers(members);
  const ShownMember* member = Find(shown, id);
  if (member == nullptr) return ToStatus(Error::kMemberNotFound);
  if (!member->learner) return ToStatus(Error::kMemberNotLearner);
  if (!member->started()) return ToStatus(Error::kLearnerNotReady);
  Voters voters = CountVoters(shown, id);
  ++voters.all;
  ++voters.started;
  if (!voters.StartedQuorum()) return ToStatus(Error::kMemberNotEnoughStarted);
  return ChangeOf(members, {.id = id, .fate = raft::MemberFate::kVoter, .record = std::nullopt},
                  raft::MemberGuard::kCaughtUp);
}

absl::StatusOr<std::vector<std::string>> CheckPeerUrls(std::vector<std::string> urls) {
  if (urls.empty()) return ToStatus(Error::kMemberBadUrls);
  for (std::string& url : urls) {
    url.erase(0, url.find_first_not_of(" \t\r\n"));
    url.erase(url.find_last_not_of(" \t\r\n") + 1);
    if (!IsPeerUrl(url)) return ToStatus(Error::kMemberBadUrls);
  }
  std::ranges::sort(urls);
  return urls;
}

}  // namespace kv::api

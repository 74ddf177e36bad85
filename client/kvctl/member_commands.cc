#include <fmt/format.h>

#include <charconv>
#include <optional>
#include <utility>

#include "client/kvctl/commands.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

int List(const Arguments& arguments) {
  absl::StatusOr<bool> serializable = Serializable(arguments.String("consistency"));
  if (!serializable.ok()) return Fail(serializable.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  pb::MemberListRequest request;
  request.set_linearizable(!*serializable);
  auto answer =
      session->Connect()->CallAndWait(client::kMemberList, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session->style()));
  return kOk;
}

// The only argument, a member's id as the lists show it.
absl::StatusOr<uint64_t> MemberId(const Arguments& arguments) {
  if (arguments.rest.size() != 1) return Refused("member ID is not provided");
  const std::string& text = arguments.rest[0];
  uint64_t id = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), id, 16);
  if (read.ec == std::errc() && read.ptr == text.data() + text.size()) return id;
  return Refused(
      fmt::format("bad member ID arg ({} is no number), expecting ID in Hex", GoQuoted(text)));
}

absl::StatusOr<std::vector<std::string>> PeerUrls(const Arguments& arguments) {
  std::vector<std::string> urls = arguments.Strings("peer-urls");
  if (urls.empty()) return Refused("member peer urls not provided");
  return urls;
}

// Sends a change and shows what came of it; `describe` makes the simple format's words.
template <typename Method, typename Describe>
int Change(const Arguments& arguments, const Method& method,
           const typename Method::Request& request, Describe describe) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (!Show(typename Method::Response(), session->style(), "")) {
    return Fail(kBadFeature,
                fmt::format("{} not supported as output format", Name(session->style().format)));
  }
  auto answer = session->Connect()->CallAndWait(method, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session->style(), describe(answer.response)));
  return kOk;
}

// What the new member is to be started with, as kvd reads its environment.
std::string AddedText(const std::string& name, const pb::MemberAddResponse& response) {
  const pb::Member& added = response.member();
  std::string cluster;
  std::string advertised;
  for (const std::string& url : added.peerurls()) {
    cluster += fmt::format("{}{}={}", cluster.empty() ? "" : ",", name, url);
    advertised += (advertised.empty() ? "" : ",") + url;
  }
  for (const pb::Member& member : response.members()) {
    if (member.id() == added.id()) continue;
    for (const std::string& url : member.peerurls()) {
      cluster += fmt::format(",{}={}", member.name(), url);
    }
  }
  return fmt::format(
      "Member {:16x} added{} to cluster {:16x}\n\nKVD_NAME=\"{}\"\nKVD_INITIAL_CLUSTER=\"{}\"\n"
      "KVD_INITIAL_ADVERTISE_PEER_URLS=\"{}\"\nKVD_INITIAL_CLUSTER_STATE=\"existing\"\n",
      added.id(), added.islearner() ? " as learner" : "", response.header().cluster_id(), name,
      cluster, advertised);
}

int Add(const Arguments& arguments) {
  if (arguments.rest.empty()) return Fail(Refused("member name not provided"));
  if (arguments.rest.size() > 1) return Fail(Refused("too many arguments"));
  absl::StatusOr<std::vector<std::string>> urls = PeerUrls(arguments);
  if (!urls.ok()) return Fail(urls.status());
  pb::MemberAddRequest request;
  for (const std::string& url : *urls) request.add_peerurls(url);
  request.set_islearner(arguments.Bool("learner"));
  return Change(arguments, client::kMemberAdd, request, [&](const pb::MemberAddResponse& response) {
    return AddedText(arguments.rest[0], response);
  });
}

int Remove(const Arguments& arguments) {
  absl::StatusOr<uint64_t> id = MemberId(arguments);
  if (!id.ok()) return Fail(id.status());
  pb::MemberRemoveRequest request;
  request.set_id(*id);
  return Change(arguments, client::kMemberRemove, request, [&](const auto& response) {
    return fmt::format("Member {:16x} removed from cluster {:16x}\n", *id,
                       response.header().cluster_id());
  });
}

int Update(const Arguments& arguments) {
  absl::StatusOr<uint64_t> id = MemberId(arguments);
  if (!id.ok()) return Fail(id.status());
  absl::StatusOr<std::vector<std::string>> urls = PeerUrls(arguments);
  if (!urls.ok()) return Fail(urls.status());
  pb::MemberUpdateRequest request;
  request.set_id(*id);
  for (const std::string& url : *urls) request.add_peerurls(url);
  return Change(arguments, client::kMemberUpdate, request, [&](const auto& response) {
    return fmt::format("Member {:16x} updated in cluster {:16x}\n", *id,
                       response.header().cluster_id());
  });
}

int Promote(const Arguments& arguments) {
  absl::StatusOr<uint64_t> id = MemberId(arguments);
  if (!id.ok()) return Fail(id.status());
  pb::MemberPromoteRequest request;
  request.set_id(*id);
  return Change(arguments, client::kMemberPromote, request, [&](const auto& response) {
    return fmt::format("Member {:16x} promoted in cluster {:16x}\n", *id,
                       response.header().cluster_id());
  });
}

}  // namespace

Command MemberCommand() {
  const Flag peer_urls{.name = "peer-urls",
                       .type = FlagType::kString,
                       .help = "where the other members find it, separated by commas"};
  return {.name = "member",
          .group = "Cluster",
          .summary = "Who belongs to the cluster",
          .children = {
              {.name = "add",
               .summary = "Makes room for a new member, and says how to start it",
               .arguments = "<name>",
               .text = "The new process claims the record by its peer URLs. A voter gets its vote "
                       "once it has started and caught\nup; a learner stays one until it is "
                       "promoted.\n\n"
                       "Examples:\n"
                       "  kvctl member add d --peer-urls=http://10.0.0.4:2380\n"
                       "  kvctl member add d --peer-urls=http://10.0.0.4:2380 --learner",
               .flags = {peer_urls, {.name = "learner", .help = "without a vote"}},
               .run = Add},
              {.name = "list",
               .summary = "Lists the members",
               .text = "In the simple format: ID, status, name, peer URLs, client URLs, "
                       "is learner.\n\n"
                       "Examples:\n"
                       "  kvctl member list -w table\n"
                       "  kvctl member list --consistency s   # without a quorum",
               .flags = {{.name = "consistency",
                          .type = FlagType::kString,
                          .fallback = "l",
                          .help = "l: linearizable; s: what the asked member knows",
                          .choices = {"l", "s"}}},
               .run = List},
              {.name = "promote",
               .summary = "Gives a learner that has caught up its vote",
               .arguments = "<id>",
               .run = Promote},
              {.name = "remove",
               .summary = "Removes a member; its process ends and does not start again",
               .arguments = "<id>",
               .run = Remove},
              {.name = "update",
               .summary = "Changes where the others look for a member; start it there next",
               .arguments = "<id>",
               .flags = {peer_urls},
               .run = Update}}};
}

}  // namespace kv::kvctl

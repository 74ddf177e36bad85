#include <fmt/format.h>
#include <fmt/ranges.h>

#include <charconv>
#include <chrono>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

absl::StatusOr<Session> OpenFor(const Arguments& arguments, bool can_show(const Style&)) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok() || can_show(session->style())) return session;
  return Refused(fmt::format("{} not supported as output format", Name(session->style().format)),
                 absl::StatusCode::kUnimplemented);
}

bool ShowsAlarms(const Style& style) { return Show(pb::AlarmResponse(), style).has_value(); }

client::Answer<pb::AlarmResponse> AskAlarms(const Session& session) {
  return session.Connect()->CallAndWait(client::kAlarmGet, pb::AlarmRequest(),
                                        session.call_options());
}

int ListAlarms(const Arguments& arguments) {
  if (!arguments.rest.empty()) return Fail(Refused("alarm list command accepts no arguments"));
  absl::StatusOr<Session> session = OpenFor(arguments, ShowsAlarms);
  if (!session.ok()) return Fail(session.status());
  auto answer = AskAlarms(*session);
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session->style()));
  return kOk;
}

int Disarm(const Arguments& arguments) {
  if (!arguments.rest.empty()) return Fail(Refused("alarm disarm command accepts no arguments"));
  absl::StatusOr<Session> session = OpenFor(arguments, ShowsAlarms);
  if (!session.ok()) return Fail(session.status());
  auto raised = AskAlarms(*session);
  if (!raised.ok()) return Fail(kError, Complaint(raised));
  pb::AlarmResponse disarmed;
  for (const pb::AlarmMember& alarm : raised.response.alarms()) {
    pb::AlarmRequest request;
    request.set_action(pb::AlarmRequest::DEACTIVATE);
    request.set_memberid(alarm.memberid());
    request.set_alarm(alarm.alarm());
    auto answer =
        session->Connect()->CallAndWait(client::kAlarmChange, request, session->call_options());
    if (!answer.ok()) return Fail(kError, Complaint(answer));
    disarmed.mutable_alarms()->MergeFrom(answer.response.alarms());
  }
  Print(*Show(disarmed, session->style()));
  return kOk;
}

int Defragment(const Arguments& arguments) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  absl::StatusOr<std::vector<std::string>> endpoints = session->options().endpoints;
  if (arguments.Bool("cluster")) endpoints = session->MemberEndpoints();
  if (!endpoints.ok()) return Fail(endpoints.status());
  int code = kOk;
  for (const std::string& endpoint : *endpoints) {
    const auto begin = std::chrono::steady_clock::now();
    auto answer = session->Connect(endpoint)->CallAndWait(
        client::kDefragment, pb::DefragmentRequest(), session->call_options());
    const std::string took = GoDuration(absl::FromChrono(std::chrono::steady_clock::now() - begin));
    if (answer.ok()) {
      Print(fmt::format("Finished defragmenting etcd member[{}]. took {}\n", endpoint, took));
    } else {
      fmt::print(stderr, "Failed to defragment etcd member[{}]. took {}. ({})\n", endpoint, took,
                 Complaint(answer));
      code = kError;
    }
  }
  return code;
}

int Downgrade(const Arguments& arguments, pb::DowngradeRequest::DowngradeAction action,
              std::string_view verb) {
  pb::DowngradeRequest request;
  request.set_action(action);
  if (action != pb::DowngradeRequest::CANCEL) {
    if (arguments.rest.empty()) return Fail(Refused("TARGET_VERSION not provided"));
    if (arguments.rest.size() > 1) return Fail(Refused("too many arguments"));
    request.set_version(arguments.rest[0]);
  }
  absl::StatusOr<Session> session = OpenFor(arguments, [](const Style& style) {
    return Show(pb::DowngradeResponse(), style, "").has_value();
  });
  if (!session.ok()) return Fail(session.status());
  auto answer =
      session->Connect()->CallAndWait(client::kDowngrade, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(
      answer.response, session->style(),
      fmt::format("Downgrade {} success, cluster version {}\n", verb, answer.response.version())));
  return kOk;
}

int MoveLeader(const Arguments& arguments) {
  if (arguments.rest.size() != 1) return Fail(Refused("move-leader command needs 1 argument"));
  const std::string& text = arguments.rest[0];
  uint64_t target = 0;
  const auto read = std::from_chars(text.data(), text.data() + text.size(), target, 16);
  if (read.ec != std::errc() || read.ptr != text.data() + text.size()) {
    return Fail(Refused(
        fmt::format("bad member ID arg ({} is no number), expecting ID in Hex", GoQuoted(text))));
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  // Only the leader takes the request.
  for (const std::string& endpoint : session->options().endpoints) {
    auto status = session->Connect(endpoint)->CallAndWait(client::kStatus, pb::StatusRequest(),
                                                          session->call_options());
    if (!status.ok()) return Fail(kError, Complaint(status));
    const uint64_t leader = status.response.leader();
    if (status.response.header().member_id() != leader) continue;
    pb::MoveLeaderRequest request;
    request.set_targetid(target);
    auto answer = session->Connect(endpoint)->CallAndWait(client::kMoveLeader, request,
                                                          session->call_options());
    if (!answer.ok()) return Fail(kError, Complaint(answer));
    Print(fmt::format("Leadership transferred from {:x} to {:x}\n", leader, target));
    return kOk;
  }
  return Fail(Refused(fmt::format("no leader endpoint given at [{}]",
                                  fmt::join(session->options().endpoints, " "))));
}

}  // namespace

std::vector<Command> MaintenanceCommands() {
  constexpr std::string_view kGroup = "Cluster";
  const auto downgrade = [](std::string_view name, std::string_view summary, std::string_view rest,
                            pb::DowngradeRequest::DowngradeAction action) {
    return Command{.name = name,
                   .summary = summary,
                   .arguments = rest,
                   .run = [action, name](const Arguments& arguments) {
                     return Downgrade(arguments, action, name);
                   }};
  };
  return {
      {.name = "alarm",
       .group = kGroup,
       .summary = "Alarms: NOSPACE (a quota is full), CORRUPT (members differ)",
       .children = {{.name = "disarm", .summary = "Lifts all alarms", .run = Disarm},
                    {.name = "list", .summary = "Lists all alarms", .run = ListAlarms}}},
      {.name = "defrag",
       .group = kGroup,
       .summary = "Does nothing: kvd gives space back by itself",
       .text = "Here so that scripts written for etcd go on working.",
       .flags = {{.name = "cluster", .help = "every member of the member list"}},
       .run = Defragment},
      {.name = "downgrade",
       .group = kGroup,
       .summary = "Checks, notes or cancels a downgrade by one minor version",
       .text = "It is remembered and shown by `endpoint status`, and changes nothing else.",
       .children = {downgrade("cancel", "Forgets the downgrade", "", pb::DowngradeRequest::CANCEL),
                    downgrade("enable", "Notes a downgrade", "<version>",
                              pb::DowngradeRequest::ENABLE),
                    downgrade("validate", "Asks whether a downgrade would be taken", "<version>",
                              pb::DowngradeRequest::VALIDATE)}},
      {.name = "move-leader",
       .group = kGroup,
       .summary = "Hands the leadership to another member",
       .arguments = "<id>",
       .text = "The leader must be among --endpoints.\n\n"
               "Examples:\n"
               "  kvctl move-leader 8e9e05c52164694d",
       .run = MoveLeader}};
}

}  // namespace kv::kvctl

#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <future>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

absl::StatusOr<std::vector<std::string>> EndpointsOf(const Arguments& arguments,
                                                     const Session& session) {
  if (!arguments.Bool("cluster")) return session.options().endpoints;
  absl::StatusOr<std::vector<std::string>> endpoints = session.MemberEndpoints();
  if (endpoints.ok() && endpoints->empty()) {
    return Refused("no member has published a client URL", absl::StatusCode::kUnknown);
  }
  return endpoints;
}

// Asks every endpoint at the same time; the results are in the order of the endpoints.
template <typename Result>
std::vector<Result> AskAll(const std::vector<std::string>& endpoints,
                           const std::function<Result(const std::string&)>& ask) {
  std::vector<std::future<Result>> asked;
  for (const std::string& endpoint : endpoints) {
    asked.push_back(std::async(std::launch::async, ask, endpoint));
  }
  std::vector<Result> results;
  for (auto& result : asked) results.push_back(result.get());
  return results;
}

// A URL of the member list that cannot be parsed is a failed endpoint, not a failed command.
template <typename Method>
client::Answer<typename Method::Response> Ask(const Session& session, const std::string& endpoint,
                                              const Method& method,
                                              const typename Method::Request& request) {
  client::Options options = session.options();
  options.endpoints = {endpoint};
  if (absl::Status status = client::Client::Check(options); !status.ok()) {
    client::Answer<typename Method::Response> answer;
    answer.status = status;
    answer.fate = client::Fate::kNotDone;
    return answer;
  }
  client::CallOptions call = session.call_options();
  call.attempt_timeout = call.timeout;  // There is nobody else to ask.
  return session.Connect(endpoint)->CallAndWait(method, request, call);
}

std::string AlarmNames(const pb::AlarmResponse& response) {
  std::string names = "Active Alarm(s): ";
  for (const pb::AlarmMember& alarm : response.alarms()) {
    names += alarm.alarm() == pb::NOSPACE   ? "NOSPACE "
             : alarm.alarm() == pb::CORRUPT ? "CORRUPT "
                                            : "UNKNOWN ";
  }
  return names;
}

EndpointHealth AskHealth(const Session& session, const std::string& endpoint) {
  EndpointHealth health{.endpoint = endpoint, .took = {}, .error = {}};
  auto begin = std::chrono::steady_clock::now();
  pb::RangeRequest request;
  request.set_key("health");
  auto answer = Ask(session, endpoint, client::kRange, request);
  health.took = absl::FromChrono(std::chrono::steady_clock::now() - begin);
  // Whoever may not read was answered by a quorum all the same.
  bool served = answer.ok() || answer.status.code() == absl::StatusCode::kPermissionDenied;
  if (!served) {
    health.error = Complaint(answer);
    return health;
  }
  auto alarms = Ask(session, endpoint, client::kAlarmGet, pb::AlarmRequest());
  if (!alarms.ok()) {
    health.error = "Unable to fetch the alarm list";
  } else if (alarms.response.alarms_size() > 0) {
    health.error = AlarmNames(alarms.response);
  }
  health.healthy = health.error.empty();
  return health;
}

int Health(const Arguments& arguments) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (auto can = session->CanShow(std::vector<EndpointHealth>()); !can.ok()) return Fail(can);
  absl::StatusOr<std::vector<std::string>> endpoints = EndpointsOf(arguments, *session);
  if (!endpoints.ok()) return Fail(endpoints.status());
  std::vector<EndpointHealth> list = AskAll<EndpointHealth>(
      *endpoints, [&](const std::string& endpoint) { return AskHealth(*session, endpoint); });
  bool all_well = true;
  for (const EndpointHealth& health : list) {
    if (health.healthy) continue;
    all_well = false;
    if (session->style().format == Format::kSimple) {
      fmt::print(stderr, "{} is unhealthy: failed to commit proposal: {}\n", health.endpoint,
                 health.error);
    }
  }
  Print(*Show(list, session->style()));
  return all_well ? kOk : Fail(kError, "unhealthy cluster");
}

// Prints what the endpoints answered; those that did not are named on stderr.
template <typename Item, typename Method, typename Make>
int ShowAnswers(const Arguments& arguments, const Method& method,
                const typename Method::Request& request, std::string_view what, Make make,
                std::string* error) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (auto can = session->CanShow(std::vector<Item>()); !can.ok()) return Fail(can);
  absl::StatusOr<std::vector<std::string>> endpoints = EndpointsOf(arguments, *session);
  if (!endpoints.ok()) return Fail(endpoints.status());
  using Answered = client::Answer<typename Method::Response>;
  std::vector<Answered> answers = AskAll<Answered>(*endpoints, [&](const std::string& endpoint) {
    return Ask(*session, endpoint, method, request);
  });
  std::vector<Item> list;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (answers[i].ok()) {
      list.push_back(make((*endpoints)[i], std::move(answers[i].response)));
      continue;
    }
    *error = Complaint(answers[i]);
    fmt::print(stderr, "Failed to get the {} of endpoint {} ({})\n", what, (*endpoints)[i], *error);
  }
  Print(*Show(list, session->style()));
  return error->empty() ? kOk : kError;
}

int Status(const Arguments& arguments) {
  std::string error;
  return ShowAnswers<EndpointStatus>(
      arguments, client::kStatus, pb::StatusRequest(), "status",
      [](const std::string& endpoint, pb::StatusResponse response) {
        return EndpointStatus{.endpoint = endpoint, .status = std::move(response)};
      },
      &error);
}

int HashKv(const Arguments& arguments) {
  pb::HashKVRequest request;
  request.set_revision(arguments.Int("rev"));
  std::string error;
  int code = ShowAnswers<EndpointHash>(
      arguments, client::kHashKV, request, "hash",
      [](const std::string& endpoint, pb::HashKVResponse response) {
        return EndpointHash{.endpoint = endpoint, .hash = std::move(response)};
      },
      &error);
  return error.empty() ? code : Fail(kError, error);
}

}  // namespace

Command EndpointCommand() {
  return {
      .name = "endpoint",
      .group = "Cluster",
      .summary = "Asks members one by one: health, status, hash",
      .flags = {{.name = "cluster", .help = "ask every member of the member list"}},
      .children = {
          {.name = "health",
           .summary = "Whether each endpoint serves reads that need a quorum",
           .text = "Exit code 1 if one does not.\n\n"
                   "Examples:\n"
                   "  kvctl endpoint health --cluster\n"
                   "  kvctl --endpoints db1:2379,db2:2379 endpoint health -w table",
           .run = Health},
          {.name = "status",
           .summary = "What each endpoint says of itself",
           .text = "In the simple format: endpoint, ID, version, storage version, db size, in use, "
                   "percentage not in use,\nquota, is leader, is learner, raft term, raft index, "
                   "raft applied index, errors, downgrade\ntarget version, downgrade enabled. "
                   "`kvctl status` is shorter and knows the members by name.\n\n"
                   "Examples:\n"
                   "  kvctl endpoint status --cluster -w table",
           .run = Status},
          {.name = "hashkv",
           .summary = "A hash over the keys of each endpoint",
           .text = "Members that hold the same data have the same hash at the same revision.\n\n"
                   "Examples:\n"
                   "  kvctl endpoint hashkv --cluster\n"
                   "  kvctl endpoint hashkv --cluster --rev 1000",
           .flags = {{.name = "rev",
                      .type = FlagType::kInt,
                      .help = "hash up to this revision (0: the newest)"}},
           .run = HashKv},
      }};
}

}  // namespace kv::kvctl

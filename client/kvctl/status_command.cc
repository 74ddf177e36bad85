#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <future>
#include <map>
#include <set>
#include <tuple>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

struct Line {
  std::string endpoint;
  std::string name;
  uint64_t id = 0;
  std::optional<pb::StatusResponse> status;
  std::string error;  // Why there is no status.
};

struct Picture {
  std::vector<Line> lines;
  uint64_t leader = 0;
  uint64_t leader_index = 0;  // What lag is measured from.
};

std::string_view Role(const pb::StatusResponse& status) {
  if (status.header().member_id() == status.leader()) return "leader";
  return status.islearner() ? "learner" : "follower";
}

uint64_t Lag(const Picture& picture, const pb::StatusResponse& status) {
  uint64_t applied = status.raftappliedindex();
  return picture.leader_index > applied ? picture.leader_index - applied : 0;
}

client::Answer<pb::StatusResponse> AskStatus(const Session& session, const std::string& endpoint) {
  client::Options options = session.options();
  options.endpoints = {endpoint};
  if (absl::Status status = client::Client::Check(options); !status.ok()) {
    client::Answer<pb::StatusResponse> answer;
    answer.status = status;
    return answer;
  }
  client::CallOptions call = session.call_options();
  // A member that is down should not hold the picture up for long.
  call.timeout = std::min(call.timeout, session.options().dial_timeout + absl::Seconds(1));
  return session.Connect(endpoint)->CallAndWait(client::kStatus, pb::StatusRequest(), call);
}

std::string Text(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// "no endpoint can be reached: HOST: why" is about one endpoint here, which the table names.
std::string Why(const std::string& endpoint, const absl::Status& status) {
  std::string text = Text(status);
  std::string known = "no endpoint can be reached: " + endpoint + ": ";
  return text.starts_with(known) ? text.substr(known.size()) : text;
}

std::string Address(std::string endpoint) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (endpoint.starts_with(scheme)) endpoint.erase(0, scheme.size());
  }
  return endpoint;
}

// Asks the endpoints that were named, and the members whose status that did not bring at their own.
class Survey {
 public:
  explicit Survey(const Session& session) : session_(session) {}

  absl::StatusOr<Picture> Take() {
    Ask(session_.options().endpoints);
    auto members =
        session_.Connect()->CallAndWait(client::kMemberList, pb::MemberListRequest(), Patience());
    std::vector<std::string> more;
    for (const pb::Member& member : members.response.members()) {
      if (Seen(member.id()) != nullptr) continue;
      for (const std::string& url : member.clienturls()) {
        if (!asked_.contains(Address(url))) more.push_back(url);
      }
    }
    Ask(more);
    if (std::none_of(lines_.begin(), lines_.end(), [](const Line& l) { return l.status; }) &&
        !members.ok()) {
      return Refused(Text(members.status), absl::StatusCode::kUnavailable);
    }
    return Assemble(members.response, members.ok());
  }

 private:
  client::CallOptions Patience() const {
    client::CallOptions call = session_.call_options();
    call.timeout = std::min(call.timeout, 2 * session_.options().dial_timeout);
    return call;
  }

  void Ask(const std::vector<std::string>& endpoints) {
    std::vector<std::pair<std::string, std::future<client::Answer<pb::StatusResponse>>>> asked;
    for (const std::string& endpoint : endpoints) {
      if (!asked_.insert(Address(endpoint)).second) continue;
      asked.emplace_back(endpoint, std::async(std::launch::async, [this, endpoint] {
                           return AskStatus(session_, endpoint);
                         }));
    }
    for (auto& [endpoint, future] : asked) {
      client::Answer<pb::StatusResponse> answer = future.get();
      Line line{.endpoint = endpoint, .name = {}, .status = {}, .error = {}};
      if (answer.ok()) {
        line.id = answer.response.header().member_id();
        line.status = std::move(answer.response);
      } else {
        line.error = Why(endpoint, answer.status);
      }
      // Two addresses of one member make one line.
      if (line.status && Seen(line.id) != nullptr) continue;
      lines_.push_back(std::move(line));
    }
  }

  Line* Seen(uint64_t id) {
    for (Line& line : lines_) {
      if (line.status && line.id == id) return &line;
    }
    return nullptr;
  }

  Picture Assemble(const pb::MemberListResponse& members, bool known) {
    Picture picture;
    std::set<std::string> used;
    for (const pb::Member& member : members.members()) {
      Line line{
          .endpoint = {}, .name = member.name(), .id = member.id(), .status = {}, .error = {}};
      if (Line* seen = Seen(member.id())) {
        line.endpoint = seen->endpoint;
        line.status = seen->status;
      } else {
        for (const std::string& url : member.clienturls()) {
          for (const Line& tried : lines_) {
            if (Address(tried.endpoint) != Address(url)) continue;
            line.endpoint = tried.endpoint;
            line.error = tried.status ? "another member answers here" : tried.error;
          }
        }
        if (line.endpoint.empty()) line.error = "has published no client URL";
      }
      used.insert(Address(line.endpoint));
      picture.lines.push_back(std::move(line));
    }
    std::sort(picture.lines.begin(), picture.lines.end(), [](const Line& a, const Line& b) {
      return std::tie(a.name, a.id) < std::tie(b.name, b.id);
    });
    for (Line& line : lines_) {
      if (used.contains(Address(line.endpoint))) continue;
      if (known && line.status) line.error = "not in the member list";
      picture.lines.push_back(line);
    }
    uint64_t term = 0;
    for (const Line& line : picture.lines) {
      if (!line.status || line.status->raftterm() < term) continue;
      if (line.status->raftterm() > term) picture.leader = 0;
      term = line.status->raftterm();
      if (line.status->leader() != 0) picture.leader = line.status->leader();
    }
    for (const Line& line : picture.lines) {
      if (line.status && (line.id == picture.leader || picture.leader == 0)) {
        picture.leader_index = std::max(picture.leader_index, line.status->raftindex());
      }
    }
    return picture;
  }

  const Session& session_;
  std::set<std::string> asked_;  // Addresses.
  std::vector<Line> lines_;
};

std::string Errors(const Line& line) {
  std::string text = line.error;
  if (line.status) {
    for (const std::string& error : line.status->errors()) {
      text += (text.empty() ? "" : ", ") + error;
    }
  }
  return text;
}

Row Cells(const Picture& picture, const Line& line) {
  Row row = {line.endpoint.empty() ? "-" : Address(line.endpoint),
             line.name.empty() ? "-" : line.name,
             line.id == 0 ? "-" : fmt::format("{:x}", line.id)};
  if (line.status) {
    const pb::StatusResponse& s = *line.status;
    row.insert(row.end(),
               {std::string(Role(s)), std::to_string(s.raftterm()), std::to_string(s.raftindex()),
                std::to_string(s.raftappliedindex()), std::to_string(Lag(picture, s)),
                HumanBytes(static_cast<uint64_t>(s.dbsize())), s.version()});
  } else {
    row.insert(row.end(), {"down", "-", "-", "-", "-", "-", "-"});
  }
  row.push_back(Errors(line));
  return row;
}

const Row kHead = {"endpoint", "name", "id",      "role",    "term",  "index",
                   "applied",  "lag",  "db size", "version", "errors"};

// Columns without boxes; the first three to the left, the last as long as it is.
std::string Plain(const std::vector<Row>& rows) {
  std::vector<size_t> widths(kHead.size());
  std::vector<Row> all = {kHead};
  for (std::string& title : all[0]) {
    for (char& c : title) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  all.insert(all.end(), rows.begin(), rows.end());
  for (const Row& row : all) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string out;
  for (size_t r = 0; r < all.size(); ++r) {
    std::string text;
    for (size_t i = 0; i < all[r].size(); ++i) {
      const std::string& cell = all[r][i];
      std::string space(widths[i] - Width(cell), ' ');
      bool left = i < 4 || i + 1 == all[r].size();
      text += (i == 0 ? "" : "  ") + (left ? cell + space : space + cell);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    // Colour goes around whole lines, so that columns stay in place.
    const char* colour = "";
    if (Fancy(STDOUT_FILENO) && r > 0) {
      colour = all[r][3] == "down" ? "\033[31m" : all[r][3] == "leader" ? "\033[32m" : "";
    }
    out += *colour == 0 ? text + "\n" : colour + text + "\033[0m\n";
  }
  return out;
}

std::string Json(const Picture& picture) {
  std::string out = fmt::format("{{\"leader\":\"{:x}\",\"members\":[", picture.leader);
  for (size_t i = 0; i < picture.lines.size(); ++i) {
    const Line& line = picture.lines[i];
    out += fmt::format("{}{{\"endpoint\":{},\"name\":{},\"id\":\"{:x}\",\"role\":{}",
                       i == 0 ? "" : ",", GoJsonString(line.endpoint), GoJsonString(line.name),
                       line.id, GoJsonString(line.status ? Role(*line.status) : "down"));
    if (line.status) {
      const pb::StatusResponse& s = *line.status;
      out += fmt::format(
          ",\"term\":{},\"index\":{},\"applied\":{},\"lag\":{},\"db_size\":{},\"version\":{}",
          s.raftterm(), s.raftindex(), s.raftappliedindex(), Lag(picture, s), s.dbsize(),
          GoJsonString(s.version()));
    }
    out += fmt::format(",\"errors\":{}}}", GoJsonString(Errors(line)));
  }
  return out + "]}\n";
}

std::string Fields(const std::vector<Row>& rows) {
  static const std::vector<std::string_view> names = {"Endpoint", "Name",    "ID",      "Role",
                                                      "Term",     "Index",   "Applied", "Lag",
                                                      "DBSize",   "Version", "Errors"};
  std::string out;
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      out += fmt::format("\"{}\" : {}\n", names[i], GoQuoted(row[i]));
    }
    out += "\n";
  }
  return out;
}

int Status(const Arguments& arguments) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (session->style().format == Format::kProtobuf) {
    return Fail(kBadFeature, "protobuf not supported as output format");
  }
  absl::StatusOr<Picture> picture = Survey(*session).Take();
  if (!picture.ok()) return Fail(picture.status());
  std::vector<Row> rows;
  bool all_well = true;
  for (const Line& line : picture->lines) {
    rows.push_back(Cells(*picture, line));
    if (!line.status || !Errors(line).empty()) all_well = false;
  }
  switch (session->style().format) {
    case Format::kJson:
      Print(Json(*picture));
      break;
    case Format::kTable:
      Print(Table(kHead, rows));
      break;
    case Format::kFields:
      Print(Fields(rows));
      break;
    default:
      Print(Plain(rows));
  }
  if (picture->leader == 0) return Fail(kNotHealthy, "the cluster has no leader");
  return all_well ? kOk : Fail(kNotHealthy, "not every member is well; see the errors above");
}

}  // namespace

Command StatusCommand() {
  return {.name = "status",
          .group = "Cluster",
          .summary = "One table of the cluster: members, roles, terms, lag, sizes",
          .text =
              "Asks the endpoints and every member they know of. Lag is how many log entries a "
              "member has not\napplied that the leader has. Exit code 5 if a member is down or "
              "complains, or there is no leader;\n2 if nobody answers.\n\n"
              "Examples:\n"
              "  kvctl status\n"
              "  kvctl --endpoints db1:2379 status -w json",
          .run = Status};
}

}  // namespace kv::kvctl

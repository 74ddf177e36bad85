#include <fmt/format.h>
#include <unistd.h>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"
#include "client/kvctl/survey.h"

namespace kv::kvctl {
namespace {

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

constexpr size_t kLeft = 4;  // Columns of text; what follows are numbers.

Row Colours(const std::vector<Row>& rows) {
  Row colours;
  for (const Row& row : rows) {
    colours.emplace_back(row[3] == "down" ? "\033[31m" : row[3] == "leader" ? "\033[32m" : "");
  }
  return colours;
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
  absl::StatusOr<Picture> picture = TakeSurvey(*session);
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
      Print(Columns(kHead, rows, kLeft, Fancy(STDOUT_FILENO) ? Colours(rows) : Row()));
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

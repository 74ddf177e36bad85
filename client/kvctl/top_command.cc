#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <thread>

#include "client/kvctl/commands.h"
#include "client/kvctl/survey.h"

namespace kv::kvctl {
namespace {

using Clock = std::chrono::steady_clock;

// What a member had counted when it was asked last.
struct Counted {
  Clock::time_point when;
  int64_t revision = 0;
  uint64_t applied = 0;
  int64_t db_bytes = 0;
};

std::string Rate(double change, Clock::duration between) {
  const double seconds = std::chrono::duration<double>(between).count();
  return fmt::format("{:.1f}", change / std::max(seconds, 1e-3));
}

const Row kHead = {"name", "role",    "revision", "writes/s", "entries/s",
                   "lag",  "db size", "in use",   "growth/s", "errors"};

class Top {
 public:
  explicit Top(const Session& session) : session_(session) {}

  // The rates are those since the last call; the first has none.
  absl::StatusOr<std::string> Look() {
    const Clock::time_point now = Clock::now();
    absl::StatusOr<Picture> picture = TakeSurvey(session_);
    if (!picture.ok()) return picture.status();
    std::vector<Row> rows;
    std::map<uint64_t, Counted> counted;
    for (const Line& line : picture->lines) rows.push_back(Cells(*picture, line, now, counted));
    last_ = std::move(counted);
    return Columns(kHead, rows, 2);
  }

 private:
  Row Cells(const Picture& picture, const Line& line, Clock::time_point now,
            std::map<uint64_t, Counted>& counted) const {
    const std::string name = line.name.empty() ? Address(line.endpoint) : line.name;
    if (!line.status) return {name, "down", "-", "-", "-", "-", "-", "-", "-", Errors(line)};
    const pb::StatusResponse& s = *line.status;
    const Counted mine{.when = now,
                       .revision = s.header().revision(),
                       .applied = s.raftappliedindex(),
                       .db_bytes = s.dbsize()};
    counted[line.id] = mine;
    Row row = {name, std::string(Role(s)), std::to_string(mine.revision)};
    const auto before = last_.find(line.id);
    if (before == last_.end()) {
      row.insert(row.end(), {"-", "-"});
    } else {
      const Clock::duration between = now - before->second.when;
      const auto change = [](auto from, auto to) {
        return static_cast<double>(to) - static_cast<double>(from);
      };
      row.push_back(Rate(change(before->second.revision, mine.revision), between));
      row.push_back(Rate(change(before->second.applied, mine.applied), between));
    }
    row.insert(row.end(), {std::to_string(Lag(picture, s)), Bytes(s.dbsize()),
                           Bytes(s.dbsizeinuse()), Growth(before, mine), Errors(line)});
    return row;
  }

  static std::string Bytes(int64_t bytes) {
    return HumanBytes(static_cast<uint64_t>(std::max<int64_t>(0, bytes)));
  }

  std::string Growth(std::map<uint64_t, Counted>::const_iterator before, const Counted& now) const {
    if (before == last_.end()) return "-";
    const double seconds =
        std::max(std::chrono::duration<double>(now.when - before->second.when).count(), 1e-3);
    const int64_t change =
        static_cast<int64_t>(static_cast<double>(now.db_bytes - before->second.db_bytes) / seconds);
    return (change < 0 ? "-" : "") + Bytes(change < 0 ? -change : change);
  }

  const Session& session_;
  std::map<uint64_t, Counted> last_;  // By member.
};

int RunTop(const Arguments& arguments) {
  if (!arguments.rest.empty()) return Fail(kBadArguments, "top command accepts no arguments");
  const absl::Duration interval = arguments.Duration("interval");
  if (interval < absl::Milliseconds(100)) {
    return Fail(kBadArguments, "--interval is too short; write 100ms or more");
  }
  const int64_t count = arguments.Int("count");
  if (count < 0) return Fail(kBadArguments, "--count may not be negative");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (session->style().format != Format::kSimple) {
    return Fail(kBadFeature,
                std::string(Name(session->style().format)) +
                    " not supported as output format; see `kvctl status` for one look");
  }
  Top top(*session);
  absl::StatusOr<std::string> table = top.Look();
  if (!table.ok()) return Fail(table.status());
  const bool redraw = Fancy(STDOUT_FILENO);
  if (redraw) Print("\033[H\033[2J" + *table);
  for (int64_t shown = 0; count == 0 || shown < count; ++shown) {
    std::fflush(stdout);
    std::this_thread::sleep_for(absl::ToChronoNanoseconds(interval));
    table = top.Look();
    const std::string text = table.ok() ? *table : Text(table.status()) + "\n";
    Print(redraw ? "\033[H\033[2J" + text : (shown == 0 ? "" : "\n") + text);
    if (std::ferror(stdout) != 0) return kInputOutput;  // main() says so.
  }
  return table.ok() ? kOk : Fail(table.status());
}

}  // namespace

Command TopCommand() {
  return {.name = "top",
          .group = "Cluster",
          .summary = "Shows the members' rates and sizes again and again",
          .text =
              "Writes are revisions made, entries are log entries applied, both for each "
              "second since the table\nbefore. On a terminal the table stands still; otherwise "
              "one follows the other.\n\n"
              "Examples:\n"
              "  kvctl top\n"
              "  kvctl top --interval 10s --count 6 > rates.txt",
          .flags = {{.name = "interval",
                     .type = FlagType::kDuration,
                     .fallback = "2s",
                     .help = "time between two tables"},
                    {.name = "count",
                     .type = FlagType::kInt,
                     .help = "end after so many tables (0: never)"}},
          .run = RunTop};
}

}  // namespace kv::kvctl

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

#include "client/kvctl/commands.h"
#include "client/kvctl/json_lines.h"
#include "client/kvctl/pages.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

int RunExport(const Arguments& arguments) {
  Arguments ranged = arguments;
  bool everything = ranged.rest.empty();
  if (everything) ranged.rest.emplace_back();
  if (ranged.rest.size() > 2) {
    return Fail(kBadArguments, "export command needs at most a key and a range_end");
  }
  absl::StatusOr<pb::RangeRequest> request = RangeRequestFrom(ranged);
  if (!request.ok()) return Fail(request.status());
  if (everything) {
    request->set_key(std::string(1, '\0'));
    request->set_range_end(std::string(1, '\0'));
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());

  auto client = session->Connect();
  bool bar = Fancy(STDERR_FILENO) && isatty(STDOUT_FILENO) == 0;
  Pages pages(client.get(), *request, session->call_options());
  for (int64_t exported = 0;;) {
    absl::StatusOr<const mvccpb::KeyValue*> pair = pages.Next();
    if (!pair.ok()) return Fail(kError, Text(pair.status()));
    if (*pair == nullptr) break;
    Print(FormatLine(**pair));
    if (std::ferror(stdout) != 0) return kInputOutput;  // main() says so.
    if (++exported % 1000 == 0 && bar) {
      fmt::print(stderr, "\r\033[K{} of {} keys", exported, pages.total());
    }
  }
  if (bar) fmt::print(stderr, "\r\033[K");
  return kOk;
}

}  // namespace

Command ExportCommand() {
  return {.name = "export",
          .group = "Keys and values",
          .summary = "Prints pairs as JSON lines",
          .arguments = "[key] [range_end]",
          .text =
              "One JSON object a line, in key order, all as of one revision; keys and values in "
              "base64.\nWithout a key: everything. `kvctl import` reads it.\n\n"
              "Examples:\n"
              "  kvctl export > backup.jsonl\n"
              "  kvctl export /debian/ --prefix | gzip > debian.jsonl.gz\n"
              "  kvctl export a b --rev 1000",
          .flags = {{.name = "prefix", .help = "all keys that begin with <key>"},
                    {.name = "from-key", .help = "all keys from <key> on, by bytes"},
                    {.name = "limit", .type = FlagType::kInt, .help = "at most so many pairs"},
                    {.name = "rev",
                     .type = FlagType::kInt,
                     .help = "as of this revision (0: the newest)"},
                    {.name = "consistency",
                     .type = FlagType::kString,
                     .fallback = "l",
                     .help = "l: linearizable; s: what the asked member has",
                     .choices = {"l", "s"}}},
          .run = RunExport};
}

}  // namespace kv::kvctl

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "client/kvctl/commands.h"
#include "client/kvctl/json_lines.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

// A page is made to be about this big, whatever the values are.
constexpr size_t kPageBytes = 1 << 20;
constexpr int64_t kPageKeysMax = 5000;

std::string Explained(const client::Answer<pb::RangeResponse>& answer, int64_t revision) {
  std::string text = Complaint(answer);
  if (text == "etcdserver: mvcc: required revision has been compacted" && revision > 0) {
    text += fmt::format(" (revision {}, which the export began with; start it again)", revision);
  }
  return text;
}

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
  int64_t left = request->limit() > 0 ? request->limit() : INT64_MAX;
  int64_t page_keys = 100;
  int64_t exported = 0;
  int64_t total = 0;
  while (left > 0) {
    request->set_limit(std::min(page_keys, left));
    auto answer = client->CallAndWait(client::kRange, *request, session->call_options());
    if (!answer.ok()) return Fail(kError, Explained(answer, request->revision()));
    const pb::RangeResponse& page = answer.response;
    if (request->revision() == 0) request->set_revision(page.header().revision());
    if (exported == 0) total = page.count();
    size_t bytes = 0;
    for (const mvccpb::KeyValue& pair : page.kvs()) {
      bytes += pair.key().size() + pair.value().size() + 32;
      Print(FormatLine(pair));
    }
    if (std::ferror(stdout) != 0) return kInputOutput;  // main() says so.
    exported += page.kvs_size();
    left -= page.kvs_size();
    if (bar) fmt::print(stderr, "\r\033[K{} of {} keys", exported, total);
    if (!page.more() || page.kvs_size() == 0) break;
    request->set_key(page.kvs(page.kvs_size() - 1).key() + std::string(1, '\0'));
    auto fitting = static_cast<int64_t>(static_cast<size_t>(page.kvs_size()) * kPageBytes / bytes);
    page_keys = std::clamp<int64_t>(fitting, 1, std::min(kPageKeysMax, page_keys * 8));
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

#include <fmt/format.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <thread>

#include "client/kvctl/commands.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

std::string ReadStdin() {
  std::string all;
  char buffer[1 << 16];
  while (size_t got = std::fread(buffer, 1, sizeof(buffer), stdin)) all.append(buffer, got);
  return all;
}

// Sends the request and prints the response.
template <typename Method>
int Run(const Session& session, const Method& method, const typename Method::Request& request) {
  absl::Status can = session.CanShow(typename Method::Response());
  if (!can.ok()) return Fail(can);
  auto answer = session.Connect()->CallAndWait(method, request, session.call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session.style()));
  return kOk;
}

int Put(const Arguments& arguments) {
  bool value_missing = false;
  absl::StatusOr<pb::PutRequest> request = PutRequestFrom(arguments, &value_missing);
  if (!request.ok()) return Fail(request.status());
  if (value_missing) {
    request->set_value(ReadStdin());
    if (request->value().empty()) {
      return Fail(kBadArguments,
                  "put command needs 1 argument and input from stdin or 2 arguments");
    }
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  return Run(*session, client::kPut, *request);
}

int GetStream(const Session& session, const pb::RangeRequest& request) {
  pb::RangeResponse whole;
  auto answer = session.Connect()->StreamAndWait(
      client::kRangeStream, request, session.call_options(),
      // Repeated fields grow; of the rest the last word holds.
      [&whole](const pb::RangeStreamResponse& part) { whole.MergeFrom(part.range_response()); });
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(whole, session.style()));
  return kOk;
}

int Get(const Arguments& arguments) {
  absl::StatusOr<pb::RangeRequest> request = RangeRequestFrom(arguments);
  if (!request.ok()) return Fail(request.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (request->count_only() && session->style().format != Format::kFields) {
    return Fail(kBadArguments, "--count-only is only for `--write-out=fields`");
  }
  if (arguments.Bool("print-value-only")) {
    if (session->style().format != Format::kSimple) {
      return Fail(kBadArguments, "print-value-only is only for `--write-out=simple`");
    }
    session->style().values_only = true;
  }
  if (absl::Status can = session->CanShow(pb::RangeResponse()); !can.ok()) return Fail(can);
  if (arguments.Bool("stream")) return GetStream(*session, *request);
  return Run(*session, client::kRange, *request);
}

int Delete(const Arguments& arguments) {
  absl::StatusOr<pb::DeleteRangeRequest> request = DeleteRequestFrom(arguments);
  if (!request.ok()) return Fail(request.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = session->CanShow(pb::DeleteRangeResponse()); !can.ok()) return Fail(can);
  if (arguments.rest.size() > 1 && !arguments.Bool("range")) {
    Warn(
        fmt::format("Keys between {} and {} will be deleted. Please interrupt the command within "
                    "next 2 seconds to cancel. You can provide `--range` flag to avoid the delay.",
                    GoQuoted(arguments.rest[0]), GoQuoted(arguments.rest[1])));
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }
  return Run(*session, client::kDeleteRange, *request);
}

int Compact(const Arguments& arguments) {
  if (arguments.rest.size() != 1) return Fail(kBadArguments, "compaction command needs 1 argument");
  const std::string& text = arguments.rest[0];
  int64_t revision = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), revision);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Fail(kError, fmt::format("\"{}\" is no revision; write a whole number", text));
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  pb::CompactionRequest request;
  request.set_revision(revision);
  request.set_physical(arguments.Bool("physical"));
  auto answer = session->Connect()->CallAndWait(client::kCompact, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(fmt::format("compacted revision {}\n", revision));
  return kOk;
}

}  // namespace

std::vector<Command> KvCommands() {
  constexpr std::string_view kGroup = "Keys and values";
  return {
      {.name = "put",
       .group = kGroup,
       .summary = "Sets a key",
       .arguments = "<key> [value]",
       .text = "Without a value on the command line it is read from standard input. Put `--` "
               "before a key or value\nthat begins with a dash.\n\n"
               "Examples:\n"
               "  kvctl put greeting hello\n"
               "  kvctl put config < config.json\n"
               "  kvctl put offset -- -5\n"
               "  kvctl put greeting hi --prev-kv -w json",
       .flags = PutFlags(),
       .run = Put},
      {.name = "get",
       .group = kGroup,
       .summary = "Prints a key or a range of keys",
       .arguments = "<key> [range_end]",
       .text = "With [range_end], all keys from <key> up to and without it.\n\n"
               "Examples:\n"
               "  kvctl get greeting\n"
               "  kvctl get greeting --print-value-only\n"
               "  kvctl get /debian/ --prefix --keys-only --limit 10\n"
               "  kvctl get a z --sort-by MODIFY --order DESCEND\n"
               "  kvctl get \"\" --prefix --count-only -w fields",
       .flags = GetFlags(),
       .run = Get},
      {.name = "del",
       .group = kGroup,
       .summary = "Deletes a key or a range of keys",
       .arguments = "<key> [range_end]",
       .text = "Prints how many keys were deleted.\n\n"
               "Examples:\n"
               "  kvctl del greeting\n"
               "  kvctl del /tmp/ --prefix --prev-kv\n"
               "  kvctl del a b --range",
       .flags = DeleteFlags(),
       .run = Delete},
      {.name = "compaction",
       .group = kGroup,
       .summary = "Forgets versions superseded at or before a revision",
       .arguments = "<revision>",
       .text = "Reads of older revisions fail afterwards.\n\n"
               "Examples:\n"
               "  kvctl compaction 1000\n"
               "  kvctl compaction 1000 --physical",
       .flags = {{.name = "physical", .help = "wait until the old versions are gone from disk"}},
       .run = Compact},
  };
}

}  // namespace kv::kvctl

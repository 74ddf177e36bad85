#include <fmt/format.h>

#include <functional>
#include <iostream>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"
#include "client/kvctl/txn_syntax.h"

namespace kv::kvctl {
namespace {

// Hands each line up to an empty one to `take`.
absl::Status ReadSection(std::string_view section,
                         const std::function<absl::Status(std::string_view)>& take) {
  std::string line;
  while (std::getline(std::cin, line)) {
    if (std::cin.eof()) break;  // A last line without its end: the input was cut off.
    size_t first = line.find_first_not_of(" \t\r\v\f");
    if (first == std::string::npos) return absl::OkStatus();
    size_t last = line.find_last_not_of(" \t\r\v\f");
    absl::Status status = take(std::string_view(line).substr(first, last - first + 1));
    if (!status.ok()) return status;
  }
  return Refused(fmt::format("EOF: the {} do not end with an empty line", section),
                 absl::StatusCode::kOutOfRange);
}

// What was read goes where `place` makes room for it.
template <typename Message, typename Place>
absl::Status Take(absl::StatusOr<Message> read, Place place) {
  if (!read.ok()) return read.status();
  *place() = *std::move(read);
  return absl::OkStatus();
}

absl::Status ReadTxn(const std::function<void(std::string_view)>& prompt, pb::TxnRequest& txn) {
  prompt("compares:");
  absl::Status status = ReadSection("compares", [&](std::string_view line) {
    return Take(ParseCompare(line), [&] { return txn.add_compare(); });
  });
  if (!status.ok()) return status;
  prompt("success requests (get, put, del):");
  status = ReadSection("success requests", [&](std::string_view line) {
    return Take(ParseOperation(line), [&] { return txn.add_success(); });
  });
  if (!status.ok()) return status;
  prompt("failure requests (get, put, del):");
  return ReadSection("failure requests", [&](std::string_view line) {
    return Take(ParseOperation(line), [&] { return txn.add_failure(); });
  });
}

bool ReadOnly(const pb::TxnRequest& txn) {
  auto reads = [](const auto& ops) {
    for (const pb::RequestOp& op : ops) {
      if (!op.has_request_range()) return false;
    }
    return true;
  };
  return reads(txn.success()) && reads(txn.failure());
}

int Txn(const Arguments& arguments) {
  if (!arguments.rest.empty()) return Fail(kBadArguments, "txn command does not accept argument");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = session->CanShow(pb::TxnResponse()); !can.ok()) return Fail(can);
  bool interactive = arguments.Bool("interactive");
  pb::TxnRequest request;
  absl::Status status = ReadTxn(
      [interactive](std::string_view text) {
        if (!interactive) return;
        Print(fmt::format("{}\n", text));
        std::fflush(stdout);
      },
      request);
  if (!status.ok()) return Fail(status);
  auto answer = session->Connect()->CallAndWait(
      ReadOnly(request) ? client::kReadOnlyTxn : client::kTxn, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session->style()));
  return kOk;
}

}  // namespace

Command TxnCommand() {
  return {.name = "txn",
          .group = "Keys and values",
          .summary = "Reads a transaction from standard input and runs it",
          .text =
              "Three sections, each closed by an empty line: compares, requests to run if all of "
              "them hold,\nrequests to run otherwise. Requests are put, get and del with their "
              "flags. Compares are\ntarget(\"key\") operator \"value\" with the targets "
              "version, create, mod, value and lease and\nthe operators = != > <.\n\n"
              "Example:\n"
              "  $ kvctl txn -i\n"
              "  compares:\n"
              "  mod(\"key1\") > \"0\"\n\n"
              "  success requests (get, put, del):\n"
              "  put key1 \"overwritten\"\n\n"
              "  failure requests (get, put, del):\n"
              "  put key1 \"created\"\n"
              "  put key2 \"created too\"\n",
          .flags = {{.name = "interactive", .letter = 'i', .help = "print what is to be entered"}},
          .run = Txn};
}

}  // namespace kv::kvctl

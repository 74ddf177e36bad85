#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <list>
#include <mutex>
#include <thread>

#include "client/kvctl/commands.h"
#include "client/kvctl/program.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"
#include "client/kvctl/txn_syntax.h"
#include "client/watcher.h"

namespace kv::kvctl {
namespace {

// A watch, and the program to run for each of its events.
struct Order {
  pb::WatchCreateRequest request;
  std::vector<std::string> program;  // Empty: none.
};

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

absl::StatusOr<Order> OrderFrom(Arguments arguments) {
  const std::string key = Variable("KVCTL_WATCH_KEY");
  const std::string range_end = Variable("KVCTL_WATCH_RANGE_END");
  if (key.empty() && !range_end.empty()) {
    return Refused(fmt::format("KVCTL_WATCH_KEY is empty but got KVCTL_WATCH_RANGE_END={}",
                               GoQuoted(range_end)));
  }
  Order order;
  std::vector<std::string>& rest = arguments.rest;
  const size_t keys = arguments.separator.value_or(rest.size());
  order.program.assign(rest.begin() + static_cast<std::ptrdiff_t>(keys), rest.end());
  rest.resize(keys);
  if (arguments.separator && order.program.empty()) {
    return Refused("bad number of arguments (found separator --, but no commands)");
  }
  if (!key.empty()) {
    if (!rest.empty()) {
      return Refused("bad number of arguments (found conflicting environment key)");
    }
    rest = {key};
    if (!range_end.empty()) rest.push_back(range_end);
  }
  absl::StatusOr<pb::WatchCreateRequest> request = WatchRequestFrom(arguments);
  if (!request.ok()) return request.status();
  order.request = *std::move(request);
  return order;
}

// What etcdctl adds to a program's environment.
std::vector<std::string> VariablesOf(const mvccpb::Event& event, int64_t revision) {
  return {fmt::format("ETCD_WATCH_REVISION={}", revision),
          "ETCD_WATCH_EVENT_TYPE=" + GoQuoted(mvccpb::Event::EventType_Name(event.type())),
          "ETCD_WATCH_KEY=" + GoQuoted(event.kv().key()),
          "ETCD_WATCH_VALUE=" + GoQuoted(event.kv().value())};
}

// What several watches share.
struct Output {
  Style style;
  std::mutex mutex;  // One response at a time.
};

void Complain(const std::string& line) {
  std::fflush(stdout);
  std::fputs((line + "\n").c_str(), stderr);
}

// Prints one response and runs what is to be run for it. False: that failed.
bool Tell(const pb::WatchResponse& news, const Order& order, const absl::Status& why,
          Output& output) {
  const std::lock_guard lock(output.mutex);
  const int64_t revision = news.header().revision();
  if (news.canceled()) {
    Complain(fmt::format("watch was canceled ({})", Text(why)));
  } else if (news.events().empty()) {
    Print(fmt::format("progress notify: {}\n", revision));
  }
  Print(*Show(news, output.style));
  std::fflush(stdout);  // Whoever reads it waits for just this.
  if (order.program.empty()) return true;
  for (const mvccpb::Event& event : news.events()) {
    const std::string failure = RunProgram(order.program, VariablesOf(event, revision)).failure;
    if (failure.empty()) continue;
    Complain(fmt::format("command [{}] error ({})", fmt::join(order.program, " "), failure));
    return false;
  }
  return true;
}

bool Follow(client::Watcher& watcher, const Order& order, Output& output) {
  while (const auto news = watcher.Next()) {
    if (!Tell(*news, order, watcher.status(), output)) return false;
  }
  return true;
}

// One of several that are entered line by line.
struct Watching {
  Watching(client::Client* client, Order entered, Output* output)
      : order(std::move(entered)), watcher(client, order.request), thread([this, output] {
          if (Follow(watcher, order, *output)) return;
          std::fflush(stdout);
          std::_Exit(kError);  // Nobody else would end the wait for the next line.
        }) {}
  ~Watching() {
    watcher.Cancel();
    thread.join();
  }

  const Order order;
  client::Watcher watcher;
  std::thread thread;
};

int WatchLines(client::Client* client, Output* output) {
  static const Command commands = {
      .name = "", .children = {{.name = "watch", .flags = WatchFlags()}, {.name = "progress"}}};
  std::list<Watching> watches;
  std::string line;
  while (std::getline(std::cin, line) && !std::cin.eof()) {
    absl::StatusOr<std::vector<std::string>> words = SplitWords(line);
    if (!words.ok()) return Fail(words.status());
    if (words->empty() || ((*words)[0] != "watch" && (*words)[0] != "progress")) {
      Complain(fmt::format("Invalid command: {} (watch and progress supported)", line));
      continue;
    }
    if ((*words)[0] == "progress") {
      for (Watching& each : watches) each.watcher.AskProgress();
      continue;
    }
    absl::StatusOr<Arguments> arguments = Parse(commands, {}, *words);
    if (!arguments.ok()) return Fail(arguments.status());
    absl::StatusOr<Order> order = OrderFrom(*std::move(arguments));
    if (!order.ok()) return Fail(order.status());
    watches.emplace_back(client, *std::move(order), output);
  }
  return Fail(kInvalidInput, "error reading watch request line: EOF");
}

int Watch(const Arguments& arguments) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = session->CanShow(pb::WatchResponse()); !can.ok()) return Fail(can);
  Output output{.style = session->style(), .mutex = {}};
  const bool lines = arguments.Bool("interactive");
  absl::StatusOr<Order> order = lines ? absl::StatusOr<Order>(Order()) : OrderFrom(arguments);
  if (!order.ok()) return Fail(order.status());

  // A watcher never gives up; whether anybody is there at all is asked first.
  const std::unique_ptr<client::Client> client = session->Connect();
  auto found = client->CallAndWait(client::kStatus, pb::StatusRequest(), session->call_options());
  if (!found.ok()) return Fail(kError, Complaint(found));
  if (lines) return WatchLines(client.get(), &output);
  client::Watcher watcher(client.get(), order->request);
  if (!Follow(watcher, *order, output)) return kError;
  return Fail(kNotHealthy, "watch is canceled by the server");
}

}  // namespace

Command WatchCommand() {
  std::vector<Flag> flags = WatchFlags();
  flags.push_back({.name = "interactive", .letter = 'i', .help = "read watches line by line"});
  return {.name = "watch",
          .group = "Keys and values",
          .summary = "Prints what happens to a key or a range of keys",
          .arguments = "[key] [range_end] [-- program arguments...]",
          .text =
              "Goes on until it is interrupted, over whichever endpoint answers: nothing is missed "
              "and nothing is\nprinted twice. The program is run for each event, with "
              "ETCD_WATCH_REVISION, ETCD_WATCH_EVENT_TYPE,\nETCD_WATCH_KEY and ETCD_WATCH_VALUE "
              "in its environment. Without a key, KVCTL_WATCH_KEY and\nKVCTL_WATCH_RANGE_END say "
              "what to watch. With -i, lines `watch ...` and `progress` are read from\n"
              "standard input.\n\n"
              "Examples:\n"
              "  kvctl watch greeting\n"
              "  kvctl watch /debian/ --prefix --rev 1000 -w json\n"
              "  kvctl watch config -- sh -c 'echo changed at $ETCD_WATCH_REVISION'",
          .flags = std::move(flags),
          .run = Watch,
          .variables = {"WATCH_KEY", "WATCH_RANGE_END"}};
}

}  // namespace kv::kvctl

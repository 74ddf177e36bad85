#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>

#include "client/kvctl/admin_port.h"
#include "client/kvctl/commands.h"
#include "client/kvctl/load.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

volatile std::sig_atomic_t interrupted = 0;

// etcdctl's.
struct Workload {
  std::string_view name;
  std::string_view alias;
  int64_t rate;  // perf: puts per second.
  size_t clients;
  int64_t keys;  // datascale.
};
constexpr std::array<Workload, 4> kWorkloads = {{{"s", "small", 150, 50, 10'000},
                                                 {"m", "medium", 1000, 200, 100'000},
                                                 {"l", "large", 8000, 500, 1'000'000},
                                                 {"xl", "xLarge", 15'000, 1000, 3'000'000}}};
constexpr double kRatePart = 0.9;  // Of the workload's rate, at least.
constexpr double kSlowest = 0.5;   // Seconds, at most.
constexpr double kStddev = 0.1;    // Seconds, at most.
// The range deletion of millions of keys takes its time, and so may a compaction.
constexpr absl::Duration kCleaningPatience = absl::Minutes(10);

absl::StatusOr<Workload> WorkloadIn(const Arguments& arguments) {
  const std::string& name = arguments.String("load");
  for (const Workload& load : kWorkloads) {
    if (load.name == name || load.alias == name) return load;
  }
  return Refused("unknown load option " + name + "; there is s, m, l and xl",
                 absl::StatusCode::kUnimplemented);
}

class Check {
 public:
  Check(const Arguments& arguments, const Session& session)
      : arguments_(arguments),
        session_(session),
        prefix_(arguments.String("prefix")),
        client_(session.Connect()) {
    struct sigaction on_interrupt{};
    on_interrupt.sa_handler = [](int) { interrupted = 1; };
    sigaction(SIGINT, &on_interrupt, nullptr);
    sigaction(SIGTERM, &on_interrupt, nullptr);
  }

  // Refused if something is there already: the check deletes what is below its prefix.
  absl::Status LookThatItIsEmpty() {
    if (prefix_.empty())
      return Refused("--prefix may not be empty: the check deletes all below it");
    pb::RangeRequest request = Range<pb::RangeRequest>();
    request.set_limit(1);
    request.set_keys_only(true);
    auto answer = client_->CallAndWait(client::kRange, request, session_.call_options());
    if (!answer.ok()) return Refused(Complaint(answer), absl::StatusCode::kUnknown);
    if (answer.response.kvs_size() == 0) return absl::OkStatus();
    return Refused(fmt::format("prefix {} has keys. Delete with kvctl del --prefix {} first",
                               GoQuoted(prefix_), prefix_),
                   absl::StatusCode::kOutOfRange);
  }

  // `unit` says what the bar counts.
  LoadReport Run(LoadPlan plan, std::string_view unit, int64_t whole, bool count_seconds) {
    plan.prefix = prefix_;
    plan.call = session_.call_options();
    const bool bar = Fancy(STDERR_FILENO);
    int64_t seconds = 0;
    LoadReport report = Load(client_.get(), std::move(plan)).Run([&](int64_t answered) {
      ++seconds;
      if (bar) {
        fmt::print(stderr, "\r\033[K{} of {} {}", count_seconds ? seconds : answered, whole, unit);
      }
      return interrupted == 0;
    });
    if (bar) fmt::print(stderr, "\r\033[K");
    return report;
  }

  // Deletes the keys; compacts and defragments if that is wanted.
  absl::Status CleanUp() {
    client::CallOptions call{.timeout = kCleaningPatience};
    auto gone = client_->CallAndWait(client::kDeleteRange, Range<pb::DeleteRangeRequest>(), call);
    if (!gone.ok()) {
      return Refused(fmt::format("{}; the check's keys are still there: kvctl del --prefix {}",
                                 Complaint(gone), prefix_),
                     absl::StatusCode::kUnknown);
    }
    if (arguments_.Bool("auto-compact")) {
      const int64_t revision = gone.response.header().revision();
      Print(fmt::format("Compacting with revision {}\n", revision));
      pb::CompactionRequest request;
      request.set_revision(revision);
      request.set_physical(true);
      auto compacted = client_->CallAndWait(client::kCompact, request, call);
      if (!compacted.ok()) return Refused(Complaint(compacted), absl::StatusCode::kUnknown);
      Print(fmt::format("Compacted with revision {}\n", revision));
    }
    if (!arguments_.Bool("auto-defrag")) return absl::OkStatus();
    for (const std::string& endpoint : session_.options().endpoints) {
      Print(fmt::format("Defragmenting {}\n", GoQuoted(endpoint)));
      auto answer = session_.Connect(endpoint)->CallAndWait(client::kDefragment,
                                                            pb::DefragmentRequest(), call);
      if (!answer.ok()) return Refused(Complaint(answer), absl::StatusCode::kUnknown);
      Print(fmt::format("Defragmented {}\n", GoQuoted(endpoint)));
    }
    return absl::OkStatus();
  }

 private:
  template <typename Request>
  Request Range() const {
    Request request;
    request.set_key(prefix_);
    request.set_range_end(PrefixEnd(prefix_));
    return request;
  }

  const Arguments& arguments_;
  const Session& session_;
  const std::string prefix_;
  const std::unique_ptr<client::Client> client_;
};

bool TellErrors(const LoadReport& report) {
  if (report.errors.empty()) return true;
  Print("FAIL: too many errors\n");
  for (const auto& [text, count] : report.errors) {
    Print(fmt::format("FAIL: ERROR({}) -> {}\n", text, count));
  }
  return false;
}

bool Judge(const LoadReport& report, int64_t rate) {
  bool well = TellErrors(report);
  const auto writes = static_cast<int64_t>(report.rate()) + 1;
  const bool fast = report.rate() / static_cast<double>(rate) > kRatePart;
  Print(fmt::format("{} {} writes/s\n",
                    fast ? "PASS: Throughput is" : "FAIL: Throughput too low:", writes));
  const bool prompt = report.slowest <= kSlowest;
  Print(fmt::format(
      "{} {:.6f}s\n",
      prompt ? "PASS: Slowest request took" : "Slowest request took too long:", report.slowest));
  const bool steady = report.stddev() <= kStddev;
  Print(fmt::format("{} {:.6f}s\n",
                    steady ? "PASS: Stddev is" : "Stddev too high:", report.stddev()));
  well = well && fast && prompt && steady;
  Print(well ? "PASS\n" : "FAIL\n");
  return well;
}

int Perf(const Arguments& arguments) {
  absl::StatusOr<Workload> load = WorkloadIn(arguments);
  if (!load.ok()) return Fail(load.status());
  const absl::Duration time = arguments.Duration("duration");
  if (time < absl::Seconds(1) || time > absl::Hours(24)) {
    return Fail(kBadArguments, "--duration may be 1s to 24h");
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  Check check(arguments, *session);
  if (absl::Status empty = check.LookThatItIsEmpty(); !empty.ok()) return Fail(empty);
  const LoadReport report = check.Run({.prefix = {},
                                       .key_bytes = 256,
                                       .value_bytes = 1024,
                                       .clients = load->clients,
                                       .rate = static_cast<double>(load->rate),
                                       .time_max = absl::ToChronoNanoseconds(time),
                                       .call = {}},
                                      "s", absl::ToInt64Seconds(time), true);
  if (absl::Status clean = check.CleanUp(); !clean.ok()) return Fail(clean);
  if (interrupted != 0) return Fail(kNotHealthy, "interrupted; the check's keys are deleted");
  return Judge(report, load->rate) ? kOk : kError;
}

int Datascale(const Arguments& arguments) {
  absl::StatusOr<Workload> load = WorkloadIn(arguments);
  if (!load.ok()) return Fail(load.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  Check check(arguments, *session);
  if (absl::Status empty = check.LookThatItIsEmpty(); !empty.ok()) return Fail(empty);
  const std::string endpoint = session->options().endpoints[0];
  auto status = session->Connect(endpoint)->CallAndWait(client::kStatus, pb::StatusRequest(),
                                                        session->call_options());
  if (!status.ok()) return Fail(kError, Complaint(status));
  const auto memory = [&] {
    return ResidentMemory(endpoint, arguments.String("metrics-url"),
                          status.response.header().member_id());
  };
  const absl::StatusOr<double> before = memory();
  if (!before.ok()) {
    Print("FAIL: Could not read process_resident_memory_bytes before the put operations.\n");
    return Fail(kError, Text(before.status()));
  }
  Print(
      fmt::format("Start data scale check for work load [{} key-value pairs, 1024 bytes per "
                  "key-value, {} concurrent clients].\n",
                  load->keys, load->clients));
  std::fflush(stdout);
  const LoadReport report = check.Run({.prefix = {},
                                       .key_bytes = 512,
                                       .value_bytes = 512,
                                       .clients = load->clients,
                                       .puts_max = load->keys,
                                       .call = {}},
                                      "pairs", load->keys, false);
  const absl::StatusOr<double> after = memory();
  if (absl::Status clean = check.CleanUp(); !clean.ok()) return Fail(clean);
  if (interrupted != 0) return Fail(kNotHealthy, "interrupted; the check's keys are deleted");
  if (!after.ok()) {
    Print("FAIL: Could not read process_resident_memory_bytes after the put operations.\n");
    return Fail(kError, Text(after.status()));
  }
  if (!TellErrors(report)) return kError;
  Print(fmt::format("PASS: Approximate system memory used : {:.2f} MB.\n",
                    (*after - *before) / (1024 * 1024)));
  return kOk;
}

std::vector<Flag> Flags(std::string_view prefix) {
  return {{.name = "load",
           .type = FlagType::kString,
           .fallback = "s",
           .help = "the workload: s(small), m(medium), l(large) or xl(xLarge)",
           .choices = {"s", "m", "l", "xl"}},
          {.name = "prefix",
           .type = FlagType::kString,
           .fallback = prefix,
           .help = "where the check's keys are put; all below it is deleted in the end"},
          {.name = "auto-compact", .help = "compact when the check is over"},
          {.name = "auto-defrag", .help = "defragment when the check is over"}};
}

}  // namespace

Command CheckCommand() {
  std::vector<Flag> perf = Flags("/kvctl-check-perf/");
  perf.push_back({.name = "duration",
                  .type = FlagType::kDuration,
                  .fallback = "1m",
                  .help = "how long the load lasts"});
  std::vector<Flag> datascale = Flags("/kvctl-check-datascale/");
  datascale.push_back({.name = "metrics-url",
                       .type = FlagType::kString,
                       .help = "page of metrics of the first endpoint (default: /metrics on its "
                               "own port, or two ports above)"});
  return {
      .name = "check",
      .group = "Other",
      .summary =
          "Judges the cluster: its speed (perf), its memory (datascale), its health (cluster)",
      .children = {{.name = "perf",
                    .summary = "Whether the cluster takes 150, 1000, 8000 or 15000 puts per second",
                    .text = "PASS: more than nine tenths of the rate, no put slower than 500 ms, "
                            "standard deviation below\n100 ms. Exit code 1 if not.\n\n"
                            "Examples:\n"
                            "  kvctl check perf\n"
                            "  kvctl check perf --load l --duration 10s",
                    .flags = std::move(perf),
                    .run = Perf},
                   {.name = "datascale",
                    .summary = "How much memory the first endpoint takes for 10 thousand to 3 "
                               "million pairs of 1 KiB",
                    .text = "Examples:\n"
                            "  kvctl check datascale --load m --metrics-url "
                            "http://127.0.0.1:2381/metrics",
                    .flags = std::move(datascale),
                    .run = Datascale},
                   CheckClusterCommand()}};
}

}  // namespace kv::kvctl

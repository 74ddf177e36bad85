// kvbench: load on any server that speaks the etcd v3 API, and what it cost.
//
// Prints one JSON object: the configuration, throughput, latency percentiles in milliseconds,
// answers by gRPC status, CPU per operation of the client and of the processes given by --pids, and
// their resident memory at the end.

#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "proto/etcd/rpc.pb.h"
#include "tests/bench/grpc_load.h"
#include "tests/bench/histogram.h"

namespace kv::bench {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  LoadPlan plan;
  std::string target = "all";
  std::vector<int> pids;
  uint64_t key_space = 100'000;
  size_t key_bytes = 16;
  size_t value_bytes = 256;
  bool sequential = false;
  bool serializable = false;
  bool count_only = false;
  bool keys_only = false;
  bool whole_range = false;  // Range over the whole key space from the key on.
  int64_t limit = 0;
  double reads = 0.9;
  std::string watched = "others";  // Keys of --watchers: that the load writes, or others.
};

struct Usage {
  double cpu_seconds = 0;
  uint64_t rss_bytes = 0;
};

Usage UsageOf(int pid) {
  Usage usage;
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(stat, line)) return usage;
  std::istringstream fields(line.substr(line.rfind(')') + 2));
  std::string skipped;
  for (int i = 0; i < 11; ++i) fields >> skipped;
  double user = 0;
  double system = 0;
  fields >> user >> system;
  usage.cpu_seconds = (user + system) / static_cast<double>(sysconf(_SC_CLK_TCK));
  std::ifstream status("/proc/" + std::to_string(pid) + "/status");
  while (std::getline(status, line)) {
    if (line.starts_with("VmRSS:")) usage.rss_bytes = std::stoull(line.substr(6)) * 1024;
  }
  return usage;
}

double OwnCpuSeconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

std::string KeyOf(const Options& options, char first, uint64_t number) {
  const std::string digits = std::to_string(number);
  const size_t width = options.key_bytes - 1;
  return first + std::string(digits.size() < width ? width - digits.size() : 0, '0') + digits;
}

// Makes the requests of one workload.
class Workload {
 public:
  Workload(std::string name, const Options& options)
      : name_(std::move(name)), options_(options), random_(options.plan.seed) {
    value_.resize(options.value_bytes);
    for (char& byte : value_) byte = static_cast<char>(random_());
  }

  Request Next() {
    if (name_ == "put") return Put();
    if (name_ == "range") return Range();
    if (name_ == "txn") return Txn();
    if (name_ == "lease-grant") return LeaseGrant();
    if (name_ == "snapshot") return {.path = "/etcdserverpb.Maintenance/Snapshot", .message = {}};
    const double draw =
        static_cast<double>(random_() >> 11) / static_cast<double>(uint64_t{1} << 53);
    return draw < options_.reads ? Range() : Put();
  }

 private:
  std::string Key() {
    return KeyOf(
        options_, 'k',
        options_.sequential ? next_++ % options_.key_space : random_() % options_.key_space);
  }

  Request Put() {
    etcdserverpb::PutRequest put;
    put.set_key(Key());
    put.set_value(Value());
    return {.path = "/etcdserverpb.KV/Put", .message = put.SerializeAsString()};
  }

  Request Range() {
    etcdserverpb::RangeRequest range;
    range.set_key(Key());
    if (options_.whole_range) {
      range.set_key("k");
      range.set_range_end("l");
    }
    range.set_limit(options_.limit);
    range.set_serializable(options_.serializable);
    range.set_count_only(options_.count_only);
    range.set_keys_only(options_.keys_only);
    return {.path = "/etcdserverpb.KV/Range", .message = range.SerializeAsString()};
  }

  // What a controller does: compare one key, put it when the comparison holds (it always does).
  Request Txn() {
    etcdserverpb::TxnRequest txn;
    const std::string key = Key();
    auto* compare = txn.add_compare();
    compare->set_key(key);
    compare->set_target(etcdserverpb::Compare::VERSION);
    compare->set_result(etcdserverpb::Compare::GREATER);
    compare->set_version(-1);
    auto* put = txn.add_success()->mutable_request_put();
    put->set_key(key);
    put->set_value(Value());
    return {.path = "/etcdserverpb.KV/Txn", .message = txn.SerializeAsString()};
  }

  Request LeaseGrant() {
    etcdserverpb::LeaseGrantRequest grant;
    grant.set_ttl(3600);
    return {.path = "/etcdserverpb.Lease/LeaseGrant", .message = grant.SerializeAsString()};
  }

  // Random bytes, a few of them new each time, so that nothing stores or compresses them away.
  const std::string& Value() {
    for (size_t i = 0; i + 8 <= value_.size() && i < 16; i += 8) {
      const uint64_t fresh = random_();
      value_.replace(i, 8, reinterpret_cast<const char*>(&fresh), 8);
    }
    return value_;
  }

  const std::string name_;
  const Options& options_;
  std::mt19937_64 random_;
  std::string value_;
  uint64_t next_ = 0;
};

// Keeps the endpoints that --target asks for.
std::vector<std::string> Select(const std::vector<std::string>& endpoints,
                                const std::string& target) {
  if (target == "all") return endpoints;
  std::vector<std::string> selected;
  for (const std::string& endpoint : endpoints) {
    const Response answer =
        CallOnce(endpoint, {.path = "/etcdserverpb.Maintenance/Status", .message = {}});
    etcdserverpb::StatusResponse status;
    if (answer.grpc_status != 0 || !status.ParseFromString(answer.message)) continue;
    const bool leads = status.leader() == status.header().member_id();
    if (leads == (target == "leader")) selected.push_back(endpoint);
  }
  return selected;
}

Json Milliseconds(const Histogram& latency) {
  const auto ms = [](double nanoseconds) { return nanoseconds / 1e6; };
  Json out;
  out["mean"] = ms(latency.mean());
  for (const auto& [name, share] :
       {std::pair{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}}) {
    out[name] = ms(static_cast<double>(latency.Percentile(share)));
  }
  out["max"] = ms(static_cast<double>(latency.max()));
  return out;
}

int Measure(const std::string& name, Options& options) {
  options.plan.endpoints = Select(options.plan.endpoints, options.target);
  if (options.plan.endpoints.empty()) {
    std::fprintf(stderr, "kvbench: no endpoint is %s; check --endpoints and --target\n",
                 options.target.c_str());
    return 1;
  }
  options.plan.watch.key = [&options](int watcher) {
    const auto number = static_cast<uint64_t>(watcher);
    return options.watched == "written" ? KeyOf(options, 'k', number % options.key_space)
                                        : KeyOf(options, 'w', number);
  };
  Workload workload(name, options);
  Histogram latency;
  std::map<int, uint64_t> answers;
  std::map<int, Usage> before;
  std::map<int, Usage> after;
  double client_seconds = 0;
  const LoadOutcome outcome = RunLoad(
      options.plan, [&] { return workload.Next(); },
      [&](uint64_t nanoseconds, const Response& response) {
        latency.Add(nanoseconds);
        ++answers[response.grpc_status];
      },
      {.warm =
           [&] {
             for (int pid : options.pids) before[pid] = UsageOf(pid);
             client_seconds = OwnCpuSeconds();
           },
       .done =
           [&] {
             for (int pid : options.pids) after[pid] = UsageOf(pid);
             client_seconds = OwnCpuSeconds() - client_seconds;
           }});
  if (!outcome.error.empty()) {
    std::fprintf(stderr, "kvbench: %s\n", outcome.error.c_str());
    return 1;
  }
  const auto operations = static_cast<double>(latency.count());
  Json out;
  out["workload"] = name;
  out["connections"] = options.plan.connections;
  out["streams"] = options.plan.streams;
  out["rate"] = options.plan.rate;
  out["seconds"] = outcome.seconds;
  out["operations"] = latency.count();
  out["per_second"] = outcome.seconds > 0 ? operations / outcome.seconds : 0;
  out["latency_ms"] = Milliseconds(latency);
  for (const auto& [status, count] : answers) out["answers"][std::to_string(status)] = count;
  out["unanswered"] = outcome.unanswered;
  if (options.plan.watch.watchers > 0) {
    out["watchers"] = options.plan.watch.watchers;
    out["events_per_second"] =
        outcome.seconds > 0 ? static_cast<double>(outcome.events) / outcome.seconds : 0;
  }
  out["client_cpu_us_per_op"] = client_seconds * 1e6 / operations;
  double server = 0;
  for (int pid : options.pids) {
    server += after[pid].cpu_seconds - before[pid].cpu_seconds;
    out["rss_bytes"].push_back(after[pid].rss_bytes);
  }
  if (!options.pids.empty()) out["server_cpu_us_per_op"] = server * 1e6 / operations;
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

void AddOptions(CLI::App& app, Options& options) {
  app.add_option("--endpoints", options.plan.endpoints, "host:port, separated by commas")
      ->delimiter(',')
      ->required();
  app.add_option("--target", options.target, "which of them to load")
      ->check(CLI::IsMember({"all", "leader", "followers"}));
  app.add_option("--conns", options.plan.connections, "connections")->check(CLI::Range(1, 100'000));
  app.add_option("--streams", options.plan.streams, "requests in flight on each connection")
      ->check(CLI::Range(1, 10'000));
  app.add_option("--rate", options.plan.rate, "requests a second (open loop); 0: closed loop");
  app.add_flag("--poisson", options.plan.poisson, "open loop with exponential gaps");
  app.add_option("--duration", options.plan.duration, "seconds, warm-up included");
  app.add_option("--warmup", options.plan.warmup, "seconds that do not count");
  app.add_option("--total", options.plan.total, "requests, instead of a duration");
  app.add_option("--seed", options.plan.seed, "of keys, values and gaps");
  app.add_option("--pids", options.pids, "server processes to sample")->delimiter(',');
  app.add_option("--key-space", options.key_space, "different keys");
  app.add_option("--key-bytes", options.key_bytes, "bytes of a key")->check(CLI::Range(2, 4096));
  app.add_option("--value-bytes", options.value_bytes, "bytes of a value");
  app.add_flag("--sequential", options.sequential, "keys in order instead of at random");
  WatchPlan& watch = options.plan.watch;
  app.add_option("--watchers", watch.watchers, "of single keys, held open during the load")
      ->check(CLI::Range(0, 1'000'000));
  app.add_option("--watch-streams", watch.streams, "RPCs that carry them")
      ->check(CLI::Range(1, 10'000));
  app.add_option("--watch-conns", watch.connections, "connections that carry these")
      ->check(CLI::Range(1, 10'000));
  app.add_option("--watched", options.watched, "keys that they watch: those of the load, or others")
      ->check(CLI::IsMember({"written", "others"}));
}

int Main(int argc, char** argv) {
  CLI::App app("load on an etcd v3 API server, measured");
  app.require_subcommand(1);
  Options options;
  int result = 0;
  for (const char* name : {"put", "range", "txn", "mixed", "lease-grant", "snapshot"}) {
    CLI::App* command = app.add_subcommand(name);
    AddOptions(*command, options);
    if (std::string_view(name) == "range" || std::string_view(name) == "mixed") {
      command->add_flag("--serializable", options.serializable, "answered from local state");
      command->add_flag("--count-only", options.count_only);
      command->add_flag("--keys-only", options.keys_only);
      command->add_flag("--whole-range", options.whole_range, "all keys instead of one");
      command->add_option("--limit", options.limit, "keys in an answer");
    }
    if (std::string_view(name) == "mixed") {
      command->add_option("--reads", options.reads, "share of reads")->check(CLI::Range(0.0, 1.0));
    }
    command->callback([&options, &result, name] {
      if (options.plan.duration == 0 && options.plan.total == 0) {
        throw CLI::ValidationError("--duration or --total is needed");
      }
      result = Measure(name, options);
    });
  }
  CLI11_PARSE(app, argc, argv);
  return result;
}

}  // namespace
}  // namespace kv::bench

int main(int argc, char** argv) { return kv::bench::Main(argc, argv); }

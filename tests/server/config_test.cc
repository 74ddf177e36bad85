// Tables of arguments, environment and file → the settings that come out, or the exact error.
#include "server/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "storage/status.h"

namespace kv {
namespace {

using Environment = std::map<std::string, std::string, std::less<>>;

// Files beside the configuration file: what the kernel and the platform tell.
using Files = std::map<std::string, std::string, std::less<>>;

absl::StatusOr<CommandLine> Load(std::vector<std::string> arguments, Environment environment = {},
                                 const std::string& file = "", Files files = {}) {
  ConfigSources sources;
  sources.arguments = std::move(arguments);
  sources.environment = std::move(environment);
  sources.host_name = "host2";
  sources.processors = 16;
  files["/var/run/secrets/kubernetes.io/serviceaccount/namespace"] = "prod\n";
  files["kvd.yaml"] = file;
  sources.read_file = [files](const std::string& path) -> absl::StatusOr<std::string> {
    const auto at = files.find(path);
    if (at == files.end()) return MakeStatus(absl::StatusCode::kNotFound, "no such file");
    return at->second;
  };
  return LoadConfig(sources);
}

std::string Error(const absl::StatusOr<CommandLine>& line) {
  return line.ok() ? "" : std::string(Message(line.status()));
}

std::string Join(const std::vector<Url>& urls) {
  std::vector<std::string> texts;
  for (const Url& url : urls) texts.push_back(url.Text());
  return fmt::format("{}", fmt::join(texts, ","));
}

std::string Join(const std::vector<ListedMember>& list) {
  std::vector<std::string> texts;
  for (const ListedMember& member : list) {
    texts.push_back(fmt::format("{}={}", member.name, Join(member.peer_urls)));
  }
  return fmt::format("{}", fmt::join(texts, " "));
}

std::string Milliseconds(absl::Duration duration) {
  return fmt::format("{}", absl::ToInt64Milliseconds(duration));
}

// A setting as text, for the tables.
std::string Show(const Config& config, std::string_view what) {
  const std::map<std::string_view, std::function<std::string()>> shown = {
      {"name", [&] { return config.name; }},
      {"data-dir", [&] { return config.data_dir; }},
      {"client", [&] { return Join(config.listen_client_urls); }},
      {"advertise-client", [&] { return Join(config.advertise_client_urls); }},
      {"peer", [&] { return Join(config.listen_peer_urls); }},
      {"advertise-peer", [&] { return Join(config.initial_advertise_peer_urls); }},
      {"metrics", [&] { return Join(config.listen_metrics_urls); }},
      {"cluster", [&] { return Join(config.initial_cluster); }},
      {"token", [&] { return config.initial_cluster_token; }},
      {"exists", [&] { return fmt::format("{}", config.initial_cluster_exists); }},
      {"heartbeat", [&] { return Milliseconds(config.heartbeat_interval); }},
      {"election", [&] { return Milliseconds(config.election_timeout); }},
      {"ticks", [&] { return fmt::format("{}", config.ElectionTicks()); }},
      {"quota", [&] { return fmt::format("{}", config.quota_backend_bytes); }},
      {"request", [&] { return fmt::format("{}", config.max_request_bytes); }},
      {"ops", [&] { return fmt::format("{}", config.max_txn_ops); }},
      {"compaction",
       [&] {
         const std::string before = absl::FormatDuration(config.compact_before);
         return fmt::format("{} {}", before == "0" ? "0s" : before, config.compact_revisions);
       }},
      {"streams", [&] { return fmt::format("{}", config.max_concurrent_streams); }},
      {"ping-min", [&] { return Milliseconds(config.grpc_keepalive_min_time); }},
      {"ping", [&] { return Milliseconds(config.grpc_keepalive_interval); }},
      {"ping-timeout", [&] { return Milliseconds(config.grpc_keepalive_timeout); }},
      {"watch-progress", [&] { return Milliseconds(config.watch_progress_notify_interval); }},
      {"memory", [&] { return fmt::format("{}", config.memory_bytes); }},
      {"level", [&] { return fmt::format("{}", static_cast<int>(config.log_level)); }},
      {"output", [&] { return fmt::format("{}", static_cast<int>(config.log_output)); }},
      {"join", [&] { return Join(config.discovery.join); }},
      {"marker", [&] { return config.discovery.marker ? config.discovery.marker_name : "none"; }},
      {"desired",
       [&] { return fmt::format("{}", static_cast<int>(config.discovery.desired_from)); }},
      {"stop",
       [&] {
         return fmt::format("{} {} {}", Milliseconds(config.stop.delay),
                            Milliseconds(config.stop.guard_max_wait),
                            Milliseconds(config.stop.grace_period));
       }},
      {"warnings", [&] { return fmt::format("{}", fmt::join(config.warnings, "|")); }},
      {"notes", [&] { return fmt::format("{}", fmt::join(config.debug_notes, "|")); }},
  };
  return shown.at(what)();
}

struct Accepted {
  std::vector<std::string> arguments;
  Environment environment;
  std::string file;
  std::string_view what;
  std::string_view value;
};

TEST_CASE("settings come out as they were given") {
  const std::vector<std::string> file = {"--config-file=kvd.yaml"};
  const std::vector<Accepted> rows = {
      // Defaults.
      {{}, {}, "", "name", "default"},
      {{}, {}, "", "data-dir", "default.kvd"},
      {{}, {}, "", "client", "http://localhost:2379"},
      {{}, {}, "", "advertise-client", "http://localhost:2379"},
      {{}, {}, "", "peer", "http://localhost:2380"},
      {{}, {}, "", "advertise-peer", "http://localhost:2380"},
      {{}, {}, "", "metrics", ""},
      {{}, {}, "", "cluster", "default=http://localhost:2380"},
      {{}, {}, "", "token", "kvd-cluster"},
      {{}, {}, "", "exists", "false"},
      {{}, {}, "", "heartbeat", "100"},
      {{}, {}, "", "election", "1000"},
      {{}, {}, "", "ticks", "10"},
      {{}, {}, "", "quota", "0"},
      {{}, {}, "", "request", "1572864"},
      {{}, {}, "", "ops", "128"},
      {{}, {}, "", "streams", "4294967295"},
      {{}, {}, "", "ping-min", "5000"},
      {{}, {}, "", "ping", "7200000"},
      {{}, {}, "", "ping-timeout", "20000"},
      {{}, {}, "", "warnings", ""},
      // Flags, in both spellings; the last one counts.
      {{"--name=m1"}, {}, "", "name", "m1"},
      {{"--name", "m1"}, {}, "", "name", "m1"},
      {{"--name=m1"}, {}, "", "data-dir", "m1.kvd"},
      {{"--name=m1"}, {}, "", "cluster", "m1=http://localhost:2380"},
      {{"--name=a", "--name=b"}, {}, "", "name", "b"},
      {{"--data-dir=/x/y"}, {}, "", "data-dir", "/x/y"},
      {{"--listen-client-urls=http://127.0.0.1:1,http://[::1]:2"},
       {},
       "",
       "client",
       "http://127.0.0.1:1,http://[::1]:2"},
      {{"--listen-client-urls=http://127.0.0.1:1"},
       {},
       "",
       "advertise-client",
       "http://127.0.0.1:1"},
      {{"--listen-client-urls=http://0.0.0.0:1", "--advertise-client-urls=http://Host.Example:1/"},
       {},
       "",
       "advertise-client",
       "http://host.example:1"},
      {{"--listen-metrics-urls=http://127.0.0.1:9"}, {}, "", "metrics", "http://127.0.0.1:9"},
      {{"--listen-metrics-urls="}, {}, "", "metrics", ""},
      {{"--listen-metrics-urls=", "--name=m1"}, {}, "", "name", "m1"},
      {{"--name=b", "--initial-advertise-peer-urls=http://b:1,http://c:1",
        "--initial-cluster=b=http://c:1, a=http://a:1,b=http://b:1"},
       {},
       "",
       "cluster",
       "a=http://a:1 b=http://b:1,http://c:1"},
      {{"--initial-cluster-state=existing"}, {}, "", "exists", "true"},
      {{"--initial-cluster-token", "t"}, {}, "", "token", "t"},
      {{"--heartbeat-interval=20", "--election-timeout=150"}, {}, "", "ticks", "7"},
      {{"--quota-backend-bytes", "-1"}, {}, "", "quota", "-1"},
      {{"--quota-backend-bytes=-1"}, {}, "", "quota", "-1"},
      {{"--max-txn-ops=1024"}, {}, "", "ops", "1024"},
      {{}, {}, "", "compaction", "0s 0"},
      {{"--auto-compaction-retention=8"}, {}, "", "compaction", "8h 0"},
      {{"--auto-compaction-retention=90m"}, {}, "", "compaction", "1h30m 0"},
      {{"--auto-compaction-mode=revision", "--auto-compaction-retention=1000"},
       {},
       "",
       "compaction",
       "0s 1000"},
      {{"--grpc-keepalive-interval=90s"}, {}, "", "ping", "90000"},
      {{"--grpc-keepalive-timeout=1m30s"}, {}, "", "ping-timeout", "90000"},
      {{"--watch-progress-notify-interval=5s"}, {}, "", "watch-progress", "5000"},
      {{"--log-level=debug"}, {}, "", "level", "0"},
      {{"--log-outputs=stdout"}, {}, "", "output", "1"},
      {{"--log-outputs=default"}, {}, "", "output", "0"},
      // Environment.
      {{}, {{"KVD_NAME", "e"}}, "", "name", "e"},
      {{"--name=f"}, {{"KVD_NAME", "e"}}, "", "name", "f"},
      {{}, {{"KVD_NAME", ""}}, "", "name", "default"},
      {{}, {{"NAME", "x"}}, "", "name", "default"},
      {{}, {{"KVD_HEARTBEAT_INTERVAL", "50"}}, "", "heartbeat", "50"},
      {{},
       {{"KVD_PORT", "tcp://10.0.0.1:2379"}, {"KVD_SERVICE_HOST", "10.0.0.1"}},
       "",
       "notes",
       "variables that mean nothing here are ignored: KVD_PORT, KVD_SERVICE_HOST"},
      // File.
      {file, {}, "name: y", "name", "y"},
      {file, {}, "", "name", "default"},
      {file, {{"KVD_NAME", "e"}}, "name: y", "name", "e"},
      {{"--config-file=kvd.yaml", "--name=f"}, {{"KVD_NAME", "e"}}, "name: y", "name", "f"},
      {{}, {{"KVD_CONFIG_FILE", "kvd.yaml"}}, "name: y", "name", "y"},
      {file, {}, "# comment\nheartbeat-interval: 200\nelection-timeout: 2000\n", "ticks", "10"},
      {file,
       {},
       "listen-client-urls:\n  - http://127.0.0.1:1\n  - http://127.0.0.1:2\n",
       "client",
       "http://127.0.0.1:1,http://127.0.0.1:2"},
      {file, {}, "name: \"8\"", "name", "8"},
      {file,
       {},
       "pre-vote: true",
       "warnings",
       "kvd.yaml:1: pre-vote is accepted: it has no meaning here: this is always on"},
      // Discovery by a list: by the machine's name, the address, or --name.
      {{"--join=host1,host2,host3"}, {}, "", "name", "host2"},
      {{"--join=host1,host2,host3"}, {}, "", "data-dir", "host2.kvd"},
      {{"--join=host1,host2,host3"}, {}, "", "advertise-peer", "http://host2:2380"},
      {{"--join=host1,host2:9,host3"}, {}, "", "peer", "http://0.0.0.0:9"},
      {{"--join=host1,host2,host3"}, {}, "", "client", "http://0.0.0.0:2379"},
      {{"--join=host1,host2,host3"}, {}, "", "advertise-client", "http://host2:2379"},
      {{"--join=host1,host2,host3"}, {}, "", "cluster", ""},
      {{"--join=host1,host2.example.org"}, {}, "", "name", "host2.example.org"},
      {{"--join=host1,host3"}, {}, "", "name", "host2"},
      {{"--join=host1,host3"}, {}, "", "advertise-peer", "http://host2:2380"},
      {{"--join=host1,host3", "--name=x"}, {}, "", "name", "x"},
      {{"--join=b=10.0.0.2, a=http://10.0.0.1:7,[::1]:8"},
       {},
       "",
       "join",
       "b=http://10.0.0.2:2380 a=http://10.0.0.1:7 ::1=http://[::1]:8"},
      {{"--join=127.0.0.1:1,127.0.0.1:2"},
       {},
       "",
       "join",
       "127.0.0.1:1=http://127.0.0.1:1 127.0.0.1:2=http://127.0.0.1:2"},
      {{"--join=a=h:1,b=h:2", "--name=b"}, {}, "", "advertise-peer", "http://h:2"},
      {{"--join=a=h:1,b=h:2", "--initial-advertise-peer-urls=http://h:2"}, {}, "", "name", "b"},
      // Discovery by a StatefulSet.
      {{"--kubernetes-statefulset=kvd", "--name=kvd-2"},
       {},
       "",
       "advertise-peer",
       "http://kvd-2.kvd-peer.prod.svc:2380"},
      {{"--kubernetes-statefulset=kvd", "--name=kvd-2", "--kubernetes-namespace=test"},
       {},
       "",
       "advertise-client",
       "http://kvd-2.kvd-peer.test.svc:2379"},
      {{"--kubernetes-statefulset=kvd", "--name=kvd-2"}, {}, "", "marker", "kvd-cluster"},
      {{"--kubernetes-statefulset=kvd", "--name=kvd-2", "--bootstrap-marker=none"},
       {},
       "",
       "marker",
       "none"},
      {{"--kubernetes-statefulset=kvd", "--name=kvd-2", "--desired-replicas-source=none"},
       {},
       "",
       "desired",
       "2"},
      {{}, {}, "", "stop", "0 0 0"},
      {{"--shutdown-delay=5s", "--shutdown-guard-max-wait=2m", "--termination-grace-period=3m"},
       {},
       "",
       "stop",
       "5000 120000 180000"},
      // etcd's flags.
      {{"--snapshot-count=10000"},
       {},
       "",
       "warnings",
       "--snapshot-count is accepted: it has no meaning here: snapshots are made when a member "
       "needs one"},
      {{"--pre-vote", "--name=m1"}, {}, "", "name", "m1"},
      {{"--unsafe-no-fsync"},
       {},
       "",
       "warnings",
       "--unsafe-no-fsync is accepted: it has no meaning here: what was acknowledged is always "
       "synced"},
      {{},
       {{"KVD_BCRYPT_COST", "10"}},
       "",
       "warnings",
       "KVD_BCRYPT_COST is accepted: it has no effect yet; it arrives with users and roles"},
      {{"--client-cert-auth=false", "--cert-file=", "--force-new-cluster=false"},
       {},
       "",
       "warnings",
       ""},
  };
  for (const Accepted& row : rows) {
    const absl::StatusOr<CommandLine> line = Load(row.arguments, row.environment, row.file);
    INFO(fmt::format("arguments: {}  environment: {}  file: {}", fmt::join(row.arguments, " "),
                     fmt::join(row.environment, " "), row.file));
    INFO(Error(line));
    REQUIRE(line.ok());
    CHECK_FALSE(line->print.has_value());
    CHECK(Show(line->config, row.what) == row.value);
  }
}

TEST_CASE("memory and threads follow from what the container was given") {
  constexpr uint64_t kMiB = uint64_t{1} << 20;
  struct Row {
    std::vector<std::string> arguments;
    Files files;
    uint64_t memory;  // MiB
    uint64_t limit;   // MiB
    uint64_t processors;
  };
  const std::string two = "0::/\n";
  const std::string nested = "0::/pods/a\n";
  const std::string one = "9:name=systemd:/x\n4:memory:/pod\n3:cpu,cpuacct:/pod\n";
  const std::vector<Row> rows = {
      {{}, {}, 208, 0, 16},
      {{"--memory-bytes=67108864"}, {}, 64, 0, 16},
      {{}, {{"/proc/self/cgroup", two}}, 208, 0, 16},
      {{},
       {{"/proc/self/cgroup", two},
        {"/sys/fs/cgroup/memory.max", "max\n"},
        {"/sys/fs/cgroup/cpu.max", "max 100000\n"}},
       208,
       0,
       16},
      {{},
       {{"/proc/self/cgroup", two},
        {"/sys/fs/cgroup/memory.max", "1073741824\n"},
        {"/sys/fs/cgroup/cpu.max", "250000 100000\n"}},
       511,
       1024,
       3},
      {{"--memory-limit-fraction=0.25"},
       {{"/proc/self/cgroup", two}, {"/sys/fs/cgroup/memory.max", "1073741824"}},
       255,
       1024,
       16},
      {{"--memory-bytes=67108864"},
       {{"/proc/self/cgroup", two}, {"/sys/fs/cgroup/memory.max", "1073741824"}},
       64,
       1024,
       16},
      // The smallest on the way up counts; half a processor is one.
      {{},
       {{"/proc/self/cgroup", nested},
        {"/sys/fs/cgroup/pods/a/memory.max", "max"},
        {"/sys/fs/cgroup/pods/memory.max", "536870912"},
        {"/sys/fs/cgroup/memory.max", "max"},
        {"/sys/fs/cgroup/pods/a/cpu.max", "50000 100000"}},
       255,
       512,
       1},
      // Version 1, shown as the root.
      {{},
       {{"/proc/self/cgroup", one},
        {"/sys/fs/cgroup/memory/memory.limit_in_bytes", "268435456\n"},
        {"/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000\n"},
        {"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"}},
       127,
       256,
       2},
      {{},
       {{"/proc/self/cgroup", one},
        {"/sys/fs/cgroup/memory/pod/memory.limit_in_bytes", "9223372036854771712\n"},
        {"/sys/fs/cgroup/cpu/pod/cpu.cfs_quota_us", "-1\n"},
        {"/sys/fs/cgroup/cpu/pod/cpu.cfs_period_us", "100000\n"}},
       208,
       0,
       16},
      // Too little to share out.
      {{}, {{"/proc/self/cgroup", two}, {"/sys/fs/cgroup/memory.max", "33554432"}}, 48, 32, 16},
  };
  for (const Row& row : rows) {
    const absl::StatusOr<CommandLine> line = Load(row.arguments, {}, "", row.files);
    INFO(fmt::format("arguments: {}  files: {}  {}", fmt::join(row.arguments, " "),
                     fmt::join(row.files, " "), Error(line)));
    REQUIRE(line.ok());
    CHECK(line->config.memory_bytes / kMiB == row.memory);
    CHECK(line->config.memory_limit_bytes / kMiB == row.limit);
    CHECK(line->config.processors == row.processors);
  }
}

struct Refused {
  std::vector<std::string> arguments;
  Environment environment;
  std::string file;
  std::string_view error;
};

TEST_CASE("the file of what may change beats the other file, and nothing else") {
  const auto quota = [](std::vector<std::string> more, const Environment& environment) {
    std::vector<std::string> arguments = {"--config-file=kvd.yaml",
                                          "--runtime-config-file=runtime.yaml"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const absl::StatusOr<CommandLine> line =
        Load(std::move(arguments), environment, "quota-backend-bytes: 1\nlog-level: error",
             {{"runtime.yaml", "quota-backend-bytes: 2"}});
    REQUIRE(line.ok());
    CHECK(line->config.log_level == LogLevel::kError);
    CHECK(line->config.runtime_config_file == "runtime.yaml");
    return line->config.quota_backend_bytes;
  };
  CHECK(quota({}, {}) == 2);
  CHECK(quota({}, {{"KVD_QUOTA_BACKEND_BYTES", "3"}}) == 3);
  CHECK(quota({"--quota-backend-bytes=4"}, {{"KVD_QUOTA_BACKEND_BYTES", "3"}}) == 4);
}

TEST_CASE("what is wrong is named, with the limit and the next step") {
  const std::vector<std::string> file = {"--config-file=kvd.yaml"};
  const std::vector<Refused> rows = {
      // Unknown things.
      {{"--nmae=x"}, {}, "", "unknown flag --nmae: did you mean --name? see kvd --help"},
      {{"--election-timout", "5"},
       {},
       "",
       "unknown flag --election-timout: did you mean --election-timeout? see kvd --help"},
      {{"-name", "x"}, {}, "", "unknown flag -name: did you mean --name? see kvd --help"},
      {{"--nam=x"}, {}, "", "unknown flag --nam: did you mean --name? see kvd --help"},
      {{"--experimental-compact-hash-check-time=1m"},
       {},
       "",
       "unknown flag --experimental-compact-hash-check-time: did you mean "
       "--compact-hash-check-time? see kvd --help"},
      {{"--zzzzzzzzzzzzzzzzz"}, {}, "", "unknown flag --zzzzzzzzzzzzzzzzz: see kvd --help"},
      {{"serve"}, {}, "", "unexpected argument \"serve\": kvd takes flags only; see kvd --help"},
      {{"--name"}, {}, "", "flag --name needs a value; write --name=VALUE, or see kvd --help"},
      // Who the members are is said once.
      {{"--join=a,b", "--initial-cluster=a=http://a:1"},
       {},
       "",
       "--initial-cluster and --join both say who the members are; leave one out"},
      {{"--join=a,b", "--kubernetes-statefulset=kvd"},
       {},
       "",
       "--join and --kubernetes-statefulset both say who the members are; leave one out"},
      {{"--join=a,b", "--initial-cluster-state=existing"},
       {},
       "",
       "--initial-cluster-state=existing goes with --initial-cluster; with --join a member finds "
       "out by itself"},
      {{"--join=a=h:1,b=h:2", "--name=b", "--initial-advertise-peer-urls=http://h:1"},
       {},
       "",
       "--join gives b the address http://h:2, but --initial-advertise-peer-urls=http://h:1; make "
       "them the same"},
      {{"--join=a,b,a"},
       {},
       "",
       "--join=\"a,b,a\": http://a:2380 stands there twice; correct it, or leave it out for the "
       "default (none)"},
      {{"--join=a,b,0.0.0.0"},
       {},
       "",
       "--join=\"a,b,0.0.0.0\": others cannot connect to http://0.0.0.0:2380; name an address; "
       "correct it, or leave it out for the default (none)"},
      {{"--kubernetes-statefulset=kvd"},
       {},
       "",
       "--name=\"\" must be the pod's name, kvd-N; set KVD_NAME from metadata.name"},
      {{"--kubernetes-statefulset=kvd", "--name=kvd-01"},
       {},
       "",
       "--name=\"kvd-01\" must be the pod's name, kvd-N; set KVD_NAME from metadata.name"},
      {{"--kubernetes-statefulset=KVD"},
       {},
       "",
       "--kubernetes-statefulset=\"KVD\": must be 1 to 63 of a-z, 0-9 and -, as Kubernetes names "
       "things; correct it, or leave it out for the default (none)"},
      {{"--desired-replicas-source=dns"},
       {},
       "",
       "--desired-replicas-source=\"dns\": must be apiserver, file or none; correct it, or leave "
       "it out for the default (apiserver)"},
      {{"--memory-limit-fraction=1"},
       {},
       "",
       "--memory-limit-fraction=\"1\": must be a number from 0.05 to 0.9 with at most two digits "
       "behind the point; correct it, or leave it out for the default (0.5)"},
      {{"--memory-limit-fraction=0.95"},
       {},
       "",
       "--memory-limit-fraction=\"0.95\": must be a number from 0.05 to 0.9 with at most two "
       "digits behind the point; correct it, or leave it out for the default (0.5)"},
      // Wrong values.
      {{"--name=a b"},
       {},
       "",
       "--name=\"a b\": must be 1 to 128 printable characters without space, comma, =, / or "
       "quotes; "
       "correct it, or leave it out for the default (default)"},
      {{"--name="},
       {},
       "",
       "--name=\"\": must be 1 to 128 printable characters without space, comma, =, / or quotes; "
       "correct it, or leave it out for the default (default)"},
      {{"--data-dir="},
       {},
       "",
       "--data-dir=\"\": must name a directory; correct it, or leave it out for the default "
       "(<name>.kvd)"},
      {{"--heartbeat-interval=0"},
       {},
       "",
       "--heartbeat-interval=\"0\": must be a whole number of milliseconds from 1 to 10000; "
       "correct "
       "it, or leave it out for the default (100)"},
      {{"--heartbeat-interval=100ms"},
       {},
       "",
       "--heartbeat-interval=\"100ms\": must be a whole number of milliseconds from 1 to 10000; "
       "correct it, or leave it out for the default (100)"},
      {{"--election-timeout=50001"},
       {},
       "",
       "--election-timeout=\"50001\": must be a whole number of milliseconds from 1 to 50000; "
       "correct it, or leave it out for the default (1000)"},
      {{"--election-timeout=499"},
       {},
       "",
       "--election-timeout=499 must be at least 5 times --heartbeat-interval=100; raise the first "
       "to "
       "500 or more, or lower the second"},
      {{"--quota-backend-bytes=2GB"},
       {},
       "",
       "--quota-backend-bytes=\"2GB\": must be a whole number of bytes from -9223372036854775808 "
       "to "
       "9223372036854775807; correct it, or leave it out for the default (0)"},
      {{"--max-request-bytes=1023"},
       {},
       "",
       "--max-request-bytes=\"1023\": must be a whole number of bytes from 1024 to 67108864; "
       "correct "
       "it, or leave it out for the default (1572864)"},
      {{"--max-request-bytes=10000000"},
       {},
       "",
       "--max-request-bytes=10000000 is too large for --memory-bytes=218103808: its share for the "
       "log is 33554432, which must hold 4 requests; raise the second or lower the first"},
      {{"--max-txn-ops=0"},
       {},
       "",
       "--max-txn-ops=\"0\": must be a whole number from 1 to 1000000; correct it, or leave it out "
       "for the default (128)"},
      {{"--auto-compaction-mode=revision", "--auto-compaction-retention=1h"},
       {},
       "",
       "--auto-compaction-retention=1h with --auto-compaction-mode=revision must be a whole number "
       "of revisions from 0 to 9223372036854775807"},
      {{"--auto-compaction-mode=sometimes"},
       {},
       "",
       "--auto-compaction-mode=\"sometimes\": must be periodic or revision; correct it, or leave "
       "it "
       "out for the default (periodic)"},
      {{"--max-concurrent-streams=-1"},
       {},
       "",
       "--max-concurrent-streams=\"-1\": must be a whole number from 1 to 4294967295; correct it, "
       "or "
       "leave it out for the default (4294967295)"},
      {{"--grpc-keepalive-timeout=20"},
       {},
       "",
       "--grpc-keepalive-timeout=\"20\": must be a duration such as 5s or 2h, from 1s to one year; "
       "correct it, or leave it out for the default (20s)"},
      {{"--memory-bytes=1000"},
       {},
       "",
       "--memory-bytes=\"1000\": must be a whole number of bytes from 33554432 to 1099511627776; "
       "correct it, or leave it out for the default (208 MiB, or a fraction)"},
      {{"--initial-cluster-state=old"},
       {},
       "",
       "--initial-cluster-state=\"old\": must be new or existing; correct it, or leave it out for "
       "the default (new)"},
      {{"--log-level=loud"},
       {},
       "",
       "--log-level=\"loud\": must be debug, info, warn or error; correct it, or leave it out for "
       "the default (info)"},
      {{"--log-outputs=/var/log/kvd"},
       {},
       "",
       "--log-outputs=\"/var/log/kvd\": must be stderr or stdout; redirect it to write a file; "
       "correct it, or leave it out for the default (stderr)"},
      {{"--pre-vote=maybe"}, {}, "", "--pre-vote=\"maybe\": must be true or false"},
      // URLs.
      {{"--listen-client-urls=127.0.0.1:1"},
       {},
       "",
       "--listen-client-urls=\"127.0.0.1:1\": \"127.0.0.1:1\" is not an http URL; write "
       "http://host:port; correct it, or leave it out for the default (http://localhost:2379)"},
      {{"--listen-client-urls=http://127.0.0.1"},
       {},
       "",
       "--listen-client-urls=\"http://127.0.0.1\": \"http://127.0.0.1\" has no port; write "
       "http://host:port; correct it, or leave it out for the default (http://localhost:2379)"},
      {{"--listen-client-urls=http://127.0.0.1:65536"},
       {},
       "",
       "--listen-client-urls=\"http://127.0.0.1:65536\": \"http://127.0.0.1:65536\" has a port "
       "that "
       "is not between 1 and 65535; write http://host:port; correct it, or leave it out for the "
       "default (http://localhost:2379)"},
      {{"--listen-peer-urls=http://kvd-0.example:1"},
       {},
       "",
       "--listen-peer-urls=\"http://kvd-0.example:1\": \"kvd-0.example\" must be an IP address of "
       "this machine or localhost, as http://127.0.0.1:1 or http://0.0.0.0:1; correct it, or leave "
       "it out for the default (http://localhost:2380)"},
      {{"--listen-peer-urls=http://::1:1"},
       {},
       "",
       "--listen-peer-urls=\"http://::1:1\": \"http://::1:1\" has an IPv6 address without "
       "brackets; "
       "write http://host:port; correct it, or leave it out for the default "
       "(http://localhost:2380)"},
      {{"--listen-client-urls=http://127.0.0.1:1/path"},
       {},
       "",
       "--listen-client-urls=\"http://127.0.0.1:1/path\": \"http://127.0.0.1:1/path\" has more "
       "than "
       "a host and a port; write http://host:port; correct it, or leave it out for the default "
       "(http://localhost:2379)"},
      {{"--advertise-client-urls=http://0.0.0.0:1"},
       {},
       "",
       "--advertise-client-urls=\"http://0.0.0.0:1\": others cannot connect to http://0.0.0.0:1; "
       "name an address of this machine; correct it, or leave it out for the default (what "
       "--listen-client-urls says)"},
      {{"--listen-client-urls=http://0.0.0.0:1"},
       {},
       "",
       "--advertise-client-urls is needed: --listen-client-urls=http://0.0.0.0:1 is every address "
       "of this machine, and others must be told one of them"},
      {{"--listen-client-urls=http://127.0.0.1:1,http://127.0.0.1:1"},
       {},
       "",
       "--listen-client-urls=\"http://127.0.0.1:1,http://127.0.0.1:1\": http://127.0.0.1:1 stands "
       "there twice; correct it, or leave it out for the default (http://localhost:2379)"},
      {{"--listen-client-urls=http://127.0.0.1:1", "--listen-peer-urls=http://127.0.0.1:1"},
       {},
       "",
       "--listen-client-urls and --listen-peer-urls both listen to http://127.0.0.1:1; give each "
       "its own port"},
      // The list.
      {{"--name=c", "--initial-cluster=a=http://a:1,b=http://b:1"},
       {},
       "",
       "--name=c is not in --initial-cluster, which lists a, b; correct one of them"},
      {{"--name=a", "--initial-cluster=a=http://a:1"},
       {},
       "",
       "--initial-cluster gives a the URLs http://a:1, but "
       "--initial-advertise-peer-urls=http://localhost:2380; make them the same"},
      {{"--initial-cluster=http://a:1"},
       {},
       "",
       "--initial-cluster=\"http://a:1\": \"http://a:1\" must be name=http://host:port; separate "
       "members by commas; correct it, or leave it out for the default (this member alone)"},
      {{"--initial-cluster=a=http://x:1,b=http://x:1"},
       {},
       "",
       "--initial-cluster=\"a=http://x:1,b=http://x:1\": http://x:1 belongs to both \"a\" and "
       "\"b\"; "
       "give each member its own; correct it, or leave it out for the default (this member alone)"},
      {{"--initial-cluster=a=http://[::]:1"},
       {},
       "",
       "--initial-cluster=\"a=http://[::]:1\": others cannot connect to http://[::]:1; name an "
       "address; correct it, or leave it out for the default (this member alone)"},
      // TLS and other things that must not be ignored.
      {{"--listen-client-urls=https://127.0.0.1:1"},
       {},
       "",
       "--listen-client-urls=\"https://127.0.0.1:1\": \"https://127.0.0.1:1\": TLS arrives with a "
       "later release; use http://; correct it, or leave it out for the default "
       "(http://localhost:2379)"},
      {{"--cert-file=/x"},
       {},
       "",
       "--cert-file=\"/x\": TLS arrives with a later release; use http:// URLs and leave this out"},
      {{"--client-cert-auth"},
       {},
       "",
       "--client-cert-auth=\"true\": TLS arrives with a later release; use http:// URLs and leave "
       "this out"},
      {{},
       {{"KVD_PEER_AUTO_TLS", "true"}},
       "",
       "KVD_PEER_AUTO_TLS=\"true\": TLS arrives with a later release; use http:// URLs and leave "
       "this out"},
      {{"--force-new-cluster"},
       {},
       "",
       "--force-new-cluster=\"true\": not supported; leave it out: a cluster that lost its quorum "
       "is "
       "restored from a snapshot instead"},
      {{"--discovery=https://x"},
       {},
       "",
       "--discovery=\"https://x\": not supported; leave it out: list the members in "
       "--initial-cluster instead"},
      // Environment and file name themselves.
      {{},
       {{"KVD_MAX_TXN_OPS", "many"}},
       "",
       "KVD_MAX_TXN_OPS=\"many\": must be a whole number from 1 to 1000000; correct it, or leave "
       "it "
       "out for the default (128)"},
      {{"--config-file=other.yaml"},
       {},
       "",
       "--config-file=\"other.yaml\": cannot be read: no such file"},
      {{},
       {{"KVD_CONFIG_FILE", "other.yaml"}},
       "",
       "KVD_CONFIG_FILE=\"other.yaml\": cannot be read: no such file"},
      {file,
       {},
       "name: a\nelection-timeut: 5",
       "kvd.yaml:2: unknown key \"election-timeut\": did you mean election-timeout? keys are the "
       "flags without dashes, see kvd --help"},
      {file,
       {},
       "max-txn-ops: x",
       "kvd.yaml:1: max-txn-ops=\"x\": must be a whole number from 1 to 1000000; correct it, or "
       "leave it out for the default (128)"},
      {file, {}, "name: [a, b]", "kvd.yaml:1: the key \"name\" must be one value, not a list"},
      {file, {}, "name:", "kvd.yaml:1: the key \"name\" must be one value, not nothing"},
      {file,
       {},
       "initial-cluster: {a: b}",
       "kvd.yaml:1: the key \"initial-cluster\" must be one value or a list of them, not a map"},
      {file, {}, "name: a\nname: b", "kvd.yaml:2: the key \"name\" stands there twice; remove one"},
      {file, {}, "- a\n- b", "kvd.yaml: must hold lines of the form \"flag: value\""},
      {file,
       {},
       "client-transport-security:\n  cert-file: /x\n",
       "kvd.yaml:1: \"client-transport-security\": TLS arrives with a later release; use http:// "
       "URLs and leave it out"},
      {{"--runtime-config-file=kvd.yaml"},
       {},
       "log-level: warn\nname: x",
       "kvd.yaml:2: name cannot change while kvd runs; --runtime-config-file may hold "
       "quota-backend-bytes and log-level, put this one into --config-file"},
      {{},
       {{"KVD_RUNTIME_CONFIG_FILE", "other.yaml"}},
       "",
       "KVD_RUNTIME_CONFIG_FILE=\"other.yaml\": cannot be read: no such file"},
      {file,
       {},
       "config-file: x",
       "kvd.yaml:1: unknown key \"config-file\": keys are the flags without dashes, see kvd "
       "--help"},
  };
  for (const Refused& row : rows) {
    INFO(fmt::format("arguments: {}  environment: {}  file: {}", fmt::join(row.arguments, " "),
                     fmt::join(row.environment, " "), row.file));
    CHECK(Error(Load(row.arguments, row.environment, row.file)) == row.error);
  }
}

TEST_CASE("a file that is not YAML is refused with its line") {
  const std::string error = Error(Load({"--config-file=kvd.yaml"}, {}, "name: a\n  b: [\n"));
  CHECK(error.starts_with("kvd.yaml:"));
  CHECK(error.find("not valid YAML") != std::string::npos);
}

TEST_CASE("help and version are printed, whatever else stands there") {
  absl::StatusOr<CommandLine> line = Load({"--help", "--nonsense"});
  REQUIRE(line.ok());
  REQUIRE(line->print.has_value());
  for (const char* text : {"Member:", "Cluster:", "Consensus:", "Limits:", "Logging:", "--data-dir",
                           "[1000]", "--config-file", "--snapshot-count"}) {
    INFO(text);
    CHECK(line->print->find(text) != std::string::npos);
  }
  for (size_t begin = 0; begin < line->print->size();) {
    const size_t end = line->print->find('\n', begin);
    CHECK(end - begin <= 120);
    begin = end + 1;
  }
  line = Load({"--version"});
  REQUIRE(line.ok());
  CHECK(line->print->starts_with("kvd version "));
}

TEST_CASE("the memory setting is shared out in proportion") {
  const MemoryShares standard = Config{}.Memory();
  CHECK(standard.log_bytes == 32 << 20);
  CHECK(standard.flush_log_bytes == 16 << 20);
  CHECK(standard.memtable_bytes == 32 << 20);
  CHECK(standard.block_cache_bytes == 48 << 20);
  CHECK(standard.record_cache_bytes == 64 << 20);
  Config config;
  for (const uint64_t memory : {uint64_t{32} << 20, uint64_t{1} << 30, uint64_t{1} << 40}) {
    config.memory_bytes = memory;
    const MemoryShares shares = config.Memory();
    const uint64_t sum = shares.log_bytes + 2 * shares.memtable_bytes + shares.block_cache_bytes +
                         shares.record_cache_bytes;
    CHECK(sum <= memory);
    CHECK(sum >= memory / 100 * 99);
    CHECK(shares.flush_log_bytes == shares.log_bytes / 2);
  }
}

TEST_CASE("URLs are read as written and written as read") {
  for (const std::string text :
       {"http://127.0.0.1:1", "http://[::1]:65535", "http://kvd-0.svc:80"}) {
    const absl::StatusOr<Url> url = ParseUrl(text);
    REQUIRE(url.ok());
    CHECK(url->Text() == text);
  }
  CHECK(ParseUrl("http://[fe80::1]:5").value().host == "fe80::1");
  CHECK(ParseUrl("http://[::1]:5").value().HostPort() == "[::1]:5");
  for (const std::string_view text :
       {"", "http://", "http://:1", "http://a", "http://a:", "http://a:0", "http://a:x",
        "http://a:1?b", "http://u@a:1", "ftp://a:1", "unix:///x", "http://[::1]", "http://[a]:1",
        "http://a b:1", "https://a:1"}) {
    INFO(text);
    CHECK_FALSE(ParseUrl(text).ok());
  }
}

}  // namespace
}  // namespace kv

// What a member is told from outside: flags, environment, a YAML file.
//
// Loading is pure: it reads its arguments and, through the given function, one file; it touches no
// disk and no global. Precedence is flag > environment (KVD_<FLAG>) > file > default. Every error
// is one sentence that names the setting as the user wrote it, the value, what is allowed and the
// next step. The names are etcd's where the meaning is etcd's.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kv {

// http://host:port. `host` carries no brackets, also when it is an IPv6 address.
struct Url {
  std::string host;
  uint16_t port = 0;

  std::string Text() const;      // http://host:port
  std::string HostPort() const;  // host:port, IPv6 in brackets
  friend auto operator<=>(const Url&, const Url&) = default;
};
absl::StatusOr<Url> ParseUrl(std::string_view text);

struct ListedMember {
  std::string name;
  std::vector<Url> peer_urls;  // Sorted.
  friend bool operator==(const ListedMember&, const ListedMember&) = default;
};

// How the one memory setting is shared out (decision 13; the defaults are its figures).
struct MemoryShares {
  uint64_t log_bytes = uint64_t{32} << 20;        // The retained log.
  uint64_t flush_log_bytes = uint64_t{16} << 20;  // Log not yet in the machine's files.
  uint64_t memtable_bytes = uint64_t{32} << 20;   // Each of two.
  uint64_t block_cache_bytes = uint64_t{48} << 20;
  uint64_t record_cache_bytes = uint64_t{64} << 20;
};

// How members find each other by themselves, instead of by --initial-cluster: the slots are those
// of
// --join, in its order, or the pods of a StatefulSet.
struct DiscoveryConfig {
  enum class DesiredFrom { kApiServer, kFile, kNone };

  std::vector<ListedMember> join;  // One URL each.
  std::string statefulset;         // Slots are <statefulset>-0, -1, …
  std::string kubernetes_namespace;
  std::string peer_service;  // <pod>.<peer_service>.<namespace>.svc resolves.

  DesiredFrom desired_from = DesiredFrom::kApiServer;
  std::string desired_file = "/etc/kvd/topology/replicas";
  absl::Duration desired_poll_interval = absl::Seconds(10);
  bool marker = true;  // --bootstrap-marker=configmap
  std::string marker_name;
  uint64_t max_founders = 3;
  bool reinitialize = false;  // --bootstrap-on-total-loss=reinitialize

  absl::Duration stability_window = absl::Seconds(30);
  absl::Duration unreachable_before_remove = absl::Seconds(30);
  absl::Duration replace_after_inactive = absl::Seconds(10);
  bool standby_learners = false;
  uint64_t max_voters = 7;
  uint64_t max_catching_up = 2;

  bool on() const { return !join.empty() || !statefulset.empty(); }
};

// What happens between SIGTERM and the end.
struct StopConfig {
  absl::Duration delay = absl::ZeroDuration();  // Not ready, still serving.
  absl::Duration drain_timeout = absl::Seconds(5);
  absl::Duration leave_timeout = absl::Seconds(45);
  // How long to wait for the others to be able to spare this member. Zero: nobody is asked.
  absl::Duration guard_max_wait = absl::ZeroDuration();
  // After which the platform kills the process; zero: never.
  absl::Duration grace_period = absl::ZeroDuration();
};

enum class LogLevel { kDebug, kInfo, kWarn, kError };
enum class LogOutput { kStderr, kStdout };

struct Config {
  // Member.
  std::string name = "default";
  std::string data_dir;  // Default: <name>.kvd
  std::vector<Url> listen_client_urls;
  std::vector<Url> advertise_client_urls;
  std::vector<Url> listen_peer_urls;
  std::vector<Url> initial_advertise_peer_urls;
  std::vector<Url> listen_metrics_urls;  // The admin port; off when empty.

  // Cluster.
  std::vector<ListedMember> initial_cluster;  // Sorted by name; empty under discovery.
  std::string initial_cluster_token = "kvd-cluster";
  bool initial_cluster_exists = false;  // --initial-cluster-state=existing
  bool initial_cluster_is_new = false;  // --initial-cluster-state=new was said, not assumed.

  DiscoveryConfig discovery;
  StopConfig stop;

  // Raft.
  absl::Duration heartbeat_interval = absl::Milliseconds(100);
  absl::Duration election_timeout = absl::Milliseconds(1000);

  // Limits.
  int64_t quota_backend_bytes = 0;  // 0 and less: none.
  uint64_t max_request_bytes = 1536 << 10;
  uint64_t max_txn_ops = 128;
  // At most one of them is set; none: nothing is compacted by itself.
  absl::Duration compact_before = absl::ZeroDuration();  // Keep what was current within this time.
  int64_t compact_revisions = 0;                         // Keep so many revisions.
  absl::Duration hash_check_interval = absl::Minutes(1);
  uint64_t max_learners = 1;  // That MemberAdd may leave in the cluster at a time.
  uint32_t max_concurrent_streams = UINT32_MAX;  // A connection.
  absl::Duration grpc_keepalive_min_time = absl::Seconds(5);
  absl::Duration grpc_keepalive_interval = absl::Hours(2);
  absl::Duration grpc_keepalive_timeout = absl::Seconds(20);
  absl::Duration watch_progress_notify_interval = absl::Minutes(10);
  uint64_t memory_bytes = uint64_t{208} << 20;
  uint64_t memory_limit_percent = 50;  // --memory-limit-fraction
  uint64_t memory_limit_bytes = 0;     // What the process may have in all; 0: no limit is known.
  uint64_t processors = 1;             // That it may keep busy.

  // Logging.
  LogLevel log_level = LogLevel::kInfo;
  LogOutput log_output = LogOutput::kStderr;

  // Read again now and then; empty: there is none.
  std::string runtime_config_file;

  // --auto-compaction-mode and -retention as they came; FillDefaults reads them together.
  std::string auto_compaction_mode = "periodic";
  std::string auto_compaction_retention = "0";

  // Said once the log is set up: flags that are accepted and mean nothing here (or not yet), and
  // variables of ours that nobody knows.
  std::vector<std::string> warnings;
  std::vector<std::string> debug_notes;

  MemoryShares Memory() const;
  int ElectionTicks() const;
};

// Where settings come from. `read_file` is asked for --config-file and --runtime-config-file, for
// the process's limits (cgroup.h), and under Kubernetes for the namespace.
struct ConfigSources {
  std::vector<std::string> arguments;  // Without the program's name.
  std::map<std::string, std::string, std::less<>> environment;
  std::function<absl::StatusOr<std::string>(const std::string& path)> read_file;
  std::string host_name;    // Of this machine; tells which of --join it is.
  uint64_t processors = 1;  // Of this machine.
};

struct CommandLine {
  std::optional<std::string> print;  // --help or --version: print this and exit 0.
  Config config;
};

absl::StatusOr<CommandLine> LoadConfig(const ConfigSources& sources);

// The rules that hold between settings (LoadConfig applies them). An error as LoadConfig's.
absl::Status Validate(const Config& config);

}  // namespace kv

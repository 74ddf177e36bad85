#include "server/config_flags.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "server/config_discovery.h"
#include "server/config_values.h"
#include "server/raft/members.h"
#include "storage/status.h"

namespace kv {
namespace {

absl::Status ReadInitialCluster(std::string_view text, std::vector<ListedMember>& target) {
  std::map<std::string, std::vector<Url>> listed;
  std::map<Url, std::string> owners;
  for (const std::string& part : Split(text, ',')) {
    const std::string_view entry = Trim(part);
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos) {
      return Wrong(
          fmt::format("\"{}\" must be name=http://host:port; separate members by commas", entry));
    }
    const std::string name(entry.substr(0, equals));
    if (absl::Status status = CheckName(name); !status.ok()) {
      return Wrong(fmt::format("the name \"{}\" {}", name, Message(status)));
    }
    ASSIGN_OR_RETURN(const Url url, ParseUrl(entry.substr(equals + 1)));
    if (IsWildcard(url)) {
      return Wrong(fmt::format("others cannot connect to {}; name an address", url.Text()));
    }
    if (const auto [owner, added] = owners.emplace(url, name); !added) {
      return Wrong(fmt::format("{} belongs to both \"{}\" and \"{}\"; give each member its own",
                               url.Text(), owner->second, name));
    }
    listed[name].push_back(url);
  }
  if (listed.size() > raft::kVotersMax) {
    return Wrong(fmt::format("must list at most {} members; add others later", raft::kVotersMax));
  }
  target.clear();
  for (auto& [name, urls] : listed) {
    std::ranges::sort(urls);
    target.push_back({.name = name, .peer_urls = urls});
  }
  return absl::OkStatus();
}

absl::Status ReadLogLevel(std::string_view text, LogLevel& target) {
  static const std::map<std::string_view, LogLevel> levels = {
      {"debug", LogLevel::kDebug}, {"info", LogLevel::kInfo},    {"warn", LogLevel::kWarn},
      {"error", LogLevel::kError}, {"dpanic", LogLevel::kError}, {"panic", LogLevel::kError},
      {"fatal", LogLevel::kError}};
  const auto at = levels.find(text);
  if (at == levels.end()) return Wrong("must be debug, info, warn or error");
  target = at->second;
  return absl::OkStatus();
}

absl::Status ReadLogOutput(std::string_view text, LogOutput& target) {
  if (text == "stdout") {
    target = LogOutput::kStdout;
  } else if (text == "stderr" || text == "default") {
    target = LogOutput::kStderr;
  } else {
    return Wrong("must be stderr or stdout; redirect it to write a file");
  }
  return absl::OkStatus();
}

constexpr std::string_view kMember = "Member";
constexpr std::string_view kCluster = "Cluster";
constexpr std::string_view kConsensus = "Consensus";
constexpr std::string_view kLimits = "Limits";
constexpr std::string_view kLogging = "Logging";

}  // namespace

absl::Status ReadAutoCompaction(Config& config) {
  const std::string& text = config.auto_compaction_retention;
  int64_t number = 0;
  const bool whole = ReadNumber<int64_t>(text, 0, 1 << 20, "", number).ok();
  absl::Status status;
  if (config.auto_compaction_mode == "revision") {
    status = ReadNumber<int64_t>(text, 0, std::numeric_limits<int64_t>::max(), "revisions",
                                 config.compact_revisions);
  } else if (whole) {
    config.compact_before = absl::Hours(number);
  } else {
    status = ReadDuration(text, absl::ZeroDuration(), config.compact_before);
  }
  if (status.ok()) return status;
  return Wrong(fmt::format("--auto-compaction-retention={} with --auto-compaction-mode={} {}", text,
                           config.auto_compaction_mode, Message(status)));
}

namespace {

constexpr bool kReloads = true;

std::vector<Flag> UsedFlags() {
  using enum FlagStance;
  using enum FlagKind;
  return {
      {"name", kUsed, kValue, "this member's name, unique in the cluster", kMember, "default",
       [](std::string_view text, Config& config) {
         config.name = text;
         return CheckName(text);
       }},
      {"data-dir", kUsed, kValue, "where everything is kept", kMember, "<name>.kvd",
       [](std::string_view text, Config& config) {
         config.data_dir = text;
         return text.empty() ? Wrong("must name a directory") : absl::OkStatus();
       }},
      {"listen-client-urls", kUsed, kList, "where clients are served", kMember,
       "http://localhost:2379",
       [](std::string_view text, Config& config) {
         return ReadListenUrls(text, config.listen_client_urls);
       }},
      {"advertise-client-urls", kUsed, kList, "where clients find this member", kMember,
       "what --listen-client-urls says",
       [](std::string_view text, Config& config) {
         return ReadAdvertisedUrls(text, config.advertise_client_urls);
       }},
      {"listen-peer-urls", kUsed, kList, "where the other members are served", kMember,
       "http://localhost:2380",
       [](std::string_view text, Config& config) {
         return ReadListenUrls(text, config.listen_peer_urls);
       }},
      {"listen-metrics-urls", kUsed, kList, "admin port: probes, /version, /metrics", kMember,
       "none",
       [](std::string_view text, Config& config) {
         if (text.empty()) {
           config.listen_metrics_urls.clear();
           return absl::OkStatus();
         }
         return ReadListenUrls(text, config.listen_metrics_urls);
       }},
      {"initial-advertise-peer-urls", kUsed, kList, "where the other members find this one",
       kCluster, "what --listen-peer-urls says",
       [](std::string_view text, Config& config) {
         return ReadAdvertisedUrls(text, config.initial_advertise_peer_urls);
       }},
      {"initial-cluster", kUsed, kList, "the founders, name=http://host:port,...; for a blank disk",
       kCluster, "this member alone",
       [](std::string_view text, Config& config) {
         return ReadInitialCluster(text, config.initial_cluster);
       }},
      {"initial-cluster-token", kUsed, kValue, "keeps the foundings of two clusters apart",
       kCluster, "kvd-cluster",
       [](std::string_view text, Config& config) {
         config.initial_cluster_token = text;
         return text.empty() || text.size() > 1024 ? Wrong("must be 1 to 1024 characters")
                                                   : absl::OkStatus();
       }},
      {"initial-cluster-state", kUsed, kValue, "new: found the cluster; existing: join one",
       kCluster, "new",
       [](std::string_view text, Config& config) {
         config.initial_cluster_exists = text == "existing";
         config.initial_cluster_is_new = text == "new";
         return text == "new" || text == "existing" ? absl::OkStatus()
                                                    : Wrong("must be new or existing");
       }},
      {"heartbeat-interval", kUsed, kValue, "milliseconds between heartbeats", kConsensus, "100",
       [](std::string_view text, Config& config) {
         return ReadMilliseconds(text, 10000, config.heartbeat_interval);
       }},
      {"election-timeout", kUsed, kValue, "milliseconds without a leader before an election",
       kConsensus, "1000",
       [](std::string_view text, Config& config) {
         return ReadMilliseconds(text, 50000, config.election_timeout);
       }},
      {"quota-backend-bytes", kUsed, kValue,
       "size of the store; 0 or less: while the disk has room", kLimits, "0",
       [](std::string_view text, Config& config) {
         return ReadNumber<int64_t>(text, std::numeric_limits<int64_t>::min(),
                                    std::numeric_limits<int64_t>::max(), "bytes",
                                    config.quota_backend_bytes);
       },
       kReloads},
      {"max-request-bytes", kUsed, kValue, "size of one request", kLimits, "1572864",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1024, 64 << 20, "bytes", config.max_request_bytes);
       }},
      {"max-txn-ops", kUsed, kValue, "operations in one transaction", kLimits, "128",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1, 1000000, "", config.max_txn_ops);
       }},
      {"auto-compaction-mode", kUsed, kValue, "periodic or revision: what the retention counts",
       kLimits, "periodic",
       [](std::string_view text, Config& config) {
         config.auto_compaction_mode = text;
         return text == "periodic" || text == "revision" ? absl::OkStatus()
                                                         : Wrong("must be periodic or revision");
       }},
      {"auto-compaction-retention", kUsed, kValue,
       "history to keep: hours or a duration, or a number of revisions; 0: all", kLimits, "0",
       [](std::string_view text, Config& config) {
         config.auto_compaction_retention = text;
         return absl::OkStatus();
       }},
      {"compact-hash-check-time", kUsed, kValue, "how often members compare hashes of their state",
       kLimits, "1m",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.hash_check_interval);
       }},
      {"max-learners", kUsed, kValue, "learners that \"member add --learner\" may add at a time",
       kLimits, "1",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1, raft::kMembersMax, "", config.max_learners);
       }},
      {"max-concurrent-streams", kUsed, kValue, "requests at one time on one connection", kLimits,
       "4294967295",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint32_t>(text, 1, UINT32_MAX, "", config.max_concurrent_streams);
       }},
      {"grpc-keepalive-min-time", kUsed, kValue, "the least time between two pings of a client",
       kLimits, "5s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::ZeroDuration(), config.grpc_keepalive_min_time);
       }},
      {"grpc-keepalive-interval", kUsed, kValue, "silence before the server pings a client",
       kLimits, "2h",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.grpc_keepalive_interval);
       }},
      {"grpc-keepalive-timeout", kUsed, kValue, "how long a client may take to answer a ping",
       kLimits, "20s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.grpc_keepalive_timeout);
       }},
      {"watch-progress-notify-interval", kUsed, kValue,
       "how often an idle watcher that asks for it is told how far it is", kLimits, "10m",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Milliseconds(1), config.watch_progress_notify_interval);
       }},
      {"memory-bytes", kUsed, kValue, "log, write buffers and caches; each gets its share", kLimits,
       "208 MiB, or a fraction",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, uint64_t{32} << 20, uint64_t{1} << 40, "bytes",
                                     config.memory_bytes);
       }},
      {"memory-limit-fraction", kUsed, kValue,
       "of the container's memory limit, if it has one, for --memory-bytes", kLimits, "0.5",
       [](std::string_view text, Config& config) {
         return ReadFraction(text, config.memory_limit_percent);
       }},
      {"log-level", kUsed, kValue, "debug, info, warn or error", kLogging, "info",
       [](std::string_view text, Config& config) { return ReadLogLevel(text, config.log_level); },
       kReloads},
      {"log-outputs", kUsed, kList, "stderr or stdout", kLogging, "stderr",
       [](std::string_view text, Config& config) {
         return ReadLogOutput(text, config.log_output);
       }},
  };
}

// etcd's other flags, so that people can move: each says why it does nothing here.
std::vector<Flag> ForeignFlags() {
  using enum FlagStance;
  using enum FlagKind;
  constexpr std::string_view kAuth = "it has no effect yet; it arrives with users and roles";
  constexpr std::string_view kFrontend = "it has no effect yet; it arrives with the JSON gateway";
  constexpr std::string_view kStorage = "it has no meaning here: the storage engine is another one";
  constexpr std::string_view kLogLines =
      "it has no meaning here: logs are plain lines on --log-outputs";
  constexpr std::string_view kTracing = "it has no meaning here: kvd exports no traces";
  constexpr std::string_view kAlways = "it has no meaning here: this is always on";
  constexpr std::string_view kDiscovery = "list the members in --initial-cluster instead";
  return {
      {"wal-dir", kIgnored, kValue, "it has no meaning here: the log is in --data-dir"},
      {"snapshot-count", kIgnored, kValue,
       "it has no meaning here: snapshots are made when a member needs one"},
      {"max-snapshots", kIgnored, kValue, "it has no meaning here: none are kept"},
      {"max-wals", kIgnored, kValue, "it has no meaning here: --memory-bytes bounds the log"},
      {"initial-election-tick-advance", kIgnored, kSwitch,
       "it has no meaning here: a sole voter campaigns at once, others never early"},
      {"pre-vote", kIgnored, kSwitch, kAlways},
      {"strict-reconfig-check", kIgnored, kSwitch, kAlways},
      {"listen-client-http-urls", kIgnored, kList,
       "it has no meaning here: HTTP is on --listen-metrics-urls"},
      {"corrupt-check-time", kIgnored, kValue,
       "it has no meaning here: members compare hashes every --compact-hash-check-time"},
      {"downgrade-check-time", kIgnored, kValue,
       "it has no meaning here: a downgrade is remembered and changes nothing"},
      {"feature-gates", kIgnored, kValue, "it has no meaning here: there are no gates"},
      {"compaction-batch-limit", kIgnored, kValue, kStorage},
      {"compaction-sleep-interval", kIgnored, kValue, kStorage},
      {"backend-batch-interval", kIgnored, kValue, kStorage},
      {"backend-batch-limit", kIgnored, kValue, kStorage},
      {"backend-bbolt-freelist-type", kIgnored, kValue, kStorage},
      {"bootstrap-defrag-threshold-megabytes", kIgnored, kValue, kStorage},
      {"memory-mlock", kIgnored, kSwitch, kStorage},
      {"unsafe-no-fsync", kIgnored, kSwitch,
       "it has no meaning here: what was acknowledged is always synced"},
      {"v2-deprecation", kIgnored, kValue, "it has no meaning here: there is no v2 API"},
      {"socket-reuse-port", kIgnored, kSwitch, "it has no meaning here"},
      {"socket-reuse-address", kIgnored, kSwitch, "it has no meaning here"},
      {"raft-read-timeout", kIgnored, kValue, "it has no meaning here"},
      {"raft-write-timeout", kIgnored, kValue, "it has no meaning here"},
      {"auth-token", kIgnored, kValue, kAuth},
      {"auth-token-ttl", kIgnored, kValue, kAuth},
      {"bcrypt-cost", kIgnored, kValue, kAuth},
      {"enable-grpc-gateway", kIgnored, kSwitch, kFrontend},
      {"cors", kIgnored, kList, kFrontend},
      {"host-whitelist", kIgnored, kList, kFrontend},
      {"enable-pprof", kIgnored, kSwitch, "it has no meaning here: it profiles Go programs"},
      {"metrics", kIgnored, kValue, "it has no meaning here: every metric is always there"},
      {"logger", kIgnored, kValue, kLogLines},
      {"log-format", kIgnored, kValue, kLogLines},
      {"enable-log-rotation", kIgnored, kSwitch, kLogLines},
      {"log-rotation-config-json", kIgnored, kValue, kLogLines},
      {"warning-apply-duration", kIgnored, kValue,
       "it has no meaning here: durations are in the metrics"},
      {"warning-unary-request-duration", kIgnored, kValue,
       "it has no meaning here: durations are in the metrics"},
      {"enable-distributed-tracing", kIgnored, kSwitch, kTracing},
      {"distributed-tracing-address", kIgnored, kValue, kTracing},
      {"distributed-tracing-service-name", kIgnored, kValue, kTracing},
      {"distributed-tracing-instance-id", kIgnored, kValue, kTracing},
      {"distributed-tracing-sampling-rate", kIgnored, kValue, kTracing},

      {"discovery", kRefused, kValue, kDiscovery},
      {"discovery-srv", kRefused, kValue, kDiscovery},
      {"discovery-srv-name", kRefused, kValue, kDiscovery},
      {"discovery-token", kRefused, kValue, kDiscovery},
      {"discovery-endpoints", kRefused, kValue, kDiscovery},
      {"discovery-fallback", kRefused, kValue, kDiscovery},
      {"discovery-proxy", kRefused, kValue, kDiscovery},
      {"force-new-cluster", kRefused, kSwitch,
       "a cluster that lost its quorum is restored from a snapshot instead"},

      {"cert-file", kTls, kValue, {}},
      {"key-file", kTls, kValue, {}},
      {"client-cert-auth", kTls, kSwitch, {}},
      {"client-cert-file", kTls, kValue, {}},
      {"client-key-file", kTls, kValue, {}},
      {"client-crl-file", kTls, kValue, {}},
      {"client-cert-allowed-hostname", kTls, kValue, {}},
      {"trusted-ca-file", kTls, kValue, {}},
      {"auto-tls", kTls, kSwitch, {}},
      {"peer-cert-file", kTls, kValue, {}},
      {"peer-key-file", kTls, kValue, {}},
      {"peer-client-cert-auth", kTls, kSwitch, {}},
      {"peer-client-cert-file", kTls, kValue, {}},
      {"peer-client-key-file", kTls, kValue, {}},
      {"peer-trusted-ca-file", kTls, kValue, {}},
      {"peer-cert-allowed-cn", kTls, kValue, {}},
      {"peer-cert-allowed-hostname", kTls, kValue, {}},
      {"peer-auto-tls", kTls, kSwitch, {}},
      {"peer-crl-file", kTls, kValue, {}},
      {"peer-skip-client-san-verification", kTls, kSwitch, {}},
      {"self-signed-cert-validity", kTls, kValue, {}},
      {"cipher-suites", kTls, kList, {}},
      {"tls-min-version", kTls, kValue, {}},
      {"tls-max-version", kTls, kValue, {}},
  };
}

}  // namespace

const std::vector<Flag>& Flags() {
  static const std::vector<Flag> flags = [] {
    std::vector<Flag> all = UsedFlags();
    std::ranges::move(DiscoveryFlags(), std::back_inserter(all));
    std::ranges::move(ForeignFlags(), std::back_inserter(all));
    return all;
  }();
  return flags;
}

const Flag* FindFlag(std::string_view name) {
  const auto at = std::ranges::find(Flags(), name, &Flag::name);
  return at == Flags().end() ? nullptr : &*at;
}

std::string VariableOf(std::string_view flag) {
  std::string name = "KVD_";
  for (const char c : flag) {
    name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  }
  return name;
}

std::string FlagsHelp() {
  std::string text =
      "kvd: a replicated key-value store that speaks the etcd v3 API.\n\n"
      "Usage: kvd [--flag=value]...\n\n"
      "Every flag can also be given as KVD_<FLAG> in the environment (--data-dir as KVD_DATA_DIR)\n"
      "and as a key of the YAML file that --config-file names. A flag beats the environment, "
      "which\n"
      "beats the file. Without flags, kvd founds a cluster of one.\n"
      "log-level and quota-backend-bytes may also stand in --runtime-config-file, which beats\n"
      "--config-file and is read again every 10 s; SIGHUP has both files read again at once.\n";
  const auto line = [&text](std::string_view name, std::string_view help,
                            std::string_view fallback) {
    text += fmt::format("  {:<40}{}", name, help);
    if (!fallback.empty()) text += fmt::format(" [{}]", fallback);
    text += '\n';
  };
  std::vector<std::string_view> groups;
  for (const Flag& flag : Flags()) {
    if (flag.stance == FlagStance::kUsed && std::ranges::find(groups, flag.group) == groups.end()) {
      groups.push_back(flag.group);
    }
  }
  for (const std::string_view group : groups) {
    text += fmt::format("\n{}:\n", group);
    for (const Flag& flag : Flags()) {
      if (flag.group == group) line(fmt::format("--{}", flag.name), flag.help, flag.fallback);
    }
  }
  text += "\nOther:\n";
  line("--config-file", "YAML file with settings", "none");
  line("--runtime-config-file", "YAML file with those that may change while kvd runs", "none");
  line("-h, --help", "print this", "");
  line("--version", "print the version", "");
  text += "\nFlags of etcd that are accepted and have no effect here:\n ";
  size_t column = 1;
  for (const Flag& flag : Flags()) {
    if (flag.stance != FlagStance::kIgnored) continue;
    if (column + flag.name.size() + 3 > 98) {
      text += "\n ";
      column = 1;
    }
    text += fmt::format(" --{}", flag.name);
    column += flag.name.size() + 3;
  }
  return text + '\n';
}

}  // namespace kv

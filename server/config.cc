#include "server/config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "server/api/version.h"
#include "server/cgroup.h"
#include "server/config_discovery.h"
#include "server/config_flags.h"
#include "server/config_sources.h"
#include "server/config_values.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr uint64_t kDefaultMemoryBytes = uint64_t{208} << 20;
constexpr uint64_t kLeastMemoryBytes = uint64_t{48} << 20;

absl::Status Apply(const Flag& flag, const Given& given, Config& config) {
  const auto refuse = [&given](std::string_view why) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}=\"{}\": {}", given.origin,
                      given.value, why);
  };
  bool off = false;
  if (flag.kind == FlagKind::kSwitch) {
    const absl::StatusOr<bool> on = ReadBool(given.value);
    if (!on.ok()) return refuse(Message(on.status()));
    off = !*on;
  } else {
    off = given.value.empty();
  }
  switch (flag.stance) {
    case FlagStance::kUsed: {
      const absl::Status status = flag.apply(given.value, config);
      if (status.ok()) return status;
      return refuse(fmt::format("{}; correct it, or leave it out for the default ({})",
                                Message(status), flag.fallback));
    }
    case FlagStance::kIgnored:
      config.warnings.push_back(fmt::format("{} is accepted: {}", given.origin, flag.help));
      return absl::OkStatus();
    case FlagStance::kTls:
      if (off) return absl::OkStatus();
      return refuse("TLS arrives with a later release; use http:// URLs and leave this out");
    case FlagStance::kRefused:
      if (off) return absl::OkStatus();
      return refuse(fmt::format("not supported; leave it out: {}", flag.help));
  }
  return absl::OkStatus();
}

absl::Status DeriveUrls(std::string_view advertise_flag, std::string_view listen_flag,
                        const std::vector<Url>& listen, std::vector<Url>& advertise) {
  if (!advertise.empty()) return absl::OkStatus();
  for (const Url& url : listen) {
    if (IsWildcard(url)) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "{} is needed: {}={} is every address of this machine, and others must be "
                        "told one of them",
                        advertise_flag, listen_flag, url.Text());
    }
  }
  advertise = listen;
  return absl::OkStatus();
}

// In a container, memory and threads follow from what it was given.
void FillLimits(const ConfigSources& sources, Config& config) {
  const CgroupLimits limits = ReadCgroupLimits(sources.read_file);
  config.memory_limit_bytes = limits.memory_bytes.value_or(0);
  config.processors = sources.processors;
  if (limits.millicpus) {
    config.processors =
        std::clamp<uint64_t>((*limits.millicpus + 999) / 1000, 1, config.processors);
  }
  if (config.memory_bytes != 0) return;
  config.memory_bytes =
      limits.memory_bytes
          ? std::max(*limits.memory_bytes / 100 * config.memory_limit_percent, kLeastMemoryBytes)
          : kDefaultMemoryBytes;
}

absl::Status FillDefaults(const ConfigSources& sources, Config& config) {
  RETURN_IF_ERROR(FillDiscovery(sources, config));
  FillLimits(sources, config);
  if (config.name.empty()) config.name = Config().name;
  if (config.data_dir.empty()) config.data_dir = config.name + ".kvd";
  if (config.listen_client_urls.empty()) config.listen_client_urls = {{"localhost", 2379}};
  if (config.listen_peer_urls.empty()) config.listen_peer_urls = {{"localhost", 2380}};
  RETURN_IF_ERROR(DeriveUrls("--advertise-client-urls", "--listen-client-urls",
                             config.listen_client_urls, config.advertise_client_urls));
  RETURN_IF_ERROR(DeriveUrls("--initial-advertise-peer-urls", "--listen-peer-urls",
                             config.listen_peer_urls, config.initial_advertise_peer_urls));
  if (config.initial_cluster.empty() && !config.discovery.on()) {
    std::vector<Url> urls = config.initial_advertise_peer_urls;
    std::ranges::sort(urls);
    config.initial_cluster = {{.name = config.name, .peer_urls = std::move(urls)}};
  }
  return ReadAutoCompaction(config);
}

absl::StatusOr<Settings> ReadFile(const ConfigSources& sources, const std::optional<Given>& named) {
  if (!named) return Settings();
  const absl::StatusOr<std::string> text = sources.read_file(named->value);
  if (text.ok()) return ReadConfigFile(named->value, *text);
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}=\"{}\": cannot be read: {}",
                    named->origin, named->value, Message(text.status()));
}

absl::Status CheckReloads(const Settings& runtime) {
  for (const auto& [name, given] : runtime) {
    if (FindFlag(name)->reloads) continue;
    std::vector<std::string_view> reload;
    for (const Flag& flag : Flags()) {
      if (flag.reloads) reload.push_back(flag.name);
    }
    return Wrong(fmt::format(
        "{} cannot change while kvd runs; --runtime-config-file may hold {}, put this one into "
        "--config-file",
        given.origin, fmt::join(reload, " and ")));
  }
  return absl::OkStatus();
}

// --name and --initial-advertise-peer-urls must be a line of --initial-cluster.
absl::Status CheckListed(const Config& config) {
  const auto self = std::ranges::find(config.initial_cluster, config.name, &ListedMember::name);
  if (self == config.initial_cluster.end()) {
    std::vector<std::string_view> names;
    for (const ListedMember& listed : config.initial_cluster) names.push_back(listed.name);
    return Wrong(
        fmt::format("--name={} is not in --initial-cluster, which lists {}; correct one of them",
                    config.name, fmt::join(names, ", ")));
  }
  std::vector<Url> advertised = config.initial_advertise_peer_urls;
  std::ranges::sort(advertised);
  if (advertised != self->peer_urls) {
    const auto text = [](const std::vector<Url>& urls) {
      std::vector<std::string> texts;
      for (const Url& url : urls) texts.push_back(url.Text());
      return fmt::format("{}", fmt::join(texts, ","));
    };
    return Wrong(fmt::format(
        "--initial-cluster gives {} the URLs {}, but --initial-advertise-peer-urls={}; make them "
        "the same",
        config.name, text(self->peer_urls), text(advertised)));
  }
  return absl::OkStatus();
}

}  // namespace

MemoryShares Config::Memory() const {
  const MemoryShares standard;
  const auto share = [this](uint64_t bytes) {
    // The memory setting is below 2^40 and a share at most 2^26: the product fits in 128 bits only,
    // so divide first, in units of 4 KiB.
    return (bytes >> 12) * memory_bytes / (kDefaultMemoryBytes >> 12);
  };
  return {.log_bytes = share(standard.log_bytes),
          .flush_log_bytes = share(standard.log_bytes) / 2,
          .memtable_bytes = share(standard.memtable_bytes),
          .block_cache_bytes = share(standard.block_cache_bytes),
          .record_cache_bytes = share(standard.record_cache_bytes)};
}

int Config::ElectionTicks() const {
  return static_cast<int>(election_timeout / heartbeat_interval);
}

absl::Status Validate(const Config& config) {
  const auto wrong = [](const std::string& sentence) { return Wrong(sentence); };
  if (config.election_timeout < 5 * config.heartbeat_interval) {
    return wrong(fmt::format(
        "--election-timeout={} must be at least 5 times --heartbeat-interval={}; raise the first "
        "to {} or more, or lower the second",
        absl::ToInt64Milliseconds(config.election_timeout),
        absl::ToInt64Milliseconds(config.heartbeat_interval),
        5 * absl::ToInt64Milliseconds(config.heartbeat_interval)));
  }
  std::map<Url, std::string_view> bound;
  for (const auto& [flag, urls] : {std::pair<std::string_view, const std::vector<Url>*>{
                                       "--listen-client-urls", &config.listen_client_urls},
                                   {"--listen-peer-urls", &config.listen_peer_urls},
                                   {"--listen-metrics-urls", &config.listen_metrics_urls}}) {
    for (const Url& url : *urls) {
      if (const auto [other, added] = bound.emplace(url, flag); !added) {
        return wrong(fmt::format("{} and {} both listen to {}; give each its own port",
                                 other->second, flag, url.Text()));
      }
    }
  }
  if (!config.discovery.on()) RETURN_IF_ERROR(CheckListed(config));
  const uint64_t log_bytes = config.Memory().log_bytes;
  if (log_bytes < 4 * config.max_request_bytes) {
    return wrong(fmt::format(
        "--max-request-bytes={} is too large for --memory-bytes={}: its share for the log is {}, "
        "which must hold 4 requests; raise the second or lower the first",
        config.max_request_bytes, config.memory_bytes, log_bytes));
  }
  return absl::OkStatus();
}

absl::StatusOr<CommandLine> LoadConfig(const ConfigSources& sources) {
  ASSIGN_OR_RETURN(const Arguments arguments, ReadArguments(sources.arguments));
  CommandLine line;
  if (arguments.help) {
    line.print = FlagsHelp();
    return line;
  }
  if (arguments.version) {
    line.print =
        fmt::format("kvd version {}\nAPI version {}\n", api::kKvdVersion, api::kApiVersion);
    return line;
  }
  const EnvironmentSettings environment = ReadEnvironment(sources.environment);
  const auto named = [](const std::optional<Given>& argument,
                        const std::optional<Given>& variable) {
    return argument ? argument : variable;
  };
  const std::optional<Given> runtime_file =
      named(arguments.files.runtime, environment.files.runtime);
  ASSIGN_OR_RETURN(const Settings file,
                   ReadFile(sources, named(arguments.files.config, environment.files.config)));
  ASSIGN_OR_RETURN(const Settings runtime, ReadFile(sources, runtime_file));
  RETURN_IF_ERROR(CheckReloads(runtime));

  Config& config = line.config;
  if (runtime_file) config.runtime_config_file = runtime_file->value;
  config.name.clear();  // Until somebody gives them.
  config.memory_bytes = 0;
  for (const Flag& flag : Flags()) {
    for (const Settings* settings : std::initializer_list<const Settings*>{
             &arguments.settings, &environment.settings, &runtime, &file}) {
      const auto at = settings->find(flag.name);
      if (at == settings->end()) continue;
      RETURN_IF_ERROR(Apply(flag, at->second, config));
      break;
    }
  }
  if (!environment.unknown.empty()) {
    config.debug_notes.push_back(fmt::format("variables that mean nothing here are ignored: {}",
                                             fmt::join(environment.unknown, ", ")));
  }
  RETURN_IF_ERROR(FillDefaults(sources, config));
  RETURN_IF_ERROR(Validate(config));
  return line;
}

}  // namespace kv

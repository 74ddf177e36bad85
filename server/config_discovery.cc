#include "server/config_discovery.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "server/config_values.h"
#include "server/raft/members.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr uint16_t kClientPort = 2379;
constexpr uint16_t kPeerPort = 2380;
constexpr char kNamespaceFile[] = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

constexpr std::string_view kDiscovery = "Discovery";
constexpr std::string_view kKubernetes = "Kubernetes";
constexpr std::string_view kStopping = "Stopping";

// host, host:port or a URL.
absl::StatusOr<Url> ReadPeer(std::string_view text) {
  if (text.find("://") != std::string_view::npos) return ParseUrl(text);
  const bool port = text.rfind(':') != std::string_view::npos && !text.ends_with(']');
  return ParseUrl(port ? fmt::format("http://{}", text)
                       : fmt::format("http://{}:{}", text, kPeerPort));
}

// [name=]peer,…; who has no name is called by its host, or by host:port where hosts repeat.
absl::Status ReadJoin(std::string_view text, std::vector<ListedMember>& target) {
  std::vector<ListedMember> list;
  std::set<Url> urls;
  std::map<std::string, int> hosts;
  for (const std::string& part : Split(text, ',')) {
    std::string_view entry = Trim(part);
    ListedMember& listed = list.emplace_back();
    if (const size_t equals = entry.find('='); equals != std::string_view::npos) {
      listed.name = entry.substr(0, equals);
      if (const absl::Status status = CheckName(listed.name); !status.ok()) {
        return Wrong(fmt::format("the name \"{}\" {}", listed.name, Message(status)));
      }
      entry.remove_prefix(equals + 1);
    }
    const absl::StatusOr<Url> url = ReadPeer(entry);
    if (!url.ok()) {
      return Wrong(
          fmt::format("\"{}\" must be host, host:port or http://host:port, with name= "
                      "before it if it is to have one",
                      entry));
    }
    if (IsWildcard(*url)) {
      return Wrong(fmt::format("others cannot connect to {}; name an address", url->Text()));
    }
    if (!urls.insert(*url).second) return Wrong(fmt::format("{} stands there twice", url->Text()));
    listed.peer_urls = {*url};
    ++hosts[url->host];
  }
  std::set<std::string> names;
  for (ListedMember& listed : list) {
    const Url& url = listed.peer_urls.front();
    if (listed.name.empty()) listed.name = hosts[url.host] > 1 ? url.HostPort() : url.host;
    if (!names.insert(listed.name).second) {
      return Wrong(fmt::format("the name \"{}\" stands there twice", listed.name));
    }
  }
  if (list.size() > raft::kVotersMax) {
    return Wrong(
        fmt::format("must list at most {} members; others join by naming these", raft::kVotersMax));
  }
  target = std::move(list);
  return absl::OkStatus();
}

// One of two words.
absl::Status ReadEither(std::string_view text, std::string_view yes, std::string_view no,
                        bool& target) {
  target = text == yes;
  return text == yes || text == no ? absl::OkStatus()
                                   : Wrong(fmt::format("must be {} or {}", yes, no));
}

absl::Status ReadDesiredFrom(std::string_view text, DiscoveryConfig::DesiredFrom& target) {
  using enum DiscoveryConfig::DesiredFrom;
  static const std::map<std::string_view, DiscoveryConfig::DesiredFrom> known = {
      {"apiserver", kApiServer}, {"file", kFile}, {"none", kNone}};
  const auto at = known.find(text);
  if (at == known.end()) return Wrong("must be apiserver, file or none");
  target = at->second;
  return absl::OkStatus();
}

// A name of Kubernetes' own (RFC 1123): it becomes part of host names and paths.
absl::Status ReadKubernetesName(std::string_view text, std::string& target) {
  const bool good = !text.empty() && text.size() <= 63 && text.front() != '-' &&
                    text.back() != '-' && std::ranges::all_of(text, [](char c) {
                      return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-';
                    });
  if (!good) return Wrong("must be 1 to 63 of a-z, 0-9 and -, as Kubernetes names things");
  target = text;
  return absl::OkStatus();
}

absl::Status ReadSwitch(std::string_view text, bool& target) {
  ASSIGN_OR_RETURN(target, ReadBool(text));
  return absl::OkStatus();
}

const ListedMember* Find(const std::vector<ListedMember>& list, std::string_view name) {
  const auto at = std::ranges::find(list, name, &ListedMember::name);
  return at == list.end() ? nullptr : &*at;
}

// Which line of --join this process is: by its name, its address, or the machine's name.
const ListedMember* OwnSlot(const ConfigSources& sources, const Config& config) {
  const std::vector<ListedMember>& join = config.discovery.join;
  if (!config.name.empty()) return Find(join, config.name);
  for (const ListedMember& listed : join) {
    const Url& url = listed.peer_urls.front();
    if (std::ranges::find(config.initial_advertise_peer_urls, url) !=
        config.initial_advertise_peer_urls.end()) {
      return &listed;
    }
  }
  if (!config.initial_advertise_peer_urls.empty()) return nullptr;
  for (const ListedMember& listed : join) {
    const std::string& host = listed.peer_urls.front().host;
    if (host == sources.host_name || host.substr(0, host.find('.')) == sources.host_name) {
      return &listed;
    }
  }
  return nullptr;
}

void ListenEverywhere(uint16_t peer_port, Config& config) {
  if (config.listen_client_urls.empty()) config.listen_client_urls = {{"0.0.0.0", kClientPort}};
  if (config.listen_peer_urls.empty()) config.listen_peer_urls = {{"0.0.0.0", peer_port}};
}

void AdvertiseClientsAt(const std::string& host, Config& config) {
  if (!config.advertise_client_urls.empty()) return;
  for (const Url& url : config.listen_client_urls) {
    config.advertise_client_urls.push_back({IsWildcard(url) ? host : url.host, url.port});
  }
}

absl::Status FillJoin(const ConfigSources& sources, Config& config) {
  const ListedMember* slot = OwnSlot(sources, config);
  if (slot != nullptr) {
    const Url url = slot->peer_urls.front();
    config.name = slot->name;
    if (config.initial_advertise_peer_urls.empty()) config.initial_advertise_peer_urls = {url};
    if (config.initial_advertise_peer_urls != slot->peer_urls) {
      return Wrong(
          fmt::format("--join gives {} the address {}, but "
                      "--initial-advertise-peer-urls={}; make them the same",
                      config.name, url.Text(), config.initial_advertise_peer_urls.front().Text()));
    }
  } else {
    if (config.initial_advertise_peer_urls.empty()) {
      if (sources.host_name.empty()) {
        return Wrong(
            "--join does not list this member, and the machine has no name: give "
            "--initial-advertise-peer-urls");
      }
      config.initial_advertise_peer_urls = {{sources.host_name, kPeerPort}};
    }
    const Url& own = config.initial_advertise_peer_urls.front();
    if (config.name.empty()) config.name = own.port == kPeerPort ? own.host : own.HostPort();
  }
  const Url& own = config.initial_advertise_peer_urls.front();
  ListenEverywhere(own.port, config);
  AdvertiseClientsAt(own.host, config);
  return absl::OkStatus();
}

absl::Status FillStatefulSet(const ConfigSources& sources, Config& config) {
  DiscoveryConfig& discovery = config.discovery;
  const std::string prefix = discovery.statefulset + "-";
  const std::string_view ordinal =
      std::string_view(config.name).substr(std::min(prefix.size(), config.name.size()));
  uint64_t number = 0;
  if (!config.name.starts_with(prefix) ||
      !ReadNumber<uint64_t>(ordinal, 0, UINT32_MAX, "", number).ok() ||
      fmt::format("{}", number) != ordinal) {
    return Wrong(
        fmt::format("--name=\"{}\" must be the pod's name, {}N; set KVD_NAME from "
                    "metadata.name",
                    config.name, prefix));
  }
  if (discovery.kubernetes_namespace.empty()) {
    const absl::StatusOr<std::string> text = sources.read_file(kNamespaceFile);
    if (!text.ok()) {
      return Wrong(fmt::format("{} cannot be read ({}): give --kubernetes-namespace",
                               kNamespaceFile, Message(text.status())));
    }
    RETURN_IF_ERROR(ReadKubernetesName(Trim(*text), discovery.kubernetes_namespace));
  }
  if (discovery.peer_service.empty()) discovery.peer_service = discovery.statefulset + "-peer";
  if (discovery.marker_name.empty()) discovery.marker_name = discovery.statefulset + "-cluster";
  ListenEverywhere(kPeerPort, config);
  const std::string host = fmt::format("{}.{}.{}.svc", config.name, discovery.peer_service,
                                       discovery.kubernetes_namespace);
  if (config.initial_advertise_peer_urls.empty()) {
    config.initial_advertise_peer_urls = {{host, config.listen_peer_urls.front().port}};
  }
  AdvertiseClientsAt(host, config);
  return absl::OkStatus();
}

}  // namespace

std::vector<Flag> DiscoveryFlags() {
  using enum FlagStance;
  using enum FlagKind;
  return {
      {"join", kUsed, kList, "[name=]host[:port],...: they found the cluster, others join it",
       kDiscovery, "none",
       [](std::string_view text, Config& config) { return ReadJoin(text, config.discovery.join); }},
      {"bootstrap-max-founders", kUsed, kValue, "the first voters; the others join these",
       kDiscovery, "3",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1, raft::kVotersMax, "", config.discovery.max_founders);
       }},
      {"membership-replace-after-inactive", kUsed, kValue,
       "silence of a member before a new disk may take its place", kDiscovery, "10s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.discovery.replace_after_inactive);
       }},
      {"max-voters", kUsed, kValue, "members that vote; further ones stay learners", kDiscovery,
       "7",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1, raft::kVotersMax, "", config.discovery.max_voters);
       }},
      {"max-catching-up", kUsed, kValue, "members that may join at one time", kDiscovery, "2",
       [](std::string_view text, Config& config) {
         return ReadNumber<uint64_t>(text, 1, raft::kMembersMax, "",
                                     config.discovery.max_catching_up);
       }},
      {"standby-learners", kUsed, kSwitch, "members past --max-voters are welcome, as learners",
       kDiscovery, "false",
       [](std::string_view text, Config& config) {
         return ReadSwitch(text, config.discovery.standby_learners);
       }},

      {"kubernetes-statefulset", kUsed, kValue,
       "the members are the pods of this StatefulSet; --name is the pod's", kKubernetes, "none",
       [](std::string_view text, Config& config) {
         return ReadKubernetesName(text, config.discovery.statefulset);
       }},
      {"kubernetes-namespace", kUsed, kValue, "where the StatefulSet is", kKubernetes, "the pod's",
       [](std::string_view text, Config& config) {
         return ReadKubernetesName(text, config.discovery.kubernetes_namespace);
       }},
      {"kubernetes-peer-service", kUsed, kValue, "the headless Service that names the pods",
       kKubernetes, "<statefulset>-peer",
       [](std::string_view text, Config& config) {
         return ReadKubernetesName(text, config.discovery.peer_service);
       }},
      {"desired-replicas-source", kUsed, kValue,
       "apiserver, file or none: who says how many there should be", kKubernetes, "apiserver",
       [](std::string_view text, Config& config) {
         return ReadDesiredFrom(text, config.discovery.desired_from);
       }},
      {"desired-replicas-file", kUsed, kValue, "the file that holds the number", kKubernetes,
       "/etc/kvd/topology/replicas",
       [](std::string_view text, Config& config) {
         config.discovery.desired_file = text;
         return text.empty() ? Wrong("must name a file") : absl::OkStatus();
       }},
      {"desired-replicas-poll-interval", kUsed, kValue, "how often it is read", kKubernetes, "10s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.discovery.desired_poll_interval);
       }},
      {"bootstrap-marker", kUsed, kValue,
       "configmap or none: where it is kept that there was a cluster", kKubernetes, "configmap",
       [](std::string_view text, Config& config) {
         return ReadEither(text, "configmap", "none", config.discovery.marker);
       }},
      {"bootstrap-marker-name", kUsed, kValue, "the ConfigMap's name", kKubernetes,
       "<statefulset>-cluster",
       [](std::string_view text, Config& config) {
         return ReadKubernetesName(text, config.discovery.marker_name);
       }},
      {"bootstrap-on-total-loss", kUsed, kValue,
       "halt or reinitialize: what to do when the marker is all that is left", kKubernetes, "halt",
       [](std::string_view text, Config& config) {
         return ReadEither(text, "reinitialize", "halt", config.discovery.reinitialize);
       }},
      {"membership-stability-window", kUsed, kValue,
       "how long a smaller number must stand before members are removed", kKubernetes, "30s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.discovery.stability_window);
       }},
      {"membership-unreachable-before-remove", kUsed, kValue,
       "silence of a surplus member before it is removed", kKubernetes, "30s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.discovery.unreachable_before_remove);
       }},

      {"shutdown-delay", kUsed, kValue, "to go on serving, not ready, after SIGTERM", kStopping,
       "0s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::ZeroDuration(), config.stop.delay);
       }},
      {"shutdown-guard-max-wait", kUsed, kValue,
       "to wait until the others can spare this member; 0s: not at all", kStopping, "0s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::ZeroDuration(), config.stop.guard_max_wait);
       }},
      {"shutdown-leave-timeout", kUsed, kValue, "to wait for its own removal when scaled down",
       kStopping, "45s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::Seconds(1), config.stop.leave_timeout);
       }},
      {"shutdown-drain-timeout", kUsed, kValue, "to answer what is in flight", kStopping, "5s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::ZeroDuration(), config.stop.drain_timeout);
       }},
      {"termination-grace-period", kUsed, kValue,
       "after which the platform kills the process; 0s: never", kStopping, "0s",
       [](std::string_view text, Config& config) {
         return ReadDuration(text, absl::ZeroDuration(), config.stop.grace_period);
       }},
  };
}

absl::Status FillDiscovery(const ConfigSources& sources, Config& config) {
  const DiscoveryConfig& discovery = config.discovery;
  if (!discovery.on()) return absl::OkStatus();
  if (!discovery.join.empty() && !discovery.statefulset.empty()) {
    return Wrong("--join and --kubernetes-statefulset both say who the members are; leave one out");
  }
  const std::string_view flag = discovery.join.empty() ? "--kubernetes-statefulset" : "--join";
  if (!config.initial_cluster.empty()) {
    return Wrong(
        fmt::format("--initial-cluster and {} both say who the members are; leave one out", flag));
  }
  if (config.initial_cluster_exists) {
    return Wrong(
        fmt::format("--initial-cluster-state=existing goes with --initial-cluster; with "
                    "{} a member finds out by itself",
                    flag));
  }
  return discovery.join.empty() ? FillStatefulSet(sources, config) : FillJoin(sources, config);
}

}  // namespace kv

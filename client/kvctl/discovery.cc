#include "client/kvctl/discovery.h"

#include <arpa/nameser.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <resolv.h>

#include <algorithm>
#include <array>
#include <tuple>

namespace kv::kvctl {
namespace {

struct Record {
  uint16_t priority = 0;
  std::string endpoint;
};

uint16_t Number(const unsigned char* bytes) {
  return static_cast<uint16_t>(bytes[0] << 8 | bytes[1]);
}

// Nothing if there are no such records.
std::vector<Record> Lookup(const std::string& name, std::string_view scheme) {
  std::array<unsigned char, NS_MAXMSG> answer{};
  int size =
      res_query(name.c_str(), ns_c_in, ns_t_srv, answer.data(), static_cast<int>(answer.size()));
  std::vector<Record> records;
  ns_msg message{};
  if (size < 0 || ns_initparse(answer.data(), size, &message) != 0) return records;
  for (int i = 0; i < ns_msg_count(message, ns_s_an); ++i) {
    ns_rr record{};
    std::array<char, NS_MAXDNAME> target{};
    // Priority, weight and port come before the target.
    if (ns_parserr(&message, ns_s_an, i, &record) != 0 || ns_rr_type(record) != ns_t_srv ||
        ns_rr_rdlen(record) < 7 ||
        dn_expand(ns_msg_base(message), ns_msg_end(message), ns_rr_rdata(record) + 6, target.data(),
                  static_cast<int>(target.size())) < 0) {
      continue;
    }
    records.push_back({.priority = Number(ns_rr_rdata(record)),
                       .endpoint = fmt::format("{}://{}:{}", scheme, target.data(),
                                               Number(ns_rr_rdata(record) + 4))});
  }
  std::sort(records.begin(), records.end(), [](const Record& a, const Record& b) {
    return std::tie(a.priority, a.endpoint) < std::tie(b.priority, b.endpoint);
  });
  return records;
}

}  // namespace

absl::StatusOr<std::vector<std::string>> DiscoverEndpoints(const std::string& domain,
                                                           const std::string& service_name) {
  std::string suffix = service_name.empty() ? "" : "-" + service_name;
  std::string secure = fmt::format("_etcd-client-ssl{}._tcp.{}", suffix, domain);
  std::string plain = fmt::format("_etcd-client{}._tcp.{}", suffix, domain);
  std::vector<std::string> endpoints;
  for (const auto& [name, scheme] : {std::pair{secure, "https"}, {plain, "http"}}) {
    for (Record& record : Lookup(name, scheme)) endpoints.push_back(std::move(record.endpoint));
  }
  if (endpoints.empty()) {
    return absl::Status(
        absl::StatusCode::kNotFound,
        fmt::format("DNS has no SRV records {} or {}; see --discovery-srv", secure, plain));
  }
  return endpoints;
}

}  // namespace kv::kvctl

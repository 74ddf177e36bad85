// What kvctl prints, as text: the formats of etcdctl to the byte.
//
// simple is for people and scripts, fields is `"Name" : value` lines, json is the response as Go
// encodes its struct (ids are numbers, bytes are base64, zero fields are left out), protobuf is the
// response itself, table has rows and columns. Not every command has every format.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/time/time.h"
#include "client/kvctl/go_text.h"
#include "client/kvctl/table.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::kvctl {

namespace pb = etcdserverpb;

enum class Format { kSimple, kTable, kJson, kFields, kProtobuf };
std::optional<Format> ParseFormat(std::string_view name);
std::string_view Name(Format format);

struct Style {
  Format format = Format::kSimple;
  bool hex = false;          // simple: bytes as \x..; fields and json: ids in hexadecimal.
  bool values_only = false;  // simple: without the keys.
};

struct EndpointHealth {
  std::string endpoint;
  bool healthy = false;
  absl::Duration took;
  std::string error;
};

struct EndpointStatus {
  std::string endpoint;
  pb::StatusResponse status;
};

struct EndpointHash {
  std::string endpoint;
  pb::HashKVResponse hash;
};

// Of a file, as etcdutl has it.
struct BackupStatus {
  uint32_t hash = 0;
  int64_t revision = 0;
  int64_t keys = 0;
  uint64_t bytes = 0;
  std::string version;
};

struct RevokedLease {
  int64_t id = 0;
  pb::LeaseRevokeResponse response;
};

struct LeaseTimeLeft {
  bool with_keys = false;  // They were asked for.
  pb::LeaseTimeToLiveResponse response;
};

// Nothing: there is no such format for it.
std::optional<std::string> Show(const pb::PutResponse& response, const Style& style);
std::optional<std::string> Show(const pb::RangeResponse& response, const Style& style);
std::optional<std::string> Show(const pb::DeleteRangeResponse& response, const Style& style);
std::optional<std::string> Show(const pb::TxnResponse& response, const Style& style);
std::optional<std::string> Show(const pb::WatchResponse& response, const Style& style);
std::optional<std::string> Show(const pb::LeaseGrantResponse& response, const Style& style);
std::optional<std::string> Show(const RevokedLease& lease, const Style& style);
std::optional<std::string> Show(const LeaseTimeLeft& lease, const Style& style);
std::optional<std::string> Show(const pb::LeaseKeepAliveResponse& response, const Style& style);
std::optional<std::string> Show(const pb::LeaseLeasesResponse& response, const Style& style);
std::optional<std::string> Show(const pb::MemberListResponse& response, const Style& style);
std::optional<std::string> Show(const pb::AlarmResponse& response, const Style& style);
// What changes members or versions says so in words of the command's own in the simple format.
std::optional<std::string> Show(const pb::MemberAddResponse& response, const Style& style,
                                std::string_view simple);
std::optional<std::string> Show(const pb::MemberRemoveResponse& response, const Style& style,
                                std::string_view simple);
std::optional<std::string> Show(const pb::MemberUpdateResponse& response, const Style& style,
                                std::string_view simple);
std::optional<std::string> Show(const pb::MemberPromoteResponse& response, const Style& style,
                                std::string_view simple);
std::optional<std::string> Show(const pb::DowngradeResponse& response, const Style& style,
                                std::string_view simple);
std::optional<std::string> Show(const std::vector<EndpointHealth>& list, const Style& style);
std::optional<std::string> Show(const std::vector<EndpointStatus>& list, const Style& style);
std::optional<std::string> Show(const std::vector<EndpointHash>& list, const Style& style);
std::optional<std::string> Show(const BackupStatus& status, const Style& style);

}  // namespace kv::kvctl

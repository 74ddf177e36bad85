#include "client/kvctl/output.h"

#include <fmt/format.h>

#include <iterator>

namespace kv::kvctl {
namespace {

void AppendId(std::string& out, const Style& style, std::string_view name, uint64_t id) {
  auto to = std::back_inserter(out);
  if (style.hex) {
    fmt::format_to(to, "\"{}\" : {:x}\n", name, id);
  } else {
    fmt::format_to(to, "\"{}\" : {}\n", name, id);
  }
}

template <typename Value>
void AppendField(std::string& out, std::string_view name, const Value& value) {
  fmt::format_to(std::back_inserter(out), "\"{}\" : {}\n", name, value);
}

void AppendHeader(std::string& out, const Style& style, const pb::ResponseHeader& header) {
  AppendId(out, style, "ClusterID", header.cluster_id());
  AppendId(out, style, "MemberID", header.member_id());
  if (header.revision() > 0) AppendField(out, "Revision", header.revision());
  AppendField(out, "RaftTerm", header.raft_term());
}

void AppendPair(std::string& out, const Style& style, std::string_view prefix,
                const mvccpb::KeyValue& pair) {
  auto to = std::back_inserter(out);
  fmt::format_to(to, "\"{}Key\" : {}\n", prefix, GoQuoted(pair.key()));
  fmt::format_to(to, "\"{}CreateRevision\" : {}\n", prefix, pair.create_revision());
  fmt::format_to(to, "\"{}ModRevision\" : {}\n", prefix, pair.mod_revision());
  fmt::format_to(to, "\"{}Version\" : {}\n", prefix, pair.version());
  fmt::format_to(to, "\"{}Value\" : {}\n", prefix, GoQuoted(pair.value()));
  if (style.hex) {
    fmt::format_to(to, "\"{}Lease\" : {:016x}\n", prefix, pair.lease());
  } else {
    fmt::format_to(to, "\"{}Lease\" : {}\n", prefix, pair.lease());
  }
}

std::string Escaped(std::string_view bytes) {
  std::string text;
  for (char c : bytes) {
    fmt::format_to(std::back_inserter(text), "\\x{:02x}", static_cast<uint8_t>(c));
  }
  return text;
}

void AppendSimple(std::string& out, const Style& style, const mvccpb::KeyValue& pair) {
  if (!style.values_only) out += (style.hex ? Escaped(pair.key()) : pair.key()) + "\n";
  out += (style.hex ? Escaped(pair.value()) : pair.value()) + "\n";
}

void AppendSimple(std::string& out, const Style& style, const pb::PutResponse& response) {
  out += "OK\n";
  if (response.has_prev_kv()) AppendSimple(out, style, response.prev_kv());
}

void AppendSimple(std::string& out, const Style& style, const pb::RangeResponse& response) {
  for (const auto& pair : response.kvs()) AppendSimple(out, style, pair);
}

void AppendSimple(std::string& out, const Style& style, const pb::DeleteRangeResponse& response) {
  out += fmt::format("{}\n", response.deleted());
  for (const auto& pair : response.prev_kvs()) AppendSimple(out, style, pair);
}

void AppendFields(std::string& out, const Style& style, const pb::PutResponse& response) {
  AppendHeader(out, style, response.header());
  if (response.has_prev_kv()) AppendPair(out, style, "Prev", response.prev_kv());
}

void AppendFields(std::string& out, const Style& style, const pb::RangeResponse& response) {
  AppendHeader(out, style, response.header());
  for (const auto& pair : response.kvs()) AppendPair(out, style, "", pair);
  AppendField(out, "More", response.more());
  AppendField(out, "Count", response.count());
}

void AppendFields(std::string& out, const Style& style, const pb::DeleteRangeResponse& response) {
  AppendHeader(out, style, response.header());
  AppendField(out, "Deleted", response.deleted());
  for (const auto& pair : response.prev_kvs()) AppendPair(out, style, "Prev", pair);
}

void AppendSimple(std::string& out, const Style& style, const pb::TxnResponse& response) {
  out += response.succeeded() ? "SUCCESS\n" : "FAILURE\n";
  for (const pb::ResponseOp& op : response.responses()) {
    out += "\n";
    switch (op.response_case()) {
      case pb::ResponseOp::kResponseRange:
        AppendSimple(out, style, op.response_range());
        break;
      case pb::ResponseOp::kResponsePut:
        AppendSimple(out, style, op.response_put());
        break;
      case pb::ResponseOp::kResponseDeleteRange:
        AppendSimple(out, style, op.response_delete_range());
        break;
      case pb::ResponseOp::kResponseTxn:
        AppendSimple(out, style, op.response_txn());
        break;
      case pb::ResponseOp::RESPONSE_NOT_SET:
        out += "unexpected response\n";
        break;
    }
  }
}

void AppendFields(std::string& out, const Style& style, const pb::TxnResponse& response) {
  AppendHeader(out, style, response.header());
  AppendField(out, "Succeeded", response.succeeded());
  for (const pb::ResponseOp& op : response.responses()) {
    switch (op.response_case()) {
      case pb::ResponseOp::kResponseRange:
        AppendFields(out, style, op.response_range());
        break;
      case pb::ResponseOp::kResponsePut:
        AppendFields(out, style, op.response_put());
        break;
      case pb::ResponseOp::kResponseDeleteRange:
        AppendFields(out, style, op.response_delete_range());
        break;
      case pb::ResponseOp::kResponseTxn:
        AppendFields(out, style, op.response_txn());
        break;
      case pb::ResponseOp::RESPONSE_NOT_SET:
        AppendField(out, "Unknown", "\"\"");
        break;
    }
  }
}

void AppendSimple(std::string& out, const Style& style, const pb::WatchResponse& response) {
  for (const mvccpb::Event& event : response.events()) {
    out += mvccpb::Event::EventType_Name(event.type()) + "\n";
    if (event.has_prev_kv()) AppendSimple(out, style, event.prev_kv());
    AppendSimple(out, style, event.kv());
  }
}

void AppendFields(std::string& out, const Style& style, const pb::WatchResponse& response) {
  AppendHeader(out, style, response.header());
  for (const mvccpb::Event& event : response.events()) {
    AppendField(out, "Type", mvccpb::Event::EventType_Name(event.type()));
    if (event.has_prev_kv()) AppendPair(out, style, "Prev", event.prev_kv());
    AppendPair(out, style, "", event.kv());
  }
}

// The struct of etcd's client, not the message.
std::string WatchJson(const pb::WatchResponse& response) {
  std::string events = response.events().empty() ? "null" : "[";
  for (const mvccpb::Event& event : response.events()) {
    events += (events.size() > 1 ? "," : "") + GoJson(event);
  }
  if (!response.events().empty()) events += "]";
  return fmt::format(
      "{{\"Header\":{},\"Events\":{},\"CompactRevision\":{},\"Canceled\":{},\"Created\":{},"
      "\"CancelReason\":{}}}\n",
      GoJson(response.header()), events, response.compact_revision(), response.canceled(),
      response.created(), GoJsonString(response.cancel_reason()));
}

template <typename Response>
std::optional<std::string> ShowKv(const Response& response, const Style& style) {
  std::string out;
  switch (style.format) {
    case Format::kSimple:
      AppendSimple(out, style, response);
      return out;
    case Format::kFields:
      AppendFields(out, style, response);
      return out;
    case Format::kJson:
      return GoJson(response) + "\n";
    case Format::kProtobuf:
      return response.SerializeAsString();
    case Format::kTable:
      return std::nullopt;
  }
  return std::nullopt;
}

// What etcdctl prints of a lease is a struct of its own with the header's fields beside the rest,
// and as protobuf the header alone.
std::optional<std::string> ShowLease(const Style& style, const pb::ResponseHeader& header,
                                     std::string simple, std::string_view fields,
                                     std::string_view json) {
  switch (style.format) {
    case Format::kSimple:
      return simple;
    case Format::kFields: {
      std::string out;
      AppendHeader(out, style, header);
      return out.append(fields);
    }
    case Format::kJson: {
      std::string out = GoJson(header);
      out.pop_back();
      if (out.size() > 1) out += ",";
      return out.append(json) + "}\n";
    }
    case Format::kProtobuf:
      return header.SerializeAsString();
    case Format::kTable:
      return std::nullopt;
  }
  return std::nullopt;
}

std::string LeaseField(const Style& style, int64_t id) {
  return style.hex ? fmt::format("\"ID\" : {:016x}\n", id) : fmt::format("\"ID\" : {}\n", id);
}

template <typename Response>
std::string IdAndTtl(const Style& style, const Response& response) {
  return LeaseField(style, response.id()) + fmt::format("\"TTL\" : {}\n", response.ttl());
}

std::string Joined(const std::vector<Row>& rows) {
  std::string out;
  for (const Row& row : rows) out += fmt::format("{}\n", fmt::join(row, ", "));
  return out;
}

// "[{"Endpoint":…,NAME:…}]"; Go prints a list that nothing was added to as null.
template <typename Item, typename Append>
std::string JsonList(const std::vector<Item>& list, Append append) {
  if (list.empty()) return "null\n";
  std::string out = "[";
  for (size_t i = 0; i < list.size(); ++i) {
    if (i > 0) out += ",";
    append(out, list[i]);
  }
  return out + "]\n";
}

std::string Bool(bool value) { return value ? "true" : "false"; }

Row MemberRow(const pb::Member& member) {
  return {fmt::format("{:x}", member.id()),
          member.name().empty() ? "unstarted" : "started",
          member.name(),
          fmt::format("{}", fmt::join(member.peerurls(), ",")),
          fmt::format("{}", fmt::join(member.clienturls(), ",")),
          Bool(member.islearner())};
}

Row StatusRow(const EndpointStatus& item) {
  const pb::StatusResponse& s = item.status;
  int64_t unused = s.dbsize() == 0 ? 0 : 100 - s.dbsizeinuse() * 100 / s.dbsize();
  return {item.endpoint,
          fmt::format("{:x}", s.header().member_id()),
          s.version(),
          s.storageversion(),
          HumanBytes(static_cast<uint64_t>(s.dbsize())),
          HumanBytes(static_cast<uint64_t>(s.dbsizeinuse())),
          fmt::format("{}%", unused),
          HumanBytes(static_cast<uint64_t>(s.dbsizequota())),
          Bool(s.leader() == s.header().member_id()),
          Bool(s.islearner()),
          std::to_string(s.raftterm()),
          std::to_string(s.raftindex()),
          std::to_string(s.raftappliedindex()),
          fmt::format("{}", fmt::join(s.errors(), ", ")),
          s.downgradeinfo().targetversion(),
          Bool(s.downgradeinfo().enabled())};
}

const Row kStatusHead = {"endpoint",
                         "ID",
                         "version",
                         "storage version",
                         "db size",
                         "in use",
                         "percentage not in use",
                         "quota",
                         "is leader",
                         "is learner",
                         "raft term",
                         "raft index",
                         "raft applied index",
                         "errors",
                         "downgrade target version",
                         "downgrade enabled"};

std::string StatusFields(const std::vector<EndpointStatus>& list, const Style& style) {
  std::string out;
  for (const EndpointStatus& item : list) {
    const pb::StatusResponse& s = item.status;
    AppendHeader(out, style, s.header());
    AppendField(out, "Version", GoQuoted(s.version()));
    AppendField(out, "StorageVersion", GoQuoted(s.storageversion()));
    AppendField(out, "DBSize", s.dbsize());
    AppendField(out, "DBSizeInUse", s.dbsizeinuse());
    AppendField(out, "DBSizeQuota", s.dbsizequota());
    AppendField(out, "Leader", s.leader());
    AppendField(out, "IsLearner", s.islearner());
    AppendField(out, "RaftIndex", s.raftindex());
    AppendField(out, "RaftAppliedIndex", s.raftappliedindex());
    AppendField(out, "Errors", fmt::format("[{}]", fmt::join(s.errors(), " ")));
    AppendField(out, "Endpoint", GoQuoted(item.endpoint));
    AppendField(out, "DowngradeTargetVersion", GoQuoted(s.downgradeinfo().targetversion()));
    AppendField(out, "DowngradeEnabled", s.downgradeinfo().enabled());
    out += "\n";
  }
  return out;
}

std::string MemberFields(const pb::MemberListResponse& response, const Style& style) {
  std::string out;
  AppendHeader(out, style, response.header());
  for (const pb::Member& member : response.members()) {
    AppendId(out, style, "ID", member.id());
    AppendField(out, "Name", GoQuoted(member.name()));
    for (const std::string& url : member.peerurls()) AppendField(out, "PeerURL", GoQuoted(url));
    for (const std::string& url : member.clienturls()) {
      AppendField(out, "ClientURL", GoQuoted(url));
    }
    AppendField(out, "IsLearner", member.islearner());
    out += "\n";
  }
  return out;
}

template <typename List>
std::string JsonStrings(const List& list) {
  std::string out = "[";
  for (const std::string& text : list) out += (out.size() > 1 ? "," : "") + GoJsonString(text);
  return out + "]";
}

std::string MemberHexJson(const pb::Member& member) {
  std::string out = fmt::format("{{\"ID\":\"{:x}\"", member.id());
  if (!member.name().empty()) out += ",\"name\":" + GoJsonString(member.name());
  if (!member.peerurls().empty()) out += ",\"peerURLs\":" + JsonStrings(member.peerurls());
  if (!member.clienturls().empty()) out += ",\"clientURLs\":" + JsonStrings(member.clienturls());
  if (member.islearner()) out += ",\"isLearner\":true";
  return out + "}";
}

// With --hex the responses that list members, and no others, have their ids as strings.
template <typename Response>
std::string MembersHexJson(const Response& response, const pb::Member* added) {
  std::string out = fmt::format("{{\"header\":{{\"cluster_id\":\"{:x}\",\"member_id\":\"{:x}\"",
                                response.header().cluster_id(), response.header().member_id());
  if (response.header().revision() != 0) {
    out += fmt::format(",\"revision\":{}", response.header().revision());
  }
  if (response.header().raft_term() != 0) {
    out += fmt::format(",\"raft_term\":{}", response.header().raft_term());
  }
  out += "}";
  if (added != nullptr) out += ",\"member\":" + MemberHexJson(*added);
  out += ",\"members\":[";
  for (int i = 0; i < response.members_size(); ++i) {
    out += (i == 0 ? "" : ",") + MemberHexJson(response.members(i));
  }
  return out + "]}\n";
}

// Of a command that changes something: its own words, or the response.
template <typename Response>
std::optional<std::string> ShowChange(const Response& response, const Style& style,
                                      std::string_view simple,
                                      std::string (*hex)(const Response&)) {
  switch (style.format) {
    case Format::kSimple:
      return std::string(simple);
    case Format::kJson:
      return style.hex && hex != nullptr ? hex(response) : GoJson(response) + "\n";
    case Format::kProtobuf:
      return response.SerializeAsString();
    case Format::kFields:
    case Format::kTable:
      return std::nullopt;
  }
  return std::nullopt;
}

std::string AlarmType(const pb::AlarmMember& alarm) {
  return pb::AlarmType_IsValid(alarm.alarm()) ? pb::AlarmType_Name(alarm.alarm())
                                              : std::to_string(static_cast<int>(alarm.alarm()));
}

}  // namespace

std::optional<Format> ParseFormat(std::string_view name) {
  for (Format format :
       {Format::kSimple, Format::kTable, Format::kJson, Format::kFields, Format::kProtobuf}) {
    if (Name(format) == name) return format;
  }
  return std::nullopt;
}

std::string_view Name(Format format) {
  switch (format) {
    case Format::kSimple:
      return "simple";
    case Format::kTable:
      return "table";
    case Format::kJson:
      return "json";
    case Format::kFields:
      return "fields";
    case Format::kProtobuf:
      return "protobuf";
  }
  return "";
}

std::optional<std::string> Show(const pb::PutResponse& response, const Style& style) {
  return ShowKv(response, style);
}

std::optional<std::string> Show(const pb::RangeResponse& response, const Style& style) {
  return ShowKv(response, style);
}

std::optional<std::string> Show(const pb::DeleteRangeResponse& response, const Style& style) {
  return ShowKv(response, style);
}

std::optional<std::string> Show(const pb::TxnResponse& response, const Style& style) {
  return ShowKv(response, style);
}

std::optional<std::string> Show(const pb::WatchResponse& response, const Style& style) {
  if (style.format == Format::kJson) return WatchJson(response);
  if (style.format != Format::kProtobuf) return ShowKv(response, style);
  pb::WatchResponse shown = response;
  shown.clear_watch_id();
  shown.clear_cancel_reason();
  return shown.SerializeAsString();
}

std::optional<std::string> Show(const pb::LeaseGrantResponse& response, const Style& style) {
  return ShowLease(
      style, response.header(),
      fmt::format("lease {:016x} granted with TTL({}s)\n", response.id(), response.ttl()),
      IdAndTtl(style, response),
      fmt::format("\"ID\":{},\"TTL\":{},\"Error\":{}", response.id(), response.ttl(),
                  GoJsonString(response.error())));
}

std::optional<std::string> Show(const RevokedLease& lease, const Style& style) {
  switch (style.format) {
    case Format::kJson:
      return GoJson(lease.response) + "\n";
    case Format::kProtobuf:
      return std::nullopt;
    default:
      return ShowLease(style, lease.response.header(),
                       fmt::format("lease {:016x} revoked\n", lease.id), {}, {});
  }
}

std::optional<std::string> Show(const LeaseTimeLeft& lease, const Style& style) {
  const pb::LeaseTimeToLiveResponse& r = lease.response;
  std::string simple;
  if (r.grantedttl() == 0 && r.ttl() == -1) {
    simple = fmt::format("lease {:016x} already expired", r.id());
  } else {
    simple = fmt::format("lease {:016x} granted with TTL({}s), remaining({}s)", r.id(),
                         r.grantedttl(), r.ttl());
    if (lease.with_keys) {
      simple += fmt::format(", attached keys([{}])", fmt::join(r.keys(), " "));
    }
  }
  std::string fields = IdAndTtl(style, r);
  AppendField(fields, "GrantedTTL", r.grantedttl());
  std::string keys;
  for (const std::string& key : r.keys()) {
    AppendField(fields, "Key", GoQuoted(key));
    keys += fmt::format("{}\"{}\"", keys.empty() ? "" : ",", Base64(key));
  }
  return ShowLease(
      style, r.header(), simple + "\n", fields,
      fmt::format("\"id\":{},\"ttl\":{},\"granted-ttl\":{},\"keys\":{}", r.id(), r.ttl(),
                  r.grantedttl(), r.keys().empty() ? "null" : "[" + keys + "]"));
}

std::optional<std::string> Show(const pb::LeaseKeepAliveResponse& response, const Style& style) {
  return ShowLease(
      style, response.header(),
      fmt::format("lease {:016x} keepalived with TTL({})\n", response.id(), response.ttl()),
      IdAndTtl(style, response),
      fmt::format("\"ID\":{},\"TTL\":{}", response.id(), response.ttl()));
}

std::optional<std::string> Show(const pb::LeaseLeasesResponse& response, const Style& style) {
  std::string simple = fmt::format("found {} leases\n", response.leases_size());
  std::string fields;
  std::string json;
  for (const pb::LeaseStatus& lease : response.leases()) {
    simple += fmt::format("{:016x}\n", lease.id());
    fields += LeaseField(style, lease.id());
    json += fmt::format("{}{{\"id\":{}}}", json.empty() ? "" : ",", lease.id());
  }
  return ShowLease(style, response.header(), std::move(simple), fields,
                   fmt::format("\"leases\":[{}]", json));
}

std::optional<std::string> Show(const pb::MemberListResponse& response, const Style& style) {
  std::vector<Row> rows;
  for (const pb::Member& member : response.members()) rows.push_back(MemberRow(member));
  switch (style.format) {
    case Format::kSimple:
      return Joined(rows);
    case Format::kTable:
      return Table({"ID", "Status", "Name", "Peer Addrs", "Client Addrs", "Is Learner"}, rows);
    case Format::kFields:
      return MemberFields(response, style);
    case Format::kJson:
      return style.hex ? MembersHexJson(response, nullptr) : GoJson(response) + "\n";
    case Format::kProtobuf:
      return response.SerializeAsString();
  }
  return std::nullopt;
}

std::optional<std::string> Show(const pb::AlarmResponse& response, const Style& style) {
  std::string out;
  switch (style.format) {
    case Format::kSimple:
      for (const pb::AlarmMember& alarm : response.alarms()) {
        if (alarm.memberid() != 0) out += fmt::format("memberID:{}  ", alarm.memberid());
        out += fmt::format("alarm:{}\n", AlarmType(alarm));
      }
      return out;
    case Format::kFields:
      AppendHeader(out, style, response.header());
      for (const pb::AlarmMember& alarm : response.alarms()) {
        AppendId(out, style, "MemberID", alarm.memberid());
        AppendField(out, "AlarmType", AlarmType(alarm));
        out += "\n";
      }
      return out;
    case Format::kJson:
      return GoJson(response) + "\n";
    case Format::kProtobuf:
      return response.SerializeAsString();
    case Format::kTable:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> Show(const pb::MemberAddResponse& response, const Style& style,
                                std::string_view simple) {
  return ShowChange<pb::MemberAddResponse>(response, style, simple, [](const auto& added) {
    return MembersHexJson(added, &added.member());
  });
}

std::optional<std::string> Show(const pb::MemberRemoveResponse& response, const Style& style,
                                std::string_view simple) {
  return ShowChange<pb::MemberRemoveResponse>(
      response, style, simple, [](const auto& r) { return MembersHexJson(r, nullptr); });
}

std::optional<std::string> Show(const pb::MemberUpdateResponse& response, const Style& style,
                                std::string_view simple) {
  return ShowChange<pb::MemberUpdateResponse>(
      response, style, simple, [](const auto& r) { return MembersHexJson(r, nullptr); });
}

std::optional<std::string> Show(const pb::MemberPromoteResponse& response, const Style& style,
                                std::string_view simple) {
  return ShowChange<pb::MemberPromoteResponse>(
      response, style, simple, [](const auto& r) { return MembersHexJson(r, nullptr); });
}

std::optional<std::string> Show(const pb::DowngradeResponse& response, const Style& style,
                                std::string_view simple) {
  return ShowChange<pb::DowngradeResponse>(response, style, simple, nullptr);
}

std::optional<std::string> Show(const std::vector<EndpointHealth>& list, const Style& style) {
  std::string out;
  std::vector<Row> rows;
  switch (style.format) {
    case Format::kSimple:
      for (const EndpointHealth& item : list) {
        if (!item.error.empty()) continue;  // Goes to stderr.
        out += fmt::format("{} is healthy: successfully committed proposal: took = {}\n",
                           item.endpoint, GoDuration(item.took));
      }
      return out;
    case Format::kTable:
      for (const EndpointHealth& item : list) {
        rows.push_back({item.endpoint, Bool(item.healthy), GoDuration(item.took), item.error});
      }
      return Table({"endpoint", "health", "took", "error"}, rows);
    case Format::kFields:
      for (const EndpointHealth& item : list) {
        AppendField(out, "Endpoint", GoQuoted(item.endpoint));
        AppendField(out, "Health", item.healthy);
        AppendField(out, "Took", GoDuration(item.took));
        AppendField(out, "Error", item.error);
        out += "\n";
      }
      return out;
    case Format::kJson:
      return JsonList(list, [](std::string& json, const EndpointHealth& item) {
        json +=
            fmt::format("{{\"endpoint\":{},\"health\":{},\"took\":{}", GoJsonString(item.endpoint),
                        item.healthy, GoJsonString(GoDuration(item.took)));
        if (!item.error.empty()) json += ",\"error\":" + GoJsonString(item.error);
        json += "}";
      });
    case Format::kProtobuf:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> Show(const std::vector<EndpointStatus>& list, const Style& style) {
  std::vector<Row> rows;
  for (const EndpointStatus& item : list) rows.push_back(StatusRow(item));
  switch (style.format) {
    case Format::kSimple:
      return Joined(rows);
    case Format::kTable:
      return Table(kStatusHead, rows);
    case Format::kFields:
      return StatusFields(list, style);
    case Format::kJson:
      return JsonList(list, [](std::string& json, const EndpointStatus& item) {
        json += fmt::format("{{\"Endpoint\":{},\"Status\":{}}}", GoJsonString(item.endpoint),
                            GoJson(item.status));
      });
    case Format::kProtobuf:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> Show(const BackupStatus& status, const Style& style) {
  const std::vector<Row> rows{{fmt::format("{:x}", status.hash), std::to_string(status.revision),
                               std::to_string(status.keys), HumanBytes(status.bytes),
                               status.version}};
  std::string out;
  switch (style.format) {
    case Format::kSimple:
      return Joined(rows);
    case Format::kTable:
      return Table({"hash", "revision", "total keys", "total size", "version"}, rows);
    case Format::kFields:
      AppendField(out, "Hash", status.hash);
      AppendField(out, "Revision", status.revision);
      AppendField(out, "Keys", status.keys);
      AppendField(out, "Size", status.bytes);
      AppendField(out, "Version", status.version);
      return out;
    case Format::kJson:
      return fmt::format(
          "{{\"hash\":{},\"revision\":{},\"totalKey\":{},\"totalSize\":{},\"version\":{}}}\n",
          status.hash, status.revision, status.keys, status.bytes, GoJsonString(status.version));
    case Format::kProtobuf:
      return std::nullopt;
  }
  return std::nullopt;
}

std::optional<std::string> Show(const std::vector<EndpointHash>& list, const Style& style) {
  std::string out;
  std::vector<Row> rows;
  for (const EndpointHash& item : list) {
    rows.push_back({item.endpoint, std::to_string(item.hash.hash()),
                    std::to_string(item.hash.hash_revision())});
  }
  switch (style.format) {
    case Format::kSimple:
      return Joined(rows);
    case Format::kTable:
      return Table({"endpoint", "hash", "hash_revision"}, rows);
    case Format::kFields:
      for (const EndpointHash& item : list) {
        AppendHeader(out, style, item.hash.header());
        AppendField(out, "Endpoint", GoQuoted(item.endpoint));
        AppendField(out, "Hash", item.hash.hash());
        AppendField(out, "HashRevision", item.hash.hash_revision());
        out += "\n";
      }
      return out;
    case Format::kJson:
      return JsonList(list, [](std::string& json, const EndpointHash& item) {
        json += fmt::format("{{\"Endpoint\":{},\"HashKV\":{}}}", GoJsonString(item.endpoint),
                            GoJson(item.hash));
      });
    case Format::kProtobuf:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace kv::kvctl

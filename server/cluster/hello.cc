#include "server/cluster/hello.h"

#include <fmt/format.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>

#include <algorithm>
#include <array>
#include <utility>

#include "proto/internal/peer.pb.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

namespace pb = ::kvd::internal;

void SetStrings(const std::vector<std::string>& from,
                google::protobuf::RepeatedPtrField<std::string>* to) {
  to->Assign(from.begin(), from.end());
}

std::vector<std::string> GetStrings(const google::protobuf::RepeatedPtrField<std::string>& from) {
  return {from.begin(), from.end()};
}

void SetRecord(const FoundingRecord& from, pb::FoundingRecord* to) {
  to->set_cluster_id(from.cluster_id);
  to->set_attempt(from.attempt);
  to->set_token_hash(from.token_hash);
  for (const Founder& founder : from.founders) {
    pb::Founder* added = to->add_founders();
    added->set_name(founder.name);
    added->set_node_uuid(founder.node_uuid);
    added->set_member_id(founder.member_id);
    SetStrings(founder.peer_urls, added->mutable_peer_urls());
    SetStrings(founder.client_urls, added->mutable_client_urls());
  }
}

FoundingRecord GetRecord(const pb::FoundingRecord& from) {
  FoundingRecord record;
  record.cluster_id = from.cluster_id();
  record.attempt = from.attempt();
  record.token_hash = from.token_hash();
  for (const pb::Founder& founder : from.founders()) {
    record.founders.push_back({.name = founder.name(),
                               .node_uuid = founder.node_uuid(),
                               .member_id = founder.member_id(),
                               .peer_urls = GetStrings(founder.peer_urls()),
                               .client_urls = GetStrings(founder.client_urls())});
  }
  return record;
}

pb::NodeState ToWire(State state) {
  switch (state) {
    case State::kBlank:
      return pb::BLANK;
    case State::kPromised:
      return pb::PROMISED;
    case State::kMember:
      return pb::MEMBER;
    case State::kRemoved:
      return pb::REMOVED;
    case State::kHalted:
    case State::kStale:  // Nobody may count on it, whatever it waits for.
      return pb::HALTED;
  }
  return pb::NODE_STATE_UNSPECIFIED;
}

std::optional<State> FromWire(pb::NodeState state) {
  switch (state) {
    case pb::BLANK:
      return State::kBlank;
    case pb::PROMISED:
      return State::kPromised;
    case pb::MEMBER:
      return State::kMember;
    case pb::REMOVED:
      return State::kRemoved;
    case pb::HALTED:
      return State::kHalted;
    default:
      return std::nullopt;
  }
}

void SetStanding(const Standing& from, pb::Standing* to) {
  to->set_name(from.name);
  to->set_node_uuid(from.node_uuid);
  to->set_state(ToWire(from.state));
  to->set_cluster_id(from.cluster_id);
  to->set_member_id(from.member_id);
  to->set_boot_epoch(from.boot_epoch);
  if (from.record) SetRecord(*from.record, to->mutable_promise());
  to->set_token_hash(from.token_hash);
  to->set_config_hash(from.config_hash);
  to->set_version(from.version);
  to->set_protocol_min(from.protocol_min);
  to->set_protocol_max(from.protocol_max);
  to->set_features(from.features);
  to->set_format(from.format);
  to->set_min_reader_version(from.minimum_reader);
  SetStrings(from.peer_urls, to->mutable_peer_urls());
  SetStrings(from.client_urls, to->mutable_client_urls());
  to->set_leader_id(from.leader);
}

std::optional<Standing> GetStanding(const pb::Standing& from) {
  const std::optional<State> state = FromWire(from.state());
  if (!state) return std::nullopt;
  Standing standing;
  standing.name = from.name();
  standing.node_uuid = from.node_uuid();
  standing.state = *state;
  standing.cluster_id = from.cluster_id();
  standing.member_id = from.member_id();
  standing.boot_epoch = from.boot_epoch();
  if (from.has_promise()) {
    if (from.promise().founders().empty()) return std::nullopt;
    standing.record = GetRecord(from.promise());
  }
  standing.token_hash = from.token_hash();
  standing.config_hash = from.config_hash();
  standing.version = from.version();
  standing.protocol_min = from.protocol_min();
  standing.protocol_max = from.protocol_max();
  standing.features = from.features();
  standing.format = from.format();
  standing.minimum_reader = from.min_reader_version();
  standing.peer_urls = GetStrings(from.peer_urls());
  standing.client_urls = GetStrings(from.client_urls());
  standing.leader = from.leader_id();
  return standing;
}

template <typename Message>
bool Parse(std::string_view bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

absl::Status Malformed(std::string_view what) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "malformed {}", what);
}

std::string Hmac(std::string_view key, std::string_view text) {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int length = 0;
  const unsigned char* done = HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()),
                                   reinterpret_cast<const unsigned char*>(text.data()), text.size(),
                                   digest.data(), &length);
  KV_CHECK(done != nullptr);
  return {reinterpret_cast<const char*>(digest.data()), length};
}

std::string Text(const std::vector<Listed>& list) {
  std::string text;
  for (const Listed& listed : list) {
    PutBytes(text, listed.name);
    PutU32(text, static_cast<uint32_t>(listed.peer_urls.size()));
    for (const std::string& url : listed.peer_urls) PutBytes(text, url);
  }
  return text;
}

}  // namespace

std::string EncodeHello(const Hello& hello) {
  pb::HelloRequest request;
  SetStanding(hello.from, request.mutable_self());
  request.set_to_name(hello.to_name);
  return request.SerializeAsString();
}

absl::StatusOr<Hello> DecodeHello(std::string_view bytes) {
  pb::HelloRequest request;
  if (!Parse(bytes, request)) return Malformed("hello");
  std::optional<Standing> from = GetStanding(request.self());
  if (!from) return Malformed("hello");
  return Hello{.from = *std::move(from), .to_name = request.to_name()};
}

std::string EncodeHelloAnswer(const Standing& standing) {
  pb::HelloResponse response;
  SetStanding(standing, response.mutable_self());
  return response.SerializeAsString();
}

absl::StatusOr<Standing> DecodeHelloAnswer(std::string_view bytes) {
  pb::HelloResponse response;
  if (!Parse(bytes, response)) return Malformed("answer to hello");
  std::optional<Standing> standing = GetStanding(response.self());
  if (!standing) return Malformed("answer to hello");
  return *std::move(standing);
}

std::string EncodeRecordRequest(const FoundingRecord& record) {
  pb::PrepareRequest request;
  SetRecord(record, request.mutable_record());
  return request.SerializeAsString();
}

absl::StatusOr<FoundingRecord> DecodeRecordRequest(std::string_view bytes) {
  pb::PrepareRequest request;
  if (!Parse(bytes, request) || !request.has_record()) return Malformed("founding record");
  return GetRecord(request.record());
}

std::string EncodeRefusal(std::string_view refusal) {
  pb::PrepareResponse response;
  response.set_refusal(std::string(refusal));
  return response.SerializeAsString();
}

absl::StatusOr<std::string> DecodeRefusal(std::string_view bytes) {
  pb::PrepareResponse response;
  if (!Parse(bytes, response)) return Malformed("answer to prepare or commit");
  return response.refusal();
}

std::string HashToken(std::string_view token) { return Hmac(token, "kvd initial cluster token"); }

std::string HashConfiguration(std::string_view token, const std::vector<Listed>& list) {
  return Hmac(token, "kvd founding 1" + Text(list));
}

std::string HashSurvey(std::string_view token_hash, const std::vector<Listed>& slots,
                       size_t founders) {
  return Hmac(token_hash, fmt::format("kvd survey 1 {}", founders) + Text(slots));
}

}  // namespace kv::cluster

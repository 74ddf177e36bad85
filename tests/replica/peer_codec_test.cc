#include "server/replica/peer_codec.h"

#include <google/protobuf/stubs/logging.h>
#include <catch2/catch_test_macros.hpp>

#include <cstdlib>
#include <string>
#include <vector>

#include "proto/internal/peer.pb.h"
#include "server/raft/random.h"
#include "server/replica/forward.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

// Bytes that are no text make the library complain by itself; here they are expected.
const int quiet = [] {
  google::protobuf::SetLogHandler(nullptr);
  return 0;
}();

std::vector<raft::Message> OneOfEach() {
  return {
      raft::PreVoteRequest{.proposed = 4, .last = {.index = 9, .term = 3}},
      raft::PreVoteReply{.proposed = 4, .vote = raft::Vote::kGranted},
      raft::PreVoteReply{.proposed = 4, .vote = raft::Vote::kDenied},
      raft::VoteRequest{.last = {.index = 9, .term = 3}, .cause = raft::Cause::kTransfer},
      raft::VoteRequest{.last = {.index = 9, .term = 3}, .cause = raft::Cause::kTimeout},
      raft::VoteReply{.vote = raft::Vote::kGranted},
      raft::Append{.prev = {.index = 9, .term = 3}, .entries = {}, .commit = 7},
      raft::Append{.prev = {.index = 9, .term = 3},
                   .entries = {MakeEntry(10, 3, EntryKind::kCommand, std::string("a\0b", 3)),
                               MakeEntry(11, 4, EntryKind::kEmpty, ""),
                               MakeEntry(12, 4, EntryKind::kMembers, std::string(5000, 'm'))},
                   .commit = 7},
      raft::AppendReply{.verdict = raft::Accepted{.match = 12}, .flow = raft::Flow::kHold},
      raft::AppendReply{.verdict = raft::Rejected{.prev = 9, .hint = {.index = 5, .term = 2}},
                        .flow = raft::Flow::kOpen},
      raft::Heartbeat{.commit = 7, .round = 3},
      raft::HeartbeatReply{.round = 3, .flow = raft::Flow::kHold},
      raft::SnapshotOffer{.at = {.index = 9, .term = 3}, .members = std::string("m\0m", 3)},
      raft::TimeoutNow{},
      raft::ReadRequest{.number = ~uint64_t{0}},
      raft::ReadReply{.number = 1, .index = 2},
      raft::Removed{},
  };
}

std::string Wire(const raft::Envelope& envelope) {
  pb::Envelope packed;
  EncodeEnvelope(envelope, &packed);
  return packed.SerializeAsString();
}

std::optional<raft::Envelope> FromWire(const std::string& bytes) {
  pb::Envelope packed;
  if (!packed.ParseFromString(bytes)) return std::nullopt;
  return DecodeEnvelope(packed);
}

}  // namespace

TEST_CASE("every message comes out as it went in") {
  for (const raft::Message& message : OneOfEach()) {
    raft::Envelope envelope{.from = 1, .to = ~uint64_t{0}, .term = 5, .message = message};
    INFO("alternative " << message.index());
    std::optional<raft::Envelope> back = FromWire(Wire(envelope));
    REQUIRE(back.has_value());
    CHECK(*back == envelope);
    CHECK(EnvelopeBytes(envelope) + 100 >= Wire(envelope).size());
  }
}

TEST_CASE("no flipped bit of an entry gets through") {
  raft::Envelope envelope{
      .from = 1,
      .to = 2,
      .term = 5,
      .message = raft::Append{.prev = {.index = 9, .term = 3},
                              .entries = {MakeEntry(10, 3, EntryKind::kCommand, "some data"),
                                          MakeEntry(11, 4, EntryKind::kCommand, "more")},
                              .commit = 7}};
  pb::Envelope packed;
  EncodeEnvelope(envelope, &packed);
  const std::string entries = packed.append().entries();
  for (size_t i = 0; i < entries.size() * 8; ++i) {
    std::string flipped = entries;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    packed.mutable_append()->set_entries(flipped);
    CHECK(!DecodeEnvelope(packed).has_value());
  }
  // The checksum covers the index, which follows from where the entries attach.
  packed.mutable_append()->set_entries(entries);
  packed.mutable_append()->mutable_previous()->set_index(8);
  CHECK(!DecodeEnvelope(packed).has_value());
}

TEST_CASE("a count that the bytes do not bear out is refused without reserving for it") {
  pb::Envelope packed;
  packed.mutable_append()->set_entry_count(~uint32_t{0});
  CHECK(!DecodeEnvelope(packed).has_value());
  packed.mutable_append()->set_entry_count(0);
  packed.mutable_append()->set_entries("leftover");
  CHECK(!DecodeEnvelope(packed).has_value());
}

TEST_CASE("any bytes decode to a message or to nothing") {
  const char* replay = std::getenv("KVD_CODEC_SEED");
  uint64_t seed = replay != nullptr ? std::strtoull(replay, nullptr, 10) : 1;
  INFO("KVD_CODEC_SEED=" << seed);
  raft::SplitMix64 chance(seed);
  size_t decoded = 0;
  for (int round = 0; round < 2000; ++round) {
    for (const raft::Message& message : OneOfEach()) {
      std::string bytes = Wire(raft::Envelope{.from = 1, .to = 2, .term = 5, .message = message});
      uint64_t changes = 1 + chance.Below(4);
      for (uint64_t i = 0; i < changes && !bytes.empty(); ++i) {
        size_t at = chance.Below(bytes.size());
        uint64_t how = chance.Below(3);
        if (how == 0) bytes[at] = static_cast<char>(chance.Below(256));
        if (how == 1) bytes.erase(at, 1 + chance.Below(3));
        if (how == 2) bytes.insert(at, 1, static_cast<char>(chance.Below(256)));
      }
      if (std::optional<raft::Envelope> envelope = FromWire(bytes)) {
        ++decoded;
        CHECK(FromWire(Wire(*envelope)) == envelope);
      }
      (void)DecodeForwardedProposals(bytes);
      (void)DecodeProposalResults(bytes);
      (void)DecodeForwardedChange(bytes);
      (void)DecodeForwardedChangeResult(bytes);
      (void)DecodeForwardedTransfer(bytes);
      (void)DecodeMemberRecord(bytes);
    }
  }
  CHECK(decoded > 0);
}

TEST_CASE("forwarded requests and their answers come out as they went in") {
  ForwardHeader header{.cluster_id = 1, .from = 2, .to = 3};
  auto proposals = DecodeForwardedProposals(Encode(ForwardedProposals{
      .header = header,
      .proposals = {{.command = "a", .deadline = absl::Milliseconds(1500)},
                    {.command = std::string("\0", 1), .deadline = absl::InfiniteDuration()},
                    {.command = "c", .deadline = -absl::Seconds(1)}}}));
  REQUIRE(proposals.has_value());
  CHECK(proposals->header.to == 3);
  REQUIRE(proposals->proposals.size() == 3);
  CHECK(proposals->proposals[0].deadline == absl::Milliseconds(1500));
  CHECK(proposals->proposals[1].command == std::string("\0", 1));
  CHECK(proposals->proposals[1].deadline == absl::Hours(24));
  CHECK(proposals->proposals[2].deadline == absl::ZeroDuration());

  std::vector<ProposalResult> results(2);
  results[0].reply = {.status = absl::OutOfRangeError("why"), .body = "b"};
  results[0].position = {.index = 7, .term = 2};
  results[1].error = ReplicaError::kNotAccepted;
  auto answers = DecodeProposalResults(Encode(results));
  REQUIRE(answers.has_value());
  REQUIRE(answers->size() == 2);
  CHECK((*answers)[0].reply.status == results[0].reply.status);
  CHECK((*answers)[0].reply.body == "b");
  CHECK((*answers)[0].position == results[0].position);
  CHECK((*answers)[1].error == ReplicaError::kNotAccepted);

  MemberRecord record{.name = "n",
                      .peer_urls = {"http://a:1", "http://b:2"},
                      .client_urls = {"http://a:3"},
                      .node_uuid = "u"};
  CHECK(DecodeMemberRecord(Encode(record)) == record);
}

}  // namespace kv

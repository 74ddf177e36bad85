#include "server/replica/peer_codec.h"

#include <memory>
#include <string>
#include <utility>
#include <variant>

#include "proto/internal/peer.pb.h"
#include "storage/files.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

constexpr size_t kEntryHeader = 8 + 4 + 4 + 1;  // Term, checksum, length, kind.
constexpr size_t kEnvelopeOverhead = 64;

void EncodePosition(Position position, pb::Position* out) {
  out->set_index(position.index);
  out->set_term(position.term);
}
Position DecodePosition(const pb::Position& in) { return {.index = in.index(), .term = in.term()}; }

std::string PackEntries(const std::vector<EntryPtr>& entries) {
  size_t bytes = 0;
  for (const EntryPtr& entry : entries) bytes += kEntryHeader + entry->data.size();
  std::string packed;
  packed.reserve(bytes);
  for (const EntryPtr& entry : entries) {
    PutU64(packed, entry->term);
    PutU32(packed, entry->checksum);
    PutU32(packed, static_cast<uint32_t>(entry->data.size()));
    PutU8(packed, static_cast<uint8_t>(entry->kind));
    packed.append(entry->data);
  }
  return packed;
}

std::optional<std::vector<EntryPtr>> UnpackEntries(Index previous, const pb::Append& in) {
  std::vector<EntryPtr> entries;
  if (in.entries().size() / kEntryHeader < in.entry_count()) return std::nullopt;
  entries.reserve(in.entry_count());
  ByteReader reader(in.entries());
  for (uint32_t i = 0; i < in.entry_count(); ++i) {
    auto entry = std::make_shared<Entry>();
    entry->index = previous + 1 + i;
    entry->term = reader.U64();
    entry->checksum = reader.U32();
    uint32_t length = reader.U32();
    uint8_t kind = reader.U8();
    std::string_view data = reader.Take(length);
    if (!reader.ok() || kind > static_cast<uint8_t>(EntryKind::kMembers)) return std::nullopt;
    entry->kind = static_cast<EntryKind>(kind);
    entry->data.assign(data);
    if (!ChecksumHolds(*entry)) return std::nullopt;
    entries.push_back(std::move(entry));
  }
  if (!reader.AtEnd()) return std::nullopt;
  return entries;
}

// One overload a message, both ways.
struct Encoder {
  pb::Envelope* out;

  void operator()(const raft::PreVoteRequest& message) const {
    pb::PreVoteRequest* to = out->mutable_pre_vote_request();
    to->set_proposed(message.proposed);
    EncodePosition(message.last, to->mutable_last());
  }
  void operator()(const raft::PreVoteReply& message) const {
    pb::PreVoteReply* to = out->mutable_pre_vote_reply();
    to->set_proposed(message.proposed);
    to->set_granted(message.vote == raft::Vote::kGranted);
  }
  void operator()(const raft::VoteRequest& message) const {
    pb::VoteRequest* to = out->mutable_vote_request();
    EncodePosition(message.last, to->mutable_last());
    to->set_transfer(message.cause == raft::Cause::kTransfer);
  }
  void operator()(const raft::VoteReply& message) const {
    out->mutable_vote_reply()->set_granted(message.vote == raft::Vote::kGranted);
  }
  void operator()(const raft::Append& message) const {
    pb::Append* to = out->mutable_append();
    EncodePosition(message.prev, to->mutable_previous());
    if (!message.entries.empty()) to->set_entries(PackEntries(message.entries));
    to->set_entry_count(static_cast<uint32_t>(message.entries.size()));
    to->set_commit(message.commit);
  }
  void operator()(const raft::AppendReply& message) const {
    pb::AppendReply* to = out->mutable_append_reply();
    if (const auto* accepted = std::get_if<raft::Accepted>(&message.verdict)) {
      to->set_match(accepted->match);
    } else if (const auto* rejected = std::get_if<raft::Rejected>(&message.verdict)) {
      to->mutable_rejected()->set_previous(rejected->prev);
      EncodePosition(rejected->hint, to->mutable_rejected()->mutable_hint());
    }
    to->set_hold(message.flow == raft::Flow::kHold);
  }
  void operator()(const raft::Heartbeat& message) const {
    pb::Heartbeat* to = out->mutable_heartbeat();
    to->set_commit(message.commit);
    to->set_round(message.round);
  }
  void operator()(const raft::HeartbeatReply& message) const {
    pb::HeartbeatReply* to = out->mutable_heartbeat_reply();
    to->set_round(message.round);
    to->set_hold(message.flow == raft::Flow::kHold);
  }
  void operator()(const raft::SnapshotOffer& message) const {
    pb::SnapshotOffer* to = out->mutable_snapshot_offer();
    EncodePosition(message.at, to->mutable_at());
    to->set_members(message.members);
  }
  void operator()(const raft::TimeoutNow&) const { out->mutable_timeout_now(); }
  void operator()(const raft::ReadRequest& message) const {
    out->mutable_read_request()->set_number(message.number);
  }
  void operator()(const raft::ReadReply& message) const {
    pb::ReadReply* to = out->mutable_read_reply();
    to->set_number(message.number);
    to->set_index(message.index);
  }
  void operator()(const raft::Removed&) const { out->mutable_removed(); }
};

raft::Vote VoteOf(bool granted) { return granted ? raft::Vote::kGranted : raft::Vote::kDenied; }
raft::Flow FlowOf(bool hold) { return hold ? raft::Flow::kHold : raft::Flow::kOpen; }

raft::AppendReply DecodeAppendReply(const pb::AppendReply& in) {
  raft::AppendReply reply;
  if (in.has_rejected()) {
    reply.verdict = raft::Rejected{.prev = in.rejected().previous(),
                                   .hint = DecodePosition(in.rejected().hint())};
  } else {
    reply.verdict = raft::Accepted{.match = in.match()};
  }
  reply.flow = FlowOf(in.hold());
  return reply;
}

std::optional<raft::Message> DecodeMessage(const pb::Envelope& in) {
  switch (in.message_case()) {
    case pb::Envelope::kPreVoteRequest:
      return raft::PreVoteRequest{.proposed = in.pre_vote_request().proposed(),
                                  .last = DecodePosition(in.pre_vote_request().last())};
    case pb::Envelope::kPreVoteReply:
      return raft::PreVoteReply{.proposed = in.pre_vote_reply().proposed(),
                                .vote = VoteOf(in.pre_vote_reply().granted())};
    case pb::Envelope::kVoteRequest:
      return raft::VoteRequest{
          .last = DecodePosition(in.vote_request().last()),
          .cause = in.vote_request().transfer() ? raft::Cause::kTransfer : raft::Cause::kTimeout};
    case pb::Envelope::kVoteReply:
      return raft::VoteReply{.vote = VoteOf(in.vote_reply().granted())};
    case pb::Envelope::kAppend: {
      raft::Append append{.prev = DecodePosition(in.append().previous()),
                          .entries = {},
                          .commit = in.append().commit()};
      std::optional<std::vector<EntryPtr>> entries = UnpackEntries(append.prev.index, in.append());
      if (!entries) return std::nullopt;
      append.entries = *std::move(entries);
      return append;
    }
    case pb::Envelope::kAppendReply:
      return DecodeAppendReply(in.append_reply());
    case pb::Envelope::kHeartbeat:
      return raft::Heartbeat{.commit = in.heartbeat().commit(), .round = in.heartbeat().round()};
    case pb::Envelope::kHeartbeatReply:
      return raft::HeartbeatReply{.round = in.heartbeat_reply().round(),
                                  .flow = FlowOf(in.heartbeat_reply().hold())};
    case pb::Envelope::kSnapshotOffer:
      return raft::SnapshotOffer{.at = DecodePosition(in.snapshot_offer().at()),
                                 .members = in.snapshot_offer().members()};
    case pb::Envelope::kTimeoutNow:
      return raft::TimeoutNow{};
    case pb::Envelope::kReadRequest:
      return raft::ReadRequest{.number = in.read_request().number()};
    case pb::Envelope::kReadReply:
      return raft::ReadReply{.number = in.read_reply().number(), .index = in.read_reply().index()};
    case pb::Envelope::kRemoved:
      return raft::Removed{};
    case pb::Envelope::MESSAGE_NOT_SET:
      return std::nullopt;
  }
  return std::nullopt;
}

}  // namespace

void EncodeEnvelope(const raft::Envelope& envelope, pb::Envelope* out) {
  out->set_from(envelope.from);
  out->set_to(envelope.to);
  out->set_term(envelope.term);
  std::visit(Encoder{out}, envelope.message);
}

std::optional<raft::Envelope> DecodeEnvelope(const pb::Envelope& in) {
  std::optional<raft::Message> message = DecodeMessage(in);
  if (!message) return std::nullopt;
  return raft::Envelope{
      .from = in.from(), .to = in.to(), .term = in.term(), .message = *std::move(message)};
}

size_t EnvelopeBytes(const raft::Envelope& envelope) {
  size_t bytes = kEnvelopeOverhead;
  if (const auto* append = std::get_if<raft::Append>(&envelope.message)) {
    for (const EntryPtr& entry : append->entries) bytes += kEntryHeader + entry->data.size();
  } else if (const auto* offer = std::get_if<raft::SnapshotOffer>(&envelope.message)) {
    bytes += offer->members.size();
  }
  return bytes;
}

}  // namespace kv

#include "server/raft/describe.h"

#include <variant>

namespace kv::raft {
namespace {

std::string Number(uint64_t value) { return std::to_string(value); }

template <typename Items, typename Text>
std::string Join(const Items& items, std::string_view separator, const Text& text) {
  std::string out;
  for (const auto& item : items) {
    if (!out.empty()) out += separator;
    out += text(item);
  }
  return out;
}

std::string Ids(const std::vector<MemberId>& ids) { return Join(ids, ",", Number); }

std::string Entries(const std::vector<EntryPtr>& entries) {
  return "[" + Join(entries, ", ", [](const EntryPtr& entry) { return Describe(*entry); }) + "]";
}

// Bytes as they are if they can be read, as hexadecimal digits otherwise; long ones by their size.
std::string Data(const std::string& data) {
  constexpr size_t kShown = 64;
  if (data.size() > kShown) return "(" + Number(data.size()) + " bytes)";
  std::string out = "\"";
  for (const char c : data) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\') {
      out += c;
    } else {
      constexpr std::string_view kDigits = "0123456789abcdef";
      out += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return out + "\"";
}

std::string Membership(std::string_view encoded) {
  const std::optional<Members> members = DecodeMembers(encoded);
  return "members(" + (members ? Describe(*members) : std::string("unreadable")) + ")";
}

std::string State(const HardState& state) {
  return "{term=" + Number(state.term) + " vote=" + Number(state.vote) + "}";
}

std::string Verdict(Vote vote) { return vote == Vote::kGranted ? "granted" : "denied"; }

std::string Hold(Flow flow) { return flow == Flow::kHold ? " hold" : ""; }

struct MessageText {
  std::string operator()(const PreVoteRequest& m) const {
    return "pre-vote-request proposed=" + Number(m.proposed) + " last=" + Describe(m.last);
  }
  std::string operator()(const PreVoteReply& m) const {
    return "pre-vote-reply proposed=" + Number(m.proposed) + " " + Verdict(m.vote);
  }
  std::string operator()(const VoteRequest& m) const {
    return "vote-request last=" + Describe(m.last) +
           (m.cause == Cause::kTransfer ? " transfer" : "");
  }
  std::string operator()(const VoteReply& m) const { return "vote-reply " + Verdict(m.vote); }
  std::string operator()(const Append& m) const {
    return "append prev=" + Describe(m.prev) + " entries=" + Entries(m.entries) +
           " commit=" + Number(m.commit);
  }
  std::string operator()(const AppendReply& m) const {
    if (const auto* accepted = std::get_if<Accepted>(&m.verdict)) {
      return "append-reply accepted match=" + Number(accepted->match) + Hold(m.flow);
    }
    const Rejected& rejected = std::get<Rejected>(m.verdict);
    return "append-reply rejected prev=" + Number(rejected.prev) +
           " hint=" + Describe(rejected.hint) + Hold(m.flow);
  }
  std::string operator()(const Heartbeat& m) const {
    return "heartbeat commit=" + Number(m.commit) + " round=" + Number(m.round);
  }
  std::string operator()(const HeartbeatReply& m) const {
    return "heartbeat-reply round=" + Number(m.round) + Hold(m.flow);
  }
  std::string operator()(const SnapshotOffer& m) const {
    return "snapshot-offer at=" + Describe(m.at) + " " + Membership(m.members);
  }
  std::string operator()(const TimeoutNow&) const { return "timeout-now"; }
  std::string operator()(const ReadRequest& m) const {
    return "read-request number=" + Number(m.number);
  }
  std::string operator()(const ReadReply& m) const {
    return "read-reply number=" + Number(m.number) + " index=" + Number(m.index);
  }
  std::string operator()(const Removed&) const { return "removed"; }
};

}  // namespace

std::string Describe(const Position& position) {
  return Number(position.index) + "@" + Number(position.term);
}

std::string Describe(const Entry& entry) {
  const std::string at = Describe(entry.position()) + " ";
  switch (entry.kind) {
    case EntryKind::kEmpty:
      return at + "empty";
    case EntryKind::kCommand:
      return at + Data(entry.data);
    case EntryKind::kMembers:
      return at + Membership(entry.data);
  }
  return at + "kind " + Number(static_cast<uint64_t>(entry.kind));
}

std::string Describe(const Members& members) {
  std::string out = "voters=" + Ids(members.voters);
  if (!members.outgoing.empty()) out += " outgoing=" + Ids(members.outgoing);
  if (!members.learners.empty()) out += " learners=" + Ids(members.learners);
  if (!members.learners_next.empty()) out += " learners_next=" + Ids(members.learners_next);
  if (!members.removed.empty()) out += " removed=" + Ids(members.removed);
  if (!members.records.empty()) {
    out +=
        " records={" +
        Join(members.records, " ",
             [](const auto& record) { return Number(record.first) + ":" + Data(record.second); }) +
        "}";
  }
  return out;
}

std::string Describe(const Message& message) { return std::visit(MessageText{}, message); }

std::string Describe(const Envelope& envelope) {
  return Number(envelope.from) + "->" + Number(envelope.to) + " term=" + Number(envelope.term) +
         " " + Describe(envelope.message);
}

std::string Describe(const Write& write) {
  std::string out = "write #" + Number(write.id);
  if (write.update.hard_state) out += " state=" + State(*write.update.hard_state);
  if (write.update.reset) out += " reset=" + Describe(*write.update.reset);
  if (!write.update.entries.empty()) out += " entries=" + Entries(write.update.entries);
  if (!write.promises.empty()) {
    out += " promises=[" +
           Join(write.promises, ", ", [](const Envelope& envelope) { return Describe(envelope); }) +
           "]";
  }
  return out;
}

std::string Describe(const Output& output) {
  std::string out;
  const auto line = [&out](const std::string& text) { out.append(text).append("\n"); };
  if (output.write) line(Describe(*output.write));
  for (const Envelope& envelope : output.messages) line("send " + Describe(envelope));
  if (!output.committed.empty()) line("committed " + Entries(output.committed));
  for (const ReadGrant& read : output.reads) {
    line("read #" + Number(read.id) + " index=" + Number(read.index));
  }
  for (const ReadId id : output.dropped_reads) line("dropped read #" + Number(id));
  if (!output.need_snapshot.empty()) line("need snapshot " + Ids(output.need_snapshot));
  if (output.adopt)
    line("adopt " + Describe(output.adopt->at) + " " + Membership(output.adopt->members));
  for (const SnapshotOffer& offer : output.refused_snapshots) {
    line("refused snapshot " + Describe(offer.at));
  }
  if (output.drop) line("drop through " + Describe(*output.drop));
  if (output.standing) line("standing " + Describe(*output.standing));
  return out;
}

std::string Describe(const Standing& standing) {
  std::string out(Describe(standing.role));
  out += " term=" + Number(standing.term) + " leader=" + Number(standing.leader);
  if (standing.established) out += " established";
  if (standing.removed) out += " removed";
  if (standing.successor != 0) out += " successor=" + Number(standing.successor);
  out += " commit=" + Number(standing.commit) + " members@" + Number(standing.members_index);
  return out + "{" + Describe(standing.members) + "}" +
         (standing.members_committed ? "" : " uncommitted");
}

std::string Describe(const FollowerStatus& status) {
  std::string out = Number(status.id);
  switch (status.state) {
    case Progress::State::kProbe:
      out += " probe";
      break;
    case Progress::State::kReplicate:
      out += " replicate";
      break;
    case Progress::State::kSnapshot:
      out += " snapshot";
      break;
  }
  out += " match=" + Number(status.match) + " next=" + Number(status.next);
  if (status.in_flight > 0) out += " in_flight=" + Number(status.in_flight);
  return out + (status.active ? "" : " silent") + Hold(status.flow);
}

std::string_view Describe(Role role) {
  switch (role) {
    case Role::kFollower:
      return "follower";
    case Role::kPreCandidate:
      return "pre-candidate";
    case Role::kCandidate:
      return "candidate";
    case Role::kLeader:
      return "leader";
  }
  return "unknown role";
}

std::string_view Describe(ProposeRefusal refusal) {
  switch (refusal) {
    case ProposeRefusal::kNone:
      return "taken";
    case ProposeRefusal::kNotLeader:
      return "not the leader";
    case ProposeRefusal::kTransferring:
      return "the leadership is being handed over";
    case ProposeRefusal::kLogFull:
      return "the log is full until the machine is durable";
  }
  return "unknown refusal";
}

std::string_view Describe(ChangeRefusal refusal) {
  switch (refusal) {
    case ChangeRefusal::kNone:
      return "taken";
    case ChangeRefusal::kNotLeader:
      return "not the leader";
    case ChangeRefusal::kUnderWay:
      return "an earlier change is under way";
    case ChangeRefusal::kNotEstablished:
      return "the leader has not committed an entry of its term yet";
    case ChangeRefusal::kTransferring:
      return "the leadership is being handed over";
    case ChangeRefusal::kNoVoter:
      return "no voter would be left";
    case ChangeRefusal::kUnknownMember:
      return "not a member";
    case ChangeRefusal::kWasRemoved:
      return "a removed member's id is never used again";
    case ChangeRefusal::kNothingChanges:
      return "nothing would change";
    case ChangeRefusal::kInvalid:
      return "the change contradicts itself or exceeds a limit";
    case ChangeRefusal::kTooMany:
      return "too many members";
    case ChangeRefusal::kMoved:
      return "the members changed in the meantime";
    case ChangeRefusal::kInactive:
      return "too few members answer";
    case ChangeRefusal::kNotCaughtUp:
      return "the member's log is too far behind";
  }
  return "unknown refusal";
}

std::string_view Describe(TransferRefusal refusal) {
  switch (refusal) {
    case TransferRefusal::kNone:
      return "under way";
    case TransferRefusal::kNotLeader:
      return "not the leader";
    case TransferRefusal::kUnderWay:
      return "a transfer to another member is under way";
    case TransferRefusal::kNotVoter:
      return "no other voter to hand over to";
  }
  return "unknown refusal";
}

}  // namespace kv::raft

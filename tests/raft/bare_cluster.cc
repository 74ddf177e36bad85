#include "tests/raft/bare_cluster.h"

#include <algorithm>
#include <array>
#include <utility>

#include "server/raft/describe.h"
#include "storage/check.h"

namespace kv::raft {
namespace {

std::vector<std::string> LinesOf(const std::string& text) {
  std::vector<std::string> lines;
  size_t from = 0;
  while (from < text.size()) {
    const size_t end = std::min(text.find('\n', from), text.size());
    if (end > from) lines.push_back(text.substr(from, end - from));
    from = end + 1;
  }
  return lines;
}

BareDisk DiskOf(const BareFounding& founding, HardState hard_state) {
  BareDisk disk;
  disk.hard_state = hard_state;
  disk.base = {.index = 1, .term = 1};
  disk.base_members.voters = founding.voters;
  disk.base_members.learners = founding.learners;
  for (const Term term : founding.log) {
    const Index index = disk.last_index() + 1;
    const char letter = static_cast<char>('a' + (index - 2) % 26);
    disk.entries.push_back(MakeEntry(index, term, EntryKind::kCommand, std::string(1, letter)));
  }
  disk.applied = disk.base;
  disk.applied_members = disk.base_members;
  return disk;
}

}  // namespace

std::string_view KindOf(const Message& message) {
  static constexpr std::array<std::string_view, std::variant_size_v<Message>> kKinds = {
      "pre-vote-request", "pre-vote-reply", "vote-request",    "vote-reply",     "append",
      "append-reply",     "heartbeat",      "heartbeat-reply", "snapshot-offer", "timeout-now",
      "read-request",     "read-reply",     "removed"};
  return kKinds[message.index()];
}

bool BareCluster::Filter::Takes(const Envelope& envelope) const {
  return (from == 0 || from == envelope.from) && (to == 0 || to == envelope.to) &&
         (kind == "*" || kind == KindOf(envelope.message));
}

void BareCluster::Found(const BareFounding& founding) {
  for (const MemberId id : founding.voters) Place(id, founding, {.term = founding.term, .vote = 0});
  for (const MemberId id : founding.learners) {
    Place(id, founding, {.term = founding.term, .vote = 0});
  }
}

void BareCluster::Place(MemberId id, const BareFounding& founding, HardState hard_state) {
  members_.erase(id);
  members_.emplace(id, BareMember(id, options_, DiskOf(founding, hard_state)));
  Restart(id);
}

void BareCluster::PlaceBlank(MemberId id) {
  members_.erase(id);
  members_.emplace(id, BareMember(id, options_, {}));
  Restart(id);
}

std::vector<MemberId> BareCluster::Ids() const {
  std::vector<MemberId> ids;
  for (const auto& [id, member] : members_) ids.push_back(id);
  return ids;
}

void BareCluster::Tick(MemberId id, int times) {
  for (int i = 0; i < times; ++i) {
    core(id).Tick();
    Collect(id);
  }
}

void BareCluster::Campaign(MemberId id) {
  const auto waits = [this, id] { return core(id).standing().role == Role::kFollower; };
  for (int i = 0; i < 2 * options_.election_ticks && waits(); ++i) Tick(id);
}

ProposeResult BareCluster::Propose(MemberId id, std::vector<std::string> commands) {
  const ProposeResult result = core(id).Propose(std::move(commands));
  Trace(id, result.refusal == ProposeRefusal::kNone
                ? "proposed " + Describe(result.first)
                : "refused: " + std::string(Describe(result.refusal)));
  Collect(id);
  return result;
}

ChangeResult BareCluster::Change(MemberId id, const MemberChange& change) {
  const ChangeResult result = core(id).ChangeMembers(change);
  Trace(id, result.refusal == ChangeRefusal::kNone
                ? "changing at " + Describe(result.position) + (result.joint ? " joint" : "")
                : "refused: " + std::string(Describe(result.refusal)));
  Collect(id);
  return result;
}

TransferRefusal BareCluster::Transfer(MemberId id, MemberId to) {
  const TransferRefusal refusal = core(id).TransferLeadership(to);
  Trace(id, refusal == TransferRefusal::kNone ? "handing over"
                                              : "refused: " + std::string(Describe(refusal)));
  Collect(id);
  return refusal;
}

void BareCluster::Read(MemberId id, ReadId read) {
  core(id).Read(read);
  Collect(id);
}

void BareCluster::Step(Envelope envelope) {
  const MemberId to = envelope.to;
  if (!IsRunning(to)) {
    trace_ += std::to_string(to) + "> is down: lost " + Describe(envelope) + "\n";
    return;
  }
  core(to).Step(std::move(envelope));
  Collect(to);
}

void BareCluster::Unreachable(MemberId id, MemberId peer) {
  core(id).Unreachable(peer);
  Collect(id);
}

bool BareCluster::FinishWrite(MemberId id) {
  BareMember& member = members_.at(id);
  if (!member.running() || member.writing().empty()) return false;
  Trace(id, "wrote #" + std::to_string(member.writing().front().id));
  for (const Envelope& promise : member.FinishWrite()) Send(promise);
  Collect(id);
  return true;
}

bool BareCluster::FinishAdoption(MemberId id) {
  BareMember& member = members_.at(id);
  if (!member.running() || !member.adoption()) return false;
  Trace(id, "adopted " + Describe(member.adoption()->at));
  member.FinishAdoption();
  Collect(id);
  return true;
}

bool BareCluster::Apply(MemberId id) {
  BareMember& member = members_.at(id);
  if (!member.running() || member.committed().empty()) return false;
  member.Apply(member.committed().size());
  Collect(id);
  return true;
}

void BareCluster::Flush(MemberId id) {
  members_.at(id).Flush();
  Collect(id);
}

void BareCluster::OfferSnapshot(MemberId from, MemberId to) {
  Send(members_.at(from).TakeSnapshot(to));
}

void BareCluster::FailSnapshot(MemberId from, MemberId to) {
  core(from).SnapshotSent(to, members_.at(from).applied(), false);
  Collect(from);
}

void BareCluster::Crash(MemberId id) {
  BareMember& member = members_.at(id);
  for (const Write& write : member.writing()) Trace(id, "lost write #" + std::to_string(write.id));
  member.Crash();
}

void BareCluster::Restart(MemberId id) {
  members_.at(id).Start((id << 16) + ++lives_[id]);
  Collect(id);
}

size_t BareCluster::CountOnNetwork(const Filter& filter) const {
  return static_cast<size_t>(std::count_if(network_.begin(), network_.end(),
                                           [&filter](const auto& e) { return filter.Takes(e); }));
}

bool BareCluster::Deliver(const Filter& filter) {
  const auto it = std::find_if(network_.begin(), network_.end(),
                               [&filter](const auto& e) { return filter.Takes(e); });
  if (it == network_.end()) return false;
  Envelope envelope = std::move(*it);
  network_.erase(it);
  const SnapshotOffer* offer = std::get_if<SnapshotOffer>(&envelope.message);
  const MemberId sender = envelope.from;
  const MemberId receiver = envelope.to;
  const Position at = offer == nullptr ? Position{} : offer->at;
  const bool arrives = IsRunning(receiver);
  const bool reports = offer != nullptr && IsRunning(sender);
  Step(std::move(envelope));
  if (reports) {
    core(sender).SnapshotSent(receiver, at, arrives);
    Collect(sender);
  }
  return true;
}

size_t BareCluster::DeliverAll(const Filter& filter) {
  size_t count = CountOnNetwork(filter);
  for (size_t i = 0; i < count; ++i) Deliver(filter);
  return count;
}

bool BareCluster::Drop(const Filter& filter) {
  const auto it = std::find_if(network_.begin(), network_.end(),
                               [&filter](const auto& e) { return filter.Takes(e); });
  if (it == network_.end()) return false;
  network_.erase(it);
  return true;
}

size_t BareCluster::DropAll(const Filter& filter) {
  return std::erase_if(network_, [&filter](const auto& e) { return filter.Takes(e); });
}

bool BareCluster::Copy(const Filter& filter) {
  const auto it = std::find_if(network_.begin(), network_.end(),
                               [&filter](const auto& e) { return filter.Takes(e); });
  if (it == network_.end()) return false;
  Envelope copy = *it;
  network_.push_back(std::move(copy));
  return true;
}

void BareCluster::Isolate(MemberId id) {
  for (const auto& [other, member] : members_) {
    if (other == id) continue;
    Cut(id, other);
    Cut(other, id);
  }
}

void BareCluster::Settle(std::vector<MemberId> ids) {
  if (ids.empty()) ids = Ids();
  const auto among = [&ids](MemberId id) {
    return std::find(ids.begin(), ids.end(), id) != ids.end();
  };
  for (int rounds = 0;; ++rounds) {
    KV_CHECK(rounds < 10'000, "the members never come to rest");
    bool moved = false;
    for (const MemberId id : ids) {
      if (!IsRunning(id)) continue;
      while (!held_writes_.contains(id) && FinishWrite(id)) moved = true;
      while (!held_machines_.contains(id) && FinishAdoption(id)) moved = true;
    }
    // What is there now; what it brings about is for the next round.
    const size_t count = network_.size();
    std::vector<Filter> due;
    for (size_t i = 0; i < count; ++i) {
      const Envelope& e = network_[i];
      if (among(e.from) && among(e.to)) {
        due.push_back({.from = e.from, .to = e.to, .kind = std::string(KindOf(e.message))});
      }
    }
    for (const Filter& filter : due) moved = Deliver(filter) || moved;
    if (!moved) return;
  }
}

void BareCluster::Elect(MemberId id) {
  // Nobody votes against a leader that it hears from: let them all miss it first.
  for (const MemberId other : Ids()) {
    if (other == id || !IsRunning(other) || core(other).standing().leader == 0) continue;
    Tick(other, options_.election_ticks);
  }
  DropAll({});
  Campaign(id);
  Settle();
}

std::string BareCluster::TakeTrace() { return std::exchange(trace_, {}); }

void BareCluster::Collect(MemberId id) {
  BareMember& member = members_.at(id);
  member.core().CheckInvariants();
  Output output = member.Take();
  Record& record = records_[id];
  const auto keep = [](auto& all, const auto& more) {
    all.insert(all.end(), more.begin(), more.end());
  };
  keep(record.reads, output.reads);
  keep(record.dropped_reads, output.dropped_reads);
  keep(record.need_snapshot, output.need_snapshot);
  keep(record.refused_snapshots, output.refused_snapshots);
  keep(record.committed, output.committed);
  if (output.standing) record.standings.push_back(*output.standing);
  const std::vector<Envelope> messages = std::exchange(output.messages, {});
  for (const std::string& line : LinesOf(Describe(output))) Trace(id, line);
  for (const Envelope& envelope : messages) Send(envelope);
  if (!held_machines_.contains(id)) Apply(id);
}

void BareCluster::Send(const Envelope& envelope) {
  const bool lost = IsCut(envelope.from, envelope.to);
  trace_ += Describe(envelope) + (lost ? "   (lost)\n" : "\n");
  records_[envelope.from].sent.push_back(envelope);
  if (!lost) network_.push_back(envelope);
}

void BareCluster::Trace(MemberId id, const std::string& line) {
  trace_ += std::to_string(id) + "> " + line + "\n";
}

}  // namespace kv::raft

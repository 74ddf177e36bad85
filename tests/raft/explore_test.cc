// Random schedules of bare cores. Everything that may go wrong around a core does: messages are
// lost, repeated and reordered, links are cut one way or both, writes hang and finish late, members
// crash and lose what was not synced, outputs are taken late, snapshots fail or arrive twice,
// memberships change under way. After every step the laws below are checked; at the end everything
// is healed and the members must come to rest.
//
// KVD_SEED=N runs the one schedule N. KVD_FIRST_SEED=N begins elsewhere. KVD_STEPS=N sets how many
// steps are taken in all. A failure prints the seed, the step and the events before it.
#include <algorithm>
#include <array>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <regex>
#include <set>
#include <utility>

#include "server/raft/describe.h"
#include "storage/check.h"
#include "storage/mark.h"
#include "tests/raft/bare_member.h"

namespace kv::raft {
namespace {

// What one run draws from its seed: some runs are calm, some are mad, some lack one kind of fault,
// so that no fault always hides what another would show.
struct Swarm {
  Options options;
  int voters = 3;
  int learners = 0;
  uint64_t loss = 0;                   // Percent of the messages sent.
  uint64_t repeats = 0;                // Percent of the messages delivered.
  uint64_t disorder = 0;               // Percent of the deliveries that do not take the oldest.
  uint64_t late_outputs = 0;           // Percent of the inputs whose output is taken later.
  uint64_t late_news = 0;              // Percent of the writes whose end the core hears of later.
  uint64_t snapshot_failures = 0;      // Percent.
  std::array<uint64_t, 19> weights{};  // By Action.
};

enum Action : uint8_t {
  kDeliver,
  kTick,
  kWrite,
  kCollect,
  kApply,
  kAdopt,
  kPropose,
  kRead,
  kFlush,
  kSnapshot,
  kChange,
  kTransfer,
  kCrash,
  kRestart,
  kCut,
  kHeal,
  kUnreachable,
  kReplay,
  kSilence,
};

Swarm DrawSwarm(SplitMix64& chance) {
  Swarm swarm;
  swarm.voters = static_cast<int>(1 + chance.Below(5));
  swarm.learners = static_cast<int>(chance.Below(3));
  swarm.options.election_ticks = static_cast<int>(3 + chance.Below(6));
  swarm.options.heartbeat_ticks = static_cast<int>(1 + chance.Below(2));
  static constexpr std::array<uint64_t, 4> kAppendBytes = {1, 1, 200, uint64_t{1} << 20};
  static constexpr std::array<size_t, 4> kInflight = {1, 1, 2, 64};
  swarm.options.max_append_bytes = kAppendBytes[chance.Below(4)];
  swarm.options.max_inflight_appends = kInflight[chance.Below(4)];
  const uint64_t entry = EntryBytes(*MakeEntry(1, 1, EntryKind::kCommand, "12345678"));
  static constexpr std::array<uint64_t, 4> kLogEntries = {4, 8, 30, 10'000};
  swarm.options.max_log_bytes = entry * kLogEntries[chance.Below(4)];
  swarm.loss = chance.Below(2) == 0 ? 0 : chance.Below(30);
  swarm.repeats = chance.Below(2) == 0 ? 0 : chance.Below(50);
  swarm.disorder = chance.Below(3) == 0 ? 0 : chance.Below(100);
  swarm.late_outputs = chance.Below(2) == 0 ? 0 : chance.Below(70);
  swarm.late_news = chance.Below(2) == 0 ? 0 : chance.Below(70);
  swarm.snapshot_failures = chance.Below(60);
  const auto sometimes = [&chance](uint64_t most) {
    const bool never = chance.Below(4) == 0;
    const uint64_t drawn = 1 + chance.Below(most);
    return never ? 0 : drawn;
  };
  swarm.weights[kDeliver] = 400;
  swarm.weights[kTick] = 20 + chance.Below(150);
  swarm.weights[kWrite] = 40 + chance.Below(300);
  swarm.weights[kCollect] = 100;
  swarm.weights[kApply] = 20 + chance.Below(100);
  swarm.weights[kAdopt] = 5 + chance.Below(50);
  swarm.weights[kPropose] = 10 + chance.Below(80);
  swarm.weights[kRead] = sometimes(40);
  swarm.weights[kFlush] = sometimes(40);
  swarm.weights[kSnapshot] = 5 + chance.Below(60);
  swarm.weights[kChange] = sometimes(10);
  swarm.weights[kTransfer] = sometimes(6);
  swarm.weights[kCrash] = sometimes(10);
  swarm.weights[kRestart] = 8 + chance.Below(30);
  swarm.weights[kCut] = sometimes(10);
  swarm.weights[kHeal] = 2 + chance.Below(12);
  swarm.weights[kUnreachable] = sometimes(6);
  swarm.weights[kReplay] = sometimes(10);
  swarm.weights[kSilence] = sometimes(8);
  return swarm;
}

// Sees everything, survives every crash, and knows the laws that hold between members.
class Recorder {
 public:
  // §3.6.3, log matching: a position names one entry, and one entry before it.
  void SawEntry(const Entry& entry, Term term_before) {
    const auto [it, fresh] = entries_.try_emplace(entry.position(), entry.checksum, term_before);
    if (fresh) return;
    KV_CHECK(it->second.first == entry.checksum, "two entries at " + Describe(entry.position()));
    KV_CHECK(it->second.second == term_before, "two entries before " + Describe(entry.position()));
  }
  // §3.4: at most one leader in a term.
  void SawLeader(MemberId id, Term term) {
    const auto [it, fresh] = leaders_.try_emplace(term, id);
    KV_CHECK(it->second == id, "two leaders in term " + std::to_string(term));
  }
  // §3.4: at most one vote of a member in a term, whatever it forgot.
  void SawDurableVote(MemberId id, HardState state) {
    if (state.vote == 0) return;
    const auto [it, fresh] = votes_.try_emplace({id, state.term}, state.vote);
    KV_CHECK(it->second == state.vote,
             std::to_string(id) + " voted twice in term " + std::to_string(state.term));
  }
  // §3.6.3: what is committed never changes.
  void SawCommitted(const EntryPtr& entry) {
    const Index index = entry->index;
    if (index > last_committed()) {
      KV_CHECK(index == last_committed() + 1, "a gap in what is committed");
      committed_.push_back(entry);
      if (entry->kind == EntryKind::kMembers) configurations_[index] = MembersOf(*entry);
      return;
    }
    KV_CHECK(*entry == *Committed(index), "what was committed changed at " + Describe(*entry));
  }
  void Begin(Position base, const Members& members) {
    base_ = base;
    configurations_[base.index] = members;
  }
  Index last_committed() const { return base_.index + committed_.size(); }
  const EntryPtr& Committed(Index index) const { return committed_[index - base_.index - 1]; }
  Term CommittedTerm(Index index) const {
    return index <= base_.index ? base_.term : Committed(index)->term;
  }
  const Members& ConfigurationAt(Index index) const {
    return std::prev(configurations_.upper_bound(index))->second;
  }

 private:
  Position base_;
  std::map<Position, std::pair<uint32_t, Term>> entries_;
  std::map<Term, MemberId> leaders_;
  std::map<std::pair<MemberId, Term>, MemberId> votes_;
  std::vector<EntryPtr> committed_;
  std::map<Index, Members> configurations_;
};

bool IsPromise(const Message& message) {
  if (std::holds_alternative<VoteRequest>(message)) return true;
  if (const auto* reply = std::get_if<VoteReply>(&message)) return reply->vote == Vote::kGranted;
  if (const auto* reply = std::get_if<AppendReply>(&message)) {
    return std::holds_alternative<Accepted>(reply->verdict);
  }
  return false;
}

class World {
 public:
  World(uint64_t seed, std::deque<std::string>* trace)
      : chance_(seed), swarm_(DrawSwarm(chance_)), trace_(trace) {
    BareDisk disk;
    disk.base = {.index = 1, .term = 1};
    disk.hard_state = {.term = 1, .vote = 0};
    for (int i = 0; i < swarm_.voters; ++i) disk.base_members.voters.push_back(NextId());
    for (int i = 0; i < swarm_.learners; ++i) disk.base_members.learners.push_back(NextId());
    disk.applied = disk.base;
    disk.applied_members = disk.base_members;
    recorder_.Begin(disk.base, disk.base_members);
    for (const MemberId id : disk.base_members.All()) Make(id, disk);
  }

  void Run(uint64_t steps) {
    uint64_t total = 0;
    for (const uint64_t weight : swarm_.weights) total += weight;
    for (step_ = 0; step_ < steps; ++step_) {
      uint64_t drawn = chance_.Below(total);
      size_t action = 0;
      while (drawn >= swarm_.weights[action]) drawn -= swarm_.weights[action++];
      Act(static_cast<Action>(action));
    }
    ComeToRest();
  }

  uint64_t step() const { return step_; }
  std::string Describe_() const {
    std::string text;
    for (const auto& [id, node] : nodes_) {
      text += node.member.running() ? Describe(node.member.core().standing())
                                    : std::to_string(id) + " is down";
      text += "\n";
    }
    return text;
  }

 private:
  struct Node {
    BareMember member;
    uint64_t life = 0;
    // Of this life, as last checked.
    Term term = 0;
    Index commit = 0;
    bool led = false;
    Position base{};
    Position last{};
  };
  struct Transfer {
    Envelope envelope;
    uint64_t life = 0;  // Of the sender.
  };

  MemberId NextId() { return ++ids_; }

  void Note(const std::function<std::string()>& text) {
    if (trace_ == nullptr) return;
    trace_->push_back("step " + std::to_string(step_) + ": " + text());
    if (trace_->size() > 40) trace_->pop_front();
  }

  void Make(MemberId id, const BareDisk& disk) {
    const auto at = nodes_.emplace(id, Node{.member = BareMember(id, swarm_.options, disk)}).first;
    Start(at->second);
  }
  void Start(Node& node) {
    node.member.Start(chance_.Next());
    ++node.life;
    node.term = node.member.core().term();
    node.commit = node.member.core().commit();
    node.led = false;
    node.base = {};
    node.last = {};
    After(node);
  }

  // A member that runs, or nothing.
  Node* DrawRunning() {
    const uint64_t at = chance_.Below(nodes_.size());
    Node& node = std::next(nodes_.begin(), static_cast<std::ptrdiff_t>(at))->second;
    return node.member.running() ? &node : nullptr;
  }
  Node* DrawLeader() {
    if (chance_.Below(10) == 0) return DrawRunning();  // Ask somebody who must refuse.
    Node* best = nullptr;
    for (auto& [id, node] : nodes_) {
      if (node.member.running() && node.member.core().standing().role == Role::kLeader) {
        if (best == nullptr || chance_.Below(2) == 0) best = &node;
      }
    }
    return best;
  }

  void Act(Action action) {
    switch (action) {
      case kDeliver:
        return ActDeliver();
      case kSnapshot:
        return ActSnapshot();
      case kCrash:
        return ActCrash();
      case kRestart:
        return ActRestart();
      case kCut:
        return ActCut();
      case kHeal:
        cuts_.clear();
        return;
      case kReplay:
        return ActReplay();
      case kSilence:
        return ActSilence();
      case kPropose:
      case kChange:
      case kTransfer:
        if (Node* node = DrawLeader()) ActOnLeader(*node, action);
        return;
      default:
        if (Node* node = DrawRunning()) ActOn(*node, action);
    }
  }

  void ActOn(Node& node, Action action) {
    BareMember& member = node.member;
    switch (action) {
      case kTick:
        Note([&] { return "tick " + std::to_string(member.id()); });
        member.core().Tick();
        break;
      case kWrite:
        return FinishWrite(node);
      case kCollect:
        return Collect(node);
      case kApply:
        if (member.committed().empty()) return;
        member.Apply(1 + chance_.Below(4));
        break;
      case kAdopt:
        if (!member.adoption()) return;
        Note([&] { return std::to_string(member.id()) + " adopts"; });
        member.FinishAdoption();
        break;
      case kRead: {
        const ReadId read = ++reads_;
        Note([&] { return std::to_string(member.id()) + " reads " + std::to_string(read); });
        open_reads_[read] = recorder_.last_committed();
        member.core().Read(read);
        break;
      }
      case kFlush:
        Note([&] { return std::to_string(member.id()) + " flushes"; });
        member.Flush();
        break;
      case kUnreachable: {
        const MemberId peer = 1 + chance_.Below(ids_);
        if (peer == member.id()) return;
        member.core().Unreachable(peer);
        break;
      }
      default:
        return;
    }
    After(node);
  }

  void ActOnLeader(Node& node, Action action) {
    Core& core = node.member.core();
    if (action == kPropose) {
      std::vector<std::string> commands(1 + chance_.Below(3));
      for (std::string& command : commands) command = std::to_string(++commands_);
      const ProposeResult result = core.Propose(std::move(commands));
      Note([&] {
        return std::to_string(node.member.id()) +
               " proposes: " + std::string(Describe(result.refusal)) + " " + Describe(result.first);
      });
    } else if (action == kTransfer) {
      const MemberId to = chance_.Below(ids_ + 1);
      const TransferRefusal refusal = core.TransferLeadership(to);
      Note([&] {
        return std::to_string(node.member.id()) + " hands over to " + std::to_string(to) + ": " +
               std::string(Describe(refusal));
      });
    } else {
      Change(node);
    }
    After(node);
  }

  void Change(Node& node) {
    const Members& members = node.member.core().members();
    MemberChange change;
    std::vector<MemberId> fresh;
    const uint64_t count = 1 + chance_.Below(3);
    for (uint64_t i = 0; i < count; ++i) {
      MemberTarget target;
      const std::vector<MemberId> all = members.All();
      if (all.empty() || (nodes_.size() + fresh.size() < 9 && chance_.Below(2) == 0)) {
        target.id = NextId();
        fresh.push_back(target.id);
        target.fate = chance_.Below(2) == 0 ? MemberFate::kVoter : MemberFate::kLearner;
      } else {
        target.id = all[chance_.Below(all.size())];
        target.fate = static_cast<MemberFate>(chance_.Below(3));
      }
      change.targets.push_back(target);
    }
    const ChangeResult result = node.member.core().ChangeMembers(change);
    Note([&] {
      return std::to_string(node.member.id()) +
             " changes members: " + std::string(Describe(result.refusal)) + " " +
             Describe(result.position);
    });
    if (result.refusal != ChangeRefusal::kNone) return;
    for (const MemberId id : fresh) Make(id, {});
  }

  void ActDeliver() {
    if (network_.empty()) return;
    const bool any = chance_.Below(100) < swarm_.disorder;
    const size_t at = any ? chance_.Below(network_.size()) : 0;
    Envelope envelope = network_[at];
    const bool keep = chance_.Below(100) < swarm_.repeats;
    if (!keep) {
      network_.erase(network_.begin() + static_cast<std::ptrdiff_t>(at));
    } else if (chance_.Below(2) == 0) {
      std::rotate(network_.begin() + static_cast<std::ptrdiff_t>(at),
                  network_.begin() + static_cast<std::ptrdiff_t>(at) + 1, network_.end());
    }
    Receive(std::move(envelope));
  }

  void Receive(Envelope envelope) {
    const auto it = nodes_.find(envelope.to);
    if (it == nodes_.end() || !it->second.member.running()) return;
    if (cuts_.contains({envelope.from, envelope.to})) return;
    Note([&] { return "deliver " + Describe(envelope); });
    it->second.member.core().Step(std::move(envelope));
    After(it->second);
  }

  void ActSnapshot() {
    if (!wanted_.empty() && chance_.Below(2) == 0) {
      const auto [from, to] = wanted_.front();
      wanted_.pop_front();
      BeginTransfer(from, to);
      return;
    }
    if (transfers_.empty()) return;
    const size_t at = chance_.Below(transfers_.size());
    const Transfer transfer = transfers_[at];
    transfers_.erase(transfers_.begin() + static_cast<std::ptrdiff_t>(at));
    EndTransfer(transfer, chance_.Below(100) >= swarm_.snapshot_failures);
  }

  void BeginTransfer(MemberId from, MemberId to) {
    Node& node = nodes_.at(from);
    if (!node.member.running()) return;
    transfers_.push_back({.envelope = node.member.TakeSnapshot(to), .life = node.life});
    Note([&] { return "begin " + Describe(transfers_.back().envelope); });
  }

  void EndTransfer(const Transfer& transfer, bool wanted) {
    const MemberId from = transfer.envelope.from;
    const MemberId to = transfer.envelope.to;
    const Position at = std::get<SnapshotOffer>(transfer.envelope.message).at;
    Node& receiver = nodes_.at(to);
    const bool delivered = wanted && receiver.member.running() && !cuts_.contains({from, to});
    if (delivered) {
      Receive(transfer.envelope);
      if (chance_.Below(5) == 0) delivered_offers_.push_back(transfer.envelope);
    }
    Node& sender = nodes_.at(from);
    if (!sender.member.running() || sender.life != transfer.life) return;
    Note([&] {
      return std::to_string(from) + " hears that the snapshot " + Describe(at) + " to " +
             std::to_string(to) + (delivered ? " arrived" : " failed");
    });
    sender.member.core().SnapshotSent(to, at, delivered);
    After(sender);
  }

  // A snapshot that was delivered once arrives again, much later.
  void ActReplay() {
    if (delivered_offers_.empty()) return;
    const Envelope envelope = delivered_offers_[chance_.Below(delivered_offers_.size())];
    if (delivered_offers_.size() > 4) delivered_offers_.erase(delivered_offers_.begin());
    Receive(envelope);
  }

  // Often just a leader, with something half done: that is where it hurts.
  Node* DrawVictim() { return chance_.Below(2) == 0 ? DrawRunning() : DrawLeader(); }

  // Everybody else hears nothing for an election timeout; what is under way stays so.
  void ActSilence() {
    const Node* leader = DrawLeader();
    if (leader == nullptr) return;
    Note([&] { return "silence of " + std::to_string(leader->member.id()); });
    for (auto& [id, node] : nodes_) {
      if (&node == leader || !node.member.running()) continue;
      for (int i = 0; i < swarm_.options.election_ticks; ++i) node.member.core().Tick();
      After(node);
    }
  }

  void ActCrash() {
    Node* node = DrawVictim();
    if (node == nullptr) return;
    // Some of what was under way may have reached the disk without anybody hearing of it.
    while (!node->member.writing().empty() && chance_.Below(3) == 0) {
      node->member.WriteUnheard();
      recorder_.SawDurableVote(node->member.id(), node->member.disk().hard_state);
    }
    Note([&] { return "crash " + std::to_string(node->member.id()); });
    node->member.Crash();
  }

  void ActRestart() {
    const uint64_t at = chance_.Below(nodes_.size());
    Node& node = std::next(nodes_.begin(), static_cast<std::ptrdiff_t>(at))->second;
    if (node.member.running()) return;
    Note([&] { return "restart " + std::to_string(node.member.id()); });
    Start(node);
  }

  void ActCut() {
    const Node* victim = DrawVictim();
    if (victim == nullptr) return;
    const MemberId one = victim->member.id();
    if (chance_.Below(2) == 0) {
      const MemberId other = 1 + chance_.Below(ids_);
      cuts_.insert({one, other});
      return;
    }
    for (const auto& [id, node] : nodes_) {
      cuts_.insert({one, id});
      cuts_.insert({id, one});
    }
  }

  void HearOfWrites(Node& node) {
    Note([&] { return std::to_string(node.member.id()) + " hears of its writes"; });
    node.member.HearOfWrites();
    After(node);
  }

  void FinishWrite(Node& node) {
    BareMember& member = node.member;
    if (member.has_unheard() && chance_.Below(2) == 0) return HearOfWrites(node);
    if (member.writing().empty()) return;
    const HardState before = member.disk().hard_state;
    Note([&] {
      return std::to_string(member.id()) + " finishes " + Describe(member.writing().front());
    });
    const bool late = chance_.Below(100) < swarm_.late_news;
    const std::vector<Envelope> promises = late ? member.SyncWrite() : member.FinishWrite();
    const HardState now = member.disk().hard_state;
    // §3.8: on disk too, the term never goes back, and a vote is given once in it.
    KV_CHECK(now.term >= before.term, "the term on disk went back");
    KV_CHECK(now.term > before.term || before.vote == 0 || now.vote == before.vote,
             "the vote on disk changed within its term");
    recorder_.SawDurableVote(member.id(), now);
    for (const Envelope& promise : promises) CheckPromise(member, promise);
    for (const Envelope& promise : promises) Send(promise);
    After(node);
  }

  // What a member says of its disk is true when it says it.
  static void CheckPromise(const BareMember& member, const Envelope& promise) {
    const BareDisk& disk = member.disk();
    if (!IsPromise(promise.message)) return;
    KV_CHECK(disk.hard_state.term >= promise.term, "a promise of a term that is not durable");
    if (std::holds_alternative<VoteReply>(promise.message)) {
      KV_CHECK(disk.hard_state.vote == promise.to, "a vote that is not durable");
    } else if (std::holds_alternative<VoteRequest>(promise.message)) {
      KV_CHECK(disk.hard_state.vote == member.id(), "a candidacy that is not durable");
    } else {
      const Index match = std::get<Accepted>(std::get<AppendReply>(promise.message).verdict).match;
      KV_CHECK(disk.last_index() >= match, "an acknowledgement of what is not durable");
    }
  }

  void Send(const Envelope& envelope) {
    ++sent_;
    const bool lost = chance_.Below(100) < swarm_.loss;
    if (lost || cuts_.contains({envelope.from, envelope.to})) return;
    network_.push_back(envelope);
    // A network that forgets nothing would drown in repeats.
    if (network_.size() > 300) {
      network_.erase(network_.begin() + static_cast<std::ptrdiff_t>(chance_.Below(300)));
    }
  }

  // After every input: the laws; then the output, now or later.
  void After(Node& node) {
    Check(node);
    if (chance_.Below(100) >= swarm_.late_outputs) Collect(node);
  }

  void Collect(Node& node) {
    BareMember& member = node.member;
    Output output = member.Take();
    Check(node);
    for (const Envelope& envelope : output.messages) {
      CheckPromise(member, envelope);  // True already, or it would wait for a write.
      KV_CHECK(envelope.from == member.id());
      Send(envelope);
    }
    if (output.write) {
      KV_CHECK(output.write->id == member.writing().back().id);
      CheckWritten(member, *output.write);
    }
    for (const EntryPtr& entry : output.committed) {
      KV_CHECK(entry->index <= recorder_.last_committed(), "given out before it was committed");
      recorder_.SawCommitted(entry);
      KV_CHECK(member.disk().Holds(entry->position()), "given out before it was durable here");
    }
    for (const ReadGrant& grant : output.reads) {
      const auto read = open_reads_.find(grant.id);
      KV_CHECK(read != open_reads_.end(), "a read is answered twice");
      KV_CHECK(grant.index >= read->second,
               "read " + std::to_string(grant.id) + " misses what was committed before it began");
      KV_CHECK(grant.index <= recorder_.last_committed());
      open_reads_.erase(read);
    }
    for (const ReadId id : output.dropped_reads) {
      KV_CHECK(open_reads_.erase(id) == 1, "a read is answered twice");
    }
    for (const MemberId to : output.need_snapshot) wanted_.emplace_back(member.id(), to);
    if (output.standing) {
      KV_CHECK(output.standing->self == member.id());
      KV_CHECK(output.standing->term == member.core().term());
      KV_CHECK(output.standing->role == member.core().standing().role);
    }
  }

  // Log matching, by induction over what every member ever wrote.
  void CheckWritten(const BareMember& member, const Write& write) {
    for (const EntryPtr& entry : write.update.entries) {
      const std::optional<Term> before = member.core().log().TermAt(entry->index - 1);
      KV_CHECK(before, "an entry without one before it");
      recorder_.SawEntry(*entry, *before);
      KV_CHECK(ChecksumHolds(*entry));
    }
  }

  void Check(Node& node) {
    const Core& core = node.member.core();
    core.CheckInvariants();
    KV_CHECK(core.term() >= node.term, "the term went back");
    KV_CHECK(core.term() >= node.member.disk().hard_state.term);
    node.term = core.term();
    CheckMembership(node);
    const bool leads = core.standing().role == Role::kLeader;
    if (leads) {
      recorder_.SawLeader(core.self(), core.term());
      if (!node.led) CheckComplete(core);
    }
    node.led = leads;
    CheckCommit(node, leads);
  }

  // The configuration in force is the last one in the log.
  void CheckMembership(Node& node) {
    const Core& core = node.member.core();
    const Log& log = core.log();
    if (log.base() == node.base && log.last() == node.last) return;
    node.base = log.base();
    node.last = log.last();
    Index index = log.last_index();
    while (index > log.base().index && log.At(index)->kind != EntryKind::kMembers) --index;
    if (index > log.base().index) {
      KV_CHECK(core.members() == MembersOf(*log.At(index)),
               "not the last configuration in the log");
      KV_CHECK(log.members_index() == index);
    } else if (index > 0) {
      KV_CHECK(core.members() == recorder_.ConfigurationAt(index), "not the base's configuration");
    } else {
      KV_CHECK(core.members() == Members{});
    }
  }

  // §3.6.3, leader completeness: a leader holds everything that is committed.
  void CheckComplete(const Core& leader) {
    const Log& log = leader.log();
    KV_CHECK(log.last_index() >= recorder_.last_committed(), "a leader lacks committed entries");
    for (Index i = log.base().index; i <= recorder_.last_committed(); ++i) {
      if (i == 0) continue;
      KV_CHECK(log.TermAt(i) == recorder_.CommittedTerm(i), "a leader lacks a committed entry");
    }
  }

  void CheckCommit(Node& node, bool leads) {
    const Core& core = node.member.core();
    KV_CHECK(core.commit() >= node.commit, "the commit index went back");
    KV_CHECK(core.applied() <= core.commit());
    if (core.commit() == node.commit) return;
    if (leads && core.commit() > recorder_.last_committed()) {
      for (Index i = recorder_.last_committed() + 1; i <= core.commit(); ++i) {
        recorder_.SawCommitted(core.log().At(i));
      }
      CheckDurable(core);
      for (const auto& [id, other] : nodes_) {
        if (other.member.running() && other.member.core().term() > core.term() &&
            other.member.core().standing().role == Role::kLeader) {
          CheckComplete(other.member.core());
        }
      }
    }
    KV_CHECK(core.commit() <= recorder_.last_committed(), "a follower commits on its own");
    for (Index i = std::max(node.commit, core.log().base().index); i <= core.commit(); ++i) {
      if (i == 0) continue;
      KV_CHECK(core.log().TermAt(i) == recorder_.CommittedTerm(i), "commits another entry");
    }
    node.commit = core.commit();
  }

  // What a leader commits is on the disks of a quorum of the configuration in force.
  void CheckDurable(const Core& leader) {
    const Position at{.index = leader.commit(), .term = recorder_.CommittedTerm(leader.commit())};
    KV_CHECK(at.term == leader.term(), "an entry of an earlier term is committed by counting");
    KV_CHECK(IsQuorum(leader.members(),
                      [&](MemberId id) {
                        const auto it = nodes_.find(id);
                        if (it == nodes_.end()) return false;
                        const BareDisk& disk = it->second.member.disk();
                        return disk.Holds(at) || disk.base.index > at.index;
                      }),
             "committed " + Describe(at) + " without being durable on a quorum");
  }

  // ---- The end: no more faults.

  void ComeToRest() {
    Note([] { return "all faults end"; });
    cuts_.clear();
    swarm_.loss = 0;
    swarm_.repeats = 0;
    swarm_.late_outputs = 0;
    for (auto& [id, node] : nodes_) {
      if (!node.member.running()) Start(node);
    }
    for (auto& [id, node] : nodes_) Collect(node);
    Node* leader = nullptr;
    const int patience = 10 * swarm_.options.election_ticks * 2;
    for (int i = 0; i < patience && leader == nullptr; ++i) {
      Round();
      leader = EstablishedLeader();
    }
    KV_CHECK(leader != nullptr, "no leader within ten election timeouts\n" + Describe_());
    Index marker = 0;
    for (int i = 0; i < patience && marker == 0; ++i) {
      Round();
      leader = EstablishedLeader();
      if (leader == nullptr) continue;
      const ProposeResult result = leader->member.core().Propose({"the end"});
      if (result.refusal == ProposeRefusal::kNone) marker = result.first.index;
      After(*leader);
    }
    KV_CHECK(marker != 0, "the leader takes no proposals\n" + Describe_());
    bool rested = false;
    for (int i = 0; i < 2 * patience && !rested; ++i) {
      Round();
      rested = IsAtRest(marker);
    }
    KV_CHECK(rested, "the members do not come to rest\n" + Describe_());
    CheckIdle();
  }

  // Every member ticks once; then everything that this brings about happens, in order.
  void Round() {
    ++step_;
    for (auto& [id, node] : nodes_) {
      Note([&, member = id] { return "tick " + std::to_string(member); });
      node.member.core().Tick();
      After(node);
      node.member.Flush();
      After(node);
    }
    bool moved = true;
    for (int passes = 0; moved; ++passes) {
      KV_CHECK(passes < 5'000, "a storm of messages within one tick");
      moved = !network_.empty();
      for (size_t count = network_.size(); count > 0; --count) {
        Envelope envelope = network_.front();
        network_.erase(network_.begin());
        Receive(std::move(envelope));
      }
      for (; !wanted_.empty(); wanted_.pop_front()) {
        BeginTransfer(wanted_.front().first, wanted_.front().second);
      }
      for (const Transfer& transfer : std::exchange(transfers_, {})) EndTransfer(transfer, true);
      for (auto& [id, node] : nodes_) moved = Advance(node) || moved;
    }
  }
  bool Advance(Node& node) {
    bool moved = false;
    while (!node.member.writing().empty() || node.member.has_unheard()) {
      if (node.member.has_unheard()) HearOfWrites(node);
      FinishWrite(node);
      moved = true;
    }
    if (node.member.adoption()) {
      node.member.FinishAdoption();
      After(node);
      moved = true;
    }
    if (!node.member.committed().empty()) {
      node.member.Apply(node.member.committed().size());
      After(node);
      moved = true;
    }
    return moved;
  }

  Node* EstablishedLeader() {
    Node* leader = nullptr;
    for (auto& [id, node] : nodes_) {
      const Standing& standing = node.member.core().standing();
      if (standing.established && (leader == nullptr || standing.term > leader->term)) {
        leader = &node;
      }
    }
    return leader;
  }

  bool IsAtRest(Index marker) {
    Node* leader = EstablishedLeader();
    if (leader == nullptr || recorder_.last_committed() < marker) return false;
    const Members& members = leader->member.core().members();
    if (members.IsJoint() || !leader->member.core().standing().members_committed) return false;
    if (!members.IsVoter(leader->member.id())) return false;
    for (const MemberId id : members.All()) {
      const BareMember& member = nodes_.at(id).member;
      if (member.applied().index < recorder_.last_committed() || !member.writing().empty()) {
        return false;
      }
      if (member.core().standing().leader != leader->member.id()) return false;
    }
    return true;
  }

  // Whose addition was cut from every log but its own asks for pre-votes once a timeout, in vain,
  // until somebody ends it: nobody knows that it exists.
  uint64_t PreVotesOfStrangers(const Node& leader, int rounds) {
    uint64_t messages = 0;
    for (const auto& [id, node] : nodes_) {
      if (!node.member.running() || leader.member.core().members().IsMember(id)) continue;
      const auto timeouts = static_cast<uint64_t>(rounds / swarm_.options.election_ticks + 1);
      messages += 2 * node.member.core().members().All().size() * timeouts;
    }
    return messages;
  }

  // R10, R11, R12, R37, R47: at rest nothing happens but heartbeats, their replies, and that.
  void CheckIdle() {
    for (int i = 0; i < 5 * swarm_.options.election_ticks; ++i) Round();
    const Node* leader = EstablishedLeader();
    KV_CHECK(leader != nullptr);
    const Term term = leader->member.core().term();
    const Index last = leader->member.core().log().last_index();
    const uint64_t before = sent_;
    const int rounds = 6 * swarm_.options.election_ticks;
    for (int i = 0; i < rounds; ++i) Round();
    const auto others = leader->member.core().members().All().size() - 1;
    const auto beats = static_cast<uint64_t>(rounds / swarm_.options.heartbeat_ticks + 1);
    KV_CHECK(sent_ - before <= 2 * others * beats + PreVotesOfStrangers(*leader, rounds),
             "a storm at rest: " + std::to_string(sent_ - before) + " messages in " +
                 std::to_string(rounds) + " ticks\n" + Describe_());
    KV_CHECK(EstablishedLeader() == leader && leader->member.core().term() == term,
             "the leader changes at rest\n" + Describe_());
    KV_CHECK(leader->member.core().log().last_index() == last, "the log grows at rest");
    for (const auto& [id, node] : nodes_) {
      if (!node.member.core().members().IsMember(id)) continue;
      KV_CHECK(node.member.core().Followers().empty() || &node == leader);
    }
    // Reads of members that still belong are decided; those of lost lives never are.
    const size_t open = open_reads_.size();
    Node& reader = nodes_.at(leader->member.core().members().All().front());
    const ReadId read = ++reads_;
    open_reads_[read] = recorder_.last_committed();
    reader.member.core().Read(read);
    After(reader);
    for (int i = 0; i < 3 * swarm_.options.election_ticks; ++i) Round();
    KV_CHECK(open_reads_.size() == open && !open_reads_.contains(read), "a read is never answered");
  }

  SplitMix64 chance_;
  Swarm swarm_;
  std::deque<std::string>* trace_;
  uint64_t step_ = 0;
  MemberId ids_ = 0;
  uint64_t commands_ = 0;
  ReadId reads_ = 0;
  uint64_t sent_ = 0;
  Recorder recorder_;
  std::map<MemberId, Node> nodes_;
  std::vector<Envelope> network_;
  std::set<std::pair<MemberId, MemberId>> cuts_;
  std::deque<std::pair<MemberId, MemberId>> wanted_;  // Snapshots: from, to.
  std::vector<Transfer> transfers_;
  std::vector<Envelope> delivered_offers_;
  std::map<ReadId, Index> open_reads_;  // What was committed when they began.
};

// Thrown out of a failed check, so that the run can be repeated with a trace.
struct LawBroken {
  std::string law;
};

uint64_t FromEnvironment(const char* name, uint64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoull(text, nullptr, 10);
}

constexpr uint64_t kStepsPerRun = 3'000;

// The empty text, or what went wrong and how it came to it.
std::string RunOne(uint64_t seed, uint64_t* steps) {
  std::deque<std::string> trace;
  std::string failure;
  for (const bool traced : {false, true}) {
    std::optional<World> world;
    try {
      world.emplace(seed, traced ? &trace : nullptr);
      world->Run(kStepsPerRun);
      *steps += world->step();
      return {};
    } catch (const LawBroken& broken) {
      failure = "KVD_SEED=" + std::to_string(seed) + " breaks a law";
      if (world) failure += " at step " + std::to_string(world->step());
      failure += ":\n" + broken.law + "\n";
    }
  }
  for (const std::string& event : trace) failure += "  " + event + "\n";
  return failure;
}

// The rare branches that the core's sources name.
std::set<std::string> MarksInSources() {
  std::set<std::string> marks;
  const std::regex pattern(R"mark(MARK\("([^"]+)"\))mark");
  const std::filesystem::path folder = std::filesystem::path(KVD_SOURCE_DIR) / "server/raft";
  for (const auto& file : std::filesystem::directory_iterator(folder)) {
    if (file.path().extension() != ".cc") continue;
    std::ifstream in(file.path());
    const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    for (std::sregex_iterator it(text.begin(), text.end(), pattern), end; it != end; ++it) {
      marks.insert((*it)[1]);
    }
  }
  return marks;
}

TEST_CASE("no schedule of bare cores breaks a law, and all come to rest") {
  TheCheckHook() = [](std::string_view failure) { throw LawBroken{std::string(failure)}; };
  std::map<std::string, uint64_t, std::less<>> marks;
#ifdef KVD_SIM
  TheMarkHook() = [&marks](std::string_view name) {
    const auto it = marks.find(name);
    if (it != marks.end()) {
      ++it->second;
    } else {
      marks.emplace(name, 1);
    }
  };
#endif
  uint64_t steps = 0;
  uint64_t runs = 0;
  uint64_t failures = 0;
  const bool one = std::getenv("KVD_SEED") != nullptr;
  const uint64_t first =
      one ? FromEnvironment("KVD_SEED", 1) : FromEnvironment("KVD_FIRST_SEED", 1);
  const uint64_t wanted = FromEnvironment("KVD_STEPS", 4'000'000);
  const auto begin = std::chrono::steady_clock::now();
  for (uint64_t seed = first; failures < 3 && (one ? runs < 1 : steps < wanted); ++seed) {
    ++runs;
    const std::string failure = RunOne(seed, &steps);
    if (failure.empty()) continue;
    ++failures;
    FAIL_CHECK(failure);
  }
  const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::steady_clock::now() - begin);
  TheCheckHook() = nullptr;
  std::printf("explored %llu steps in %llu schedules from seed %llu, %lld ms\n",
              static_cast<unsigned long long>(steps), static_cast<unsigned long long>(runs),
              static_cast<unsigned long long>(first), static_cast<long long>(took.count()));
#ifdef KVD_SIM
  TheMarkHook() = nullptr;
  // A test that never reaches the rare branches tests little.
  if (!one && failures == 0 && wanted >= 1'000'000) {
    for (const std::string& mark : MarksInSources()) {
      INFO("never reached: " << mark);
      CHECK(marks.contains(mark));
    }
  }
  if (std::getenv("KVD_MARKS") != nullptr) {
    for (const auto& [mark, times] : marks) {
      std::printf("%10llu %s\n", static_cast<unsigned long long>(times), mark.c_str());
    }
  }
#endif
  if (!one) CHECK((failures > 0 || steps >= wanted));
}

TEST_CASE("a seed replays the same schedule") {
  TheCheckHook() = [](std::string_view failure) { throw LawBroken{std::string(failure)}; };
  std::array<std::deque<std::string>, 2> traces;
  for (std::deque<std::string>& trace : traces) {
    World world(FromEnvironment("KVD_SEED", 7), &trace);
    world.Run(500);
  }
  TheCheckHook() = nullptr;
  CHECK(traces[0] == traces[1]);
}

}  // namespace
}  // namespace kv::raft

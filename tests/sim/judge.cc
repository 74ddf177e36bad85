#include "tests/sim/judge.h"

#include <fmt/format.h>

#include <algorithm>

#include "proto/internal/command.pb.h"
#include "server/kv/command.h"
#include "server/raft/describe.h"
#include "storage/check.h"

namespace kv::sim {
namespace {

// Field 100 of the command, eight bytes: key, then the number, little-endian.
constexpr char kTagKey[2] = {static_cast<char>(0xa1), 0x06};
constexpr size_t kTagBytes = 10;

}  // namespace

void Condemn(std::string_view law) { FailCheck("tests/sim", 0, "a law is broken", law); }

std::string Tagged(std::string command, OperationId id) {
  command.append(kTagKey, sizeof kTagKey);
  for (size_t i = 0; i < 8; ++i) command.push_back(static_cast<char>(id >> (8 * i)));
  return command;
}

OperationId TagOf(std::string_view command) {
  const std::optional<CommandView> view = ReadCommand(command);
  if (!view || command.size() < kTagBytes) return 0;
  const std::string_view tag = command.substr(command.size() - kTagBytes);
  // A body may end like a tag: what members write about each other holds random ids.
  if (!view->body.empty() && view->body.data() + view->body.size() > tag.data()) return 0;
  if (tag[0] != kTagKey[0] || tag[1] != kTagKey[1]) return 0;
  OperationId id = 0;
  for (size_t i = 8; i-- > 0;) id = (id << 8) | static_cast<unsigned char>(tag[2 + i]);
  return id;
}

bool HaveDisjointQuorums(const raft::Members& a, const raft::Members& b) {
  std::vector<MemberId> all;
  for (const auto* ids : {&a.voters, &a.outgoing, &b.voters, &b.outgoing}) {
    all.insert(all.end(), ids->begin(), ids->end());
  }
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  KV_CHECK(all.size() < 20, "too many voters to look at every set of them");
  for (uint32_t set = 0; set < (uint32_t{1} << all.size()); ++set) {
    const auto in = [&](MemberId id) {
      const auto at = std::lower_bound(all.begin(), all.end(), id) - all.begin();
      return (set >> at & 1) != 0;
    };
    if (raft::IsQuorum(a, in) && raft::IsQuorum(b, [&](MemberId id) { return !in(id); })) {
      return true;
    }
  }
  return false;
}

void Judge::Voted(MemberId voter, Term term, MemberId candidate) {
  const auto [vote, fresh] = votes_.try_emplace({voter, term}, candidate);
  if (vote->second != candidate) {
    Condemn(fmt::format("member {:x} votes for {:x} in term {} and voted for {:x} before", voter,
                        candidate, term, vote->second));
  }
}

void Judge::Sent(const raft::Envelope& envelope) {
  ++sent_[envelope.message.index()];
  // Only what says something of its disk: a member may forget a term of which it promised nothing.
  const bool promises = std::holds_alternative<raft::VoteReply>(envelope.message) ||
                        std::holds_alternative<raft::VoteRequest>(envelope.message) ||
                        std::holds_alternative<raft::AppendReply>(envelope.message);
  if (promises) {
    Term& term = terms_[envelope.from];
    if (envelope.term < term) {
      Condemn(fmt::format("member {:x} promises in term {} and promised in term {} before",
                          envelope.from, envelope.term, term));
    }
    term = envelope.term;
  }
  if (const auto* reply = std::get_if<raft::VoteReply>(&envelope.message)) {
    if (reply->vote == raft::Vote::kGranted) Voted(envelope.from, envelope.term, envelope.to);
  } else if (std::holds_alternative<raft::VoteRequest>(envelope.message)) {
    Voted(envelope.from, envelope.term, envelope.from);
  }
}

void Judge::AfterRaft(Life& life, const raft::Core& core, Time now) {
  if (++life.looks % thorough_ == 0) core.CheckInvariants();
  if (core.term() < life.term) Condemn("a member's term goes back");
  life.term = core.term();
  const bool leads = core.standing().role == raft::Role::kLeader;
  const bool news = leads && (!life.led || leaders_.empty() || !leaders_.contains(core.term()));
  CheckTail(life, core);
  if (news) CheckLeader(core);
  life.led = leads;
  if (leads && (news || core.log().members_version() != life.members_version)) {
    CheckConfigurations(core);
  }
  life.members_version = core.log().members_version();
  CheckCommits(life, core, now);
}

// Log matching (§3.5): a position names one entry, and one entry before it. Only what is new is
// looked at: below a position that was seen before, everything was.
void Judge::CheckTail(Life& life, const raft::Core& core) {
  const raft::Log& log = core.log();
  const Index last = log.last_index();
  if (life.terms.size() <= last) life.terms.resize(last + 1, 0);
  for (Index index = last; index > log.base().index; --index) {
    const Entry& entry = *log.At(index);
    if (life.terms[index] == entry.term) break;
    life.terms[index] = entry.term;
    const Term before = *log.TermAt(index - 1);
    const auto [seen, fresh] = entries_.try_emplace(
        entry.position(), Seen{.checksum = entry.checksum, .term_before = before});
    if (seen->second.checksum != entry.checksum || seen->second.term_before != before) {
      Condemn(fmt::format("two different entries at index {} of term {}", index, entry.term));
    }
  }
  // What a shorter log no longer holds may come back as something else.
  std::fill(life.terms.begin() + static_cast<std::ptrdiff_t>(last) + 1, life.terms.end(), 0);
}

void Judge::CheckLeader(const raft::Core& core) {
  const auto [leader, fresh] = leaders_.try_emplace(core.term(), core.self());
  if (leader->second != core.self()) {
    Condemn(fmt::format("two leaders in term {}: {:x} and {:x}", core.term(), leader->second,
                        core.self()));
  }
  Voted(core.self(), core.term(), core.self());
  // §4.2.1, §4.2.2: only voters lead, and whoever was one until the newest entry said otherwise.
  const raft::Members* before = core.log().previous_members();
  if (!core.members().IsVoter(core.self()) &&
      (before == nullptr || !before->IsVoter(core.self()))) {
    Condemn(fmt::format("member {:x} leads and is no voter", core.self()));
  }
  // §3.6.3: what the leaders of earlier terms committed. Who wins late may be older than others.
  Index last = last_committed();
  while (last > base_.index && committed_in_[last - base_.index - 1] >= core.term()) --last;
  if (last == base_.index || core.log().base().index >= last) return;
  if (core.log().TermAt(last) != Committed(last)->term) {
    Condemn(fmt::format("leader {:x} of term {} lacks the committed entry {} of term {}",
                        core.self(), core.term(), last, Committed(last)->term));
  }
}

// Two configurations that may be in force at a time: the newest in a log and the one before it.
// Every change begins in the log of a leader; a member that joined began with a guess.
void Judge::CheckConfigurations(const raft::Core& core) {
  const raft::Members* before = core.log().previous_members();
  if (before == nullptr || before->voters.empty()) return;
  const raft::Members& now = core.log().members();
  if (!adjacent_.emplace(raft::Encode(*before), raft::Encode(now)).second) return;
  if (HaveDisjointQuorums(*before, now)) {
    Condemn("a change of members leads to a configuration that has a quorum apart from the old's");
  }
}

void Judge::CheckCommits(Life& life, const raft::Core& core, Time now) {
  const raft::Log& log = core.log();
  if (core.commit() < life.commit) Condemn("a member's commit index goes back");
  if (core.commit() == life.commit && life.begun) return;
  life.begun = true;
  for (Index index = std::max({life.commit, log.base().index, base_.index}) + 1;
       index <= core.commit(); ++index) {
    const EntryPtr& entry = log.At(index);
    if (index <= last_committed()) {
      const Entry& committed = *Committed(index);
      if (committed.term != entry->term || committed.checksum != entry->checksum) {
        Condemn(fmt::format("the committed entry {} changed from term {} to term {}", index,
                            committed.term, entry->term));
      }
      continue;
    }
    if (index != last_committed() + 1) Condemn("a gap in what is committed");
    if (core.standing().role == raft::Role::kLeader || core.members().voters.size() == 1) {
      CheckDurable(core, *entry);
    }
    committed_.push_back(entry);
    committed_in_.push_back(core.term());
    committed_at_.push_back(now);
    if (entry->kind == EntryKind::kMembers) {
      configurations_[index] = raft::MembersOf(*entry);
    }
  }
  life.commit = core.commit();
}

// Committed means: durable on a quorum of the configuration in force.
void Judge::CheckDurable(const raft::Core& core, const Entry& entry) {
  const bool durable = raft::IsQuorum(core.members(), [&](MemberId id) {
    const SimDisk* disk = disk_of_(id);
    if (disk == nullptr) return true;
    const std::optional<SimDisk::Held> held = disk->DurableEntry(entry.index);
    return held && (held->term == entry.term || held->base.index >= entry.index);
  });
  if (!durable) {
    Condemn(
        fmt::format("member {:x} commits entry {} of term {}, which is not on the disks of a "
                    "quorum",
                    core.self(), entry.index, entry.term));
  }
}

void Judge::AfterApply(Life& life, MemberId id, const KvMachine& machine) {
  const Head head = machine.head();
  const Index applied = head.applied.index;
  if (applied == life.applied) return;
  if (applied < life.applied) Condemn("a member's machine goes back");
  life.applied = applied;
  if (applied > last_committed()) {
    Condemn(fmt::format("member {:x} applied entry {}, which is not committed", id, applied));
  }
  if (applied > base_.index && Committed(applied)->term != head.applied.term) {
    Condemn(fmt::format("member {:x} applied an entry {} of term {}, not the committed one", id,
                        applied, head.applied.term));
  }
  const auto configuration = configurations_.upper_bound(applied);
  if (configuration != configurations_.begin() &&
      std::prev(configuration)->first != life.configured) {
    life.configured = std::prev(configuration)->first;
    if (machine.members() != std::prev(configuration)->second) {
      Condemn(
          fmt::format("the machine of member {:x} holds other members at entry {} than entry "
                      "{} says",
                      id, applied, life.configured));
    }
  }
  if (digests_.size() <= applied) digests_.resize(applied + 1);
  std::pair<uint64_t, Revision>& known = digests_[applied];
  if (known.second == 0) known = {head.digest, head.revision};
  if (known != std::pair(head.digest, head.revision)) {
    Condemn(
        fmt::format("member {:x} stands at revision {} after entry {}, others at {}: digests "
                    "{:x} and {:x}",
                    id, head.revision, applied, known.second, head.digest, known.first));
  }
}

std::vector<OperationId> Judge::CommittedOperations() const {
  std::vector<OperationId> operations;
  operations.reserve(committed_.size());
  for (const EntryPtr& entry : committed_) {
    operations.push_back(entry->kind == EntryKind::kCommand ? TagOf(entry->data) : 0);
  }
  return operations;
}

std::vector<Taken> Judge::Log() const {
  std::vector<Taken> log;
  log.reserve(committed_.size());
  for (size_t i = 0; i < committed_.size(); ++i) {
    const Entry& entry = *committed_[i];
    if (entry.kind != EntryKind::kCommand) continue;
    Taken& taken = log.emplace_back();
    taken.id = TagOf(entry.data);
    taken.index = entry.index;
    taken.at = committed_at_[i];
    if (taken.id != 0) continue;
    kvd::internal::Command command;
    if (!command.ParseFromString(entry.data)) Condemn("an entry that holds no command");
    if (command.kind() == kvd::internal::ALARM) {
      Condemn("a member raises an alarm, and nothing is wrong with anybody's state");
    }
    kvd::internal::LeaseExpiry expiry;
    if (command.kind() != kvd::internal::LEASE_EXPIRE) continue;
    if (!expiry.ParseFromString(command.body())) Condemn("an expiry that cannot be read");
    if (expiry.term() != entry.term) continue;
    for (const auto& lease : expiry.leases())
      taken.expired.emplace_back(lease.id(), lease.granted());
  }
  return log;
}

}  // namespace kv::sim

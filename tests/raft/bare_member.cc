#include "tests/raft/bare_member.h"

#include <utility>

#include "storage/check.h"

namespace kv::raft {

std::optional<Term> BareDisk::TermAt(Index index) const {
  if (index == base.index) return base.term;
  if (index < base.index || index > last_index()) return std::nullopt;
  return entries[index - base.index - 1]->term;
}

void BareDisk::Write(const LogUpdate& update) {
  if (update.hard_state) hard_state = *update.hard_state;
  if (update.reset) {
    KV_CHECK(applied == *update.reset, "the log is reset to what the machine adopted");
    base = *update.reset;
    base_members = applied_members;
    entries.clear();
  }
  if (update.entries.empty()) return;
  const Index first = update.entries.front()->index;
  KV_CHECK(first > base.index && first <= last_index() + 1, "a gap in the log");
  entries.resize(first - base.index - 1);
  for (const EntryPtr& entry : update.entries) {
    KV_CHECK(entry->index == last_index() + 1, "a gap in the log");
    KV_CHECK(ChecksumHolds(*entry));
    entries.push_back(entry);
  }
}

void BareDisk::Drop(Position through) {
  if (through.index <= base.index) return;
  KV_CHECK(Holds(through), "only what the log holds may be dropped");
  KV_CHECK(through.index <= applied.index, "what the machine could lose must stay in the log");
  const auto count = static_cast<std::ptrdiff_t>(through.index - base.index);
  for (auto it = entries.begin(); it != entries.begin() + count; ++it) {
    if ((*it)->kind == EntryKind::kMembers) base_members = MembersOf(**it);
  }
  entries.erase(entries.begin(), entries.begin() + count);
  base = through;
}

void BareDisk::Adopt(Position at, const Members& members) {
  adopting = at;
  applied = at;
  applied_members = members;
}

Found BareDisk::Recover() const {
  if (Holds(applied)) {
    return {.hard_state = hard_state,
            .base = base,
            .base_members = base_members,
            .entries = entries,
            .applied = applied.index};
  }
  KV_CHECK(adopting == applied, "the log ends before what the machine applied");
  return {.hard_state = hard_state,
          .base = applied,
          .base_members = applied_members,
          .entries = {},
          .applied = applied.index};
}

BareMember::BareMember(MemberId id, const Options& options, BareDisk disk)
    : id_(id), options_(options), disk_(std::move(disk)) {}

void BareMember::Start(uint64_t seed) {
  KV_CHECK(!running());
  Found found = disk_.Recover();
  disk_.base = found.base;
  disk_.base_members = found.base_members;
  disk_.entries = found.entries;
  applied_ = disk_.applied;
  applied_members_ = disk_.applied_members;
  core_ = std::make_unique<Core>(id_, options_, std::move(found), seed);
}

void BareMember::Crash() {
  KV_CHECK(running());
  core_.reset();
  writing_.clear();
  unheard_.clear();
  committed_.clear();
  adoption_.reset();
}

Output BareMember::Take() {
  Output output = core_->TakeOutput();
  if (output.write) writing_.push_back(*output.write);
  committed_.insert(committed_.end(), output.committed.begin(), output.committed.end());
  if (output.adopt) {
    KV_CHECK(!adoption_, "one adoption at a time");
    adoption_ = output.adopt;
  }
  // Losing the drop only keeps more log, so it needs no order with the writes.
  if (output.drop) disk_.Drop(*output.drop);
  return output;
}

std::vector<Envelope> BareMember::SyncWrite() {
  Write write = std::move(writing_.front());
  writing_.pop_front();
  disk_.Write(write.update);
  unheard_.push_back(write.id);
  return std::move(write.promises);
}

void BareMember::HearOfWrites() {
  for (; !unheard_.empty(); unheard_.pop_front()) core_->Persisted(unheard_.front());
}

std::vector<Envelope> BareMember::FinishWrite() {
  std::vector<Envelope> promises = SyncWrite();
  HearOfWrites();
  return promises;
}

void BareMember::WriteUnheard() {
  disk_.Write(writing_.front().update);
  writing_.pop_front();
}

void BareMember::Apply(size_t count) {
  if (committed_.empty()) return;
  for (; count > 0 && !committed_.empty(); --count) {
    const EntryPtr entry = std::move(committed_.front());
    committed_.pop_front();
    KV_CHECK(entry->index == applied_.index + 1, "entries are applied in order");
    applied_ = entry->position();
    if (entry->kind == EntryKind::kMembers) applied_members_ = MembersOf(*entry);
  }
  core_->Applied(applied_.index);
}

void BareMember::Flush() {
  disk_.applied = applied_;
  disk_.applied_members = applied_members_;
  core_->DropThrough(applied_);
}

void BareMember::FinishAdoption() {
  const SnapshotOffer offer = *std::exchange(adoption_, std::nullopt);
  const std::optional<Members> members = DecodeMembers(offer.members);
  KV_CHECK(members, "an offer that the core took names its members");
  KV_CHECK(committed_.empty() || committed_.back()->index <= offer.at.index);
  committed_.clear();
  disk_.Adopt(offer.at, *members);
  applied_ = offer.at;
  applied_members_ = *members;
  core_->SnapshotAdopted(offer.at, *members);
}

Envelope BareMember::TakeSnapshot(MemberId to) {
  disk_.applied = applied_;
  disk_.applied_members = applied_members_;
  return {.from = id_,
          .to = to,
          .term = core_->term(),
          .message = SnapshotOffer{.at = applied_, .members = Encode(applied_members_)}};
}

}  // namespace kv::raft

#include "server/raft/log.h"

#include <algorithm>
#include <utility>

#include "storage/check.h"
#include "storage/mark.h"

namespace kv::raft {

uint64_t EntryBytes(const Entry& entry) { return entry.data.size() + sizeof(Entry); }

Members MembersOf(const Entry& entry) {
  KV_CHECK(entry.kind == EntryKind::kMembers);
  std::optional<Members> members = DecodeMembers(entry.data);
  KV_CHECK(members.has_value(), "the configuration at index " + std::to_string(entry.index) +
                                    " cannot be read by this release");
  return *std::move(members);
}

Log::Log(Position base, Members base_members, std::vector<EntryPtr> entries)
    : base_(base), stable_(base.index), unwritten_(base.index + 1) {
  configurations_.push_back({.index = base.index, .members = std::move(base_members)});
  for (EntryPtr& entry : entries) Append(std::move(entry));
  stable_ = last_index();
  unwritten_ = last_index() + 1;
}

Position Log::last() const { return slots_.empty() ? base_ : slots_.back().entry->position(); }

std::optional<Term> Log::TermAt(Index index) const {
  if (index == base_.index) return base_.term;
  if (index < base_.index || index > last_index()) return std::nullopt;
  return At(index)->term;
}

const EntryPtr& Log::At(Index index) const {
  KV_CHECK(index > base_.index && index <= last_index());
  return slots_[index - base_.index - 1].entry;
}

std::vector<EntryPtr> Log::Slice(Index after, Index last, uint64_t bytes_max) const {
  KV_CHECK(after >= base_.index && after < last && last <= last_index());
  // The first index whose entry no longer fits; prefix sums make the search logarithmic.
  const uint64_t budget = BytesThrough(after) + bytes_max;
  const auto begin = slots_.begin() + static_cast<std::ptrdiff_t>(after - base_.index);
  const auto limit = slots_.begin() + static_cast<std::ptrdiff_t>(last - base_.index);
  auto end = std::partition_point(
      begin, limit, [budget](const Slot& slot) { return slot.bytes_through <= budget; });
  if (end == begin) ++end;
  std::vector<EntryPtr> entries;
  entries.reserve(static_cast<size_t>(end - begin));
  for (auto slot = begin; slot != end; ++slot) entries.push_back(slot->entry);
  return entries;
}

Position Log::LastAtMost(Index index, Term term) const {
  if (index <= base_.index) return base_;
  const Index reach = std::min(index, last_index());
  const auto end = slots_.begin() + static_cast<std::ptrdiff_t>(reach - base_.index);
  // Terms never fall along a log.
  const auto past = std::partition_point(
      slots_.begin(), end, [term](const Slot& slot) { return slot.entry->term <= term; });
  return past == slots_.begin() ? base_ : std::prev(past)->entry->position();
}

uint64_t Log::BytesIn(Index after, Index through) const {
  return through <= after ? 0 : BytesThrough(through) - BytesThrough(after);
}

Index Log::EndOfPrefix(uint64_t bytes) const {
  const uint64_t limit = base_bytes_ + bytes;
  const auto past = std::partition_point(slots_.begin(), slots_.end(), [limit](const Slot& slot) {
    return slot.bytes_through < limit;
  });
  if (past == slots_.end()) return last_index();
  return past->entry->index;
}

uint64_t Log::BytesThrough(Index index) const {
  if (index == base_.index) return base_bytes_;
  KV_CHECK(index > base_.index && index <= last_index());
  return slots_[index - base_.index - 1].bytes_through;
}

const Members& Log::members() const { return configurations_.back().members; }
Index Log::members_index() const { return configurations_.back().index; }

const Members* Log::previous_members() const {
  if (configurations_.size() < 2) return nullptr;
  return &configurations_[configurations_.size() - 2].members;
}

const Members& Log::MembersAt(Index index) const {
  KV_CHECK(index >= base_.index);
  size_t at = configurations_.size() - 1;
  while (configurations_[at].index > index) --at;
  return configurations_[at].members;
}

void Log::Append(EntryPtr entry) {
  KV_CHECK(entry->index == last_index() + 1 && entry->term >= last().term);
  if (entry->kind == EntryKind::kMembers) {
    configurations_.push_back({.index = entry->index, .members = MembersOf(*entry)});
    ++members_version_;
  }
  const uint64_t bytes_through = BytesThrough(last_index()) + EntryBytes(*entry);
  slots_.push_back({.entry = std::move(entry), .bytes_through = bytes_through});
}

void Log::TruncateFrom(Index index) {
  KV_CHECK(index > base_.index && index <= last_index());
  slots_.resize(index - base_.index - 1);
  if (configurations_.back().index >= index) MARK("raft.roll_back_members");
  while (configurations_.back().index >= index && !MUTANT("raft.members_not_rolled_back")) {
    configurations_.pop_back();
    ++members_version_;
  }
  if (stable_ >= index) MARK("raft.overwrite_durable_entries");
  if (!MUTANT("raft.durable_index_not_rolled_back")) stable_ = std::min(stable_, index - 1);
  unwritten_ = std::min(unwritten_, index);
  for (InFlight& write : in_flight_) {
    if (write.last >= index) MARK("raft.overwrite_pending_write");
    if (MUTANT("raft.old_write_ends_as_new")) continue;
    write.last = std::min(write.last, index - 1);
  }
}

void Log::Reset(Position base, Members members) {
  KV_CHECK(base.index > base_.index);
  slots_.clear();
  base_ = base;
  base_bytes_ = 0;
  configurations_.clear();
  configurations_.push_back({.index = base.index, .members = std::move(members)});
  ++members_version_;
  // The snapshot is durable, whatever the log on disk still says.
  stable_ = base.index;
  unwritten_ = base.index + 1;
  reset_unwritten_ = true;
  for (InFlight& write : in_flight_) write.last = std::min(write.last, base.index);
}

void Log::DropThrough(Index index) {
  KV_CHECK(index > base_.index && index <= stable_ && index < unwritten_);
  const Position base = At(index)->position();
  base_bytes_ = BytesThrough(index);
  slots_.erase(slots_.begin(), slots_.begin() + static_cast<std::ptrdiff_t>(index - base_.index));
  base_ = base;
  const auto kept = std::prev(std::upper_bound(
      configurations_.begin(), configurations_.end(), index,
      [](Index at, const Configuration& configuration) { return at < configuration.index; }));
  configurations_.erase(configurations_.begin(), kept);
}

LogUpdate Log::TakeUnwritten(WriteId id) {
  LogUpdate update;
  if (!HasUnwritten()) return update;
  if (std::exchange(reset_unwritten_, false)) update.reset = base_;
  update.entries.reserve(last_index() + 1 - unwritten_);
  for (Index index = unwritten_; index <= last_index(); ++index) {
    update.entries.push_back(At(index));
  }
  unwritten_ = last_index() + 1;
  in_flight_.push_back({.id = id, .last = last_index()});
  return update;
}

void Log::Persisted(WriteId id) {
  while (!in_flight_.empty() && in_flight_.front().id <= id) {
    stable_ = std::max(stable_, in_flight_.front().last);
    in_flight_.pop_front();
  }
}

void Log::CheckInvariants() const {
  KV_CHECK(base_.index <= stable_ && stable_ < unwritten_ && unwritten_ <= last_index() + 1);
  Index index = base_.index;
  Term term = base_.term;
  uint64_t bytes = base_bytes_;
  auto configuration = configurations_.begin();
  KV_CHECK(configuration != configurations_.end() && configuration->index <= base_.index);
  for (const Slot& slot : slots_) {
    KV_CHECK(slot.entry->index == ++index);
    KV_CHECK(slot.entry->term >= term);
    term = slot.entry->term;
    bytes += EntryBytes(*slot.entry);
    KV_CHECK(slot.bytes_through == bytes);
    if (slot.entry->kind != EntryKind::kMembers) continue;
    ++configuration;
    KV_CHECK(configuration != configurations_.end() && configuration->index == index);
    KV_CHECK(Encode(configuration->members) == slot.entry->data);
  }
  KV_CHECK(++configuration == configurations_.end());
  Index previous = 0;
  for (const InFlight& write : in_flight_) {
    KV_CHECK(write.last < unwritten_ && write.id > previous);
    previous = write.id;
  }
}

}  // namespace kv::raft

#include "storage/log_store.h"

#include <algorithm>
#include <utility>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr uint32_t kFormat = 1;
constexpr std::string_view kKind = "kvd log";
constexpr std::string_view kFormatKey = "f";
constexpr std::string_view kHardStateKey = "h";
constexpr std::string_view kBaseKey = "b";
constexpr std::string_view kAdoptingKey = "a";
constexpr char kEntryPrefix = 'e';
constexpr std::string_view kEntriesEnd = "f";  // After every entry's key.
constexpr size_t kEntryHeadBytes = 8 + 1 + 4;  // Term, kind, checksum.
constexpr std::string_view kNextStep =
    "check the disk, then remove this member and add it again with an empty disk, or restore its "
    "directory from a backup";

// Big-endian, so that keys sort as indexes do.
std::string EntryKey(Index index) {
  std::string key(9, kEntryPrefix);
  for (size_t i = 0; i < 8; ++i) key[1 + i] = static_cast<char>(index >> (8 * (7 - i)));
  return key;
}

std::optional<Index> IndexOf(std::string_view key) {
  if (key.size() != 9 || key[0] != kEntryPrefix) return std::nullopt;
  Index index = 0;
  for (size_t i = 1; i < 9; ++i) index = (index << 8) | static_cast<unsigned char>(key[i]);
  return index;
}

std::string EncodeEntry(const Entry& entry) {
  std::string value;
  value.reserve(kEntryHeadBytes + entry.data.size());
  PutU64(value, entry.term);
  PutU8(value, static_cast<uint8_t>(entry.kind));
  PutU32(value, entry.checksum);
  value.append(entry.data);
  return value;
}

// Two integers and their checksum: hard state, base, adopting.
std::string EncodePair(uint64_t first, uint64_t second) {
  std::string value;
  PutU64(value, first);
  PutU64(value, second);
  PutU32(value, Crc32c(value));
  return value;
}

template <typename... Args>
absl::Status Damaged(fmt::format_string<Args...> format, Args&&... args) {
  return MakeStatus(absl::StatusCode::kDataLoss, "the log is damaged: {}; {}",
                    fmt::format(format, std::forward<Args>(args)...), kNextStep);
}

struct Pair {
  uint64_t first = 0;
  uint64_t second = 0;
};

absl::StatusOr<std::optional<Pair>> ReadPair(const DatabaseView& view, std::string_view key,
                                             std::string_view name) {
  ASSIGN_OR_RETURN(const std::optional<std::string> value, view.Get(key));
  if (!value) return std::nullopt;
  ByteReader reader(*value);
  Pair pair;
  pair.first = reader.U64();
  pair.second = reader.U64();
  const uint32_t stored = reader.U32();
  if (!reader.AtEnd() || stored != Crc32c(std::string_view(*value).substr(0, 16))) {
    return Damaged("the checksum of its record \"{}\" does not hold", name);
  }
  return pair;
}

absl::StatusOr<EntryPtr> DecodeEntry(Index index, std::string_view value) {
  ByteReader reader(value);
  auto entry = std::make_shared<Entry>();
  entry->index = index;
  entry->term = reader.U64();
  const uint8_t kind = reader.U8();
  entry->kind = static_cast<EntryKind>(kind);
  entry->checksum = reader.U32();
  entry->data = std::string(reader.rest());
  if (!reader.ok()) return Damaged("entry {} has only {} bytes", index, value.size());
  if (!ChecksumHolds(*entry)) {
    return Damaged("the checksum of entry {} (term {}) does not hold", index, entry->term);
  }
  if (kind > static_cast<uint8_t>(EntryKind::kMembers)) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "entry {} (term {}) of the log has kind {}, which this release does not "
                      "know; start the release that wrote it, or a newer one",
                      index, entry->term, kind);
  }
  return entry;
}

absl::Status CheckSuccession(Position previous, Position next) {
  if (next.index != previous.index + 1) {
    return Damaged("entry {} is missing (after {}, term {}, comes {})", previous.index + 1,
                   previous.index, previous.term, next.index);
  }
  if (next.term < previous.term) {
    return Damaged("entry {} has term {}, but the one before it has term {}", next.index, next.term,
                   previous.term);
  }
  return absl::OkStatus();
}

absl::Status LoadEntries(const DatabaseView& view, LogStore::Contents& contents) {
  // The seek passes by everything that was dropped: its tombstones cost nothing here.
  const std::string first = EntryKey(contents.base.index + 1);
  const std::unique_ptr<Cursor> cursor = view.NewCursor(first, kEntriesEnd);
  Position previous = contents.base;
  for (cursor->Seek(first); cursor->Valid(); cursor->Next()) {
    const std::optional<Index> index = IndexOf(cursor->key());
    if (!index) return Damaged("it holds a key of {} bytes", cursor->key().size());
    ASSIGN_OR_RETURN(EntryPtr entry, DecodeEntry(*index, cursor->value()));
    RETURN_IF_ERROR(CheckSuccession(previous, entry->position()));
    previous = entry->position();
    contents.entries.push_back(std::move(entry));
  }
  return cursor->status();
}

}  // namespace

struct LogStore::Draft {
  WriteSet writes;
  HardState hard_state;
  Position base;
  Position last;
};

bool LogStore::Contents::Holds(Position position) const {
  if (position.index < base.index || position.index > last().index) return false;
  if (position.index == base.index) return position == base;
  return entries[position.index - base.index - 1]->term == position.term;
}

LogStore::LogStore(std::unique_ptr<Database> database) : database_(std::move(database)) {}
LogStore::~LogStore() = default;

absl::StatusOr<LogStore::Contents> LogStore::Load() {
  KV_CHECK(!loaded_);
  const std::shared_ptr<const DatabaseView> view = database_->View();
  ASSIGN_OR_RETURN(const std::optional<std::string> format, view->Get(kFormatKey));
  if (format) {
    RETURN_IF_ERROR(DecodeRecord(*format, kKind, kFormat, "the log's format record").status());
  }
  Contents contents;
  ASSIGN_OR_RETURN(const std::optional<Pair> hard_state,
                   ReadPair(*view, kHardStateKey, "hard state"));
  ASSIGN_OR_RETURN(const std::optional<Pair> base, ReadPair(*view, kBaseKey, "base"));
  ASSIGN_OR_RETURN(const std::optional<Pair> adopting, ReadPair(*view, kAdoptingKey, "adopting"));
  if (hard_state) contents.hard_state = {.term = hard_state->first, .vote = hard_state->second};
  if (base) contents.base = {.index = base->first, .term = base->second};
  if (adopting) contents.adopting = Position{.index = adopting->first, .term = adopting->second};
  RETURN_IF_ERROR(LoadEntries(*view, contents));
  if (!format && !contents.empty()) return Damaged("its format record is missing");
  if (contents.hard_state.term < contents.last().term) {
    return Damaged("it ends at index {} in term {}, but its hard state is of term {}",
                   contents.last().index, contents.last().term, contents.hard_state.term);
  }
  loaded_ = true;
  formatted_ = format.has_value();
  hard_state_ = contents.hard_state;
  base_ = contents.base;
  last_ = contents.last();
  return contents;
}

absl::Status LogStore::Commit(std::span<const LogUpdate> updates) {
  if (updates.size() > 1) MARK("storage.many_updates_in_one_batch");
  Draft draft{.writes = {}, .hard_state = hard_state_, .base = base_, .last = last_};
  for (const LogUpdate& update : updates) {
    if (update.hard_state) {
      const HardState& next = *update.hard_state;
      KV_CHECK(next.term >= draft.hard_state.term, "a member never returns to an older term");
      KV_CHECK(next.term > draft.hard_state.term || draft.hard_state.vote == 0 ||
                   next.vote == draft.hard_state.vote,
               "a member votes once in a term");
      draft.hard_state = next;
    }
    if (update.reset) Reset(draft, *update.reset);
    if (!update.entries.empty()) Append(draft, update.entries);
  }
  KV_CHECK(draft.hard_state.term >= draft.last.term, "an entry of a term that is not durable");
  if (draft.hard_state != hard_state_) {
    draft.writes.Put(std::string(kHardStateKey),
                     EncodePair(draft.hard_state.term,
                                MUTANT("storage.vote_not_written") ? 0 : draft.hard_state.vote));
  }
  if (draft.writes.empty()) return absl::OkStatus();
  return Write(std::move(draft), MUTANT("storage.log_not_synced") ? Sync::kNo : Sync::kYes);
}

absl::Status LogStore::DropThrough(Position position) {
  KV_CHECK(position.index <= last_.index);
  KV_CHECK(position.index < last_.index || position == last_);
  if (position.index <= base_.index) return absl::OkStatus();
  Draft draft{.writes = {}, .hard_state = hard_state_, .base = position, .last = last_};
  draft.writes.DeleteRange(EntryKey(base_.index + 1), EntryKey(position.index + 1));
  if (!MUTANT("storage.base_not_moved")) {
    draft.writes.Put(std::string(kBaseKey), EncodePair(position.index, position.term));
  }
  return Write(std::move(draft), Sync::kNo);
}

absl::Status LogStore::BeginAdopting(Position position) {
  Draft draft{.writes = {}, .hard_state = hard_state_, .base = base_, .last = last_};
  draft.writes.Put(std::string(kAdoptingKey), EncodePair(position.index, position.term));
  return Write(std::move(draft), Sync::kYes);
}

void LogStore::Reset(Draft& draft, Position position) const {
  KV_CHECK(position.index >= draft.base.index, "the log never begins earlier than it did");
  draft.writes.DeleteRange(EntryKey(draft.base.index + 1), std::string(kEntriesEnd));
  draft.writes.Put(std::string(kBaseKey), EncodePair(position.index, position.term));
  draft.writes.Delete(std::string(kAdoptingKey));
  draft.base = position;
  draft.last = position;
}

void LogStore::Append(Draft& draft, std::span<const EntryPtr> entries) const {
  const Index first = entries.front()->index;
  KV_CHECK(first > draft.base.index, "what was dropped is not written again");
  KV_CHECK(first <= draft.last.index + 1, "a log without a gap");
  Position previous = first == draft.last.index + 1
                          ? draft.last
                          : Position{.index = first - 1, .term = draft.base.term};
  for (const EntryPtr& entry : entries) {
    KV_CHECK(entry->index == previous.index + 1, "a log without a gap");
    KV_CHECK(entry->term >= previous.term, "terms never decrease");
    draft.writes.Put(EntryKey(entry->index), EncodeEntry(*entry));
    previous = entry->position();
  }
  // In the same batch: a suffix that survived its replacement would come back as entries that
  // nobody ever agreed to.
  if (previous.index < draft.last.index && !MUTANT("storage.suffix_not_deleted")) {
    MARK("storage.shorter_suffix");
    draft.writes.DeleteRange(EntryKey(previous.index + 1), EntryKey(draft.last.index + 1));
  }
  draft.last = previous;
}

absl::Status LogStore::Write(Draft draft, Sync sync) {
  KV_CHECK(loaded_, "Load comes first");
  if (!formatted_) {
    draft.writes.Put(
        std::string(kFormatKey),
        EncodeRecord(
            {.kind = std::string(kKind), .format = kFormat, .minimum_reader = 1, .body = {}}));
  }
  RETURN_IF_ERROR(database_->Write(draft.writes, sync));
  formatted_ = true;
  hard_state_ = draft.hard_state;
  base_ = draft.base;
  last_ = draft.last;
  return absl::OkStatus();
}

}  // namespace kv

#include <utility>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv {
namespace {

// What a key costs in an answer beside its bytes: tag and length.
constexpr uint64_t kKeyFrameBytes = 8;

absl::Status Malformed(std::string_view table) {
  return MakeStatus(absl::StatusCode::kDataLoss,
                    "a row of the {} table is malformed; replace this member's data by a snapshot",
                    table);
}

absl::StatusOr<KeyRecordPtr> ReadRecord(const DatabaseView& data, const std::string& row) {
  absl::StatusOr<std::optional<std::string>> bytes = data.Get(row);
  if (!bytes.ok()) return bytes.status();
  if (!*bytes) return nullptr;
  RecordView record;
  if (!DecodeKeyRecord(**bytes, record)) return Malformed("key");
  return CopyKeyRecord(record);
}

// Hashes what may be read: versions come key by key, newest first.
class VisibleHash {
 public:
  VisibleHash(Revision revision, Revision compacted) : revision_(revision), compacted_(compacted) {}

  void Add(std::string_view key, const RecordView& record) {
    if (key != key_ || !any_) {
      key_ = key;
      any_ = true;
      below_seen_ = false;
    }
    if (record.mod > revision_) return;
    if (record.mod <= compacted_) {
      if (below_seen_) return;
      below_seen_ = true;
      if (record.tombstone && record.mod < compacted_) return;
    }
    frame_.clear();
    PutBytes(frame_, key);
    PutU8(frame_, record.tombstone ? 1 : 0);
    PutU64(frame_, static_cast<uint64_t>(record.mod));
    PutU64(frame_, static_cast<uint64_t>(record.create));
    PutU64(frame_, static_cast<uint64_t>(record.version));
    PutU64(frame_, static_cast<uint64_t>(record.lease));
    PutU64(frame_, record.value.size());
    hash_ = Crc32c(frame_, hash_);
    hash_ = Crc32c(record.value, hash_);
  }
  uint32_t hash() const { return hash_; }

 private:
  const Revision revision_;
  const Revision compacted_;
  std::string key_;
  bool any_ = false;
  bool below_seen_ = false;  // A version of this key at or below the compacted revision.
  std::string frame_;
  uint32_t hash_ = 0;
};

}  // namespace

View::View(std::shared_ptr<const Mvcc> store, std::shared_ptr<const DatabaseView> data, Head head,
           Revision revision)
    : store_(std::move(store)), data_(std::move(data)), head_(head), revision_(revision) {}

View View::Before(Revision revision) const {
  KV_CHECK(revision <= revision_ && revision >= head_.compacted, "no revision of this view");
  if (revision == revision_) return *this;
  return View(store_, data_, head_, revision);
}

absl::StatusOr<KeyRecordPtr> View::Get(std::string_view key) const {
  // What the cache says of now holds at every revision since the key's last change.
  if (auto found = store_->cache_.Find(key); found && found->since <= revision_) {
    return std::move(found->record);
  }
  absl::StatusOr<KeyRecordPtr> current = ReadRecord(*data_, CurrentKey(key));
  if (!current.ok()) return current;
  if (revision_ == head_.revision) {
    store_->cache_.Offer(key, *current, revision_);
    return current;
  }
  if (*current != nullptr && (*current)->mod <= revision_) return current;
  const std::unique_ptr<Cursor> cursor =
      data_->NewCursor(VersionKey(key, revision_), VersionsEnd(key));
  cursor->Seek(VersionKey(key, revision_));
  if (!cursor->Valid()) {
    RETURN_IF_ERROR(cursor->status());
    return nullptr;
  }
  RecordView record;
  if (!DecodeKeyRecord(cursor->value(), record)) return Malformed("version");
  return record.tombstone ? nullptr : CopyKeyRecord(record);
}

absl::StatusOr<std::optional<std::string>> View::Note(std::string_view name) const {
  return data_->Get(NoteKey(name));
}

Walk View::NewWalk(const KeyRange& range, Direction direction) const {
  return Walk(data_, range, direction, revision_, head_.revision, nullptr);
}

absl::StatusOr<int64_t> View::Passed(const KeyRange& range, Revision at) const {
  int64_t count = 0;
  if (range.empty()) return count;
  if (at == head_.revision) {
    // Every row of the current table is a live key: there is nothing to decode.
    const std::unique_ptr<Cursor> keys = data_->NewCursor(CurrentLower(range), CurrentUpper(range));
    for (keys->Seek(CurrentLower(range)); keys->Valid(); keys->Next()) ++count;
    RETURN_IF_ERROR(keys->status());
    return count;
  }
  Walk walk(data_, range, Direction::kAscending, at, head_.revision, nullptr);
  while (walk.Next()) ++count;
  RETURN_IF_ERROR(walk.status());
  return count;
}

absl::StatusOr<int64_t> View::Count(const KeyRange& range) const {
  // Without runs to sum, or where more has changed since than there is to count: by passing it.
  if (!begun_ || begun_->range != range || head_.revision - revision_ > begun_->sum.whole) {
    return Passed(range, revision_);
  }
  int64_t count = begun_->sum.whole;
  for (const KeyRange& end : begun_->sum.ends) {
    ASSIGN_OR_RETURN(const int64_t passed, Passed(end, head_.revision));
    count += passed;
  }
  if (revision_ == head_.revision) return count;
  // What there is now, less what has come and plus what has gone since the view's revision.
  const std::unique_ptr<Cursor> history =
      data_->NewCursor(HistoryLower(revision_ + 1), HistoryUpper(head_.revision));
  for (history->Seek(HistoryLower(revision_ + 1)); history->Valid(); history->Next()) {
    const std::optional<HistoryRow> row = DecodeHistoryRow(history->value());
    if (!row) return Malformed("history");
    if (row->is_live == row->was_live || !range.Contains(row->key)) continue;
    count -= row->is_live ? 1 : -1;
  }
  RETURN_IF_ERROR(history->status());
  return count;
}

absl::StatusOr<std::optional<std::vector<std::string>>> View::Attached(int64_t lease,
                                                                       uint64_t bytes_max) const {
  std::vector<std::string> keys;
  uint64_t bytes = 0;
  const std::string lower = AttachedLower(lease);
  const std::unique_ptr<Cursor> rows = data_->NewCursor(lower, AttachedUpper(lease));
  for (rows->Seek(lower); rows->Valid(); rows->Next()) {
    const std::string_view key = KeyOfAttached(rows->key());
    bytes += key.size() + kKeyFrameBytes;
    if (bytes > bytes_max) return std::nullopt;
    keys.emplace_back(key);
  }
  RETURN_IF_ERROR(rows->status());
  return keys;
}

size_t BytesOf(const KeyEvent& event) {
  size_t bytes = event.key.size();
  if (event.record != nullptr) bytes += event.record->value.size();
  if (event.previous != nullptr) bytes += event.previous->value.size();
  return bytes;
}

absl::StatusOr<std::vector<RevisionEvents>> View::History(Revision first, size_t events_max,
                                                          size_t bytes_max) const {
  if (first < head_.compacted) return CompactedError();
  std::vector<RevisionEvents> revisions;
  size_t events = 0;
  size_t bytes = 0;
  const std::unique_ptr<Cursor> cursor =
      data_->NewCursor(HistoryLower(first), HistoryUpper(revision_));
  for (cursor->Seek(HistoryLower(first)); cursor->Valid(); cursor->Next()) {
    const std::optional<HistoryOf> at = ParseHistoryKey(cursor->key());
    const std::optional<HistoryRow> row = DecodeHistoryRow(cursor->value());
    if (!at || !row) return Malformed("history");
    if (revisions.empty() || revisions.back().revision != at->revision) {
      if ((events >= events_max || bytes >= bytes_max) && !revisions.empty()) break;
      revisions.push_back({.revision = at->revision, .events = {}});
    }
    KeyEvent event{.key = std::string(row->key), .record = nullptr, .previous = nullptr};
    if (row->is_live) {
      ASSIGN_OR_RETURN(event.record, ReadRecord(*data_, CurrentKey(event.key)));
    }
    if (event.record == nullptr || event.record->mod != at->revision) {
      ASSIGN_OR_RETURN(event.record, ReadRecord(*data_, VersionKey(event.key, at->revision)));
    }
    if (event.record == nullptr) return Malformed("history");
    if (row->was_live && at->revision > head_.compacted) {
      ASSIGN_OR_RETURN(event.previous, ReadRecord(*data_, VersionKey(event.key, row->previous)));
    }
    bytes += BytesOf(event);
    ++events;
    revisions.back().events.push_back(std::move(event));
  }
  RETURN_IF_ERROR(cursor->status());
  return revisions;
}

absl::StatusOr<uint32_t> View::Hash() const {
  VisibleHash hash(revision_, head_.compacted);
  const KeyRange all = KeyRange::Everything();
  const std::unique_ptr<Cursor> current = data_->NewCursor(CurrentLower(all), CurrentUpper(all));
  const std::unique_ptr<Cursor> versions = data_->NewCursor(VersionLower(all), VersionUpper(all));
  current->Seek(CurrentLower(all));
  versions->Seek(VersionLower(all));
  while (current->Valid() || versions->Valid()) {
    std::optional<VersionOf> version;
    if (versions->Valid()) {
      version = ParseVersionKey(versions->key());
      if (!version) return Malformed("version");
    }
    RecordView record;
    if (current->Valid() && (!version || KeyOfCurrent(current->key()) <= version->key)) {
      if (!DecodeKeyRecord(current->value(), record)) return Malformed("key");
      hash.Add(KeyOfCurrent(current->key()), record);
      current->Next();
      continue;
    }
    if (!DecodeKeyRecord(versions->value(), record)) return Malformed("version");
    hash.Add(version->key, record);
    versions->Next();
  }
  RETURN_IF_ERROR(current->status());
  RETURN_IF_ERROR(versions->status());
  return hash.hash();
}

}  // namespace kv

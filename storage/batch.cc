#include <algorithm>
#include <utility>

#include "storage/check.h"
#include "storage/mark.h"
#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv {
namespace {

KeyRecordPtr NewestOf(const PendingKey& pending) {
  if (pending.versions.empty()) return pending.base;
  return pending.versions.back()->tombstone ? nullptr : pending.versions.back();
}

bool IsLiveAt(const PendingKey& pending, Revision at) {
  for (auto version = pending.versions.rbegin(); version != pending.versions.rend(); ++version) {
    if ((*version)->mod <= at) return !(*version)->tombstone;
  }
  return pending.base != nullptr;
}

}  // namespace

Batch::Batch(Mvcc& store)
    : store_(store),
      base_([&store] {
        const MutexLock lock(store.state_mutex_);
        return store.data_;
      }()),
      base_revision_(store.head().revision),
      head_(store.head()),
      lease_count_(store.lease_count()) {}

KeyRecordPtr Batch::ReadBase(std::string_view key) const {
  absl::StatusOr<std::optional<std::string>> bytes = store_.database_->Get(CurrentKey(key));
  KV_CHECK(bytes.ok(), Describe(bytes.status()));
  if (!*bytes) return nullptr;
  RecordView record;
  KV_CHECK(DecodeKeyRecord(**bytes, record), "the current record of a key is malformed");
  return CopyKeyRecord(record);
}

KeyRecordPtr Batch::Get(std::string_view key) {
  if (const auto at = pending_.find(key); at != pending_.end()) return NewestOf(at->second);
  if (auto found = store_.cache_.Find(key)) return std::move(found->record);
  KeyRecordPtr record = ReadBase(key);
  store_.cache_.Offer(key, record, base_revision_);
  return record;
}

PendingKeys::value_type& Batch::Pend(std::string_view key) {
  const auto at = pending_.lower_bound(key);
  if (at != pending_.end() && at->first == key) return *at;
  std::optional<RecordCache::Found> found = store_.cache_.Find(key);
  KeyRecordPtr base = found ? std::move(found->record) : ReadBase(key);
  return *pending_.emplace_hint(at, std::string(key),
                                PendingKey{.base = std::move(base), .versions = {}});
}

Walk Batch::NewWalk(const KeyRange& range, Direction direction, Revision at) const {
  return Walk(base_, range, direction, at, base_revision_, &pending_);
}

int64_t Batch::Count(const KeyRange& range, Revision at) const {
  int64_t count = 0;
  if (range.empty()) return count;
  if (at < base_revision_) {
    Walk walk = NewWalk(range, Direction::kAscending, at);
    while (walk.Next()) ++count;
    KV_CHECK(walk.status().ok(), Describe(walk.status()));
    return count;
  }
  Counts::Sum sum;
  {
    const MutexLock lock(store_.state_mutex_);
    sum = store_.counts_.SumOf(range);
  }
  count = sum.whole;
  for (const KeyRange& end : sum.ends) {
    Walk walk(base_, end, Direction::kAscending, base_revision_, base_revision_, nullptr);
    while (walk.Next()) ++count;
    KV_CHECK(walk.status().ok(), Describe(walk.status()));
  }
  const auto last = range.unbounded() ? pending_.end() : pending_.lower_bound(range.end);
  for (auto key = pending_.lower_bound(range.first); key != last; ++key) {
    count += (IsLiveAt(key->second, at) ? 1 : 0) - (key->second.base != nullptr ? 1 : 0);
  }
  return count;
}

void Batch::Put(std::string_view key, std::string value, int64_t lease) {
  PendingKeys::value_type& pending = Pend(key);
  const KeyRecordPtr old = NewestOf(pending.second);
  const Revision revision = head_.revision + 1;
  auto record = std::make_shared<KeyRecord>();
  record->create = old == nullptr ? revision : old->create;
  record->mod = revision;
  record->version = old == nullptr ? 1 : old->version + 1;
  record->lease = lease;
  record->value = std::move(value);
  Write(pending, std::move(record));
}

std::vector<Batch::Deleted> Batch::DeleteRange(const KeyRange& range) {
  std::vector<Deleted> deleted;
  // The usual deletion names one key, which costs no walk.
  if (range == KeyRange::FromRequest(range.first, {})) {
    PendingKeys::value_type& pending = Pend(range.first);
    KeyRecordPtr old = NewestOf(pending.second);
    if (old == nullptr) return deleted;
    deleted.push_back({.key = range.first, .record = std::move(old)});
    Delete(pending);
    return deleted;
  }
  {
    Walk walk = NewWalk(range, Direction::kAscending, reading());
    while (walk.Next()) {
      deleted.push_back({.key = std::string(walk.key()), .record = CopyKeyRecord(walk.record())});
    }
    KV_CHECK(walk.status().ok(), Describe(walk.status()));
  }
  for (const Deleted& each : deleted) {
    // What the walk saw of a key that is not pending is what the database holds.
    const auto at = pending_.try_emplace(each.key, PendingKey{.base = each.record, .versions = {}});
    Delete(*at.first);
  }
  return deleted;
}

void Batch::Delete(PendingKeys::value_type& key) {
  auto record = std::make_shared<KeyRecord>();
  record->mod = head_.revision + 1;
  record->tombstone = true;
  Write(key, std::move(record));
}

void Batch::Write(PendingKeys::value_type& key, std::shared_ptr<KeyRecord> record) {
  std::vector<KeyRecordPtr>& versions = key.second.versions;
  const KeyRecordPtr old = NewestOf(key.second);
  if (record->lease != 0) attached_[record->lease].push_back(&key);
  head_.keys += (record->tombstone ? 0 : 1) - (old == nullptr ? 0 : 1);
  const bool again = !versions.empty() && versions.back()->mod == record->mod;
  if (again) {
    // One revision holds one version of a key. The edge refuses commands that change a key twice;
    // here the last change wins, and its history stays where the first one put it.
    const auto change = std::find_if(changes_.rbegin(), changes_.rend(),
                                     [&key](const Change& each) { return each.key == &key; });
    change->is_live = !record->tombstone;
    versions.back() = std::move(record);
    return;
  }
  changes_.push_back({.revision = record->mod,
                      .sub = sub_++,
                      .key = &key,
                      .was_live = old != nullptr,
                      .is_live = !record->tombstone,
                      .previous = old == nullptr ? 0 : old->mod});
  versions.push_back(std::move(record));
}

std::optional<Lease> Batch::FindLease(int64_t id) const {
  const auto at = leases_.find(id);
  return at != leases_.end() ? at->second : store_.FindLease(id);
}

void Batch::SetLease(const Lease& lease) {
  if (!FindLease(lease.id)) ++lease_count_;
  leases_.insert_or_assign(lease.id, lease);
}

void Batch::EraseLease(int64_t id) {
  if (FindLease(id)) --lease_count_;
  leases_.insert_or_assign(id, std::nullopt);
}

std::vector<std::string> Batch::Attached(int64_t lease) const {
  std::vector<std::string> keys;
  const auto add_pending = [&keys, lease](const PendingKeys::value_type& key) {
    const KeyRecordPtr newest = NewestOf(key.second);
    if (newest != nullptr && newest->lease == lease) keys.push_back(key.first);
  };
  // Bounded on both sides, so that it does not pass over rows of other leases deleted lately.
  const std::string lower = AttachedLower(lease);
  const std::unique_ptr<Cursor> rows = base_->NewCursor(lower, AttachedUpper(lease));
  for (rows->Seek(lower); rows->Valid(); rows->Next()) {
    const std::string_view key = KeyOfAttached(rows->key());
    if (const auto at = pending_.find(key); at != pending_.end()) {
      add_pending(*at);
    } else {
      keys.emplace_back(key);
    }
  }
  KV_CHECK(rows->status().ok(), Describe(rows->status()));
  if (const auto at = attached_.find(lease); at != attached_.end()) {
    for (const PendingKeys::value_type* key : at->second) add_pending(*key);
  }
  std::ranges::sort(keys);
  keys.erase(std::ranges::unique(keys).begin(), keys.end());
  return keys;
}

void Batch::SetNote(std::string_view name, std::string value) {
  notes_.insert_or_assign(std::string(name), std::move(value));
}

void Batch::Finish() {
  if (sub_ > 0) ++head_.revision;
  sub_ = 0;
}

std::vector<RevisionEvents> Batch::Events() const {
  std::vector<RevisionEvents> revisions;
  for (const Change& change : changes_) {
    if (revisions.empty() || revisions.back().revision != change.revision) {
      revisions.push_back({.revision = change.revision, .events = {}});
    }
    const PendingKey& pending = change.key->second;
    const auto written = std::lower_bound(
        pending.versions.begin(), pending.versions.end(), change.revision,
        [](const KeyRecordPtr& version, Revision at) { return version->mod < at; });
    KeyRecordPtr previous = written == pending.versions.begin() ? pending.base : *(written - 1);
    if (MUTANT("mvcc.event_previous_of_another")) previous = pending.base;
    if (!change.was_live) previous = nullptr;
    revisions.back().events.push_back(
        {.key = change.key->first, .record = *written, .previous = std::move(previous)});
  }
  return revisions;
}

// Table by table, each in the order of its keys: a memtable finds the place of a row from where the
// row before it went, which halves what inserting costs against a key's rows side by side.
WriteSet Batch::Writes() const {
  WriteSet writes;
  std::string row;
  std::string bytes;
  const auto put_version = [&](std::string_view key, const KeyRecord& version) {
    row.clear();
    bytes.clear();
    AppendVersionKey(row, key, version.mod);
    AppendKeyRecord(bytes, version);
    writes.Put(row, bytes);
  };
  for (const auto& [key, pending] : pending_) {
    if (pending.versions.empty()) continue;
    // The newest stays in the table of current records, unless it is a tombstone.
    if (pending.versions.back()->tombstone && !MUTANT("mvcc.tombstone_not_written"))
      put_version(key, *pending.versions.back());
    for (size_t i = pending.versions.size(); --i > 0;) put_version(key, *pending.versions[i - 1]);
    if (pending.base != nullptr) put_version(key, *pending.base);
  }
  for (const auto& [key, pending] : pending_) {
    if (pending.versions.empty()) continue;
    row.clear();
    AppendCurrentKey(row, key);
    if (!pending.versions.back()->tombstone) {
      bytes.clear();
      AppendKeyRecord(bytes, *pending.versions.back());
      writes.Put(row, bytes);
    } else if (pending.base != nullptr) {
      writes.Delete(row);
    }
  }
  for (const auto& [key, pending] : pending_) {
    if (pending.versions.empty()) continue;
    const int64_t before = pending.base != nullptr ? pending.base->lease : 0;
    const int64_t after = pending.versions.back()->lease;  // A tombstone has none.
    if (before == after) continue;
    const bool stays =
        after == 0 ? MUTANT("mvcc.detachment_forgotten") : MUTANT("mvcc.attachment_not_moved");
    if (before != 0 && !stays) writes.Delete(AttachedKey(before, key));
    if (after != 0) writes.Put(AttachedKey(after, key), {});
  }
  for (const auto& [id, lease] : leases_) {
    if (lease) {
      writes.Put(LeaseKey(id), EncodeLease(*lease));
    } else {
      writes.Delete(LeaseKey(id));
    }
  }
  for (const Change& change : changes_) {
    row.clear();
    bytes.clear();
    AppendHistoryKey(row, change.revision, change.sub);
    AppendHistoryRow(bytes, {.was_live = change.was_live,
                             .is_live = change.is_live,
                             .previous = change.previous,
                             .key = change.key->first});
    writes.Put(row, bytes);
  }
  for (const auto& [name, value] : notes_) writes.Put(NoteKey(name), value);
  return writes;
}

}  // namespace kv

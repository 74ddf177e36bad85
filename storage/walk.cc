#include <iterator>
#include <utility>

#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv {

Walk::Walk(std::shared_ptr<const DatabaseView> view, KeyRange range, Direction direction,
           Revision at, Revision head, const PendingKeys* pending)
    : view_(std::move(view)), range_(std::move(range)), direction_(direction), at_(at) {
  if (range_.empty()) return;
  current_ = view_->NewCursor(CurrentLower(range_), CurrentUpper(range_));
  if (at_ < head) {
    versions_ = view_->NewCursor(VersionLower(range_), VersionUpper(range_));
  } else if (pending != nullptr) {
    pending_begin_ = pending->lower_bound(range_.first);
    pending_end_ = range_.unbounded() ? pending->end() : pending->lower_bound(range_.end);
  }
}

Walk::~Walk() = default;
Walk::Walk(Walk&&) noexcept = default;

absl::Status Walk::status() const { return status_; }

bool Walk::Ahead(std::string_view a, std::string_view b) const {
  return direction_ == Direction::kAscending ? a < b : a > b;
}

void Walk::Start() {
  if (direction_ == Direction::kAscending) {
    current_->Seek(CurrentLower(range_));
    if (versions_ != nullptr) versions_->Seek(VersionLower(range_));
  } else {
    current_->SeekForPrev(CurrentUpper(range_));
    if (versions_ != nullptr) versions_->SeekForPrev(VersionUpper(range_));
  }
  ReadVersionKey();
}

const PendingKeys::value_type* Walk::PendingKeyHere() const {
  if (pending_begin_ == pending_end_) return nullptr;
  return direction_ == Direction::kAscending ? &*pending_begin_ : &*std::prev(pending_end_);
}

void Walk::ReadVersionKey() {
  if (versions_ == nullptr || !versions_->Valid()) return;
  std::optional<VersionOf> version = ParseVersionKey(versions_->key());
  if (!version) {
    status_ = MakeStatus(absl::StatusCode::kDataLoss, "a key of the version table is malformed");
    return;
  }
  version_key_ = std::move(version->key);
  version_revision_ = version->revision;
}

bool Walk::Next() {
  if (current_ == nullptr || !status_.ok()) return false;
  if (started_) {
    LeaveKey();
  } else {
    started_ = true;
    Start();
  }
  while (status_.ok()) {
    const bool has_current = current_->Valid();
    const bool has_version = versions_ != nullptr && versions_->Valid();
    const PendingKeys::value_type* const pending = PendingKeyHere();
    std::optional<std::string_view> next;
    if (has_current) next = KeyOfCurrent(current_->key());
    if (has_version && (!next || Ahead(version_key_, *next))) next = version_key_;
    if (pending != nullptr && (!next || Ahead(pending->first, *next))) next = pending->first;
    if (!next) {
      status_ = current_->status();
      if (status_.ok() && versions_ != nullptr) status_ = versions_->status();
      return false;
    }
    key_.assign(*next);
    const bool in_current = has_current && KeyOfCurrent(current_->key()) == key_;
    const bool in_versions = has_version && version_key_ == key_;
    const bool in_pending = pending != nullptr && pending->first == key_;
    if (Resolve(in_current, in_versions, in_pending ? &pending->second : nullptr)) return true;
    LeaveKey();
  }
  return false;
}

void Walk::LeaveKey() {
  const bool ascending = direction_ == Direction::kAscending;
  if (current_->Valid() && KeyOfCurrent(current_->key()) == key_) {
    ascending ? current_->Next() : current_->Prev();
  }
  if (versions_ != nullptr && versions_->Valid() && version_key_ == key_) {
    ascending ? versions_->Next() : versions_->Prev();
    ReadVersionKey();
    // A step is cheap where a key has one version; a seek passes any number.
    if (versions_->Valid() && version_key_ == key_) {
      if (ascending) {
        versions_->Seek(VersionsEnd(key_));
      } else {
        versions_->SeekForPrev(VersionLower({.first = key_, .end = {}}));
      }
      ReadVersionKey();
    }
  }
  if (const PendingKeys::value_type* const pending = PendingKeyHere();
      pending != nullptr && pending->first == key_) {
    ascending ? ++pending_begin_ : --pending_end_;
  }
}

bool Walk::Decode(std::string_view bytes) {
  if (DecodeKeyRecord(bytes, record_)) return !record_.tombstone;
  status_ = MakeStatus(absl::StatusCode::kDataLoss, "a record of the key table is malformed");
  return false;
}

bool Walk::Resolve(bool in_current, bool in_versions, const PendingKey* pending) {
  if (pending != nullptr) {
    for (auto at = pending->versions.rbegin(); at != pending->versions.rend(); ++at) {
      const KeyRecord& version = **at;
      if (version.mod > at_) continue;
      record_ = {.create = version.create,
                 .mod = version.mod,
                 .version = version.version,
                 .lease = version.lease,
                 .tombstone = version.tombstone,
                 .value = version.value};
      return !version.tombstone;
    }
  }
  if (in_current) {
    if (!Decode(current_->value())) return false;
    if (record_.mod <= at_) return true;
  }
  return in_versions && ResolveVersion();
}

bool Walk::ResolveVersion() {
  // The newest version comes first: ascending, that is where versions_ stands.
  Cursor* cursor = versions_.get();
  if (direction_ == Direction::kAscending && version_revision_ <= at_) {
    return Decode(cursor->value());
  }
  if (direction_ == Direction::kDescending) {
    if (lookup_ == nullptr) lookup_ = view_->NewCursor(VersionLower(range_), VersionUpper(range_));
    cursor = lookup_.get();
  }
  cursor->Seek(VersionKey(key_, at_));
  if (!cursor->Valid()) {
    status_ = cursor->status();
    return false;
  }
  if (cursor == versions_.get()) ReadVersionKey();
  const std::optional<VersionOf> found = ParseVersionKey(cursor->key());
  if (!found || found->key != key_) return false;
  return Decode(cursor->value());
}

}  // namespace kv

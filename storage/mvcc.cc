#include "storage/mvcc.h"

#include <utility>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kFormatNote = "format";
constexpr std::string_view kCompactionNote = "compaction";

// The history that opening after a crash must pass to bring persisted counts up to date is at most
// this long, or eight times the rows that persisting them writes.
constexpr size_t kChangesUnpersistedMin = 16384;

absl::Status Unusable(std::string_view what) {
  return MakeStatus(absl::StatusCode::kDataLoss,
                    "the state database {}; remove the member's state directory and let it fetch a "
                    "snapshot from the other members",
                    what);
}

bool IsLive(const KeyRecordPtr& record) { return record != nullptr && !record->tombstone; }

}  // namespace

absl::Status CompactedError() {
  return MakeStatus(absl::StatusCode::kOutOfRange,
                    "etcdserver: mvcc: required revision has been compacted");
}
absl::Status FutureRevisionError() {
  return MakeStatus(absl::StatusCode::kOutOfRange,
                    "etcdserver: mvcc: required revision is a future revision");
}

std::string EncodeHead(const Head& head) {
  std::string out;
  PutU64(out, head.applied.index);
  PutU64(out, head.applied.term);
  PutU64(out, static_cast<uint64_t>(head.revision));
  PutU64(out, static_cast<uint64_t>(head.compacted));
  PutU64(out, static_cast<uint64_t>(head.keys));
  PutU64(out, head.digest);
  return out;
}

absl::StatusOr<Head> DecodeHead(std::string_view bytes) {
  ByteReader reader(bytes);
  Head head;
  head.applied.index = reader.U64();
  head.applied.term = reader.U64();
  head.revision = static_cast<Revision>(reader.U64());
  head.compacted = static_cast<Revision>(reader.U64());
  head.keys = static_cast<int64_t>(reader.U64());
  head.digest = reader.U64();
  if (!reader.AtEnd() || head.revision < 1 || head.compacted > head.revision || head.keys < 0) {
    return Unusable("holds a malformed head");
  }
  return head;
}

std::string Mvcc::EncodeCompaction(const Compaction& compaction) {
  std::string out;
  PutU64(out, static_cast<uint64_t>(compaction.finished));
  PutU64(out, static_cast<uint64_t>(compaction.target));
  PutU64(out, static_cast<uint64_t>(compaction.next.revision));
  PutU32(out, compaction.next.sub);
  return out;
}

absl::StatusOr<Mvcc::Compaction> Mvcc::DecodeCompaction(std::string_view bytes) {
  ByteReader reader(bytes);
  Compaction compaction;
  compaction.finished = static_cast<Revision>(reader.U64());
  compaction.target = static_cast<Revision>(reader.U64());
  compaction.next.revision = static_cast<Revision>(reader.U64());
  compaction.next.sub = reader.U32();
  if (!reader.AtEnd()) return Unusable("holds a malformed note of its compaction");
  return compaction;
}

absl::Status Mvcc::Create(Database& database, Position applied,
                          const std::map<std::string, std::string, std::less<>>& notes) {
  WriteSet writes;
  std::string format;
  PutU32(format, kFormat);
  writes.Put(NoteKey(kFormatNote), std::move(format));
  Head head;
  head.applied = applied;
  writes.Put(NoteKey(kHeadNote), EncodeHead(head));
  writes.Put(NoteKey(kCompactionNote), EncodeCompaction({}));
  for (const auto& [name, value] : notes) writes.Put(NoteKey(name), value);
  RETURN_IF_ERROR(database.Write(writes, Sync::kNo));
  return database.Flush();
}

absl::StatusOr<std::shared_ptr<Mvcc>> Mvcc::Open(std::shared_ptr<Database> database,
                                                 const MvccOptions& options) {
  Found found;
  found.data = database->View();
  ASSIGN_OR_RETURN(const std::optional<std::string> format, found.data->Get(NoteKey(kFormatNote)));
  if (!format) return Unusable("is empty or not one of kvd's");
  ByteReader reader(*format);
  const uint32_t version = reader.U32();
  if (!reader.AtEnd()) return Unusable("holds a malformed format number");
  if (version > kFormat) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "the state database has format {}; this kvd reads formats up to {}: start "
                      "the newer release that wrote it",
                      version, kFormat);
  }
  ASSIGN_OR_RETURN(const std::optional<std::string> head, found.data->Get(NoteKey(kHeadNote)));
  if (!head) return Unusable("does not say how far it is applied");
  ASSIGN_OR_RETURN(found.head, DecodeHead(*head));
  ASSIGN_OR_RETURN(const std::optional<std::string> compaction,
                   found.data->Get(NoteKey(kCompactionNote)));
  if (!compaction) return Unusable("does not say how far it is compacted");
  ASSIGN_OR_RETURN(found.compaction, DecodeCompaction(*compaction));
  ASSIGN_OR_RETURN(const bool loaded, LoadCounts(found));
  if (!loaded) RETURN_IF_ERROR(RebuildCounts(found));
  RETURN_IF_ERROR(LoadLeases(found));

  // No make_shared: the constructor is private.
  std::shared_ptr<Mvcc> store(new Mvcc(std::move(database), options, std::move(found)));
  const MutexLock lock(store->write_mutex_);
  RETURN_IF_ERROR(store->SplitOversized());
  RETURN_IF_ERROR(store->PersistCounts());
  return store;
}

Mvcc::Mvcc(std::shared_ptr<Database> database, const MvccOptions& options, Found found)
    : database_(std::move(database)),
      cache_(options.cache_bytes),
      data_(std::move(found.data)),
      head_(found.head),
      counts_(std::move(found.counts)),
      leases_(std::move(found.leases)),
      compaction_(found.compaction),
      revision_(found.head.revision) {}

Mvcc::~Mvcc() = default;

// The persisted runs stand at an earlier revision than the head where the database flushed by
// itself before a crash. Each row of the history between the two says how it changed the count.
absl::StatusOr<bool> Mvcc::LoadCounts(Found& found) {
  ASSIGN_OR_RETURN(const std::optional<std::string> note, found.data->Get(NoteKey(kCountsNote)));
  if (!note) return false;
  ByteReader reader(*note);
  const auto revision = static_cast<Revision>(reader.U64());
  if (!reader.AtEnd() || revision > found.head.revision || revision < found.head.compacted) {
    return false;
  }
  const std::unique_ptr<Cursor> rows = found.data->NewCursor(RunLower(), RunUpper());
  for (rows->Seek(RunLower()); rows->Valid(); rows->Next()) {
    if (!found.counts.Load(rows->key(), rows->value())) return false;
  }
  RETURN_IF_ERROR(rows->status());
  const std::unique_ptr<Cursor> history =
      found.data->NewCursor(HistoryLower(revision + 1), HistoryUpper(found.head.revision));
  for (history->Seek(HistoryLower(revision + 1)); history->Valid(); history->Next()) {
    const std::optional<HistoryRow> row = DecodeHistoryRow(history->value());
    if (!row) return Unusable("holds a malformed row of the history");
    const int64_t delta = (row->is_live ? 1 : 0) - (row->was_live ? 1 : 0);
    if (delta != 0 && !found.counts.Add(row->key, delta)) return false;
  }
  RETURN_IF_ERROR(history->status());
  return found.counts.keys() == found.head.keys;
}

absl::Status Mvcc::RebuildCounts(Found& found) {
  Counts counts;
  const std::unique_ptr<Cursor> rows = found.data->NewCursor(RunLower(), RunUpper());
  for (rows->Seek(RunLower()); rows->Valid(); rows->Next()) counts.Forget(rows->key());
  RETURN_IF_ERROR(rows->status());
  const KeyRange all = KeyRange::Everything();
  const std::unique_ptr<Cursor> keys = found.data->NewCursor(CurrentLower(all), CurrentUpper(all));
  for (keys->Seek(CurrentLower(all)); keys->Valid(); keys->Next()) {
    counts.Append(KeyOfCurrent(keys->key()));
  }
  RETURN_IF_ERROR(keys->status());
  if (counts.keys() != found.head.keys) {
    return Unusable(
        fmt::format("holds {} keys where its head says {}", counts.keys(), found.head.keys));
  }
  found.counts = std::move(counts);
  return absl::OkStatus();
}

absl::Status Mvcc::LoadLeases(Found& found) {
  const std::unique_ptr<Cursor> rows = found.data->NewCursor(LeaseLower(), LeaseUpper());
  for (rows->Seek(LeaseLower()); rows->Valid(); rows->Next()) {
    const std::optional<int64_t> id = ParseLeaseKey(rows->key());
    std::optional<Lease> lease;
    if (id) lease = DecodeLease(*id, rows->value());
    if (!lease) return Unusable("holds a malformed lease");
    found.leases.emplace(*id, *lease);
  }
  return rows->status();
}

std::optional<Lease> Mvcc::FindLease(int64_t id) const {
  const MutexLock lock(state_mutex_);
  const auto at = leases_.find(id);
  if (at == leases_.end()) return std::nullopt;
  return at->second;
}

std::vector<Lease> Mvcc::Leases() const {
  std::vector<Lease> leases;
  const MutexLock lock(state_mutex_);
  leases.reserve(leases_.size());
  for (const auto& [id, lease] : leases_) leases.push_back(lease);
  return leases;
}

size_t Mvcc::lease_count() const {
  const MutexLock lock(state_mutex_);
  return leases_.size();
}

Head Mvcc::head() const {
  const MutexLock lock(state_mutex_);
  return head_;
}

View Mvcc::Latest(const KeyRange* counted) const {
  const MutexLock lock(state_mutex_);
  View view(shared_from_this(), data_, head_, head_.revision);
  if (counted != nullptr) {
    view.begun_ = View::BegunCount{.range = *counted, .sum = counts_.SumOf(*counted)};
  }
  return view;
}

absl::StatusOr<View> Mvcc::At(Revision revision, const KeyRange* counted) const {
  View view = Latest(counted);
  if (revision <= 0 || revision == view.head_.revision) return view;
  if (revision > view.head_.revision) return FutureRevisionError();
  if (revision < view.head_.compacted && !MUTANT("mvcc.compacted_revision_is_read")) {
    MARK("mvcc.read_of_compacted_revision");
    return CompactedError();
  }
  view.revision_ = revision;
  return view;
}

absl::StatusOr<Mvcc::Current> Mvcc::GetCurrent(std::string_view key) const {
  const Revision revision = revision_.load(std::memory_order_acquire);
  // A commit sets the cache first and the revision last: what holds since `revision` or earlier is
  // the state at `revision`. What holds since later belongs to a commit that is being published;
  // the view then still answers from before it.
  if (auto found = cache_.Find(key); found && found->since <= revision) {
    return Current{.record = std::move(found->record), .revision = revision};
  }
  const View view = Latest();
  ASSIGN_OR_RETURN(KeyRecordPtr record, view.Get(key));
  return Current{.record = std::move(record), .revision = view.revision()};
}

absl::StatusOr<Head> Mvcc::DurableHead() const {
  ASSIGN_OR_RETURN(const std::optional<std::string> head,
                   database_->GetPersisted(NoteKey(kHeadNote)));
  if (!head) return Unusable("has nothing on the disk");
  return DecodeHead(*head);
}

Revision Mvcc::compaction_finished() const {
  const MutexLock lock(state_mutex_);
  return compaction_.finished;
}

absl::Status Mvcc::Commit(Batch batch, Position applied, uint64_t digest) {
  KV_CHECK(batch.sub_ == 0, "a command of the batch is not finished");
  batch.head_.applied = applied;
  batch.head_.digest = digest;
  WriteSet writes = batch.Writes();
  const bool late = MUTANT("mvcc.head_written_late") && applied.index % 2 == 1;
  if (!late) writes.Put(NoteKey(kHeadNote), EncodeHead(batch.head_));

  const MutexLock lock(write_mutex_);
  if (MUTANT("mvcc.head_written_apart")) {
    WriteSet early;
    early.Put(NoteKey(kHeadNote), EncodeHead(batch.head_));
    RETURN_IF_ERROR(database_->Write(early, Sync::kNo));
  }
  RETURN_IF_ERROR(database_->Write(writes, Sync::kNo));
  const bool compacts = head().compacted != batch.head_.compacted;
  Publish(batch);
  changes_since_persisted_ += batch.changes_.size();
  RETURN_IF_ERROR(SplitOversized());
  // Invariant: counts are persisted before the compactor deletes history that brings older ones up
  // to date.
  if (compacts) return PersistCounts();
  if (changes_since_persisted_ < kChangesUnpersistedMin) return absl::OkStatus();
  size_t rows = 0;
  {
    const MutexLock state_lock(state_mutex_);
    rows = counts_.dirty();
  }
  return changes_since_persisted_ < 8 * rows ? absl::OkStatus() : PersistCounts();
}

void Mvcc::Publish(const Batch& batch) {
  for (const auto& [key, pending] : batch.pending_) {
    if (pending.versions.empty()) continue;
    const KeyRecordPtr& last = pending.versions.back();
    if (last->tombstone && MUTANT("mvcc.cache_keeps_deleted")) continue;
    cache_.Set(key, last->tombstone ? nullptr : last, last->mod);
  }
  // The old view is let go outside the lock: releasing it takes the database's own.
  std::shared_ptr<const DatabaseView> data = database_->View();
  const MutexLock lock(state_mutex_);
  data_.swap(data);
  head_ = batch.head_;
  for (const auto& [key, pending] : batch.pending_) {
    if (pending.versions.empty()) continue;
    const int64_t delta =
        (IsLive(pending.versions.back()) ? 1 : 0) - (pending.base != nullptr ? 1 : 0);
    if (delta != 0) KV_CHECK(counts_.Add(key, delta), "a run of live keys counts below zero");
  }
  KV_CHECK(counts_.keys() == head_.keys, "the counts of live keys have gone astray");
  for (const auto& [id, lease] : batch.leases_) {
    if (lease) {
      leases_.insert_or_assign(id, *lease);
    } else {
      leases_.erase(id);
    }
  }
  revision_.store(head_.revision, std::memory_order_release);
}

// Nobody else writes meanwhile, so what the walk sees is what the counts count.
absl::Status Mvcc::SplitOversized() {
  for (;;) {
    std::optional<Counts::Oversized> run;
    std::shared_ptr<const DatabaseView> data;
    {
      const MutexLock lock(state_mutex_);
      run = counts_.FindOversized();
      data = data_;
    }
    if (!run) return absl::OkStatus();
    const int64_t left = run->keys / 2;
    const std::unique_ptr<Cursor> keys =
        data->NewCursor(CurrentLower(run->range), CurrentUpper(run->range));
    keys->Seek(CurrentLower(run->range));
    for (int64_t passed = 0; passed < left && keys->Valid(); ++passed) keys->Next();
    RETURN_IF_ERROR(keys->status());
    KV_CHECK(keys->Valid(), "a run of live keys is shorter than its count");
    std::string middle(KeyOfCurrent(keys->key()));
    const MutexLock lock(state_mutex_);
    counts_.Split(run->range.first, std::move(middle), run->keys - left);
  }
}

absl::Status Mvcc::PersistCounts() {
  changes_since_persisted_ = 0;
  WriteSet writes;
  {
    const MutexLock lock(state_mutex_);
    counts_.Persist(writes);
    std::string revision;
    PutU64(revision, static_cast<uint64_t>(head_.revision));
    writes.Put(NoteKey(kCountsNote), std::move(revision));
  }
  return database_->Write(writes, Sync::kNo);
}

absl::Status Mvcc::Flush() {
  {
    const MutexLock lock(write_mutex_);
    if (changes_since_persisted_ > 0) RETURN_IF_ERROR(PersistCounts());
  }
  return database_->Flush();
}

absl::StatusOr<View> Mvcc::Checkpoint(const std::string& path) {
  // Most of the work of a checkpoint is flushing; done first, it holds up no commit.
  RETURN_IF_ERROR(Flush());
  const MutexLock lock(write_mutex_);
  RETURN_IF_ERROR(PersistCounts());
  RETURN_IF_ERROR(database_->Checkpoint(path));
  return Latest();
}

}  // namespace kv

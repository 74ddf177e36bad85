#include "tests/sim/sim_disk.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "server/raft/members.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv::sim {
namespace {

constexpr std::string_view kImage = "/IMAGE";
constexpr std::string_view kStore = "/STORE";

// As storage/README.md describes the log: what judges read must not go through the code they judge.
std::string EntryKey(Index index) {
  std::string key(9, 'e');
  for (size_t i = 0; i < 8; ++i) key[1 + i] = static_cast<char>(index >> (8 * (7 - i)));
  return key;
}

uint64_t Integer(std::string_view bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 8; i-- > 0;) value = (value << 8) | static_cast<unsigned char>(bytes[at + i]);
  return value;
}

size_t KindOf(std::string_view key) {
  return key.empty() ? 0 : static_cast<unsigned char>(key.front());
}

absl::Status Gone() {
  return MakeStatus(absl::StatusCode::kUnavailable, "the process that opened it is dead");
}
absl::Status Full() {
  return MakeStatus(absl::StatusCode::kResourceExhausted, "no space left on device");
}

}  // namespace

const SimStore::Version* SimStore::Find(const Versions& versions, Sequence at) {
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (version->sequence <= at) return &*version;
  }
  return nullptr;
}

bool SimStore::IsRead(Sequence from, Sequence to) const {
  if (durable_ >= from && durable_ < to) return true;
  const auto pin = pins_.lower_bound(from);
  return pin != pins_.end() && pin->first < to;
}

void SimStore::Put(Versions& versions, std::optional<std::string> value) {
  if (!versions.empty() && versions.back().sequence == last_) {
    versions.back().value = std::move(value);
    return;
  }
  size_t kept = 0;
  for (size_t i = 0; i < versions.size(); ++i) {
    const Sequence next = i + 1 < versions.size() ? versions[i + 1].sequence : last_;
    if (!IsRead(versions[i].sequence, next)) continue;
    if (kept != i) versions[kept] = std::move(versions[i]);
    ++kept;
  }
  versions.resize(kept);
  versions.push_back({.sequence = last_, .value = std::move(value)});
}

void SimStore::DeleteRow(Rows::iterator row) {
  if (!row->second.back().value) return;
  Put(row->second, std::nullopt);
  graves_.emplace_back(last_, row->first);
}

SimStore::Rows::iterator SimStore::RowOf(std::string_view key) {
  Rows::iterator& written = written_[KindOf(key)];
  auto row = rows_.end();
  const int order = written == rows_.end() ? -1 : key.compare(written->first);
  if (order >= 0) row = order == 0 ? written : std::next(written);
  if (order < 0 || (row != rows_.end() && row->first < key)) row = rows_.lower_bound(key);
  if (row == rows_.end() || row->first != key) row = rows_.emplace_hint(row, key, Versions());
  written = row;
  return row;
}

void SimStore::Erase(Rows::iterator row) {
  Rows::iterator& written = written_[KindOf(row->first)];
  if (written == row) written = rows_.end();
  rows_.erase(row);
}

void SimStore::Apply(const WriteSet& writes) {
  ++last_;
  for (const WriteSet::Change& change : writes.changes()) {
    if (change.value) {
      Put(RowOf(change.key)->second, std::string(*change.value));
    } else if (change.upper.empty()) {
      if (const auto row = rows_.find(change.key); row != rows_.end()) DeleteRow(row);
    } else {
      const auto end = rows_.lower_bound(change.upper);
      for (auto row = rows_.lower_bound(change.key); row != end; ++row) DeleteRow(row);
    }
  }
  Bury();
}

// Deleted rows go for good once every reader is past them.
void SimStore::Bury() {
  while (!graves_.empty()) {
    const auto& [sequence, key] = graves_.front();
    if (durable_ < sequence || (!pins_.empty() && pins_.begin()->first < sequence)) return;
    const auto row = rows_.find(key);
    if (row != rows_.end() && row->second.back().sequence == sequence &&
        !row->second.back().value) {
      Erase(row);
    }
    graves_.pop_front();
  }
}

void SimStore::MakeDurable() {
  durable_ = last_;
  Bury();
}

void SimStore::RollBackTo(Sequence kept) {
  KV_CHECK(kept == durable_ || kept == last_, "batches in between are not kept");
  written_.fill(rows_.end());
  for (auto row = rows_.begin(); row != rows_.end();) {
    Versions& versions = row->second;
    while (!versions.empty() && versions.back().sequence > kept) versions.pop_back();
    const bool deleted = versions.empty() || (versions.size() == 1 && !versions.back().value);
    row = deleted ? rows_.erase(row) : std::next(row);
  }
  last_ = kept;
  std::erase_if(graves_, [this](const auto& grave) { return grave.first > last_; });
}

std::shared_ptr<SimStore> SimStore::Copy() const {
  auto copy = std::make_shared<SimStore>(write_ahead_log_);
  copy->rows_ = rows_;
  copy->written_.fill(copy->rows_.end());
  copy->last_ = last_;
  copy->durable_ = durable_;
  copy->graves_ = graves_;
  return copy;
}

const std::string* SimStore::Get(std::string_view key, Sequence at) const {
  Rows::const_iterator row = written_[KindOf(key)];
  if (row == rows_.end() || row->first != key) row = rows_.find(key);
  if (row == rows_.end()) return nullptr;
  const Version* version = Find(row->second, at);
  return version == nullptr || !version->value ? nullptr : &*version->value;
}

void SimStore::Unpin(Sequence at) {
  const auto pin = pins_.find(at);
  if (--pin->second == 0) pins_.erase(pin);
}

bool SimStore::FlipBit(std::string_view key, uint64_t bit) {
  const auto row = rows_.find(key);
  if (row == rows_.end() || !row->second.back().value || row->second.back().value->empty()) {
    return false;
  }
  std::string& value = *row->second.back().value;
  const size_t at = bit / 8 % value.size();
  value[at] = static_cast<char>(value[at] ^ (1 << (bit % 8)));
  return true;
}

std::string SimStore::Encode(Sequence at) const {
  std::string image;
  for (const auto& [key, versions] : rows_) {
    const Version* version = Find(versions, at);
    if (version == nullptr || !version->value) continue;
    PutBytes(image, key);
    PutBytes(image, *version->value);
  }
  return image;
}

void SimStore::Decode(std::string_view image) {
  ++last_;
  ByteReader reader(image);
  while (!reader.AtEnd()) {
    const std::string_view key = reader.Bytes();
    const std::string_view value = reader.Bytes();
    KV_CHECK(reader.ok(), "a checkpoint that was verified is cut off");
    rows_[std::string(key)].push_back({.sequence = last_, .value = std::string(value)});
  }
  MakeDurable();
}

class SimView;

class SimCursor final : public Cursor {
 public:
  SimCursor(std::shared_ptr<const SimView> view, const SimStore* store, SimStore::Sequence at,
            std::string_view lower, std::string_view upper)
      : view_(std::move(view)),
        store_(store),
        sequence_(at),
        lower_(lower),
        upper_(upper),
        at_(store->rows_.end()) {}

  void Seek(std::string_view key) override {
    at_ = store_->rows_.lower_bound(std::max(key, std::string_view(lower_)));
    SkipForward();
  }
  void SeekForPrev(std::string_view key) override {
    at_ = store_->rows_.upper_bound(key);
    if (!upper_.empty() && key >= upper_) at_ = store_->rows_.lower_bound(upper_);
    StepBack();
  }
  void Next() override {
    ++at_;
    SkipForward();
  }
  void Prev() override { StepBack(); }
  bool Valid() const override { return version_ != nullptr; }
  std::string_view key() const override { return at_->first; }
  std::string_view value() const override { return *version_->value; }
  absl::Status status() const override { return absl::OkStatus(); }

 private:
  bool Look() {
    version_ = SimStore::Find(at_->second, sequence_);
    if (version_ != nullptr && !version_->value) version_ = nullptr;
    return version_ != nullptr;
  }
  void SkipForward() {
    version_ = nullptr;
    for (; at_ != store_->rows_.end() && (upper_.empty() || at_->first < upper_); ++at_) {
      if (Look()) return;
    }
  }
  void StepBack() {
    version_ = nullptr;
    while (at_ != store_->rows_.begin()) {
      --at_;
      if (at_->first < lower_) return;
      if (Look()) return;
    }
  }

  const std::shared_ptr<const SimView> view_;  // What it pins is what keeps the rows.
  const SimStore* const store_;
  const SimStore::Sequence sequence_;
  const std::string lower_;
  const std::string upper_;
  SimStore::Rows::const_iterator at_;
  const SimStore::Version* version_ = nullptr;
};

class SimView final : public DatabaseView, public std::enable_shared_from_this<SimView> {
 public:
  explicit SimView(std::shared_ptr<SimStore> store)
      : store_(std::move(store)), at_(store_->last()) {
    store_->Pin(at_);
  }
  ~SimView() override { store_->Unpin(at_); }
  SimView(const SimView&) = delete;
  SimView& operator=(const SimView&) = delete;

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    const std::string* value = store_->Get(key, at_);
    return value == nullptr ? std::nullopt : std::optional(*value);
  }
  std::unique_ptr<Cursor> NewCursor(std::string_view lower, std::string_view upper) const override {
    return std::make_unique<SimCursor>(shared_from_this(), store_.get(), at_, lower, upper);
  }

 private:
  const std::shared_ptr<SimStore> store_;
  const SimStore::Sequence at_;
};

class SimDatabase final : public Database {
 public:
  SimDatabase(SimDisk* disk, std::shared_ptr<SimStore> store)
      : disk_(disk), life_(disk->life_), store_(std::move(store)) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    return At(key, store_->last());
  }
  absl::StatusOr<std::optional<std::string>> GetPersisted(std::string_view key) const override {
    return At(key, store_->durable());
  }
  std::shared_ptr<const DatabaseView> View() const override {
    return std::make_shared<SimView>(store_);
  }

  absl::Status Write(const WriteSet& writes, Sync sync) override {
    KV_CHECK(sync == Sync::kNo || store_->write_ahead_log(), "a synced write needs a log");
    if (disk_->life_ != life_) return Gone();
    if (disk_->full_ && store_->write_ahead_log()) return Full();
    if (sync == Sync::kYes) {
      ++disk_->syncs_;
      const SyncFault fault = std::exchange(disk_->next_sync_, SyncFault::kNone);
      if (fault == SyncFault::kUnheard) {
        store_->Apply(writes);
        store_->MakeDurable();
      }
      if (fault != SyncFault::kNone) {
        return MakeStatus(absl::StatusCode::kUnavailable, "input/output error");
      }
    }
    store_->Apply(writes);
    const bool by_itself = sync == Sync::kNo && !store_->write_ahead_log() &&
                           disk_->flush_one_in_ > 0 &&
                           disk_->scheduler_->Below(disk_->flush_one_in_) == 0;
    if (sync == Sync::kYes || by_itself) store_->MakeDurable();
    return absl::OkStatus();
  }
  absl::Status Flush() override {
    if (disk_->life_ != life_) return Gone();
    if (disk_->full_) return Full();
    store_->MakeDurable();
    return absl::OkStatus();
  }
  absl::Status Checkpoint(const std::string& path) override {
    RETURN_IF_ERROR(Flush());
    RETURN_IF_ERROR(FromRocks(disk_->env()->CreateDir(path), "checkpoint"));
    RETURN_IF_ERROR(WriteFileAtomically(disk_->env(), path + std::string(kImage),
                                        store_->Encode(store_->last())));
    return SyncDirectory(disk_->env(), ParentDirectory(path));
  }
  uint64_t SizeOnDisk() const override { return 0; }
  uint64_t UnflushedBytes() const override { return store_->last() - store_->durable(); }

 private:
  absl::StatusOr<std::optional<std::string>> At(std::string_view key, uint64_t at) const {
    const std::string* value = store_->Get(key, at);
    return value == nullptr ? std::nullopt : std::optional(*value);
  }

  SimDisk* const disk_;
  const uint64_t life_;
  const std::shared_ptr<SimStore> store_;
};

SimDisk::SimDisk(Scheduler* scheduler, bool real_rocksdb)
    : scheduler_(scheduler),
      real_rocksdb_(real_rocksdb),
      files_(std::make_unique<test::FaultDisk>(test::DiskImage(), test::FaultDisk::Trace::kNone)) {}

OpenDatabase SimDisk::opener() {
  if (real_rocksdb_) return {};
  return [this](const std::string& path, const DatabaseOptions& options) {
    return Open(path, options);
  };
}

absl::StatusOr<std::unique_ptr<Database>> SimDisk::Open(const std::string& path,
                                                        const DatabaseOptions& options) {
  ASSIGN_OR_RETURN(const bool exists, FileExists(env(), path));
  std::optional<std::string> name;
  std::optional<std::string> image;
  if (exists) {
    ASSIGN_OR_RETURN(name, ReadFile(env(), path + std::string(kStore)));
    ASSIGN_OR_RETURN(image, ReadFile(env(), path + std::string(kImage)));
  }
  if (!name && !image && !options.create_if_missing) {
    return MakeStatus(absl::StatusCode::kNotFound, "there is no database in {}", path);
  }
  if (!exists) RETURN_IF_ERROR(CreateDirectory(env(), path));
  uint64_t id = 0;
  std::shared_ptr<SimStore> store;
  if (name) {
    ByteReader reader(*name);
    id = reader.U64();
    store = stores_.at(id);
    // What recovery reads must not vanish later (storage/README.md).
    if (options.write_ahead_log) store->MakeDurable();
  } else {
    store = std::make_shared<SimStore>(options.write_ahead_log);
    if (image) store->Decode(*image);
    id = stores_.size() + 1;
    stores_.emplace(id, store);
    std::string bytes;
    PutU64(bytes, id);
    RETURN_IF_ERROR(WriteFileAtomically(env(), path + std::string(kStore), bytes));
  }
  if (options.write_ahead_log) log_store_ = id;
  return std::make_unique<SimDatabase>(this, std::move(store));
}

void SimDisk::CutPower() {
  ++life_;
  next_sync_ = SyncFault::kNone;
  const uint64_t policy = scheduler_->Below(std::size(test::kPowerLosses));
  const uint64_t seed = scheduler_->Draw();
  test::DiskImage image = files_->image().AfterPowerLoss(test::kPowerLosses[policy], seed);
  files_->FailAt(0, test::FaultDisk::Fault::kCut, test::FaultDisk::Repeat::kEver);
  replaced_.push_back(std::exchange(
      files_, std::make_unique<test::FaultDisk>(std::move(image), test::FaultDisk::Trace::kNone)));
  for (auto& [id, store] : stores_) {
    const bool lucky = scheduler_->Below(4) == 0;
    store->RollBackTo(lucky ? store->last() : store->durable());
    store->MakeDurable();
  }
  if (full_) SetFull(true);
}

void SimDisk::KillProcess() {
  ++life_;
  next_sync_ = SyncFault::kNone;
  test::DiskImage image = files_->image();
  files_->FailAt(0, test::FaultDisk::Fault::kCut, test::FaultDisk::Repeat::kEver);
  replaced_.push_back(std::exchange(
      files_, std::make_unique<test::FaultDisk>(std::move(image), test::FaultDisk::Trace::kNone)));
  for (auto& [id, store] : stores_) {
    // The page cache stays, memtables do not.
    if (!store->write_ahead_log()) {
      store->RollBackTo(store->durable());
    }
  }
  if (full_) SetFull(true);
}

std::unique_ptr<SimDisk> SimDisk::Copy() const {
  auto copy = std::make_unique<SimDisk>(scheduler_, real_rocksdb_);
  copy->files_ = std::make_unique<test::FaultDisk>(files_->image(), test::FaultDisk::Trace::kNone);
  for (const auto& [id, store] : stores_) copy->stores_.emplace(id, store->Copy());
  copy->log_store_ = log_store_;
  copy->flush_one_in_ = flush_one_in_;
  return copy;
}

void SimDisk::SetFull(bool full) {
  full_ = full;
  if (full) {
    files_->FailAt(0, test::FaultDisk::Fault::kNoSpace, test::FaultDisk::Repeat::kEver);
  } else {
    files_->Heal();
  }
}

SimStore* SimDisk::LogStoreHere() const {
  const auto store = stores_.find(log_store_);
  return store == stores_.end() ? nullptr : store->second.get();
}

std::optional<SimDisk::Held> SimDisk::DurableEntry(Index index) const {
  const SimStore* store = LogStoreHere();
  if (store == nullptr) return std::nullopt;
  Held held;
  if (const std::string* base = store->Get("b", store->durable())) {
    held.base = {.index = Integer(*base, 0), .term = Integer(*base, 8)};
  }
  if (const std::string* entry = store->Get(EntryKey(index), store->durable())) {
    held.term = Integer(*entry, 0);
  }
  return held;
}

std::optional<HardState> SimDisk::DurableHardState() const {
  const SimStore* store = LogStoreHere();
  if (store == nullptr) return std::nullopt;
  const std::string* state = store->Get("h", store->durable());
  if (state == nullptr) return HardState{};
  return HardState{.term = Integer(*state, 0), .vote = Integer(*state, 8)};
}

std::vector<std::string> SimDisk::DurableConfigurations() const {
  constexpr size_t kHeadBytes = 13;  // Term, kind, checksum.
  std::vector<std::string> found;
  const SimStore* store = LogStoreHere();
  if (store == nullptr) return found;
  const std::string* base = store->Get("b", store->durable());
  for (Index index = (base == nullptr ? 0 : Integer(*base, 0)) + 1;; ++index) {
    const std::string* entry = store->Get(EntryKey(index), store->durable());
    if (entry == nullptr) return found;
    const auto kind = static_cast<EntryKind>((*entry)[8]);
    if (kind == EntryKind::kMembers) found.push_back(entry->substr(kHeadBytes));
  }
}

bool SimDisk::RotLog() {
  SimStore* store = LogStoreHere();
  if (store == nullptr) return false;
  const std::string* base = store->Get("b", store->last());
  const Index first = (base == nullptr ? 0 : Integer(*base, 0)) + 1;
  Index end = first;
  while (store->Get(EntryKey(end), store->last()) != nullptr) ++end;
  if (end == first) return false;
  const Index at = first + scheduler_->Below(end - first);
  const uint64_t bit = scheduler_->Draw();
  return store->FlipBit(EntryKey(at), bit % (uint64_t{1} << 32));
}

}  // namespace kv::sim

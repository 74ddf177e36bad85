#include "tests/storage/fault_disk.h"

#include <fmt/format.h>
#include <rocksdb/system_clock.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <thread>
#include <utility>

#include "storage/check.h"

namespace kv::test {
namespace {

constexpr uint64_t kSectorBytes = 512;

using Kind = DiskOperation::Kind;
using rocksdb::IODebugContext;
using rocksdb::IOOptions;
using rocksdb::IOStatus;
using rocksdb::Slice;

std::vector<std::string> Parts(std::string_view path) {
  std::vector<std::string> parts;
  size_t begin = 0;
  while (begin <= path.size()) {
    const size_t end = std::min(path.find('/', begin), path.size());
    if (end > begin) parts.emplace_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return parts;
}

void WriteAt(std::string& bytes, uint64_t offset, std::string_view part) {
  if (bytes.size() < offset + part.size()) bytes.resize(offset + part.size(), '\0');
  std::memcpy(bytes.data() + offset, part.data(), part.size());
}

void ApplyBytes(std::string& bytes, const DiskOperation& operation) {
  if (operation.kind == Kind::kTruncate) {
    bytes.resize(operation.offset, '\0');
  } else {
    WriteAt(bytes, operation.offset, *operation.bytes);
  }
}

// Some sectors of a write arrive; the file may have grown to its end or only to the last of them.
void ApplySomeSectors(std::string& bytes, const DiskOperation& operation, Dice& dice) {
  if (operation.kind == Kind::kTruncate) {
    if (dice.Coin()) ApplyBytes(bytes, operation);
    return;
  }
  const std::string_view data = *operation.bytes;
  uint64_t begin = operation.offset;
  const uint64_t end = operation.offset + data.size();
  while (begin < end) {
    const uint64_t next = std::min(end, (begin / kSectorBytes + 1) * kSectorBytes);
    if (dice.Coin()) {
      WriteAt(bytes, begin, data.substr(begin - operation.offset, next - begin));
    }
    begin = next;
  }
  if (bytes.size() < end && dice.Coin()) bytes.resize(end, '\0');
}

std::string Survivors(const DiskImage::File& file, PowerLoss policy, Dice& dice) {
  std::string bytes = file.durable;
  const std::vector<DiskOperation>& pending = file.pending;
  if (pending.empty() || policy == PowerLoss::kDropAll || policy == PowerLoss::kEmptyFiles) {
    return bytes;
  }
  if (policy == PowerLoss::kLostNames) {
    for (const DiskOperation& operation : pending) ApplyBytes(bytes, operation);
    return bytes;
  }
  // RocksDB reads past no hole in its manifest: it trusts the file system to let a file grow only
  // over bytes that have arrived, as ext4 and xfs do.
  const bool no_holes = pending.front().path.find("/MANIFEST-") != std::string::npos;
  if (policy == PowerLoss::kScatter && !no_holes) {
    for (const DiskOperation& operation : pending) ApplySomeSectors(bytes, operation, dice);
    return bytes;
  }
  const uint64_t kept = dice.Below(pending.size() + 1);
  for (uint64_t i = 0; i < kept; ++i) ApplyBytes(bytes, pending[i]);
  if (kept == pending.size()) return bytes;
  const DiskOperation& first_lost = pending[kept];
  if (policy == PowerLoss::kTorn && !no_holes) {
    ApplySomeSectors(bytes, first_lost, dice);
  } else if (first_lost.kind == Kind::kWrite) {
    const uint64_t length = dice.Below(first_lost.bytes->size() + 1);
    WriteAt(bytes, first_lost.offset, std::string_view(*first_lost.bytes).substr(0, length));
  }
  return bytes;
}

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kCreate:
      return "create";
    case Kind::kWrite:
      return "write";
    case Kind::kTruncate:
      return "truncate";
    case Kind::kSync:
      return "sync";
    case Kind::kNames:
      return "names";
    case Kind::kSyncDirectory:
      return "sync directory";
  }
  return "?";
}

}  // namespace

uint64_t Dice::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

const char* Name(PowerLoss policy) {
  switch (policy) {
    case PowerLoss::kDropAll:
      return "drop all";
    case PowerLoss::kPrefix:
      return "prefix";
    case PowerLoss::kTorn:
      return "torn";
    case PowerLoss::kScatter:
      return "scatter";
    case PowerLoss::kEmptyFiles:
      return "empty files";
    case PowerLoss::kLostNames:
      return "lost names";
    case PowerLoss::kProcessOnly:
      return "process only";
  }
  return "?";
}

std::string DiskOperation::ToString() const {
  std::string text = fmt::format("{} {}", KindName(kind), path);
  if (kind == Kind::kWrite) text += fmt::format(" [{}, +{})", offset, bytes->size());
  if (kind == Kind::kTruncate) text += fmt::format(" to {}", offset);
  for (const Edit& edit : edits) text += fmt::format(" {}{}", edit.inode ? '+' : '-', edit.name);
  return text;
}

DiskImage::DiskImage() { directories_[kRoot]; }

DiskImage::File& DiskImage::Mutable(InodeId inode) {
  std::shared_ptr<File>& file = files_.at(inode);
  if (file.use_count() > 1) file = std::make_shared<File>(*file);
  return *file;
}

void DiskImage::ApplyEdit(std::map<std::string, InodeId>& names, const DiskOperation::Edit& edit) {
  if (edit.inode == 0) {
    names.erase(edit.name);
  } else {
    names[edit.name] = edit.inode;
  }
}

void DiskImage::Apply(const DiskOperation& operation) {
  switch (operation.kind) {
    case Kind::kCreate:
      if (operation.directory) {
        directories_[operation.inode];
      } else {
        files_[operation.inode] = std::make_shared<File>();
      }
      [[fallthrough]];
    case Kind::kNames:
      for (const DiskOperation::Edit& edit : operation.edits) {
        ApplyEdit(directories_.at(edit.directory).names, edit);
      }
      pending_names_.push_back(operation);
      return;
    case Kind::kWrite:
    case Kind::kTruncate: {
      File& file = Mutable(operation.inode);
      ApplyBytes(file.bytes, operation);
      file.pending.push_back(operation);
      return;
    }
    case Kind::kSync: {
      File& file = Mutable(operation.inode);
      for (const DiskOperation& write : file.pending) ApplyBytes(file.durable, write);
      file.pending.clear();
      return;
    }
    case Kind::kSyncDirectory: {
      // Whatever touches this directory is settled, on its other side too: a rename is one entry
      // in a file system's journal.
      const auto touches = [&operation](const DiskOperation& change) {
        return std::any_of(
            change.edits.begin(), change.edits.end(),
            [&](const DiskOperation::Edit& edit) { return edit.directory == operation.inode; });
      };
      for (const DiskOperation& change : pending_names_) {
        if (!touches(change)) continue;
        for (const DiskOperation::Edit& edit : change.edits) {
          ApplyEdit(directories_.at(edit.directory).durable, edit);
        }
      }
      std::erase_if(pending_names_, touches);
      return;
    }
  }
}

DiskImage DiskImage::AfterPowerLoss(PowerLoss policy, uint64_t seed) const {
  if (policy == PowerLoss::kProcessOnly) return *this;
  Dice dice(seed);
  DiskImage found;
  found.directories_ = directories_;
  // A directory's names arrive in the order they were made, as journals keep it; directories do not
  // wait for each other. A rename between two arrives in both or in none.
  const bool all = policy == PowerLoss::kTorn || policy == PowerLoss::kEmptyFiles;
  const bool none = policy == PowerLoss::kDropAll || policy == PowerLoss::kLostNames;
  const uint64_t kept = dice.Below(pending_names_.size() + 1);
  std::set<InodeId> stopped;
  for (size_t i = 0; i < pending_names_.size(); ++i) {
    const std::vector<DiskOperation::Edit>& edits = pending_names_[i].edits;
    const auto is_stopped = [&stopped](const DiskOperation::Edit& edit) {
      return stopped.contains(edit.directory);
    };
    const bool stops = policy == PowerLoss::kScatter ? dice.Below(3) == 0 : i >= kept;
    if (none || (!all && (stops || std::any_of(edits.begin(), edits.end(), is_stopped)))) {
      for (const DiskOperation::Edit& edit : edits) stopped.insert(edit.directory);
      continue;
    }
    for (const DiskOperation::Edit& edit : edits) {
      ApplyEdit(found.directories_.at(edit.directory).durable, edit);
    }
  }
  for (auto& [inode, directory] : found.directories_) directory.names = directory.durable;
  for (const auto& [inode, file] : files_) {
    if (file->pending.empty() && !file->forgot) {
      found.files_[inode] = file;
      continue;
    }
    auto survivor = std::make_shared<File>();
    survivor->bytes = Survivors(*file, policy, dice);
    survivor->durable = survivor->bytes;
    found.files_[inode] = std::move(survivor);
  }
  return found;
}

std::optional<InodeId> DiskImage::Find(std::string_view path) const {
  InodeId inode = kRoot;
  for (const std::string& part : Parts(path)) {
    const auto directory = directories_.find(inode);
    if (directory == directories_.end()) return std::nullopt;
    const auto name = directory->second.names.find(part);
    if (name == directory->second.names.end()) return std::nullopt;
    inode = name->second;
  }
  return inode;
}

void DiskImage::Collect(InodeId directory, const std::string& path,
                        std::vector<std::string>& found) const {
  for (const auto& [name, inode] : names(directory)) {
    const std::string child = path + "/" + name;
    if (IsDirectory(inode)) {
      Collect(inode, child, found);
    } else {
      found.push_back(child);
    }
  }
}

std::vector<std::string> DiskImage::Files() const {
  std::vector<std::string> found;
  Collect(kRoot, "", found);
  return found;
}

uint64_t DiskImage::links(InodeId inode) const {
  uint64_t count = 0;
  for (const auto& [id, directory] : directories_) {
    for (const auto& [name, target] : directory.names) count += target == inode ? 1 : 0;
  }
  return count;
}

void DiskImage::FlipBit(InodeId inode, uint64_t offset, int bit) {
  File& file = Mutable(inode);
  const char mask = static_cast<char>(1 << bit);
  file.bytes.at(offset) = static_cast<char>(file.bytes.at(offset) ^ mask);
  if (offset < file.durable.size()) {
    file.durable.at(offset) = static_cast<char>(file.durable.at(offset) ^ mask);
  }
}

void DiskImage::ForgetPending(InodeId inode) {
  File& file = Mutable(inode);
  file.pending.clear();
  file.forgot = true;
}

InodeId DiskImage::NextInode() const {
  InodeId next = directories_.rbegin()->first + 1;
  if (!files_.empty()) next = std::max(next, files_.rbegin()->first + 1);
  return next;
}

// The disk as RocksDB sees it.
class FaultDisk::System : public rocksdb::FileSystem {
 public:
  System(DiskImage image, Trace keeps) : image_(std::move(image)), keeps_(keeps) {}

  const char* Name() const override { return "FaultDisk"; }

  // For FaultDisk.
  DiskImage image() const {
    const std::lock_guard<std::mutex> held(mutex_);
    return image_;
  }
  std::vector<DiskOperation> trace() const {
    const std::lock_guard<std::mutex> held(mutex_);
    return trace_;
  }
  size_t operations() const {
    const std::lock_guard<std::mutex> held(mutex_);
    return done_;
  }
  void FailAt(size_t ordinal, Fault fault, Repeat repeat) {
    const std::lock_guard<std::mutex> held(mutex_);
    plan_ = Plan{ordinal, fault, repeat};
  }
  bool failed() const {
    const std::lock_guard<std::mutex> held(mutex_);
    return failed_;
  }
  void Heal() {
    const std::lock_guard<std::mutex> held(mutex_);
    plan_.reset();
    off_ = false;
  }

  // For open files.
  IOStatus Append(InodeId inode, const std::string& path, const Slice& data) {
    const std::lock_guard<std::mutex> held(mutex_);
    return Do({.kind = Kind::kWrite,
               .inode = inode,
               .directory = false,
               .offset = image_.file(inode).bytes.size(),
               .bytes = std::make_shared<const std::string>(data.data(), data.size()),
               .edits = {},
               .path = path});
  }
  IOStatus WriteAt(InodeId inode, const std::string& path, uint64_t offset, const Slice& data) {
    const std::lock_guard<std::mutex> held(mutex_);
    return Do({.kind = Kind::kWrite,
               .inode = inode,
               .directory = false,
               .offset = offset,
               .bytes = std::make_shared<const std::string>(data.data(), data.size()),
               .edits = {},
               .path = path});
  }
  IOStatus TruncateTo(InodeId inode, const std::string& path, uint64_t size) {
    const std::lock_guard<std::mutex> held(mutex_);
    if (image_.file(inode).bytes.size() == size) return IOStatus::OK();
    return Do(Simple(Kind::kTruncate, inode, path, size));
  }
  IOStatus Sync(InodeId inode, const std::string& path) {
    const std::lock_guard<std::mutex> held(mutex_);
    return Do(Simple(Kind::kSync, inode, path, 0));
  }
  IOStatus SyncDirectory(InodeId inode, const std::string& path) {
    const std::lock_guard<std::mutex> held(mutex_);
    return Do(Simple(Kind::kSyncDirectory, inode, path, 0));
  }
  IOStatus Read(InodeId inode, uint64_t offset, size_t length, Slice* result, char* scratch) const {
    const std::lock_guard<std::mutex> held(mutex_);
    if (off_) return PowerIsOff();
    const std::string& bytes = image_.file(inode).bytes;
    const uint64_t begin = std::min<uint64_t>(offset, bytes.size());
    const size_t count = std::min<uint64_t>(length, bytes.size() - begin);
    std::memcpy(scratch, bytes.data() + begin, count);
    *result = Slice(scratch, count);
    return IOStatus::OK();
  }
  uint64_t Size(InodeId inode) const {
    const std::lock_guard<std::mutex> held(mutex_);
    return image_.file(inode).bytes.size();
  }

  // rocksdb::FileSystem.
  IOStatus NewSequentialFile(const std::string& path, const rocksdb::FileOptions&,
                             std::unique_ptr<rocksdb::FSSequentialFile>* result,
                             IODebugContext*) override;
  IOStatus NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions&,
                               std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                               IODebugContext*) override;
  IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions&,
                           std::unique_ptr<rocksdb::FSWritableFile>* result,
                           IODebugContext*) override;
  IOStatus ReopenWritableFile(const std::string& path, const rocksdb::FileOptions&,
                              std::unique_ptr<rocksdb::FSWritableFile>* result,
                              IODebugContext*) override;
  IOStatus NewRandomRWFile(const std::string& path, const rocksdb::FileOptions&,
                           std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                           IODebugContext*) override;
  IOStatus NewDirectory(const std::string& path, const IOOptions&,
                        std::unique_ptr<rocksdb::FSDirectory>* result, IODebugContext*) override;

  IOStatus FileExists(const std::string& path, const IOOptions&, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    if (off_) return PowerIsOff();
    return image_.Find(path) ? IOStatus::OK() : NotFound(path);
  }
  IOStatus GetChildren(const std::string& path, const IOOptions&, std::vector<std::string>* result,
                       IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    if (off_) return PowerIsOff();
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode || !image_.IsDirectory(*inode)) return NotFound(path);
    result->clear();
    for (const auto& [name, child] : image_.names(*inode)) result->push_back(name);
    return IOStatus::OK();
  }
  IOStatus DeleteFile(const std::string& path, const IOOptions&, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode || image_.IsDirectory(*inode)) return off_ ? PowerIsOff() : NotFound(path);
    return Do(Names(path, {Edit(path, 0)}));
  }
  IOStatus Truncate(const std::string& path, size_t size, const IOOptions&,
                    IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode || image_.IsDirectory(*inode)) return off_ ? PowerIsOff() : NotFound(path);
    return Do(Simple(Kind::kTruncate, *inode, path, size));
  }
  IOStatus CreateDir(const std::string& path, const IOOptions&, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    if (image_.Find(path)) return IOStatus::IOError(path, "exists");
    return MakeDirectory(path);
  }
  IOStatus CreateDirIfMissing(const std::string& path, const IOOptions&, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    if (off_) return PowerIsOff();
    const std::optional<InodeId> inode = image_.Find(path);
    if (inode) {
      return image_.IsDirectory(*inode) ? IOStatus::OK() : IOStatus::IOError(path, "is a file");
    }
    return MakeDirectory(path);
  }
  IOStatus DeleteDir(const std::string& path, const IOOptions&, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode || !image_.IsDirectory(*inode)) return off_ ? PowerIsOff() : NotFound(path);
    if (!image_.names(*inode).empty()) return IOStatus::IOError(path, "is not empty");
    return Do(Names(path, {Edit(path, 0)}));
  }
  IOStatus GetFileSize(const std::string& path, const IOOptions&, uint64_t* size,
                       IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    if (off_) return PowerIsOff();
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode || image_.IsDirectory(*inode)) return NotFound(path);
    *size = image_.file(*inode).bytes.size();
    return IOStatus::OK();
  }
  IOStatus GetFileModificationTime(const std::string&, const IOOptions&, uint64_t* time,
                                   IODebugContext*) override {
    *time = 0;
    return IOStatus::OK();
  }
  IOStatus RenameFile(const std::string& source, const std::string& target, const IOOptions&,
                      IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(source);
    if (!inode) return off_ ? PowerIsOff() : NotFound(source);
    if (!image_.Find(Parent(target))) return NotFound(target);
    return Do(Names(source, {Edit(source, 0), Edit(target, *inode)}));
  }
  IOStatus LinkFile(const std::string& source, const std::string& target, const IOOptions&,
                    IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(source);
    if (!inode) return off_ ? PowerIsOff() : NotFound(source);
    if (image_.Find(target)) return IOStatus::IOError(target, "exists");
    return Do(Names(target, {Edit(target, *inode)}));
  }
  IOStatus NumFileLinks(const std::string& path, const IOOptions&, uint64_t* count,
                        IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode) return NotFound(path);
    *count = image_.links(*inode);
    return IOStatus::OK();
  }
  IOStatus AreFilesSame(const std::string& first, const std::string& second, const IOOptions&,
                        bool* same, IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    *same = image_.Find(first) == image_.Find(second);
    return IOStatus::OK();
  }
  IOStatus LockFile(const std::string& path, const IOOptions&, rocksdb::FileLock** lock,
                    IODebugContext*) override;
  IOStatus UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) override;
  IOStatus GetTestDirectory(const IOOptions&, std::string* path, IODebugContext*) override {
    *path = "/test";
    return IOStatus::OK();
  }
  // RocksDB's info log says nothing about durability and would only add operations.
  IOStatus NewLogger(const std::string& path, const IOOptions&,
                     std::shared_ptr<rocksdb::Logger>* result, IODebugContext*) override;
  IOStatus GetAbsolutePath(const std::string& path, const IOOptions&, std::string* result,
                           IODebugContext*) override {
    *result = path;
    return IOStatus::OK();
  }
  IOStatus GetFreeSpace(const std::string&, const IOOptions&, uint64_t* bytes,
                        IODebugContext*) override {
    *bytes = uint64_t{1} << 40;
    return IOStatus::OK();
  }
  IOStatus IsDirectory(const std::string& path, const IOOptions&, bool* is_directory,
                       IODebugContext*) override {
    const std::lock_guard<std::mutex> held(mutex_);
    const std::optional<InodeId> inode = image_.Find(path);
    if (!inode) return NotFound(path);
    *is_directory = image_.IsDirectory(*inode);
    return IOStatus::OK();
  }

 private:
  struct Plan {
    size_t ordinal = 0;
    Fault fault = Fault::kIoError;
    Repeat repeat = Repeat::kOnce;
  };

  static IOStatus PowerIsOff() { return IOStatus::IOError("the power is off"); }
  static IOStatus NotFound(const std::string& path) {
    return IOStatus::NotFound(path, "no such file or directory");
  }
  static std::string Parent(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "" : path.substr(0, slash);
  }
  static DiskOperation Simple(Kind kind, InodeId inode, const std::string& path, uint64_t offset) {
    return {.kind = kind,
            .inode = inode,
            .directory = false,
            .offset = offset,
            .bytes = nullptr,
            .edits = {},
            .path = path};
  }
  static DiskOperation Names(const std::string& path, std::vector<DiskOperation::Edit> edits) {
    DiskOperation operation = Simple(Kind::kNames, 0, path, 0);
    operation.edits = std::move(edits);
    return operation;
  }
  DiskOperation::Edit Edit(const std::string& path, InodeId inode) const {
    const std::vector<std::string> parts = Parts(path);
    KV_CHECK(!parts.empty(), path);
    return {.directory = image_.Find(Parent(path)).value(), .name = parts.back(), .inode = inode};
  }
  IOStatus Make(const std::string& path, bool directory, InodeId* made) {
    if (off_) return PowerIsOff();
    const std::optional<InodeId> parent = image_.Find(Parent(path));
    if (!parent || !image_.IsDirectory(*parent)) return NotFound(path);
    DiskOperation operation = Simple(Kind::kCreate, next_inode_, path, 0);
    operation.directory = directory;
    operation.edits = {Edit(path, next_inode_)};
    const IOStatus status = Do(std::move(operation));
    if (status.ok()) *made = next_inode_++;
    return status;
  }
  IOStatus MakeDirectory(const std::string& path) {
    InodeId made = 0;
    return Make(path, true, &made);
  }

  IOStatus Do(DiskOperation operation) {
    if (off_) return PowerIsOff();
    const size_t ordinal = done_ + failures_;
    const bool fails = plan_ && (plan_->repeat == Repeat::kEver ? ordinal >= plan_->ordinal
                                                                : ordinal == plan_->ordinal);
    if (!fails) {
      image_.Apply(operation);
      ++done_;
      if (keeps_ == Trace::kAll) trace_.push_back(std::move(operation));
      return IOStatus::OK();
    }
    failed_ = true;
    ++failures_;
    if (plan_->fault == Fault::kCut) {
      off_ = true;
      return PowerIsOff();
    }
    if (operation.kind == Kind::kSync) image_.ForgetPending(operation.inode);
    return plan_->fault == Fault::kNoSpace ? IOStatus::NoSpace(operation.path, "injected")
                                           : IOStatus::IOError(operation.path, "injected");
  }

  mutable std::mutex mutex_;
  DiskImage image_;
  const Trace keeps_;
  std::vector<DiskOperation> trace_;
  size_t done_ = 0;  // Operations that took effect.
  std::set<std::string> locks_;
  std::optional<Plan> plan_;
  size_t failures_ = 0;
  bool failed_ = false;
  bool off_ = false;
  InodeId next_inode_ = kRoot + 1;

  friend class FaultDisk;
};

namespace {

// The files that a FaultDisk hands out. Each keeps the disk alive and names its inode, so that it
// goes on working after a rename or a deletion, as POSIX wants it.
template <typename System>
class SequentialFile : public rocksdb::FSSequentialFile {
 public:
  SequentialFile(System* system, InodeId inode) : system_(system), inode_(inode) {}
  IOStatus Read(size_t length, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) override {
    const IOStatus status = system_->Read(inode_, offset_, length, result, scratch);
    if (status.ok()) offset_ += result->size();
    return status;
  }
  IOStatus Skip(uint64_t length) override {
    offset_ += length;
    return IOStatus::OK();
  }

 private:
  System* const system_;
  const InodeId inode_;
  uint64_t offset_ = 0;
};

template <typename System>
class RandomAccessFile : public rocksdb::FSRandomAccessFile {
 public:
  RandomAccessFile(System* system, InodeId inode) : system_(system), inode_(inode) {}
  IOStatus Read(uint64_t offset, size_t length, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    return system_->Read(inode_, offset, length, result, scratch);
  }

 private:
  System* const system_;
  const InodeId inode_;
};

template <typename System>
class WritableFile : public rocksdb::FSWritableFile {
 public:
  WritableFile(System* system, InodeId inode, std::string path)
      : system_(system), inode_(inode), path_(std::move(path)) {}
  using FSWritableFile::Append;
  IOStatus Append(const Slice& data, const IOOptions&, IODebugContext*) override {
    return system_->Append(inode_, path_, data);
  }
  IOStatus Truncate(uint64_t size, const IOOptions&, IODebugContext*) override {
    return system_->TruncateTo(inode_, path_, size);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return system_->Sync(inode_, path_); }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return system_->Sync(inode_, path_);
  }
  bool IsSyncThreadSafe() const override { return true; }
  uint64_t GetFileSize(const IOOptions&, IODebugContext*) override { return system_->Size(inode_); }

 private:
  System* const system_;
  const InodeId inode_;
  const std::string path_;
};

template <typename System>
class RandomRWFile : public rocksdb::FSRandomRWFile {
 public:
  RandomRWFile(System* system, InodeId inode, std::string path)
      : system_(system), inode_(inode), path_(std::move(path)) {}
  IOStatus Write(uint64_t offset, const Slice& data, const IOOptions&, IODebugContext*) override {
    return system_->WriteAt(inode_, path_, offset, data);
  }
  IOStatus Read(uint64_t offset, size_t length, const IOOptions&, Slice* result, char* scratch,
                IODebugContext*) const override {
    return system_->Read(inode_, offset, length, result, scratch);
  }
  IOStatus Flush(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }
  IOStatus Sync(const IOOptions&, IODebugContext*) override { return system_->Sync(inode_, path_); }
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return system_->Sync(inode_, path_);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  System* const system_;
  const InodeId inode_;
  const std::string path_;
};

template <typename System>
class OpenDirectory : public rocksdb::FSDirectory {
 public:
  OpenDirectory(System* system, InodeId inode, std::string path)
      : system_(system), inode_(inode), path_(std::move(path)) {}
  IOStatus Fsync(const IOOptions&, IODebugContext*) override {
    return system_->SyncDirectory(inode_, path_);
  }
  IOStatus Close(const IOOptions&, IODebugContext*) override { return IOStatus::OK(); }

 private:
  System* const system_;
  const InodeId inode_;
  const std::string path_;
};

struct HeldLock : public rocksdb::FileLock {
  explicit HeldLock(std::string held) : path(std::move(held)) {}
  const std::string path;
};

// RocksDB sleeps for a second after a failed compaction; a test of thousands of them does not.
class SleeplessClock : public rocksdb::SystemClockWrapper {
 public:
  using SystemClockWrapper::SystemClockWrapper;
  const char* Name() const override { return "FaultDisk"; }
  void SleepForMicroseconds(int) override { std::this_thread::yield(); }
};

class SleeplessEnv : public rocksdb::EnvWrapper {
 public:
  explicit SleeplessEnv(std::unique_ptr<rocksdb::Env> target) : EnvWrapper(std::move(target)) {
    system_clock_ = std::make_shared<SleeplessClock>(system_clock_);
  }
  const char* Name() const override { return "FaultDisk"; }
  void SleepForMicroseconds(int) override { std::this_thread::yield(); }
};

class SilentLogger : public rocksdb::Logger {
 public:
  using Logger::Logv;
  void Logv(const char*, va_list) override {}
  size_t GetLogFileSize() const override { return 0; }
};

}  // namespace

IOStatus FaultDisk::System::NewSequentialFile(const std::string& path, const rocksdb::FileOptions&,
                                              std::unique_ptr<rocksdb::FSSequentialFile>* result,
                                              IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> inode = image_.Find(path);
  if (!inode || image_.IsDirectory(*inode)) return NotFound(path);
  *result = std::make_unique<SequentialFile<System>>(this, *inode);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::NewRandomAccessFile(
    const std::string& path, const rocksdb::FileOptions&,
    std::unique_ptr<rocksdb::FSRandomAccessFile>* result, IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> inode = image_.Find(path);
  if (!inode || image_.IsDirectory(*inode)) return NotFound(path);
  *result = std::make_unique<RandomAccessFile<System>>(this, *inode);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::NewWritableFile(const std::string& path, const rocksdb::FileOptions&,
                                            std::unique_ptr<rocksdb::FSWritableFile>* result,
                                            IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> existing = image_.Find(path);
  InodeId inode = existing.value_or(0);
  if (existing) {
    if (image_.IsDirectory(inode)) return IOStatus::IOError(path, "is a directory");
    const IOStatus status = Do(Simple(Kind::kTruncate, inode, path, 0));
    if (!status.ok()) return status;
  } else {
    const IOStatus status = Make(path, false, &inode);
    if (!status.ok()) return status;
  }
  *result = std::make_unique<WritableFile<System>>(this, inode, path);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::ReopenWritableFile(const std::string& path, const rocksdb::FileOptions&,
                                               std::unique_ptr<rocksdb::FSWritableFile>* result,
                                               IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> existing = image_.Find(path);
  InodeId inode = existing.value_or(0);
  if (!existing) {
    const IOStatus status = Make(path, false, &inode);
    if (!status.ok()) return status;
  }
  *result = std::make_unique<WritableFile<System>>(this, inode, path);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::NewRandomRWFile(const std::string& path, const rocksdb::FileOptions&,
                                            std::unique_ptr<rocksdb::FSRandomRWFile>* result,
                                            IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> inode = image_.Find(path);
  if (!inode || image_.IsDirectory(*inode)) return NotFound(path);
  *result = std::make_unique<RandomRWFile<System>>(this, *inode, path);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::NewDirectory(const std::string& path, const IOOptions&,
                                         std::unique_ptr<rocksdb::FSDirectory>* result,
                                         IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  const std::optional<InodeId> inode = image_.Find(path);
  if (!inode || !image_.IsDirectory(*inode)) return NotFound(path);
  *result = std::make_unique<OpenDirectory<System>>(this, *inode, path);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::LockFile(const std::string& path, const IOOptions&,
                                     rocksdb::FileLock** lock, IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  if (off_) return PowerIsOff();
  if (!image_.Find(path)) {
    InodeId made = 0;
    const IOStatus status = Make(path, false, &made);
    if (!status.ok()) return status;
  }
  if (!locks_.insert(path).second) return IOStatus::IOError("lock hold by current process", path);
  *lock = new HeldLock(path);
  return IOStatus::OK();
}

IOStatus FaultDisk::System::UnlockFile(rocksdb::FileLock* lock, const IOOptions&, IODebugContext*) {
  const std::lock_guard<std::mutex> held(mutex_);
  // Only LockFile above makes locks of this disk.
  auto* const mine = static_cast<HeldLock*>(lock);
  locks_.erase(mine->path);
  delete mine;
  return IOStatus::OK();
}

IOStatus FaultDisk::System::NewLogger(const std::string&, const IOOptions&,
                                      std::shared_ptr<rocksdb::Logger>* result, IODebugContext*) {
  *result = std::make_shared<SilentLogger>();
  return IOStatus::OK();
}

FaultDisk::FaultDisk(DiskImage image, Trace trace)
    : system_(std::make_shared<System>(std::move(image), trace)),
      env_(std::make_unique<SleeplessEnv>(rocksdb::NewCompositeEnv(system_))) {
  system_->next_inode_ = system_->image_.NextInode();
}
FaultDisk::~FaultDisk() = default;

DiskImage FaultDisk::image() const { return system_->image(); }
size_t FaultDisk::operations() const { return system_->operations(); }
std::vector<DiskOperation> FaultDisk::trace() const { return system_->trace(); }
void FaultDisk::FailAt(size_t ordinal, Fault fault, Repeat repeat) {
  system_->FailAt(ordinal, fault, repeat);
}
bool FaultDisk::failed() const { return system_->failed(); }
void FaultDisk::Heal() { system_->Heal(); }

}  // namespace kv::test

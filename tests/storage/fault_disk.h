// A disk in memory that knows what a power loss would take: the faulty half of the crash tests.
//
// DiskImage is the disk as a value: every file with its synced and its pending bytes, every
// directory with its synced and its pending names. A power loss is a function from an image, a
// policy and a seed to the image that is found afterwards. FaultDisk puts a rocksdb::Env on top of
// an image, records every operation that changes it, and fails operations on request. Because the
// record can be replayed onto an image, one run of a workload is enough to look at every moment of
// it, whatever RocksDB's threads did in which order.
//
// FaultDisk is thread-safe; an image is a plain value.
#pragma once

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kv::test {

// splitmix64: the same numbers on every compiler.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t limit) { return limit == 0 ? 0 : Next() % limit; }
  bool Coin() { return (Next() >> 17) % 2 == 0; }

 private:
  uint64_t state_;
};

enum class PowerLoss {
  kDropAll,      // Only what was synced is there: bytes and names.
  kPrefix,       // Of each file's pending bytes a prefix; of the pending names a prefix.
  kTorn,         // As kPrefix, and of the first write that is lost some 512-byte sectors arrived.
  kScatter,      // Any sectors of any pending write; of each directory's pending names a prefix.
  kEmptyFiles,   // All names, no pending bytes.
  kLostNames,    // All bytes, no pending names.
  kProcessOnly,  // The process died and the machine lives on: all is there, and as pending as it
                 // was.
};
inline constexpr PowerLoss kPowerLosses[] = {
    PowerLoss::kDropAll,    PowerLoss::kPrefix,    PowerLoss::kTorn,       PowerLoss::kScatter,
    PowerLoss::kEmptyFiles, PowerLoss::kLostNames, PowerLoss::kProcessOnly};
const char* Name(PowerLoss policy);

using InodeId = uint64_t;
inline constexpr InodeId kRoot = 1;

// One change of a disk.
struct DiskOperation {
  enum class Kind { kCreate, kWrite, kTruncate, kSync, kNames, kSyncDirectory };
  // A name that comes or goes in a directory. A rename is two edits that happen together.
  struct Edit {
    InodeId directory = 0;
    std::string name;
    InodeId inode = 0;  // 0: the name goes.
  };
  Kind kind = Kind::kWrite;
  InodeId inode = 0;       // Created, written, truncated or synced.
  bool directory = false;  // What kCreate makes.
  uint64_t offset = 0;     // Of kWrite; the new size for kTruncate.
  std::shared_ptr<const std::string> bytes;
  std::vector<Edit> edits;
  std::string path;  // For people.

  std::string ToString() const;
};

class DiskImage {
 public:
  DiskImage();

  void Apply(const DiskOperation& operation);
  DiskImage AfterPowerLoss(PowerLoss policy, uint64_t seed) const;

  struct File {
    std::string bytes;    // As the running machine reads them.
    std::string durable;  // As of the last sync.
    std::vector<DiskOperation> pending;
    bool forgot = false;  // A sync failed: durable and pending together are less than bytes.
  };
  // Nothing: no such path.
  std::optional<InodeId> Find(std::string_view path) const;
  bool IsDirectory(InodeId inode) const { return directories_.contains(inode); }
  const File& file(InodeId inode) const { return *files_.at(inode); }
  const std::map<std::string, InodeId>& names(InodeId directory) const {
    return directories_.at(directory).names;
  }
  // Every file's path, sorted.
  std::vector<std::string> Files() const;
  uint64_t links(InodeId inode) const;
  // Turns one bit over, on the disk and in memory.
  void FlipBit(InodeId inode, uint64_t offset, int bit);
  // A failed sync: the pending bytes never reach the disk, although reads go on to show them.
  void ForgetPending(InodeId inode);
  InodeId NextInode() const;  // Above every one in use.

 private:
  struct Directory {
    std::map<std::string, InodeId> names;
    std::map<std::string, InodeId> durable;
  };
  File& Mutable(InodeId inode);
  void Collect(InodeId directory, const std::string& path, std::vector<std::string>& found) const;
  static void ApplyEdit(std::map<std::string, InodeId>& names, const DiskOperation::Edit& edit);

  std::map<InodeId, std::shared_ptr<File>> files_;  // Shared between images until one changes.
  std::map<InodeId, Directory> directories_;
  std::vector<DiskOperation> pending_names_;
};

class FaultDisk {
 public:
  // Without a trace the ordinals of FailAt still count, and memory does not grow.
  enum class Trace { kAll, kNone };
  explicit FaultDisk(DiskImage image = DiskImage(), Trace trace = Trace::kAll);
  ~FaultDisk();

  rocksdb::Env* env() { return env_.get(); }

  DiskImage image() const;
  size_t operations() const;  // So far; the trace has as many.
  std::vector<DiskOperation> trace() const;

  enum class Fault {
    kIoError,  // The operation fails and changes nothing; for a sync: the pending bytes are gone
               // for good, although reads still show them and later syncs succeed.
    kNoSpace,
    kCut,  // The power is off: this operation and every later one fails.
  };
  enum class Repeat { kOnce, kEver };
  // The operation with this ordinal (the first is 0) fails. No read fails but after kCut.
  void FailAt(size_t ordinal, Fault fault, Repeat repeat);
  bool failed() const;  // A fault was met.
  void Heal();          // Faults end; the disk is as it is.

 private:
  class System;
  std::shared_ptr<System> system_;
  std::unique_ptr<rocksdb::Env> env_;
};

}  // namespace kv::test

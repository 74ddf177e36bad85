// The machine of a key-value store: what each entry of the log does to the keys, and the reads that
// the edge answers from them.
//
// Apply, Adopt: the apply loop. Everything else: any thread. Reads are consistent: each is made at
// one revision, keeps what it reads alive, and never waits for a write to the disk. Replies and
// answers are etcdserverpb messages whose header holds the revision only; the edge fills the rest.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/kv/command.h"
#include "server/kv/follower.h"
#include "server/kv/lease_commands.h"
#include "server/kv/maintenance.h"
#include "server/kv/range.h"
#include "server/kv/state_directory.h"
#include "server/raft/members.h"
#include "server/replica/machine.h"
#include "storage/mutex.h"
#include "storage/mvcc.h"

namespace etcdserverpb {
class HashKVResponse;
class RangeRequest;
class RangeResponse;
class TxnRequest;
class TxnResponse;
}  // namespace etcdserverpb

namespace kv {

// What this build understands: a command with a greater min_version stops the member.
inline constexpr uint32_t kMachineVersion = 3;

struct KvMachineOptions {
  rocksdb::Env* env = nullptr;
  std::string data_dir;  // Must exist. STATE and state-000001, … live here.
  size_t memtable_bytes = size_t{32} << 20;
  size_t block_cache_bytes = size_t{48} << 20;
  size_t record_cache_bytes = size_t{64} << 20;
  // Runs a task soon, on a thread that may wait for the disk; in any order. Tasks may come after
  // the machine is gone; they then do nothing.
  std::function<void(absl::AnyInvocable<void() &&>)> work;
  // Called from any thread when the state can no longer be written; the owner ends the process.
  std::function<void(const absl::Status&)> on_background_error;
  OpenDatabase open_database;  // Empty: RocksDB.
  // What a run did to leases, once readers see it; on the apply loop. May be empty.
  std::function<void(std::vector<LeaseChange>)> on_leases;
};

class KvMachine : public Machine {
 public:
  // Whether Open has something to open.
  static absl::StatusOr<bool> Exists(const KvMachineOptions& options);
  // The state of a member that begins at `at` with `members` and no keys; durable. Only where there
  // is none.
  static absl::Status Found(const KvMachineOptions& options, Position at,
                            const raft::Members& members);
  // The same with the keys and leases of the verified snapshot, which stays as it is.
  struct Origin {
    uint64_t revision_bump = 0;
    bool mark_compacted = false;
  };
  static absl::Status FoundFrom(const KvMachineOptions& options, Position at,
                                const raft::Members& members, const Snapshot& snapshot,
                                const Origin& origin);
  static absl::StatusOr<std::unique_ptr<KvMachine>> Open(KvMachineOptions options);
  // Callers that wait for a compaction hear Unavailable.
  ~KvMachine() override;

  std::vector<Reply> Apply(std::span<const Committed> run) override;
  Position applied() const override;
  absl::StatusOr<Position> Durable() const override;
  raft::Members members() const override;
  absl::Status Flush() override;
  absl::StatusOr<Snapshot> Take(const std::string& path) override;
  absl::Status Adopt(const Snapshot& snapshot) override;
  // As Take, with what the state in it is. Any thread.
  struct Copied {
    Snapshot snapshot;
    Head head;
    uint32_t cluster_version = 1;
  };
  absl::StatusOr<Copied> Copy(const std::string& path);
  const KvMachineOptions& options() const { return options_; }

  // At the applied state; linearizable if the caller waited for a read index. An answer whose
  // key-values take more than `bytes_max` is refused.
  absl::StatusOr<etcdserverpb::RangeResponse> Range(const etcdserverpb::RangeRequest& request,
                                                    uint64_t bytes_max = kResponseBytesMax) const;
  // The same answer in pages of at most `page_bytes` of key-values, or one key-value.
  absl::StatusOr<std::unique_ptr<RangePages>> OpenRange(etcdserverpb::RangeRequest request,
                                                        uint64_t page_bytes) const;
  // A transaction that holds nothing but ranges.
  absl::StatusOr<etcdserverpb::TxnResponse> ReadTxn(const etcdserverpb::TxnRequest& request,
                                                    uint64_t bytes_max = kResponseBytesMax) const;
  // Reads the whole state. 0: at the current revision.
  absl::StatusOr<etcdserverpb::HashKVResponse> HashKv(Revision revision) const;

  // Calls `done` once nothing is left to delete below `revision`; any thread, maybe at once.
  using CompactionDone = absl::AnyInvocable<void(absl::Status) &&>;
  void AwaitCompacted(Revision revision, CompactionDone done);

  // Of the applied state.
  std::optional<Lease> FindLease(int64_t id) const;
  std::vector<Lease> Leases() const;  // By id.
  size_t lease_count() const;
  // The keys that are attached to a lease, in order. Refused when they take more than `bytes_max`.
  absl::StatusOr<std::vector<std::string>> KeysOf(int64_t lease,
                                                  uint64_t bytes_max = kResponseBytesMax) const;

  Head head() const;  // Applied position, revision, compacted revision, keys, digest.
  // The machine version that every member is known to run; 1 until a command raises it.
  uint32_t cluster_version() const;
  Maintenance maintenance() const;  // Alarms and downgrade, as of applied().
  uint64_t SizeOnDisk() const;      // Bytes of the state's files.
  uint64_t UnflushedBytes() const;  // Bytes of it that only memory holds.
  // A consistent read for those who walk by themselves; it may outlive the machine for a while.
  View Latest() const;
  absl::StatusOr<View> At(Revision revision) const;  // 0: at the current one.

  // From now on `follower` hears of what is applied; null: nobody. What is being applied meanwhile
  // may still reach the one before.
  void SetFollower(std::shared_ptr<Follower> follower);

 private:
  // What tasks on other threads may still hold when the machine is gone.
  class Compactions;

  // What it remembers beside the keys.
  struct Notes {
    raft::Members members;
    uint32_t cluster_version = 1;
    Maintenance maintenance;
  };

  KvMachine(KvMachineOptions options, StateDirectory directory, std::shared_ptr<Mvcc> store,
            Notes notes);
  static absl::StatusOr<Notes> Remember(const View& view);
  std::shared_ptr<Mvcc> store() const;
  std::shared_ptr<Follower> follower() const;
  void Tell(AppliedRevisions applied);
  Reply Execute(Batch& batch, const CommandView& command, const Committed& committed,
                std::vector<LeaseChange>& lease_changes);
  Reply ExecuteClusterVersion(Batch& batch, const CommandView& command);
  template <typename Request>
  Reply Maintain(Batch& batch, const CommandView& command,
                 Reply (*change)(Maintenance&, const Request&, Revision));

  // Constant after construction.
  const KvMachineOptions options_;
  const std::shared_ptr<Compactions> compactions_;

  // The apply loop's.
  StateDirectory directory_;
  uint32_t pending_cluster_version_ = 1;
  Maintenance pending_maintenance_;

  mutable Mutex mutex_;
  std::shared_ptr<Mvcc> store_ ABSL_GUARDED_BY(mutex_);
  raft::Members members_ ABSL_GUARDED_BY(mutex_);
  uint32_t cluster_version_ ABSL_GUARDED_BY(mutex_) = 1;
  std::shared_ptr<Follower> follower_ ABSL_GUARDED_BY(mutex_);
  Maintenance maintenance_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv

#include "server/kv/kv_machine.h"

#include <optional>
#include <string_view>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/errors.h"
#include "server/kv/txn.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kMembersNote = "members";
constexpr std::string_view kClusterVersionNote = "cluster_version";
constexpr std::string_view kMaintenanceNote = "maintenance";
// As etcd's: what users and roles begin with. Each change of theirs will add one.
constexpr uint64_t kAuthRevision = 1;
// How much history a step of compaction looks at: a few milliseconds of holding up commits.
constexpr size_t kCompactionRows = 256;

// The chain: what every entry was and where it left the keys. Two members that applied the same
// entries to the same end have the same digest.
uint64_t Fold(uint64_t digest, uint64_t value) {
  uint64_t mixed = (digest ^ value) + 0x9e3779b97f4a7c15;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

uint64_t FoldEntry(uint64_t digest, const Entry& entry, const Batch& batch) {
  digest = Fold(digest, entry.index);
  digest = Fold(digest, entry.term);
  digest = Fold(digest, entry.checksum);
  digest = Fold(digest, static_cast<uint64_t>(batch.revision()));
  return Fold(digest, static_cast<uint64_t>(batch.compacted()));
}

DatabaseOptions DatabaseOptionsOf(const KvMachineOptions& options) {
  DatabaseOptions database;
  database.write_ahead_log = false;
  database.memtable_bytes = options.memtable_bytes;
  database.block_cache_bytes = options.block_cache_bytes;
  database.on_background_error = options.on_background_error;
  return database;
}

StateDirectory DirectoryOf(const KvMachineOptions& options) {
  return StateDirectory(options.env, options.data_dir, DatabaseOptionsOf(options),
                        options.open_database);
}

absl::Status CheckBlank(const KvMachineOptions& options, const StateDirectory& directory) {
  ASSIGN_OR_RETURN(const bool exists, directory.Exists());
  if (!exists) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kAlreadyExists,
                    "{} already holds the state of a member; it is not founded twice",
                    options.data_dir);
}

std::string EncodeVersion(uint32_t version) {
  std::string out;
  PutU32(out, version);
  return out;
}

template <typename Request>
std::optional<Request> Parse(std::string_view body) {
  Request request;
  if (!request.ParseFromArray(body.data(), static_cast<int>(body.size()))) return std::nullopt;
  return request;
}

// Whoever appended it did not look; nobody can act on it, and everybody refuses it alike.
Reply Unreadable(std::string_view what) {
  return {.status = MakeStatus(absl::StatusCode::kInvalidArgument,
                               "the body of a command is not a {}; nothing was changed", what),
          .body = {}};
}

Reply ExecuteCompaction(Batch& batch, const CommandView& command, bool wants_reply) {
  const auto request = Parse<etcdserverpb::CompactionRequest>(command.body);
  if (!request) return Unreadable("CompactionRequest");
  if (request->revision() <= batch.compacted()) return {.status = CompactedError(), .body = {}};
  if (request->revision() > batch.revision()) return {.status = FutureRevisionError(), .body = {}};
  if (MUTANT("kv.apply_depends_on_caller") && !wants_reply) return {};
  batch.SetCompacted(request->revision());
  if (!wants_reply) return {};
  etcdserverpb::CompactionResponse response;
  response.mutable_header()->set_revision(batch.revision());
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

}  // namespace

// Drives the compactor on the work loop, a step at a time, and knows who waits for it.
class KvMachine::Compactions : public std::enable_shared_from_this<Compactions> {
 public:
  Compactions(std::function<void(absl::AnyInvocable<void() &&>)> work,
              std::function<void(const absl::Status&)> failed)
      : work_(std::move(work)), failed_(std::move(failed)) {}

  // From here on `store` is the one to compact.
  void Use(std::shared_ptr<Mvcc> store) {
    {
      const MutexLock lock(mutex_);
      store_.swap(store);
    }
    Start();
  }

  // There may be something to delete.
  void Start() {
    {
      const MutexLock lock(mutex_);
      wanted_ = true;
      if (running_ || store_ == nullptr) return;
      running_ = true;
    }
    PostStep();
  }

  void Await(Revision revision, CompactionDone done) {
    bool closed = false;
    {
      const MutexLock lock(mutex_);
      closed = store_ == nullptr;
      if (!closed) waiters_.push_back({.revision = revision, .done = std::move(done)});
    }
    if (closed) {
      std::move(done)(Stopped());
    } else {
      AnswerWaiters();
    }
  }

  void Close() {
    std::shared_ptr<Mvcc> store;
    std::vector<Waiter> waiters;
    {
      const MutexLock lock(mutex_);
      store_.swap(store);
      waiters_.swap(waiters);
    }
    for (Waiter& waiter : waiters) std::move(waiter.done)(Stopped());
  }

 private:
  struct Waiter {
    Revision revision = 0;
    CompactionDone done;
  };

  static absl::Status Stopped() {
    return MakeStatus(absl::StatusCode::kUnavailable, "etcdserver: server stopped");
  }

  void PostStep() {
    work_([weak = weak_from_this()] {
      if (const std::shared_ptr<Compactions> self = weak.lock()) self->Step();
    });
  }

  void Step() {
    std::shared_ptr<Mvcc> store;
    {
      const MutexLock lock(mutex_);
      store = store_;
      wanted_ = false;
      if (store == nullptr) {
        running_ = false;
        return;
      }
    }
    const absl::StatusOr<bool> more = store->CompactStep(kCompactionRows);
    if (!more.ok()) {
      KV_CHECK(failed_, Describe(more.status()));
      failed_(more.status());
      return;
    }
    AnswerWaiters();
    {
      const MutexLock lock(mutex_);
      running_ = *more || wanted_;
      if (!running_) return;
    }
    PostStep();
  }

  void AnswerWaiters() {
    std::shared_ptr<Mvcc> store;
    {
      const MutexLock lock(mutex_);
      store = store_;
    }
    if (store == nullptr) return;
    const Revision finished = store->compaction_finished();
    std::vector<Waiter> ready;
    {
      const MutexLock lock(mutex_);
      std::vector<Waiter> rest;
      for (Waiter& waiter : waiters_) {
        (waiter.revision <= finished ? ready : rest).push_back(std::move(waiter));
      }
      waiters_.swap(rest);
    }
    for (Waiter& waiter : ready) std::move(waiter.done)(absl::OkStatus());
  }

  // Constant after construction.
  const std::function<void(absl::AnyInvocable<void() &&>)> work_;
  const std::function<void(const absl::Status&)> failed_;

  Mutex mutex_;
  std::shared_ptr<Mvcc> store_ ABSL_GUARDED_BY(mutex_);  // Null: closed.
  bool running_ ABSL_GUARDED_BY(mutex_) = false;         // A step is posted or runs.
  bool wanted_ ABSL_GUARDED_BY(mutex_) = false;          // Since the step under way began.
  std::vector<Waiter> waiters_ ABSL_GUARDED_BY(mutex_);
};

absl::StatusOr<KvMachine::Notes> KvMachine::Remember(const View& view) {
  Notes notes;
  ASSIGN_OR_RETURN(const std::optional<std::string> members, view.Note(kMembersNote));
  std::optional<raft::Members> decoded;
  if (members) decoded = raft::DecodeMembers(*members);
  ASSIGN_OR_RETURN(const std::optional<std::string> state, view.Note(kMaintenanceNote));
  std::optional<Maintenance> maintenance = DecodeMaintenance(state.value_or(""));
  if (!decoded || !maintenance) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the state does not say who the members are; remove the member's state "
                      "directory and let it fetch a snapshot from the others");
  }
  notes.members = *std::move(decoded);
  notes.maintenance = *std::move(maintenance);
  ASSIGN_OR_RETURN(const std::optional<std::string> version, view.Note(kClusterVersionNote));
  if (version) notes.cluster_version = ByteReader(*version).U32();
  return notes;
}

absl::StatusOr<bool> KvMachine::Exists(const KvMachineOptions& options) {
  return DirectoryOf(options).Exists();
}

absl::Status KvMachine::Found(const KvMachineOptions& options, Position at,
                              const raft::Members& members) {
  StateDirectory directory = DirectoryOf(options);
  RETURN_IF_ERROR(CheckBlank(options, directory));
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, directory.Create());
  RETURN_IF_ERROR(Mvcc::Create(*database, at,
                               {{std::string(kMembersNote), raft::Encode(members)},
                                {std::string(kClusterVersionNote), EncodeVersion(1)}}));
  database.reset();
  return directory.Switch();
}

absl::Status KvMachine::FoundFrom(const KvMachineOptions& options, Position at,
                                  const raft::Members& members, const Snapshot& snapshot,
                                  const Origin& origin) {
  StateDirectory directory = DirectoryOf(options);
  RETURN_IF_ERROR(CheckBlank(options, directory));
  ASSIGN_OR_RETURN(std::shared_ptr<Database> database, directory.Link(snapshot));
  RETURN_IF_ERROR(
      Mvcc::Refound(*database, {.applied = at,
                                .bump = origin.revision_bump,
                                .mark_compacted = origin.mark_compacted,
                                .notes = {{std::string(kMembersNote), raft::Encode(members)}}}));
  ASSIGN_OR_RETURN(const std::shared_ptr<Mvcc> store,
                   Mvcc::Open(database, {.cache_bytes = options.record_cache_bytes}));
  ASSIGN_OR_RETURN(const Notes notes, Remember(store->Latest()));
  if (notes.cluster_version > kMachineVersion) {
    return MakeStatus(
        absl::StatusCode::kFailedPrecondition,
        "the backup is of a cluster of machine version {}, and this kvd has {}: start "
        "the newer release that made it",
        notes.cluster_version, kMachineVersion);
  }
  // What opening it wrote must not be lost behind the switch.
  RETURN_IF_ERROR(store->Flush());
  return directory.Switch();
}

absl::StatusOr<std::unique_ptr<KvMachine>> KvMachine::Open(KvMachineOptions options) {
  KV_CHECK(options.work, "the machine needs somebody to compact for it");
  StateDirectory directory = DirectoryOf(options);
  ASSIGN_OR_RETURN(std::shared_ptr<Database> database, directory.Open());
  ASSIGN_OR_RETURN(std::shared_ptr<Mvcc> store,
                   Mvcc::Open(std::move(database), {.cache_bytes = options.record_cache_bytes}));
  ASSIGN_OR_RETURN(Notes notes, Remember(store->Latest()));
  return std::unique_ptr<KvMachine>(
      new KvMachine(std::move(options), std::move(directory), std::move(store), std::move(notes)));
}

KvMachine::KvMachine(KvMachineOptions options, StateDirectory directory,
                     std::shared_ptr<Mvcc> store, Notes notes)
    : options_(std::move(options)),
      compactions_(std::make_shared<Compactions>(options_.work, options_.on_background_error)),
      directory_(std::move(directory)),
      pending_cluster_version_(notes.cluster_version),
      pending_maintenance_(notes.maintenance),
      store_(std::move(store)),
      members_(std::move(notes.members)),
      cluster_version_(notes.cluster_version),
      maintenance_(std::move(notes.maintenance)) {
  compactions_->Use(this->store());
}

KvMachine::~KvMachine() { compactions_->Close(); }

std::shared_ptr<Mvcc> KvMachine::store() const {
  const MutexLock lock(mutex_);
  return store_;
}

std::shared_ptr<Follower> KvMachine::follower() const {
  const MutexLock lock(mutex_);
  return follower_;
}

void KvMachine::SetFollower(std::shared_ptr<Follower> follower) {
  const MutexLock lock(mutex_);
  follower_.swap(follower);
}

std::vector<Reply> KvMachine::Apply(std::span<const Committed> run) {
  const std::shared_ptr<Mvcc> store = this->store();
  const Head head = store->head();
  Position applied = head.applied;
  uint64_t digest = head.digest;
  std::optional<raft::Members> members;
  std::vector<LeaseChange> lease_changes;
  std::vector<Reply> replies;
  replies.reserve(run.size());

  Batch batch(*store);
  for (const Committed& committed : run) {
    const Entry& entry = *committed.entry;
    KV_CHECK(entry.index == applied.index + 1 && entry.term >= applied.term,
             fmt::format("entry {} of term {} does not follow {} of term {}", entry.index,
                         entry.term, applied.index, applied.term));
    Reply reply;
    if (entry.kind == EntryKind::kCommand) {
      const std::optional<CommandView> command = ReadCommand(entry.data);
      KV_CHECK(command, fmt::format("entry {} holds no command", entry.index));
      KV_CHECK(
          command->min_version <= kMachineVersion,
          fmt::format("entry {} needs machine version {}, and this kvd has {}: start the newer "
                      "release that the other members run",
                      entry.index, command->min_version, kMachineVersion));
      reply = Execute(batch, *command, committed, lease_changes);
      batch.Finish();
    } else if (entry.kind == EntryKind::kMembers) {
      members = raft::DecodeMembers(entry.data);
      KV_CHECK(members, fmt::format("entry {} holds no configuration", entry.index));
      batch.SetNote(kMembersNote, entry.data);
    } else {
      KV_CHECK(entry.kind == EntryKind::kEmpty,
               fmt::format("entry {} is of a kind that this kvd does not know", entry.index));
    }
    replies.push_back(committed.wants_reply ? std::move(reply) : Reply{});
    applied = entry.position();
    digest = FoldEntry(digest, entry, batch);
  }
  const bool compacts = batch.compacted() != head.compacted;
  const std::shared_ptr<Follower> follower = this->follower();
  AppliedRevisions told{.before = head.revision, .after = batch.revision(), .events = {}};
  if (follower != nullptr && told.after > told.before && follower->WantsEvents()) {
    told.complete = true;
    told.events = batch.Events();
  }
  const absl::Status status = store->Commit(std::move(batch), applied, digest);
  KV_CHECK(status.ok(), Describe(status));
  {
    const MutexLock lock(mutex_);
    if (members) members_ = *std::move(members);
    cluster_version_ = pending_cluster_version_;
    if (maintenance_ != pending_maintenance_) maintenance_ = pending_maintenance_;
  }
  if (compacts) compactions_->Start();
  if (told.after > told.before) Tell(std::move(told));
  if (!lease_changes.empty() && options_.on_leases) options_.on_leases(std::move(lease_changes));
  return replies;
}

void KvMachine::Tell(AppliedRevisions applied) {
  const std::shared_ptr<Follower> follower = this->follower();
  if (follower != nullptr && follower->WantsEvents()) follower->OnApplied(std::move(applied));
}

Reply KvMachine::Execute(Batch& batch, const CommandView& command, const Committed& committed,
                         std::vector<LeaseChange>& lease_changes) {
  const bool wants_reply = committed.wants_reply;
  if (command.auth_revision != 0 && command.auth_revision != kAuthRevision) {
    return {.status = AuthOldRevisionError(), .body = {}};
  }
  if (absl::Status status = CheckAlarms(pending_maintenance_, command); !status.ok()) {
    return {.status = std::move(status), .body = {}};
  }
  switch (command.kind) {
    case kvd::internal::PUT: {
      const std::optional<PutView> put = ReadPut(command.body);
      return put ? DoPut(batch, *put, wants_reply) : Unreadable("PutRequest");
    }
    case kvd::internal::DELETE_RANGE: {
      const auto request = Parse<etcdserverpb::DeleteRangeRequest>(command.body);
      return request ? DoDeleteRange(batch, *request, wants_reply)
                     : Unreadable("DeleteRangeRequest");
    }
    case kvd::internal::TXN: {
      const auto request = Parse<etcdserverpb::TxnRequest>(command.body);
      return request ? DoTxn(batch, *request, wants_reply) : Unreadable("TxnRequest");
    }
    case kvd::internal::COMPACT:
      return ExecuteCompaction(batch, command, wants_reply);
    case kvd::internal::LEASE_GRANT:
    case kvd::internal::LEASE_REVOKE:
    case kvd::internal::LEASE_EXPIRE:
    case kvd::internal::LEASE_CHECKPOINT:
      return DoLeaseCommand(batch, command, committed.entry->position(), lease_changes);
    case kvd::internal::CLUSTER_VERSION:
      return ExecuteClusterVersion(batch, command);
    case kvd::internal::ALARM:
      return Maintain<etcdserverpb::AlarmRequest>(batch, command, DoAlarm);
    case kvd::internal::DOWNGRADE:
      return Maintain<etcdserverpb::DowngradeRequest>(batch, command, DoDowngrade);
    case kvd::internal::STOP_PERMIT:
      return Maintain<kvd::internal::StopPermit>(batch, command, DoStopPermit);
    case kvd::internal::ACKNOWLEDGED:
      return Maintain<kvd::internal::Acknowledged>(batch, command, DoAcknowledged);
    default:
      FailCheck(__FILE__, __LINE__, "the command is known",
                fmt::format("a command of kind {} is not known to machine version {}: start the "
                            "newer release that the other members run",
                            command.kind, kMachineVersion));
  }
}

Reply KvMachine::ExecuteClusterVersion(Batch& batch, const CommandView& command) {
  const auto request = Parse<kvd::internal::ClusterVersion>(command.body);
  if (!request) return Unreadable("ClusterVersion");
  KV_CHECK(request->version() <= kMachineVersion,
           fmt::format("the cluster moves to machine version {}, and this kvd has {}: start the "
                       "newer release that the other members run",
                       request->version(), kMachineVersion));
  if (request->version() > pending_cluster_version_) {
    pending_cluster_version_ = request->version();
    batch.SetNote(kClusterVersionNote, EncodeVersion(request->version()));
  }
  kvd::internal::ClusterVersion response;
  response.set_version(pending_cluster_version_);
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

template <typename Request>
Reply KvMachine::Maintain(Batch& batch, const CommandView& command,
                          Reply (*change)(Maintenance&, const Request&, Revision)) {
  const auto request = Parse<Request>(command.body);
  if (!request) return Unreadable(Request::descriptor()->name());
  Maintenance state = pending_maintenance_;
  Reply reply = change(state, *request, batch.revision());
  if (state != pending_maintenance_) {
    pending_maintenance_ = std::move(state);
    if (!MUTANT("kv.alarm_not_kept")) {
      batch.SetNote(kMaintenanceNote, Encode(pending_maintenance_));
    }
  }
  return reply;
}

Position KvMachine::applied() const { return store()->head().applied; }

absl::StatusOr<Position> KvMachine::Durable() const {
  ASSIGN_OR_RETURN(const Head head, store()->DurableHead());
  return head.applied;
}

raft::Members KvMachine::members() const {
  const MutexLock lock(mutex_);
  return members_;
}

absl::Status KvMachine::Flush() { return store()->Flush(); }

absl::StatusOr<Snapshot> KvMachine::Take(const std::string& path) {
  ASSIGN_OR_RETURN(Copied copied, Copy(path));
  return std::move(copied.snapshot);
}

absl::StatusOr<KvMachine::Copied> KvMachine::Copy(const std::string& path) {
  ASSIGN_OR_RETURN(const View view, store()->Checkpoint(path));
  ASSIGN_OR_RETURN(const Notes notes, Remember(view));
  Copied copied{.snapshot = {}, .head = view.head(), .cluster_version = notes.cluster_version};
  ASSIGN_OR_RETURN(copied.snapshot, SealSnapshot(options_.env, path, copied.head.applied,
                                                 raft::Encode(notes.members)));
  return copied;
}

absl::Status KvMachine::Adopt(const Snapshot& snapshot) {
  ASSIGN_OR_RETURN(std::shared_ptr<Database> database, directory_.Place(snapshot));
  ASSIGN_OR_RETURN(std::shared_ptr<Mvcc> next,
                   Mvcc::Open(std::move(database), {.cache_bytes = options_.record_cache_bytes}));
  const Position applied = next->head().applied;
  if (applied != snapshot.manifest.position) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the snapshot says that it stands at entry {} of term {}, but its database "
                      "stands at {} of term {}; take a new one",
                      snapshot.manifest.position.index, snapshot.manifest.position.term,
                      applied.index, applied.term);
  }
  ASSIGN_OR_RETURN(Notes notes, Remember(next->Latest()));
  // What opening it wrote must not be lost behind the switch.
  RETURN_IF_ERROR(next->Flush());
  if (!MUTANT("kv.snapshot_not_switched_to")) RETURN_IF_ERROR(directory_.Switch());
  compactions_->Use(next);
  pending_cluster_version_ = notes.cluster_version;
  if (!MUTANT("kv.adopted_alarms_forgotten")) pending_maintenance_ = notes.maintenance;
  const Revision told = next->head().revision;
  {
    const MutexLock lock(mutex_);
    store_.swap(next);
    if (!MUTANT("kv.adopted_members_forgotten")) members_ = std::move(notes.members);
    cluster_version_ = notes.cluster_version;
    maintenance_ = std::move(notes.maintenance);
  }
  Tell({.before = 0, .after = told, .events = {}});
  return absl::OkStatus();
}

absl::StatusOr<etcdserverpb::RangeResponse> KvMachine::Range(
    const etcdserverpb::RangeRequest& request, uint64_t bytes_max) const {
  const std::shared_ptr<Mvcc> store = this->store();
  etcdserverpb::RangeResponse response;
  if (ReadsOneCurrentKey(request)) {
    ASSIGN_OR_RETURN(const Mvcc::Current current, store->GetCurrent(request.key()));
    response.mutable_header()->set_revision(current.revision);
    RETURN_IF_ERROR(
        AnswerOneKey(current.record.get(), request, bytes_max, Effect::kNone, response));
    return response;
  }
  const KeyRange range = KeyRange::FromRequest(request.key(), request.range_end());
  ASSIGN_OR_RETURN(const View view, store->At(request.revision(), &range));
  response.mutable_header()->set_revision(view.head().revision);
  RETURN_IF_ERROR(AnswerRange(Reading(view), request, bytes_max, Effect::kNone, response));
  return response;
}

absl::StatusOr<std::unique_ptr<RangePages>> KvMachine::OpenRange(etcdserverpb::RangeRequest request,
                                                                 uint64_t page_bytes) const {
  const KeyRange range = KeyRange::FromRequest(request.key(), request.range_end());
  ASSIGN_OR_RETURN(View view, store()->At(request.revision(), &range));
  return std::make_unique<RangePages>(std::move(view), std::move(request), page_bytes);
}

absl::StatusOr<etcdserverpb::TxnResponse> KvMachine::ReadTxn(
    const etcdserverpb::TxnRequest& request, uint64_t bytes_max) const {
  etcdserverpb::TxnResponse response;
  RETURN_IF_ERROR(AnswerTxn(store()->Latest(), request, bytes_max, response));
  return response;
}

absl::StatusOr<etcdserverpb::HashKVResponse> KvMachine::HashKv(Revision revision) const {
  ASSIGN_OR_RETURN(const View view, At(revision));
  etcdserverpb::HashKVResponse response;
  ASSIGN_OR_RETURN(const uint32_t hash, view.Hash());
  response.set_hash(hash);
  response.set_compact_revision(view.head().compacted);
  response.set_hash_revision(view.revision());
  response.mutable_header()->set_revision(view.head().revision);
  return response;
}

void KvMachine::AwaitCompacted(Revision revision, CompactionDone done) {
  compactions_->Await(revision, std::move(done));
}

std::optional<Lease> KvMachine::FindLease(int64_t id) const { return store()->FindLease(id); }
std::vector<Lease> KvMachine::Leases() const { return store()->Leases(); }
size_t KvMachine::lease_count() const { return store()->lease_count(); }

absl::StatusOr<std::vector<std::string>> KvMachine::KeysOf(int64_t lease,
                                                           uint64_t bytes_max) const {
  ASSIGN_OR_RETURN(std::optional<std::vector<std::string>> keys,
                   store()->Latest().Attached(lease, bytes_max));
  if (!keys) return TooLargeError(bytes_max, Effect::kNone);
  return *std::move(keys);
}

Head KvMachine::head() const { return store()->head(); }

uint32_t KvMachine::cluster_version() const {
  const MutexLock lock(mutex_);
  return cluster_version_;
}

Maintenance KvMachine::maintenance() const {
  const MutexLock lock(mutex_);
  return maintenance_;
}

uint64_t KvMachine::SizeOnDisk() const { return store()->SizeOnDisk(); }
uint64_t KvMachine::UnflushedBytes() const { return store()->UnflushedBytes(); }
View KvMachine::Latest() const { return store()->Latest(); }
absl::StatusOr<View> KvMachine::At(Revision revision) const { return store()->At(revision); }

}  // namespace kv

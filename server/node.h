// One member without client sockets: what production runs one of, and the simulation several of in
// one thread.
//
// It starts no thread, opens no socket and reads no clock but through Runtime and Network. Start
// returns at once and works on the node's own loop: it takes the directory's lock, reads who this
// disk is, founds a cluster if the disk is blank, opens log and state, and starts the Replica. A
// refusal is one sentence with the reason and the next step; nothing was changed then that a later
// start minds.
//
//   <data>/LOCK        held while the process lives
//   <data>/identity    who this disk is (server/cluster/identity.h)
//   <data>/member/     log/ (with log/FLOOR), STATE, state-N/, incoming/, outgoing/
//   <data>/restore/    a backup that the first start founds a cluster from (storage/restore.h)
//   <data>/removed-*/  under discovery: what the disk held as another member, until it votes again
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/cluster/claim_driver.h"
#include "server/cluster/forming.h"
#include "server/cluster/founding_driver.h"
#include "server/kv/kv_machine.h"
#include "server/kv/lease_keeper.h"
#include "server/member_keeper.h"
#include "server/replica/caller.h"
#include "server/replica/door.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"
#include "server/state_check.h"
#include "storage/mutex.h"
#include "storage/restore.h"

namespace rocksdb {
class Env;
class FileLock;
}  // namespace rocksdb

namespace kv {

enum class LineLevel { kDebug, kInfo, kWarn };

// The command that makes `version` the cluster's machine version.
std::string RaiseClusterVersion(uint32_t version);

struct NodeConfig {
  std::string name = "default";
  std::string data_dir;
  std::vector<cluster::Listed> initial_cluster;  // By name; holds `name`.
  std::string initial_cluster_token;
  bool initial_cluster_exists = false;
  // Instead of initial_cluster: the members find each other. A contradiction then does not end the
  // process, which stays up as HALTED.
  std::optional<cluster::Discovery> discovery;
  // Null: nobody says, and there is none (Discovery::has_marker follows). Both outlive the node.
  cluster::DesiredSource* desired = nullptr;
  cluster::MarkerStore* marker = nullptr;
  std::vector<std::string> peer_urls;    // Where the others find this member.
  std::vector<std::string> client_urls;  // Where clients find it.
  std::string version;                   // Of this build, for Hello.

  absl::Duration tick = absl::Milliseconds(100);
  raft::Options raft;
  size_t inflight_bytes_max = size_t{64} << 20;
  size_t flush_log_bytes = size_t{16} << 20;
  size_t memtable_bytes = size_t{32} << 20;
  size_t block_cache_bytes = size_t{48} << 20;
  size_t record_cache_bytes = size_t{64} << 20;

  absl::Duration state_check_interval = absl::Minutes(1);
  absl::Duration note_interval = absl::Seconds(10);  // Of who acknowledged what.

  cluster::UpkeepOptions upkeep;
  bool count_decides = true;  // False: how many are wanted is asked for the founding only.
  absl::Duration desired_poll_interval = absl::Seconds(10);  // Of the leader.
  bool founders_are_kept = false;  // What this node founds, the leader looks after by itself.

  OpenDatabase open_database;  // RocksDB under the node's Env when empty.
  // Asked once the directory is locked and says who this is, before anybody is spoken to: the place
  // to open ports. May be empty.
  std::function<absl::Status()> disk_taken;
  std::function<void(LineLevel, std::string_view line)> log;
  // The process must end, with a sentence: the disk broke its word or is older than its word, or
  // this member was removed. May
  // return; the node does nothing more then that others could believe. From any loop.
  std::function<void(std::string_view sentence)> fatal;
  ReplicaMetrics metrics;
  LeaseMetrics lease_metrics;
};

// How a member stands towards its cluster, for people.
struct NodeStanding {
  cluster::State state = cluster::State::kBlank;
  // What is waited for before clients are answered, a sentence each, with names and reasons; when
  // halted, the contradiction. Empty: nothing.
  std::vector<std::string> waits;
};

class Node {
 public:
  // All three outlive the node; what the network brings later is answered with "stopping".
  Node(Runtime& runtime, Network& network, rocksdb::Env* env, NodeConfig config);
  // Without Stop: as a crash would leave it.
  ~Node();
  Node(const Node&) = delete;
  Node& operator=(const Node&) = delete;

  // `started` is called once, on the node's loop: OK when replica() and machine() may be used; a
  // refusal otherwise. Not called when the node is stopped or destroyed first. Under discovery a
  // refusal that is a contradiction halts instead (standing()), and OK waits for the marker.
  void Start(absl::AnyInvocable<void(absl::Status) &&> started);

  // Hands leadership over, answers what is in flight for at most `drain`, writes the floor; then
  // `stopped`, on a loop of the node's. Any thread, once; in any state.
  void Stop(absl::Duration drain, absl::AnyInvocable<void() &&> stopped);

  // Once started; for this process's end. Empty: it may end now, or it was removed. Otherwise what
  // is waited for, or an error because nobody could be asked: ask again. Any thread; `done` on a
  // loop of the node's.
  void AskPermit(cluster::PermitReason reason, MemberKeeper::Answered done) {
    keeper_->AskPermit(reason, std::move(done));
  }
  void Leave(MemberKeeper::Answered done) { keeper_->Leave(std::move(done)); }

  // Once started.
  Replica& replica() { return *replica_; }
  KvMachine& machine() { return *machine_; }
  LeaseKeeper& leases() { return *leases_; }
  const cluster::Identity& identity() const { return identity_; }

  // At any time, from any thread.
  NodeStanding standing() const;

 private:
#define KV_NODE_LOOP ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_)
  void TakeLock() KV_NODE_LOOP;
  absl::Status ReadWhoThisIs() KV_NODE_LOOP;
  absl::Status OpenPorts() KV_NODE_LOOP;
  absl::Status CheckMember() const KV_NODE_LOOP;
  absl::Status TakeUpRestore() KV_NODE_LOOP;
  absl::Status FoundFromBackup() KV_NODE_LOOP;
  bool MustClaim() const KV_NODE_LOOP;
  void JoinOrFound() KV_NODE_LOOP;
  void Join() KV_NODE_LOOP;
  absl::Status TakeRecord(cluster::ClaimAnswer answer) KV_NODE_LOOP;
  void Found() KV_NODE_LOOP;
  void MakeDriver() KV_NODE_LOOP;
  void OnFounded(absl::Status founded) KV_NODE_LOOP;
  cluster::FoundingOptions MakeFoundingOptions() const;

  // Discovery (node_discovery.cc).
  absl::Status CheckSlot() const KV_NODE_LOOP;
  void ChooseNextUuid() KV_NODE_LOOP;
  void BeginAnew() KV_NODE_LOOP;
  absl::Status PutAside() KV_NODE_LOOP;
  void RemoveOldCopies() KV_NODE_LOOP;
  void Form() KV_NODE_LOOP;
  void CarryForming(cluster::Forming::Output output) KV_NODE_LOOP;
  void Halt(std::string sentence) KV_NODE_LOOP;
  void SetStanding(cluster::State state, std::vector<std::string> waits);

  absl::Status OpenMember() KV_NODE_LOOP;
  absl::Status LayDown() KV_NODE_LOOP;
  absl::Status LayDownState(Position at) KV_NODE_LOOP;
  absl::StatusOr<std::unique_ptr<LogStore>> OpenLog(bool create) KV_NODE_LOOP;
  KvMachineOptions MachineOptions();
  ReplicaMetrics WatchedMetrics();
  void KeepLeases() KV_NODE_LOOP;
  void KeepMembers() KV_NODE_LOOP;
  raft::Members FirstMembers() const KV_NODE_LOOP;
  std::string Record(const raft::Members& members) const KV_NODE_LOOP;
  using ClaimCaller = Caller<absl::StatusOr<std::string>>;
  void ServeClaims();
  void OnClaim(const cluster::Claim& claim, absl::Duration deadline,
               ClaimCaller caller) KV_NODE_LOOP;
  void Watch() KV_NODE_LOOP;
  void WatchLater() KV_NODE_LOOP;
  void Publish(const raft::Members& members) KV_NODE_LOOP;
  void GiveVote(const raft::Members& members) KV_NODE_LOOP;
  void Change(raft::MemberChange change, std::string_view what) KV_NODE_LOOP;
  void EndAsRemoved() KV_NODE_LOOP;
  void EndAsStale(std::string_view evidence) KV_NODE_LOOP;
  std::string WhatStaleNeeds() const KV_NODE_LOOP;
  void EndAs(cluster::State state, std::string sentence) KV_NODE_LOOP;
  void Answer(absl::Status status) KV_NODE_LOOP;
  void Close() KV_NODE_LOOP;
#undef KV_NODE_LOOP
  void Log(LineLevel level, std::string_view line) const { config_.log(level, line); }
  std::string Path(std::string_view name) const;

  // Constant after construction.
  Runtime& runtime_;
  Network& network_;
  rocksdb::Env* const env_;
  const NodeConfig config_;
  const std::shared_ptr<Door> door_;

  // The loop's. What Start made is read by others only after `started`.
  rocksdb::FileLock* lock_ = nullptr;
  std::optional<absl::Duration> lock_reported_;
  cluster::Identity identity_;
  absl::AnyInvocable<void(absl::Status) &&> started_;
  absl::AnyInvocable<void() &&> stopped_;
  bool stopping_ = false;
  bool changing_ = false;   // A change of the membership by this node is under way.
  bool published_ = false;  // What this start says of the member's addresses is in the log.
  raft::Members joined_;    // What the claim was answered with.
  std::optional<PendingRestore> restore_;  // The state is to begin with this.
  bool halted_ = false;
  bool ports_open_ = false;
  bool copies_gone_ = false;                   // There is no removed-* (any more).
  std::optional<absl::Duration> form_said_;    // When it was last said why clients wait.
  std::unique_ptr<cluster::Forming> forming_;  // Where there is a marker.

  mutable Mutex standing_mutex_;
  NodeStanding standing_ ABSL_GUARDED_BY(standing_mutex_);

  std::unique_ptr<Loop> work_loop_;  // Outlives the machine, which posts to it.
  std::unique_ptr<KvMachine> machine_;
  // What the machine and the replica tell is for the keeper, which uses both: it is closed before
  // they go and goes after them.
  std::unique_ptr<LeaseKeeper> leases_;
  std::unique_ptr<Replica> replica_;
  std::unique_ptr<StateCheck> state_check_;
  std::unique_ptr<MemberKeeper> keeper_;
  std::unique_ptr<cluster::ClaimDriver> claim_;
  std::unique_ptr<cluster::FoundingDriver> driver_;
  std::unique_ptr<Loop> loop_;
};

}  // namespace kv

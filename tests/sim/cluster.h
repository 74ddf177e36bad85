// Several whole members in one thread: the Node of production on a simulated disk, wire and clock.
//
// A host is a machine with a disk; a process is one life of a member on it. Everything that can be
// done to either is a function here: the random runs draw them, the scenarios call them by name.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "server/node.h"
#include "server/watch/watch_hub.h"
#include "tests/sim/judge.h"
#include "tests/sim/scheduler.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_network.h"

namespace kv::sim {

struct ClusterOptions {
  int voters = 3;
  uint64_t seed = 1;
  absl::Duration tick = absl::Milliseconds(100);
  raft::Options raft;
  size_t flush_log_bytes = size_t{1} << 20;
  size_t inflight_bytes_max = size_t{64} << 20;
  uint64_t flush_by_itself_one_in = 0;
  SimRuntime::Delays delays{};
  WireOptions wire;
  WatchHubOptions watch;
  Time state_check_interval = 60 * kSecond;
  Time note_interval = 10 * kSecond;
  uint64_t thorough = 64;  // Every so many looks at a core, all of its invariants.
  bool real_rocksdb = false;
  // Hosts are pods: kvd-0, kvd-1, …; the leader looks after the members by itself, and this says
  // how many are wanted. Null: neither.
  cluster::DesiredSource* desired = nullptr;
  bool trace = false;
  bool trace_wire = false;  // Every envelope besides.
};

struct Host;

struct Process {
  uint64_t number = 0;  // Of all processes of the run.
  Host* host = nullptr;
  std::unique_ptr<SimRuntime> runtime;
  std::unique_ptr<SimNetwork> network;
  std::unique_ptr<Node> node;
  // Of those who watch here; null until somebody does.
  std::unique_ptr<Loop> watch_work;
  std::unique_ptr<WatchHub> hub;
  std::optional<absl::Status> started;
  bool stopping = false;
  Life life;

  bool serving() const { return started && started->ok(); }
};

struct Host {
  int number = 0;
  std::string name;
  std::string url;
  MemberId id = 0;   // Once it is a member.
  std::string uuid;  // Of the disk, unless it founds.
  std::unique_ptr<SimDisk> disk;
  std::unique_ptr<Process> process;  // Null: down.
  std::string refusal;               // Why it last could not start, or ended itself.
  bool founder = false;
  bool dies_adopting = false;  // As soon as its machine stands where its log does not, once.
  bool rotten = false;         // Its disk was damaged or is old: it may refuse to start for ever.
  bool retired = false;        // It will never start again.

  bool up() const { return process != nullptr; }
  bool serving() const { return process != nullptr && process->serving(); }
  Replica& replica() const { return process->node->replica(); }
  KvMachine& machine() const { return process->node->machine(); }
  const raft::Core& core() const { return replica().core(); }
};

class Cluster {
 public:
  explicit Cluster(const ClusterOptions& options);
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  // Starts the founders and waits until they are members and one of them leads.
  void Found(Time limit = 120 * kSecond);

  Scheduler& scheduler() { return scheduler_; }
  Wire& wire() { return wire_; }
  Judge& judge() { return judge_; }
  const ClusterOptions& options() const { return options_; }
  std::deque<Host>& hosts() { return hosts_; }
  Host& host(int number) { return hosts_[static_cast<size_t>(number) - 1]; }
  Host* HostOf(MemberId id);
  WatchHub& HubOf(Host& host);  // Which must be serving.
  // Who leads and has committed in its term, in the newest such term; null: nobody.
  Host* Leader();
  Host& AwaitLeader(Time limit = 60 * kSecond);
  Time election_timeout() const;

  // Processes.
  void Start(Host& host);
  void Crash(Host& host);      // The process dies; the machine lives on.
  void LosePower(Host& host);  // And what was not synced is gone.
  // The host, which is down, has this disk from here on: an older one of its own.
  void PutBack(Host& host, std::unique_ptr<SimDisk> disk);
  // As SIGTERM: down once it has stopped. The second time it dies at once.
  void Stop(Host& host, absl::Duration drain);

  // A new machine with an empty disk that was told of the cluster: a learner that has nothing yet.
  // `at`: in the place (the URL) of that host, which is retired.
  Host& AddHost(Host* at = nullptr);
  // Lays down what joining will lay down. The membership need not know the host yet.
  void MakeMember(Host& host);
  raft::MemberTarget TargetFor(const Host& host, raft::MemberFate fate) const;

  // Nobody's loops stall from here on.
  void CalmLoops();

  // Links, both directions.
  void Isolate(const Host& host);
  void CutBetween(const Host& a, const Host& b);

  // Whether every configuration that may be in force keeps a quorum of members whose disks are
  // whole when these are counted out.
  bool SurvivesWithout(const std::vector<const Host*>& lost);

  // Runs until `happened`, or condemns the run with the sentence.
  void Await(std::string_view what, const std::function<bool()>& happened, Time limit);

  // The same for what takes as long as the slowest member needs to catch up, which a tiny window
  // over a slow link makes any time at all: `limit` counts from the last entry that anybody
  // applied.
  void AwaitCaughtUp(std::string_view what, const std::function<bool()>& happened, Time limit);

  // For the timeline of a failure; `text` is made only if somebody will read it.
  bool tracing() const { return options_.trace; }
  void Note(const Host* host, std::string text);
  std::string Timeline() const;

 private:
  bool pods() const { return options_.desired != nullptr; }
  std::string NameOf(int number) const;
  NodeConfig ConfigOf(const Host& host, Process* process);
  [[noreturn]] void CondemnWait(std::string_view what, Time limit);
  void End(Host& host);
  void After(SimLoop& loop);
  void DieIfAdopting(const Process& process);
  const SimDisk* DiskOf(MemberId id);

  const ClusterOptions options_;
  SimRuntime::Delays delays_;
  Scheduler scheduler_;
  Wire wire_;
  Judge judge_;
  std::deque<Host> hosts_;
  std::vector<std::unique_ptr<Process>> dying_;
  uint64_t processes_ = 0;
  uint64_t cluster_id_ = 0;
  std::deque<std::string> timeline_;
  std::vector<std::unique_ptr<SimDisk>> replaced_disks_;
};

}  // namespace kv::sim

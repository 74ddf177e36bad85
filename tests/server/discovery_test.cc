// Nodes that find each other by themselves: several in one thread and virtual time, on a simulated
// disk each.
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/cluster/hello.h"
#include "server/node.h"
#include "storage/files.h"
#include "storage/status.h"
#include "tests/server/fake_outside.h"
#include "tests/server/hub_network.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

using cluster::Marker;
using cluster::State;

constexpr std::string_view kDataDir = "/data";
const std::string kIdentity = "/data/identity";

std::vector<std::string> UrlsOf(const std::string& name) { return {"http://" + name + ":2380"}; }

class Slots {
 public:
  struct Process {
    std::unique_ptr<HubNetwork> network;
    std::optional<absl::Status> started;
    std::string fatal;
    std::vector<std::string> lines;
    std::unique_ptr<Node> node;

    bool serves() const { return started && started->ok(); }
  };

  FakeDesired desired{3};
  FakeMarker marker;

  ~Slots() {
    for (auto& [name, process] : processes_) process.node.reset();
  }

  // The disk outlives its processes.
  FaultDisk& disk(const std::string& name) {
    std::unique_ptr<FaultDisk>& disk = disks_[name];
    if (!disk) disk = std::make_unique<FaultDisk>(DiskImage(), FaultDisk::Trace::kNone);
    return *disk;
  }
  void SwapDisks(const std::string& one, const std::string& other) {
    std::swap(disks_[one], disks_[other]);
  }

  void Start(const std::string& name) {
    Process& process = processes_[name];
    process = Process();
    NodeConfig config;
    config.name = name;
    config.data_dir = kDataDir;
    config.discovery.emplace();
    config.discovery->slot_prefix = "kvd";
    config.discovery->slot_urls = UrlsOf;
    config.desired = &desired;
    config.marker = &marker;
    config.initial_cluster_token = "token";
    config.peer_urls = UrlsOf(name);
    config.client_urls = {"http://" + name + ":2379"};
    config.version = "test";
    config.memtable_bytes = size_t{64} << 10;
    config.block_cache_bytes = size_t{1} << 20;
    config.record_cache_bytes = size_t{64} << 10;
    config.log = [&process](LineLevel, std::string_view line) { process.lines.emplace_back(line); };
    config.fatal = [&process](std::string_view sentence) { process.fatal = sentence; };
    process.network = std::make_unique<HubNetwork>(&hub_, UrlsOf(name).front());
    process.node =
        std::make_unique<Node>(runtime_, *process.network, disk(name).env(), std::move(config));
    process.node->Start([&process](absl::Status status) { process.started = std::move(status); });
  }
  void StartAll() {
    for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) Start(name);
  }
  void Crash(const std::string& name) {
    processes_.at(name).node.reset();
    processes_.erase(name);
  }
  void AwaitAllServe() {
    for (const auto& [name, process] : processes_) {
      INFO(name);
      REQUIRE(runtime_.RunUntil([&process] { return process.serves(); }, absl::Seconds(60)));
    }
  }
  // Until it waits for something that names `what`.
  bool AwaitWaits(const std::string& name, std::string_view what) {
    return runtime_.RunUntil([&] { return Waits(name).find(what) != std::string::npos; },
                             absl::Seconds(60));
  }
  std::string Waits(const std::string& name) {
    std::string text;
    for (const std::string& wait : processes_.at(name).node->standing().waits) text += wait + "\n";
    return text;
  }
  State StateOf(const std::string& name) { return processes_.at(name).node->standing().state; }
  cluster::Identity IdentityOf(const std::string& name) {
    return cluster::ReadIdentity(disk(name).env(), kIdentity).value().value();
  }
  // What Hello answers there.
  absl::StatusOr<cluster::Standing> Hello(const std::string& name) {
    cluster::Hello hello;
    hello.from.name = "asker";
    hello.to_name = name;
    HubNetwork asker(&hub_, "http://asker:2380");
    std::optional<absl::StatusOr<cluster::Standing>> answer;
    asker.Call(UrlsOf(name).front(), cluster::kHelloCall, cluster::EncodeHello(hello),
               absl::Seconds(2), [&answer](absl::StatusOr<std::string> bytes) {
                 answer = bytes.ok() ? cluster::DecodeHelloAnswer(*bytes) : bytes.status();
               });
    REQUIRE(runtime_.RunUntil([&answer] { return answer.has_value(); }));
    return *answer;
  }
  Process& process(const std::string& name) { return processes_.at(name); }
  FakeRuntime& runtime() { return runtime_; }

 private:
  FakeRuntime runtime_;
  Hub hub_{&runtime_};
  std::map<std::string, std::unique_ptr<FaultDisk>> disks_;
  std::map<std::string, Process> processes_;
};

TEST_CASE("the wanted slots found a cluster, and the marker says so before anybody serves") {
  Slots slots;
  slots.StartAll();
  REQUIRE(slots.runtime().RunUntil([&] {
    // Nobody serves while the marker does not say formed.
    const bool formed = slots.marker.marker().phase == Marker::Phase::kFormed;
    for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) {
      if (!formed && slots.process(name).serves()) FAIL(name << " serves already");
    }
    return formed;
  }));
  slots.AwaitAllServe();
  const uint64_t cluster_id = slots.IdentityOf("kvd-0").cluster_id;
  CHECK(slots.marker.marker().cluster_id == cluster_id);
  for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) {
    CHECK(slots.IdentityOf(name).cluster_id == cluster_id);
    CHECK(slots.IdentityOf(name).formed);
    CHECK(slots.StateOf(name) == State::kMember);
    CHECK(slots.Waits(name) == "");
  }

  // From then on nobody outside is needed.
  slots.marker.down = true;
  slots.desired.Set(0);
  for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) slots.Crash(name);
  slots.StartAll();
  slots.AwaitAllServe();
  CHECK(slots.IdentityOf("kvd-1").cluster_id == cluster_id);
}

TEST_CASE("who is waited for, and why, is said where people look") {
  Slots slots;
  slots.marker.down = true;
  slots.Start("kvd-0");
  slots.Start("kvd-1");
  CHECK(slots.AwaitWaits("kvd-0", "kvd-2 (http://kvd-2:2380): connection refused"));
  CHECK(slots.AwaitWaits("kvd-0", "the marker cannot be read: the API server does not answer"));
  const auto said = [&] {
    for (const std::string& line : slots.process("kvd-1").lines) {
      if (line.find("not a member yet; waiting for: ") == 0 &&
          line.find("kvd-2 (http://kvd-2:2380)") != std::string::npos) {
        return true;
      }
    }
    return false;
  };
  CHECK(slots.runtime().RunUntil(said, absl::Seconds(30)));
  slots.Start("kvd-2");
  slots.runtime().RunFor(absl::Seconds(30));
  CHECK(slots.StateOf("kvd-2") == State::kBlank);
  CHECK(slots.marker.marker().phase == Marker::Phase::kNone);
  slots.marker.down = false;
  slots.AwaitAllServe();
}

TEST_CASE("a volume under another slot's name halts, and the process stays to say so") {
  Slots slots;
  slots.StartAll();
  slots.AwaitAllServe();
  for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) slots.Crash(name);
  slots.SwapDisks("kvd-1", "kvd-2");
  slots.StartAll();
  REQUIRE(slots.AwaitWaits("kvd-1", "holds the data of \"kvd-2\", and this is \"kvd-1\""));
  CHECK(slots.StateOf("kvd-1") == State::kHalted);
  CHECK(slots.Hello("kvd-1")->state == State::kHalted);
  slots.runtime().RunFor(absl::Seconds(25));
  CHECK_FALSE(slots.process("kvd-1").started.has_value());
  CHECK(slots.process("kvd-1").fatal == "");
  int said = 0;
  for (const std::string& line : slots.process("kvd-1").lines) {
    if (line.find("HALTED: ") == 0) ++said;
  }
  CHECK(said >= 3);
  CHECK(slots.IdentityOf("kvd-1").name == "kvd-2");  // Nothing was changed.
}

TEST_CASE("all disks lost beside a marker halts, until a person gives the cluster up") {
  Slots slots;
  slots.marker.Set(Marker::Phase::kFormed, 7);
  slots.StartAll();
  for (const char* name : {"kvd-0", "kvd-1", "kvd-2"}) {
    CHECK(slots.AwaitWaits(name, "no disk holds data, but cluster 7 existed"));
    CHECK(slots.StateOf(name) == State::kHalted);
  }
  slots.marker.Set(Marker::Phase::kNone, 0);
  slots.AwaitAllServe();
  CHECK(slots.marker.marker().phase == Marker::Phase::kFormed);
  CHECK(slots.marker.marker().cluster_id == slots.IdentityOf("kvd-0").cluster_id);
}

TEST_CASE("a member whose marker names another cluster before it ever served halts") {
  Slots slots;
  slots.desired.Set(1);
  slots.Start("kvd-0");
  REQUIRE(slots.runtime().RunUntil(
      [&] { return slots.marker.marker().phase == Marker::Phase::kForming; }, absl::Seconds(60)));
  // Its twin was faster.
  slots.marker.Set(Marker::Phase::kFormed, 7);
  REQUIRE(slots.AwaitWaits("kvd-0", "two foundings met"));
  slots.runtime().RunFor(absl::Seconds(15));
  CHECK_FALSE(slots.process("kvd-0").serves());
  CHECK(slots.Hello("kvd-0")->state == State::kHalted);
  CHECK(slots.marker.marker().cluster_id == 7);
}

TEST_CASE("a member that was removed ends, and its next start is another disk's if it is wanted") {
  Slots slots;
  slots.StartAll();
  slots.AwaitAllServe();
  const cluster::Identity before = slots.IdentityOf("kvd-2");
  slots.desired.Set(2);
  std::optional<MembersResult> result;
  raft::MemberChange change;
  change.targets.push_back(
      {.id = before.member_id, .fate = raft::MemberFate::kRemoved, .record = {}});
  slots.process("kvd-0").node->replica().ChangeMembers(
      change, absl::Seconds(10), [&result](MembersResult answer) { result = std::move(answer); });
  REQUIRE(slots.runtime().RunUntil([&] { return !slots.process("kvd-2").fatal.empty(); },
                                   absl::Seconds(60)));
  REQUIRE(result.has_value());
  CHECK(result->error == ReplicaError::kNone);
  CHECK(slots.process("kvd-2").fatal.find("was removed from its cluster") != std::string::npos);
  slots.Crash("kvd-2");
  const cluster::Identity removed = slots.IdentityOf("kvd-2");
  CHECK(removed.state == State::kRemoved);
  CHECK(removed.next_uuid.size() == 32);
  CHECK(removed.next_uuid != before.node_uuid);

  slots.Start("kvd-2");
  REQUIRE(slots.AwaitWaits("kvd-2", "is wanted again when there are more than 2 members"));
  slots.desired.Set(3);
  REQUIRE(slots.runtime().RunUntil(
      [&] { return slots.IdentityOf("kvd-2").state == State::kMember; }, absl::Seconds(60)));
  const cluster::Identity again = slots.IdentityOf("kvd-2");
  CHECK(again.node_uuid == removed.next_uuid);
  CHECK(again.cluster_id == before.cluster_id);
  CHECK(again.member_id != before.member_id);
}

TEST_CASE("a removed disk idles while its slot is not wanted, and says so") {
  Slots slots;
  cluster::Identity removed;
  removed.state = State::kRemoved;
  removed.node_uuid = cluster::MakeNodeUuid(1, 1);
  removed.cluster_id = 7;
  removed.member_id = 9;
  removed.name = "kvd-3";
  REQUIRE(CreateDirectories(slots.disk("kvd-3").env(), "/data/member").ok());
  REQUIRE(cluster::WriteIdentity(slots.disk("kvd-3").env(), kIdentity, removed).ok());
  slots.Start("kvd-3");
  REQUIRE(slots.AwaitWaits("kvd-3", "\"kvd-3\" is wanted again when there are more than 3"));
  CHECK(slots.StateOf("kvd-3") == State::kRemoved);
  CHECK(slots.Hello("kvd-3")->state == State::kRemoved);
  const std::string next = slots.IdentityOf("kvd-3").next_uuid;
  CHECK(next.size() == 32);
  slots.desired.Set(4);
  REQUIRE(
      slots.runtime().RunUntil([&] { return slots.IdentityOf("kvd-3").state == State::kBlank; }));
  CHECK(slots.IdentityOf("kvd-3").node_uuid == next);
  CHECK(FileExists(slots.disk("kvd-3").env(), "/data/removed-9").value());
  CHECK_FALSE(FileExists(slots.disk("kvd-3").env(), "/data/member").value());
  // And is as good as any blank disk.
  slots.StartAll();
  CHECK(slots.AwaitWaits("kvd-3", "\"kvd-0\" to found the cluster"));
}

}  // namespace
}  // namespace kv::test

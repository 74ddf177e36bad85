// A member's first start with a backup, cut at every operation of its disk: the next start ends
// with all that the backup holds, as one new cluster, and with what was acknowledged after it.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/node.h"
#include "server/replica/forward.h"
#include "storage/backup.h"
#include "storage/files.h"
#include "storage/restore.h"
#include "storage/status.h"
#include "tests/server/hub_network.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

constexpr std::string_view kDataDir = "/data";
constexpr uint64_t kBump = 1000;
constexpr int kKeys = 30;
constexpr int64_t kLease = 77;

void Must(const absl::Status& status) {
  INFO(Describe(status));
  REQUIRE(status.ok());
}

// A member alone, in virtual time.
class Lone {
 public:
  Lone(FaultDisk& disk, uint64_t seed, NodeConfig config = {}) : runtime_(seed) {
    const std::string url = "http://a:2380";
    config.name = "a";
    config.data_dir = kDataDir;
    config.initial_cluster = {{.name = "a", .peer_urls = {url}}};
    config.peer_urls = {url};
    config.client_urls = {"http://a:2379"};
    config.memtable_bytes = size_t{64} << 10;
    config.block_cache_bytes = size_t{1} << 20;
    config.record_cache_bytes = size_t{64} << 10;
    config.log = [](LineLevel, std::string_view) {};
    config.fatal = [this](std::string_view sentence) { fatal_ = sentence; };
    network_ = std::make_unique<HubNetwork>(&hub_, url);
    node_ = std::make_unique<Node>(runtime_, *network_, disk.env(), std::move(config));
    node_->Start([this](absl::Status status) { started_ = std::move(status); });
    runtime_.RunUntil([this] { return started_.has_value(); });
  }

  absl::Status started() const { return started_.value_or(absl::UnavailableError("not started")); }
  // It leads, and has applied all that was acknowledged.
  bool AwaitLead() {
    std::optional<ReadResult> read;
    node_->replica().Read(absl::Seconds(30), [&read](ReadResult answer) { read = answer; });
    return runtime_.RunUntil([&read] { return read.has_value(); }, absl::Seconds(40)) &&
           read->error == ReplicaError::kNone;
  }
  absl::Status Do(kvd::internal::Kind kind, const google::protobuf::MessageLite& body,
                  uint32_t version = 1) {
    std::optional<ProposalResult> result;
    node_->replica().Propose(EncodeCommand(kind, body.SerializeAsString(), version),
                             absl::Seconds(10),
                             [&result](ProposalResult answer) { result = std::move(answer); });
    runtime_.RunUntil([&result] { return result.has_value(); });
    if (!result || result->error != ReplicaError::kNone) return absl::UnavailableError("not done");
    return result->reply.status;
  }
  absl::Status Put(const std::string& key, const std::string& value, int64_t lease = 0) {
    etcdserverpb::PutRequest put;
    put.set_key(key);
    put.set_value(value);
    put.set_lease(lease);
    return Do(kvd::internal::PUT, put);
  }
  std::string Get(const std::string& key) {
    etcdserverpb::RangeRequest request;
    request.set_key(key);
    const auto response = node_->machine().Range(request);
    return response.ok() && response->kvs_size() == 1 ? response->kvs(0).value() : "";
  }
  Node& node() { return *node_; }
  FakeRuntime& runtime() { return runtime_; }

 private:
  FakeRuntime runtime_;
  Hub hub_{&runtime_};
  std::unique_ptr<HubNetwork> network_;
  std::optional<absl::Status> started_;
  std::string fatal_;
  std::unique_ptr<Node> node_;
};

struct Taken {
  std::string bytes;
  Head head;
  uint64_t cluster_id = 0;
};

// A backup of a member that holds keys, older versions and a lease.
Taken TakeBackup() {
  FaultDisk disk(DiskImage(), FaultDisk::Trace::kNone);
  Lone lone(disk, 1);
  Must(lone.started());
  REQUIRE(lone.AwaitLead());
  KvMachine& machine = lone.node().machine();
  REQUIRE(lone.runtime().RunUntil([&] { return machine.cluster_version() == kMachineVersion; }));
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_id(kLease);
  grant.set_ttl(1000);
  Must(lone.Do(kvd::internal::LEASE_GRANT, grant, kMachineVersion));
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < kKeys; ++i) {
      Must(lone.Put(fmt::format("key{}", i), fmt::format("value {} of {}", round, i),
                    i == 0 ? kLease : 0));
    }
  }
  auto copied = machine.Copy("/copy");
  Must(copied.status());
  Taken taken{.bytes = {}, .head = copied->head, .cluster_id = lone.node().identity().cluster_id};
  BackupHeader header{.cluster_id = taken.cluster_id,
                      .machine_version = copied->cluster_version,
                      .revision = copied->head.revision,
                      .compacted = copied->head.compacted,
                      .keys = copied->head.keys,
                      .manifest = copied->snapshot.manifest};
  BackupSource source(disk.env(), std::move(copied->snapshot), std::move(header));
  while (true) {
    const auto piece = source.Next();
    Must(piece.status());
    if (piece->bytes.empty()) return taken;
    taken.bytes += piece->bytes;
  }
}

void Prepare(FaultDisk& disk, const Taken& taken) {
  Must(WriteFileAtomically(disk.env(), "/b", taken.bytes));
  Must(PrepareRestore(disk.env(), "/b", SumCheck::kYes, std::string(kDataDir),
                      {.bump = kBump, .mark_compacted = true})
           .status());
}

// What is wrong with a member that was restored from `taken`; empty: nothing.
std::string FaultOf(Lone& lone, const Taken& taken) {
  KvMachine& machine = lone.node().machine();
  const Revision base = taken.head.revision + static_cast<Revision>(kBump);
  const Head head = machine.head();
  if (head.keys < taken.head.keys) return fmt::format("it holds {} keys", head.keys);
  for (int i = 0; i < kKeys; ++i) {
    if (lone.Get(fmt::format("key{}", i)) != fmt::format("value 1 of {}", i)) {
      return fmt::format("key{} is {}", i, lone.Get(fmt::format("key{}", i)));
    }
  }
  if (head.revision < base) return fmt::format("revision {} is rewound", head.revision);
  if (head.compacted != base) return fmt::format("it is compacted to {}", head.compacted);
  if (machine.At(base - 1).ok() || !machine.At(base).ok()) return "the past is not as marked";
  const std::optional<Lease> lease = machine.FindLease(kLease);
  if (!lease || lease->ttl != 1000) return "the lease is gone";
  const auto attached = machine.KeysOf(kLease);
  if (!attached.ok() || attached->size() != 1) return "the lease has lost its key";
  const cluster::Identity& identity = lone.node().identity();
  if (identity.cluster_id == taken.cluster_id) return "it goes on as the old cluster";
  const raft::Members members = machine.members();
  if (members.voters != std::vector<MemberId>{identity.member_id} || !members.learners.empty()) {
    return "its members are others than itself";
  }
  return "";
}

TEST_CASE("a backup becomes a cluster of one, with revisions that go on above its own") {
  const Taken taken = TakeBackup();
  FaultDisk disk;
  Prepare(disk, taken);
  Lone lone(disk, 2);
  Must(lone.started());
  REQUIRE(lone.AwaitLead());
  CHECK(FaultOf(lone, taken).empty());
  Must(lone.Put("new", "value"));
  CHECK(lone.node().machine().head().revision ==
        taken.head.revision + static_cast<Revision>(kBump) + 1);
  CHECK(!FileExists(disk.env(), fmt::format("{}/restore", kDataDir)).value());
  // Behind what a blank disk begins with.
  CHECK(lone.node().machine().applied().index > 2);
}

TEST_CASE("a first start that a backup cannot carry says why and changes nothing") {
  const Taken taken = TakeBackup();
  const std::string restore = fmt::format("{}/restore", kDataDir);
  SECTION("to join another cluster") {
    FaultDisk disk;
    Prepare(disk, taken);
    NodeConfig config;
    config.initial_cluster_exists = true;
    {
      Lone joins(disk, 3, std::move(config));
      CHECK(Describe(joins.started()).find("holds a backup to be restored") != std::string::npos);
    }
    Lone founds(disk, 4);
    Must(founds.started());
    CHECK(FaultOf(founds, taken).empty());
  }
  SECTION("with a byte of it turned over") {
    FaultDisk disk;
    Prepare(disk, taken);
    DiskImage image = disk.image();
    for (const std::string& path : image.Files()) {
      if (path.starts_with(restore + "/snapshot/") && path.ends_with(".sst")) {
        image.FlipBit(*image.Find(path), 100, 3);
        break;
      }
    }
    FaultDisk rotten(image);
    Lone lone(rotten, 3);
    CHECK(Describe(lone.started()).find("is damaged") != std::string::npos);
    CHECK(lone.node().identity().state == cluster::State::kBlank);
  }
  SECTION("after an interrupted attempt") {
    FaultDisk disk;
    Must(CreateDirectories(disk.env(), fmt::format("{}/restore.part", kDataDir)));
    Lone lone(disk, 3);
    CHECK(Describe(lone.started()).find("did not come to its end") != std::string::npos);
  }
}

TEST_CASE("wherever the first start with a backup is cut, the next one ends with all of it") {
  const size_t stride = CrashStride(23);
  const uint64_t seed = CrashSeed() + 600;
  const Taken taken = TakeBackup();
  FaultDisk disk;
  Prepare(disk, taken);
  const size_t prepared = disk.operations();
  size_t acknowledged = 0;
  {
    Lone lone(disk, seed);
    Must(lone.started());
    REQUIRE(lone.AwaitLead());
    Must(lone.Put("new", "value"));
    acknowledged = disk.operations();
  }
  const Judge judge = [&](FaultDisk& after, size_t operations) -> Verdict {
    if (operations < prepared) return {};
    Lone lone(after, seed + operations);
    if (!lone.started().ok()) return {.failure = Describe(lone.started()), .found = ""};
    if (!lone.AwaitLead()) return {.failure = "it does not lead", .found = ""};
    std::string failure = FaultOf(lone, taken);
    if (operations >= acknowledged && lone.Get("new") != "value") {
      failure = "an acknowledged put is gone";
    }
    return {.failure = failure, .found = lone.Get("new")};
  };
  const CutCount count = CutEverywhere("first start", disk.trace(), seed, stride, judge);
  CHECK(count.cuts > 20);
  std::cout << fmt::format("first start with a backup: {} operations, {} cuts, {} of them twice\n",
                           disk.operations() - prepared, count.cuts, count.nested);
}

}  // namespace
}  // namespace kv::test

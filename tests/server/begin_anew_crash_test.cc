// A removed disk whose slot is wanted again, cut at every operation between its removal and its new
// life: the next start ends with a member under the one uuid that was chosen, never under the old
// one, and with one copy of what it held, which goes when the new member votes.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <iostream>
#include <memory>
#include <optional>
#include <string>

#include "server/node.h"
#include "storage/files.h"
#include "storage/status.h"
#include "tests/server/fake_outside.h"
#include "tests/server/hub_network.h"
#include "tests/storage/crash.h"
#include "tests/storage/fault_disk.h"

namespace kv::test {
namespace {

using cluster::State;

const std::string kIdentity = "/data/identity";
constexpr MemberId kOldMember = 0x99;

void Must(const absl::Status& status) {
  INFO(Describe(status));
  REQUIRE(status.ok());
}

// The only slot there is; founds alone.
class Lone {
 public:
  Lone(FaultDisk& disk, uint64_t seed) : disk_(disk), runtime_(seed) {
    NodeConfig config;
    config.name = "kvd-0";
    config.data_dir = "/data";
    config.discovery.emplace();
    config.discovery->slot_prefix = "kvd";
    config.discovery->slot_urls = [](const std::string& name) {
      return std::vector<std::string>{"http://" + name + ":2380"};
    };
    config.discovery->may_found_alone = true;
    config.desired = &desired_;
    config.peer_urls = {"http://kvd-0:2380"};
    config.client_urls = {"http://kvd-0:2379"};
    config.memtable_bytes = size_t{64} << 10;
    config.block_cache_bytes = size_t{1} << 20;
    config.record_cache_bytes = size_t{64} << 10;
    config.log = [](LineLevel, std::string_view) {};
    config.fatal = [this](std::string_view sentence) { failure_ = sentence; };
    network_ = std::make_unique<HubNetwork>(&hub_, "http://kvd-0:2380");
    node_ = std::make_unique<Node>(runtime_, *network_, disk.env(), std::move(config));
    node_->Start([this](absl::Status status) { started_ = std::move(status); });
  }

  // It leads, and nothing is left of what it held before. What is wrong; empty: nothing.
  std::string AwaitNewLife() {
    const auto over = [this] { return started_.has_value() || !failure_.empty(); };
    if (!runtime_.RunUntil(over, absl::Seconds(60))) {
      const NodeStanding standing = node_->standing();
      return "it does not start: " + (standing.waits.empty() ? "" : standing.waits.front());
    }
    if (!failure_.empty()) return failure_;
    if (!started_->ok()) return Describe(*started_);
    const bool gone = runtime_.RunUntil([this] { return Copies() == 0; }, absl::Seconds(30));
    return gone ? "" : "a copy stays although it votes";
  }
  size_t Copies() {
    size_t copies = 0;
    const auto names = ListDirectory(disk_.env(), "/data");
    for (const std::string& name : names.value_or(std::vector<std::string>())) {
      if (name.starts_with("removed-")) ++copies;
    }
    return copies;
  }
  bool RunUntil(State state) {
    return runtime_.RunUntil([this, state] { return Read().state == state; }, absl::Seconds(60));
  }
  cluster::Identity Read() { return cluster::ReadIdentity(disk_.env(), kIdentity).value().value(); }

 private:
  FaultDisk& disk_;
  FakeRuntime runtime_;
  Hub hub_{&runtime_};
  FakeDesired desired_{1};
  std::unique_ptr<HubNetwork> network_;
  std::optional<absl::Status> started_;
  std::string failure_;
  std::unique_ptr<Node> node_;
};

// As a member leaves it that was removed; an older copy lies there already.
void LayDownRemoved(FaultDisk& disk) {
  Must(CreateDirectories(disk.env(), "/data/member/log"));
  Must(WriteFileAtomically(disk.env(), "/data/member/STATE", "old"));
  Must(CreateDirectories(disk.env(), "/data/removed-11"));
  cluster::Identity identity;
  identity.state = State::kRemoved;
  identity.node_uuid = cluster::MakeNodeUuid(1, 1);
  identity.next_uuid = cluster::MakeNodeUuid(2, 2);
  identity.cluster_id = 7;
  identity.member_id = kOldMember;
  identity.name = "kvd-0";
  Must(cluster::WriteIdentity(disk.env(), kIdentity, identity));
}

TEST_CASE("a removed disk keeps one copy of what it held until it votes again") {
  FaultDisk disk;
  LayDownRemoved(disk);
  Lone lone(disk, 1);
  REQUIRE(lone.RunUntil(State::kBlank));
  CHECK(lone.Copies() == 1);
  CHECK(ReadFile(disk.env(), fmt::format("/data/removed-{:x}/STATE", kOldMember)).value() == "old");
  CHECK(lone.AwaitNewLife() == "");
}

TEST_CASE("wherever a removed disk's new life is cut, the next start goes on with it") {
  const size_t stride = CrashStride(3);
  const uint64_t seed = CrashSeed() + 700;
  FaultDisk disk;
  LayDownRemoved(disk);
  const size_t prepared = disk.operations();
  {
    Lone lone(disk, seed);
    REQUIRE(lone.AwaitNewLife() == "");
  }
  const Judge judge = [&](FaultDisk& after, size_t operations) -> Verdict {
    if (operations < prepared) return {};
    Lone lone(after, seed + operations);
    std::string failure = lone.AwaitNewLife();
    const cluster::Identity identity = lone.Read();
    if (failure.empty() && identity.node_uuid != cluster::MakeNodeUuid(2, 2)) {
      failure = "it is another disk than it chose to be";
    }
    if (failure.empty() && (identity.cluster_id == 7 || identity.member_id == kOldMember)) {
      failure = "it came back under its old id";
    }
    return {.failure = failure, .found = identity.node_uuid};
  };
  const CutCount count = CutEverywhere("new life", disk.trace(), seed, stride, judge);
  CHECK(count.cuts > 20);
  std::cout << fmt::format("a removed disk's new life: {} operations, {} cuts, {} of them twice\n",
                           disk.operations() - prepared, count.cuts, count.nested);
}

}  // namespace
}  // namespace kv::test

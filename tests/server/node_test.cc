// Several Nodes in one thread and virtual time, on real files: founding, restarts, refusals.
#include "server/node.h"

#include <rocksdb/env.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/replica/forward.h"
#include "storage/database.h"
#include "storage/keys.h"
#include "storage/status.h"
#include "tests/server/hub_network.h"

namespace kv::test {
namespace {

namespace fs = std::filesystem;

std::string UrlOf(const std::string& name) { return "http://" + name + ":2380"; }

std::string PutCommand(const std::string& key, const std::string& value, int64_t lease = 0) {
  etcdserverpb::PutRequest put;
  put.set_key(key);
  put.set_value(value);
  put.set_lease(lease);
  return EncodeCommand(kvd::internal::PUT, put.SerializeAsString());
}

std::string GrantCommand(int64_t id, int64_t ttl) {
  etcdserverpb::LeaseGrantRequest grant;
  grant.set_id(id);
  grant.set_ttl(ttl);
  return EncodeCommand(kvd::internal::LEASE_GRANT, grant.SerializeAsString());
}

// The processes and disks of one test.
class Nodes {
 public:
  struct Process {
    std::unique_ptr<HubNetwork> network;
    std::unique_ptr<Node> node;
    std::optional<absl::Status> started;
    bool stopped = false;
    std::string fatal;
    std::vector<std::string> lines;
  };

  explicit Nodes(std::vector<std::string> names) : names_(std::move(names)) {
    static int count = 0;
    scratch_ = fs::temp_directory_path() /
               ("kvd-node-test-" + std::to_string(getpid()) + "-" + std::to_string(++count));
    fs::create_directories(scratch_);
  }
  ~Nodes() {
    for (auto& [name, process] : processes_) process.node.reset();
    processes_.clear();
    std::error_code ignored;
    fs::remove_all(scratch_, ignored);
  }

  NodeConfig ConfigOf(const std::string& name) {
    NodeConfig config;
    config.name = name;
    config.data_dir = DataDir(name);
    for (const std::string& listed : names_) {
      config.initial_cluster.push_back({.name = listed, .peer_urls = {UrlOf(listed)}});
    }
    config.initial_cluster_token = "token";
    config.peer_urls = {UrlOf(name)};
    config.client_urls = {"http://" + name + ":2379"};
    config.version = "test";
    return config;
  }

  void Start(const std::string& name) { Start(name, ConfigOf(name)); }
  void Start(const std::string& key, NodeConfig config) {
    Process& process = processes_[key];
    process = Process();
    config.log = [&process](LineLevel, std::string_view line) { process.lines.emplace_back(line); };
    config.fatal = [&process](std::string_view sentence) { process.fatal = sentence; };
    process.network = std::make_unique<HubNetwork>(&hub_, config.peer_urls.front());
    process.node =
        std::make_unique<Node>(runtime_, *process.network, rocksdb::Env::Default(), config);
    process.node->Start([&process](absl::Status status) { process.started = std::move(status); });
  }
  void StartAll() {
    for (const std::string& name : names_) Start(name);
  }
  bool AwaitStarted(const std::string& name, absl::Duration limit = absl::Seconds(60)) {
    Process& process = processes_.at(name);
    return runtime_.RunUntil([&process] { return process.started.has_value(); }, limit);
  }
  void AwaitAllServe() {
    for (const std::string& name : names_) {
      REQUIRE(AwaitStarted(name));
      INFO(name << ": " << Describe(*processes_.at(name).started));
      REQUIRE(processes_.at(name).started->ok());
    }
    REQUIRE(runtime_.RunUntil([this] { return Leader() != nullptr; }));
  }
  Node* Leader() {
    for (auto& [name, process] : processes_) {
      if (process.started && process.started->ok() && process.node->replica().leading() &&
          process.node->replica().Status().standing.established) {
        return process.node.get();
      }
    }
    return nullptr;
  }
  // The sentence with which a start was refused.
  std::string Refusal(const std::string& name) {
    if (!AwaitStarted(name)) return "(still starting)";
    return std::string(Message(*processes_.at(name).started));
  }

  void Stop(const std::string& name) {
    Process& process = processes_.at(name);
    process.node->Stop(absl::Seconds(5), [&process] { process.stopped = true; });
    REQUIRE(runtime_.RunUntil([&process] { return process.stopped; }));
    Crash(name);
  }
  void Crash(const std::string& name) {
    processes_.at(name).node.reset();
    processes_.erase(name);
  }

  void Put(const std::string& at, const std::string& key, const std::string& value) {
    Do(at, PutCommand(key, value));
  }
  // Through the leader, wherever it is.
  void Do(const std::string& at, std::string command) {
    std::optional<ProposalResult> result;
    node(at).replica().Propose(std::move(command), absl::Seconds(10),
                               [&result](ProposalResult answer) { result = std::move(answer); });
    REQUIRE(runtime_.RunUntil([&result] { return result.has_value(); }));
    INFO(Describe(result->error));
    REQUIRE(result->error == ReplicaError::kNone);
    REQUIRE(result->reply.status.ok());
  }
  std::string Get(const std::string& at, const std::string& key) {
    std::optional<ReadResult> read;
    node(at).replica().Read(absl::Seconds(10), [&read](ReadResult answer) { read = answer; });
    REQUIRE(runtime_.RunUntil([&read] { return read.has_value(); }));
    REQUIRE(read->error == ReplicaError::kNone);
    etcdserverpb::RangeRequest request;
    request.set_key(key);
    const auto response = node(at).machine().Range(request);
    REQUIRE(response.ok());
    return response->kvs().empty() ? "" : response->kvs(0).value();
  }

  LeaseAnswer Renew(const std::string& at, int64_t lease, absl::Duration deadline) {
    std::optional<LeaseAnswer> answer;
    node(at).leases().Renew(lease, deadline, [&answer](LeaseAnswer given) { answer = given; });
    REQUIRE(runtime_.RunUntil([&answer] { return answer.has_value(); }));
    return *answer;
  }
  std::string LeaderName() {
    REQUIRE(runtime_.RunUntil([this] { return Leader() != nullptr; }));
    for (auto& [name, process] : processes_) {
      if (process.node.get() == Leader()) return name;
    }
    return "";
  }
  // Whether all that run have applied the same, and hold no lease and no key.
  bool AllEmpty() {
    const Head head = processes_.begin()->second.node->machine().head();
    return std::ranges::all_of(processes_, [&head](const auto& each) {
      const KvMachine& machine = each.second.node->machine();
      return machine.head() == head && head.keys == 0 && machine.lease_count() == 0;
    });
  }

  Node& node(const std::string& name) { return *processes_.at(name).node; }
  Process& process(const std::string& name) { return processes_.at(name); }
  std::string DataDir(const std::string& name) const { return (scratch_ / name).string(); }
  FakeRuntime& runtime() { return runtime_; }
  Hub& hub() { return hub_; }

 private:
  const std::vector<std::string> names_;
  fs::path scratch_;
  FakeRuntime runtime_;
  Hub hub_{&runtime_};
  std::map<std::string, Process> processes_;
};

bool Contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

cluster::Identity IdentityAt(const std::string& data_dir) {
  return cluster::ReadIdentity(rocksdb::Env::Default(), data_dir + "/identity").value().value();
}

void SetIdentity(const std::string& data_dir, const cluster::Identity& identity) {
  REQUIRE(cluster::WriteIdentity(rocksdb::Env::Default(), data_dir + "/identity", identity).ok());
}

TEST_CASE("a node alone founds its cluster at once and keeps what it was given") {
  Nodes nodes({"a"});
  nodes.Start("a");
  nodes.AwaitAllServe();
  nodes.Put("a", "k", "v");
  CHECK(nodes.Get("a", "k") == "v");
  const cluster::Identity founded = IdentityAt(nodes.DataDir("a"));
  CHECK(founded.state == cluster::State::kMember);
  CHECK(founded.boot_epoch == 1);
  nodes.Stop("a");

  nodes.Start("a");
  nodes.AwaitAllServe();
  CHECK(nodes.Get("a", "k") == "v");
  const cluster::Identity again = IdentityAt(nodes.DataDir("a"));
  CHECK(again.boot_epoch == 2);
  CHECK(again.member_id == founded.member_id);
  CHECK(again.cluster_id == founded.cluster_id);
}

TEST_CASE("three blank disks become one cluster, which survives crashes of all") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  const uint64_t cluster_id = nodes.node("a").identity().cluster_id;
  CHECK(cluster_id == nodes.node("b").identity().cluster_id);
  CHECK(cluster_id == nodes.node("c").identity().cluster_id);
  nodes.Put("b", "k", "1");
  CHECK(nodes.Get("c", "k") == "1");

  for (const char* name : {"a", "b", "c"}) nodes.Crash(name);
  nodes.StartAll();
  nodes.AwaitAllServe();
  CHECK(nodes.Get("a", "k") == "1");
  nodes.Put("c", "k", "2");
  CHECK(nodes.Get("b", "k") == "2");
  CHECK(nodes.node("b").identity().cluster_id == cluster_id);

  // Every member knows everybody's name and addresses from the log.
  const raft::Members members = nodes.node("c").machine().members();
  REQUIRE(members.voters.size() == 3);
  for (const auto& [id, bytes] : members.records) {
    const std::optional<MemberRecord> record = DecodeMemberRecord(bytes);
    REQUIRE(record.has_value());
    CHECK(record->peer_urls == std::vector<std::string>{UrlOf(record->name)});
    CHECK(record->client_urls == std::vector<std::string>{"http://" + record->name + ":2379"});
  }
}

TEST_CASE("nothing is founded while one of the list is away") {
  Nodes nodes({"a", "b", "c"});
  nodes.Start("a");
  nodes.Start("b");
  CHECK_FALSE(nodes.AwaitStarted("a", absl::Seconds(30)));
  bool said = false;
  for (const std::string& line : nodes.process("a").lines) {
    said = said || Contains(line, "waiting for: c (http://c:2380): connection refused");
  }
  CHECK(said);
  CHECK(IdentityAt(nodes.DataDir("a")).state == cluster::State::kBlank);
  CHECK_FALSE(fs::exists(nodes.DataDir("a") + "/member"));
  nodes.Start("c");
  nodes.AwaitAllServe();
}

TEST_CASE("a node that waits for the others can be stopped") {
  Nodes nodes({"a", "b"});
  nodes.Start("a");
  CHECK_FALSE(nodes.AwaitStarted("a", absl::Seconds(5)));
  nodes.Stop("a");
}

TEST_CASE("a disk that was emptied is refused by name while the others live") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Put("a", "k", "v");
  const MemberId lost = nodes.node("a").identity().member_id;
  nodes.Crash("a");
  fs::remove_all(nodes.DataDir("a"));
  nodes.Start("a");
  const std::string refusal = nodes.Refusal("a");
  CHECK(Contains(refusal, "this member's data is lost"));
  CHECK(Contains(refusal, fmt::format("kvctl member remove {:x}", lost)));
  CHECK(IdentityAt(nodes.DataDir("a")).state == cluster::State::kBlank);
  nodes.Crash("a");
  REQUIRE(nodes.runtime().RunUntil([&nodes] { return nodes.Leader() != nullptr; }));
  CHECK(nodes.Get("b", "k") == "v");
}

TEST_CASE("a data directory in use is waited for") {
  Nodes nodes({"a"});
  nodes.Start("a");
  nodes.AwaitAllServe();
  NodeConfig config = nodes.ConfigOf("a");
  config.peer_urls = {"http://twin:2380"};
  nodes.Start("twin", config);
  CHECK_FALSE(nodes.AwaitStarted("twin", absl::Seconds(25)));
  const std::vector<std::string>& lines = nodes.process("twin").lines;
  REQUIRE(lines.size() == 3);  // At once, then every ten seconds.
  CHECK(Contains(lines.front(), "another process uses the data directory"));
  nodes.Stop("a");
  REQUIRE(nodes.AwaitStarted("twin"));
  CHECK(nodes.process("twin").started->ok());
}

TEST_CASE("starts are refused with a sentence where the disk does not fit") {
  Nodes nodes({"a"});
  const std::string data = nodes.DataDir("a");
  nodes.Start("a");
  nodes.AwaitAllServe();
  nodes.Put("a", "k", "v");
  nodes.Stop("a");

  SECTION("the identity is gone") {
    fs::remove(data + "/identity");
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "identity is missing beside"));
    CHECK_FALSE(fs::exists(data + "/identity"));
  }
  SECTION("the log is gone") {
    fs::remove_all(data + "/member/log");
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "member/log is missing"));
    CHECK_FALSE(fs::exists(data + "/member/log"));
  }
  SECTION("the state is gone") {
    fs::remove(data + "/member/STATE");
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "member/STATE is missing"));
  }
  SECTION("all data is gone but the identity") {
    fs::remove_all(data + "/member");
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "a member that forgot must not vote"));
  }
  SECTION("the floor is gone") {
    fs::remove(data + "/member/log/FLOOR");
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "FLOOR is missing"));
  }
  SECTION("the identity is blank, the data is not") {
    cluster::Identity blank;
    blank.node_uuid = cluster::MakeNodeUuid(1, 1);
    SetIdentity(data, blank);
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "one of them is from another disk"));
  }
  SECTION("the identity is another member's") {
    cluster::Identity identity = IdentityAt(data);
    ++identity.member_id;
    SetIdentity(data, identity);
    nodes.Start("a");
    CHECK_FALSE(nodes.Refusal("a").empty());
  }
  SECTION("the identity is of another cluster") {
    cluster::Identity identity = IdentityAt(data);
    ++identity.cluster_id;
    SetIdentity(data, identity);
    nodes.Start("a");
    CHECK_FALSE(nodes.Refusal("a").empty());
  }
  SECTION("the member was removed") {
    cluster::Identity identity = IdentityAt(data);
    identity.state = cluster::State::kRemoved;
    SetIdentity(data, identity);
    nodes.Start("a");
    CHECK(Contains(nodes.Refusal("a"), "was removed from its cluster and cannot come back"));
  }
  SECTION("the directory is that of another listed member") {
    NodeConfig config = nodes.ConfigOf("b");
    config.data_dir = data;
    config.initial_cluster = {{.name = "a", .peer_urls = {UrlOf("a")}},
                              {.name = "b", .peer_urls = {UrlOf("b")}}};
    nodes.Start("b", config);
    CHECK(Contains(nodes.Refusal("b"), "holds the data of member \"a\""));
  }
  SECTION("the identity is damaged anywhere") {
    std::ifstream in(data + "/identity", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    for (size_t i = 0; i < bytes.size(); ++i) {
      std::string damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
      std::ofstream(data + "/identity", std::ios::binary) << damaged;
      nodes.Start("a");
      CHECK(Contains(nodes.Refusal("a"), "identity"));
      nodes.Crash("a");
    }
    std::ofstream(data + "/identity", std::ios::binary) << bytes;
    nodes.Start("a");
    nodes.AwaitAllServe();
    CHECK(nodes.Get("a", "k") == "v");
  }
}

// What MemberAdd leaves in the log.
raft::MemberTarget AddedRecord(MemberId id, const std::string& name, bool as_voter) {
  MemberRecord record;
  record.peer_urls = {UrlOf(name)};
  record.joins_as_voter = as_voter;
  return {.id = id, .fate = raft::MemberFate::kLearner, .record = Encode(record)};
}

MembersResult ChangeOn(Nodes& nodes, raft::MemberTarget target) {
  raft::MemberChange change;
  change.targets.push_back(std::move(target));
  std::optional<MembersResult> result;
  nodes.Leader()->replica().ChangeMembers(
      change, absl::Seconds(10), [&result](MembersResult answer) { result = std::move(answer); });
  nodes.runtime().RunUntil([&result] { return result.has_value(); });
  return *std::move(result);
}

NodeConfig JoiningConfig(Nodes& nodes, const std::string& name) {
  NodeConfig config = nodes.ConfigOf(name);
  config.initial_cluster.push_back({.name = name, .peer_urls = {UrlOf(name)}});
  config.initial_cluster_exists = true;
  return config;
}

TEST_CASE("a blank disk claims the record that was added for it, and is a learner") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Put("a", "k", "v");
  REQUIRE(ChangeOn(nodes, AddedRecord(77, "d", false)).error == ReplicaError::kNone);
  nodes.Start("d", JoiningConfig(nodes, "d"));
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.process("d").started.has_value(); },
                                   absl::Seconds(60)));
  REQUIRE(nodes.process("d").started->ok());
  CHECK(nodes.node("d").identity().member_id == 77);
  CHECK(nodes.node("d").identity().cluster_id == nodes.node("a").identity().cluster_id);
  const auto published = [&] {
    const raft::Members members = nodes.node("d").machine().members();
    const auto at = members.records.find(77);
    const auto record = at == members.records.end() ? std::nullopt : DecodeMemberRecord(at->second);
    return record && record->name == "d" && !record->client_urls.empty() && members.IsLearner(77) &&
           members.voters.size() == 3;
  };
  CHECK(nodes.runtime().RunUntil(published, absl::Seconds(60)));
  CHECK(nodes.Get("d", "k") == "v");

  // Another disk under the same address gets nothing, and says why.
  nodes.Crash("d");
  fs::remove_all(nodes.DataDir("d"));
  nodes.Start("d", JoiningConfig(nodes, "d"));
  CHECK(Contains(nodes.Refusal("d"), "was claimed by another disk"));
}

TEST_CASE("a disk for which nothing was added is told so") {
  Nodes nodes({"a"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Start("d", JoiningConfig(nodes, "d"));
  CHECK(Contains(nodes.Refusal("d"), "no member with the peer URL http://d:2380 was added"));
  CHECK_FALSE(fs::exists(nodes.DataDir("d") + "/member"));
}

TEST_CASE("an added voter gets its vote once it has started") {
  Nodes nodes({"a"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  REQUIRE(ChangeOn(nodes, AddedRecord(77, "d", true)).error == ReplicaError::kNone);
  // The one that runs goes on alone meanwhile.
  nodes.Put("a", "k", "v");
  nodes.Start("d", JoiningConfig(nodes, "d"));
  const auto votes = [&] {
    return nodes.process("d").started.has_value() && nodes.process("d").started->ok() &&
           nodes.node("d").machine().members().voters.size() == 2 &&
           nodes.node("a").machine().members().IsVoter(77);
  };
  REQUIRE(nodes.runtime().RunUntil(votes, absl::Seconds(120)));
  CHECK(nodes.Get("d", "k") == "v");
}

TEST_CASE("a crash right after the grant loses neither the record nor the id") {
  Nodes nodes({"a"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  REQUIRE(ChangeOn(nodes, AddedRecord(77, "d", false)).error == ReplicaError::kNone);
  nodes.Start("d", JoiningConfig(nodes, "d"));
  const std::string path = nodes.DataDir("d") + "/identity";
  const auto granted = [&] {
    const auto identity = cluster::ReadIdentity(rocksdb::Env::Default(), path);
    return identity.ok() && *identity && (*identity)->state == cluster::State::kMember;
  };
  REQUIRE(nodes.runtime().RunUntil(granted, absl::Seconds(60)));
  nodes.Crash("d");
  auto identity = cluster::ReadIdentity(rocksdb::Env::Default(), path);
  REQUIRE((identity.ok() && *identity));
  (*identity)->data_laid = false;
  REQUIRE(cluster::WriteIdentity(rocksdb::Env::Default(), path, **identity).ok());
  fs::remove_all(nodes.DataDir("d") + "/member");
  nodes.Start("d", JoiningConfig(nodes, "d"));
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.process("d").started.has_value(); },
                                   absl::Seconds(60)));
  REQUIRE(nodes.process("d").started->ok());
  CHECK(nodes.node("d").identity().member_id == 77);
}

TEST_CASE("a crash between membership and its first data is made good") {
  Nodes nodes({"a"});
  const std::string data = nodes.DataDir("a");
  nodes.Start("a");
  nodes.AwaitAllServe();
  nodes.Stop("a");
  cluster::Identity identity = IdentityAt(data);
  identity.data_laid = false;
  SetIdentity(data, identity);
  SECTION("nothing was laid down") { fs::remove_all(data + "/member"); }
  SECTION("the log was, the state was not") {
    fs::remove(data + "/member/STATE");
    fs::remove_all(data + "/member/state-000001");
  }
  SECTION("all of it was") {}
  nodes.Start("a");
  nodes.AwaitAllServe();
  CHECK(IdentityAt(data).data_laid);
  CHECK(IdentityAt(data).member_id == identity.member_id);
  nodes.Put("a", "k", "v");
  CHECK(nodes.Get("a", "k") == "v");
}

TEST_CASE("a name and addresses that changed are published") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  const MemberId id = nodes.node("b").identity().member_id;
  nodes.Stop("b");
  NodeConfig config = nodes.ConfigOf("b");
  config.client_urls = {"http://elsewhere:1"};
  nodes.Start("b", config);
  const auto published = [&nodes, id](const char* at) {
    const raft::Members members = nodes.node(at).machine().members();
    const std::optional<MemberRecord> record = DecodeMemberRecord(members.records.at(id));
    return record && record->client_urls == std::vector<std::string>{"http://elsewhere:1"};
  };
  CHECK(nodes.runtime().RunUntil([&] { return published("a") && published("c"); },
                                 absl::Seconds(30)));
  CHECK(nodes.node("a").machine().members().voters.size() == 3);
}

TEST_CASE("a removed member ends with a sentence and does not start again") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  Node* leader = nodes.Leader();
  const std::string gone = leader == &nodes.node("c") ? "b" : "c";
  raft::MemberChange change;
  change.targets.push_back({.id = nodes.node(gone).identity().member_id,
                            .fate = raft::MemberFate::kRemoved,
                            .record = std::nullopt});
  std::optional<MembersResult> result;
  leader->replica().ChangeMembers(change, absl::Seconds(10),
                                  [&result](MembersResult answer) { result = answer; });
  REQUIRE(nodes.runtime().RunUntil([&result] { return result.has_value(); }));
  REQUIRE(result->error == ReplicaError::kNone);
  REQUIRE(nodes.runtime().RunUntil([&nodes, &gone] { return !nodes.process(gone).fatal.empty(); },
                                   absl::Seconds(60)));
  CHECK(Contains(nodes.process(gone).fatal, "this member was removed from its cluster"));
  nodes.Crash(gone);
  nodes.Start(gone);
  CHECK(Contains(nodes.Refusal(gone), "was removed from its cluster and cannot come back"));
}

// The newest value of some key, changed where nobody but the disk does it.
void RotOneValue(const std::string& member_dir) {
  std::string state;
  for (const auto& entry : fs::directory_iterator(member_dir)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with("state-")) state = entry.path().string();
  }
  DatabaseOptions options;
  options.write_ahead_log = false;
  auto database = OpenRocksDatabase(rocksdb::Env::Default(), state, options);
  REQUIRE(database.ok());
  const KeyRange all = KeyRange::Everything();
  const auto cursor = (*database)->View()->NewCursor(CurrentLower(all), CurrentUpper(all));
  cursor->Seek(CurrentLower(all));
  REQUIRE(cursor->Valid());
  std::string value(cursor->value());
  value.back() = static_cast<char>(value.back() ^ 1);
  WriteSet writes;
  writes.Put(cursor->key(), value);
  REQUIRE((*database)->Write(writes, Sync::kNo).ok());
  REQUIRE((*database)->Flush().ok());
}

// The hub carries no handshakes, by which members learn what all of them can run.
void RaiseClusterVersion(Nodes& nodes) {
  std::optional<ProposalResult> result;
  nodes.node("a").replica().Propose(kv::RaiseClusterVersion(kMachineVersion), absl::Seconds(10),
                                    [&](ProposalResult answer) { result = std::move(answer); });
  REQUIRE(nodes.runtime().RunUntil([&] { return result.has_value(); }));
  REQUIRE(nodes.node("a").machine().cluster_version() == kMachineVersion);
}

TEST_CASE("members that hold different keys raise CORRUPT for the one that is alone") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  RaiseClusterVersion(nodes);
  nodes.Put("a", "k", "v");
  REQUIRE(nodes.Get("b", "k") == "v");
  REQUIRE(nodes.node("b").machine().Flush().ok());
  const MemberId rotten = nodes.node("b").identity().member_id;
  nodes.Crash("b");
  RotOneValue(nodes.DataDir("b") + "/member");
  nodes.Start("b");
  const auto alarms = [&] { return nodes.node("a").machine().maintenance().alarms; };
  REQUIRE(nodes.runtime().RunUntil([&] { return !alarms().empty(); }, absl::Minutes(5)));
  REQUIRE(alarms().size() == 1);
  CHECK(alarms()[0] == RaisedAlarm{.type = etcdserverpb::CORRUPT, .member = rotten});
  std::optional<ProposalResult> refused;
  nodes.node("a").replica().Propose(PutCommand("k", "w"), absl::Seconds(10),
                                    [&](ProposalResult result) { refused = std::move(result); });
  REQUIRE(nodes.runtime().RunUntil([&] { return refused.has_value(); }));
  CHECK(Message(refused->reply.status) == "etcdserver: corrupt cluster");
}

TEST_CASE("members that hold the same raise nothing") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  RaiseClusterVersion(nodes);
  nodes.Put("a", "k", "v");
  const absl::Duration begun = nodes.runtime().Uptime();
  nodes.runtime().RunUntil([&] { return nodes.runtime().Uptime() - begun > absl::Minutes(4); },
                           absl::Minutes(5));
  CHECK(nodes.node("a").machine().maintenance().alarms.empty());
}

TEST_CASE("most decide who differs, the leader where there is no majority") {
  const auto hash = [](uint32_t value) {
    return StateHash{.revision = 5, .compacted = 1, .hash = value};
  };
  CHECK(Differing(1, {{1, hash(7)}, {2, hash(7)}, {3, hash(7)}}).empty());
  CHECK(Differing(1, {{1, hash(7)}, {2, hash(8)}, {3, hash(7)}}) == std::vector<MemberId>{2});
  CHECK(Differing(1, {{1, hash(7)}, {2, hash(8)}, {3, hash(8)}}) == std::vector<MemberId>{1});
  CHECK(Differing(1, {{1, hash(7)}, {2, hash(8)}}) == std::vector<MemberId>{2});
  CHECK(Differing(2, {{1, hash(7)}, {2, hash(8)}}) == std::vector<MemberId>{1});
  // Who compacted elsewhere, or stands elsewhere, says nothing.
  CHECK(Differing(1, {{1, hash(7)}, {2, {.revision = 5, .compacted = 2, .hash = 8}}}).empty());
  CHECK(Differing(1, {{1, hash(7)}, {2, {.revision = 4, .compacted = 1, .hash = 8}}}).empty());
}

TEST_CASE("a lease outlives its leader, and ends on all members at one revision") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Do("a", GrantCommand(7, 10));
  for (const char* key : {"x", "y"}) nodes.Do("b", PutCommand(key, "1", 7));
  nodes.runtime().RunFor(absl::Seconds(8));
  const absl::Duration renewed = nodes.runtime().Uptime();
  for (const char* at : {"a", "b", "c"}) {
    CHECK(nodes.Renew(at, 7, absl::Seconds(5)).seconds == 10);
    CHECK(nodes.Renew(at, 8, absl::Seconds(5)).seconds == std::nullopt);
  }
  const std::string first = nodes.LeaderName();
  nodes.Crash(first);
  nodes.runtime().RunFor(renewed + absl::Seconds(10) - nodes.runtime().Uptime());
  CHECK(nodes.Get(nodes.LeaderName(), "x") == "1");
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.AllEmpty(); }, absl::Seconds(30)));
  nodes.Start(first);
  REQUIRE(nodes.AwaitStarted(first));
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.AllEmpty(); }, absl::Seconds(30)));
  // Two puts, and one revision for both deletions.
  CHECK(nodes.node(first).machine().head().revision == 4);
}

TEST_CASE("a leader that is cut off renews nothing, and the next one does") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Do("a", GrantCommand(7, 30));
  const std::string cut = nodes.LeaderName();
  CHECK(nodes.Renew(cut, 7, absl::Seconds(5)).seconds == 30);
  nodes.hub().Cut(UrlOf(cut));
  // It still believes that it leads.
  CHECK(nodes.node(cut).replica().leading());
  CHECK(nodes.Renew(cut, 7, absl::Seconds(20)).error != ReplicaError::kNone);
  const std::string other = cut == "a" ? "b" : "a";
  CHECK(nodes.Renew(other, 7, absl::Seconds(20)).seconds == 30);
  nodes.hub().Heal();
  CHECK(nodes.Renew(cut, 7, absl::Seconds(20)).seconds == 30);
}

TEST_CASE("a long lease does not start over with every leader, unless it is renewed") {
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  nodes.Do("a", GrantCommand(7, 900));
  nodes.Do("a", PutCommand("k", "1", 7));
  absl::Duration began = nodes.runtime().Uptime();
  const auto change_leader = [&] {
    const std::string leader = nodes.LeaderName();
    nodes.Crash(leader);
    nodes.Start(leader);
    REQUIRE(nodes.AwaitStarted(leader));
    nodes.LeaderName();
  };
  nodes.runtime().RunFor(absl::Seconds(320));
  REQUIRE(nodes.Leader()->machine().FindLease(7)->remaining > 0);
  change_leader();
  // What a checkpoint took is given back, before the renewal is acknowledged.
  CHECK(nodes.Renew("a", 7, absl::Seconds(20)).seconds == 900);
  CHECK(nodes.Leader()->machine().FindLease(7)->remaining == 0);
  began = nodes.runtime().Uptime();
  for (int i = 0; i < 3; ++i) {
    nodes.runtime().RunFor(absl::Seconds(320));
    change_leader();
  }
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.AllEmpty(); }, absl::Seconds(330)));
  CHECK(nodes.runtime().Uptime() - began >= absl::Seconds(900));
}

TEST_CASE("leases that end together are gone together") {
  constexpr int kLeases = 1300;
  Nodes nodes({"a", "b", "c"});
  nodes.StartAll();
  nodes.AwaitAllServe();
  int open = 0;
  const auto ask = [&](std::string command) {
    ++open;
    nodes.Leader()->replica().Propose(std::move(command), absl::Seconds(10),
                                      [&open](const ProposalResult& result) {
                                        CHECK(result.error == ReplicaError::kNone);
                                        CHECK(result.reply.status.ok());
                                        --open;
                                      });
  };
  const absl::Duration began = nodes.runtime().Uptime();
  for (int id = 1; id <= kLeases; ++id) ask(GrantCommand(id, 60));
  for (int id = 1; id <= kLeases; ++id) ask(PutCommand("k" + std::to_string(id), "v", id));
  REQUIRE(nodes.runtime().RunUntil([&open] { return open == 0; }));
  nodes.runtime().RunFor(began + absl::Seconds(60) - nodes.runtime().Uptime());
  CHECK(nodes.Leader()->machine().head().keys == kLeases);
  REQUIRE(nodes.runtime().RunUntil([&] { return nodes.AllEmpty(); }, absl::Seconds(30)));
  CHECK(nodes.Leader()->machine().head().revision == 1 + 2 * kLeases);
}

}  // namespace
}  // namespace kv::test

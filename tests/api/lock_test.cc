// Locks and elections of a lone member, over a real channel.
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <string>
#include <vector>

#include "proto/etcd/election.grpc.pb.h"
#include "proto/etcd/lock.grpc.pb.h"
#include "server/api/errors.h"
#include "storage/status.h"
#include "tests/api/contract_rows.h"
#include "tests/api/lone_member.h"

namespace kv::api {
namespace {

using v3electionpb::CampaignRequest;
using v3electionpb::CampaignResponse;
using v3electionpb::Election;
using v3electionpb::LeaderKey;
using v3electionpb::LeaderRequest;
using v3electionpb::LeaderResponse;
using v3electionpb::ProclaimRequest;
using v3electionpb::ProclaimResponse;
using v3electionpb::ResignRequest;
using v3electionpb::ResignResponse;
using v3lockpb::Lock;
using v3lockpb::LockRequest;
using v3lockpb::LockResponse;
using v3lockpb::UnlockRequest;
using v3lockpb::UnlockResponse;

constexpr std::chrono::seconds kPatience(60);
constexpr int64_t kLongTtl = 1000;

std::string Show(const grpc::Status& status) {
  if (status.ok()) return "OK";
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())) + ": " +
         status.error_message();
}
std::string Show(Error error) { return Describe(ToStatus(error)); }

void SetPatience(grpc::ClientContext& context) {
  context.set_deadline(std::chrono::system_clock::now() + kPatience);
}

// A call that may wait, on a thread of its own.
template <typename Response>
class Waiting {
 public:
  template <typename Call>
  explicit Waiting(Call call) {
    SetPatience(context_);
    status_ = std::async(std::launch::async, [this, call] { return call(&context_, &response_); });
  }
  ~Waiting() { context_.TryCancel(); }

  bool waits() const {
    return status_.wait_for(std::chrono::seconds(0)) == std::future_status::timeout;
  }
  std::string Await() { return Show(status_.get()); }
  void Cancel() { context_.TryCancel(); }
  const Response& response() const { return response_; }

 private:
  grpc::ClientContext context_;
  Response response_;
  std::future<grpc::Status> status_;
};

class Locks {
 public:
  explicit Locks(Options options = {}, Cluster cluster = Cluster::kAlone)
      : member(std::move(options), cluster),
        lock(Lock::NewStub(member.channel())),
        election(Election::NewStub(member.channel())) {}

  std::string Grant(int64_t id, int64_t ttl = kLongTtl) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(id);
    request.set_ttl(ttl);
    return Ask(member.lease(), &etcdserverpb::Lease::Stub::LeaseGrant, request);
  }
  std::string Revoke(int64_t id) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(id);
    return Ask(member.lease(), &etcdserverpb::Lease::Stub::LeaseRevoke, request);
  }
  std::string Unlock(const std::string& key) {
    UnlockRequest request;
    request.set_key(key);
    return Ask(*lock, &Lock::Stub::Unlock, request);
  }
  std::string Proclaim(const LeaderKey& leader, const std::string& value) {
    ProclaimRequest request;
    *request.mutable_leader() = leader;
    request.set_value(value);
    return Ask(*election, &Election::Stub::Proclaim, request);
  }
  std::string Resign(const LeaderKey& leader) {
    ResignRequest request;
    *request.mutable_leader() = leader;
    return Ask(*election, &Election::Stub::Resign, request);
  }

  std::unique_ptr<Waiting<LockResponse>> Take(const std::string& name, int64_t lease) {
    LockRequest request;
    request.set_name(name);
    request.set_lease(lease);
    return std::make_unique<Waiting<LockResponse>>([this, request](auto* context, auto* response) {
      return lock->Lock(context, request, response);
    });
  }
  std::unique_ptr<Waiting<CampaignResponse>> Campaign(const std::string& name, int64_t lease,
                                                      const std::string& value = "v") {
    CampaignRequest request;
    request.set_name(name);
    request.set_lease(lease);
    request.set_value(value);
    return std::make_unique<Waiting<CampaignResponse>>(
        [this, request](auto* context, auto* response) {
          return election->Campaign(context, request, response);
        });
  }

  // In the order they were made.
  std::vector<std::string> Keys() const {
    etcdserverpb::RangeRequest request;
    request.set_key(std::string(1, '\0'));
    request.set_range_end(request.key());
    request.set_sort_target(etcdserverpb::RangeRequest::CREATE);
    request.set_sort_order(etcdserverpb::RangeRequest::ASCEND);
    std::vector<std::string> keys;
    const auto found = member.machine().Range(request);
    for (const auto& kv : found->kvs()) keys.push_back(kv.key());
    return keys;
  }
  void AwaitKeys(const std::vector<std::string>& wanted) const {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (Keys() != wanted) REQUIRE(std::chrono::steady_clock::now() < until);
  }
  void AwaitValue(const std::string& key, const std::string& wanted) const {
    etcdserverpb::RangeRequest request;
    request.set_key(key);
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (member.machine().Range(request)->kvs(0).value() != wanted) {
      REQUIRE(std::chrono::steady_clock::now() < until);
    }
  }
  void AwaitMetric(const std::string& line) {
    const auto until = std::chrono::steady_clock::now() + kPatience;
    while (member.metrics().Scrape().find("\n" + line + "\n") == std::string::npos) {
      REQUIRE(std::chrono::steady_clock::now() < until);
    }
  }

  mutable LoneMember member;
  const std::unique_ptr<Lock::Stub> lock;
  const std::unique_ptr<Election::Stub> election;

 private:
  template <typename Stub, typename Request, typename Response>
  std::string Ask(Stub& stub,
                  grpc::Status (Stub::*function)(grpc::ClientContext*, const Request&, Response*),
                  const Request& request) {
    grpc::ClientContext context;
    SetPatience(context);
    Response response;
    return Show((stub.*function)(&context, request, &response));
  }
};

// The values that an Observe stream tells.
class Observing {
 public:
  Observing(Locks& locks, const std::string& name) {
    LeaderRequest request;
    request.set_name(name);
    SetPatience(context_);
    stream_ = locks.election->Observe(&context_, request);
  }
  LeaderResponse Next() {
    LeaderResponse response;
    if (!stream_->Read(&response)) response.mutable_kv()->set_value("the stream is over");
    return response;
  }
  std::string Value() { return Next().kv().value(); }
  std::string Finish() {
    context_.TryCancel();
    LeaderResponse dropped;
    while (stream_->Read(&dropped)) {
    }
    return Show(stream_->Finish());
  }
  std::string End() { return Show(stream_->Finish()); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<LeaderResponse>> stream_;
};

}  // namespace

TEST_CASE("requests of locks and elections are answered as etcd answered them") {
  const Locks locks;
  for (const ContractRow& row : LoadContractRows("tests/api/lock_rows.txt")) {
    CAPTURE(row.line, row.method, row.request);
    CHECK(AskContractRow(locks.member.channel(), row) == row.answer);
  }
}

TEST_CASE("a lock goes to those who wait in the order they came") {
  Locks locks;
  std::vector<std::unique_ptr<Waiting<LockResponse>>> callers;
  std::vector<std::string> keys;
  // Against the order of their names.
  for (int64_t lease = 9; lease > 3; --lease) {
    REQUIRE(locks.Grant(lease) == "OK");
    callers.push_back(locks.Take("name", lease));
    keys.push_back(fmt::format("name/{:x}", lease));
    locks.AwaitKeys(keys);
  }
  for (size_t i = 0; i < callers.size(); ++i) {
    CAPTURE(i);
    REQUIRE(callers[i]->Await() == "OK");
    CHECK(callers[i]->response().key() == keys.front());
    CHECK(callers[i]->response().header().member_id() == LoneMember::kId);
    for (size_t later = i + 1; later < callers.size(); ++later) CHECK(callers[later]->waits());
    CHECK(locks.Unlock(keys.front()) == "OK");
    keys.erase(keys.begin());
  }
  locks.AwaitKeys({});
}

TEST_CASE("whoever loses the lease loses the lock to the next") {
  Locks locks({.election_timeout = absl::Milliseconds(100)});
  REQUIRE(locks.Grant(1, 1) == "OK");
  REQUIRE(locks.Grant(2) == "OK");
  REQUIRE(locks.Grant(3) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  const auto second = locks.Take("n", 2);
  REQUIRE(second->Await() == "OK");  // By time alone.
  CHECK(locks.Keys() == std::vector<std::string>{"n/2"});
  const auto third = locks.Take("n", 3);
  locks.AwaitKeys({"n/2", "n/3"});
  CHECK(third->waits());
  REQUIRE(locks.Revoke(2) == "OK");
  CHECK(third->Await() == "OK");
}

TEST_CASE("whoever goes away while waiting gives the place up, and only that") {
  Locks locks;
  for (int64_t lease = 1; lease <= 3; ++lease) REQUIRE(locks.Grant(lease) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  const auto second = locks.Take("n", 2);
  locks.AwaitKeys({"n/1", "n/2"});
  const auto third = locks.Take("n", 3);
  locks.AwaitKeys({"n/1", "n/2", "n/3"});
  second->Cancel();
  CHECK(second->Await().starts_with("CANCELLED"));
  locks.AwaitKeys({"n/1", "n/3"});
  CHECK(third->waits());
  CHECK(locks.Unlock("n/1") == "OK");
  CHECK(third->Await() == "OK");
  CHECK(locks.Keys() == std::vector<std::string>{"n/3"});
}

TEST_CASE("a deadline ends the wait for a lock or a leadership") {
  Locks locks;
  REQUIRE(locks.Grant(1) == "OK");
  REQUIRE(locks.Grant(2) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  grpc::ClientContext locking;
  grpc::ClientContext campaigning;
  for (auto* context : {&locking, &campaigning}) {
    context->set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  }
  LockRequest lock;
  lock.set_name("n");
  lock.set_lease(2);
  LockResponse locked;
  CHECK(locks.lock->Lock(&locking, lock, &locked).error_code() ==
        grpc::StatusCode::DEADLINE_EXCEEDED);
  CampaignRequest campaign;
  campaign.set_name("n");
  campaign.set_lease(2);
  CampaignResponse won;
  CHECK(locks.election->Campaign(&campaigning, campaign, &won).error_code() ==
        grpc::StatusCode::DEADLINE_EXCEEDED);
  locks.AwaitKeys({"n/1"});
}

TEST_CASE("whose lease ends while waiting wins nothing") {
  Locks locks;
  for (int64_t lease = 1; lease <= 3; ++lease) REQUIRE(locks.Grant(lease) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  const auto locking = locks.Take("n", 2);
  locks.AwaitKeys({"n/1", "n/2"});
  const auto campaigning = locks.Campaign("n", 3);
  locks.AwaitKeys({"n/1", "n/2", "n/3"});
  REQUIRE(locks.Revoke(3) == "OK");
  REQUIRE(locks.Revoke(2) == "OK");
  CHECK(locks.Unlock("n/1") == "OK");
  CHECK(locking->Await() == "UNKNOWN: mutex: session is expired");
  CHECK(campaigning->Await() == "UNKNOWN: election: not leader");
}

TEST_CASE("without a lease a lock gets one of its own") {
  Locks locks;
  const auto call = locks.Take("n", 0);
  REQUIRE(call->Await() == "OK");
  const std::vector<Lease> leases = locks.member.machine().Leases();
  REQUIRE(leases.size() == 1);
  CHECK(leases[0].ttl == 60);
  CHECK(call->response().key() == fmt::format("n/{:x}", leases[0].id));
  const auto campaign = locks.Campaign("e", 0);
  REQUIRE(campaign->Await() == "OK");
  CHECK(locks.member.machine().lease_count() == 2);
  const LeaderKey& leader = campaign->response().leader();
  CHECK(leader.key() == fmt::format("e/{:x}", leader.lease()));
  REQUIRE(locks.Revoke(leader.lease()) == "OK");
  CHECK(locks.Keys() == std::vector<std::string>{call->response().key()});
}

TEST_CASE("an election has one leader at a time, who proclaims and resigns") {
  Locks locks;
  REQUIRE(locks.Grant(1) == "OK");
  REQUIRE(locks.Grant(2) == "OK");
  const auto first = locks.Campaign("e", 1, "one");
  REQUIRE(first->Await() == "OK");
  const LeaderKey leader = first->response().leader();
  CHECK(leader.name() == "e");
  CHECK(leader.key() == "e/1");
  CHECK(leader.lease() == 1);
  Observing observing(locks, "e");
  CHECK(observing.Value() == "one");

  const auto second = locks.Campaign("e", 2, "two");
  locks.AwaitKeys({"e/1", "e/2"});
  // A leader that campaigns again under another value proclaims it.
  REQUIRE(locks.Campaign("e", 1, "one again")->Await() == "OK");
  CHECK(observing.Value() == "one again");
  // So does one who waits; nobody hears of it yet.
  const auto again = locks.Campaign("e", 2, "two again");
  locks.AwaitValue("e/2", "two again");
  REQUIRE(locks.Proclaim(leader, "one proclaims") == "OK");
  CHECK(observing.Value() == "one proclaims");
  LeaderKey wrong = leader;
  wrong.set_rev(leader.rev() + 1);
  CHECK(locks.Proclaim(wrong, "x") == "UNKNOWN: election: not leader");
  CHECK(locks.Resign(wrong) == "OK");  // Of nothing, as in etcd.
  CHECK(second->waits());

  REQUIRE(locks.Resign(leader) == "OK");
  REQUIRE(second->Await() == "OK");
  REQUIRE(again->Await() == "OK");
  CHECK(again->response().leader().rev() == second->response().leader().rev());
  const LeaderResponse next = observing.Next();
  CHECK(next.kv().value() == "two again");
  CHECK(next.kv().create_revision() == second->response().leader().rev());
  CHECK(next.header().cluster_id() == LoneMember::kClusterId);
  CHECK(locks.Proclaim(leader, "x") == "UNKNOWN: election: not leader");
  CHECK(observing.Finish().starts_with("CANCELLED"));
}

TEST_CASE("an observer hears of every leader and every value, in order") {
  Locks locks;
  constexpr int kValues = 300;
  Observing early(locks, "e");  // Nobody leads yet.
  Observing slow(locks, "e");
  REQUIRE(locks.Grant(1) == "OK");
  REQUIRE(locks.Grant(2) == "OK");
  const auto first = locks.Campaign("e", 1, "0");
  REQUIRE(first->Await() == "OK");
  CHECK(early.Value() == "0");
  // More than the client's window and a page of the hub's hold.
  const std::string padding(20'000, 'x');
  for (int i = 1; i < kValues; ++i) {
    REQUIRE(locks.Proclaim(first->response().leader(), std::to_string(i) + padding) == "OK");
  }
  REQUIRE(locks.Resign(first->response().leader()) == "OK");
  REQUIRE(locks.Campaign("e", 2, "next")->Await() == "OK");
  CHECK(slow.Value() == "0");
  for (Observing* observing : {&early, &slow}) {
    for (int i = 1; i < kValues; ++i) {
      if (const std::string value = observing->Value(); value != std::to_string(i) + padding) {
        FAIL("expected " << i << ", not " << value.substr(0, 20));
      }
    }
    CHECK(observing->Value() == "next");
    CHECK(observing->Finish().starts_with("CANCELLED"));
  }
}

TEST_CASE("an observer goes on behind a compaction") {
  Locks locks;
  REQUIRE(locks.Grant(1) == "OK");
  const auto first = locks.Campaign("e", 1, "0");
  REQUIRE(first->Await() == "OK");
  Observing observing(locks, "e");
  CHECK(observing.Value() == "0");
  etcdserverpb::CompactionRequest compaction;
  compaction.set_revision(locks.member.machine().head().revision);
  compaction.set_physical(true);
  etcdserverpb::CompactionResponse compacted;
  grpc::ClientContext context;
  REQUIRE(locks.member.kv().Compact(&context, compaction, &compacted).ok());
  REQUIRE(locks.Proclaim(first->response().leader(), "1") == "OK");
  CHECK(observing.Value() == "1");
}

TEST_CASE("callers who left are forgotten") {
  Locks locks;
  REQUIRE(locks.Grant(1) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  std::vector<std::unique_ptr<Waiting<LockResponse>>> callers;
  for (int64_t lease = 100; lease < 140; ++lease) {
    REQUIRE(locks.Grant(lease) == "OK");
    callers.push_back(locks.Take("n", lease));
  }
  locks.AwaitMetric("etcd_debugging_mvcc_watcher_total 40");
  callers.clear();
  locks.AwaitKeys({"n/1"});
  locks.AwaitMetric("etcd_debugging_mvcc_watcher_total 0");
  locks.AwaitMetric("etcd_debugging_mvcc_watch_stream_total 0");
}

TEST_CASE("a stop answers those who wait, and keeps their places") {
  Locks locks;
  REQUIRE(locks.Grant(1) == "OK");
  REQUIRE(locks.Grant(2) == "OK");
  REQUIRE(locks.Take("n", 1)->Await() == "OK");
  const auto locking = locks.Take("n", 2);
  locks.AwaitKeys({"n/1", "n/2"});
  Observing observing(locks, "n");
  CHECK(observing.Next().kv().key() == "n/1");
  locks.member.services().Stop(absl::Seconds(30));
  CHECK(locking->Await() == Show(Error::kStopped));
  CHECK(observing.End() == Show(Error::kStopped));
  CHECK(locks.Keys() == std::vector<std::string>{"n/1", "n/2"});
}

TEST_CASE("no lock is given where nobody leads, nor by a learner") {
  const auto take = [](Locks& locks) {
    grpc::ClientContext context;
    SetPatience(context);
    context.AddMetadata("hasleader", "true");
    LockResponse response;
    return Show(locks.lock->Lock(&context, LockRequest(), &response));
  };
  const auto observe = [](Locks& locks) {
    grpc::ClientContext context;
    SetPatience(context);
    context.AddMetadata("hasleader", "true");
    return Show(locks.election->Observe(&context, LeaderRequest())->Finish());
  };
  Locks waiting({}, Cluster::kWithAbsentVoter);
  CHECK(take(waiting) == Show(Error::kNoLeader));
  CHECK(observe(waiting) == Show(Error::kNoLeader));
  Locks learner({}, Cluster::kAsLearner);
  CHECK(take(learner) == Show(Error::kNotSupportedForLearner));
  CHECK(observe(learner) == Show(Error::kNotSupportedForLearner));
}

}  // namespace kv::api

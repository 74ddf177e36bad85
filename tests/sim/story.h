// A cluster for one story: calm unless told, judged like every random run.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "storage/check.h"
#include "tests/sim/client.h"
#include "tests/sim/cluster.h"

namespace kv::sim {

class LawBroken : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Story {
 public:
  explicit Story(int voters, uint64_t seed = 7,
                 const std::function<void(ClusterOptions&)>& set = {})
      : cluster_([&] {
          TheCheckHook() = [](std::string_view failure) { throw LawBroken(std::string(failure)); };
          ClusterOptions options;
          options.voters = voters;
          options.seed = seed;
          options.thorough = 1;
          if (set) set(options);
          return options;
        }()),
        history_(&cluster_) {
    cluster_.Found();
  }
  ~Story() { TheCheckHook() = nullptr; }

  Cluster& cluster() { return cluster_; }
  Wire& wire() { return cluster_.wire(); }
  Host& host(int number) { return cluster_.host(number); }
  Host& Leader() { return cluster_.AwaitLeader(); }
  // One that serves and does not lead; the n-th.
  Host& Follower(int nth = 0) {
    Host& leader = Leader();
    for (Host& host : cluster_.hosts()) {
      if (&host != &leader && host.serving() && nth-- == 0) return host;
    }
    FAIL("no such follower");
    std::abort();
  }
  // Who leads besides this one.
  Host& AwaitOtherLeader(const Host& old) {
    cluster_.Await(
        "another leader",
        [&] {
          Host* leader = cluster_.Leader();
          return leader != nullptr && leader != &old;
        },
        60 * kSecond);
    return *cluster_.Leader();
  }

  // Asked, and not waited for.
  OperationId Ask(Host& host, Request request, absl::Duration deadline = absl::Seconds(5)) {
    return history_.Issue(host, std::move(request), deadline);
  }
  OperationId AskPut(Host& host, const std::string& key, const std::string& value) {
    return Ask(host, {.kind = Kind::kPut, .key = key, .value = value});
  }
  const Operation& Outcome(OperationId id) {
    cluster_.Await(
        "an answer", [&] { return history_.operation(id).returned.has_value(); }, 30 * kSecond);
    return history_.operation(id);
  }
  const Operation& Put(Host& host, const std::string& key, const std::string& value) {
    return Outcome(AskPut(host, key, value));
  }
  void PutMany(Host& host, int count) {
    for (int i = 0; i < count; ++i) {
      REQUIRE(IsDone(Put(host, "many" + std::to_string(i % 7), std::string(60, 'x'))));
    }
  }
  // Empty: not there.
  std::string Get(Host& host, const std::string& key) {
    const Operation& read = Outcome(Ask(host, {.kind = Kind::kRange, .key = key}));
    REQUIRE(IsDone(read));
    return read.answer.rows.empty() ? "" : read.answer.rows.front().value;
  }
  static bool IsDone(const Operation& operation) {
    return operation.outcome == sim::Outcome::kAnswered;
  }
  // Whether the member says that the lease lives on.
  std::shared_ptr<std::optional<bool>> AskRenewal(Host& host, int64_t lease) {
    auto answer = std::make_shared<std::optional<bool>>();
    history_.Renew(host, lease, absl::Seconds(10), [answer](bool lives) { *answer = lives; });
    return answer;
  }
  const Operation& operation(OperationId id) const { return history_.operation(id); }

  MembersResult Change(Host& host, std::vector<raft::MemberTarget> targets) {
    std::optional<MembersResult> result;
    host.replica().ChangeMembers({std::move(targets)}, absl::Seconds(10),
                                 [&result](MembersResult answer) { result = std::move(answer); });
    cluster_.Await("a change of members", [&] { return result.has_value(); }, 30 * kSecond);
    return *result;
  }
  // A new host, as a member of that fate, caught up.
  Host& Join(raft::MemberFate fate, Host* at = nullptr) {
    Host& host = cluster_.AddHost(at);
    cluster_.MakeMember(host);
    cluster_.Start(host);
    REQUIRE(Change(Leader(), {cluster_.TargetFor(host, fate)}).error == ReplicaError::kNone);
    AwaitCaughtUp(host);
    return host;
  }
  raft::MemberTarget Remove(const Host& host) {
    return {.id = host.id, .fate = raft::MemberFate::kRemoved, .record = {}};
  }
  ReplicaError Transfer(Host& from, const Host& to) {
    std::optional<ReplicaError> result;
    from.replica().TransferLeadership(to.id, absl::Seconds(5),
                                      [&result](ReplicaError error) { result = error; });
    cluster_.Await("a transfer", [&] { return result.has_value(); }, 30 * kSecond);
    return *result;
  }
  void AwaitCaughtUp(Host& host) {
    cluster_.Await(
        host.name + " to catch up",
        [&] {
          return host.serving() &&
                 host.machine().applied().index >= cluster_.judge().last_committed();
        },
        60 * kSecond);
  }
  void AwaitAllCaughtUp() {
    for (Host& host : cluster_.hosts()) {
      if (host.serving()) AwaitCaughtUp(host);
    }
  }
  void RunFor(Time time) { cluster_.scheduler().RunFor(time); }

  // The whole history could be.
  void CheckHistory() {
    cluster_.Await("all answers", [&] { return history_.open() == 0; }, 60 * kSecond);
    INFO("seed " << cluster_.options().seed);
    CHECK(sim::CheckHistory(history_.operations(), cluster_.judge().Log()).value_or("") == "");
    CHECK(CheckLeases(history_.operations(), cluster_.judge().Log(), history_.renewals())
              .value_or("") == "");
    const bool plain = std::none_of(
        history_.operations().begin(), history_.operations().end(),
        [](const Operation& operation) { return operation.request.kind > Kind::kCompact; });
    // The search knows keys and values only.
    if (plain) CHECK(SearchOrder(history_.operations()).value_or("") == "");
  }

 private:
  Cluster cluster_;
  History history_;
};

}  // namespace kv::sim

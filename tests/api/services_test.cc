// A member's client port, over a real channel.
#include "server/api/services.h"

#include <fmt/format.h>
#include <grpcpp/alarm.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "proto/etcd/rpc.grpc.pb.h"
#include "server/api/errors.h"
#include "server/api/validate.h"
#include "storage/status.h"
#include "tests/api/contract_rows.h"
#include "tests/api/lone_member.h"

namespace kv::api {
namespace {

using namespace etcdserverpb;  // NOLINT(google-build-using-namespace)

std::string Show(const grpc::Status& status) {
  if (status.ok()) return "OK";
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())) + ": " +
         status.error_message();
}
std::string Show(Error error) { return Describe(ToStatus(error)); }

// One call of raw bytes; the response's bytes, when it is OK, in `response`.
grpc::Status CallRaw(const std::shared_ptr<grpc::Channel>& channel, const std::string& method,
                     const std::string& bytes, std::string* response = nullptr,
                     std::chrono::milliseconds deadline = std::chrono::seconds(30)) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + deadline);
  const grpc::Slice slice(bytes);
  const grpc::ByteBuffer request(&slice, 1);
  grpc::ByteBuffer answer;
  std::promise<grpc::Status> done;
  stub.UnaryCall(&context, method, {}, &request, &answer,
                 [&](grpc::Status status) { done.set_value(std::move(status)); });
  grpc::Status status = done.get_future().get();
  if (status.ok() && response != nullptr) {
    std::vector<grpc::Slice> slices;
    answer.Dump(&slices);
    response->clear();
    for (const grpc::Slice& part : slices) {
      response->append(reinterpret_cast<const char*>(part.begin()), part.size());
    }
  }
  return status;
}

grpc::Status Get(LoneMember& member, const RangeRequest& request, RangeResponse* response,
                 bool require_leader = false) {
  grpc::ClientContext context;
  if (require_leader) context.AddMetadata("hasleader", "true");
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(20));
  return member.kv().Range(&context, request, response);
}

RangeRequest Everything() {
  RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_range_end(std::string(1, '\0'));
  return request;
}

grpc::Status AskHealth(const std::shared_ptr<grpc::Channel>& channel, const std::string& service,
                       std::string* answer) {
  // HealthCheckRequest{service = 1}, HealthCheckResponse{status = 1}: 1 SERVING, 2 NOT_SERVING.
  std::string request;
  if (!service.empty()) {
    request = fmt::format("\x0a{}{}", static_cast<char>(service.size()), service);
  }
  return CallRaw(channel, "/grpc.health.v1.Health/Check", request, answer);
}

}  // namespace

TEST_CASE("requests are answered as etcd answered them") {
  LoneMember member;
  for (const ContractRow& row : LoadContractRows("tests/api/contract_rows.txt")) {
    CAPTURE(row.line, row.method, row.request);
    CHECK(AskContractRow(member.channel(), row) == row.answer);
  }
}

TEST_CASE("every header names cluster, member and term, once") {
  LoneMember member;
  const auto good = [&](const ResponseHeader& header) {
    return header.cluster_id() == LoneMember::kClusterId && header.member_id() == LoneMember::kId &&
           header.raft_term() == member.replica().term();
  };
  for (const std::string method : {"Range", "Put", "DeleteRange"}) {
    std::string bytes;
    REQUIRE(CallRaw(member.channel(), "/etcdserverpb.KV/" + method, "\x0a\x01k", &bytes).ok());
    PutResponse response;  // The header is the first field of every response.
    REQUIRE(response.ParseFromString(bytes));
    CHECK(good(response.header()));
    CHECK(response.header().revision() >= 1);
    // Not two that a parser would have to merge.
    CHECK(bytes.find('\x0a', 1 + static_cast<size_t>(bytes[1])) == std::string::npos);
  }
  std::string bytes;
  REQUIRE(CallRaw(member.channel(), "/etcdserverpb.Cluster/MemberList", "\x08\x01", &bytes).ok());
  MemberListResponse members;
  REQUIRE(members.ParseFromString(bytes));
  CHECK(good(members.header()));
  CHECK(members.header().revision() == 0);
  REQUIRE(members.members_size() == 1);
  CHECK(members.members(0).id() == LoneMember::kId);
  CHECK(members.members(0).name() == "lone");
  CHECK(members.members(0).clienturls(0) == "http://127.0.0.1:2");
  CHECK_FALSE(members.members(0).islearner());
}

TEST_CASE("Status fills every field that a lone leader has") {
  LoneMember member(Options{.quota_bytes = 1 << 30});
  REQUIRE(member.Put("k", "v").ok());
  grpc::ClientContext context;
  StatusResponse status;
  REQUIRE(member.maintenance().Status(&context, {}, &status).ok());
  CHECK(status.version() == "3.7.3");
  CHECK(status.storageversion() == "3.7.0");
  CHECK(status.header().revision() == 2);
  CHECK(status.leader() == LoneMember::kId);
  CHECK(status.raftterm() == member.replica().term());
  CHECK(status.raftindex() >= 3);
  CHECK(status.raftappliedindex() >= 3);
  CHECK(status.dbsize() > 0);
  CHECK(status.dbsizeinuse() > 0);
  CHECK(status.dbsizequota() == 1 << 30);
  CHECK(status.has_downgradeinfo());
  CHECK(status.errors_size() == 0);
  CHECK_FALSE(status.islearner());
}

TEST_CASE("without a leader only what needs none is served") {
  LoneMember member({.election_timeout = absl::Milliseconds(100)}, Cluster::kWithAbsentVoter);
  RangeRequest request;
  request.set_key("k");
  RangeResponse response;
  CHECK(Show(Get(member, request, &response, /*require_leader=*/true)) == Show(Error::kNoLeader));
  request.set_serializable(true);
  CHECK(Get(member, request, &response).ok());
  CHECK(Show(Get(member, request, &response, /*require_leader=*/true)) == Show(Error::kNoLeader));

  grpc::ClientContext context;
  StatusResponse status;
  REQUIRE(member.maintenance().Status(&context, {}, &status).ok());
  CHECK(status.leader() == 0);
  REQUIRE(status.errors_size() == 1);
  CHECK(status.errors(0) == "etcdserver: no leader");

  std::string health;
  REQUIRE(AskHealth(member.channel(), "", &health).ok());
  CHECK(health == "\x08\x02");
  // The request timeout: 5 s and two elections.
  CHECK(RequestTimeout(member.options()) == absl::Milliseconds(5200));
  CHECK(Show(member.Put("k", "v")) == Show(Error::kNoLeader));
}

TEST_CASE("a learner serves Status and serializable ranges") {
  LoneMember member({}, Cluster::kAsLearner);
  RangeRequest request;
  request.set_key("k");
  RangeResponse response;
  CHECK(Show(Get(member, request, &response)) == Show(Error::kNotSupportedForLearner));
  request.set_serializable(true);
  CHECK(Get(member, request, &response).ok());
  // Before the request is looked at.
  CHECK(Show(member.Put("", "")) == Show(Error::kNotSupportedForLearner));
  grpc::ClientContext context;
  StatusResponse status;
  REQUIRE(member.maintenance().Status(&context, {}, &status).ok());
  CHECK(status.islearner());
}

TEST_CASE("a write over the quota is refused, a delete is not") {
  LoneMember member(Options{.quota_bytes = 1});
  CHECK(Show(member.Put("k", "v")) == Show(Error::kNoSpace));
  CHECK(Show(member.Put("", "")) == Show(Error::kNoSpace));  // Before the key is looked at.
  CHECK(CallRaw(member.channel(), "/etcdserverpb.KV/DeleteRange", "\x0a\x01k").ok());
  CHECK(CallRaw(member.channel(), "/etcdserverpb.KV/Range", "\x0a\x01k").ok());
  TxnRequest txn;
  txn.add_success()->mutable_request_put()->set_key("k");
  CHECK(Show(CallRaw(member.channel(), "/etcdserverpb.KV/Txn", txn.SerializeAsString())) ==
        Show(Error::kNoSpace));
}

TEST_CASE("bytes that are no request are refused with gRPC's own code") {
  LoneMember member;
  for (const std::string method : {"Range", "Put", "DeleteRange", "Txn", "Compact"}) {
    const grpc::Status status =
        CallRaw(member.channel(), "/etcdserverpb.KV/" + method, "\xff\xff\xff");
    CHECK(status.error_code() == grpc::StatusCode::INTERNAL);
  }
  const grpc::Status stream = CallRaw(member.channel(), "/etcdserverpb.KV/RangeStream", "\xff");
  CHECK(stream.error_code() == grpc::StatusCode::INTERNAL);
  // A group: etcd's messages have none, and the machine would not read it back.
  CHECK_FALSE(CallRaw(member.channel(), "/etcdserverpb.KV/Put", "\x0a\x01k\x7b\x7c").ok());
  CHECK(member.Put("k", "v").ok());
}

TEST_CASE("requests above the receive limit end their call and nothing else") {
  LoneMember member;
  const auto put = [](size_t bytes) {
    PutRequest request;
    request.set_key("k");
    request.set_value(std::string(bytes, 'x'));
    return request.SerializeAsString();
  };
  const std::string method = "/etcdserverpb.KV/Put";
  CHECK(CallRaw(member.channel(), method, put(1572000)).ok());
  CHECK(Show(CallRaw(member.channel(), method, put(2000000))) == Show(Error::kRequestTooLarge));
  CHECK(CallRaw(member.channel(), method, put(2200000)).error_code() ==
        grpc::StatusCode::RESOURCE_EXHAUSTED);
  CHECK(CallRaw(member.channel(), method, put(10)).ok());
}

TEST_CASE("what is not there yet says so, whatever its shape") {
  LoneMember member;
  const std::vector<std::string> methods = {"etcdserverpb.Auth/Authenticate",
                                            "etcdserverpb.Auth/RoleList"};
  for (const std::string& method : methods) {
    CAPTURE(method);
    const grpc::Status status = CallRaw(member.channel(), "/" + method, "");
    CHECK(status.error_code() == grpc::StatusCode::UNIMPLEMENTED);
    CHECK(status.error_message().find("arrives with") != std::string::npos);
  }
  CHECK(CallRaw(member.channel(), "/no.such/Method", "").error_code() ==
        grpc::StatusCode::UNIMPLEMENTED);
}

TEST_CASE("a lease tells what it has left, is renewed, and takes its keys with it") {
  LoneMember member;
  const auto ask = [&](auto function, const auto& request, auto* response) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    return (member.lease().*function)(&context, request, response);
  };
  LeaseGrantRequest grant;
  grant.set_ttl(1000);
  LeaseGrantResponse granted;
  REQUIRE(ask(&etcdserverpb::Lease::Stub::LeaseGrant, grant, &granted).ok());
  CHECK(granted.id() > 0);
  CHECK(granted.ttl() == 1000);
  LeaseGrantResponse another;
  REQUIRE(ask(&etcdserverpb::Lease::Stub::LeaseGrant, grant, &another).ok());
  CHECK(another.id() != granted.id());

  grpc::ClientContext context;
  PutRequest put;
  put.set_key("k");
  put.set_lease(granted.id());
  PutResponse put_response;
  REQUIRE(member.kv().Put(&context, put, &put_response).ok());
  LeaseTimeToLiveRequest left;
  left.set_id(granted.id());
  left.set_keys(true);
  LeaseTimeToLiveResponse told;
  REQUIRE(ask(&etcdserverpb::Lease::Stub::LeaseTimeToLive, left, &told).ok());
  CHECK(told.grantedttl() == 1000);
  CHECK(told.ttl() <= 1000);
  CHECK(told.ttl() > 900);
  REQUIRE(told.keys_size() == 1);
  CHECK(told.keys(0) == "k");
  CHECK(told.header().revision() == 2);

  {
    grpc::ClientContext streaming;
    const auto stream = member.lease().LeaseKeepAlive(&streaming);
    LeaseKeepAliveRequest renew;
    LeaseKeepAliveResponse renewed;
    for (int i = 0; i < 3; ++i) {
      renew.set_id(i == 1 ? 12345 : granted.id());
      REQUIRE(stream->Write(renew));
      REQUIRE(stream->Read(&renewed));
      CHECK(renewed.id() == renew.id());
      CHECK(renewed.ttl() == (i == 1 ? 0 : 1000));
    }
    stream->WritesDone();
    CHECK_FALSE(stream->Read(&renewed));
    CHECK(stream->Finish().ok());
  }

  LeaseRevokeRequest revoke;
  revoke.set_id(granted.id());
  LeaseRevokeResponse revoked;
  REQUIRE(ask(&etcdserverpb::Lease::Stub::LeaseRevoke, revoke, &revoked).ok());
  CHECK(revoked.header().revision() == 3);
  CHECK(Show(ask(&etcdserverpb::Lease::Stub::LeaseRevoke, revoke, &revoked)) ==
        Show(Error::kLeaseNotFound));
  RangeResponse none;
  REQUIRE(Get(member, Everything(), &none).ok());
  CHECK(none.count() == 0);
}

TEST_CASE("a lease that nobody renews ends, with its keys, and is counted") {
  LoneMember member({.election_timeout = absl::Milliseconds(100)});
  LeaseGrantRequest grant;
  grant.set_ttl(1);
  grant.set_id(7);
  LeaseGrantResponse granted;
  grpc::ClientContext granting;
  const auto began = std::chrono::steady_clock::now();
  REQUIRE(member.lease().LeaseGrant(&granting, grant, &granted).ok());
  CHECK(granted.ttl() == 1);
  PutRequest put;
  put.set_key("k");
  put.set_lease(7);
  PutResponse put_response;
  grpc::ClientContext putting;
  const grpc::Status there = member.kv().Put(&putting, put, &put_response);
  RangeResponse found;
  do {
    REQUIRE(Get(member, Everything(), &found).ok());
  } while (found.count() > 0);
  if (there.ok()) CHECK(std::chrono::steady_clock::now() - began >= std::chrono::seconds(1));
  do {  // The counters follow the machine.
  } while (member.metrics().Scrape().find("etcd_debugging_server_lease_expired_total 1") ==
           std::string::npos);
  const std::string page = member.metrics().Scrape();
  CHECK(page.find("etcd_debugging_lease_granted_total 1") != std::string::npos);
  CHECK(page.find("etcd_debugging_lease_revoked_total 1") != std::string::npos);
}

TEST_CASE("no lease call is answered where nobody leads, nor by a learner") {
  const auto grant = [](LoneMember& member) {
    grpc::ClientContext context;
    context.AddMetadata("hasleader", "true");
    LeaseGrantRequest request;
    request.set_ttl(10);
    LeaseGrantResponse response;
    return member.lease().LeaseGrant(&context, request, &response);
  };
  const auto renew = [](LoneMember& member) {
    grpc::ClientContext context;
    context.AddMetadata("hasleader", "true");
    const auto stream = member.lease().LeaseKeepAlive(&context);
    return stream->Finish();
  };
  LoneMember waiting({}, Cluster::kWithAbsentVoter);
  CHECK(Show(grant(waiting)) == Show(Error::kNoLeader));
  CHECK(Show(renew(waiting)) == Show(Error::kNoLeader));
  LoneMember learner({}, Cluster::kAsLearner);
  CHECK(Show(grant(learner)) == Show(Error::kNotSupportedForLearner));
  CHECK(Show(renew(learner)) == Show(Error::kNotSupportedForLearner));
}

TEST_CASE("health follows the leader and the stop") {
  LoneMember member;
  std::string health;
  for (const std::string service : {"", "etcdserverpb.KV", "etcdserverpb.Watch"}) {
    do {  // The leader is there; the health follows within its next look.
      REQUIRE(AskHealth(member.channel(), service, &health).ok());
    } while (health != "\x08\x01");
  }
  CHECK(AskHealth(member.channel(), "no.such", &health).error_code() ==
        grpc::StatusCode::NOT_FOUND);
  member.services().Drain();
  do {
    REQUIRE(AskHealth(member.channel(), "", &health).ok());
  } while (health != "\x08\x02");
  CHECK(member.Put("k", "v").ok());  // Still served.
}

TEST_CASE("reflection names the services") {
  LoneMember member;
  grpc::GenericStub stub(member.channel());
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(
      &context, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", &queue);
  void* tag = nullptr;
  bool ok = false;
  call->StartCall(nullptr);
  REQUIRE((queue.Next(&tag, &ok) && ok));
  const std::string list = "\x3a\x01*";  // list_services
  const grpc::Slice slice(list);
  call->WriteLast(grpc::ByteBuffer(&slice, 1), {}, nullptr);
  REQUIRE((queue.Next(&tag, &ok) && ok));
  grpc::ByteBuffer answer;
  call->Read(&answer, nullptr);
  REQUIRE((queue.Next(&tag, &ok) && ok));
  grpc::Slice bytes;
  REQUIRE(answer.DumpToSingleSlice(&bytes).ok());
  const std::string text(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
  for (const char* name : {"etcdserverpb.KV", "etcdserverpb.Lease", "v3lockpb.Lock", "kvd.v1.KV"}) {
    CHECK(text.find(name) != std::string::npos);
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  queue.Next(&tag, &ok);
}

TEST_CASE("a server may stop at any moment of its own work") {
  LoneMember member;
  for (int i = 0; i < 200; ++i) {
    Services services({.listen_client_urls = {"http://127.0.0.1:0"}},
                      {.runtime = &member.runtime(),
                       .replica = &member.replica(),
                       .machine = &member.machine(),
                       .metrics = &member.metrics()});
    REQUIRE(services.Start().ok());
    for (int turns = 0; turns < i; ++turns) std::this_thread::yield();  // Another moment each time.
    services.Stop(absl::ZeroDuration());
  }
  CHECK(member.Put("k", "v").ok());
}

TEST_CASE("a port that is taken is refused with a sentence") {
  LoneMember first;
  const std::string url = "http://" + first.address();
  Services second({.listen_client_urls = {url}}, {.runtime = &first.runtime(),
                                                  .replica = &first.replica(),
                                                  .machine = &first.machine(),
                                                  .metrics = &first.metrics()});
  const absl::Status status = second.Start();
  CHECK(Describe(status) == "UNAVAILABLE: cannot listen on " + url +
                                ": Address already in use; another process has this port: stop "
                                "it, or choose another port");
  CHECK(first.Put("k", "v").ok());
}

TEST_CASE("URLs that cannot be served are refused with a sentence") {
  LoneMember member;
  for (const std::string url :
       {"https://127.0.0.1:0", "127.0.0.1:0", "http://127.0.0.1", "http://:0", "http://a:b:0",
        "http://127.0.0.1:70000", "http://no.such.host.invalid:0"}) {
    CAPTURE(url);
    Services services({.listen_client_urls = {url}}, {.runtime = &member.runtime(),
                                                      .replica = &member.replica(),
                                                      .machine = &member.machine(),
                                                      .metrics = &member.metrics()});
    const absl::Status status = services.Start();
    CHECK(status.code() == absl::StatusCode::kInvalidArgument);
    CHECK(std::string(Message(status)).starts_with("cannot listen on " + url));
  }
}

TEST_CASE("a range stream is the range, in chunks") {
  LoneMember member;
  for (int i = 0; i < 40; ++i) {
    REQUIRE(member.Put(fmt::format("k{:02}", i), std::string(200'000, 'x')).ok());
  }
  RangeResponse whole;
  REQUIRE(Get(member, Everything(), &whole).ok());
  grpc::ClientContext context;
  const auto reader = member.kv().RangeStream(&context, Everything());
  RangeStreamResponse chunk;
  RangeResponse merged;
  int chunks = 0;
  bool ended = false;
  while (reader->Read(&chunk)) {
    CHECK_FALSE(ended);
    ++chunks;
    CHECK(chunk.ByteSizeLong() < 2'000'000);
    ended = chunk.range_response().has_header();
    if (!ended) CHECK(chunk.range_response().count() == 0);
    merged.MergeFrom(chunk.range_response());
  }
  CHECK(reader->Finish().ok());
  CHECK(ended);
  CHECK(chunks >= 4);
  CHECK(merged.SerializeAsString() == whole.SerializeAsString());
}

TEST_CASE("clients that stop reading a stream cost a page each and hold nobody else") {
  LoneMember member;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(member.Put(fmt::format("k{:02}", i), std::string(1'000'000, 'x')).ok());
  }
  struct Stopped {
    grpc::ClientContext context;
    std::unique_ptr<grpc::ClientReader<RangeStreamResponse>> reader;
  };
  const size_t before = ResidentBytes();
  std::vector<std::unique_ptr<Stopped>> streams;
  for (int i = 0; i < 20; ++i) {
    auto stream = std::make_unique<Stopped>();
    stream->reader = member.kv().RangeStream(&stream->context, Everything());
    stream->reader->WaitForInitialMetadata();
    streams.push_back(std::move(stream));
  }
  for (int i = 0; i < 20; ++i) REQUIRE(member.Put("other", "value").ok());
  // The store's 100 MB twenty times would be 2 GB; pages on both ends of the wire are a few MB
  // each.
  CHECK(ResidentBytes() - std::min(before, ResidentBytes()) < size_t{600} << 20);
  for (const auto& stream : streams) stream->context.TryCancel();
  for (const auto& stream : streams) CHECK_FALSE(stream->reader->Finish().ok());
  CHECK(member.Put("other", "value").ok());
}

TEST_CASE("an answer above the limit is refused, and a stream gives it all") {
  LoneMember member(Options{.range_bytes_max = 1'000'000});
  for (int i = 0; i < 10; ++i) {
    REQUIRE(member.Put(fmt::format("k{}", i), std::string(200'000, 'x')).ok());
  }
  RangeResponse response;
  CHECK(Get(member, Everything(), &response).error_code() == grpc::StatusCode::RESOURCE_EXHAUSTED);
  RangeRequest some = Everything();
  some.set_limit(3);
  REQUIRE(Get(member, some, &response).ok());
  CHECK(response.kvs_size() == 3);
  CHECK(response.count() == 10);
  grpc::ClientContext context;
  const auto reader = member.kv().RangeStream(&context, Everything());
  RangeStreamResponse chunk;
  int keys = 0;
  while (reader->Read(&chunk)) keys += chunk.range_response().kvs_size();
  CHECK(reader->Finish().ok());
  CHECK(keys == 10);
}

TEST_CASE("a client's deadline ends its call and the write's outcome is not denied") {
  LoneMember member({}, Cluster::kWithAbsentVoter);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(200));
  PutRequest request;
  request.set_key("k");
  PutResponse response;
  const grpc::Status status = member.kv().Put(&context, request, &response);
  // Whoever is first: the client's own clock, or the server's answer that nothing was appended.
  CHECK((status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED ||
         Show(status) == Show(Error::kNoLeader)));
}

TEST_CASE("HashKV answers as of a revision, and changes with the data") {
  LoneMember member;
  REQUIRE(member.Put("a", "1").ok());
  const auto hash = [&](int64_t revision) {
    grpc::ClientContext context;
    HashKVRequest request;
    request.set_revision(revision);
    HashKVResponse response;
    REQUIRE(member.maintenance().HashKV(&context, request, &response).ok());
    return response;
  };
  const HashKVResponse first = hash(0);
  CHECK(first.hash_revision() == 2);
  CHECK(first.header().revision() == 2);
  CHECK(first.header().member_id() == LoneMember::kId);
  REQUIRE(member.Put("a", "2").ok());
  CHECK(hash(0).hash() != first.hash());
  CHECK(hash(2).hash() == first.hash());
}

TEST_CASE("an unknown alarm action is named") {
  LoneMember member;
  CHECK(CallRaw(member.channel(), "/etcdserverpb.Maintenance/Alarm", "\x08\x09").error_code() ==
        grpc::StatusCode::INVALID_ARGUMENT);
}

TEST_CASE("status tells of alarms and of a downgrade") {
  LoneMember member;
  AlarmRequest alarm;
  alarm.set_action(AlarmRequest::ACTIVATE);
  alarm.set_alarm(NOSPACE);
  alarm.set_memberid(7);
  DowngradeRequest downgrade;
  downgrade.set_action(DowngradeRequest::ENABLE);
  downgrade.set_version("3.6");
  REQUIRE(
      CallRaw(member.channel(), "/etcdserverpb.Maintenance/Alarm", alarm.SerializeAsString()).ok());
  REQUIRE(CallRaw(member.channel(), "/etcdserverpb.Maintenance/Downgrade",
                  downgrade.SerializeAsString())
              .ok());
  grpc::ClientContext context;
  StatusResponse status;
  REQUIRE(member.maintenance().Status(&context, StatusRequest(), &status).ok());
  REQUIRE(status.errors_size() == 1);
  CHECK(status.errors(0) == "memberID:7 alarm:NOSPACE");
  CHECK(status.downgradeinfo().enabled());
  CHECK(status.downgradeinfo().targetversion() == "3.6.0");
  // Nothing else changes: clients go on to see the version that is served.
  CHECK(status.storageversion() == "3.7.0");
  CHECK(CallRaw(member.channel(), "/etcdserverpb.Maintenance/Downgrade",
                downgrade.SerializeAsString())
            .error_message() == "etcdserver: cluster has a downgrade job in progress");
}

TEST_CASE("a full quota raises the alarm, which stays until it is disarmed") {
  Options options;
  options.quota_bytes = 16 << 20;
  LoneMember member(options);
  const std::string large(1'100'000, 'x');
  std::string answer = "OK";
  int puts = 0;
  while (answer == "OK" && ++puts < 20) answer = Show(member.Put(fmt::format("{}", puts), large));
  CHECK(answer == Show(Error::kNoSpace));
  const std::vector<RaisedAlarm> alarms = member.machine().maintenance().alarms;
  REQUIRE(alarms.size() == 1);
  CHECK(alarms[0] == RaisedAlarm{.type = NOSPACE, .member = LoneMember::kId});
  // There would be room for this one.
  CHECK(Show(member.Put("small", "v")) == Show(Error::kNoSpace));
  AlarmRequest disarm;
  disarm.set_action(AlarmRequest::DEACTIVATE);
  disarm.set_alarm(NOSPACE);
  disarm.set_memberid(LoneMember::kId);
  REQUIRE(CallRaw(member.channel(), "/etcdserverpb.Maintenance/Alarm", disarm.SerializeAsString())
              .ok());
  CHECK(member.Put("small", "v").ok());
}

TEST_CASE("a stop answers what is in flight and takes nothing new") {
  LoneMember member;
  std::atomic<bool> stopping = false;
  std::atomic<int> good = 0;
  std::vector<std::thread> clients;
  std::vector<std::string> odd(8);
  for (size_t i = 0; i < odd.size(); ++i) {
    clients.emplace_back([&, i] {
      for (int n = 0;; ++n) {
        const grpc::Status status = member.Put(fmt::format("{}/{}", i, n), "v");
        if (status.ok()) {
          ++good;
          continue;
        }
        // A call that comes too late is refused by the transport: not begun, or cut off.
        if (!stopping || (status.error_code() != grpc::StatusCode::UNAVAILABLE &&
                          status.error_code() != grpc::StatusCode::CANCELLED)) {
          odd[i] = Show(status);
        }
        return;
      }
    });
  }
  while (good < 200) std::this_thread::yield();
  stopping = true;
  member.services().Stop(absl::Seconds(10));
  for (std::thread& client : clients) client.join();
  for (const std::string& status : odd) CHECK(status == "");
  // Every put that was answered is there, and each is a revision.
  CHECK(member.machine().head().keys >= good);
  CHECK(member.machine().head().revision == 1 + member.machine().head().keys);
}

TEST_CASE("a stop does not wait for a client that does not read") {
  LoneMember member;
  for (int i = 0; i < 20; ++i) {
    REQUIRE(member.Put(fmt::format("k{:02}", i), std::string(1'000'000, 'x')).ok());
  }
  grpc::ClientContext context;
  const auto reader = member.kv().RangeStream(&context, Everything());
  reader->WaitForInitialMetadata();
  member.services().Stop(absl::Milliseconds(100));
  RangeStreamResponse chunk;
  while (reader->Read(&chunk)) {
  }
  CHECK_FALSE(reader->Finish().ok());
}

}  // namespace kv::api

// The small API against a member, beside the etcd API of the same store.
#include <grpcpp/client_context.h>

#include <catch2/catch_test_macros.hpp>
#include <optional>
#include <string>
#include <vector>

#include "proto/kvd/v1/kv.grpc.pb.h"
#include "tests/api/lone_member.h"

namespace kv::api {
namespace {

namespace pb = kvd::v1;

class Client {
 public:
  explicit Client(LoneMember& member) : stub_(pb::KV::NewStub(member.channel())) {}

  grpc::Status Put(const std::string& key, const std::string& value, int64_t* revision = nullptr,
                   std::optional<int64_t> if_mod_revision = std::nullopt) {
    pb::PutRequest request;
    request.set_key(key);
    request.set_value(value);
    if (if_mod_revision) request.set_if_mod_revision(*if_mod_revision);
    grpc::ClientContext context;
    pb::PutResponse response;
    grpc::Status status = stub_->Put(&context, request, &response);
    if (revision != nullptr) *revision = response.revision();
    return status;
  }
  grpc::Status Get(const std::string& key, pb::GetResponse* response, int64_t revision = 0,
                   bool allow_stale = false) {
    pb::GetRequest request;
    request.set_key(key);
    request.set_revision(revision);
    request.set_allow_stale(allow_stale);
    grpc::ClientContext context;
    return stub_->Get(&context, request, response);
  }
  grpc::Status Delete(const std::string& key, pb::DeleteResponse* response,
                      std::optional<int64_t> if_mod_revision = std::nullopt) {
    pb::DeleteRequest request;
    request.set_key(key);
    if (if_mod_revision) request.set_if_mod_revision(*if_mod_revision);
    grpc::ClientContext context;
    return stub_->Delete(&context, request, response);
  }
  grpc::Status Scan(const pb::ScanRequest& request, std::vector<pb::ScanResponse>* pages) {
    grpc::ClientContext context;
    const auto reader = stub_->Scan(&context, request);
    pb::ScanResponse page;
    pages->clear();
    while (reader->Read(&page)) pages->push_back(page);
    return reader->Finish();
  }
  // The keys of a scan that must succeed.
  std::vector<std::string> Keys(const pb::ScanRequest& request) {
    std::vector<pb::ScanResponse> pages;
    REQUIRE(Scan(request, &pages).ok());
    std::vector<std::string> keys;
    for (const pb::ScanResponse& page : pages) {
      for (const pb::Pair& pair : page.pairs()) keys.push_back(pair.key());
    }
    return keys;
  }

 private:
  const std::unique_ptr<pb::KV::Stub> stub_;
};

pb::ScanRequest Prefix(const std::string& prefix) {
  pb::ScanRequest request;
  request.set_prefix(prefix);
  return request;
}
pb::ScanRequest Span(const std::string& first, const std::string& end) {
  pb::ScanRequest request;
  request.mutable_span()->set_first(first);
  request.mutable_span()->set_end(end);
  return request;
}
using Keys = std::vector<std::string>;

}  // namespace

TEST_CASE("what one API puts the other reads") {
  LoneMember member;
  Client client(member);
  int64_t first = 0;
  REQUIRE(client.Put("a", "1", &first).ok());
  int64_t second = 0;
  REQUIRE(client.Put("a", "2", &second).ok());
  CHECK(second == first + 1);
  etcdserverpb::RangeRequest range;
  range.set_key("a");
  etcdserverpb::RangeResponse answer;
  grpc::ClientContext context;
  REQUIRE(member.kv().Range(&context, range, &answer).ok());
  REQUIRE(answer.kvs_size() == 1);
  CHECK(answer.kvs(0).value() == "2");

  REQUIRE(member.Put("b", "of etcd").ok());
  pb::GetResponse got;
  REQUIRE(client.Get("b", &got).ok());
  CHECK(got.pair().value() == "of etcd");
  CHECK(got.revision() == second + 1);
  for (const bool stale : {false, true}) {
    REQUIRE(client.Get("a", &got, 0, stale).ok());
    CHECK(got.pair().create_revision() == first);
    CHECK(got.pair().mod_revision() == second);
    CHECK(got.pair().version() == 2);
  }
  REQUIRE(client.Get("a", &got, first).ok());
  CHECK(got.pair().value() == "1");
}

TEST_CASE("a condition on the revision decides a put and a delete") {
  LoneMember member;
  Client client(member);
  int64_t revision = 0;
  REQUIRE(client.Put("k", "created", &revision, 0).ok());
  grpc::Status status = client.Put("k", "again", nullptr, 0);
  CHECK(status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);
  CHECK(status.error_message() == "the key exists already at revision " + std::to_string(revision) +
                                      "; get it, and name its mod_revision");
  REQUIRE(client.Put("k", "changed", &revision, revision).ok());
  status = client.Put("k", "late", nullptr, revision - 1);
  CHECK(status.error_code() == grpc::StatusCode::FAILED_PRECONDITION);

  pb::DeleteResponse deleted;
  CHECK(client.Delete("k", &deleted, revision - 1).error_code() ==
        grpc::StatusCode::FAILED_PRECONDITION);
  pb::GetResponse got;
  REQUIRE(client.Get("k", &got).ok());
  CHECK(got.pair().value() == "changed");
  REQUIRE(client.Delete("k", &deleted, revision).ok());
  CHECK(deleted.deleted());
  CHECK(deleted.revision() == revision + 1);
  REQUIRE(client.Delete("k", &deleted).ok());
  CHECK(!deleted.deleted());
  CHECK(deleted.revision() == revision + 1);
  status = client.Get("k", &got);
  CHECK(status.error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(status.error_message() == "no such key at revision " + std::to_string(revision + 1));
}

TEST_CASE("a scan passes its range in order, as of one revision") {
  LoneMember member;
  Client client(member);
  const std::string high("p\xff", 2);
  int64_t revision = 0;
  for (const std::string& key : {std::string("a"), std::string("p"), std::string("p/1"),
                                 std::string("p/2"), high, high + "x", std::string("q")}) {
    REQUIRE(client.Put(key, "value of " + key, &revision).ok());
  }
  const Keys all = {"a", "p", "p/1", "p/2", high, high + "x", "q"};
  CHECK(client.Keys(Prefix("")) == all);
  CHECK(client.Keys(Prefix("p/")) == Keys{"p/1", "p/2"});
  CHECK(client.Keys(Prefix(high)) == Keys{high, high + "x"});
  CHECK(client.Keys(Prefix("nothing")).empty());
  CHECK(client.Keys(Span("", "")) == all);
  CHECK(client.Keys(Span("p/1", "q")) == Keys{"p/1", "p/2", high, high + "x"});
  CHECK(client.Keys(Span("p/1", "")) == Keys{"p/1", "p/2", high, high + "x", "q"});
  pb::ScanRequest limited = Prefix("");
  limited.set_limit(2);
  CHECK(client.Keys(limited) == Keys{"a", "p"});

  pb::DeleteResponse deleted;
  REQUIRE(client.Delete("a", &deleted).ok());
  pb::ScanRequest before = Prefix("a");
  before.set_revision(revision);
  before.set_keys_only(true);
  std::vector<pb::ScanResponse> pages;
  REQUIRE(client.Scan(before, &pages).ok());
  REQUIRE(pages.size() == 1);
  CHECK(pages[0].revision() == revision);
  REQUIRE(pages[0].pairs_size() == 1);
  CHECK(pages[0].pairs(0).value().empty());
  CHECK(client.Keys(Prefix("a")).empty());
}

TEST_CASE("a long scan comes in pages of one revision") {
  Options options;
  options.request_bytes_max = 4096;  // A page holds as much.
  LoneMember member(options);
  Client client(member);
  const std::string value(1000, 'v');
  for (int i = 0; i < 20; ++i) REQUIRE(client.Put("k" + std::to_string(100 + i), value).ok());
  std::vector<pb::ScanResponse> pages;
  REQUIRE(client.Scan(Prefix("k"), &pages).ok());
  CHECK(pages.size() >= 4);
  int pairs = 0;
  for (const pb::ScanResponse& page : pages) {
    CHECK(page.revision() == pages[0].revision());
    CHECK(page.ByteSizeLong() < 8192);
    pairs += page.pairs_size();
  }
  CHECK(pairs == 20);
}

TEST_CASE("what makes no sense is refused with a sentence") {
  LoneMember member;
  Client client(member);
  grpc::Status status = client.Put("", "value");
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message() == "etcdserver: key is not provided");
  CHECK(client.Put("", "value", nullptr, 0).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  pb::GetResponse got;
  CHECK(client.Get("k", &got, 1000).error_code() == grpc::StatusCode::OUT_OF_RANGE);
  CHECK(client.Get("k", &got, -1).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  std::vector<pb::ScanResponse> pages;
  status = client.Scan({}, &pages);
  CHECK(status.error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  CHECK(status.error_message() ==
        "a scan names a prefix or a span; the empty prefix means every key");
  pb::ScanRequest negative = Prefix("");
  negative.set_limit(-1);
  CHECK(client.Scan(negative, &pages).error_code() == grpc::StatusCode::INVALID_ARGUMENT);
  pb::ScanRequest future = Prefix("");
  future.set_revision(1000);
  CHECK(client.Scan(future, &pages).error_code() == grpc::StatusCode::OUT_OF_RANGE);
}

TEST_CASE("a learner answers what may be stale and nothing else") {
  LoneMember learner({}, Cluster::kAsLearner);
  Client client(learner);
  pb::GetResponse got;
  CHECK(client.Get("k", &got, 0, true).error_code() == grpc::StatusCode::NOT_FOUND);
  CHECK(client.Get("k", &got).error_message() == "etcdserver: rpc not supported for learner");
  pb::ScanRequest scan = Prefix("");
  std::vector<pb::ScanResponse> pages;
  CHECK(client.Scan(scan, &pages).error_message() == "etcdserver: rpc not supported for learner");
  scan.set_allow_stale(true);
  CHECK(client.Scan(scan, &pages).ok());
}

}  // namespace kv::api

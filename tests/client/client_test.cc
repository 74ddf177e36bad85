// The client against servers of the test's own, in this process.
#include "client/client.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "proto/etcd/rpc.grpc.pb.h"

namespace kv::client {
namespace {

using Code = absl::StatusCode;

// Answers puts and ranges as the test says, and counts them.
class FakeServer final : public pb::KV::Service,
                         public pb::Maintenance::Service,
                         public pb::Auth::Service {
 public:
  using Answer = std::function<grpc::Status()>;

  FakeServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<pb::KV::Service*>(this));
    builder.RegisterService(static_cast<pb::Maintenance::Service*>(this));
    builder.RegisterService(static_cast<pb::Auth::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() override { Stop(); }

  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  void Stop() {
    if (server_) server_->Shutdown(std::chrono::system_clock::now());
    server_.reset();
  }

  grpc::Status Put(grpc::ServerContext* context, const pb::PutRequest*,
                   pb::PutResponse* response) override {
    response->mutable_header()->set_revision(++puts);
    return Respond(context);
  }
  grpc::Status Range(grpc::ServerContext* context, const pb::RangeRequest*,
                     pb::RangeResponse* response) override {
    response->set_count(++ranges);
    return Respond(context);
  }
  grpc::Status RangeStream(grpc::ServerContext* context, const pb::RangeRequest*,
                           grpc::ServerWriter<pb::RangeStreamResponse>* writer) override {
    for (int i = 0; i < 3; ++i) {
      pb::RangeStreamResponse part;
      part.mutable_range_response()->add_kvs()->set_key(std::to_string(i));
      writer->Write(part);
    }
    return Respond(context);
  }
  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest*,
                      pb::StatusResponse*) override {
    return grpc::Status::OK;
  }
  grpc::Status Authenticate(grpc::ServerContext*, const pb::AuthenticateRequest* request,
                            pb::AuthenticateResponse* response) override {
    if (request->password() != "secret") {
      return {grpc::StatusCode::INVALID_ARGUMENT,
              "etcdserver: authentication failed, invalid user ID or password"};
    }
    response->set_token("token-" + std::to_string(++tokens));
    return grpc::Status::OK;
  }

  // What the calls are answered, one after the other; OK when none is left.
  void Say(std::vector<grpc::Status> answers) {
    std::lock_guard lock(mutex_);
    answers_ = std::move(answers);
  }
  std::string last_token() {
    std::lock_guard lock(mutex_);
    return last_token_;
  }

  std::atomic<int> puts = 0;
  std::atomic<int> ranges = 0;
  std::atomic<int> tokens = 0;

 private:
  grpc::Status Respond(grpc::ServerContext* context) {
    std::lock_guard lock(mutex_);
    auto token = context->client_metadata().find("token");
    last_token_ = token == context->client_metadata().end()
                      ? ""
                      : std::string(token->second.data(), token->second.size());
    if (answers_.empty()) return grpc::Status::OK;
    grpc::Status answer = answers_.front();
    answers_.erase(answers_.begin());
    return answer;
  }

  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::vector<grpc::Status> answers_;
  std::string last_token_;
};

Options To(std::vector<std::string> endpoints) {
  Options options;
  options.endpoints = std::move(endpoints);
  options.dial_timeout = absl::Seconds(30);  // Long enough that no slow machine decides a test.
  return options;
}

constexpr CallOptions kPatient{.timeout = absl::Seconds(60)};

grpc::Status Unavailable(const char* text) { return {grpc::StatusCode::UNAVAILABLE, text}; }

// Where nobody listens: a server that was there and is gone.
std::string DeadEndpoint() {
  FakeServer server;
  return server.endpoint();
}

TEST_CASE("a write is repeated only if it was certainly not carried out") {
  struct Case {
    Code code;
    const char* text;
    Fate fate;
    bool retry;
  };
  const Case cases[] = {
      {Code::kOk, "", Fate::kDone, false},
      {Code::kUnavailable, "etcdserver: no leader", Fate::kNotDone, true},
      {Code::kUnavailable, "etcdserver: leader changed", Fate::kUnknown, false},
      {Code::kUnavailable, "etcdserver: request timed out", Fate::kUnknown, false},
      {Code::kUnavailable, "etcdserver: server stopped", Fate::kUnknown, false},
      {Code::kUnavailable, "Socket closed", Fate::kUnknown, false},
      {Code::kDeadlineExceeded, "Deadline Exceeded", Fate::kUnknown, false},
      {Code::kCancelled, "", Fate::kUnknown, false},
      {Code::kInternal, "Received RST_STREAM", Fate::kUnknown, false},
      {Code::kUnknown, "anything", Fate::kUnknown, false},
      {Code::kUnknown, "etcdserver: too many requests", Fate::kNotDone, true},
      {Code::kResourceExhausted, "etcdserver: too many requests", Fate::kNotDone, true},
      {Code::kResourceExhausted, "etcdserver: mvcc: database space exceeded", Fate::kNotDone,
       false},
      {Code::kInvalidArgument, "etcdserver: request is too large", Fate::kNotDone, false},
      {Code::kNotFound, "etcdserver: requested lease not found", Fate::kNotDone, false},
      {Code::kFailedPrecondition, "etcdserver: not capable", Fate::kNotDone, false},
      {Code::kOutOfRange, "etcdserver: mvcc: required revision has been compacted", Fate::kNotDone,
       false},
      {Code::kPermissionDenied, "etcdserver: permission denied", Fate::kNotDone, false},
      {Code::kUnimplemented, "", Fate::kNotDone, false},
  };
  for (const Case& c : cases) {
    INFO(c.text);
    Verdict verdict = Judge(Kind::kWrite, c.code, c.text);
    CHECK(verdict.fate == c.fate);
    CHECK(verdict.retry == c.retry);
    CHECK_FALSE((verdict.retry && verdict.fate != Fate::kNotDone));
  }
}

TEST_CASE("a read is repeated whenever somebody else may answer it") {
  CHECK(Judge(Kind::kRead, Code::kUnavailable, "Socket closed").retry);
  CHECK(Judge(Kind::kRead, Code::kUnavailable, "etcdserver: leader changed").retry);
  CHECK(Judge(Kind::kRead, Code::kDeadlineExceeded, "").retry);
  CHECK(Judge(Kind::kRead, Code::kUnknown, "etcdserver: too many requests").retry);
  CHECK_FALSE(Judge(Kind::kRead, Code::kOutOfRange, "compacted").retry);
  CHECK_FALSE(Judge(Kind::kRead, Code::kInvalidArgument, "key is not provided").retry);
}

TEST_CASE("endpoints that cannot be understood are refused with the reason") {
  for (const char* good : {"127.0.0.1:2379", "http://db:2379", "https://db:2379/", "[::1]:2379",
                           "unix:/run/kvd.sock", "unix:///run/kvd.sock"}) {
    INFO(good);
    CHECK(Client::Check(To({good})).ok());
  }
  for (const char* bad : {"", "db", "db:", "db:port", ":2379", "ftp://db:2379", "http://db:2379/v3",
                          "unix:", "[::1]"}) {
    INFO(bad);
    absl::Status status = Client::Check(To({bad}));
    CHECK(status.code() == Code::kInvalidArgument);
    CHECK(std::string(status.message()).find("host:port") != std::string::npos);
  }
  CHECK_FALSE(Client::Check(To({})).ok());
}

TEST_CASE("a read goes on at the next endpoint") {
  FakeServer first;
  FakeServer second;
  first.Say({Unavailable("etcdserver: leader changed")});
  Client client(To({first.endpoint(), second.endpoint()}));
  auto answer = client.CallAndWait(kRange, pb::RangeRequest(), kPatient);
  REQUIRE(answer.ok());
  CHECK(answer.endpoint == second.endpoint());
  CHECK(first.ranges == 1);

  SECTION("and later calls stay there") {
    CHECK(client.CallAndWait(kPut, pb::PutRequest(), kPatient).endpoint == second.endpoint());
    CHECK(first.puts == 0);
  }
}

TEST_CASE("a read of a single endpoint is tried again until it is answered") {
  FakeServer server;
  server.Say({Unavailable("etcdserver: no leader"), Unavailable("etcdserver: no leader"),
              Unavailable("etcdserver: request timed out")});
  Client client(To({server.endpoint()}));
  CHECK(client.CallAndWait(kRange, pb::RangeRequest(), kPatient).ok());
  CHECK(server.ranges == 4);
}

TEST_CASE("a write whose outcome is unknown is sent once and handed back") {
  FakeServer first;
  FakeServer second;
  first.Say({Unavailable("etcdserver: request timed out")});
  Client client(To({first.endpoint(), second.endpoint()}));
  auto answer = client.CallAndWait(kPut, pb::PutRequest(), kPatient);
  CHECK(answer.status.code() == Code::kUnavailable);
  CHECK(answer.fate == Fate::kUnknown);
  CHECK(answer.endpoint == first.endpoint());
  CHECK(first.puts + second.puts == 1);
  // The next call begins elsewhere.
  CHECK(client.CallAndWait(kPut, pb::PutRequest(), kPatient).endpoint == second.endpoint());
}

TEST_CASE("a write that was refused before it began is sent again") {
  FakeServer server;
  server.Say({Unavailable("etcdserver: no leader"),
              {grpc::StatusCode::UNKNOWN, "etcdserver: too many requests"}});
  Client client(To({server.endpoint()}));
  auto answer = client.CallAndWait(kPut, pb::PutRequest(), kPatient);
  CHECK(answer.ok());
  CHECK(answer.fate == Fate::kDone);
  CHECK(server.puts == 3);
}

TEST_CASE("a write that cannot connect goes to the next endpoint, once") {
  FakeServer living;
  Client client(To({DeadEndpoint(), living.endpoint()}));
  auto answer = client.CallAndWait(kPut, pb::PutRequest(), kPatient);
  CHECK(answer.ok());
  CHECK(answer.endpoint == living.endpoint());
  CHECK(living.puts == 1);
}

TEST_CASE("when nobody can be reached, nothing was done and every endpoint is named") {
  std::vector<std::string> dead = {DeadEndpoint(), DeadEndpoint()};
  Options options = To(dead);
  options.dial_timeout = absl::Milliseconds(100);
  Client client(options);
  auto put = client.CallAndWait(kPut, pb::PutRequest(), kPatient);
  CHECK(put.status.code() == Code::kUnavailable);
  CHECK(put.fate == Fate::kNotDone);
  for (const std::string& endpoint : dead) {
    CHECK(std::string(put.status.message()).find(endpoint) != std::string::npos);
  }
  CHECK(client.CallAndWait(kRange, pb::RangeRequest(), kPatient).fate == Fate::kNotDone);
}

TEST_CASE("many calls are under way at a time and each is answered once") {
  FakeServer server;
  std::atomic<int> answered = 0;
  {
    Client client(To({server.endpoint()}));
    for (int i = 0; i < 200; ++i) {
      client.Call(kPut, pb::PutRequest(), kPatient,
                  [&answered](Answer<pb::PutResponse> answer) { answered += answer.ok() ? 1 : 0; });
    }
  }
  CHECK(answered == 200);
  CHECK(server.puts == 200);
}

TEST_CASE("calls to a server that goes away are answered, too") {
  auto server = std::make_unique<FakeServer>();
  std::atomic<int> answered = 0;
  {
    Client client(To({server->endpoint()}));
    REQUIRE(client.CallAndWait(kRange, pb::RangeRequest(), kPatient).ok());
    for (int i = 0; i < 100; ++i) {
      client.Call(kPut, pb::PutRequest(), kPatient,
                  [&answered](const Answer<pb::PutResponse>&) { ++answered; });
      if (i == 50) server->Stop();
    }
  }
  CHECK(answered == 100);
}

TEST_CASE("a stream's parts arrive in order") {
  FakeServer server;
  Client client(To({DeadEndpoint(), server.endpoint()}));
  std::string keys;
  auto answer = client.StreamAndWait(
      kRangeStream, pb::RangeRequest(), kPatient,
      [&keys](const pb::RangeStreamResponse& part) { keys += part.range_response().kvs(0).key(); });
  CHECK(answer.ok());
  CHECK(answer.endpoint == server.endpoint());
  CHECK(keys == "012");
}

TEST_CASE("a token is fetched first and renewed when it is no longer believed") {
  FakeServer server;
  Options options = To({server.endpoint()});
  options.user = "ann";
  options.password = "secret";
  Client client(options);
  REQUIRE(client.CallAndWait(kPut, pb::PutRequest(), kPatient).ok());
  CHECK(server.last_token() == "token-1");
  server.Say({{grpc::StatusCode::UNAUTHENTICATED, "etcdserver: invalid auth token"}});
  REQUIRE(client.CallAndWait(kPut, pb::PutRequest(), kPatient).ok());
  CHECK(server.last_token() == "token-2");
}

TEST_CASE("a wrong password is refused before the call") {
  FakeServer server;
  Options options = To({server.endpoint()});
  options.user = "ann";
  options.password = "guess";
  Client client(options);
  auto answer = client.CallAndWait(kPut, pb::PutRequest(), kPatient);
  CHECK(answer.status.code() == Code::kInvalidArgument);
  CHECK(answer.fate == Fate::kNotDone);
  CHECK(server.puts == 0);
}

}  // namespace
}  // namespace kv::client

// The watcher against servers of the test's own, whose streams break wherever the test wants.
#include "client/watcher.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proto/etcd/rpc.grpc.pb.h"

namespace kv::client {
namespace {

using Code = grpc::StatusCode;
using ServerStream = grpc::ServerReaderWriter<pb::WatchResponse, pb::WatchRequest>;
// What one stream of the server does once its order is there.
using Act = std::function<grpc::Status(const pb::WatchCreateRequest&, ServerStream*)>;

class WatchServer final : public pb::Watch::Service, public pb::Maintenance::Service {
 public:
  WatchServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<pb::Watch::Service*>(this));
    builder.RegisterService(static_cast<pb::Maintenance::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~WatchServer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  // One for each stream, one after the other; the last for all that still come.
  void Plan(std::vector<Act> acts) { acts_.assign(acts.begin(), acts.end()); }
  std::vector<int64_t> starts() {
    const std::lock_guard lock(mutex_);
    return starts_;
  }

  grpc::Status Watch(grpc::ServerContext* context, ServerStream* stream) override {
    pb::WatchRequest request;
    if (!stream->Read(&request)) return grpc::Status::CANCELLED;
    Act act;
    {
      const std::lock_guard lock(mutex_);
      starts_.push_back(request.create_request().start_revision());
      wants_leader_ = context->client_metadata().contains("hasleader");
      act = acts_.front();
      if (acts_.size() > 1) acts_.pop_front();
    }
    return act(request.create_request(), stream);
  }
  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest*,
                      pb::StatusResponse*) override {
    return grpc::Status::OK;
  }
  bool wants_leader() {
    const std::lock_guard lock(mutex_);
    return wants_leader_;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  std::deque<Act> acts_;
  std::vector<int64_t> starts_;
  bool wants_leader_ = false;
};

pb::WatchResponse Created(int64_t revision) {
  pb::WatchResponse response;
  response.mutable_header()->set_revision(revision);
  response.set_created(true);
  return response;
}
// `per` events of each revision.
pb::WatchResponse Events(int64_t first, int64_t last, int per = 1) {
  pb::WatchResponse response;
  response.mutable_header()->set_revision(last);
  for (int64_t revision = first; revision <= last; ++revision) {
    for (int i = 0; i < per; ++i) {
      mvccpb::KeyValue* kv = response.add_events()->mutable_kv();
      kv->set_key(std::to_string(i));
      kv->set_mod_revision(revision);
    }
  }
  return response;
}
pb::WatchResponse Progress(int64_t revision) {
  pb::WatchResponse response;
  response.mutable_header()->set_revision(revision);
  return response;
}
void WaitForTheEnd(ServerStream* stream) {
  pb::WatchRequest request;
  while (stream->Read(&request)) {
  }
}

// Serves a history of `revisions` from where it is asked, `count` of them, and breaks with
// `status`.
Act Serve(int64_t revisions, int64_t count, grpc::Status status) {
  return [=](const pb::WatchCreateRequest& order, ServerStream* stream) {
    stream->Write(Created(revisions));
    const int64_t first = order.start_revision();
    const int64_t last = std::min(revisions, first + count - 1);
    for (int64_t revision = first; revision <= last; ++revision) {
      stream->Write(Events(revision, revision));
    }
    return status;
  };
}

Options To(std::vector<std::string> endpoints) {
  Options options;
  options.endpoints = std::move(endpoints);
  options.dial_timeout = absl::Seconds(30);
  return options;
}
pb::WatchCreateRequest From(int64_t revision) {
  pb::WatchCreateRequest request;
  request.set_key("k");
  request.set_start_revision(revision);
  return request;
}

// Revisions and keys of the events up to `last`.
std::vector<std::string> HearUntil(Watcher& watcher, int64_t last) {
  std::vector<std::string> heard;
  for (int64_t at = 0; at < last;) {
    const auto news = watcher.Next();
    REQUIRE(news);
    REQUIRE_FALSE(news->canceled());
    for (const mvccpb::Event& event : news->events()) {
      at = event.kv().mod_revision();
      heard.push_back(std::to_string(at) + "/" + event.kv().key());
    }
  }
  return heard;
}
std::vector<std::string> Revisions(int64_t first, int64_t last) {
  std::vector<std::string> all;
  for (int64_t revision = first; revision <= last; ++revision) {
    all.push_back(std::to_string(revision) + "/0");
  }
  return all;
}

}  // namespace

TEST_CASE("a watcher goes on where it was, whoever answers and however the stream broke") {
  WatchServer first;
  WatchServer second;
  first.Plan({Serve(60, 7, {Code::UNAVAILABLE, "etcdserver: server stopped"}),
              Serve(60, 0, {Code::UNAVAILABLE, "etcdserver: no leader"}),
              Serve(60, 3, grpc::Status::OK)});
  second.Plan({Serve(60, 1, {Code::INTERNAL, "stream terminated"}),
               Serve(60, 5, {Code::UNKNOWN, "Stream removed"}),
               Serve(60, 4, {Code::CANCELLED, ""})});
  Client client(To({first.endpoint(), second.endpoint()}));
  Watcher watcher(&client, From(3));
  CHECK(HearUntil(watcher, 60) == Revisions(3, 60));
  CHECK(first.starts().size() > 3);
  CHECK(second.starts().size() >= 2);
  CHECK(first.wants_leader());
}

TEST_CASE("a server that goes away is left for another") {
  auto first = std::make_unique<WatchServer>();
  WatchServer second;
  first->Plan({[](const pb::WatchCreateRequest&, ServerStream* stream) {
    stream->Write(Created(5));
    stream->Write(Events(6, 6));
    WaitForTheEnd(stream);
    return grpc::Status::OK;
  }});
  second.Plan({Serve(9, 9, {Code::UNAVAILABLE, ""})});
  Client client(To({first->endpoint(), second.endpoint()}));
  Watcher watcher(&client, From(0));
  CHECK(HearUntil(watcher, 6) == Revisions(6, 6));
  first.reset();
  CHECK(HearUntil(watcher, 9) == Revisions(7, 9));
}

TEST_CASE("a watcher from now on misses nothing that happens while it is cut off") {
  WatchServer server;
  server.Plan({[](const pb::WatchCreateRequest&, ServerStream*) {
                 // Nothing is promised before it is created.
                 return grpc::Status(Code::UNAVAILABLE, "");
               },
               [](const pb::WatchCreateRequest&, ServerStream* stream) {
                 stream->Write(Created(5));
                 return grpc::Status(Code::UNAVAILABLE, "");
               },
               Serve(8, 8, {Code::UNAVAILABLE, ""})});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(0));
  CHECK(HearUntil(watcher, 8) == Revisions(6, 8));
  CHECK(server.starts()[0] == 0);
  CHECK(server.starts()[1] == 0);
  CHECK(server.starts()[2] == 6);
}

TEST_CASE("progress is where a watcher goes on, too") {
  WatchServer server;
  server.Plan({[](const pb::WatchCreateRequest&, ServerStream* stream) {
                 stream->Write(Created(5));
                 stream->Write(Progress(50));
                 return grpc::Status(Code::UNAVAILABLE, "");
               },
               Serve(52, 52, {Code::UNAVAILABLE, ""})});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(0));
  const auto progress = watcher.Next();
  REQUIRE(progress);
  CHECK(progress->header().revision() == 50);
  CHECK(progress->events().empty());
  CHECK(HearUntil(watcher, 52) == Revisions(51, 52));
}

TEST_CASE("a revision in pieces comes whole and once, also when it is cut between them") {
  const auto piece = [](bool more) {
    pb::WatchResponse response = Events(6, 6);
    response.mutable_events(0)->mutable_kv()->set_key(more ? "0" : "1");
    response.set_fragment(more);
    return response;
  };
  WatchServer server;
  server.Plan({[&](const pb::WatchCreateRequest&, ServerStream* stream) {
                 stream->Write(Created(5));
                 stream->Write(piece(true));
                 return grpc::Status(Code::UNAVAILABLE, "");
               },
               [&](const pb::WatchCreateRequest&, ServerStream* stream) {
                 stream->Write(Created(6));
                 stream->Write(piece(true));
                 stream->Write(piece(false));
                 WaitForTheEnd(stream);
                 return grpc::Status::OK;
               }});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(6));
  const auto news = watcher.Next();
  REQUIRE(news);
  REQUIRE(news->events_size() == 2);
  CHECK(news->events(0).kv().key() == "0");
  CHECK(news->events(1).kv().key() == "1");
  CHECK_FALSE(news->fragment());
  CHECK(server.starts() == std::vector<int64_t>{6, 6});
}

TEST_CASE("what is compacted meanwhile ends the watcher, and it says so") {
  WatchServer server;
  server.Plan({Serve(4, 2, {Code::UNAVAILABLE, ""}),
               [](const pb::WatchCreateRequest&, ServerStream* stream) {
                 stream->Write(Created(40));
                 pb::WatchResponse gone;
                 gone.set_canceled(true);
                 gone.set_compact_revision(30);
                 stream->Write(gone);
                 WaitForTheEnd(stream);
                 return grpc::Status::OK;
               }});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(3));
  CHECK(HearUntil(watcher, 4) == Revisions(3, 4));
  const auto last = watcher.Next();
  REQUIRE(last);
  CHECK(last->canceled());
  CHECK(last->compact_revision() == 30);
  CHECK(watcher.status().code() == absl::StatusCode::kOutOfRange);
  CHECK_FALSE(watcher.Next());
  CHECK(server.starts() == std::vector<int64_t>{3, 5});
}

TEST_CASE("a refusal ends the watcher") {
  WatchServer server;
  server.Plan({[](const pb::WatchCreateRequest&, ServerStream*) {
    return grpc::Status(Code::PERMISSION_DENIED, "etcdserver: permission denied");
  }});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(0));
  const auto last = watcher.Next();
  REQUIRE(last);
  CHECK(last->canceled());
  CHECK(watcher.status().code() == absl::StatusCode::kPermissionDenied);
  CHECK_FALSE(watcher.Next());
  CHECK(server.starts().size() == 1);
}

TEST_CASE("a watcher is asked how far it is, and canceled, from another thread") {
  WatchServer server;
  server.Plan({[](const pb::WatchCreateRequest&, ServerStream* stream) {
    stream->Write(Created(5));
    stream->Write(Events(6, 6));
    pb::WatchRequest request;
    while (stream->Read(&request)) {
      if (request.has_progress_request()) stream->Write(Progress(7));
    }
    return grpc::Status::OK;
  }});
  Client client(To({server.endpoint()}));
  Watcher watcher(&client, From(0));
  CHECK(HearUntil(watcher, 6) == Revisions(6, 6));
  std::thread other([&] { watcher.AskProgress(); });
  const auto progress = watcher.Next();
  other.join();
  REQUIRE(progress);
  CHECK(progress->header().revision() == 7);
  other = std::thread([&] { watcher.Cancel(); });
  CHECK_FALSE(watcher.Next());
  other.join();
  CHECK(watcher.status().ok());
}

TEST_CASE("a watcher that finds nobody can be canceled") {
  Options options = To({WatchServer().endpoint()});
  options.dial_timeout = absl::Milliseconds(10);
  Client client(options);
  Watcher watcher(&client, From(0));
  std::thread other([&] { watcher.Cancel(); });
  CHECK_FALSE(watcher.Next());
  other.join();
}

}  // namespace kv::client

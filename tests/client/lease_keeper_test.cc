// The lease keeper against a server of the test's own, which renews as the test says.
#include "client/lease_keeper.h"

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <catch2/catch_test_macros.hpp>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "proto/etcd/rpc.grpc.pb.h"

namespace kv::client {
namespace {

struct Renewal {
  int64_t ttl = 0;
  grpc::Status status = grpc::Status::OK;
};

using Plan = std::deque<Renewal>;

class LeaseServer final : public pb::Lease::Service, public pb::Maintenance::Service {
 public:
  // One for each renewal, one after the other; the last for all that still come.
  explicit LeaseServer(Plan plan) : plan_(std::move(plan)) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.RegisterService(static_cast<pb::Lease::Service*>(this));
    builder.RegisterService(static_cast<pb::Maintenance::Service*>(this));
    server_ = builder.BuildAndStart();
  }
  ~LeaseServer() override { server_->Shutdown(std::chrono::system_clock::now()); }

  std::string endpoint() const { return "127.0.0.1:" + std::to_string(port_); }
  std::vector<int64_t> asked() {
    const std::lock_guard lock(mutex_);
    return asked_;
  }

  grpc::Status LeaseKeepAlive(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<pb::LeaseKeepAliveResponse, pb::LeaseKeepAliveRequest>* stream)
      override {
    pb::LeaseKeepAliveRequest request;
    if (!stream->Read(&request)) return grpc::Status::CANCELLED;
    Renewal renewal;
    {
      const std::lock_guard lock(mutex_);
      asked_.push_back(request.id());
      renewal = plan_.front();
      if (plan_.size() > 1) plan_.pop_front();
    }
    if (!renewal.status.ok()) return renewal.status;
    pb::LeaseKeepAliveResponse response;
    response.set_id(request.id());
    response.set_ttl(renewal.ttl);
    stream->Write(response);
    return grpc::Status::OK;
  }
  grpc::Status Status(grpc::ServerContext*, const pb::StatusRequest*,
                      pb::StatusResponse*) override {
    return grpc::Status::OK;
  }

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
  std::mutex mutex_;
  Plan plan_;
  std::vector<int64_t> asked_;
};

const Renewal kRefused{.status = {grpc::StatusCode::UNAVAILABLE, "etcdserver: no leader"}};
const Renewal kGone{.ttl = 0};

Options To(std::vector<std::string> endpoints) {
  Options options;
  options.endpoints = std::move(endpoints);
  options.dial_timeout = absl::Seconds(30);
  return options;
}

// What it was told while it lasted.
struct Heard {
  LeaseKeeper::Options Options(absl::Duration left = absl::ZeroDuration()) {
    return {.left = left,
            .call = {.timeout = absl::Seconds(30)},
            .renewed = [this](const pb::LeaseKeepAliveResponse& r) { ttls.push_back(r.ttl()); },
            .ended =
                [this](const absl::Status& status) {
                  const std::lock_guard lock(mutex);
                  end = status.code();
                  told = true;
                  changed.notify_all();
                }};
  }
  absl::StatusCode End() {
    std::unique_lock lock(mutex);
    changed.wait(lock, [this] { return told; });
    return end;
  }

  std::vector<int64_t> ttls;  // The keeper's thread, then read after its end.
  std::mutex mutex;
  std::condition_variable changed;
  bool told = false;
  absl::StatusCode end = absl::StatusCode::kOk;
};

}  // namespace

TEST_CASE("a lease is renewed until the cluster says that it is gone") {
  LeaseServer server(Plan{{.ttl = 1}, {.ttl = 1}, kGone});
  Client client(To({server.endpoint()}));
  Heard heard;
  LeaseKeeper keeper(&client, 77, heard.Options());
  CHECK(keeper.Wait().code() == absl::StatusCode::kNotFound);
  CHECK(heard.End() == absl::StatusCode::kNotFound);
  CHECK(heard.ttls == std::vector<int64_t>{1, 1});
  CHECK(server.asked() == std::vector<int64_t>{77, 77, 77});
}

TEST_CASE("a lease of which nothing is known is given up with the first renewal that fails") {
  LeaseServer server(Plan{{.status = {grpc::StatusCode::PERMISSION_DENIED, "no"}}});
  Client client(To({server.endpoint()}));
  Heard heard;
  LeaseKeeper keeper(&client, 77, heard.Options());
  CHECK(keeper.Wait().code() == absl::StatusCode::kPermissionDenied);
  CHECK(server.asked().size() == 1);
}

TEST_CASE("while a lease may live it is asked for again, at whoever answers") {
  // Either may be asked first; the one that refuses is left.
  LeaseServer refuses(Plan{kRefused});
  LeaseServer renews(Plan{{.ttl = 600}});
  Client client(To({refuses.endpoint(), renews.endpoint()}));
  std::mutex mutex;
  std::condition_variable changed;
  bool renewed = false;
  LeaseKeeper keeper(&client, 77,
                     {.left = absl::Seconds(600),
                      .call = {.timeout = absl::Seconds(30)},
                      .renewed =
                          [&](const pb::LeaseKeepAliveResponse&) {
                            const std::lock_guard lock(mutex);
                            renewed = true;
                            changed.notify_all();
                          },
                      .ended = nullptr});
  {
    std::unique_lock lock(mutex);
    changed.wait(lock, [&] { return renewed; });
  }
  CHECK(refuses.asked().size() >= 1);
  keeper.Cancel();
  CHECK(keeper.Wait().code() == absl::StatusCode::kCancelled);
}

TEST_CASE("a lease that nobody renews in time is believed in no longer") {
  LeaseServer server(Plan{{.ttl = 1}, kRefused});
  Client client(To({server.endpoint()}));
  Heard heard;
  const auto begin = std::chrono::steady_clock::now();
  LeaseKeeper keeper(&client, 77, heard.Options(absl::Seconds(3600)));
  // An hour was left, but what the cluster says counts.
  CHECK(keeper.Wait().code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(std::chrono::steady_clock::now() - begin >= std::chrono::seconds(1));
  CHECK(heard.ttls == std::vector<int64_t>{1});
  CHECK(server.asked().size() >= 2);
}

TEST_CASE("a keeper that is canceled says so, and tells of no end") {
  LeaseServer server(Plan{{.ttl = 600}});
  Client client(To({server.endpoint()}));
  Heard heard;
  {
    LeaseKeeper keeper(&client, 77, heard.Options(absl::Seconds(600)));
    std::thread other([&] { keeper.Cancel(); });
    CHECK(keeper.Wait().code() == absl::StatusCode::kCancelled);
    other.join();
  }
  CHECK_FALSE(heard.told);
}

}  // namespace kv::client

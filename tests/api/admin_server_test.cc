// The admin port, over loopback.
#include "server/api/admin_server.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "server/replica/thread_runtime.h"
#include "storage/status.h"

namespace kv::api {
namespace {

class Client {
 public:
  explicit Client(int port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      FAIL("cannot connect to port " << port);
    }
  }
  ~Client() { close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  void Send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
  }
  // Until the server closes.
  std::string Receive() {
    std::string all;
    char bytes[4096];
    for (ssize_t got; (got = recv(fd_, bytes, sizeof bytes, 0)) > 0;) {
      all.append(bytes, static_cast<size_t>(got));
    }
    return all;
  }

 private:
  const int fd_;
};

struct Answer {
  int code = 0;
  std::string body;
  std::string head;
};

Answer Parse(const std::string& response) {
  const size_t end = response.find("\r\n\r\n");
  if (end == std::string::npos || !response.starts_with("HTTP/1.1 ")) return {};
  return {std::stoi(response.substr(9)), response.substr(end + 4), response.substr(0, end)};
}

Answer Ask(int port, const std::string& target, const std::string& method = "GET") {
  Client client(port);
  client.Send(fmt::format("{} {} HTTP/1.1\r\nHost: x\r\n\r\n", method, target));
  return Parse(client.Receive());
}

Probe Fixed(std::string name, absl::Status status) {
  return {std::move(name), [status](Probe::Done done) { std::move(done)(status); }};
}
absl::Status Bad(std::string text) {
  return absl::Status(absl::StatusCode::kUnavailable, std::move(text));
}

struct Admin {
  explicit Admin(AdminOptions options = {}) {
    options.urls = {"http://127.0.0.1:0"};
    server = std::make_unique<AdminServer>(&runtime, options, &metrics);
    REQUIRE(Describe(server->Start()) == "OK");
    server->SetProbes(probes);
  }
  int port() const { return server->port(); }

  ThreadRuntime runtime;
  Metrics metrics;
  std::shared_ptr<Probes> probes = std::make_shared<Probes>();
  std::unique_ptr<AdminServer> server;
};

}  // namespace

TEST_CASE("before the member serves it is alive, but neither started nor ready") {
  Admin admin;
  CHECK(Ask(admin.port(), "/livez").code == 200);
  CHECK(Ask(admin.port(), "/startupz").code == 503);
  const Answer ready = Ask(admin.port(), "/readyz");
  CHECK(ready.code == 503);
  CHECK(ready.body == "[-]started failed: the member has not started to serve\n\n");
  CHECK(Ask(admin.port(), "/health").body ==
        "{\"health\":\"false\",\"reason\":\"the member has not started to serve\"}\n");
  admin.server->SetStarted();
  CHECK(Ask(admin.port(), "/startupz").code == 200);
}

TEST_CASE("probes are answered as etcd answers them") {
  Admin admin;
  admin.probes->Open({{ProbeKind::kReady, Fixed("good", absl::OkStatus())},
                      {ProbeKind::kReady, Fixed("bad", Bad("etcdserver: no leader"))},
                      {ProbeKind::kLive, Fixed("serializable_read", absl::OkStatus())},
                      {ProbeKind::kHealth, Fixed("health", Bad("RAFT NO LEADER"))},
                      {ProbeKind::kHealthSerializable, Fixed("health", absl::OkStatus())}});
  CHECK(Ask(admin.port(), "/livez").body == "ok\n");
  CHECK(Ask(admin.port(), "/livez?verbose").body == "[+]serializable_read ok\nok\n");
  CHECK(Ask(admin.port(), "/livez/serializable_read").body == "ok\n");
  CHECK(Ask(admin.port(), "/livez/good").code == 404);

  const Answer ready = Ask(admin.port(), "/readyz");
  CHECK(ready.code == 503);
  CHECK(ready.body == "[+]good ok\n[-]bad failed: etcdserver: no leader\n\n");
  CHECK(Ask(admin.port(), "/readyz?exclude=bad").body == "ok\n");
  CHECK(Ask(admin.port(), "/readyz?verbose&exclude=bad&exclude=other").body == "[+]good ok\nok\n");
  CHECK(Ask(admin.port(), "/readyz?exclude=b%61d").code == 200);
  CHECK(Ask(admin.port(), "/readyz/good?verbose").body == "[+]good ok\nok\n");
  CHECK(Ask(admin.port(), "/readyz/bad").code == 503);

  const Answer health = Ask(admin.port(), "/health");
  CHECK(health.code == 503);
  CHECK(health.body == "{\"health\":\"false\",\"reason\":\"RAFT NO LEADER\"}\n");
  CHECK(Ask(admin.port(), "/health?serializable=true").body ==
        "{\"health\":\"true\",\"reason\":\"\"}");

  admin.probes->Close("the member is stopping");
  CHECK(Ask(admin.port(), "/readyz").code == 503);
}

TEST_CASE("version, metrics, unknown paths and methods") {
  Admin admin;
  CHECK(Ask(admin.port(), "/version").body ==
        R"({"etcdserver":"3.7.3","etcdcluster":"3.7.0","storage":"3.7.0"})");
  CHECK(Ask(admin.port(), "/nope").code == 404);
  CHECK(Ask(admin.port(), "/").code == 404);
  const Answer post = Ask(admin.port(), "/readyz", "POST");
  CHECK(post.code == 405);
  CHECK(post.head.find("Allow: GET") != std::string::npos);
  const Answer head = Ask(admin.port(), "/version", "HEAD");
  CHECK(head.code == 200);
  CHECK(head.body.empty());
  CHECK(head.head.find("Content-Length: 62") != std::string::npos);
  const Answer metrics = Ask(admin.port(), "/metrics");
  CHECK(metrics.code == 200);
  CHECK(metrics.head.find("text/plain; version=0.0.4") != std::string::npos);
  for (const char* name : {"process_resident_memory_bytes", "os_fd_used", "kvd_build_info",
                           "etcd_server_version", "etcd_disk_wal_fsync_duration_seconds_bucket"}) {
    CAPTURE(name);
    CHECK(metrics.body.find(name) != std::string::npos);
  }
}

TEST_CASE("what is no HTTP is refused") {
  Admin admin;
  const auto code = [&](std::string_view bytes) {
    Client client(admin.port());
    client.Send(bytes);
    return Parse(client.Receive()).code;
  };
  CHECK(code("hello\r\n\r\n") == 400);
  CHECK(code("GET /livez HTTP/2\r\n\r\n") == 400);
  CHECK(code("GET livez HTTP/1.1\r\n\r\n") == 400);
  CHECK(code("\r\n\r\n") == 400);
  CHECK(code("GET /livez HTTP/1.0\r\n\r\n") == 200);
  CHECK(code("GET /livez HTTP/1.1\r\nX: " + std::string(20'000, 'x') + "\r\n\r\n") == 431);
  CHECK(code(std::string(100'000, 'x')) == 431);
}

TEST_CASE("clients that are slow to send cost nobody else anything") {
  Admin admin({.connections_max = 8, .request_timeout = absl::Milliseconds(300)});
  std::vector<std::unique_ptr<Client>> slow;
  for (int i = 0; i < 30; ++i) {
    slow.push_back(std::make_unique<Client>(admin.port()));
    slow.back()->Send("GET /livez HT");
  }
  CHECK(Ask(admin.port(), "/livez").code == 200);
  // All of them are closed: the oldest for the newer ones, the rest when their time is over.
  for (const auto& client : slow) CHECK(client->Receive().empty());
}

TEST_CASE("a probe that does not answer is given up on") {
  Admin admin({.probe_timeout = absl::Milliseconds(200)});
  std::vector<Probe::Done> kept;
  std::promise<void> asked;
  admin.probes->Open({{ProbeKind::kReady, {"stuck", [&](Probe::Done done) {
                                             kept.push_back(std::move(done));
                                             asked.set_value();
                                           }}}});
  std::thread other([&] {
    asked.get_future().wait();
    CHECK(Ask(admin.port(), "/livez").code == 200);  // Served meanwhile.
  });
  CHECK(Ask(admin.port(), "/readyz").code == 503);
  other.join();
  // An answer that comes too late, even after the server, finds nobody and harms nothing.
  admin.server->Stop();
  for (Probe::Done& done : kept) std::move(done)(absl::OkStatus());
}

TEST_CASE("a second admin server on the port is refused with a sentence") {
  Admin admin;
  AdminServer second(&admin.runtime, {.urls = {fmt::format("http://127.0.0.1:{}", admin.port())}},
                     &admin.metrics);
  const std::string status = Describe(second.Start());
  CHECK(status.find("another process has this port") != std::string::npos);
}

}  // namespace kv::api

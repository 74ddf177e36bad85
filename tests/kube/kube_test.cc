// A stand-in for an API server on loopback, good and bad, and what the member makes of its answers.
#include <fmt/format.h>
#include <httplib.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <thread>

#include "server/kube/api_client.h"
#include "server/kube/desired.h"
#include "server/kube/marker.h"
#include "server/replica/thread_runtime.h"
#include "storage/status.h"

namespace kv::kube {
namespace {

using cluster::DesiredCount;
using cluster::Marker;
using Kind = DesiredCount::Kind;

std::string TempFolder() {
  std::string pattern = std::filesystem::temp_directory_path() / "kvd-kube-XXXXXX";
  return mkdtemp(pattern.data());
}

void WriteText(const std::string& path, std::string_view text) { std::ofstream(path) << text; }

// A self-signed certificate for 127.0.0.1 and its key.
void MakeCertificate(const std::string& certificate, const std::string& key) {
  EVP_PKEY* pair = EVP_EC_gen("P-256");
  X509* x509 = X509_new();
  ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
  X509_set_version(x509, 2);
  X509_gmtime_adj(X509_getm_notBefore(x509), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
  X509_set_pubkey(x509, pair);
  X509_NAME* name = X509_get_subject_name(x509);
  X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>("test"), -1, -1, 0);
  X509_set_issuer_name(x509, name);
  for (const auto& [nid, value] : std::map<int, const char*>{{NID_subject_alt_name, "IP:127.0.0.1"},
                                                             {NID_basic_constraints, "CA:TRUE"}}) {
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, nullptr, nid, value);
    X509_add_ext(x509, extension, -1);
    X509_EXTENSION_free(extension);
  }
  X509_sign(x509, pair, EVP_sha256());
  FILE* out = std::fopen(certificate.c_str(), "w");
  PEM_write_X509(out, x509);
  std::fclose(out);
  out = std::fopen(key.c_str(), "w");
  PEM_write_PrivateKey(out, pair, nullptr, nullptr, 0, nullptr, nullptr);
  std::fclose(out);
  X509_free(x509);
  EVP_PKEY_free(pair);
}

class Served {
 public:
  explicit Served(httplib::Server& server)
      : server_(server), port_(server.bind_to_any_port("127.0.0.1")) {
    thread_ = std::thread([this] { server_.listen_after_bind(); });
    while (!server_.is_running()) std::this_thread::yield();
  }
  ~Served() {
    server_.stop();
    thread_.join();
  }
  int port() const { return port_; }

 private:
  httplib::Server& server_;
  int port_;
  std::thread thread_;
};

struct Pod {
  Pod() : folder(TempFolder()) { WriteText(folder + "/token", "secret\n"); }
  ~Pod() { std::filesystem::remove_all(folder); }
  ApiClientOptions Options(std::string url, absl::Duration patience = absl::Seconds(60)) const {
    return {.url = std::move(url),
            .ca_file = folder + "/ca.crt",
            .token_file = folder + "/token",
            .patience = patience};
  }
  std::string folder;
  ThreadRuntime runtime;
};

absl::StatusOr<ApiAnswer> Get(ApiClient& client, const std::string& path) {
  std::promise<absl::StatusOr<ApiAnswer>> answer;
  client.Get(path, [&answer](absl::StatusOr<ApiAnswer> got) { answer.set_value(std::move(got)); });
  return answer.get_future().get();
}

std::string Http(const Served& served) { return fmt::format("http://127.0.0.1:{}", served.port()); }

TEST_CASE("the pod's environment says where the API server is") {
  std::map<std::string, std::string> set;
  const auto environment = [&set](const char* name) { return set[name]; };
  CHECK(Message(InPod(environment).status()).find("this is not a pod") != std::string::npos);
  set = {{"KUBERNETES_SERVICE_HOST", "10.0.0.1"}, {"KUBERNETES_SERVICE_PORT", "443"}};
  CHECK(InPod(environment)->url == "https://10.0.0.1:443");
  set["KUBERNETES_SERVICE_HOST"] = "fd00::1";
  CHECK(InPod(environment)->url == "https://[fd00::1]:443");
}

TEST_CASE("a request carries the token of this moment") {
  httplib::Server server;
  server.Get("/who", [](const httplib::Request& request, httplib::Response& response) {
    response.set_content(request.get_header_value("Authorization"), "text/plain");
  });
  const Served served(server);
  Pod pod;
  ApiClient client(&pod.runtime, pod.Options(Http(served)));
  CHECK(Get(client, "/who")->body == "Bearer secret");
  WriteText(pod.folder + "/token", "fresh");
  CHECK(Get(client, "/who")->body == "Bearer fresh");
  std::filesystem::remove(pod.folder + "/token");
  CHECK(Message(Get(client, "/who").status()).find("/token cannot be read") != std::string::npos);
}

TEST_CASE("only the server that the cluster's authority vouches for is believed") {
  Pod pod;
  const std::string key = pod.folder + "/key";
  MakeCertificate(pod.folder + "/ca.crt", key);
  httplib::SSLServer server((pod.folder + "/ca.crt").c_str(), key.c_str());
  server.Get("/x", [](const httplib::Request&, httplib::Response& response) {
    response.set_content("yes", "text/plain");
  });
  const Served served(server);
  const std::string url = fmt::format("https://127.0.0.1:{}", served.port());
  {
    ApiClient client(&pod.runtime, pod.Options(url));
    const absl::StatusOr<ApiAnswer> answer = Get(client, "/x");
    INFO(Message(answer.status()));
    REQUIRE(answer.ok());
    CHECK(answer->body == "yes");
  }
  MakeCertificate(pod.folder + "/ca.crt", key);  // Another authority.
  ApiClient client(&pod.runtime, pod.Options(url));
  CHECK_FALSE(Get(client, "/x").ok());
}

TEST_CASE("a server that refuses, hangs or trickles is no answer, in bounded time") {
  std::atomic<bool> over = false;
  httplib::Server server;
  server.Get("/hangs", [&over](const httplib::Request&, httplib::Response&) {
    while (!over) std::this_thread::yield();
  });
  server.Get("/trickles", [&over](const httplib::Request&, httplib::Response& response) {
    response.set_chunked_content_provider("text/plain", [&over](size_t, httplib::DataSink& sink) {
      if (over) return false;
      std::this_thread::yield();
      return sink.write(" ", 1);
    });
  });
  Pod pod;
  {
    const Served served(server);
    // A bound below anything that the library bounds by itself: each of its steps gets a minute.
    for (const char* path : {"/hangs", "/trickles"}) {
      over = false;
      ApiClient client(&pod.runtime, pod.Options(Http(served), absl::Milliseconds(300)));
      const absl::StatusOr<ApiAnswer> answer = Get(client, path);
      CHECK_FALSE(answer.ok());
      CHECK(Message(answer.status()).find("the API server at") != std::string::npos);
      over = true;
    }
  }
  httplib::Server gone;
  std::string url;
  {
    const Served served(gone);
    url = Http(served);
  }
  ApiClient client(&pod.runtime, pod.Options(url));
  CHECK_FALSE(Get(client, "/x").ok());
}

TEST_CASE("what an answer for a StatefulSet says") {
  const auto read = [](int code, std::string body) {
    return ReadStatefulSet(ApiAnswer{.code = code, .body = std::move(body)});
  };
  CHECK(read(200, R"({"metadata":{},"spec":{"replicas":3}})") ==
        DesiredCount{.kind = Kind::kCount, .count = 3});
  CHECK(read(200, R"({"spec":{"replicas":0}})") == DesiredCount{.kind = Kind::kCount});
  CHECK(read(200, R"({"spec":{"replicas":2,"ordinals":{"start":5}}})") ==
        DesiredCount{.kind = Kind::kCount, .count = 2, .first = 5});
  // While it is being deleted the old count still stands there.
  CHECK(read(200, R"({"metadata":{"deletionTimestamp":"x"},"spec":{"replicas":3}})").kind ==
        Kind::kEnding);
  CHECK(read(404, R"({"message":"not found"})").kind == Kind::kEnding);
  CHECK(read(401, "").kind == Kind::kDenied);
  CHECK(read(403, R"({"message":"no"})") ==
        DesiredCount{.kind = Kind::kDenied, .reason = "HTTP 403: no"});
  for (const int code : {500, 503, 429, 302}) CHECK(read(code, "").kind == Kind::kUnknown);
  for (const char* body : {"", "[]", "3", "{}", R"({"spec":{}})", R"({"spec":{"replicas":-1}})",
                           R"({"spec":{"replicas":"3"}})", R"({"spec":{"replicas":100000}})",
                           R"({"spec":{"replicas":1.5}})", "{\"spec\":"}) {
    INFO(body);
    CHECK(read(200, body).kind == Kind::kUnknown);
  }
  CHECK(ReadStatefulSet(MakeStatus(absl::StatusCode::kUnavailable, "why")) ==
        DesiredCount{.kind = Kind::kUnknown, .reason = "why"});
}

TEST_CASE("a file holds one number, or the number is not known") {
  Pod pod;
  const std::string path = pod.folder + "/replicas";
  ReplicasFile file(&pod.runtime, path);
  const auto read = [&file] {
    std::promise<DesiredCount> count;
    file.Read([&count](DesiredCount got) { count.set_value(std::move(got)); });
    return count.get_future().get();
  };
  CHECK(read() == DesiredCount{.kind = Kind::kUnknown, .reason = path + " cannot be read"});
  WriteText(path, "5\n");
  CHECK(read() == DesiredCount{.kind = Kind::kCount, .count = 5});
  for (const char* text : {"", "x", "-1", "3 4", "99999"}) {
    WriteText(path, text);
    CHECK(read().kind == Kind::kUnknown);
  }
}

// A ConfigMap as the API server keeps it: a merge patch is taken only with the version that stands.
class ConfigMapServer {
 public:
  ConfigMapServer() {
    server_.Get(kPath,
                [this](const httplib::Request&, httplib::Response& response) { Answer(response); });
    server_.Patch(kPath, [this](const httplib::Request& request, httplib::Response& response) {
      CHECK(request.get_header_value("Content-Type") == "application/merge-patch+json");
      const nlohmann::json patch = nlohmann::json::parse(request.body);
      if (patch["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"]) {
        response.status = 409;
        return;
      }
      object.merge_patch(patch);
      object["metadata"]["resourceVersion"] = fmt::format("{}", ++version_);
      Answer(response);
    });
    served_.emplace(server_);
  }
  std::string url() const { return Http(*served_); }

  nlohmann::json object = {{"metadata", {{"resourceVersion", "1"}}}};
  int code = 200;

 private:
  static constexpr char kPath[] = "/api/v1/namespaces/prod/configmaps/kvd-cluster";
  void Answer(httplib::Response& response) const {
    response.status = code;
    response.set_content(object.dump(), "application/json");
  }
  int version_ = 1;
  httplib::Server server_;
  std::optional<Served> served_;
};

struct MarkerClient {
  MarkerClient(Pod& pod, const std::string& url)
      : client(&pod.runtime, pod.Options(url)), marker(&client, "prod", "kvd-cluster") {}
  absl::StatusOr<Marker> Read() {
    std::promise<absl::StatusOr<Marker>> got;
    marker.Read([&got](absl::StatusOr<Marker> read) { got.set_value(std::move(read)); });
    return got.get_future().get();
  }
  absl::Status Write(const Marker& value) {
    std::promise<absl::Status> got;
    marker.Write(value, [&got](absl::Status written) { got.set_value(std::move(written)); });
    return got.get_future().get();
  }
  ApiClient client;
  ConfigMapMarker marker;
};

TEST_CASE("the marker is changed only by who has seen it as it is") {
  Pod pod;
  ConfigMapServer server;
  MarkerClient one(pod, server.url());
  const Marker blank = *one.Read();
  CHECK(blank == Marker{.phase = Marker::Phase::kNone, .cluster_id = 0, .version = "1"});
  const Marker forming{
      .phase = Marker::Phase::kForming, .cluster_id = 0xfedcba9876543210, .version = "1"};
  REQUIRE(one.Write(forming).ok());
  CHECK(one.Write(forming).code() == absl::StatusCode::kAborted);
  Marker now = *one.Read();
  CHECK(now.phase == Marker::Phase::kForming);
  CHECK(now.cluster_id == 0xfedcba9876543210);
  now.phase = Marker::Phase::kFormed;
  REQUIRE(one.Write(now).ok());
  CHECK(one.Read()->phase == Marker::Phase::kFormed);
}

TEST_CASE("a marker that is missing or was tampered with is an error with a next step") {
  Pod pod;
  ConfigMapServer server;
  MarkerClient one(pod, server.url());
  server.object["data"] = {{"clusterId", "xyz"}, {"phase", "formed"}};
  CHECK(one.Read().status().code() == absl::StatusCode::kDataLoss);
  server.object["data"] = {{"clusterId", "1"}, {"phase", "done"}};
  CHECK(one.Read().status().code() == absl::StatusCode::kDataLoss);
  server.object["data"] = {{"clusterId", "1"}};
  CHECK(one.Read().status().code() == absl::StatusCode::kDataLoss);
  server.object.erase("data");
  server.code = 404;
  CHECK(one.Read().status().code() == absl::StatusCode::kNotFound);
  CHECK(Message(one.Read().status()).find("kubectl create configmap -n prod kvd-cluster") !=
        std::string::npos);
  server.code = 403;
  CHECK(one.Read().status().code() == absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace kv::kube

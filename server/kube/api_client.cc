#include "server/kube/api_client.h"

#include <fmt/format.h>
#include <httplib.h>

#include <chrono>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <utility>

#include "storage/mutex.h"
#include "storage/status.h"

namespace kv::kube {
namespace {

constexpr std::string_view kAccount = "/var/run/secrets/kubernetes.io/serviceaccount";
// A StatefulSet with all that people attach to one is a few tens of KiB; etcd holds 1.5 MiB.
constexpr size_t kAnswerBytesMax = size_t{4} << 20;

absl::StatusOr<std::string> ReadToken(const std::string& path) {
  std::optional<std::string> token = ReadPlatformFile(path);
  if (token && !token->empty()) return *std::move(token);
  return MakeStatus(absl::StatusCode::kUnavailable, "the token {} cannot be read", path);
}

}  // namespace

std::string Describe(const ApiAnswer& answer) {
  const nlohmann::json status = nlohmann::json::parse(answer.body, nullptr, false);
  const bool has =
      status.is_object() && status.contains("message") && status["message"].is_string();
  return fmt::format("HTTP {}{}", answer.code,
                     has ? fmt::format(": {}", status["message"].get<std::string>()) : "");
}

std::optional<std::string> ReadPlatformFile(const std::string& path) {
  std::ifstream in(path);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in) return std::nullopt;
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  return text;
}

absl::StatusOr<ApiClientOptions> InPod(
    const std::function<std::string(const char* variable)>& environment) {
  std::string host = environment("KUBERNETES_SERVICE_HOST");
  const std::string port = environment("KUBERNETES_SERVICE_PORT");
  if (host.empty() || port.empty()) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is "
                      "not a pod");
  }
  if (host.find(':') != std::string::npos) host = fmt::format("[{}]", host);
  return ApiClientOptions{.url = fmt::format("https://{}:{}", host, port),
                          .ca_file = fmt::format("{}/ca.crt", kAccount),
                          .token_file = fmt::format("{}/token", kAccount)};
}

class ApiClient::Running {
 public:
  Running(Runtime* runtime, ApiClientOptions options)
      : options_(std::move(options)),
        watch_loop_(runtime->NewLoop("kvd-kube-end")),
        loop_(runtime->NewLoop("kvd-kube")) {}

  ~Running() {
    {
      const MutexLock held(mutex_);
      closed_ = true;
      if (client_ != nullptr) client_->stop();
    }
    loop_->Stop();
    watch_loop_->Stop();
  }

  void Ask(std::string path, std::string patch, Done done) {
    loop_->Post([this, path = std::move(path), patch = std::move(patch),
                 done = std::move(done)]() mutable { std::move(done)(AskNow(path, patch)); });
  }

 private:
  absl::StatusOr<ApiAnswer> AskNow(const std::string& path, const std::string& patch) {
    ASSIGN_OR_RETURN(const std::string token, ReadToken(options_.token_file));
    httplib::Client client(options_.url);
    client.set_ca_cert_path(options_.ca_file);
    client.enable_server_certificate_verification(true);
    const auto patience = std::chrono::milliseconds(absl::ToInt64Milliseconds(options_.patience));
    client.set_connection_timeout(patience);
    client.set_read_timeout(patience);
    client.set_write_timeout(patience);
    client.set_follow_location(false);
    client.set_bearer_token_auth(token);
    if (!Begin(&client)) return Failed("this process is stopping");
    const httplib::Result result = Send(client, path, patch);
    const bool late = End();
    if (result) return ApiAnswer{.code = result->status, .body = result->body};
    if (late) {
      return Failed(fmt::format("no whole answer within {} ms",
                                absl::ToInt64Milliseconds(options_.patience)));
    }
    return Failed(httplib::to_string(result.error()));
  }

  static httplib::Result Send(httplib::Client& client, const std::string& path,
                              const std::string& patch) {
    if (!patch.empty()) return client.Patch(path, patch, "application/merge-patch+json");
    std::string body;
    httplib::Result result = client.Get(path, [&body](const char* data, size_t size) {
      if (body.size() + size > kAnswerBytesMax) return false;
      body.append(data, size);
      return true;
    });
    if (result) result->body = std::move(body);
    return result;
  }

  absl::Status Failed(std::string_view why) const {
    return MakeStatus(absl::StatusCode::kUnavailable, "the API server at {}: {}", options_.url,
                      why);
  }

  // The library's own bounds are for each step, so a server that trickles could hold a request for
  // ever: another loop ends it.
  bool Begin(httplib::Client* client) {
    const MutexLock held(mutex_);
    if (closed_) return false;
    client_ = client;
    ended_late_ = false;
    watch_loop_->PostAfter(options_.patience, [this, number = ++number_] {
      const MutexLock watched(mutex_);
      if (client_ == nullptr || number != number_) return;
      ended_late_ = true;
      client_->stop();
    });
    return true;
  }

  bool End() {
    const MutexLock held(mutex_);
    client_ = nullptr;
    return ended_late_;
  }

  const ApiClientOptions options_;
  Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_late_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t number_ ABSL_GUARDED_BY(mutex_) = 0;                // Of the request that runs.
  httplib::Client* client_ ABSL_GUARDED_BY(mutex_) = nullptr;  // Its; null: none runs.
  std::unique_ptr<Loop> watch_loop_;
  std::unique_ptr<Loop> loop_;
};

ApiClient::ApiClient(Runtime* runtime, ApiClientOptions options)
    : running_(std::make_unique<Running>(runtime, std::move(options))) {}
ApiClient::~ApiClient() = default;

void ApiClient::Get(std::string path, Done done) {
  running_->Ask(std::move(path), "", std::move(done));
}

void ApiClient::Patch(std::string path, std::string body, Done done) {
  running_->Ask(std::move(path), std::move(body), std::move(done));
}

}  // namespace kv::kube

// Requests to the API server of the Kubernetes cluster that this pod runs in.
//
// A request takes at most `patience` in all, whatever the server does: refuse, hang, or trickle a
// byte at a time. Requests are made one after the other on a thread of the client's own, so that
// nobody else ever waits for the network; an answer comes from that thread. Destroying the client
// ends the request that runs; what is not answered then is dropped.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/replica/runtime.h"

namespace kv::kube {

struct ApiClientOptions {
  std::string url;         // https://host:port; http:// in tests.
  std::string ca_file;     // Who may speak for the server.
  std::string token_file;  // Read anew for each request: it is replaced while the pod runs.
  absl::Duration patience = absl::Seconds(2);
};

// What a pod finds in its environment and its file system. An error says what is missing.
absl::StatusOr<ApiClientOptions> InPod(
    const std::function<std::string(const char* variable)>& environment);

struct ApiAnswer {
  int code = 0;  // HTTP's.
  std::string body;
};

// For a person: the code, and the message that the server puts beside it.
std::string Describe(const ApiAnswer& answer);

// A small file that the platform keeps, without the white space at its end; nothing if it cannot be
// read.
std::optional<std::string> ReadPlatformFile(const std::string& path);

class ApiClient {
 public:
  // `runtime` outlives the client.
  ApiClient(Runtime* runtime, ApiClientOptions options);
  ~ApiClient();
  ApiClient(const ApiClient&) = delete;
  ApiClient& operator=(const ApiClient&) = delete;

  // Any answer of the server is an answer. An error: there is none, and whether the request had an
  // effect is not known; it names the server and the reason.
  using Done = absl::AnyInvocable<void(absl::StatusOr<ApiAnswer>) &&>;
  void Get(std::string path, Done done);
  // A JSON merge patch (RFC 7396).
  void Patch(std::string path, std::string body, Done done);

 private:
  class Running;
  std::unique_ptr<Running> running_;
};

}  // namespace kv::kube

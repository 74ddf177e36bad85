#include "server/kube/desired.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "storage/status.h"

namespace kv::kube {
namespace {

using cluster::DesiredCount;

// More pods than a cluster may have members: the number is not meant.
constexpr uint64_t kReplicasMax = 1000;

DesiredCount Unknown(std::string reason) {
  return {.kind = DesiredCount::Kind::kUnknown, .reason = std::move(reason)};
}

DesiredCount ReadSpec(const std::string& body) {
  const nlohmann::json object = nlohmann::json::parse(body, nullptr, false);
  const auto number = [&object](const char* pointer) -> std::optional<uint64_t> {
    const nlohmann::json::json_pointer at(pointer);
    if (!object.contains(at) || !object[at].is_number_integer() || object[at] < 0) return {};
    return object[at].get<uint64_t>();
  };
  if (!object.is_object()) return Unknown("the API server's answer is no JSON object");
  if (object.contains(nlohmann::json::json_pointer("/metadata/deletionTimestamp"))) {
    return {.kind = DesiredCount::Kind::kEnding, .reason = "the StatefulSet is being deleted"};
  }
  const std::optional<uint64_t> replicas = number("/spec/replicas");
  if (!replicas || *replicas > kReplicasMax) {
    return Unknown("the API server's answer has no usable spec.replicas");
  }
  return {.kind = DesiredCount::Kind::kCount,
          .count = *replicas,
          .first = number("/spec/ordinals/start").value_or(0)};
}

DesiredCount ReadNumberFile(const std::string& path) {
  const std::optional<std::string> text = ReadPlatformFile(path);
  if (!text) return Unknown(fmt::format("{} cannot be read", path));
  uint64_t count = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), count);
  if (error != std::errc() || end != text->data() + text->size() || count > kReplicasMax) {
    return Unknown(fmt::format("{} must hold a whole number from 0 to {}", path, kReplicasMax));
  }
  return {.kind = DesiredCount::Kind::kCount, .count = count};
}

}  // namespace

DesiredCount ReadStatefulSet(const absl::StatusOr<ApiAnswer>& answer) {
  if (!answer.ok()) return Unknown(std::string(Message(answer.status())));
  switch (answer->code) {
    case 200:
      return ReadSpec(answer->body);
    case 404:
      return {.kind = DesiredCount::Kind::kEnding, .reason = "there is no such StatefulSet"};
    case 401:
    case 403:
      return {.kind = DesiredCount::Kind::kDenied, .reason = Describe(*answer)};
    default:
      return Unknown(fmt::format("the API server answers {}", Describe(*answer)));
  }
}

StatefulSetReplicas::StatefulSetReplicas(ApiClient* client, std::string_view name_space,
                                         std::string_view name)
    : client_(client),
      path_(fmt::format("/apis/apps/v1/namespaces/{}/statefulsets/{}", name_space, name)) {}

void StatefulSetReplicas::Read(absl::AnyInvocable<void(DesiredCount) &&> done) {
  client_->Get(path_, [done = std::move(done)](absl::StatusOr<ApiAnswer> answer) mutable {
    std::move(done)(ReadStatefulSet(answer));
  });
}

ReplicasFile::ReplicasFile(Runtime* runtime, std::string path)
    : path_(std::move(path)), loop_(runtime->NewLoop("kvd-desired")) {}

void ReplicasFile::Read(absl::AnyInvocable<void(DesiredCount) &&> done) {
  loop_->Post([this, done = std::move(done)]() mutable { std::move(done)(ReadNumberFile(path_)); });
}

}  // namespace kv::kube

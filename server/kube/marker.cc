#include "server/kube/marker.h"

#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>
#include <utility>

#include "storage/status.h"

namespace kv::kube {
namespace {

using cluster::Marker;

std::string Text(const nlohmann::json& object, const char* pointer) {
  const nlohmann::json::json_pointer at(pointer);
  return object.contains(at) && object[at].is_string() ? object[at].get<std::string>() : "";
}

absl::Status Unexpected(std::string_view name, const ApiAnswer& answer) {
  return MakeStatus(absl::StatusCode::kUnavailable, "the ConfigMap {}: {}", name, Describe(answer));
}

absl::StatusOr<Marker> Parse(std::string_view name, const std::string& body) {
  const nlohmann::json object = nlohmann::json::parse(body, nullptr, false);
  Marker marker;
  if (object.is_object()) marker.version = Text(object, "/metadata/resourceVersion");
  if (marker.version.empty()) {
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "the ConfigMap {}: the answer has no resourceVersion", name);
  }
  const std::string id = Text(object, "/data/clusterId");
  const std::string phase = Text(object, "/data/phase");
  if (id.empty() && phase.empty()) return marker;
  const auto [end, error] =
      std::from_chars(id.data(), id.data() + id.size(), marker.cluster_id, 16);
  const bool number = error == std::errc() && end == id.data() + id.size();
  if (!number || marker.cluster_id == 0 || (phase != "forming" && phase != "formed")) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the ConfigMap {} holds clusterId=\"{}\" phase=\"{}\", which nobody wrote; "
                      "restore what was there",
                      name, id, phase);
  }
  marker.phase = phase == "formed" ? Marker::Phase::kFormed : Marker::Phase::kForming;
  return marker;
}

}  // namespace

ConfigMapMarker::ConfigMapMarker(ApiClient* client, std::string_view name_space,
                                 std::string_view name)
    : client_(client),
      namespace_(name_space),
      name_(name),
      path_(fmt::format("/api/v1/namespaces/{}/configmaps/{}", name_space, name)) {}

absl::Status ConfigMapMarker::Missing() const {
  return MakeStatus(absl::StatusCode::kNotFound,
                    "the ConfigMap {} is missing, which says whether there was a cluster; next: "
                    "\"kubectl create configmap -n {} {}\" if there never was one, otherwise with "
                    "its clusterId and phase=formed",
                    name_, namespace_, name_);
}

void ConfigMapMarker::Read(absl::AnyInvocable<void(absl::StatusOr<Marker>) &&> done) {
  client_->Get(path_,
               [this, done = std::move(done)](const absl::StatusOr<ApiAnswer>& answer) mutable {
                 if (!answer.ok()) return std::move(done)(answer.status());
                 if (answer->code == 404) return std::move(done)(Missing());
                 if (answer->code != 200) return std::move(done)(Unexpected(name_, *answer));
                 std::move(done)(Parse(name_, answer->body));
               });
}

void ConfigMapMarker::Write(Marker marker, absl::AnyInvocable<void(absl::Status) &&> done) {
  const nlohmann::json patch = {
      {"metadata", {{"resourceVersion", marker.version}}},
      {"data",
       {{"clusterId", fmt::format("{:x}", marker.cluster_id)},
        {"phase", marker.phase == Marker::Phase::kFormed ? "formed" : "forming"}}}};
  client_->Patch(
      path_, patch.dump(),
      [this, done = std::move(done)](const absl::StatusOr<ApiAnswer>& answer) mutable {
        if (!answer.ok()) return std::move(done)(answer.status());
        switch (answer->code) {
          case 200:
            return std::move(done)(absl::OkStatus());
          case 409:
            return std::move(done)(MakeStatus(absl::StatusCode::kAborted,
                                              "the ConfigMap {} changed meanwhile", name_));
          case 404:
            return std::move(done)(Missing());
          default:
            return std::move(done)(Unexpected(name_, *answer));
        }
      });
}

}  // namespace kv::kube

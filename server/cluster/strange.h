// Bytes of whoever called: no peer perhaps, or one that speaks another language.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/cluster/founding.h"
#include "server/raft/members.h"
#include "storage/status.h"

namespace kv::cluster {

inline absl::Status Strange(std::string_view what) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}", what);
}

template <typename Message>
bool Parse(Message& message, std::string_view bytes) {
  return bytes.size() <= INT32_MAX &&
         message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// The members of which a grant makes its reader one.
template <typename Message>
absl::StatusOr<raft::Members> ReadMembers(std::string_view what, const Message& message) {
  std::optional<raft::Members> members = raft::DecodeMembers(message.members());
  if (members && message.cluster_id() != 0 && members->IsMember(message.member_id())) {
    return *std::move(members);
  }
  return Strange(fmt::format("an answer to {} that contradicts itself", what));
}

// Whether there is a protocol that both speak.
template <typename Message>
absl::Status CheckProtocol(std::string_view what, const Message& message) {
  if (message.protocol_max() >= kProtocolMin && message.protocol_min() <= kProtocolMax) {
    return absl::OkStatus();
  }
  return Strange(fmt::format("{} in protocol {}..{}; this build speaks {}..{}", what,
                             message.protocol_min(), message.protocol_max(), kProtocolMin,
                             kProtocolMax));
}

}  // namespace kv::cluster

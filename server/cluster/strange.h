// Bytes of whoever called: no peer perhaps, or one that speaks another language.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "server/cluster/founding.h"
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

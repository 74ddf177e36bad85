// The gRPC wire protocol over HTTP/2, as far as it is pure text and bytes: timeouts, percent
// encoding, the framing of messages.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace kv::api {

// `grpc-timeout`: at most eight digits and a unit.
std::optional<absl::Duration> ParseTimeout(std::string_view text);

// Whether a request with this content-type is gRPC with protobuf messages.
bool IsGrpc(std::string_view content_type);

// `grpc-message`: printable ASCII but '%' stays, the rest becomes %XX.
std::string PercentEncode(std::string_view text);

bool IsUtf8(std::string_view text);

// What stands before each message: not compressed, and its length.
constexpr size_t kPrefixBytes = 5;
using MessagePrefix = std::array<uint8_t, kPrefixBytes>;
MessagePrefix PrefixOf(size_t message_bytes);

// Cuts the bytes of one direction of a call into messages, however they arrive.
class MessageCutter {
 public:
  // Fails, once and for good, on a message that is compressed or longer than `bytes_max`.
  absl::Status Add(std::string_view bytes, size_t bytes_max);

  // Complete messages that were not taken yet, oldest first.
  size_t count() const { return messages_.size() - taken_; }
  std::string Take();
  // The stream may not end here.
  bool within_message() const { return prefix_bytes_ > 0; }
  // What all this costs in memory.
  size_t bytes() const { return bytes_ + message_.size(); }

 private:
  absl::Status BeginMessage(size_t bytes_max);

  MessagePrefix prefix_{};
  size_t prefix_bytes_ = 0;  // Of it that are there; back to 0 when the message is complete.
  size_t missing_ = 0;       // Of the message.
  std::string message_;
  std::vector<std::string> messages_;
  size_t taken_ = 0;  // Of them.
  size_t bytes_ = 0;  // Of those that were not taken.
};

}  // namespace kv::api

#include "server/api/grpc_wire.h"

#include <algorithm>
#include <charconv>
#include <utility>

#include "storage/status.h"

namespace kv::api {
namespace {

// Set aside before a byte of the message is there; more only as it comes in.
constexpr size_t kReservedMax = 16 << 10;

}  // namespace

std::optional<absl::Duration> ParseTimeout(std::string_view text) {
  constexpr size_t kDigitsMax = 8;
  if (text.size() < 2 || text.size() > kDigitsMax + 1) return std::nullopt;
  const char unit = text.back();
  text.remove_suffix(1);
  uint32_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  switch (unit) {
    case 'H':
      return absl::Hours(count);
    case 'M':
      return absl::Minutes(count);
    case 'S':
      return absl::Seconds(count);
    case 'm':
      return absl::Milliseconds(count);
    case 'u':
      return absl::Microseconds(count);
    case 'n':
      return absl::Nanoseconds(count);
    default:
      return std::nullopt;
  }
}

bool IsGrpc(std::string_view content_type) {
  constexpr std::string_view kGrpc = "application/grpc";
  constexpr std::string_view kProto = "+proto";
  if (!content_type.starts_with(kGrpc)) return false;
  content_type.remove_prefix(kGrpc.size());
  if (content_type.starts_with(kProto)) content_type.remove_prefix(kProto.size());
  return content_type.empty() || content_type.front() == ';';
}

std::string PercentEncode(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string encoded;
  encoded.reserve(text.size());
  for (const char c : text) {
    if (c >= ' ' && c <= '~' && c != '%') {
      encoded += c;
      continue;
    }
    const auto byte = static_cast<unsigned char>(c);
    encoded += '%';
    encoded += kHex[byte >> 4];
    encoded += kHex[byte & 0xF];
  }
  return encoded;
}

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (length == 0 || lead > 0xF4 || i + length > text.size()) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

MessagePrefix PrefixOf(size_t message_bytes) {
  return {0, static_cast<uint8_t>(message_bytes >> 24), static_cast<uint8_t>(message_bytes >> 16),
          static_cast<uint8_t>(message_bytes >> 8), static_cast<uint8_t>(message_bytes)};
}

absl::Status MessageCutter::Add(std::string_view bytes, size_t bytes_max) {
  while (!bytes.empty()) {
    if (prefix_bytes_ < kPrefixBytes) {
      prefix_[prefix_bytes_++] = static_cast<uint8_t>(bytes.front());
      bytes.remove_prefix(1);
      if (prefix_bytes_ < kPrefixBytes) continue;
      RETURN_IF_ERROR(BeginMessage(bytes_max));
    }
    const size_t part = std::min(missing_, bytes.size());
    message_.append(bytes.substr(0, part));
    bytes.remove_prefix(part);
    missing_ -= part;
    if (missing_ > 0) continue;
    bytes_ += message_.size() + sizeof(std::string);
    messages_.push_back(std::exchange(message_, {}));
    prefix_bytes_ = 0;
  }
  return absl::OkStatus();
}

std::string MessageCutter::Take() {
  std::string message = std::move(messages_[taken_]);
  bytes_ -= message.size() + sizeof(std::string);
  if (++taken_ == messages_.size()) {
    messages_.clear();
    taken_ = 0;
  }
  return message;
}

absl::Status MessageCutter::BeginMessage(size_t bytes_max) {
  if (prefix_[0] != 0) {
    return MakeStatus(absl::StatusCode::kInternal,
                      "a message is marked as compressed, but no grpc-encoding was agreed on");
  }
  for (size_t i = 1; i < kPrefixBytes; ++i) missing_ = missing_ << 8 | prefix_[i];
  if (missing_ > bytes_max) {
    return MakeStatus(absl::StatusCode::kResourceExhausted,
                      "received message larger than max ({} vs. {})", missing_, bytes_max);
  }
  message_.reserve(std::min(missing_, kReservedMax));
  return absl::OkStatus();
}

}  // namespace kv::api

#include "server/api/http2_conduct.h"

#include <algorithm>

namespace kv::api {
namespace {

constexpr int kStrikesMax = 2;

}  // namespace

bool Http2Conduct::Bears(std::string_view bytes, absl::Duration now) {
  patience_ = std::min<double>(
      kPatience, patience_ + absl::ToDoubleSeconds(now - counted_at_) * kPatiencePerSecond);
  counted_at_ = now;
  while (!bytes.empty()) {
    const size_t skipped = std::min(until_head_, bytes.size());
    bytes.remove_prefix(skipped);
    until_head_ -= skipped;
    if (bytes.empty()) break;
    head_[head_bytes_++] = static_cast<uint8_t>(bytes.front());
    bytes.remove_prefix(1);
    if (head_bytes_ < head_.size()) continue;
    head_bytes_ = 0;
    until_head_ = size_t{head_[0]} << 16 | size_t{head_[1]} << 8 | head_[2];
    if (IsIdle(head_[3], head_[4], until_head_)) patience_ -= 1;
  }
  return patience_ >= 0;
}

// Those that are not counted here are bounded by rules of their own.
bool Http2Conduct::IsIdle(uint8_t type, uint8_t flags, size_t length) {
  switch (type) {
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
    case NGHTTP2_PING:
    case NGHTTP2_GOAWAY:
    case NGHTTP2_WINDOW_UPDATE:
      return false;
    case NGHTTP2_DATA:
      return length == 0 && (flags & NGHTTP2_FLAG_END_STREAM) == 0;
    default:
      return true;
  }
}

bool Http2Conduct::BearsPing(absl::Duration least, absl::Duration now) {
  if (now - last_ping_ < least) ++strikes_;
  last_ping_ = now;
  return strikes_ <= kStrikesMax;
}

}  // namespace kv::api

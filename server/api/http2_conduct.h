// How a client behaves: whether it floods its connection with frames that cost it nothing, or pings
// more often than it may.
#pragma once

#include <nghttp2/nghttp2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/time/time.h"

namespace kv::api {

class Http2Conduct {
 public:
  // As many frames that only cost us something are borne at once, and a part of them a second:
  // resets, SETTINGS, PRIORITY, empty DATA, frames of no known kind. Clients whose deadlines expire
  // reset many streams, so it is a number of them; floods come in millions.
  static constexpr int kPatience = 4096;
  static constexpr int kPatiencePerSecond = 512;

  explicit Http2Conduct(absl::Duration now) : counted_at_(now) {}

  // The bytes of the connection as they come in. False: too many such frames. It reads the frames'
  // heads itself, because nghttp2 says nothing of some.
  bool Bears(std::string_view bytes, absl::Duration now);

  // By etcd's rules: a ping may come every `least`; the third that comes too early is one too many.
  bool BearsPing(absl::Duration least, absl::Duration now);
  void Forgive() { strikes_ = 0; }  // Whenever we send something.

 private:
  static bool IsIdle(uint8_t type, uint8_t flags, size_t length);

  double patience_ = kPatience;
  absl::Duration counted_at_;
  std::array<uint8_t, 9> head_{};
  size_t head_bytes_ = 0;
  size_t until_head_ = NGHTTP2_CLIENT_MAGIC_LEN;  // Bytes to skip: of the preface, of a payload.

  absl::Duration last_ping_ = -absl::InfiniteDuration();
  int strikes_ = 0;
};

}  // namespace kv::api

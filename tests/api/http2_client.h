// A client of the client port that can do everything wrong: frames are written by hand.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace kv::api {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// The bytes of one frame.
std::string Frame(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload);
// The preface and empty SETTINGS.
std::string Preface();
// A gRPC message on the wire.
std::string Framed(std::string_view message, bool compressed = false);
HeaderList CallHeaders(const std::string& path);
std::string Headers(int32_t stream, const HeaderList& headers, bool end = false);
std::string Data(int32_t stream, std::string_view bytes, bool end);
// HEADERS and DATA of one unary call.
std::string Unary(int32_t stream, const std::string& path, std::string_view message);
std::string Reset(int32_t stream);

// What came back on a stream.
struct Reply {
  std::map<std::string, std::string, std::less<>> headers;  // And trailers.
  std::string bytes;
  bool ended = false;
  std::optional<uint32_t> reset;

  std::string Status() const;  // "0", or "12 the message".
};

class Http2Client {
 public:
  explicit Http2Client(int port, bool greet = true);
  ~Http2Client();
  Http2Client(const Http2Client&) = delete;
  Http2Client& operator=(const Http2Client&) = delete;

  // False: the server has closed the connection.
  bool Send(std::string_view bytes);
  // Reads until the stream is over, or the connection.
  const Reply& Await(int32_t stream);
  // Reads one frame; false at the end of the connection, or when none comes for that long.
  bool ReadFrame(int milliseconds = 30'000);
  // Reads to the end of the connection.
  void Drain();

  Reply& reply(int32_t stream) { return replies_[stream]; }
  std::optional<uint32_t> goaway;
  std::string goaway_text;
  int pings = 0;
  int64_t window_given = 0;  // On any stream but 0.
  bool closed = false;

 private:
  bool ReadBytes(size_t count, std::string* bytes);
  void TakeHeaders(std::string_view block, Reply* reply);

  int fd_;
  bool settled_ = false;
  nghttp2_hd_inflater* inflater_ = nullptr;
  std::map<int32_t, Reply> replies_;
};

}  // namespace kv::api

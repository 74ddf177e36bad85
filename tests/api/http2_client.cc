#include "tests/api/http2_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>

namespace kv::api {
namespace {

uint32_t Number(std::string_view bytes) {
  uint32_t number = 0;
  for (const char c : bytes) number = number << 8 | static_cast<uint8_t>(c);
  return number;
}
std::string BigEndian(uint32_t number, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; --i) text += static_cast<char>(number >> (8 * i));
  return text;
}

// HPACK's number with a prefix of seven bits, then the text as it is.
std::string Literal(std::string_view text) {
  std::string out;
  if (text.size() < 127) {
    out += static_cast<char>(text.size());
  } else {
    out += '\x7f';
    size_t rest = text.size() - 127;
    for (; rest >= 128; rest >>= 7) out += static_cast<char>(rest | 0x80);
    out += static_cast<char>(rest);
  }
  return out.append(text);
}

}  // namespace

std::string Frame(uint8_t type, uint8_t flags, int32_t stream, std::string_view payload) {
  std::string frame = BigEndian(static_cast<uint32_t>(payload.size()), 3);
  frame += static_cast<char>(type);
  frame += static_cast<char>(flags);
  frame += BigEndian(static_cast<uint32_t>(stream), 4);
  return frame.append(payload);
}

std::string Preface() {
  return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + Frame(NGHTTP2_SETTINGS, 0, 0, "");
}

std::string Framed(std::string_view message, bool compressed) {
  std::string bytes(1, compressed ? '\1' : '\0');
  bytes += BigEndian(static_cast<uint32_t>(message.size()), 4);
  return bytes.append(message);
}

HeaderList CallHeaders(const std::string& path) {
  return {{":method", "POST"},    {":scheme", "http"}, {":path", path},
          {":authority", "test"}, {"te", "trailers"},  {"content-type", "application/grpc"}};
}

std::string Headers(int32_t stream, const HeaderList& headers, bool end) {
  std::string block;
  for (const auto& [name, value] : headers) {
    block += '\0';
    block += Literal(name) + Literal(value);
  }
  const int flags = NGHTTP2_FLAG_END_HEADERS | (end ? NGHTTP2_FLAG_END_STREAM : 0);
  return Frame(NGHTTP2_HEADERS, static_cast<uint8_t>(flags), stream, block);
}

std::string Data(int32_t stream, std::string_view bytes, bool end) {
  std::string frames;
  constexpr size_t kFrameMax = 16384;
  for (; bytes.size() > kFrameMax; bytes.remove_prefix(kFrameMax)) {
    frames += Frame(NGHTTP2_DATA, 0, stream, bytes.substr(0, kFrameMax));
  }
  return frames + Frame(NGHTTP2_DATA, end ? NGHTTP2_FLAG_END_STREAM : 0, stream, bytes);
}

std::string Unary(int32_t stream, const std::string& path, std::string_view message) {
  return Headers(stream, CallHeaders(path)) + Data(stream, Framed(message), true);
}

std::string Reset(int32_t stream) {
  return Frame(NGHTTP2_RST_STREAM, 0, stream, BigEndian(NGHTTP2_CANCEL, 4));
}

std::string Reply::Status() const {
  const auto status = headers.find("grpc-status");
  if (status == headers.end()) return "none";
  const auto message = headers.find("grpc-message");
  return message == headers.end() ? status->second : status->second + " " + message->second;
}

Http2Client::Http2Client(int port, bool greet) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
  nghttp2_hd_inflate_new(&inflater_);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
    throw std::runtime_error(fmt::format("cannot connect to port {}", port));
  }
  if (!greet) return;
  // Until its SETTINGS are acknowledged a server holds a client to HTTP/2's own small windows.
  Send(Preface());
  while (!settled_ && ReadFrame()) {
  }
}

Http2Client::~Http2Client() {
  nghttp2_hd_inflate_del(inflater_);
  close(fd_);
}

bool Http2Client::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

bool Http2Client::ReadBytes(size_t count, std::string* bytes) {
  bytes->resize(count);
  for (size_t have = 0; have < count;) {
    const ssize_t got = recv(fd_, bytes->data() + have, count - have, 0);
    if (got <= 0) {
      closed = true;
      return false;
    }
    have += static_cast<size_t>(got);
  }
  return true;
}

bool Http2Client::ReadFrame(int milliseconds) {
  pollfd ready{fd_, POLLIN, 0};
  if (poll(&ready, 1, milliseconds) <= 0) return false;
  std::string head;
  std::string payload;
  if (!ReadBytes(9, &head) || !ReadBytes(Number(head.substr(0, 3)), &payload)) return false;
  const auto type = static_cast<uint8_t>(head[3]);
  const auto flags = static_cast<uint8_t>(head[4]);
  const auto stream = static_cast<int32_t>(Number(head.substr(5, 4)));
  if (type == NGHTTP2_SETTINGS && (flags & NGHTTP2_FLAG_ACK) == 0) {
    settled_ = Send(Frame(NGHTTP2_SETTINGS, NGHTTP2_FLAG_ACK, 0, ""));
  }
  if (type == NGHTTP2_GOAWAY) {
    goaway = Number(payload.substr(4, 4));
    goaway_text = payload.substr(8);
  }
  if (type == NGHTTP2_PING && (flags & NGHTTP2_FLAG_ACK) == 0) ++pings;
  if (type == NGHTTP2_WINDOW_UPDATE && stream != 0) window_given += Number(payload);
  if (stream == 0) return true;
  Reply& reply = replies_[stream];
  if (type == NGHTTP2_HEADERS) TakeHeaders(payload, &reply);
  if (type == NGHTTP2_DATA) reply.bytes += payload;
  if (type == NGHTTP2_RST_STREAM) reply.reset = Number(payload);
  if (type <= NGHTTP2_HEADERS && (flags & NGHTTP2_FLAG_END_STREAM) != 0) reply.ended = true;
  return true;
}

void Http2Client::TakeHeaders(std::string_view block, Reply* reply) {
  const auto* at = reinterpret_cast<const uint8_t*>(block.data());
  size_t left = block.size();
  for (;;) {
    nghttp2_nv header{};
    int flags = 0;
    const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &header, &flags, at, left, 1);
    if (used < 0) throw std::runtime_error("the server's headers cannot be decoded");
    at += used;
    left -= static_cast<size_t>(used);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0) {
      reply->headers[std::string(reinterpret_cast<char*>(header.name), header.namelen)] =
          std::string(reinterpret_cast<char*>(header.value), header.valuelen);
    }
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) break;
  }
  nghttp2_hd_inflate_end_headers(inflater_);
}

const Reply& Http2Client::Await(int32_t stream) {
  while (!replies_[stream].ended && !replies_[stream].reset && ReadFrame()) {
  }
  return replies_[stream];
}

void Http2Client::Drain() {
  while (ReadFrame()) {
  }
}

}  // namespace kv::api

#include "server/api/http2_connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "storage/check.h"
#include "storage/status.h"

namespace kv::api {

using absl::StatusCode;

namespace {

constexpr int32_t kWindowBytes = 1 << 20;  // Of a stream, and of the connection.
constexpr size_t kHeaderListBytesMax = 8 << 10;
constexpr size_t kHeaderOverhead = 32;     // As HTTP/2 counts a header list.
constexpr int kReadsMax = 4;               // Of one connection in one turn.
constexpr size_t kSendBytesMax = 1 << 20;  // Likewise.
constexpr size_t kQueuedFramesMax = 10'000;
constexpr absl::Duration kClosingTime = absl::Seconds(1);

// Without calls, as etcd's server has it.
constexpr absl::Duration kIdlePingTime = absl::Hours(2);

constexpr std::string_view kContentType = "application/grpc";

std::string_view Text(const uint8_t* bytes, size_t size) {
  return {reinterpret_cast<const char*>(bytes), size};
}

// Names are literals and need no copy; values are copied unless they are literals too.
nghttp2_nv Header(std::string_view name, std::string_view value, uint8_t flags) {
  return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          static_cast<uint8_t>(flags | NGHTTP2_NV_FLAG_NO_COPY_NAME)};
}
nghttp2_nv Literal(std::string_view name, std::string_view value) {
  return Header(name, value, NGHTTP2_NV_FLAG_NO_COPY_VALUE);
}

std::string_view CodeText(StatusCode code) {
  constexpr std::array<std::string_view, 17> kCodes = {
      "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16"};
  const auto number = static_cast<size_t>(code);
  return number < kCodes.size() ? kCodes[number] : "2";
}

// grpc-status and, where there is one, grpc-message; which is no use in a table of recent headers.
class StatusHeaders {
 public:
  explicit StatusHeaders(const absl::Status& status)
      : message_(PercentEncode(Message(status))),
        headers_{Literal("grpc-status", CodeText(status.code())),
                 Header("grpc-message", message_, NGHTTP2_NV_FLAG_NO_INDEX)},
        count_(message_.empty() ? 1 : 2) {}
  StatusHeaders(const StatusHeaders&) = delete;
  StatusHeaders& operator=(const StatusHeaders&) = delete;
  const nghttp2_nv* data() const { return headers_.data(); }
  size_t size() const { return count_; }

 private:
  const std::string message_;
  const std::array<nghttp2_nv, 2> headers_;
  const size_t count_;
};

}  // namespace

// What nghttp2 calls; `self` is the connection, a stream's own pointer is its call. Null: refused,
// or closed.
struct Http2Callbacks {
  static Http2Connection& Self(void* self) { return *static_cast<Http2Connection*>(self); }
  static Http2Call* CallOf(nghttp2_session* session, int32_t stream) {
    return static_cast<Http2Call*>(nghttp2_session_get_stream_user_data(session, stream));
  }

  static int OnBeginHeaders(nghttp2_session*, const nghttp2_frame* frame, void* self) {
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) Self(self).OnBeginHeaders(frame->hd.stream_id);
    return 0;
  }
  // NOLINTNEXTLINE(readability-function-size): as nghttp2 calls it.
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void*) {
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) return 0;
    if (Http2Call* call = CallOf(session, frame->hd.stream_id)) {
      Http2Connection::OnHeader(*call, Text(name, name_size), Text(value, value_size));
    }
    return 0;
  }
  static int OnFrame(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
    if (frame->hd.type == NGHTTP2_SETTINGS) Self(self).greeted_ = true;
    if (frame->hd.type == NGHTTP2_PING) {
      if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) Self(self).OnPing();
    }
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA) return 0;
    Http2Call* call = CallOf(session, frame->hd.stream_id);
    if (call == nullptr) return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
      Self(self).OnHeaders(*call);
    }
    if ((frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) Self(self).OnEndOfStream(*call);
    return 0;
  }
  static int OnData(nghttp2_session* session, uint8_t, int32_t stream, const uint8_t* bytes,
                    size_t size, void* self) {
    nghttp2_session_consume_connection(session, size);
    if (Http2Call* call = CallOf(session, stream)) {
      call->owed_bytes_ += size;
      Self(self).OnData(*call, Text(bytes, size));
      Self(self).GiveWindowBack(*call);
    }
    return 0;
  }
  static int OnStreamClose(nghttp2_session* session, int32_t stream, uint32_t, void* self) {
    if (Http2Call* call = CallOf(session, stream)) {
      nghttp2_session_set_stream_user_data(session, stream, nullptr);
      Self(self).OnStreamClose(*call);
    }
    return 0;
  }
  static int OnFrameSent(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
    if (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) {
      Self(self).conduct_.Forgive();
    }
    // A client that still sends while its call is over is told to stop.
    if (frame->hd.type == NGHTTP2_HEADERS && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0) {
      const Http2Call* call = CallOf(session, frame->hd.stream_id);
      if (call != nullptr && !call->in_closed_) {
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame->hd.stream_id,
                                  NGHTTP2_NO_ERROR);
      }
    }
    return 0;
  }

  static ssize_t Put(nghttp2_session*, const uint8_t* bytes, size_t size, int, void* self) {
    std::vector<uint8_t>& out = Self(self).loop_->out_buffer();
    if (out.size() + size > out.capacity()) return NGHTTP2_ERR_WOULDBLOCK;
    out.insert(out.end(), bytes, bytes + size);
    return static_cast<ssize_t>(size);
  }
  // How much of the message goes into the next frame; PutData copies it there.
  // NOLINTNEXTLINE(readability-function-size): as nghttp2 calls it.
  static ssize_t NextData(nghttp2_session* session, int32_t stream, uint8_t*, size_t room,
                          uint32_t* flags, nghttp2_data_source*, void*) {
    Http2Call* found = CallOf(session, stream);
    if (found == nullptr) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    Http2Call& call = *found;
    size_t part = 0;
    size_t left = 0;
    if (call.out_.message) {
      left = kPrefixBytes + call.out_.message->size() - call.sent_bytes_;
      part = std::min(left, room);
      call.framed_bytes_ = part;
      *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    } else if (!call.out_.end) {
      return NGHTTP2_ERR_DEFERRED;
    }
    if (part == left && call.out_.end) {
      *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
      const StatusHeaders status(*call.out_.end);
      nghttp2_submit_trailer(session, stream, status.data(), status.size());
    }
    return static_cast<ssize_t>(part);
  }
  static int PutData(nghttp2_session* session, nghttp2_frame* frame, const uint8_t* head,
                     size_t size, nghttp2_data_source*, void* self) {
    constexpr size_t kFrameHeadBytes = 9;
    Http2Call* found = CallOf(session, frame->hd.stream_id);
    if (found == nullptr || !found->out_.message) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    Http2Call& call = *found;
    std::vector<uint8_t>& out = Self(self).loop_->out_buffer();
    if (out.size() + kFrameHeadBytes + size > out.capacity()) return NGHTTP2_ERR_WOULDBLOCK;
    out.insert(out.end(), head, head + kFrameHeadBytes);
    call.framed_bytes_ = 0;
    const std::string& message = *call.out_.message;
    if (call.sent_bytes_ < kPrefixBytes) {
      const MessagePrefix prefix = PrefixOf(message.size());
      const size_t part = std::min(size, kPrefixBytes - call.sent_bytes_);
      const auto from = prefix.begin() + static_cast<std::ptrdiff_t>(call.sent_bytes_);
      out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(part));
      call.sent_bytes_ += part;
      size -= part;
    }
    const auto* from =
        reinterpret_cast<const uint8_t*>(message.data()) + (call.sent_bytes_ - kPrefixBytes);
    if (size > 0) out.insert(out.end(), from, from + size);
    call.sent_bytes_ += size;
    if (call.sent_bytes_ == kPrefixBytes + message.size()) Self(self).MessageSent(call);
    return 0;
  }

  static nghttp2_session_callbacks* Table() {
    static nghttp2_session_callbacks* const table = [] {
      nghttp2_session_callbacks* made = nullptr;
      nghttp2_session_callbacks_new(&made);
      nghttp2_session_callbacks_set_on_begin_headers_callback(made, OnBeginHeaders);
      nghttp2_session_callbacks_set_on_header_callback(made, OnHeader);
      nghttp2_session_callbacks_set_on_frame_recv_callback(made, OnFrame);
      nghttp2_session_callbacks_set_on_data_chunk_recv_callback(made, OnData);
      nghttp2_session_callbacks_set_on_stream_close_callback(made, OnStreamClose);
      nghttp2_session_callbacks_set_on_frame_send_callback(made, OnFrameSent);
      nghttp2_session_callbacks_set_send_callback(made, Put);
      nghttp2_session_callbacks_set_send_data_callback(made, PutData);
      return made;
    }();
    return table;
  }
  static nghttp2_option* Options() {
    static nghttp2_option* const options = [] {
      nghttp2_option* made = nullptr;
      nghttp2_option_new(&made);
      // The window is given back when a service has taken the message.
      nghttp2_option_set_no_auto_window_update(made, 1);
      nghttp2_option_set_no_closed_streams(made, 1);
      // Past the patience of Http2Conduct, which ends a flood with a reason.
      nghttp2_option_set_max_outbound_ack(made, size_t{2} * Http2Conduct::kPatience);
      nghttp2_option_set_max_settings(made, 32);
      // Http2Conduct is the judge of resets: it bears more of them, and the client is told.
      nghttp2_option_set_stream_reset_rate_limit(made, uint64_t{1} << 32, uint64_t{1} << 32);
      return made;
    }();
    return options;
  }
};

Http2Connection::Http2Connection(Http2Loop* loop, Descriptor socket)
    : loop_(loop),
      socket_(std::move(socket)),
      events_(EPOLLIN),
      opened_(loop->now()),
      heard_(loop->now()),
      conduct_(loop->now()) {}

Http2Connection::~Http2Connection() { nghttp2_session_del(session_); }

void Http2Connection::Open() {
  KV_CHECK(nghttp2_session_server_new2(&session_, Http2Callbacks::Table(), this,
                                       Http2Callbacks::Options()) == 0,
           "no memory for a connection");
  const std::array<nghttp2_settings_entry, 3> settings = {
      {{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, loop_->options().concurrent_streams_max},
       {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kWindowBytes)},
       {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<uint32_t>(kHeaderListBytesMax)}}};
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kWindowBytes);
}

void Http2Connection::OnEvent(uint32_t events) {
  if (stage_ == Stage::kOver) return;
  if ((events & EPOLLERR) != 0) return End();
  if ((events & (EPOLLIN | EPOLLHUP)) != 0) Receive();
  if ((events & EPOLLOUT) != 0) SendSoon();
}

void Http2Connection::Receive() {
  std::vector<uint8_t>& buffer = loop_->in_buffer();
  for (int reads = 0; reads < kReadsMax && stage_ != Stage::kOver; ++reads) {
    const ssize_t got = recv(fd(), buffer.data(), buffer.size(), 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) return End();
    if (stage_ == Stage::kClosing) continue;
    if (session_ == nullptr) Open();
    heard_ = loop_->now();
    SendSoon();
    if (!conduct_.Bears(Text(buffer.data(), static_cast<size_t>(got)), heard_)) {
      Dismiss("too many resets or control frames");
    }
    if (close_by_ < absl::InfiniteDuration()) continue;  // It was dismissed.
    if (nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(got)) < 0) {
      return End();  // No HTTP/2, or what nghttp2 itself takes for a flood.
    }
    if (static_cast<size_t>(got) < buffer.size()) return;
  }
}

void Http2Connection::SendSoon() {
  if (std::exchange(sending_soon_, true)) return;
  loop_->SendSoon(this);
}

bool Http2Connection::Send() {
  sending_soon_ = false;
  if (stage_ != Stage::kOpen || session_ == nullptr) return true;
  std::vector<uint8_t>& out = loop_->out_buffer();
  size_t total = 0;
  bool blocked = false;
  while (!blocked && total < kSendBytesMax) {
    out.clear();
    if (unsent_.empty() && nghttp2_session_send(session_) != 0) {
      End();
      return true;
    }
    const std::string_view bytes =
        unsent_.empty() ? Text(out.data(), out.size()) : std::string_view(unsent_);
    if (bytes.empty()) break;
    const ssize_t sent = send(fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
      End();
      return true;
    }
    const auto taken = static_cast<size_t>(std::max<ssize_t>(sent, 0));
    total += taken;
    blocked = taken < bytes.size();
    unsent_ = std::string(bytes.substr(taken));
  }
  // A client that does not take what it asked for is not listened to for ever.
  const bool deaf = blocked && nghttp2_session_get_outbound_queue_size(session_) > kQueuedFramesMax;
  const uint32_t events = (deaf ? 0U : EPOLLIN) | (blocked ? EPOLLOUT : 0U);
  if (events != std::exchange(events_, events)) loop_->SetEvents(this, events);
  const bool done = (going_away_ && calls_.empty()) || nghttp2_session_want_read(session_) == 0;
  if (done && unsent_.empty() && nghttp2_session_want_write(session_) == 0) BeginClosing();
  sending_soon_ = !blocked && total >= kSendBytesMax;
  return !sending_soon_;
}

void Http2Connection::BeginClosing() {
  stage_ = Stage::kClosing;
  close_by_ = loop_->now() + kClosingTime;
  shutdown(fd(), SHUT_WR);
}

void Http2Connection::End() {
  if (stage_ == Stage::kOver) return;
  stage_ = Stage::kOver;
  shutdown(fd(), SHUT_RDWR);
  LetGo();
  loop_->Bury();
}

void Http2Connection::GoAway() {
  if (stage_ != Stage::kOpen || std::exchange(going_away_, true)) return;
  if (session_ == nullptr) return End();
  nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE,
                        nghttp2_session_get_last_proc_stream_id(session_), NGHTTP2_NO_ERROR,
                        nullptr, 0);
  SendSoon();
}

void Http2Connection::Dismiss(std::string_view reason) {
  if (close_by_ < absl::InfiniteDuration()) return;
  going_away_ = true;
  close_by_ = loop_->now() + kClosingTime;
  nghttp2_submit_goaway(
      session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
      NGHTTP2_ENHANCE_YOUR_CALM, reinterpret_cast<const uint8_t*>(reason.data()), reason.size());
  LetGo();
  SendSoon();
}

void Http2Connection::Tick() {
  const absl::Duration now = loop_->now();
  const Http2Options& options = loop_->options();
  if (now >= close_by_) return End();
  if (stage_ != Stage::kOpen) return;
  if (!greeted_) {
    if (now >= opened_ + options.handshake_timeout) End();
    return;
  }
  // From the back: an end may remove its call.
  for (size_t i = calls_.size(); i-- > 0;) {
    Http2Call& call = *calls_[i];
    if (!call.open_ || call.ended_ || !call.due_ || now < *call.due_) continue;
    Fail(call, MakeStatus(StatusCode::kDeadlineExceeded, "the call's deadline is over"));
  }
  if (heard_ > pinged_) awaits_pong_ = false;
  if (awaits_pong_) {
    if (now >= pinged_ + options.keepalive_timeout) End();
  } else if (now >= heard_ + options.keepalive_interval) {
    nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
    pinged_ = now;
    awaits_pong_ = true;
    SendSoon();
  }
}

void Http2Connection::OnPing() {
  const absl::Duration least = calls_.empty() ? kIdlePingTime : loop_->options().keepalive_min_time;
  if (conduct_.BearsPing(least, loop_->now())) return;
  Dismiss("too_many_pings");
}

void Http2Connection::OnBeginHeaders(int32_t stream) {
  if (going_away_) return;
  // A client that resets its streams does not get more work done at a time than others.
  if (begun_ >= loop_->options().concurrent_streams_max) {
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream, NGHTTP2_REFUSED_STREAM);
    return;
  }
  auto call = std::make_shared<Http2Call>(loop_, loop_->mailbox(), this, stream);
  call->slot_ = calls_.size();
  nghttp2_session_set_stream_user_data(session_, stream, call.get());
  loop_->Recount(*call);
  calls_.push_back(std::move(call));
}

void Http2Connection::OnHeader(Http2Call& call, std::string_view name, std::string_view value) {
  call.header_bytes_ += name.size() + value.size() + kHeaderOverhead;
  if (call.header_bytes_ > kHeaderListBytesMax) return;  // Refused in OnHeaders.
  if (name == ":path") {
    const auto found = call.loop_->methods().find(value);
    if (found != call.loop_->methods().end()) {
      call.method_ = &found->second;
    } else {
      call.refusal_ = MakeStatus(StatusCode::kUnimplemented, "unknown method {}", value);
    }
  } else if (name == ":method") {
    call.is_post_ = value == "POST";
  } else if (name == "content-type") {
    call.is_grpc_ = IsGrpc(value);
  } else if (name == "grpc-timeout") {
    if (const auto timeout = ParseTimeout(value)) {
      call.call_.deadline = *timeout;
      call.due_ = call.loop_->now() + *timeout;
    } else {
      call.refusal_ = MakeStatus(StatusCode::kInternal, "malformed grpc-timeout: {}", value);
    }
  } else if (name == "grpc-encoding") {
    call.is_encoded_ = value != "identity";
  } else if (name == "hasleader") {
    call.call_.require_leader = value == "true";
  } else if (name == "token") {
    call.call_.token = value;
  } else if (name == "client-api-version") {
    call.call_.api_version_ok = IsUtf8(value);
  }
}

void Http2Connection::OnHeaders(Http2Call& call) {
  if (call.header_bytes_ > kHeaderListBytesMax) {
    return Fail(call, MakeStatus(StatusCode::kResourceExhausted,
                                 "the headers of the request are larger than {} bytes",
                                 kHeaderListBytesMax));
  }
  if (!call.is_post_) return SubmitHttpError(call, "405");
  if (!call.is_grpc_) return SubmitHttpError(call, "415");
  if (!call.refusal_.ok()) return Fail(call, call.refusal_);
  if (call.is_encoded_) {
    return Fail(call, MakeStatus(StatusCode::kUnimplemented,
                                 "this server takes messages without compression only"));
  }
  if (loop_->full()) {
    return Fail(call, MakeStatus(StatusCode::kResourceExhausted,
                                 "the memory for requests and answers is in use; try again"));
  }
  if (call.method_->takes_stream) Begin(call, {});
}

void Http2Connection::OnData(Http2Call& call, std::string_view bytes) {
  if (call.ended_) return;
  if (loop_->full()) {
    return Fail(call, MakeStatus(StatusCode::kResourceExhausted,
                                 "the memory for requests and answers is in use; try again"));
  }
  absl::Status status = call.in_.Add(bytes, loop_->options().message_bytes_max);
  if (status.ok() && !call.method_->takes_stream &&
      call.in_.count() + (call.in_.within_message() ? 1 : 0) > 1) {
    status = MakeStatus(StatusCode::kUnimplemented, "this method takes one message, not several");
  }
  if (!status.ok()) return Fail(call, status);
  if (call.next_ && call.in_.count() > 0) {
    loop_->Defer([next = std::exchange(call.next_, nullptr), message = call.in_.Take()]() mutable {
      std::move(next)(std::move(message));
    });
  }
  loop_->Recount(call);
}

void Http2Connection::OnEndOfStream(Http2Call& call) {
  call.in_closed_ = true;
  if (call.ended_) return;
  if (call.in_.within_message()) {
    Fail(call, MakeStatus(StatusCode::kInternal, "the request ends within a message"));
  } else if (call.method_->takes_stream) {
    if (!call.next_) return;
    loop_->Defer(
        [next = std::exchange(call.next_, nullptr)]() mutable { std::move(next)(std::nullopt); });
  } else if (call.in_.count() == 0) {
    Fail(call, MakeStatus(StatusCode::kUnimplemented, "this method takes one message, not none"));
  } else {
    Begin(call, call.in_.Take());
  }
}

void Http2Connection::Begin(Http2Call& call, std::string message) {
  call.begun_ = true;
  ++begun_;
  loop_->CallBegun();
  loop_->Recount(call);
  call.method_->begin(call.shared_from_this(), std::move(message));
}

void Http2Connection::Deliver(Http2Call& call, Outgoing outgoing) {
  const bool ends = outgoing.end.has_value();
  if (ends) {
    call.begun_ = false;
    call.next_ = nullptr;
    call.gone_ = nullptr;
    --begun_;
    loop_->CallEnded();
  }
  if (!call.open_ || call.ended_) {  // By the client, or by us.
    if (outgoing.ready) {
      loop_->Defer([ready = std::move(outgoing.ready)]() mutable { std::move(ready)(false); });
    }
    loop_->Recount(call);
    if (ends && !call.open_) Remove(call);
    return;
  }
  call.ended_ = ends;
  if (outgoing.message) {
    KV_CHECK(!call.out_.message, "a message was written before the last one was taken");
    call.out_ = std::move(outgoing);
    call.sent_bytes_ = 0;
    SubmitHeaders(call);
  } else if (ends) {
    SubmitEnd(call, *outgoing.end);
  }
  loop_->Recount(call);
  SendSoon();
}

void Http2Connection::SubmitHeaders(Http2Call& call) {
  if (std::exchange(call.headers_sent_, true)) {
    nghttp2_session_resume_data(session_, call.stream_);
    return;
  }
  const std::array<nghttp2_nv, 2> headers = {Literal(":status", "200"),
                                             Literal("content-type", kContentType)};
  nghttp2_data_provider body{};
  body.read_callback = Http2Callbacks::NextData;
  nghttp2_submit_response(session_, call.stream_, headers.data(), headers.size(), &body);
}

void Http2Connection::SubmitEnd(Http2Call& call, const absl::Status& status) {
  call.out_.end = status;
  if (call.headers_sent_) {
    nghttp2_session_resume_data(session_, call.stream_);
    return;
  }
  call.headers_sent_ = true;
  const StatusHeaders end(status);
  std::vector<nghttp2_nv> headers = {Literal(":status", "200"),
                                     Literal("content-type", kContentType)};
  if (call.is_encoded_) headers.push_back(Literal("grpc-accept-encoding", "identity"));
  headers.insert(headers.end(), end.data(), end.data() + end.size());
  nghttp2_submit_response(session_, call.stream_, headers.data(), headers.size(), nullptr);
}

// Who asked does not speak gRPC and could not read our statuses.
void Http2Connection::SubmitHttpError(Http2Call& call, std::string_view code) {
  call.ended_ = true;
  const nghttp2_nv header = Literal(":status", code);
  nghttp2_submit_response(session_, call.stream_, &header, 1, nullptr);
}

void Http2Connection::Fail(Http2Call& call, const absl::Status& status) {
  if (std::exchange(call.ended_, true)) return;
  const bool torn = call.sent_bytes_ > 0 || call.framed_bytes_ > 0;
  Sever(call);
  if (torn) {
    // Half a message is on its way, after which no status can follow.
    nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, call.stream_, NGHTTP2_CANCEL);
  } else {
    SubmitEnd(call, status);
  }
  loop_->Recount(call);
  SendSoon();
}

void Http2Connection::Sever(Http2Call& call) {
  if (call.out_.ready) {
    loop_->Defer([ready = std::move(call.out_.ready)]() mutable { std::move(ready)(false); });
  }
  call.out_ = {};
  call.in_ = {};
  if (call.next_) {
    loop_->Defer(
        [next = std::exchange(call.next_, nullptr)]() mutable { std::move(next)(std::nullopt); });
  }
  if (call.gone_) loop_->Defer(std::exchange(call.gone_, nullptr));
}

void Http2Connection::OnStreamClose(Http2Call& call) {
  call.open_ = false;
  Sever(call);
  loop_->Recount(call);
  if (!call.begun_) Remove(call);
}

void Http2Connection::Remove(Http2Call& call) {
  const std::shared_ptr<Http2Call> removed = std::move(calls_[call.slot_]);
  removed->connection_ = nullptr;
  if (removed->slot_ + 1 < calls_.size()) {
    calls_.back()->slot_ = removed->slot_;
    calls_[removed->slot_] = std::move(calls_.back());
  }
  calls_.pop_back();
  if (going_away_) SendSoon();  // It may be over.
}

void Http2Connection::LetGo() {
  for (const auto& call : std::exchange(calls_, {})) {
    if (call->open_) nghttp2_session_set_stream_user_data(session_, call->stream_, nullptr);
    call->open_ = false;
    call->connection_ = nullptr;
    Sever(*call);
    loop_->Recount(*call);
  }
}

void Http2Connection::MessageSent(Http2Call& call) {
  call.out_.message.reset();
  call.out_.hold = nullptr;
  call.sent_bytes_ = 0;
  if (call.out_.ready) {
    loop_->Defer(
        [ready = std::exchange(call.out_.ready, nullptr)]() mutable { std::move(ready)(true); });
  }
  loop_->Recount(call);
}

void Http2Connection::Read(Http2Call& call, Http2Call::Next next) {
  KV_CHECK(!call.next_, "a second read was begun before the first was answered");
  if (call.in_.count() > 0) {
    loop_->Defer([next = std::move(next), message = call.in_.Take()]() mutable {
      std::move(next)(std::move(message));
    });
    loop_->Recount(call);
    GiveWindowBack(call);
    SendSoon();
  } else if (!call.open_ || call.in_closed_ || call.ended_) {
    loop_->Defer([next = std::move(next)]() mutable { std::move(next)(std::nullopt); });
  } else {
    call.next_ = std::move(next);
  }
}

// A client that sends faster than its call reads is held back by its own stream's window.
void Http2Connection::GiveWindowBack(Http2Call& call) {
  const bool waits = call.method_ != nullptr && call.method_->takes_stream && call.in_.count() > 0;
  if (waits || call.owed_bytes_ == 0) return;
  nghttp2_session_consume_stream(session_, call.stream_, std::exchange(call.owed_bytes_, 0));
}

}  // namespace kv::api

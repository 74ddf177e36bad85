#include "tests/bench/grpc_load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/wire_format_lite.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <deque>
#include <random>

#include "proto/etcd/rpc.pb.h"

namespace kv::bench {
namespace {

constexpr int32_t kStreamWindow = 16 << 20;
constexpr int32_t kConnectionWindow = 64 << 20;
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kDrain = 30 * kSecond;
constexpr uint64_t kWatchersAreThere = 120 * kSecond;
constexpr size_t kFrameHead = 5;  // Of a gRPC message: compressed or not, and its length.

uint64_t Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * kSecond + static_cast<uint64_t>(now.tv_nsec);
}

std::string Frame(std::string_view message) {
  const auto size = static_cast<uint32_t>(message.size());
  std::string frame;
  frame.reserve(message.size() + kFrameHead);
  frame = {'\0', static_cast<char>(size >> 24), static_cast<char>(size >> 16),
           static_cast<char>(size >> 8), static_cast<char>(size)};
  return frame.append(message);
}

// What the watchers were told so far.
struct WatchCount {
  int created = 0;
  uint64_t events = 0;
};

// Counts without parsing the events, which would cost more than the server's part.
void CountAnswer(std::string_view answer, WatchCount& count) {
  using Watched = etcdserverpb::WatchResponse;
  google::protobuf::io::CodedInputStream fields(reinterpret_cast<const uint8_t*>(answer.data()),
                                                static_cast<int>(answer.size()));
  while (const uint32_t tag = fields.ReadTag()) {
    using Format = google::protobuf::internal::WireFormatLite;
    const int field = Format::GetTagFieldNumber(tag);
    if (field == Watched::kEventsFieldNumber) ++count.events;
    if (field == Watched::kCreatedFieldNumber) ++count.created;
    if (!Format::SkipField(&fields, tag)) return;
  }
}

// Counts the whole messages at the front of `bytes` and takes them away.
void CountAnswers(std::string& bytes, WatchCount& count) {
  size_t at = 0;
  while (bytes.size() - at >= kFrameHead) {
    size_t size = 0;
    for (size_t i = 1; i < kFrameHead; ++i) size = size << 8 | static_cast<uint8_t>(bytes[at + i]);
    if (bytes.size() - at - kFrameHead < size) break;
    CountAnswer(std::string_view(bytes).substr(at + kFrameHead, size), count);
    at += kFrameHead + size;
  }
  bytes.erase(0, at);
}

struct Stream {
  uint64_t due = 0;
  std::string body;  // In gRPC's frames.
  size_t sent = 0;
  WatchCount* watch = nullptr;  // Of a stream of watchers, which stays open.
  Response response;
};

class Connection {
 public:
  using Finished = std::function<void(Connection&, Stream&)>;

  Connection(const std::string& endpoint, int streams, bool keep, Finished finished)
      : authority_(endpoint), free_(streams), keep_(keep), finished_(std::move(finished)) {}
  Connection(const Connection&) = delete;
  ~Connection() {
    nghttp2_session_del(session_);
    if (socket_ >= 0) close(socket_);
  }

  // Empty on success, else why not.
  std::string Open() {
    const size_t colon = authority_.rfind(':');
    if (colon == std::string::npos) return "endpoint '" + authority_ + "' is not host:port";
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(authority_.substr(0, colon).c_str(), authority_.substr(colon + 1).c_str(),
                    &hints, &found) != 0) {
      return "cannot resolve " + authority_;
    }
    socket_ = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const int connected = connect(socket_, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (connected != 0) return "cannot connect to " + authority_ + ": " + std::strerror(errno);
    const int one = 1;
    setsockopt(socket_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    fcntl(socket_, F_SETFL, O_NONBLOCK);

    nghttp2_session_callbacks* callbacks = nullptr;
    nghttp2_session_callbacks_new(&callbacks);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, &Connection::OnHeader);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &Connection::OnData);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &Connection::OnClose);
    nghttp2_session_client_new(&session_, callbacks, this);
    nghttp2_session_callbacks_del(callbacks);
    const std::array<nghttp2_settings_entry, 2> settings = {
        {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<uint32_t>(kStreamWindow)}}};
    nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), settings.size());
    nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0, kConnectionWindow);
    return {};
  }

  bool Send(uint64_t due, const Request& request) {
    auto stream = std::make_unique<Stream>();
    stream->due = due;
    stream->body = Frame(request.message);
    return Submit(request.path, std::move(stream));
  }

  // `creates` are WatchRequests in frames. The count must outlive the connection.
  bool Watch(std::string creates, WatchCount* count) {
    auto stream = std::make_unique<Stream>();
    stream->body = std::move(creates);
    stream->watch = count;
    return Submit("/etcdserverpb.Watch/Watch", std::move(stream));
  }

  bool Submit(std::string_view path, std::unique_ptr<Stream> stream) {
    const std::array<nghttp2_nv, 6> headers = {Header(":method", "POST"),
                                               Header(":scheme", "http"),
                                               Header(":path", path),
                                               Header(":authority", authority_),
                                               Header("content-type", "application/grpc"),
                                               Header("te", "trailers")};
    nghttp2_data_provider body{};
    body.source.ptr = stream.get();
    body.read_callback = &Connection::ReadBody;
    const int32_t id = nghttp2_submit_request(session_, nullptr, headers.data(), headers.size(),
                                              &body, stream.get());
    if (id < 0) return false;
    stream.release();  // OnClose takes it back.
    --free_;
    dirty_ = true;
    return true;
  }

  bool Flush() {
    dirty_ = false;
    while (true) {
      if (out_sent_ == out_.size()) {
        out_.clear();
        out_sent_ = 0;
        const uint8_t* bytes = nullptr;
        ssize_t made = 0;
        while (out_.size() < (1U << 18) &&
               (made = nghttp2_session_mem_send(session_, &bytes)) > 0) {
          out_.append(reinterpret_cast<const char*>(bytes), static_cast<size_t>(made));
        }
        if (made < 0) return false;
        if (out_.empty()) return true;
      }
      const ssize_t wrote = write(socket_, out_.data() + out_sent_, out_.size() - out_sent_);
      if (wrote < 0) return errno == EAGAIN;
      out_sent_ += static_cast<size_t>(wrote);
    }
  }

  bool Receive() {
    static thread_local std::array<uint8_t, 1 << 18> buffer;
    while (true) {
      const ssize_t got = read(socket_, buffer.data(), buffer.size());
      if (got < 0) return errno == EAGAIN;
      if (got == 0) return false;
      if (nghttp2_session_mem_recv(session_, buffer.data(), static_cast<size_t>(got)) < 0) {
        return false;
      }
      dirty_ = true;  // Window updates, or what the answers let us send.
      if (static_cast<size_t>(got) < buffer.size()) return true;
    }
  }

  int socket() const { return socket_; }
  int free() const { return free_; }
  bool dirty() const { return dirty_; }
  bool blocked() const { return out_sent_ < out_.size(); }

  bool awaits_room = false;  // The poll asks for room to write; kept by Load.

 private:
  static nghttp2_nv Header(std::string_view name, std::string_view value) {
    // nghttp2 does not write through these; the flags say that it need not copy them either.
    return {reinterpret_cast<uint8_t*>(const_cast<char*>(name.data())),
            reinterpret_cast<uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE};
  }
  static Stream* Find(nghttp2_session* session, int32_t id) {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session, id));
  }
  static ssize_t ReadBody(nghttp2_session*, int32_t, uint8_t* to, size_t room, uint32_t* flags,
                          nghttp2_data_source* source, void*) {
    auto* stream = static_cast<Stream*>(source->ptr);
    const size_t part = std::min(room, stream->body.size() - stream->sent);
    std::memcpy(to, stream->body.data() + stream->sent, part);
    stream->sent += part;
    if (stream->watch != nullptr) {
      if (part == 0) return NGHTTP2_ERR_DEFERRED;
    } else if (stream->sent == stream->body.size()) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    return static_cast<ssize_t>(part);
  }
  static int OnHeader(nghttp2_session* session, const nghttp2_frame* frame, const uint8_t* name,
                      size_t name_size, const uint8_t* value, size_t value_size, uint8_t, void*) {
    constexpr std::string_view kStatus = "grpc-status";
    if (std::string_view(reinterpret_cast<const char*>(name), name_size) != kStatus) return 0;
    if (Stream* stream = Find(session, frame->hd.stream_id)) {
      stream->response.grpc_status =
          std::atoi(std::string(reinterpret_cast<const char*>(value), value_size).c_str());
    }
    return 0;
  }
  static int OnData(nghttp2_session* session, uint8_t, int32_t id, const uint8_t* bytes,
                    size_t size, void* self) {
    Stream* stream = Find(session, id);
    if (stream == nullptr) return 0;
    if (stream->watch != nullptr || static_cast<Connection*>(self)->keep_) {
      stream->response.message.append(reinterpret_cast<const char*>(bytes), size);
    }
    if (stream->watch != nullptr) CountAnswers(stream->response.message, *stream->watch);
    return 0;
  }
  static int OnClose(nghttp2_session* session, int32_t id, uint32_t, void* self) {
    std::unique_ptr<Stream> stream(Find(session, id));
    if (!stream) return 0;
    auto* connection = static_cast<Connection*>(self);
    ++connection->free_;
    if (stream->response.message.size() >= kFrameHead)
      stream->response.message.erase(0, kFrameHead);
    connection->finished_(*connection, *stream);
    return 0;
  }

  const std::string authority_;
  int free_;
  const bool keep_;
  Finished finished_;
  int socket_ = -1;
  nghttp2_session* session_ = nullptr;
  std::string out_;
  size_t out_sent_ = 0;
  bool dirty_ = true;
};

// One run of a plan.
class Load {
 public:
  Load(const LoadPlan& plan, const std::function<Request()>& next, const OnAnswer& answered,
       const LoadMoments& moments)
      : plan_(plan), next_(next), answered_(answered), moments_(moments), random_(plan.seed) {}
  Load(const Load&) = delete;
  ~Load() {
    if (epoll_ >= 0) close(epoll_);
  }

  LoadOutcome Run() {
    epoll_ = epoll_create1(EPOLL_CLOEXEC);
    std::string error = Connect(plan_.connections, plan_.streams, connections_);
    if (error.empty() && plan_.watch.watchers > 0) error = StartWatchers();
    if (!error.empty()) return {.error = error};
    start_ = Now();
    warm_at_ = start_ + static_cast<uint64_t>(plan_.warmup * 1e9);
    next_due_ = start_;
    if (plan_.warmup == 0) BecomeWarm();
    while (Issuing() || in_flight_ > 0) {
      const uint64_t now = Now();
      if (!warmed_ && now >= warm_at_) BecomeWarm();
      if (!Issuing() && now > last_issue_ + kDrain) break;
      Issue(now);
      if (!FlushAll() || !Wait()) return {.error = "a connection was lost; is the server up?"};
    }
    moments_.done();
    return {.issued = issued_,
            .unanswered = in_flight_,
            .seconds = static_cast<double>(last_issue_ - std::min(last_issue_, warm_at_)) / 1e9,
            .events = events_at_last_issue_ - events_when_warm_,
            .error = {}};
  }

 private:
  using Connections = std::vector<std::unique_ptr<Connection>>;

  // Empty on success, else why not.
  std::string Connect(int count, int streams, Connections& to) {
    for (int i = 0; i < count; ++i) {
      auto connection = std::make_unique<Connection>(
          plan_.endpoints[static_cast<size_t>(i) % plan_.endpoints.size()], streams,
          plan_.keep_messages, [this](Connection&, Stream& stream) { Finish(stream); });
      if (std::string error = connection->Open(); !error.empty()) return error;
      epoll_event event{.events = EPOLLIN, .data = {.ptr = connection.get()}};
      epoll_ctl(epoll_, EPOLL_CTL_ADD, connection->socket(), &event);
      to.push_back(std::move(connection));
    }
    return {};
  }

  std::string StartWatchers() {
    const WatchPlan& watch = plan_.watch;
    if (std::string error = Connect(watch.connections, 0, watching_); !error.empty()) return error;
    for (int stream = 0; stream < watch.streams; ++stream) {
      std::string creates;
      for (int watcher = stream; watcher < watch.watchers; watcher += watch.streams) {
        etcdserverpb::WatchRequest request;
        request.mutable_create_request()->set_key(watch.key(watcher));
        creates += Frame(request.SerializeAsString());
      }
      Connection& connection = *watching_[static_cast<size_t>(stream % watch.connections)];
      if (!connection.Watch(std::move(creates), &watched_)) return "cannot open a watch stream";
    }
    const uint64_t until = Now() + kWatchersAreThere;
    while (watched_.created < watch.watchers) {
      if (!FlushAll() || !Wait()) return "a watch connection was lost; is the server up?";
      if (Now() > until) {
        return std::to_string(watched_.created) + " of " + std::to_string(watch.watchers) +
               " watchers are there after " + std::to_string(kWatchersAreThere / kSecond) + " s";
      }
    }
    return {};
  }

  bool Issuing() const {
    if (plan_.total > 0 && issued_ >= plan_.total) return false;
    return plan_.duration == 0 || Now() < start_ + static_cast<uint64_t>(plan_.duration * 1e9);
  }

  void BecomeWarm() {
    warmed_ = true;
    events_when_warm_ = watched_.events;
    moments_.warm();
  }

  void Issue(uint64_t now) {
    if (plan_.rate > 0) {
      while (next_due_ <= now && Issuing()) {
        backlog_.push_back(next_due_);
        next_due_ += Gap();
      }
    }
    for (auto& connection : connections_) {
      while (connection->free() > 0 && Issuing()) {
        uint64_t due = now;
        if (plan_.rate > 0) {
          if (backlog_.empty()) return;
          due = backlog_.front();
          backlog_.pop_front();
        }
        if (!connection->Send(due, next_())) return;
        ++issued_;
        ++in_flight_;
        last_issue_ = now;
        events_at_last_issue_ = std::max(watched_.events, events_when_warm_);
        if (plan_.rate > 0) break;  // Deal an open load out over the connections.
      }
    }
    if (plan_.rate > 0)
      std::rotate(connections_.begin(), connections_.begin() + 1, connections_.end());
  }

  uint64_t Gap() {
    const double mean = 1e9 / plan_.rate;
    if (!plan_.poisson) return static_cast<uint64_t>(mean);
    const double uniform =
        (static_cast<double>(random_() >> 11) + 0.5) / static_cast<double>(uint64_t{1} << 53);
    return static_cast<uint64_t>(-std::log(uniform) * mean);
  }

  void Finish(Stream& stream) {
    if (stream.watch != nullptr) return;
    --in_flight_;
    if (stream.due >= warm_at_) answered_(Now() - stream.due, stream.response);
  }

  bool FlushAll() { return Flush(connections_) && Flush(watching_); }

  bool Flush(Connections& connections) {
    for (auto& connection : connections) {
      if (!connection->dirty() && !connection->blocked()) continue;
      if (!connection->Flush()) return false;
      if (connection->blocked() != connection->awaits_room) {
        connection->awaits_room = connection->blocked();
        epoll_event event{.events = EPOLLIN | (connection->awaits_room ? EPOLLOUT : uint32_t{0}),
                          .data = {.ptr = connection.get()}};
        epoll_ctl(epoll_, EPOLL_CTL_MOD, connection->socket(), &event);
      }
    }
    return true;
  }

  bool Wait() {
    uint64_t pause = 50'000'000;
    if (plan_.rate > 0 && Issuing()) {
      const uint64_t now = Now();
      pause = backlog_.empty() ? (next_due_ > now ? next_due_ - now : 0) : 1'000'000;
    }
    const timespec timeout{.tv_sec = 0, .tv_nsec = static_cast<long>(std::min(pause, kSecond - 1))};
    std::array<epoll_event, 256> events;
    const int ready =
        epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    for (int i = 0; i < ready; ++i) {
      auto* connection = static_cast<Connection*>(events[static_cast<size_t>(i)].data.ptr);
      if (!connection->Receive()) return false;
    }
    return true;
  }

  const LoadPlan& plan_;
  const std::function<Request()>& next_;
  const OnAnswer& answered_;
  const LoadMoments& moments_;
  std::mt19937_64 random_;
  int epoll_ = -1;
  WatchCount watched_;  // Before the connections, which hold it.
  Connections connections_;
  Connections watching_;
  std::deque<uint64_t> backlog_;  // Due, waiting for a free stream.
  uint64_t start_ = 0;
  uint64_t warm_at_ = 0;
  uint64_t next_due_ = 0;
  uint64_t last_issue_ = 0;
  uint64_t issued_ = 0;
  uint64_t in_flight_ = 0;
  uint64_t events_when_warm_ = 0;
  uint64_t events_at_last_issue_ = 0;
  bool warmed_ = false;
};

}  // namespace

LoadOutcome RunLoad(const LoadPlan& plan, const std::function<Request()>& next,
                    const OnAnswer& answered, const LoadMoments& moments) {
  return Load(plan, next, answered, moments).Run();
}

Response CallOnce(const std::string& endpoint, const Request& request) {
  Response got;
  const LoadPlan plan{.endpoints = {endpoint}, .total = 1, .keep_messages = true};
  const LoadOutcome outcome = RunLoad(
      plan, [&] { return request; }, [&](uint64_t, const Response& response) { got = response; },
      {});
  if (!outcome.error.empty()) got.message = outcome.error;
  return got;
}

}  // namespace kv::bench

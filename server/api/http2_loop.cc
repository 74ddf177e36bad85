#include "server/api/http2_loop.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "server/api/http2_connection.h"

namespace kv::api {
namespace {

constexpr size_t kInBytes = 64 << 10;
constexpr size_t kOutBytes = 256 << 10;
// A call costs this beside its messages.
constexpr size_t kCallBytes = 1 << 10;
constexpr absl::Duration kStoppingTick = absl::Milliseconds(20);

// Often enough for the shortest of the times that are watched.
absl::Duration TickOf(const Http2Options& options) {
  const absl::Duration shortest =
      std::min({options.handshake_timeout, options.keepalive_interval, options.keepalive_timeout});
  return std::clamp(shortest / 4, absl::Milliseconds(10), absl::Seconds(1));
}

}  // namespace

thread_local const Mailbox* Mailbox::current = nullptr;

void Mailbox::Put(Task task) {
  bool asleep = false;
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    mail_.tasks.push_back(std::move(task));
    asleep = std::exchange(asleep_, false);
  }
  WakeIf(asleep);
}

void Mailbox::Put(std::shared_ptr<Http2Call> call, Outgoing outgoing) {
  bool asleep = false;
  {
    MutexLock lock(mutex_);
    if (closed_) return;
    mail_.answers.emplace_back(std::move(call), std::move(outgoing));
    asleep = std::exchange(asleep_, false);
  }
  WakeIf(asleep);
}

void Mailbox::WakeIf(bool asleep) const {
  if (!asleep) return;
  const uint64_t one = 1;
  // Fails only when the count is at its maximum, which no process lives to see. The loop watches
  // for the edge and never reads it.
  [[maybe_unused]] const ssize_t written = write(wake_.get(), &one, sizeof one);
}

bool Mailbox::MaySleep() {
  MutexLock lock(mutex_);
  asleep_ = mail_.empty();
  return asleep_;
}

void Mailbox::Take(Mail* mail) {
  MutexLock lock(mutex_);
  asleep_ = false;
  std::swap(mail->tasks, mail_.tasks);
  std::swap(mail->answers, mail_.answers);
}

void Mailbox::Close() {
  Mail dropped;
  MutexLock lock(mutex_);
  closed_ = true;
  std::swap(dropped.tasks, mail_.tasks);
  std::swap(dropped.answers, mail_.answers);
}

Http2Loop::Http2Loop(Runtime* runtime, const Http2Options& options, const RpcMethods* methods)
    : runtime_(runtime),
      options_(options),
      methods_(methods),
      held_bytes_max_(options.memory_bytes_max / static_cast<size_t>(options.loops)),
      tick_(TickOf(options)),
      epoll_(epoll_create1(EPOLL_CLOEXEC)),
      in_buffer_(kInBytes) {
  out_buffer_.reserve(kOutBytes);
}

Http2Loop::~Http2Loop() {
  if (thread_ == nullptr) return;
  BeginStop(absl::ZeroDuration());
  Join();
}

void Http2Loop::Start(std::vector<Descriptor> listeners, Spread spread) {
  listeners_ = std::move(listeners);
  spread_ = std::move(spread);
  epoll_event event{.events = EPOLLIN | EPOLLET, .data = {.ptr = nullptr}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, mailbox_->wake(), &event);
  Listen(true);
  thread_ = runtime_->NewLoop("front");
  thread_->Post([this] { Run(); });
}

void Http2Loop::Adopt(Descriptor socket) {
  mailbox_->Put([this, socket = std::move(socket)]() mutable {
    if (stopping_) return;
    const int on = 1;
    setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    const int fd = socket.get();
    connections_.push_back(std::make_unique<Http2Connection>(this, std::move(socket)));
    epoll_event event{.events = EPOLLIN, .data = {.ptr = connections_.back().get()}};
    epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event);
  });
}

void Http2Loop::BeginStop(absl::Duration grace) {
  mailbox_->Put([this, grace] { Stop(grace); });
}

void Http2Loop::Stop(absl::Duration grace) {
  stopping_ = true;
  stop_at_ = now_ + grace;
  next_tick_ = now_;
  listeners_.clear();
  for (const auto& connection : connections_) connection->GoAway();
}

void Http2Loop::Run() {
  mailbox_->SetCurrent();
  next_tick_ = runtime_->Uptime();
  while (!stopping_ || !connections_.empty() || calls_ > 0) {
    Wait();
    TakeMail();
    if (now_ >= next_tick_) Tick();
    Settle();
    if (stopping_ && now_ >= stop_at_) EndAll();
    if (burying_) BuryDead();
  }
  Settle();
  mailbox_->Close();
}

void Http2Loop::Wait() {
  std::array<epoll_event, 256> events;
  int timeout = -1;
  if (!connections_.empty() || stopping_ || now_ < deaf_until_) {
    const absl::Duration left =
        (stopping_ ? std::min(next_tick_, stop_at_) : next_tick_) - runtime_->Uptime();
    timeout = static_cast<int>(absl::ToInt64Milliseconds(std::max(left, absl::ZeroDuration()))) + 1;
  }
  if (!sending_.empty() || !mailbox_->MaySleep()) timeout = 0;
  const int ready =
      epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), timeout);
  now_ = runtime_->Uptime();
  for (int i = 0; i < ready; ++i) {
    const epoll_event& event = events[static_cast<size_t>(i)];
    if (event.data.ptr == this) {
      for (const Descriptor& listener : listeners_) Accept(listener.get());
    } else if (event.data.ptr != nullptr) {
      static_cast<Http2Connection*>(event.data.ptr)->OnEvent(event.events);
    }
  }
}

void Http2Loop::Accept(int listener) {
  for (;;) {
    Descriptor socket(accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    if (socket.get() >= 0) {
      spread_(std::move(socket));
      continue;
    }
    // Out of descriptors or memory: the client stays in the backlog, and trying again at once
    // would spin.
    if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR && now_ >= deaf_until_) {
      deaf_until_ = now_ + absl::Milliseconds(100);
      next_tick_ = std::min(next_tick_, deaf_until_);
      Listen(false);
    }
    if (errno != ECONNABORTED && errno != EINTR) return;
  }
}

void Http2Loop::Listen(bool on) {
  for (const Descriptor& listener : listeners_) {
    epoll_event event{.events = EPOLLIN, .data = {.ptr = this}};
    epoll_ctl(epoll_.get(), on ? EPOLL_CTL_ADD : EPOLL_CTL_DEL, listener.get(), &event);
  }
}

void Http2Loop::TakeMail() {
  mailbox_->Take(&mail_);
  for (Mailbox::Task& task : mail_.tasks) std::move(task)();
  for (auto& [call, outgoing] : mail_.answers) Deliver(*call, std::move(outgoing));
  mail_.tasks.clear();
  mail_.answers.clear();
}

void Http2Loop::Deliver(Http2Call& call, Outgoing outgoing) {
  if (call.connection_ != nullptr) {
    call.connection_->Deliver(call, std::move(outgoing));
    return;
  }
  if (outgoing.ready) {
    Defer([ready = std::move(outgoing.ready)]() mutable { std::move(ready)(false); });
  }
  if (!outgoing.end) return;
  call.begun_ = false;
  call.next_ = nullptr;
  call.gone_ = nullptr;
  CallEnded();
  Recount(call);
}

void Http2Loop::Recount(Http2Call& call) {
  size_t bytes = call.in_.bytes();
  // What a service holds is counted by the service.
  if (call.out_.message && call.out_.hold == nullptr) bytes += call.out_.message->size();
  if (call.begun_ || call.open_) bytes += kCallBytes;
  held_bytes_ = held_bytes_ - call.held_bytes_ + bytes;
  call.held_bytes_ = bytes;
}

void Http2Loop::Settle() {
  while (!deferred_.empty() || !sending_.empty()) {
    for (auto& task : std::exchange(deferred_, {})) std::move(task)();
    if (!deferred_.empty()) continue;
    std::swap(sending_now_, sending_);
    for (Http2Connection* connection : sending_now_) {
      if (!connection->Send()) sending_next_.push_back(connection);
    }
    sending_now_.clear();
  }
  std::swap(sending_, sending_next_);
}

void Http2Loop::Tick() {
  if (deaf_until_ != absl::ZeroDuration() && now_ >= deaf_until_) {
    deaf_until_ = absl::ZeroDuration();
    Listen(true);
  }
  for (const auto& connection : connections_) connection->Tick();
  next_tick_ = now_ + (stopping_ ? kStoppingTick : tick_);
}

void Http2Loop::SetEvents(Http2Connection* connection, uint32_t events) const {
  epoll_event event{.events = events, .data = {.ptr = connection}};
  epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, connection->fd(), &event);
}

// The time for calls in flight is over.
void Http2Loop::EndAll() {
  for (const auto& connection : connections_) connection->End();
  Settle();
}

void Http2Loop::BuryDead() {
  burying_ = false;
  std::erase_if(sending_, [](const auto* connection) { return connection->over(); });
  std::erase_if(connections_, [](const auto& connection) { return connection->over(); });
}

}  // namespace kv::api

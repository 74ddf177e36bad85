// One thread of the client port: an epoll loop over connections that are pinned to it.
//
// A turn of the loop: what the sockets hold is read and dispatched, what other threads left in the
// mailbox is taken, and then each connection that has something to say sends all of it at once.
#pragma once

#include <sys/eventfd.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/time/time.h"
#include "server/api/http2_call.h"
#include "server/api/http2_server.h"
#include "server/replica/runtime.h"
#include "storage/mutex.h"

namespace kv::api {

class Http2Connection;

// An open file of this process.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Where other threads leave things for a loop. Whoever owes an answer holds it, so it outlives the
// loop. Wakes the loop only when it sleeps, and once.
class Mailbox {
 public:
  using Task = absl::AnyInvocable<void() &&>;
  struct Mail {
    std::vector<Task> tasks;
    std::vector<std::pair<std::shared_ptr<Http2Call>, Outgoing>> answers;
    bool empty() const { return tasks.empty() && answers.empty(); }
  };

  void Put(Task task);
  void Put(std::shared_ptr<Http2Call> call, Outgoing outgoing);

  // The rest is the loop's.
  bool IsCurrent() const { return current == this; }
  void SetCurrent() const { current = this; }
  bool MaySleep();        // False: there is mail. True: from now on mail wakes.
  void Take(Mail* mail);  // `mail` is empty; its memory is used for what comes.
  void Close();           // What is there and what comes is dropped.
  int wake() const { return wake_.get(); }

 private:
  void WakeIf(bool asleep) const;

  static thread_local const Mailbox* current;

  const Descriptor wake_{eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
  Mutex mutex_;
  bool asleep_ ABSL_GUARDED_BY(mutex_) = false;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  Mail mail_ ABSL_GUARDED_BY(mutex_);
};

class Http2Loop {
 public:
  // Called with each new connection; the loops take turns.
  using Spread = std::function<void(Descriptor)>;

  Http2Loop(Runtime* runtime, const Http2Options& options, const RpcMethods* methods);
  ~Http2Loop();
  Http2Loop(const Http2Loop&) = delete;
  Http2Loop& operator=(const Http2Loop&) = delete;

  void Start(std::vector<Descriptor> listeners, Spread spread);
  // From any thread.
  void Adopt(Descriptor socket);
  void BeginStop(absl::Duration grace);
  // Waits until all is over after BeginStop.
  void Join() { thread_.reset(); }

  // For connections and calls, on the loop.
  const Http2Options& options() const { return options_; }
  const RpcMethods& methods() const { return *methods_; }
  const std::shared_ptr<Mailbox>& mailbox() const { return mailbox_; }
  absl::Duration now() const { return now_; }  // Uptime when this turn began.
  void Deliver(Http2Call& call, Outgoing outgoing);
  void Bury() { burying_ = true; }                                          // A connection is over.
  void Defer(Mailbox::Task task) { deferred_.push_back(std::move(task)); }  // Within this turn.
  void SendSoon(Http2Connection* connection) { sending_.push_back(connection); }
  void SetEvents(Http2Connection* connection, uint32_t events) const;
  std::vector<uint8_t>& in_buffer() { return in_buffer_; }
  std::vector<uint8_t>& out_buffer() { return out_buffer_; }

  // Memory of this loop's connections, within its share of the limit.
  void Recount(Http2Call& call);
  bool full() const { return held_bytes_ >= held_bytes_max_; }
  void CallBegun() { ++calls_; }
  void CallEnded() { --calls_; }

 private:
  void Run();
  void Wait();
  void Accept(int listener);
  void TakeMail();
  void Settle();  // Until nothing is deferred and everything is sent that can be.
  void Tick();
  void Listen(bool on);
  void Stop(absl::Duration grace);
  void EndAll();
  void BuryDead();

  // Constant after Start.
  Runtime* const runtime_;
  const Http2Options options_;
  const RpcMethods* const methods_;
  const size_t held_bytes_max_;
  const absl::Duration tick_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  const Descriptor epoll_;
  Spread spread_;

  // The loop's.
  std::vector<Descriptor> listeners_;
  std::vector<std::unique_ptr<Http2Connection>> connections_;
  std::vector<Http2Connection*> sending_;
  std::vector<Http2Connection*> sending_now_;
  std::vector<Http2Connection*> sending_next_;  // They had their share of this turn.
  std::vector<Mailbox::Task> deferred_;
  std::vector<uint8_t> in_buffer_;
  std::vector<uint8_t> out_buffer_;
  Mailbox::Mail mail_;
  absl::Duration now_;
  absl::Duration next_tick_;
  absl::Duration deaf_until_ = absl::ZeroDuration();  // After accept failed.
  size_t held_bytes_ = 0;
  size_t calls_ = 0;  // In flight, those of connections that are gone too.
  bool burying_ = false;
  bool stopping_ = false;
  absl::Duration stop_at_;

  std::unique_ptr<Loop> thread_;
};

}  // namespace kv::api

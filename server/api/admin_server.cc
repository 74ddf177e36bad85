#include "server/api/admin_server.h"

#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <list>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "absl/base/thread_annotations.h"
#include "server/api/listen_url.h"
#include "server/api/version.h"
#include "storage/mutex.h"
#include "storage/status.h"

namespace kv::api {
namespace {

constexpr std::string_view kText = "text/plain; charset=utf-8";
constexpr std::string_view kJson = "application/json";
constexpr std::string_view kPrometheus = "text/plain; version=0.0.4; charset=utf-8";

struct Request {
  std::string method;
  std::string path;
  std::multimap<std::string, std::string, std::less<>> query;
};

struct Answer {
  int code = 200;
  std::string body;
  std::string_view type = kText;
};
using Respond = absl::AnyInvocable<void(Answer) &&>;

std::string_view Reason(int code) {
  switch (code) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 431:
      return "Request Header Fields Too Large";
    default:
      return "Service Unavailable";
  }
}

std::string Format(const Answer& answer, bool with_body) {
  std::string text = fmt::format(
      "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nX-Content-Type-Options: nosniff\r\n"
      "Content-Length: {}\r\nConnection: close\r\n{}\r\n",
      answer.code, Reason(answer.code), answer.type, answer.body.size(),
      answer.code == 405 ? "Allow: GET, HEAD\r\n" : "");
  if (with_body) text += answer.body;
  return text;
}

int HexDigit(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  if (digit >= 'a' && digit <= 'f') return digit - 'a' + 10;
  if (digit >= 'A' && digit <= 'F') return digit - 'A' + 10;
  return -1;
}

std::string Unescape(std::string_view text) {
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      plain += static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2]));
      i += 2;
    } else {
      plain += text[i] == '+' ? ' ' : text[i];
    }
  }
  return plain;
}

std::string QuoteJson(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted += '\\';
    quoted += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return quoted + '"';
}

// The request line; nothing when it is none of HTTP/1.
std::optional<Request> Parse(std::string_view head) {
  const std::string_view line = head.substr(0, head.find_first_of("\r\n"));
  const size_t first = line.find(' ');
  const size_t last = line.rfind(' ');
  if (first == 0 || first == std::string_view::npos || last == first) return std::nullopt;
  const std::string_view target = line.substr(first + 1, last - first - 1);
  if (!line.substr(last + 1).starts_with("HTTP/1.") || !target.starts_with('/')) {
    return std::nullopt;
  }
  Request request;
  request.method = line.substr(0, first);
  const size_t question = target.find('?');
  request.path = Unescape(target.substr(0, question));
  std::string_view query =
      question == std::string_view::npos ? std::string_view() : target.substr(question + 1);
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(pair.size() + 1, query.size()));
    const size_t equals = pair.find('=');
    request.query.emplace(
        Unescape(pair.substr(0, equals)),
        equals == std::string_view::npos ? std::string() : Unescape(pair.substr(equals + 1)));
  }
  return request;
}

// Where answers that come from other threads wait for the loop. Whoever owes an answer holds it, so
// it outlives the server.
class Mailbox {
 public:
  Mailbox() : wake_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Mailbox() { close(wake_); }
  Mailbox(const Mailbox&) = delete;
  Mailbox& operator=(const Mailbox&) = delete;

  void Put(uint64_t connection, Answer answer) {
    {
      MutexLock lock(mutex_);
      answers_.emplace_back(connection, std::move(answer));
    }
    Wake();
  }
  void Wake() {
    const uint64_t one = 1;
    // Fails only when the count is at its maximum, and then the loop is awake.
    [[maybe_unused]] const ssize_t written = write(wake_, &one, sizeof one);
  }
  std::vector<std::pair<uint64_t, Answer>> Take() {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(wake_, &count, sizeof count);
    MutexLock lock(mutex_);
    return std::exchange(answers_, {});
  }
  int wake() const { return wake_; }

 private:
  const int wake_;
  Mutex mutex_;
  std::vector<std::pair<uint64_t, Answer>> answers_ ABSL_GUARDED_BY(mutex_);
};

//   kReading --head complete--> kAnswering --answer--> kWriting --all sent--> kClosing --> closed
//
// kClosing waits for the client to close its side: closing a socket that holds unread bytes would
// reset it, and the client might lose the answer.
enum class Stage { kReading, kAnswering, kWriting, kClosing };

struct Connection {
  uint64_t id = 0;
  int fd = -1;
  Stage stage = Stage::kReading;
  absl::Duration deadline;  // Uptime at which it is closed, whatever its stage.
  std::string in;
  std::string out;
  size_t sent = 0;
  bool wants_body = true;
};

std::string_view PathOf(ProbeKind kind) { return kind == ProbeKind::kLive ? "livez" : "readyz"; }

}  // namespace

class AdminServer::Running {
 public:
  Running(Runtime* runtime, AdminOptions options, Metrics* metrics)
      : runtime_(runtime), options_(std::move(options)), metrics_(metrics) {}
  ~Running() { Stop(); }

  absl::Status Start() {
    for (const std::string& text : options_.urls) {
      ASSIGN_OR_RETURN(const ListenUrl url, ParseListenUrl(text));
      ASSIGN_OR_RETURN(const Listeners listeners, OpenListeners(url));
      if (port_ == 0) port_ = listeners.port;
      listeners_.insert(listeners_.end(), listeners.sockets.begin(), listeners.sockets.end());
    }
    if (listeners_.empty()) return absl::OkStatus();
    loop_ = runtime_->NewLoop("http");
    loop_->Post([this] { Run(); });
    return absl::OkStatus();
  }

  void Stop() {
    stopping_ = true;
    mailbox_->Wake();
    if (loop_) loop_->Stop();
    for (const int fd : listeners_) close(fd);
    listeners_.clear();
  }

  void SetStarted() { started_ = true; }

  void SetProbes(std::shared_ptr<Probes> probes) {
    MutexLock lock(probes_mutex_);
    probes_ = std::move(probes);
  }

  int port() const { return port_; }

 private:
  void Run() {
    while (!stopping_) {
      std::vector<pollfd> polls;
      polls.push_back({mailbox_->wake(), POLLIN, 0});
      absl::Duration wait = absl::Seconds(60);
      const absl::Duration now = runtime_->Uptime();
      const bool deaf = now < deaf_until_;
      if (deaf) wait = deaf_until_ - now;
      for (const int fd : listeners_) {
        polls.push_back({fd, deaf ? int16_t{0} : int16_t{POLLIN}, 0});
      }
      for (const Connection& connection : connections_) {
        polls.push_back({connection.fd, Events(connection), 0});
        wait = std::min(wait, connection.deadline - now);
      }
      poll(polls.data(), polls.size(),
           static_cast<int>(absl::ToInt64Milliseconds(std::max(wait, absl::ZeroDuration())) + 1));
      for (auto& [id, answer] : mailbox_->Take()) Deliver(id, answer);
      ServeReady(polls.data() + 1 + listeners_.size());
      for (size_t i = 0; i < listeners_.size(); ++i) {
        if (polls[1 + i].revents != 0) Accept(listeners_[i]);
      }
    }
    for (const Connection& connection : connections_) close(connection.fd);
    connections_.clear();
  }

  static int16_t Events(const Connection& connection) {
    switch (connection.stage) {
      case Stage::kAnswering:
        return 0;
      case Stage::kWriting:
        return POLLOUT;
      case Stage::kReading:
      case Stage::kClosing:
        return POLLIN;
    }
    return 0;
  }

  // `polled` has an element for each connection, in their order.
  void ServeReady(const pollfd* polled) {
    const absl::Duration now = runtime_->Uptime();
    for (auto at = connections_.begin(); at != connections_.end(); ++polled) {
      bool keep = (polled->revents & (POLLERR | POLLNVAL)) == 0;
      if (keep && polled->revents != 0) keep = Serve(&*at);
      if (keep && now >= at->deadline) keep = Expire(&*at, now);
      if (keep) {
        ++at;
      } else {
        close(at->fd);
        at = connections_.erase(at);
      }
    }
  }

  void Accept(int listener) {
    for (;;) {
      const int fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
      if (fd < 0) {
        // Out of descriptors or memory: the client stays in the backlog, and trying again at once
        // would spin.
        if (errno != EAGAIN && errno != ECONNABORTED) {
          deaf_until_ = runtime_->Uptime() + absl::Milliseconds(100);
        }
        return;
      }
      if (connections_.size() >= options_.connections_max) {
        close(connections_.front().fd);
        connections_.pop_front();
      }
      connections_.push_back({.id = ++last_id_,
                              .fd = fd,
                              .stage = Stage::kReading,
                              .deadline = runtime_->Uptime() + options_.request_timeout,
                              .in = {},
                              .out = {},
                              .sent = 0,
                              .wants_body = true});
    }
  }

  // False: the connection is over.
  bool Serve(Connection* connection) {
    switch (connection->stage) {
      case Stage::kReading:
        return Receive(connection);
      case Stage::kAnswering:
        return false;  // It hung up.
      case Stage::kWriting:
        return Send(connection);
      case Stage::kClosing: {
        char rest[4096];
        const ssize_t got = recv(connection->fd, rest, sizeof rest, 0);
        return got > 0 || (got < 0 && errno == EAGAIN);
      }
    }
    return false;
  }

  bool Receive(Connection* connection) {
    char bytes[4096];
    const ssize_t got = recv(connection->fd, bytes, sizeof bytes, 0);
    if (got < 0) return errno == EAGAIN || errno == EINTR;
    if (got == 0) return false;
    connection->in.append(bytes, static_cast<size_t>(got));
    const size_t end = connection->in.find("\r\n\r\n");
    if (end != std::string::npos && end + 4 <= options_.request_bytes_max) {
      Handle(connection, std::string_view(connection->in).substr(0, end));
      return true;
    }
    if (connection->in.size() < options_.request_bytes_max) return true;
    return Reply(connection, {431, fmt::format("request line and headers are limited to {} bytes\n",
                                               options_.request_bytes_max)});
  }

  void Handle(Connection* connection, std::string_view head) {
    const std::optional<Request> request = Parse(head);
    connection->stage = Stage::kAnswering;
    connection->deadline = runtime_->Uptime() + options_.probe_timeout;
    if (!request) {
      Reply(connection, {400, "this is no HTTP/1 request\n"});
      return;
    }
    connection->wants_body = request->method != "HEAD";
    if (request->method != "GET" && request->method != "HEAD") {
      Reply(connection, {405, "Method Not Allowed\n"});
      return;
    }
    Route(*request, [mailbox = mailbox_, id = connection->id](Answer answer) {
      mailbox->Put(id, std::move(answer));
    });
  }

  void Deliver(uint64_t id, const Answer& answer) {
    for (auto at = connections_.begin(); at != connections_.end(); ++at) {
      if (at->id != id) continue;
      // A connection that is over is closed by ServeReady, which walks in step with the poll.
      if (at->stage == Stage::kAnswering) Reply(&*at, answer);
      return;
    }
  }

  bool Reply(Connection* connection, const Answer& answer) {
    connection->stage = Stage::kWriting;
    connection->out = Format(answer, connection->wants_body);
    connection->deadline = runtime_->Uptime() + options_.request_timeout;
    return true;
  }

  bool Send(Connection* connection) {
    const std::string& out = connection->out;
    const ssize_t sent = send(connection->fd, out.data() + connection->sent,
                              out.size() - connection->sent, MSG_NOSIGNAL);
    if (sent < 0) return errno == EAGAIN || errno == EINTR;
    connection->sent += static_cast<size_t>(sent);
    if (connection->sent < out.size()) return true;
    connection->stage = Stage::kClosing;
    connection->deadline = runtime_->Uptime() + absl::Seconds(1);
    return shutdown(connection->fd, SHUT_WR) == 0;
  }

  bool Expire(Connection* connection, absl::Duration now) {
    if (connection->stage != Stage::kAnswering) return false;
    connection->deadline = now + options_.request_timeout;
    return Reply(connection, {503, fmt::format("no answer within {}\n",
                                               absl::FormatDuration(options_.probe_timeout))});
  }

  void Route(const Request& request, Respond respond) {
    const std::string& path = request.path;
    if (path == "/livez" || path.starts_with("/livez/")) {
      AnswerProbes(ProbeKind::kLive, request, std::move(respond));
    } else if (path == "/readyz" || path.starts_with("/readyz/")) {
      AnswerProbes(ProbeKind::kReady, request, std::move(respond));
    } else if (path == "/startupz") {
      std::move(respond)(started_ || (options_.idle && options_.idle())
                             ? Answer{200, "ok\n"}
                             : Answer{503, "[-]started failed: the storage is not open yet\n"});
    } else if (path == "/health") {
      AnswerHealth(request, std::move(respond));
    } else if (path == "/version") {
      std::move(respond)({200,
                          fmt::format(R"({{"etcdserver":"{}","etcdcluster":"{}","storage":"{}"}})",
                                      kApiVersion, kClusterVersion, kClusterVersion),
                          kJson});
    } else if (path == "/metrics") {
      std::move(respond)({200, metrics_->Scrape(), kPrometheus});
    } else {
      std::move(respond)({404, "404 page not found\n"});
    }
  }

  std::shared_ptr<Probes> probes() {
    MutexLock lock(probes_mutex_);
    return probes_;
  }

  void AnswerProbes(ProbeKind kind, const Request& request, Respond respond) {
    const std::string root = fmt::format("/{}", PathOf(kind));
    const std::string only =
        request.path.size() > root.size() ? request.path.substr(root.size() + 1) : std::string();
    if (!only.empty() && !probes()->Has(kind, only)) {
      std::move(respond)({404, "404 page not found\n"});
      return;
    }
    std::set<std::string, std::less<>> excluded;
    for (auto [at, end] = request.query.equal_range("exclude"); at != end; ++at) {
      excluded.insert(at->second);
    }
    const bool verbose = request.query.contains("verbose");
    auto wanted = [&](std::string_view name) {
      return only.empty() ? !excluded.contains(name) : name == only;
    };
    // The process answers: without a member there is nothing else that /livez could mean.
    probes()->Ask(
        kind, wanted,
        [metrics = metrics_, kind, verbose,
         respond = std::move(respond)](Probes::Answers answers) mutable {
          std::string lines;
          bool good = true;
          for (const Probes::Answer& answer : answers) {
            const bool ok =
                answer.status.ok() || (kind == ProbeKind::kLive && answer.name == Probes::kClosed);
            good = good && ok;
            metrics->CountProbe(PathOf(kind), answer.name, ok);
            lines += ok ? fmt::format("[+]{} ok\n", answer.name)
                        : fmt::format("[-]{} failed: {}\n", answer.name, Message(answer.status));
          }
          if (!good) {
            std::move(respond)({503, lines + "\n"});
          } else {
            std::move(respond)({200, verbose ? lines + "ok\n" : "ok\n"});
          }
        });
  }

  void AnswerHealth(const Request& request, Respond respond) {
    const auto serializable = request.query.find("serializable");
    const ProbeKind kind = serializable != request.query.end() && serializable->second == "true"
                               ? ProbeKind::kHealthSerializable
                               : ProbeKind::kHealth;
    const auto excludes = [&request](std::string_view name) {
      const auto [at, end] = request.query.equal_range("exclude");
      return std::any_of(at, end, [name](const auto& entry) { return entry.second == name; });
    };
    // Alarms can be left out, and nothing else.
    probes()->Ask(
        kind,
        [&excludes](std::string_view name) {
          return !((name == "NOSPACE" || name == "CORRUPT") && excludes(name));
        },
        [metrics = metrics_, respond = std::move(respond)](Probes::Answers answers) mutable {
          const auto bad = std::find_if(answers.begin(), answers.end(),
                                        [](const auto& answer) { return !answer.status.ok(); });
          metrics->CountHealth(bad == answers.end());
          if (bad == answers.end()) {
            std::move(respond)({200, R"({"health":"true","reason":""})", kJson});
          } else {
            std::move(respond)({503,
                                fmt::format("{{\"health\":\"false\",\"reason\":{}}}\n",
                                            QuoteJson(Message(bad->status))),
                                kJson});
          }
        });
  }

  // Constant after construction.
  Runtime* const runtime_;
  const AdminOptions options_;
  Metrics* const metrics_;
  const std::shared_ptr<Mailbox> mailbox_ = std::make_shared<Mailbox>();
  // Before the loop runs and after it.
  std::vector<int> listeners_;
  uint16_t port_ = 0;

  std::atomic<bool> stopping_ = false;
  std::atomic<bool> started_ = false;
  Mutex probes_mutex_;
  std::shared_ptr<Probes> probes_ ABSL_GUARDED_BY(probes_mutex_) = std::make_shared<Probes>();

  // The loop's. Oldest first.
  std::list<Connection> connections_;
  uint64_t last_id_ = 0;
  absl::Duration deaf_until_ = absl::ZeroDuration();

  std::unique_ptr<Loop> loop_;
};

AdminServer::AdminServer(Runtime* runtime, AdminOptions options, Metrics* metrics)
    : running_(std::make_unique<Running>(runtime, std::move(options), metrics)) {}
AdminServer::~AdminServer() = default;
absl::Status AdminServer::Start() { return running_->Start(); }
void AdminServer::Stop() { running_->Stop(); }
void AdminServer::SetStarted() { running_->SetStarted(); }
void AdminServer::SetProbes(std::shared_ptr<Probes> probes) {
  running_->SetProbes(std::move(probes));
}
int AdminServer::port() const { return running_->port(); }

}  // namespace kv::api

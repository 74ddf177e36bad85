#include "client/client.h"

#include <grpcpp/alarm.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/tls_credentials_options.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <mutex>

#include "absl/status/statusor.h"

namespace kv::client {
namespace {

using Clock = std::chrono::steady_clock;
using Code = absl::StatusCode;

// How long a round over all endpoints waits before the next: doubled from the first to the last.
constexpr auto kBackoffMin = std::chrono::milliseconds(25);
constexpr auto kBackoffMax = std::chrono::milliseconds(500);

std::chrono::nanoseconds Clamp(absl::Duration duration) {
  return absl::ToChronoNanoseconds(
      std::clamp(duration, absl::ZeroDuration(), absl::Hours(24 * 365)));
}

std::chrono::system_clock::time_point WallTime(Clock::time_point when) {
  return std::chrono::system_clock::now() +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(when - Clock::now());
}

grpc::ByteBuffer ToBuffer(const std::string& bytes) {
  grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

std::string ToString(const grpc::ByteBuffer& buffer) {
  std::string bytes;
  std::vector<grpc::Slice> slices;
  if (!buffer.Valid() || !buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(std::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()));
  }
  return bytes;
}

absl::Status ToStatus(const grpc::Status& status) {
  return absl::Status(static_cast<Code>(status.error_code()), status.error_message());
}

bool Contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// What gRPC wraps around "Connection refused" helps nobody.
std::string Reason(const grpc::Status& status) {
  std::string text = status.error_message();
  for (std::string_view before :
       {"Failed to connect to remote host: ", "failed to connect to all addresses; last error: "}) {
    if (size_t at = text.rfind(before); at != std::string::npos) {
      return text.substr(at + before.size());
    }
  }
  if (status.error_code() == grpc::StatusCode::DEADLINE_EXCEEDED) return "no answer in time";
  return text.empty() ? "no answer" : text;
}

struct Target {
  std::string address;  // As gRPC takes it.
  bool tls = false;
};

absl::StatusOr<Target> ParseEndpoint(const std::string& endpoint, bool tls_by_default) {
  auto refuse = [&](std::string_view why) {
    return absl::Status(Code::kInvalidArgument, "endpoint \"" + endpoint + "\" " +
                                                    std::string(why) +
                                                    "; write it as host:port, for example "
                                                    "127.0.0.1:2379 or https://db.example:2379");
  };
  std::string_view rest = endpoint;
  Target target{.address = "", .tls = tls_by_default};
  for (auto [scheme, tls] : {std::pair{std::string_view("https://"), true}, {"http://", false}}) {
    if (!rest.starts_with(scheme)) continue;
    rest.remove_prefix(scheme.size());
    target.tls = tls;
    while (rest.ends_with('/')) rest.remove_suffix(1);
  }
  for (auto [scheme, tls] : {std::pair{std::string_view("unixs:"), true}, {"unix:", false}}) {
    if (!rest.starts_with(scheme)) continue;
    rest.remove_prefix(scheme.size());
    if (rest.starts_with("//")) rest.remove_prefix(2);
    if (rest.empty()) return refuse("names no socket");
    target.tls = tls;
    target.address = "unix:" + std::string(rest);
    return target;
  }
  if (Contains(rest, "://")) return refuse("has an unknown scheme");
  if (Contains(rest, "/")) return refuse("has a path");
  size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || rest.ends_with(']')) return refuse("has no port");
  std::string_view port = rest.substr(colon + 1);
  if (colon == 0) return refuse("has no host");
  if (port.empty() || port.size() > 5 ||
      !std::all_of(port.begin(), port.end(), [](char c) { return c >= '0' && c <= '9'; })) {
    return refuse("has no valid port");
  }
  target.address = std::string(rest);
  return target;
}

std::shared_ptr<grpc::ChannelCredentials> Credentials(const Options& options, bool tls) {
  if (!tls) return grpc::InsecureChannelCredentials();
  if (!options.skip_verify) {
    return grpc::SslCredentials({.pem_root_certs = options.ca_pem,
                                 .pem_private_key = options.key_pem,
                                 .pem_cert_chain = options.cert_pem});
  }
  namespace tls_api = grpc::experimental;
  tls_api::TlsChannelCredentialsOptions no_questions;
  no_questions.set_verify_server_certs(false);
  no_questions.set_check_call_host(false);
  no_questions.set_certificate_verifier(std::make_shared<tls_api::NoOpCertificateVerifier>());
  if (!options.cert_pem.empty()) {
    no_questions.set_certificate_provider(std::make_shared<tls_api::StaticDataCertificateProvider>(
        std::vector<tls_api::IdentityKeyCertPair>{
            {.private_key = options.key_pem, .certificate_chain = options.cert_pem}}));
    no_questions.watch_identity_key_cert_pairs();
  }
  return tls_api::TlsCredentials(no_questions);
}

grpc::ChannelArguments Arguments(const Options& options) {
  grpc::ChannelArguments arguments;
  auto milliseconds = [](absl::Duration d) {
    return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Milliseconds(d), 1, 1 << 30));
  };
  // A try to connect may last its share of the dial timeout; this is what the argument means.
  absl::Duration share = options.dial_timeout / static_cast<int64_t>(options.endpoints.size());
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   milliseconds(std::max(share, absl::Milliseconds(200))));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 50);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS,
                   milliseconds(std::max(options.keepalive_time, absl::Seconds(10))));
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, milliseconds(options.keepalive_timeout));
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetMaxSendMessageSize(options.send_bytes_max);
  arguments.SetMaxReceiveMessageSize(options.receive_bytes_max > 0 ? options.receive_bytes_max
                                                                   : -1);
  return arguments;
}

}  // namespace

Verdict Judge(Kind kind, Code code, std::string_view text) {
  if (code == Code::kOk) return {.fate = Fate::kDone, .retry = false};
  // Overload is refused at the door; etcd sends it with code Unknown.
  bool overload = text == "etcdserver: too many requests";
  if (kind == Kind::kRead) {
    bool retry = overload || code == Code::kUnavailable || code == Code::kDeadlineExceeded;
    return {.fate = Fate::kNotDone, .retry = retry};
  }
  if (overload) return {.fate = Fate::kNotDone, .retry = true};
  switch (code) {
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
    case Code::kResourceExhausted:
    case Code::kFailedPrecondition:
    case Code::kOutOfRange:
    case Code::kUnimplemented:
    case Code::kDataLoss:  // "corrupt cluster": the alarm refuses every write.
      return {.fate = Fate::kNotDone, .retry = false};
    case Code::kUnavailable:
      // Refused before anything was appended to the log.
      if (text == "etcdserver: no leader") return {.fate = Fate::kNotDone, .retry = true};
      if (text == "etcdserver: unhealthy cluster") return {.fate = Fate::kNotDone, .retry = false};
      return {.fate = Fate::kUnknown, .retry = false};
    default:
      return {.fate = Fate::kUnknown, .retry = false};
  }
}

class Client::Endpoint {
 public:
  Endpoint(std::string name, std::shared_ptr<grpc::Channel> channel)
      : name_(std::move(name)), channel_(std::move(channel)), stub_(channel_) {}

  const std::string& name() const { return name_; }
  // Starts to connect if it is not connected.
  bool Connected() { return channel_->GetState(true) == GRPC_CHANNEL_READY; }
  grpc::GenericStub& stub() { return stub_; }

 private:
  const std::string name_;
  const std::shared_ptr<grpc::Channel> channel_;
  grpc::GenericStub stub_;
};

struct Client::State {
  Options options;
  std::vector<std::unique_ptr<Endpoint>> endpoints;
  std::atomic<size_t> current = 0;  // The endpoint that calls start with.

  std::mutex mutex;  // Guards what follows.
  std::string token;
  bool authentication_off = false;  // The servers said so.
  size_t calls = 0;                 // Under way.
  std::condition_variable drained;

  std::string Token() {
    std::lock_guard lock(mutex);
    return token;
  }
  void Failed(size_t endpoint) {
    current.compare_exchange_strong(endpoint, (endpoint + 1) % endpoints.size());
  }

  bool TokenIsStale(const std::string& text) const {
    if (options.user.empty()) return false;
    return text == "etcdserver: invalid auth token" ||
           text == "etcdserver: revision of auth store is old" ||
           text == "etcdserver: user name is empty";
  }
  void ForgetToken() {
    std::lock_guard lock(mutex);
    token.clear();
  }
  void AddToken(grpc::ClientContext* context) {
    const std::string known = options.token.empty() ? Token() : options.token;
    if (!known.empty()) context->AddMetadata("token", known);
  }
};

// One call, from its first try to its answer. It lives in the callbacks that it waits for.
class Client::Attempts : public std::enable_shared_from_this<Client::Attempts> {
 public:
  Attempts(State* state, const char* path, Kind kind, std::string request,
           const CallOptions& options, Done<std::string> done)
      : state_(state),
        path_(path),
        kind_(kind),
        request_(ToBuffer(request)),
        attempt_timeout_(Clamp(options.attempt_timeout)),
        deadline_(Clock::now() + Clamp(options.timeout)),
        connect_until_(Clock::now() + Clamp(state->options.dial_timeout)),
        at_(state->current.load()),
        reasons_(state->endpoints.size()),
        done_(std::move(done)) {}

  // The client ends only after this. A channel whose last owner goes on a thread of gRPC's would
  // make that thread wait for itself (a context is an owner), so the context goes first.
  ~Attempts() {
    sent_.reset();
    alarm_.reset();
    std::lock_guard lock(state_->mutex);
    if (--state_->calls == 0) state_->drained.notify_all();
  }

  void Try() {
    if (Clock::now() >= deadline_) return GiveUp();
    if (kind_ == Kind::kWrite && !endpoint().Connected()) return Probe();
    if (NeedsToken()) return Authenticate();
    Send();
  }

 private:
  Endpoint& endpoint() { return *state_->endpoints[at_]; }

  bool NeedsToken() {
    if (state_->options.user.empty()) return false;
    std::lock_guard lock(state_->mutex);
    return state_->token.empty() && !state_->authentication_off;
  }

  // gRPC tells the reason for a failed connection only to a call, so a read goes ahead of the
  // write. Whatever the server answers to it, the connection stands.
  void Probe() {
    Run("/etcdserverpb.Maintenance/Status", grpc::ByteBuffer(ToBuffer("")),
        std::min(deadline_, Clock::now() + Clamp(state_->options.dial_timeout)),
        [this](const grpc::Status& status) {
          if (endpoint().Connected()) {
            connect_until_ = Clock::now() + Clamp(state_->options.dial_timeout);
            if (NeedsToken()) return Authenticate();
            return Send();
          }
          NotConnected(status);
        });
  }

  void Authenticate() {
    pb::AuthenticateRequest request;
    request.set_name(state_->options.user);
    request.set_password(state_->options.password);
    Run(kAuthenticate.path, ToBuffer(request.SerializeAsString()), AttemptDeadline(),
        [this](const grpc::Status& status) {
          pb::AuthenticateResponse response;
          if (status.ok() && response.ParseFromString(ToString(sent_->response))) {
            std::lock_guard lock(state_->mutex);
            state_->token = response.token();
          } else if (Contains(status.error_message(), "authentication is not enabled")) {
            std::lock_guard lock(state_->mutex);
            state_->authentication_off = true;
          } else if (Judge(Kind::kRead, ToStatus(status).code(), status.error_message()).retry) {
            return NotConnected(status);
          } else {
            return Finish(ToStatus(status), Fate::kNotDone);
          }
          Try();
        });
  }

  void Send() {
    Run(path_, request_, AttemptDeadline(), [this](const grpc::Status& status) {
      if (status.ok()) {
        state_->current.store(at_);
        return Finish(absl::OkStatus(), Fate::kDone);
      }
      Verdict verdict = Judge(kind_, ToStatus(status).code(), status.error_message());
      // The server's refusal and ours of its answer read alike; only a limit of ours makes doubt.
      if (kind_ == Kind::kWrite && state_->options.receive_bytes_max > 0 &&
          Contains(status.error_message(), "eceived message larger")) {
        verdict.fate = Fate::kUnknown;
      }
      if (state_->TokenIsStale(status.error_message()) && !renewed_token_) {
        renewed_token_ = true;
        state_->ForgetToken();
        return Try();
      }
      if (verdict.retry) {
        if (status.error_code() == grpc::StatusCode::UNAVAILABLE && !endpoint().Connected()) {
          return NotConnected(status);
        }
        reasons_[at_] = Reason(status);
        return Next();
      }
      if (verdict.fate == Fate::kUnknown) state_->Failed(at_);
      Finish(ToStatus(status), verdict.fate);
    });
  }

  Clock::time_point AttemptDeadline() const {
    return kind_ == Kind::kRead ? std::min(deadline_, Clock::now() + attempt_timeout_) : deadline_;
  }

  void NotConnected(const grpc::Status& status) {
    // Our own impatience says less than what was heard before.
    if (reasons_[at_].empty() || status.error_code() == grpc::StatusCode::UNAVAILABLE) {
      reasons_[at_] = Reason(status);
    }
    // A server that refuses is not there; one that is only slow gets the whole time.
    bool refused = status.error_code() == grpc::StatusCode::UNAVAILABLE;
    bool all_tried = tried_ + 1 >= state_->endpoints.size();
    if (refused && all_tried && Clock::now() >= connect_until_) {
      state_->Failed(at_);
      return Finish(Unreachable(), Fate::kNotDone);
    }
    Next();
  }

  // Goes on with the next endpoint; after each round over all of them there is a pause.
  void Next() {
    state_->Failed(at_);
    at_ = (at_ + 1) % state_->endpoints.size();
    if (++tried_ < state_->endpoints.size()) return Try();
    tried_ = 0;
    auto when = std::min(deadline_, Clock::now() + backoff_);
    backoff_ = std::min<Clock::duration>(backoff_ * 2, kBackoffMax);
    // An alarm keeps what it calls, also after the call, and is itself kept by us.
    auto self = std::make_shared<std::shared_ptr<Attempts>>(shared_from_this());
    alarm_ = std::make_unique<grpc::Alarm>();
    alarm_->Set(WallTime(when), [self](bool) { std::exchange(*self, nullptr)->Try(); });
  }

  absl::Status Unreachable() const {
    std::string text = "no endpoint can be reached: ";
    for (size_t i = 0; i < reasons_.size(); ++i) {
      if (i > 0) text += "; ";
      text += state_->endpoints[i]->name() + ": " +
              (reasons_[i].empty() ? std::string("not tried in time") : reasons_[i]);
    }
    return absl::Status(Code::kUnavailable, text);
  }

  // Time is up between two tries: nothing is on its way.
  void GiveUp() {
    std::string last = reasons_[at_];
    for (const std::string& reason : reasons_) {
      if (last.empty()) last = reason;
    }
    Finish(absl::Status(Code::kDeadlineExceeded,
                        last.empty() ? "context deadline exceeded"
                                     : "context deadline exceeded; the last try said: " + last),
           Fate::kNotDone);
  }

  template <typename Then>
  void Run(const char* path, const grpc::ByteBuffer& request, Clock::time_point deadline,
           Then then) {
    sent_ = std::make_unique<Sent>();
    sent_->context.set_deadline(WallTime(deadline));
    state_->AddToken(&sent_->context);
    sent_->request = request;  // A reference to the same slices.
    endpoint().stub().UnaryCall(
        &sent_->context, path, grpc::StubOptions(), &sent_->request, &sent_->response,
        [self = shared_from_this(), then](grpc::Status status) { then(status); });
  }

  void Finish(absl::Status status, Fate fate) {
    Answer<std::string> answer;
    answer.status = std::move(status);
    answer.fate = fate;
    answer.endpoint = endpoint().name();
    if (answer.ok()) answer.response = ToString(sent_->response);
    std::move(done_)(std::move(answer));
  }

  // What gRPC works with during a try.
  struct Sent {
    grpc::ClientContext context;
    grpc::ByteBuffer request;
    grpc::ByteBuffer response;
  };

  // Constant after construction.
  State* const state_;
  const char* const path_;
  const Kind kind_;
  const grpc::ByteBuffer request_;
  const std::chrono::nanoseconds attempt_timeout_;
  const Clock::time_point deadline_;

  // Touched by one callback at a time.
  Clock::time_point connect_until_;
  size_t at_;         // The endpoint in use.
  size_t tried_ = 0;  // In this round.
  Clock::duration backoff_ = kBackoffMin;
  bool renewed_token_ = false;
  std::vector<std::string> reasons_;  // By endpoint: why it failed last.
  std::unique_ptr<grpc::Alarm> alarm_;
  std::unique_ptr<Sent> sent_;
  Done<std::string> done_;
};

absl::Status Client::Check(const Options& options) {
  if (options.endpoints.empty()) {
    return absl::Status(Code::kInvalidArgument, "no endpoint is given; see --endpoints");
  }
  for (const std::string& endpoint : options.endpoints) {
    if (auto target = ParseEndpoint(endpoint, options.tls); !target.ok()) return target.status();
  }
  return absl::OkStatus();
}

Client::Client(Options options) : state_(std::make_unique<State>()) {
  state_->options = std::move(options);
  for (const std::string& endpoint : state_->options.endpoints) {
    auto target = ParseEndpoint(endpoint, state_->options.tls);
    if (!target.ok()) continue;  // Check() has refused it.
    state_->endpoints.push_back(std::make_unique<Endpoint>(
        endpoint,
        grpc::CreateCustomChannel(target->address, Credentials(state_->options, target->tls),
                                  Arguments(state_->options))));
  }
}

Client::~Client() {
  std::unique_lock lock(state_->mutex);
  state_->drained.wait(lock, [this] { return state_->calls == 0; });
}

void Client::CallBytes(const char* path, Kind kind, std::string request, const CallOptions& options,
                       Done<std::string> done) {
  {
    std::lock_guard lock(state_->mutex);
    ++state_->calls;
  }
  std::make_shared<Attempts>(state_.get(), path, kind, std::move(request), options, std::move(done))
      ->Try();
}

Answer<std::string> Client::StreamBytesAndWait(const char* path, std::string request,
                                               const CallOptions& options,
                                               std::function<bool(const std::string&)> each) {
  const Clock::time_point deadline = Clock::now() + Clamp(options.timeout);
  Answer<std::string> answer;
  while (true) {
    // Finds an endpoint that answers, and a token where one is needed.
    CallOptions left = options;
    left.timeout = absl::FromChrono(deadline - Clock::now());
    Answer<pb::StatusResponse> ready = CallAndWait(kStatus, pb::StatusRequest(), left);
    if (!ready.ok()) {
      answer.status = ready.status;
      answer.fate = Fate::kNotDone;
      answer.endpoint = ready.endpoint;
      return answer;
    }
    size_t at = state_->current.load();
    Endpoint& endpoint = *state_->endpoints[at];
    answer.endpoint = endpoint.name();

    grpc::ClientContext context;
    context.set_deadline(WallTime(deadline));
    state_->AddToken(&context);
    grpc::CompletionQueue queue;
    auto stream = endpoint.stub().PrepareCall(&context, path, &queue);
    auto finished = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      return queue.Next(&tag, &ok) && ok;
    };
    stream->StartCall(nullptr);
    bool going = finished();
    if (going) {
      stream->WriteLast(ToBuffer(request), grpc::WriteOptions(), nullptr);
      going = finished();
    }
    bool arrived = false;
    bool broken = false;
    while (going) {
      grpc::ByteBuffer buffer;
      stream->Read(&buffer, nullptr);
      going = finished();
      if (!going) break;
      arrived = true;
      if (!each(ToString(buffer))) {
        broken = true;
        context.TryCancel();
        break;
      }
    }
    grpc::Status status;
    stream->Finish(&status, nullptr);
    finished();
    queue.Shutdown();
    while (finished()) {
    }
    answer.status = broken ? absl::Status(Code::kInternal, endpoint.name() +
                                                               " sent a response that cannot be "
                                                               "parsed")
                           : ToStatus(status);
    answer.fate = answer.ok() ? Fate::kDone : Fate::kNotDone;
    bool again = !arrived && !broken && Clock::now() < deadline &&
                 Judge(Kind::kRead, answer.status.code(), status.error_message()).retry;
    if (!again) return answer;
    state_->Failed(at);
  }
}

struct Client::Stream::Call {
  enum Tag : int { kStarted, kRead, kWritten, kFinished };
  // gRPC hands a tag back and never follows it. NOLINTNEXTLINE(performance-no-int-to-ptr)
  static void* TagOf(int tag) { return reinterpret_cast<void*>(static_cast<intptr_t>(tag)); }

  // Starts what waits, if nothing is on its way.
  void WriteNext() {
    if (writing || over || waiting.empty()) return;
    writing = true;
    grpc::ByteBuffer buffer = ToBuffer(waiting.front());
    waiting.pop_front();
    stream->Write(buffer, TagOf(kWritten));
  }

  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  std::unique_ptr<grpc::GenericClientAsyncReaderWriter> stream;
  grpc::ByteBuffer read;
  grpc::Status status;
  bool finished = false;

  std::mutex mutex;  // Guards what follows, and Write.
  std::deque<std::string> waiting;
  bool writing = false;
  bool over = false;
};

Client::Stream::Stream(std::unique_ptr<Call> call, State* state, size_t endpoint)
    : call_(std::move(call)), state_(state), endpoint_(endpoint) {}

Client::Stream::~Stream() {
  Cancel();
  if (!call_->finished) Finish().IgnoreError();
}

// Until `tag` comes; whether it is good news.
bool Client::Stream::Await(int wanted) {
  void* tag = nullptr;
  bool ok = false;
  while (call_->queue.Next(&tag, &ok)) {
    if (tag == Call::TagOf(wanted)) return ok;
    if (tag != Call::TagOf(Call::kWritten)) continue;
    std::lock_guard lock(call_->mutex);
    call_->writing = false;
    call_->WriteNext();
  }
  return false;
}

void Client::Stream::Write(std::string request) {
  std::lock_guard lock(call_->mutex);
  call_->waiting.push_back(std::move(request));
  call_->WriteNext();
}

std::optional<std::string> Client::Stream::Read() {
  call_->stream->Read(&call_->read, Call::TagOf(Call::kRead));
  if (!Await(Call::kRead)) return std::nullopt;
  return ToString(call_->read);
}

absl::Status Client::Stream::Finish() {
  {
    std::lock_guard lock(call_->mutex);
    call_->over = true;
    call_->waiting.clear();
  }
  call_->finished = true;
  call_->stream->Finish(&call_->status, Call::TagOf(Call::kFinished));
  Await(Call::kFinished);
  call_->queue.Shutdown();
  Await(-1);
  if (!call_->status.ok()) state_->Failed(endpoint_);
  if (state_->TokenIsStale(call_->status.error_message())) state_->ForgetToken();
  return ToStatus(call_->status);
}

void Client::Stream::Cancel() { call_->context.TryCancel(); }

absl::StatusOr<std::unique_ptr<Client::Stream>> Client::OpenStream(
    const char* path, const std::vector<std::pair<std::string, std::string>>& metadata,
    const CallOptions& options) {
  // Finds an endpoint that answers, and a token where one is needed.
  Answer<pb::StatusResponse> ready = CallAndWait(kStatus, pb::StatusRequest(), options);
  if (!ready.ok()) return ready.status;
  const size_t at = state_->current.load();
  auto call = std::make_unique<Stream::Call>();
  state_->AddToken(&call->context);
  for (const auto& [name, value] : metadata) call->context.AddMetadata(name, value);
  call->stream = state_->endpoints[at]->stub().PrepareCall(&call->context, path, &call->queue);
  call->stream->StartCall(Stream::Call::TagOf(Stream::Call::kStarted));
  auto stream = std::unique_ptr<Stream>(new Stream(std::move(call), state_.get(), at));
  stream->Await(Stream::Call::kStarted);
  return stream;
}

}  // namespace kv::client

#include "server/replica/grpc_calls.h"

#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <utility>

#include "server/replica/caller.h"
#include "server/replica/grpc_exchange.h"
#include "storage/status.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

constexpr size_t kOpenCallsMax = 256;  // Of one stream; the next is read when one is answered.
constexpr size_t kUnsentMax = 4096;    // To one address.

absl::Status Unsent(const std::string& target, std::string_view why) {
  return MakeStatus(absl::StatusCode::kUnavailable, "{} was not reached: {}", target, why);
}

}  // namespace

// Deletes itself when the stream is over.
class CallLink::Stream final : public grpc::ClientBidiReactor<pb::Call, pb::CallAnswer> {
 public:
  Stream(std::shared_ptr<CallLink> link, std::shared_ptr<grpc::Channel> channel)
      : token_(link->port_->live()),
        link_(std::move(link)),
        channel_(std::move(channel)),
        stub_(channel_) {}

  void Begin() {
    stub_.async()->Ask(&context_, this);
    AddHold();  // For writes from outside the reactions; gone with the first failed read.
    StartRead(&incoming_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadInitialMetadataDone(bool ok) override {
    if (ok) link_->OnOpen(this);
  }
  void OnReadDone(bool ok) override {
    if (!ok) {
      link_->OnBroken(this);
      RemoveHold();
      return;
    }
    link_->OnAnswer(incoming_);
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    if (ok) link_->OnWritten();
  }
  void OnDone(const grpc::Status& status) override {
    link_->OnDone(this, status.error_message());
    delete this;
  }

 private:
  Live::Token token_;  // First: it goes last.
  const std::shared_ptr<CallLink> link_;
  const std::shared_ptr<grpc::Channel> channel_;
  pb::Peer::Stub stub_;
  grpc::ClientContext context_;
  pb::CallAnswer incoming_;
};

CallLink::CallLink(PeerPort* port, std::string target) : port_(port), target_(std::move(target)) {}

void CallLink::Call(const std::string& method, std::string request, absl::Duration deadline,
                    Network::CallDone done) {
  std::string refusal;
  {
    MutexLock lock(mutex_);
    if (closed_) {
      refusal = "this process is stopping";
    } else if (unsent_.size() >= kUnsentMax) {
      refusal = "too many calls wait for it";
    } else {
      unsent_.push_back({.number = next_number_++,
                         .deadline = port_->runtime()->Uptime() + deadline,
                         .method = method,
                         .request = std::move(request),
                         .done = std::move(done)});
      if (stream_ == nullptr) {
        if (channel_ == nullptr) {
          channel_ = DialPeer(target_, port_->options().message_bytes_max);
        }
        stream_ = new Stream(shared_from_this(), channel_);
        stream_->Begin();
      }
    }
  }
  if (!refusal.empty()) return std::move(done)(Unsent(target_, refusal));
  Pump();
}

void CallLink::Pump() {
  MutexLock lock(mutex_);
  if (!open_ || writing_ || unsent_.empty()) return;
  Pending next = std::move(unsent_.front());
  unsent_.pop_front();
  absl::Duration left = next.deadline - port_->runtime()->Uptime();
  outgoing_.Clear();
  outgoing_.set_id(next.number);
  outgoing_.set_method(next.method);
  outgoing_.set_body(std::move(next.request));
  outgoing_.set_deadline_ms(static_cast<uint64_t>(std::clamp<int64_t>(
      absl::ToInt64Milliseconds(left), 0, absl::ToInt64Milliseconds(absl::Hours(24)))));
  uint64_t number = next.number;
  sent_.emplace(number, std::move(next));
  writing_ = true;
  stream_->StartWrite(&outgoing_);
}

void CallLink::OnOpen(Stream* stream) {
  {
    MutexLock lock(mutex_);
    if (stream_ != stream || closed_) return;
    open_ = true;
  }
  Pump();
}

void CallLink::OnWritten() {
  {
    MutexLock lock(mutex_);
    writing_ = false;
  }
  Pump();
}

void CallLink::OnAnswer(pb::CallAnswer& answer) {
  Network::CallDone done;
  {
    MutexLock lock(mutex_);
    auto it = sent_.find(answer.id());
    if (it == sent_.end()) return;
    done = std::move(it->second.done);
    sent_.erase(it);
  }
  if (answer.code() == 0) return std::move(done)(std::move(*answer.mutable_body()));
  std::move(done)(absl::Status(static_cast<absl::StatusCode>(answer.code()), answer.message()));
}

void CallLink::OnBroken(Stream* stream) {
  MutexLock lock(mutex_);
  if (stream_ == stream) open_ = false;
}

void CallLink::OnDone(Stream* stream, const std::string& why) {
  std::deque<Pending> unsent;
  std::map<uint64_t, Pending> sent;
  {
    MutexLock lock(mutex_);
    if (stream_ != stream) return;
    stream_ = nullptr;
    open_ = false;
    writing_ = false;
    unsent.swap(unsent_);
    sent.swap(sent_);
  }
  for (Pending& call : unsent) std::move(call.done)(Unsent(target_, why));
  for (auto& [number, call] : sent) {
    std::move(call.done)(MakeStatus(absl::StatusCode::kUnknown,
                                    "the connection to {} broke before it answered: {}", target_,
                                    why));
  }
}

bool CallLink::Sweep(absl::Duration now) {
  std::vector<Network::CallDone> unsent;
  std::vector<Network::CallDone> sent;
  bool waiting = false;
  {
    MutexLock lock(mutex_);
    for (auto it = unsent_.begin(); it != unsent_.end();) {
      if (it->deadline > now) {
        ++it;
        continue;
      }
      unsent.push_back(std::move(it->done));
      it = unsent_.erase(it);
    }
    for (auto it = sent_.begin(); it != sent_.end();) {
      if (it->second.deadline > now) {
        ++it;
        continue;
      }
      sent.push_back(std::move(it->second.done));
      it = sent_.erase(it);
    }
    waiting = !unsent_.empty() || !sent_.empty();
  }
  for (Network::CallDone& done : unsent) std::move(done)(Unsent(target_, "no time is left"));
  for (Network::CallDone& done : sent) {
    std::move(done)(
        MakeStatus(absl::StatusCode::kDeadlineExceeded, "{} did not answer in time", target_));
  }
  return waiting;
}

void CallLink::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
  open_ = false;
  if (stream_ != nullptr) stream_->Cancel();
}

// Where the answers to one stream's calls are handed in, also after the stream is gone.
class CallTable::Desk {
 public:
  explicit Desk(Session* session) : session_(session) {}

  void Opened() {
    MutexLock lock(mutex_);
    ++open_;
  }
  void Answer(uint64_t id, absl::StatusOr<std::string> result);
  void OnWritten(bool ok);
  // Whether another call may be read now; otherwise it is read when one is answered.
  bool MayRead() {
    MutexLock lock(mutex_);
    if (open_ < kOpenCallsMax) return true;
    read_held_ = true;
    return false;
  }
  // True: the caller finishes the stream.
  bool Finish() {
    MutexLock lock(mutex_);
    return !std::exchange(finished_, true);
  }
  void Gone() {
    MutexLock lock(mutex_);
    session_ = nullptr;
  }

 private:
  void Write() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  Mutex mutex_;
  Session* session_ ABSL_GUARDED_BY(mutex_);
  size_t open_ ABSL_GUARDED_BY(mutex_) = 0;
  bool read_held_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<pb::CallAnswer> answers_ ABSL_GUARDED_BY(mutex_);
  pb::CallAnswer outgoing_;  // Belongs to the write under way.
};

// Deletes itself when the stream is over.
class CallTable::Session final : public grpc::ServerBidiReactor<pb::Call, pb::CallAnswer> {
 public:
  explicit Session(CallTable* table)
      : token_(table->port_->live()), table_(table), desk_(std::make_shared<Desk>(this)) {
    StartSendInitialMetadata();  // Tells the caller that its calls arrive.
    Read();
  }

  void Read() { StartRead(&incoming_); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      if (desk_->Finish()) Finish(grpc::Status::OK);
      return;
    }
    Serve();
    if (desk_->MayRead()) Read();
  }
  void OnWriteDone(bool ok) override { desk_->OnWritten(ok); }
  void OnDone() override {
    desk_->Gone();
    delete this;
  }

 private:
  void Serve() {
    uint64_t id = incoming_.id();
    desk_->Opened();
    // Whoever drops the call has left its outcome open.
    Caller<absl::StatusOr<std::string>> caller(
        [desk = desk_, id](absl::StatusOr<std::string> result) {
          desk->Answer(id, std::move(result));
        },
        MakeStatus(absl::StatusCode::kUnknown, "the call was dropped"));
    std::shared_ptr<const Network::Serve> serve = table_->Find(incoming_.method());
    if (serve == nullptr) {
      return caller.Answer(MakeStatus(absl::StatusCode::kUnavailable,
                                      "nobody here answers \"{}\" now", incoming_.method()));
    }
    (*serve)(std::move(*incoming_.mutable_body()),
             absl::Milliseconds(static_cast<int64_t>(
                 std::min<uint64_t>(incoming_.deadline_ms(), 24 * 3600 * 1000))),
             [caller = std::move(caller)](absl::StatusOr<std::string> result) mutable {
               caller.Answer(std::move(result));
             });
  }

  Live::Token token_;  // First: it goes last.
  CallTable* const table_;
  const std::shared_ptr<Desk> desk_;
  pb::Call incoming_;
};

void CallTable::Desk::Answer(uint64_t id, absl::StatusOr<std::string> result) {
  MutexLock lock(mutex_);
  --open_;
  if (session_ == nullptr || finished_) return;
  pb::CallAnswer& answer = answers_.emplace_back();
  answer.set_id(id);
  if (result.ok()) {
    answer.set_body(*std::move(result));
  } else {
    answer.set_code(static_cast<uint32_t>(result.status().code()));
    answer.set_message(std::string(Message(result.status())));
  }
  Write();
  if (read_held_) {
    read_held_ = false;
    session_->Read();
  }
}

void CallTable::Desk::OnWritten(bool ok) {
  MutexLock lock(mutex_);
  writing_ = false;
  if (ok) Write();
}

void CallTable::Desk::Write() {
  if (writing_ || finished_ || session_ == nullptr || answers_.empty()) return;
  outgoing_ = std::move(answers_.front());
  answers_.pop_front();
  writing_ = true;
  session_->StartWrite(&outgoing_);
}

void CallTable::Handle(const std::string& method, Network::Serve serve) {
  MutexLock lock(mutex_);
  if (serve) {
    serves_[method] = std::make_shared<const Network::Serve>(std::move(serve));
  } else {
    serves_.erase(method);
  }
}

std::shared_ptr<const Network::Serve> CallTable::Find(const std::string& method) {
  MutexLock lock(mutex_);
  auto it = serves_.find(method);
  return it == serves_.end() ? nullptr : it->second;
}

grpc::ServerBidiReactor<pb::Call, pb::CallAnswer>* CallTable::Accept(grpc::CallbackServerContext*) {
  return new Session(this);
}

}  // namespace kv

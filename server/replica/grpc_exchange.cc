#include "server/replica/grpc_exchange.h"

#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/client_callback.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "server/replica/peer_codec.h"
#include "storage/status.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

constexpr size_t kBatchBytes = size_t{1} << 20;  // After so much the urgent ones get a turn.
constexpr size_t kRepliesMax = 64;               // Waiting to go back along a peer's own stream.
constexpr absl::Duration kRedial = absl::Milliseconds(100);
constexpr absl::Duration kRedialRefused = absl::Milliseconds(300);
constexpr absl::Duration kDialPatience = absl::Seconds(2);  // With one URL of several.

bool IsBulk(const raft::Envelope& envelope) {
  const auto* append = std::get_if<raft::Append>(&envelope.message);
  return append != nullptr && !append->entries.empty();
}

}  // namespace

std::shared_ptr<grpc::Channel> DialPeer(const std::string& target, size_t message_bytes_max) {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(static_cast<int>(message_bytes_max));
  arguments.SetMaxSendMessageSize(static_cast<int>(message_bytes_max));
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 500);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 2000);  // How long one attempt may take.
  arguments.SetInt(GRPC_ARG_DNS_MIN_TIME_BETWEEN_RESOLUTIONS_MS, 1000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 2000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 3000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return grpc::CreateCustomChannel(target, grpc::InsecureChannelCredentials(), arguments);
}

// Deletes itself when the stream is over. Everything it learns goes to the link.
class PeerLink::Stream final : public grpc::ClientBidiReactor<pb::ToPeer, pb::FromPeer> {
 public:
  Stream(std::shared_ptr<PeerLink> link, std::shared_ptr<grpc::Channel> channel)
      : token_(link->port_->live()),
        link_(std::move(link)),
        channel_(std::move(channel)),
        stub_(channel_) {}

  void Begin() {
    link_->port_->FillHandshake(&link_->peer_, handshake_.mutable_handshake());
    context_.set_wait_for_ready(true);
    stub_.async()->Exchange(&context_, this);
    AddHold();  // For writes from outside the reactions; gone with the first failed read.
    StartRead(&incoming_);
    StartWrite(&handshake_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnReadDone(bool ok) override {
    if (!ok) {
      link_->OnBroken(this);
      RemoveHold();
      return;
    }
    link_->OnMessage(this, incoming_);
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
  const std::shared_ptr<PeerLink> link_;
  const std::shared_ptr<grpc::Channel> channel_;
  pb::Peer::Stub stub_;
  grpc::ClientContext context_;
  pb::ToPeer handshake_;
  pb::FromPeer incoming_;
};

PeerLink::PeerLink(PeerPort* port, PeerAddress peer) : port_(port), peer_(std::move(peer)) {}

void PeerLink::Open() { Dial(); }

void PeerLink::Close() {
  MutexLock lock(mutex_);
  closed_ = true;
  accepted_ = false;
  urgent_.clear();
  bulk_.clear();
  bytes_ = 0;
  if (stream_ != nullptr) stream_->Cancel();
}

bool PeerLink::connected() const {
  MutexLock lock(mutex_);
  return accepted_;
}

void PeerLink::Dial() {
  Stream* stream = nullptr;
  {
    MutexLock lock(mutex_);
    if (closed_ || stream_ != nullptr || peer_.urls.empty() || port_->stopping()) return;
    const std::string& url = peer_.urls[turn_ % peer_.urls.size()];
    absl::StatusOr<std::string> target = HostAndPort(url);
    if (!target.ok()) {
      spdlog::error("member {:x}: {}", peer_.id, Message(target.status()));
      ++turn_;
      if (peer_.urls.size() > 1) DialLater(kRedialRefused);
      return;
    }
    std::shared_ptr<grpc::Channel>& channel = channels_[*target];
    if (channel == nullptr) channel = DialPeer(*target, port_->options().message_bytes_max);
    stream = new Stream(shared_from_this(), channel);
    stream_ = stream;
    greeted_ = false;
    stream->Begin();
  }
  if (peer_.urls.size() < 2) return;
  port_->timers().PostAfter(kDialPatience, [self = weak_from_this(), stream] {
    std::shared_ptr<PeerLink> link = self.lock();
    if (link == nullptr) return;
    MutexLock lock(link->mutex_);
    if (link->stream_ != stream || link->accepted_) return;
    ++link->turn_;
    link->stream_->Cancel();
  });
}

void PeerLink::DialLater(absl::Duration delay) {
  port_->timers().PostAfter(delay, [self = weak_from_this()] {
    if (std::shared_ptr<PeerLink> link = self.lock()) link->Dial();
  });
}

void PeerLink::OnMessage(Stream* stream, pb::FromPeer& message) {
  if (message.has_batch()) {
    if (connected()) port_->Deliver(peer_.id, message.batch());
    return;
  }
  if (!message.has_handshake()) return;
  std::string refusal = port_->JudgeAnswer(peer_, message.handshake());
  if (refusal.empty()) {
    {
      MutexLock lock(mutex_);
      if (closed_ || stream_ != stream) return;
      accepted_ = true;
      complaint_.clear();
    }
    spdlog::info("connected to {} (member {:x})", message.handshake().self().name(), peer_.id);
    port_->PeerMet(message.handshake().self());
    return;
  }
  MutexLock lock(mutex_);
  if (complaint_ != refusal) {
    spdlog::warn("no connection to member {:x} at {}: {}", peer_.id,
                 peer_.urls[turn_ % peer_.urls.size()], refusal);
    complaint_ = std::move(refusal);
  }
  ++turn_;
  stream->Cancel();
}

void PeerLink::OnBroken(Stream* stream) {
  bool lost = false;
  {
    MutexLock lock(mutex_);
    if (stream_ != stream) return;
    lost = std::exchange(accepted_, false);
    urgent_.clear();
    bulk_.clear();
    bytes_ = 0;
  }
  if (!lost) return;
  spdlog::warn("lost the connection to member {:x}", peer_.id);
  port_->PeerLost(peer_.id);
}

void PeerLink::OnDone(Stream* stream, const std::string&) {
  bool refused = false;
  {
    MutexLock lock(mutex_);
    if (stream_ != stream) return;
    stream_ = nullptr;
    if (writer_ == Writer::kWriting) writer_ = Writer::kIdle;
    refused = !complaint_.empty();
    if (closed_) return;
  }
  if (!port_->stopping()) DialLater(refused ? kRedialRefused : kRedial);
}

void PeerLink::Send(raft::Envelope envelope) {
  bool overflowed = false;
  {
    MutexLock lock(mutex_);
    if (!accepted_) return;
    size_t bytes = EnvelopeBytes(envelope);
    if (bytes_ > 0 && bytes_ + bytes > port_->options().outbox_bytes_max) {
      overflowed = !std::exchange(overflowed_, true);
    } else {
      bytes_ += bytes;
      (IsBulk(envelope) ? bulk_ : urgent_).push_back(std::move(envelope));
    }
    if (writer_ != Writer::kIdle && !overflowed) return;
  }
  if (overflowed) {
    spdlog::warn("member {:x} reads too slowly: messages to it are dropped", peer_.id);
    port_->PeerLost(peer_.id);
  }
  Pump();
}

std::vector<raft::Envelope> PeerLink::TakeBatch() {
  std::vector<raft::Envelope> batch;
  size_t bytes = 0;
  for (std::deque<raft::Envelope>* queue : {&urgent_, &bulk_}) {
    while (!queue->empty()) {
      size_t size = EnvelopeBytes(queue->front());
      if (!batch.empty() && bytes + size > kBatchBytes) break;
      bytes += size;
      batch.push_back(std::move(queue->front()));
      queue->pop_front();
    }
  }
  bytes_ -= bytes;
  if (bytes_ == 0) overflowed_ = false;
  return batch;
}

// Encodes outside the mutex, so that whoever sends meanwhile does not wait for it. Begins the write
// inside, so that the stream cannot end in between.
void PeerLink::Pump() {
  for (;;) {
    std::vector<raft::Envelope> batch;
    Stream* stream = nullptr;
    {
      MutexLock lock(mutex_);
      if (!accepted_ || !greeted_ || writer_ != Writer::kIdle) return;
      batch = TakeBatch();
      if (batch.empty()) return;
      writer_ = Writer::kEncoding;
      stream = stream_;
    }
    outgoing_.Clear();
    for (const raft::Envelope& envelope : batch) {
      EncodeEnvelope(envelope, outgoing_.mutable_batch()->add_envelopes());
    }
    if (port_->options().sent) port_->options().sent(peer_.id, outgoing_.ByteSizeLong());
    MutexLock lock(mutex_);
    if (accepted_ && stream_ == stream) {
      writer_ = Writer::kWriting;
      stream->StartWrite(&outgoing_);
      return;
    }
    writer_ = Writer::kIdle;
  }
}

void PeerLink::OnWritten() {
  {
    MutexLock lock(mutex_);
    if (std::exchange(greeted_, true)) writer_ = Writer::kIdle;
  }
  Pump();
}

// Deletes itself when the stream is over.
class PeerSessions::Session final : public grpc::ServerBidiReactor<pb::ToPeer, pb::FromPeer> {
 public:
  Session(PeerSessions* sessions, grpc::CallbackServerContext* context)
      : token_(sessions->port_->live()), sessions_(sessions), context_(context) {
    StartRead(&incoming_);
  }

  void Cancel() { context_->TryCancel(); }

  void Send(raft::Envelope envelope) {
    MutexLock lock(mutex_);
    if (finished_ || replies_.size() >= kRepliesMax) return;
    replies_.push_back(std::move(envelope));
    WriteReply();
  }

  void OnReadDone(bool ok) override {
    if (!ok) return End(grpc::Status::OK);
    if (peer_ == 0) return Greet();
    if (incoming_.has_batch()) sessions_->port_->Deliver(peer_, incoming_.batch());
    StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) override {
    MutexLock lock(mutex_);
    writing_ = false;
    if (ok) WriteReply();
  }
  void OnDone() override {
    {
      MutexLock lock(sessions_->mutex_);
      auto it = sessions_->sessions_.find(peer_);
      if (it != sessions_->sessions_.end() && it->second == this) sessions_->sessions_.erase(it);
    }
    delete this;
  }

 private:
  void Greet() {
    PeerPort* port = sessions_->port_;
    std::string refusal = incoming_.has_handshake() ? port->Judge(incoming_.handshake())
                                                    : "a stream begins with a handshake";
    pb::HandshakeAnswer* answer = outgoing_.mutable_handshake();
    port->FillHandshake(nullptr, answer->mutable_self());
    answer->set_protocol(1);
    port->FillKnown(incoming_.handshake(), answer);
    answer->set_refusal(refusal);
    if (!refusal.empty()) {
      spdlog::warn("refused {}: {}", context_->peer(), refusal);
      MutexLock lock(mutex_);
      finished_ = true;
      StartWriteAndFinish(&outgoing_, grpc::WriteOptions(), grpc::Status::OK);
      return;
    }
    peer_ = incoming_.handshake().member_id();
    {
      MutexLock lock(sessions_->mutex_);
      Session*& place = sessions_->sessions_[peer_];
      if (place != nullptr) place->Cancel();
      place = this;
    }
    port->PeerMet(incoming_.handshake());
    StartWrite(&outgoing_);
    StartRead(&incoming_);
  }
  void WriteReply() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_ || replies_.empty()) return;
    outgoing_.Clear();
    while (!replies_.empty()) {
      EncodeEnvelope(replies_.front(), outgoing_.mutable_batch()->add_envelopes());
      replies_.pop_front();
    }
    writing_ = true;
    StartWrite(&outgoing_);
  }
  void End(grpc::Status status) {
    MutexLock lock(mutex_);
    if (std::exchange(finished_, true)) return;
    Finish(std::move(status));
  }

  Live::Token token_;  // First: it goes last.
  PeerSessions* const sessions_;
  grpc::CallbackServerContext* const context_;
  MemberId peer_ = 0;  // Set by the first read, before the session is known to anybody.
  pb::ToPeer incoming_;
  Mutex mutex_;
  bool writing_ ABSL_GUARDED_BY(mutex_) = true;  // The answer to the handshake goes first.
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<raft::Envelope> replies_ ABSL_GUARDED_BY(mutex_);
  pb::FromPeer outgoing_;  // Belongs to the write under way.
};

grpc::ServerBidiReactor<pb::ToPeer, pb::FromPeer>* PeerSessions::Accept(
    grpc::CallbackServerContext* context) {
  return new Session(this, context);
}

void PeerSessions::Send(raft::Envelope envelope) {
  MutexLock lock(mutex_);
  auto it = sessions_.find(envelope.to);
  if (it != sessions_.end()) it->second->Send(std::move(envelope));
}

}  // namespace kv

#include "server/replica/grpc_snapshots.h"

#include <grpcpp/support/client_callback.h>
#include <spdlog/spdlog.h>

#include <optional>
#include <utility>

#include "server/replica/grpc_exchange.h"
#include "server/replica/peer_codec.h"
#include "server/replica/snapshot_transfer.h"
#include "storage/status.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

}  // namespace

// Reads a piece on the disk's threads, writes it, and so on. Deletes itself when it is over.
class SnapshotSenders::Upload final : public grpc::ClientWriteReactor<pb::SnapshotChunk> {
 public:
  Upload(SnapshotSenders* senders, std::shared_ptr<grpc::Channel> channel, MemberId to,
         Snapshot snapshot, Network::SnapshotDone done)
      : token_(senders->port_->live()),
        senders_(senders),
        channel_(std::move(channel)),
        stub_(channel_),
        to_(to),
        reader_(senders->port_->options().env, std::move(snapshot)),
        done_(std::move(done)) {}

  pb::SnapshotHeader* header() { return chunk_.mutable_header(); }

  void Begin() {
    stub_.async()->SendSnapshot(&context_, &taken_, this);
    AddHold();  // For writes from the disk's threads.
    StartWrite(&chunk_);
    StartCall();
  }
  void Cancel() { context_.TryCancel(); }

  void OnWriteDone(bool ok) override {
    if (!ok) return RemoveHold();
    senders_->port_->disk().Post([this] { WriteNext(); });
  }
  void OnDone(const grpc::Status& status) override {
    bool delivered = status.ok() && taken_.refusal().empty();
    if (!delivered) {
      spdlog::warn("member {:x} did not take the snapshot: {}", to_,
                   status.ok() ? taken_.refusal() : status.error_message());
    }
    {
      MutexLock lock(senders_->mutex_);
      senders_->uploads_.erase(this);
    }
    std::move(done_)(delivered);
    delete this;
  }

 private:
  void WriteNext() {
    absl::StatusOr<std::string> piece = reader_.Next();
    if (piece.ok() && !piece->empty()) {
      chunk_.Clear();
      chunk_.set_data(*std::move(piece));
      if (senders_->port_->options().sent)
        senders_->port_->options().sent(to_, chunk_.data().size());
      return StartWrite(&chunk_);
    }
    if (piece.ok()) {
      StartWritesDone();
    } else {
      spdlog::error("cannot read the snapshot for member {:x}: {}", to_, Describe(piece.status()));
      context_.TryCancel();
    }
    RemoveHold();
  }

  Live::Token token_;  // First: it goes last.
  SnapshotSenders* const senders_;
  const std::shared_ptr<grpc::Channel> channel_;
  pb::Peer::Stub stub_;
  const MemberId to_;
  SnapshotReader reader_;
  Network::SnapshotDone done_;
  grpc::ClientContext context_;
  pb::SnapshotChunk chunk_;
  pb::SnapshotTaken taken_;
};

void SnapshotSenders::Send(const PeerAddress& to, raft::Envelope offer, Snapshot snapshot,
                           Network::SnapshotDone done) {
  absl::StatusOr<std::string> target = MakeStatus(absl::StatusCode::kUnavailable, "no address");
  Upload* upload = nullptr;
  {
    MutexLock lock(mutex_);
    if (!to.urls.empty()) target = HostAndPort(to.urls[turn_++ % to.urls.size()]);
    if (target.ok() && !port_->stopping()) {
      std::string manifest = EncodeManifest(snapshot.manifest);
      upload = new Upload(this, DialPeer(*target, port_->options().message_bytes_max), to.id,
                          std::move(snapshot), std::move(done));
      port_->FillHandshake(&to, upload->header()->mutable_handshake());
      EncodeEnvelope(offer, upload->header()->mutable_offer());
      upload->header()->set_manifest(std::move(manifest));
      uploads_.insert(upload);
      upload->Begin();
    }
  }
  if (upload == nullptr) std::move(done)(false);
}

void SnapshotSenders::CancelAll() {
  MutexLock lock(mutex_);
  for (Upload* upload : uploads_) upload->Cancel();
}

// Reads a piece, writes it on the disk's threads, and so on. Deletes itself when it is over.
class SnapshotReceivers::Download final : public grpc::ServerReadReactor<pb::SnapshotChunk> {
 public:
  Download(SnapshotReceivers* receivers, pb::SnapshotTaken* taken)
      : token_(receivers->port_->live()), receivers_(receivers), taken_(taken) {
    StartRead(&chunk_);
  }

  void OnReadDone(bool ok) override {
    receivers_->port_->disk().Post([this, ok] { ok ? Take() : End(); });
  }
  void OnDone() override {
    if (from_ != 0) {
      MutexLock lock(receivers_->mutex_);
      receivers_->senders_.erase(from_);
    }
    delete this;
  }
  void OnCancel() override {
    MutexLock lock(mutex_);
    cancelled_ = true;
  }

 private:
  void Take() {
    PeerPort* port = receivers_->port_;
    std::string refusal;
    if (receiver_ == nullptr) {
      refusal = Begin();
    } else {
      if (port->options().received) port->options().received(from_, chunk_.data().size());
      absl::Status status = receiver_->Append(chunk_.data());
      if (!status.ok()) refusal = std::string(Message(status));
    }
    if (!refusal.empty()) return Refuse(std::move(refusal));
    StartRead(&chunk_);
  }

  std::string Begin() {
    PeerPort* port = receivers_->port_;
    if (!chunk_.has_header()) return "a snapshot begins with a header";
    std::string refusal = port->Judge(chunk_.header().handshake());
    if (!refusal.empty()) return refusal;
    MemberId from = chunk_.header().handshake().member_id();
    offer_ = DecodeEnvelope(chunk_.header().offer());
    if (!offer_ || !std::holds_alternative<raft::SnapshotOffer>(offer_->message) ||
        offer_->from != from) {
      return "a snapshot comes with an offer";
    }
    std::string path;
    {
      MutexLock lock(receivers_->mutex_);
      if (!receivers_->senders_.insert(from).second) {
        return "another snapshot of the same member is still arriving";
      }
      from_ = from;
      path = fmt::format("{}/incoming/{}", port->options().data_dir, receivers_->next_++);
    }
    receiver_ = std::make_unique<SnapshotReceiver>(port->options().env, std::move(path));
    absl::Status status = receiver_->Begin(chunk_.header().manifest());
    return status.ok() ? std::string() : std::string(Message(status));
  }

  // The sender is done, or gone.
  void End() {
    if (receiver_ == nullptr) return Refuse("there was no snapshot");
    if (cancelled()) return Refuse("the sender is gone");
    absl::StatusOr<Snapshot> snapshot = receiver_->Finish();
    if (!snapshot.ok()) return Refuse(std::string(Message(snapshot.status())));
    receivers_->port_->DeliverSnapshot(*std::move(offer_), *std::move(snapshot));
    Finish(grpc::Status::OK);
  }

  bool cancelled() {
    MutexLock lock(mutex_);
    return cancelled_;
  }

  void Refuse(std::string refusal) {
    receiver_.reset();
    if (from_ != 0) spdlog::warn("refused the snapshot of member {:x}: {}", from_, refusal);
    taken_->set_refusal(std::move(refusal));
    Finish(grpc::Status::OK);
  }

  Live::Token token_;  // First: it goes last.
  SnapshotReceivers* const receivers_;
  pb::SnapshotTaken* const taken_;
  MemberId from_ = 0;
  std::optional<raft::Envelope> offer_;
  std::unique_ptr<SnapshotReceiver> receiver_;
  pb::SnapshotChunk chunk_;
  Mutex mutex_;
  bool cancelled_ ABSL_GUARDED_BY(mutex_) = false;
};

grpc::ServerReadReactor<pb::SnapshotChunk>* SnapshotReceivers::Accept(grpc::CallbackServerContext*,
                                                                      pb::SnapshotTaken* taken) {
  return new Download(this, taken);
}

}  // namespace kv

// Envelopes over gRPC: the stream that we dial to a peer, and the streams that peers dial to us.
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/internal/peer.grpc.pb.h"
#include "server/replica/peer_port.h"
#include "storage/mutex.h"

namespace kv {

// A channel to "host:port", tuned for peers: quick to come back, quick to notice silence.
std::shared_ptr<grpc::Channel> DialPeer(const std::string& target, size_t message_bytes_max);

// Our side's way to one peer. Keeps a stream open for as long as it lives; what is sent while there
// is none is lost.
class PeerLink : public std::enable_shared_from_this<PeerLink> {
 public:
  PeerLink(PeerPort* port, PeerAddress peer);

  void Open();   // Dials, and again whenever the stream ends.
  void Close();  // For good.
  void Send(raft::Envelope envelope);
  bool connected() const;
  const PeerAddress& peer() const { return peer_; }

 private:
  class Stream;
  enum class Writer { kIdle, kEncoding, kWriting };

  void Dial();
  void DialLater(absl::Duration delay);
  void OnMessage(Stream* stream, kvd::internal::FromPeer& message);
  void OnWritten();
  void OnBroken(Stream* stream);
  void OnDone(Stream* stream, const std::string& why);
  void Pump();
  std::vector<raft::Envelope> TakeBatch() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  PeerPort* const port_;
  const PeerAddress peer_;

  mutable Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;  // Which of the peer's URLs is tried.
  std::map<std::string, std::shared_ptr<grpc::Channel>> channels_ ABSL_GUARDED_BY(mutex_);
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;  // The one that is open or being opened.
  bool greeted_ ABSL_GUARDED_BY(mutex_) = false;      // Our handshake is written: batches may be.
  bool accepted_ ABSL_GUARDED_BY(mutex_) = false;     // Its handshake, by both.
  Writer writer_ ABSL_GUARDED_BY(mutex_) = Writer::kIdle;
  std::deque<raft::Envelope> urgent_ ABSL_GUARDED_BY(mutex_);
  std::deque<raft::Envelope> bulk_ ABSL_GUARDED_BY(mutex_);  // Appends with entries, in order.
  size_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;                 // Of both.
  bool overflowed_ ABSL_GUARDED_BY(mutex_) = false;
  std::string complaint_ ABSL_GUARDED_BY(mutex_);  // The latest refusal that was logged.

  kvd::internal::ToPeer outgoing_;  // Belongs to whoever made the writer not idle.
};

// The streams that peers dialled, one a peer: a newer one takes the place of an older.
class PeerSessions {
 public:
  explicit PeerSessions(PeerPort* port) : port_(port) {}

  grpc::ServerBidiReactor<kvd::internal::ToPeer, kvd::internal::FromPeer>* Accept(
      grpc::CallbackServerContext* context);
  // Back along the peer's own stream: for one whose address we do not know. Dropped without one.
  void Send(raft::Envelope envelope);

 private:
  class Session;

  PeerPort* const port_;
  Mutex mutex_;
  std::map<MemberId, Session*> sessions_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv

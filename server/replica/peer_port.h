// What all streams of one GrpcNetwork share: who this process is, whom it knows, and what a
// handshake must say to be accepted. Thread-safe.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "proto/internal/peer.pb.h"
#include "server/replica/grpc_network.h"
#include "storage/mutex.h"

namespace kv {

// Counts what must end before the network may go.
class Live {
 public:
  class Token {
   public:
    explicit Token(Live& live) : live_(live) {
      MutexLock lock(live_.mutex_);
      ++live_.count_;
    }
    ~Token() {
      MutexLock lock(live_.mutex_);
      if (--live_.count_ == 0) live_.none_.notify_all();
    }
    Token(const Token&) = delete;
    Token& operator=(const Token&) = delete;

   private:
    Live& live_;
  };

  void AwaitNone() {
    MutexLock lock(mutex_);
    while (count_ > 0) mutex_.Await(none_);
  }

 private:
  Mutex mutex_;
  std::condition_variable none_;
  int count_ ABSL_GUARDED_BY(mutex_) = 0;
};

class PeerPort {
 public:
  PeerPort(Runtime* runtime, GrpcNetworkOptions options);

  void Start(const LocalIdentity& self, Network::Handlers handlers);
  void SetPeers(const std::vector<PeerAddress>& peers);
  void Stop();  // What is dialled from here on is not.
  bool stopping() const;

  // Of this process, as said to `asked` (nobody in particular: null).
  void FillHandshake(const PeerAddress* asked, kvd::internal::Handshake* handshake) const;
  // Why a stream that begins so is refused, as a sentence; empty: accepted, and its incarnation is
  // remembered.
  std::string Judge(const kvd::internal::Handshake& theirs);
  // What this member knows of the one that begins so.
  void FillKnown(const kvd::internal::Handshake& theirs,
                 kvd::internal::HandshakeAnswer* answer) const;
  // Why the answer of one that we dialled is not accepted; empty: it is.
  std::string JudgeAnswer(const PeerAddress& asked, const kvd::internal::HandshakeAnswer& answer);

  // Hands what a peer sent to the replica; malformed envelopes are dropped and counted.
  void Deliver(MemberId peer, const kvd::internal::EnvelopeBatch& batch);
  void DeliverSnapshot(raft::Envelope offer, Snapshot snapshot);
  void PeerMet(const kvd::internal::Handshake& theirs);
  void PeerLost(MemberId peer);

  Runtime* runtime() const { return runtime_; }
  const GrpcNetworkOptions& options() const { return options_; }
  Loop& timers() { return *timers_; }
  Loop& disk() { return *disk_; }
  Live& live() { return live_; }
  void EndLoops();

 private:
  struct Incarnation {
    std::string node_uuid;
    uint64_t boot_epoch = 0;
  };

  Index AcknowledgedBy(const kvd::internal::Handshake& theirs) const;
  void HearKnown(const kvd::internal::HandshakeAnswer& answer);
  std::string JudgeIdentity(const kvd::internal::Handshake& theirs, Index acknowledged)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const Network::Handlers> handlers() const;

  Runtime* const runtime_;
  const GrpcNetworkOptions options_;
  Live live_;

  mutable Mutex mutex_;
  bool started_ ABSL_GUARDED_BY(mutex_) = false;
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  LocalIdentity self_ ABSL_GUARDED_BY(mutex_);
  std::shared_ptr<const Network::Handlers> handlers_ ABSL_GUARDED_BY(mutex_);
  std::map<MemberId, std::string> uuids_ ABSL_GUARDED_BY(mutex_);   // As the membership says.
  std::map<MemberId, Incarnation> newest_ ABSL_GUARDED_BY(mutex_);  // That spoke to us.

  std::unique_ptr<Loop> disk_;    // Snapshot files.
  std::unique_ptr<Loop> timers_;  // Backoff and deadlines.
};

// "host:port" of a URL; an error names what is wrong with it.
absl::StatusOr<std::string> HostAndPort(std::string_view url);

}  // namespace kv

// Snapshots over gRPC: one stream a snapshot, on a connection of its own, its pieces no faster than
// the receiver writes them. What is cut off leaves nothing.
#pragma once

#include <grpcpp/support/server_callback.h>

#include <map>
#include <memory>
#include <set>
#include <string>

#include "proto/internal/peer.grpc.pb.h"
#include "server/replica/peer_port.h"
#include "storage/mutex.h"

namespace kv {

class SnapshotSenders {
 public:
  explicit SnapshotSenders(PeerPort* port) : port_(port) {}

  void Send(const PeerAddress& to, raft::Envelope offer, Snapshot snapshot,
            Network::SnapshotDone done);
  void CancelAll();

 private:
  class Upload;

  PeerPort* const port_;
  Mutex mutex_;
  std::set<Upload*> uploads_ ABSL_GUARDED_BY(mutex_);
  size_t turn_ ABSL_GUARDED_BY(mutex_) = 0;
};

class SnapshotReceivers {
 public:
  explicit SnapshotReceivers(PeerPort* port) : port_(port) {}

  grpc::ServerReadReactor<kvd::internal::SnapshotChunk>* Accept(
      grpc::CallbackServerContext* context, kvd::internal::SnapshotTaken* taken);

 private:
  class Download;

  PeerPort* const port_;
  Mutex mutex_;
  std::set<MemberId> senders_ ABSL_GUARDED_BY(mutex_);  // One snapshot from each at a time.
  uint64_t next_ ABSL_GUARDED_BY(mutex_) = 1;           // Names directories.
};

}  // namespace kv

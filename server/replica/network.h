// Carries Raft envelopes, snapshots and calls between members.
//
// Promises little: an envelope may be dropped, delayed, reordered or duplicated, but is never
// corrupted and never delivered to the wrong member (a connection is bound to one incarnation of
// one member of one cluster by its handshake). No method blocks; every callback runs on a thread
// of the network's own choice and is called exactly once.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/raft/message.h"
#include "storage/snapshot.h"

namespace kv {

// Where a member listens for its peers, as its record in the membership says.
struct PeerAddress {
  MemberId id = 0;
  std::string node_uuid;          // The disk that the id is bound to; 32 hex digits.
  std::vector<std::string> urls;  // Peer URLs, tried in turn.
  friend bool operator==(const PeerAddress&, const PeerAddress&) = default;
};

// What another member knows of this one.
struct KnownOfSelf {
  MemberId by = 0;
  Index acknowledged = 0;
  uint64_t newest_boot_epoch = 0;
};
// That this disk is older than its member's word, as a clause; empty: it is not.
std::string StaleEvidence(const KnownOfSelf& known, Index last_index, uint64_t boot_epoch);

// Who this process is; said and checked in every handshake (protocol version 1). Cluster and
// member are 0 until the process is a member.
struct LocalIdentity {
  uint64_t cluster_id = 0;
  MemberId member_id = 0;
  std::string name;
  std::string node_uuid;
  uint64_t boot_epoch = 0;
  uint32_t machine_version = 1;  // The newest that this build can run.
};

class Network {
 public:
  virtual ~Network() = default;

  using Receive = std::function<void(raft::Envelope)>;
  // A snapshot arrived whole, was verified, and lies in incoming/; the receiver owns it now.
  using ReceiveSnapshot = std::function<void(raft::Envelope offer, Snapshot snapshot)>;
  // A peer could not be reached, or its stream broke: what was in flight may be lost.
  using PeerLost = std::function<void(MemberId)>;
  // A handshake with a peer succeeded; this is the newest machine version that it can run.
  using PeerMet = std::function<void(MemberId, uint32_t machine_version)>;
  // Of this member's log: said in handshakes.
  using LastIndex = std::function<Index()>;
  // How far that member has acknowledged what is committed, as far as this one knows. Whoever comes
  // with a log that ends before, or with a start before one that was seen, is refused and told: its
  // disk is older than its word.
  using AcknowledgedBy = std::function<Index(MemberId)>;
  // This very member was refused so; `evidence` says by whom and what is known.
  using FoundStale = std::function<void(std::string evidence)>;
  struct Handlers {
    Receive receive;
    ReceiveSnapshot receive_snapshot;
    PeerLost peer_lost;
    PeerMet peer_met;                // May be empty.
    LastIndex last_index;            // May be empty.
    AcknowledgedBy acknowledged_by;  // May be empty.
    FoundStale found_stale;          // May be empty.
  };
  // From here on this process is `self` and speaks Raft. At most once.
  virtual void Start(const LocalIdentity& self, Handlers handlers) = 0;
  // Everybody's address (self may be among them). Connections to others are closed.
  virtual void SetPeers(std::vector<PeerAddress> peers) = 0;

  // Dropped when the peer's outbox is full. Whoever spoke to this process can be answered although
  // it is not among the peers: a log that lags does not know the newest members.
  virtual void Send(raft::Envelope envelope) = 0;

  // Streams the directory's files to `to`; `offer` is delivered with them once they are verified
  // there. `done(true)` only after the receiver took it. The directory stays the caller's.
  using SnapshotDone = absl::AnyInvocable<void(bool delivered) &&>;
  virtual void SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) = 0;

  // A call to whoever listens at `address` ("host:port" or a peer URL): answered once, or failed.
  // A failure with code Unavailable means that the callee certainly did not see it; any other
  // failure (DeadlineExceeded, Unknown) says nothing of the outcome. Usable before Start: founding
  // and joining need it.
  using CallDone = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
  virtual void Call(const std::string& address, const std::string& method, std::string request,
                    absl::Duration deadline, CallDone done) = 0;
  // Answers calls of `method` from peers; until it is registered they fail with Unavailable.
  // Registering again replaces. `deadline` is what is left of the caller's.
  using Answer = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
  using Serve = std::function<void(std::string request, absl::Duration deadline, Answer answer)>;
  virtual void Handle(const std::string& method, Serve serve) = 0;
};

}  // namespace kv

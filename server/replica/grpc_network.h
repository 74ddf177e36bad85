// The network between real members: gRPC on the peer port.
//
// Each member dials every other: one stream carries its envelopes there, in batches, urgent ones
// first; a snapshot has a connection of its own, so that its bytes hold nothing up; calls share one
// stream per address. A stream begins with a handshake (version 1) that binds it to one incarnation
// of one member of one cluster, and is refused with a sentence otherwise. Outboxes are bounded: a
// peer that stops reading loses messages, not our memory. A broken connection is tried again until
// it holds, at most half a second apart.
//
// Thread-safe. Callbacks run on gRPC's threads, and on one of our own for what timed out.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "server/replica/network.h"
#include "server/replica/runtime.h"

namespace rocksdb {
class Env;
}

namespace kv {

struct GrpcNetworkOptions {
  std::vector<std::string> listen_urls;  // "http://host:port" or "host:port".
  std::string data_dir;                  // Snapshots arrive in incoming/ below it.
  rocksdb::Env* env = nullptr;
  size_t outbox_bytes_max = size_t{32} << 20;   // For one peer; one message always fits.
  size_t message_bytes_max = size_t{64} << 20;  // One message on the wire. More than the largest
                                                // entry and raft::Options::max_append_bytes.
  std::string version;                          // Of this build, for the peers' logs.
  // For metrics: bytes of messages to and from a peer. May be empty. Any thread.
  std::function<void(MemberId peer, uint64_t bytes)> sent;
  std::function<void(MemberId peer, uint64_t bytes)> received;
};

class GrpcNetwork final : public Network {
 public:
  GrpcNetwork(Runtime* runtime, GrpcNetworkOptions options);
  // As Stop.
  ~GrpcNetwork() override;
  GrpcNetwork(const GrpcNetwork&) = delete;
  GrpcNetwork& operator=(const GrpcNetwork&) = delete;

  // Opens the peer port. An error names the address.
  absl::Status Listen();
  // Of the first listen URL, also where it asked for any free port (0). After Listen.
  int port() const;
  // Ends every stream and answers every call; no callback runs once it has returned. Blocks.
  void Stop();

  void Start(const LocalIdentity& self, Handlers handlers) override;
  void SetPeers(std::vector<PeerAddress> peers) override;
  void Send(raft::Envelope envelope) override;
  void SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) override;
  void Call(const std::string& address, const std::string& method, std::string request,
            absl::Duration deadline, CallDone done) override;
  void Handle(const std::string& method, Serve serve) override;

  // Peers that this member's envelopes reach now.
  std::vector<MemberId> Connected() const;

 private:
  class Body;
  std::unique_ptr<Body> body_;
};

}  // namespace kv

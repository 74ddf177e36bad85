#include "server/replica/grpc_network.h"

#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <chrono>
#include <utility>

#include "server/replica/grpc_calls.h"
#include "server/replica/grpc_exchange.h"
#include "server/replica/grpc_snapshots.h"
#include "server/replica/peer_port.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

constexpr absl::Duration kSweep = absl::Milliseconds(50);  // How exact a call's deadline is.

class PeerService final : public pb::Peer::CallbackService {
 public:
  PeerService(PeerSessions* sessions, SnapshotReceivers* snapshots, CallTable* calls)
      : sessions_(sessions), snapshots_(snapshots), calls_(calls) {}

  grpc::ServerBidiReactor<pb::ToPeer, pb::FromPeer>* Exchange(
      grpc::CallbackServerContext* context) override {
    return sessions_->Accept(context);
  }
  grpc::ServerReadReactor<pb::SnapshotChunk>* SendSnapshot(grpc::CallbackServerContext* context,
                                                           pb::SnapshotTaken* taken) override {
    return snapshots_->Accept(context, taken);
  }
  grpc::ServerBidiReactor<pb::Call, pb::CallAnswer>* Ask(
      grpc::CallbackServerContext* context) override {
    return calls_->Accept(context);
  }

 private:
  PeerSessions* const sessions_;
  SnapshotReceivers* const snapshots_;
  CallTable* const calls_;
};

}  // namespace

class GrpcNetwork::Body {
 public:
  Body(Runtime* runtime, GrpcNetworkOptions options)
      : port_(runtime, std::move(options)),
        sessions_(&port_),
        uploads_(&port_),
        downloads_(&port_),
        table_(&port_),
        service_(&sessions_, &downloads_, &table_) {}

  absl::Status Listen();
  int listening_port() const { return listening_port_; }
  void Stop();

  void Start(const LocalIdentity& self, Handlers handlers) {
    port_.Start(self, std::move(handlers));
  }
  void SetPeers(std::vector<PeerAddress> peers);
  void Send(raft::Envelope envelope);
  void SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done);
  void Call(const std::string& address, const std::string& method, std::string request,
            absl::Duration deadline, CallDone done);
  void Handle(const std::string& method, Serve serve) { table_.Handle(method, std::move(serve)); }
  std::vector<MemberId> Connected() const;

 private:
  std::shared_ptr<PeerLink> Link(MemberId member) const {
    MutexLock lock(mutex_);
    auto it = links_.find(member);
    return it == links_.end() ? nullptr : it->second;
  }
  void SweepLater() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Sweep();

  PeerPort port_;
  PeerSessions sessions_;
  SnapshotSenders uploads_;
  SnapshotReceivers downloads_;
  CallTable table_;
  PeerService service_;
  std::unique_ptr<grpc::Server> server_;
  int listening_port_ = 0;

  mutable Mutex mutex_;
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  std::map<MemberId, std::shared_ptr<PeerLink>> links_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::shared_ptr<CallLink>> calls_ ABSL_GUARDED_BY(mutex_);
  bool sweep_posted_ ABSL_GUARDED_BY(mutex_) = false;
};

absl::Status GrpcNetwork::Body::Listen() {
  const GrpcNetworkOptions& options = port_.options();
  grpc::ServerBuilder builder;
  builder.SetMaxReceiveMessageSize(static_cast<int>(options.message_bytes_max));
  builder.SetMaxSendMessageSize(static_cast<int>(options.message_bytes_max));
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 500);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, 10);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, 64);
  std::vector<int> ports(options.listen_urls.size(), 0);
  for (size_t i = 0; i < ports.size(); ++i) {
    ASSIGN_OR_RETURN(std::string address, HostAndPort(options.listen_urls[i]));
    builder.AddListeningPort(address, grpc::InsecureServerCredentials(), &ports[i]);
  }
  builder.RegisterService(&service_);
  server_ = builder.BuildAndStart();
  for (size_t i = 0; i < ports.size(); ++i) {
    if (ports[i] != 0) continue;
    return MakeStatus(absl::StatusCode::kUnavailable,
                      "cannot listen for peers at {}: the address is in use or not of this host",
                      options.listen_urls[i]);
  }
  if (server_ == nullptr) {
    return MakeStatus(absl::StatusCode::kInternal, "the peer port did not open");
  }
  if (!ports.empty()) listening_port_ = ports.front();
  return absl::OkStatus();
}

void GrpcNetwork::Body::Stop() {
  std::map<MemberId, std::shared_ptr<PeerLink>> links;
  std::map<std::string, std::shared_ptr<CallLink>> calls;
  {
    MutexLock lock(mutex_);
    if (std::exchange(stopped_, true)) return;
    links.swap(links_);
    calls.swap(calls_);
  }
  port_.Stop();
  for (auto& [member, link] : links) link->Close();
  for (auto& [address, link] : calls) link->Close();
  uploads_.CancelAll();
  if (server_ != nullptr) server_->Shutdown(std::chrono::system_clock::now());
  port_.live().AwaitNone();
  port_.EndLoops();
}

void GrpcNetwork::Body::SetPeers(std::vector<PeerAddress> peers) {
  port_.SetPeers(peers);
  std::vector<std::shared_ptr<PeerLink>> fresh;
  std::map<MemberId, std::shared_ptr<PeerLink>> gone;
  {
    MutexLock lock(mutex_);
    if (stopped_) return;
    gone.swap(links_);
    for (PeerAddress& peer : peers) {
      auto it = gone.find(peer.id);
      if (it != gone.end() && it->second->peer() == peer) {
        links_.insert(gone.extract(it));
        continue;
      }
      auto link = std::make_shared<PeerLink>(&port_, peer);
      links_[peer.id] = link;
      fresh.push_back(std::move(link));
    }
  }
  for (auto& [member, link] : gone) link->Close();
  for (std::shared_ptr<PeerLink>& link : fresh) link->Open();
}

void GrpcNetwork::Body::Send(raft::Envelope envelope) {
  if (std::shared_ptr<PeerLink> link = Link(envelope.to)) return link->Send(std::move(envelope));
  sessions_.Send(std::move(envelope));
}

void GrpcNetwork::Body::SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) {
  std::shared_ptr<PeerLink> link = Link(offer.to);
  PeerAddress nobody;
  uploads_.Send(link == nullptr ? nobody : link->peer(), std::move(offer), std::move(snapshot),
                std::move(done));
}

void GrpcNetwork::Body::Call(const std::string& address, const std::string& method,
                             std::string request, absl::Duration deadline, CallDone done) {
  absl::StatusOr<std::string> target = HostAndPort(address);
  if (!target.ok()) {
    return std::move(done)(
        MakeStatus(absl::StatusCode::kUnavailable, "{}", Message(target.status())));
  }
  std::shared_ptr<CallLink> link;
  {
    MutexLock lock(mutex_);
    if (!stopped_) {
      std::shared_ptr<CallLink>& place = calls_[*target];
      if (place == nullptr) place = std::make_shared<CallLink>(&port_, *target);
      link = place;
      SweepLater();
    }
  }
  if (link == nullptr) {
    return std::move(done)(MakeStatus(absl::StatusCode::kUnavailable, "this process is stopping"));
  }
  link->Call(method, std::move(request), deadline, std::move(done));
}

void GrpcNetwork::Body::SweepLater() {
  if (std::exchange(sweep_posted_, true)) return;
  port_.timers().PostAfter(kSweep, [this] { Sweep(); });
}

void GrpcNetwork::Body::Sweep() {
  std::vector<std::shared_ptr<CallLink>> links;
  {
    MutexLock lock(mutex_);
    sweep_posted_ = false;
    for (auto& [address, link] : calls_) links.push_back(link);
  }
  bool waiting = false;
  absl::Duration now = port_.runtime()->Uptime();
  for (std::shared_ptr<CallLink>& link : links) waiting |= link->Sweep(now);
  MutexLock lock(mutex_);
  if (waiting && !stopped_) SweepLater();
}

std::vector<MemberId> GrpcNetwork::Body::Connected() const {
  MutexLock lock(mutex_);
  std::vector<MemberId> members;
  for (const auto& [member, link] : links_) {
    if (link->connected()) members.push_back(member);
  }
  return members;
}

GrpcNetwork::GrpcNetwork(Runtime* runtime, GrpcNetworkOptions options)
    : body_(std::make_unique<Body>(runtime, std::move(options))) {}
GrpcNetwork::~GrpcNetwork() { body_->Stop(); }
absl::Status GrpcNetwork::Listen() { return body_->Listen(); }
int GrpcNetwork::port() const { return body_->listening_port(); }
void GrpcNetwork::Stop() { body_->Stop(); }
void GrpcNetwork::Start(const LocalIdentity& self, Handlers handlers) {
  body_->Start(self, std::move(handlers));
}
void GrpcNetwork::SetPeers(std::vector<PeerAddress> peers) { body_->SetPeers(std::move(peers)); }
void GrpcNetwork::Send(raft::Envelope envelope) { body_->Send(std::move(envelope)); }
void GrpcNetwork::SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) {
  body_->SendSnapshot(std::move(offer), std::move(snapshot), std::move(done));
}
void GrpcNetwork::Call(const std::string& address, const std::string& method, std::string request,
                       absl::Duration deadline, CallDone done) {
  body_->Call(address, method, std::move(request), deadline, std::move(done));
}
void GrpcNetwork::Handle(const std::string& method, Serve serve) {
  body_->Handle(method, std::move(serve));
}
std::vector<MemberId> GrpcNetwork::Connected() const { return body_->Connected(); }

}  // namespace kv

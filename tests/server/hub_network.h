// A network between Nodes of one test, by address: calls, envelopes, and cuts. Snapshots are not
// carried.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/replica/network.h"
#include "storage/status.h"
#include "tests/replica/fake_runtime.h"

namespace kv::test {

class HubNetwork;

class Hub {
 public:
  explicit Hub(FakeRuntime* runtime) : wire_(runtime->NewLoop("wire")) {}

  void Cut(const std::string& url) { cut_.insert(url); }
  void Heal() { cut_.clear(); }

 private:
  friend class HubNetwork;
  static constexpr absl::Duration kDelay = absl::Milliseconds(1);

  HubNetwork* Reach(const std::string& from, const std::string& to) const {
    if (cut_.contains(from) || cut_.contains(to)) return nullptr;
    const auto at = networks_.find(to);
    return at == networks_.end() ? nullptr : at->second;
  }

  std::map<std::string, HubNetwork*> networks_;
  std::set<std::string> cut_;
  std::unique_ptr<Loop> wire_;
};

class HubNetwork final : public Network {
 public:
  HubNetwork(Hub* hub, std::string url) : hub_(hub), url_(std::move(url)) {
    hub_->networks_[url_] = this;
  }
  ~HubNetwork() override { hub_->networks_.erase(url_); }

  void Start(const LocalIdentity& self, Handlers handlers) override {
    self_ = self;
    handlers_ = std::move(handlers);
  }
  void SetPeers(std::vector<PeerAddress> peers) override {
    peers_.clear();
    for (PeerAddress& peer : peers) peers_[peer.id] = std::move(peer);
  }
  void Send(raft::Envelope envelope) override {
    const auto peer = peers_.find(envelope.to);
    if (peer == peers_.end()) return;
    hub_->wire_->PostAfter(Hub::kDelay, [hub = hub_, from = url_, to = peer->second.urls.front(),
                                         envelope = std::move(envelope)]() mutable {
      HubNetwork* network = hub->Reach(from, to);
      if (network == nullptr || network->self_.member_id != envelope.to) return;
      if (network->handlers_.receive) network->handlers_.receive(std::move(envelope));
    });
  }
  void SendSnapshot(raft::Envelope, Snapshot, SnapshotDone done) override {
    hub_->wire_->Post([done = std::move(done)]() mutable { std::move(done)(false); });
  }
  void Call(const std::string& address, const std::string& method, std::string request,
            absl::Duration deadline, CallDone done) override {
    hub_->wire_->PostAfter(
        Hub::kDelay, [hub = hub_, from = url_, address, method, request = std::move(request),
                      deadline, done = std::move(done)]() mutable {
          HubNetwork* network = hub->Reach(from, address);
          if (network == nullptr || !network->serves_.contains(method)) {
            std::move(done)(MakeStatus(absl::StatusCode::kUnavailable, "connection refused"));
            return;
          }
          network->serves_[method](
              std::move(request), deadline, [hub, done = std::move(done)](auto answer) mutable {
                hub->wire_->PostAfter(
                    Hub::kDelay, [done = std::move(done), answer = std::move(answer)]() mutable {
                      std::move(done)(std::move(answer));
                    });
              });
        });
  }
  void Handle(const std::string& method, Serve serve) override {
    serves_[method] = std::move(serve);
  }

 private:
  Hub* const hub_;
  const std::string url_;
  LocalIdentity self_;
  Handlers handlers_;
  std::map<MemberId, PeerAddress> peers_;
  std::map<std::string, Serve> serves_;
};

}  // namespace kv::test

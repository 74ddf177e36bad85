// Networks for members that live in one test: envelopes, snapshots and calls travel through a
// switchboard that can cut members off from each other, and lose what calls answer.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "server/replica/network.h"
#include "server/replica/snapshot_transfer.h"
#include "storage/files.h"
#include "tests/replica/fake_runtime.h"

namespace kv::test {

class FakeNetwork;

class Switchboard {
 public:
  explicit Switchboard(FakeRuntime* runtime) : wire_(runtime->NewLoop("wire")) {}

  // Nothing passes between `member` and the others.
  void Isolate(MemberId member) { isolated_.insert(member); }
  void Heal() { isolated_.clear(); }
  bool Cut(MemberId a, MemberId b) const {
    return isolated_.contains(a) || isolated_.contains(b) || !members_.contains(b);
  }

  bool lose_answers = false;  // Of calls: the callee does its part, the caller learns nothing.
  int calls = 0;
  int envelopes = 0;
  std::function<bool(const raft::Envelope&)> drop;  // May be empty.

  static std::string AddressOf(MemberId member) { return "member:" + std::to_string(member); }

 private:
  friend class FakeNetwork;
  static constexpr absl::Duration kDelay = absl::Milliseconds(1);

  std::map<MemberId, FakeNetwork*> members_;
  std::set<MemberId> isolated_;
  std::unique_ptr<Loop> wire_;
};

class FakeNetwork final : public Network {
 public:
  FakeNetwork(Switchboard* board, MemberId self, std::string data_dir)
      : board_(board), self_(self), data_dir_(std::move(data_dir)) {
    board_->members_[self] = this;
  }
  ~FakeNetwork() override {
    if (board_->members_[self_] == this) board_->members_.erase(self_);
  }

  void Start(const LocalIdentity&, Handlers handlers) override { handlers_ = std::move(handlers); }
  void SetPeers(std::vector<PeerAddress> peers) override { peers_ = std::move(peers); }
  void Send(raft::Envelope envelope) override {
    ++board_->envelopes;
    board_->wire_->PostAfter(Switchboard::kDelay, [board = board_, envelope]() mutable {
      if (board->Cut(envelope.from, envelope.to)) return;
      if (board->drop && board->drop(envelope)) return;
      FakeNetwork* to = board->members_.at(envelope.to);
      if (to->handlers_.receive) to->handlers_.receive(std::move(envelope));
    });
  }
  void SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) override {
    board_->wire_->PostAfter(Switchboard::kDelay,
                             [board = board_, offer, snapshot, done = std::move(done)]() mutable {
                               if (board->Cut(offer.from, offer.to)) return std::move(done)(false);
                               std::move(done)(board->members_.at(offer.to)->Take(offer, snapshot));
                             });
  }
  void Call(const std::string& address, const std::string& method, std::string request,
            absl::Duration, CallDone done) override {
    ++board_->calls;
    board_->wire_->PostAfter(Switchboard::kDelay, [board = board_, from = self_, address, method,
                                                   request = std::move(request),
                                                   done = std::move(done)]() mutable {
      FakeNetwork* callee = nullptr;
      for (auto& [member, network] : board->members_) {
        if (Switchboard::AddressOf(member) == address) callee = network;
      }
      if (callee == nullptr || board->Cut(from, callee->self_) ||
          !callee->serves_.contains(method)) {
        return std::move(done)(absl::UnavailableError("not reached"));
      }
      callee->serves_[method](
          std::move(request), absl::Seconds(1),
          [board, done = std::move(done)](absl::StatusOr<std::string> answer) mutable {
            if (board->lose_answers) answer = absl::UnknownError("lost");
            board->wire_->PostAfter(Switchboard::kDelay,
                                    [done = std::move(done), answer = std::move(answer)]() mutable {
                                      std::move(done)(std::move(answer));
                                    });
          });
    });
  }
  void Handle(const std::string& method, Serve serve) override {
    serves_[method] = std::move(serve);
  }

  const std::vector<PeerAddress>& peers() const { return peers_; }
  Handlers& handlers() { return handlers_; }

 private:
  // As the real one: piece by piece into incoming/, verified, then handed over.
  bool Take(const raft::Envelope& offer, const Snapshot& snapshot) {
    rocksdb::Env* env = rocksdb::Env::Default();
    SnapshotReader reader(env, snapshot);
    SnapshotReceiver receiver(env, data_dir_ + "/incoming/" + std::to_string(++received_));
    if (!receiver.Begin(EncodeManifest(snapshot.manifest)).ok()) return false;
    for (;;) {
      absl::StatusOr<std::string> piece = reader.Next();
      if (!piece.ok() || !receiver.Append(*piece).ok()) return false;
      if (piece->empty()) break;
    }
    absl::StatusOr<Snapshot> taken = receiver.Finish();
    if (!taken.ok() || !handlers_.receive_snapshot) return false;
    handlers_.receive_snapshot(offer, *std::move(taken));
    return true;
  }

  Switchboard* const board_;
  const MemberId self_;
  const std::string data_dir_;
  Handlers handlers_;
  std::vector<PeerAddress> peers_;
  std::map<std::string, Serve> serves_;
  int received_ = 0;
};

}  // namespace kv::test

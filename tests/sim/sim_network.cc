#include "tests/sim/sim_network.h"

#include <rocksdb/env.h>

#include <algorithm>

#include "server/replica/snapshot_transfer.h"
#include "storage/status.h"

namespace kv::sim {
namespace {

constexpr Time kLostAgain = 100 * kMillisecond;  // At most so often is a peer reported as lost.

absl::Status Unavailable() {
  return MakeStatus(absl::StatusCode::kUnavailable, "connection refused");
}
absl::Status TimeIsOver() {
  return MakeStatus(absl::StatusCode::kDeadlineExceeded, "deadline exceeded");
}
absl::Status ConnectionBroken() {
  return MakeStatus(absl::StatusCode::kUnknown, "the connection broke");
}

}  // namespace

SimNetwork* Wire::At(const std::string& url) const {
  const auto found = by_url_.find(url);
  return found == by_url_.end() ? nullptr : found->second;
}

SimNetwork* Wire::Alive(uint64_t serial) const {
  const auto found = by_serial_.find(serial);
  return found == by_serial_.end() ? nullptr : found->second;
}

bool Wire::IsCut(const std::string& from, const std::string& to) const {
  if (links_.empty()) return false;
  const auto link = links_.find(std::pair<std::string_view, std::string_view>(from, to));
  return link != links_.end() && link->second.cut;
}

void Wire::Clog(const std::string& from, const std::string& to, Time until) {
  LinkOf(from, to).clogged_until = until;
}

void Wire::Slow(const std::string& from, const std::string& to, Time extra) {
  LinkOf(from, to).extra = extra;
}

void Wire::Calm() {
  options_.loss_permille = options_.repeat_permille = 0;
  options_.snapshot_cut_permille = options_.lost_answer_permille = 0;
  options_.delay.tail_permille = 0;
  Heal();
}

Time Wire::Arrival(const std::string& from, const std::string& to) {
  Time arrival = scheduler_->now() + scheduler_->Draw(options_.delay);
  if (!options_.ordered && links_.empty()) return arrival;
  const auto found = links_.find(std::pair<std::string_view, std::string_view>(from, to));
  Link& link = found == links_.end() ? LinkOf(from, to) : found->second;
  arrival = std::max(arrival + link.extra, link.clogged_until);
  if (options_.ordered) arrival = link.last = std::max(arrival, link.last + 1);
  return arrival;
}

SimNetwork::SimNetwork(Wire* wire, std::string url, rocksdb::Env* env, std::string incoming)
    : wire_(wire),
      scheduler_(wire->scheduler_),
      url_(std::move(url)),
      env_(env),
      incoming_(std::move(incoming)),
      serial_(wire->urls_.size() + 1) {
  wire_->urls_.push_back(url_);
  wire_->by_url_[url_] = this;
  wire_->by_serial_[serial_] = this;
  ++wire_->turns_;
}

SimNetwork::~SimNetwork() { Close(); }

void SimNetwork::Close() {
  if (!open_) return;
  open_ = false;
  if (wire_->At(url_) == this) wire_->by_url_.erase(url_);
  wire_->by_serial_.erase(serial_);
  ++wire_->turns_;
}

void SimNetwork::Start(const LocalIdentity& self, Handlers handlers) {
  started_ = true;
  self_ = std::make_shared<LocalIdentity>(self);
  ++wire_->turns_;
  handlers_ = std::move(handlers);
}

void SimNetwork::SetPeers(std::vector<PeerAddress> peers) {
  ++wire_->turns_;
  peers_.clear();
  for (PeerAddress& peer : peers) peers_[peer.id] = std::move(peer);
}

bool SimNetwork::Accepts(const LocalIdentity& peer) const {
  if (!started_ || peer.cluster_id != self_->cluster_id || peer.member_id == self_->member_id) {
    return false;
  }
  const auto known = peers_.find(peer.member_id);
  if (known != peers_.end() && !known->second.node_uuid.empty() &&
      known->second.node_uuid != peer.node_uuid) {
    return false;
  }
  const auto epoch = epochs_.find(peer.node_uuid);
  return epoch == epochs_.end() || peer.boot_epoch >= epoch->second;
}

// Asked for every envelope, and nearly always as before.
void SimNetwork::ForgetFound() {
  if (std::exchange(found_in_, wire_->turns_) == wire_->turns_) return;
  reached_.clear();
  met_before_.clear();
}

SimNetwork* SimNetwork::Connect(MemberId to) {
  ForgetFound();
  for (const auto& [member, network] : reached_) {
    if (member == to) return network;
  }
  SimNetwork* const network = Find(to);
  if (network != nullptr) reached_.emplace_back(to, network);
  return network;
}

SimNetwork* SimNetwork::Find(MemberId to) const {
  const auto peer = peers_.find(to);
  SimNetwork* network = nullptr;
  if (peer != peers_.end() && !peer->second.urls.empty()) {
    network = wire_->At(peer->second.urls.front());
  } else if (const auto session = sessions_.find(to); session != sessions_.end()) {
    network = wire_->Alive(session->second);
  }
  if (network == nullptr || !network->started_ || network->self_->member_id != to) return nullptr;
  if (!TrustsDiskOf(*network) || !network->TrustsDiskOf(*this)) return nullptr;
  return Accepts(*network->self_) && network->Accepts(*self_) ? network : nullptr;
}

// Asked once a connection; who is not trusted is told why.
bool SimNetwork::TrustsDiskOf(const SimNetwork& peer) const {
  if (!handlers_.acknowledged_by || !peer.handlers_.last_index) return true;
  const auto known = peers_.find(peer.self_->member_id);
  if (known == peers_.end() || known->second.node_uuid != peer.self_->node_uuid) return true;
  const auto epoch = epochs_.find(peer.self_->node_uuid);
  std::string evidence =
      StaleEvidence({.by = self_->member_id,
                     .acknowledged = handlers_.acknowledged_by(peer.self_->member_id),
                     .newest_boot_epoch = epoch == epochs_.end() ? 0 : epoch->second},
                    peer.handlers_.last_index(), peer.self_->boot_epoch);
  if (evidence.empty()) return true;
  scheduler_->After(kMillisecond,
                    [wire = wire_, told = peer.serial_, evidence = std::move(evidence)]() mutable {
                      const SimNetwork* network = wire->Alive(told);
                      if (network != nullptr && network->handlers_.found_stale) {
                        network->handlers_.found_stale(std::move(evidence));
                      }
                    });
  return false;
}

// Told some time later, and not for every message: what carries them is one stream.
void SimNetwork::Lost(MemberId peer) {
  Time& told = lost_[peer];
  if (told > 0 && scheduler_->now() - told < kLostAgain) return;
  told = scheduler_->now();
  const Time after = scheduler_->Draw({.least = kMillisecond, .spread = 50 * kMillisecond});
  scheduler_->After(after, [wire = wire_, serial = serial_, peer] {
    SimNetwork* self = wire->Alive(serial);
    if (self != nullptr && self->handlers_.peer_lost) self->handlers_.peer_lost(peer);
  });
}

void SimNetwork::Send(raft::Envelope envelope) {
  if (!open_) return;
  ++wire_->messages_;
  if (wire_->tap && wire_->tap(envelope)) return;
  SimNetwork* to = Connect(envelope.to);
  if (to == nullptr) return Lost(envelope.to);
  if (scheduler_->Permille(wire_->options_.loss_permille)) return;
  int copies = 1;
  if (scheduler_->Permille(wire_->options_.repeat_permille)) ++copies;
  while (copies-- > 0) {
    const Time arrival = wire_->Arrival(url_, to->url_);
    raft::Envelope copy = copies > 0 ? envelope : std::move(envelope);
    scheduler_->At(arrival, [wire = wire_, from = self_, sender = serial_, receiver = to->serial_,
                             copy = std::move(copy)]() mutable {
      SimNetwork* network = wire->Alive(receiver);
      if (network == nullptr || wire->IsCut(wire->UrlOf(sender), network->url_)) {
        if (SimNetwork* self = wire->Alive(sender)) self->Lost(copy.to);
        return;
      }
      network->Deliver(*from, sender, std::move(copy));
    });
  }
}

void SimNetwork::Deliver(const LocalIdentity& from, uint64_t sender, raft::Envelope envelope) {
  ForgetFound();
  if (std::ranges::find(met_before_, sender) == met_before_.end()) {
    if (!Meet(from, sender)) return;
  }
  handlers_.receive(std::move(envelope));
}

// What an envelope says of its sender by coming; false: it is not let in.
bool SimNetwork::Meet(const LocalIdentity& from, uint64_t sender) {
  if (!Accepts(from)) return false;
  uint64_t& session = sessions_[from.member_id];
  uint64_t& epoch = epochs_[from.node_uuid];
  if (session != sender || epoch != from.boot_epoch) ++wire_->turns_;
  session = sender;
  epoch = from.boot_epoch;
  if (uint64_t& met = met_[from.member_id]; met != from.boot_epoch) {
    met = from.boot_epoch;
    if (handlers_.peer_met) handlers_.peer_met(from.member_id, from.machine_version);
  }
  ForgetFound();
  met_before_.push_back(sender);
  return true;
}

void SimNetwork::SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) {
  const bool cut_midway = scheduler_->Permille(wire_->options_.snapshot_cut_permille);
  const bool end_unheard = scheduler_->Permille(wire_->options_.lost_answer_permille);
  const Time after = scheduler_->Draw(wire_->options_.snapshot);
  SimNetwork* to = Connect(offer.to);
  const uint64_t receiver = to == nullptr ? 0 : to->serial_;
  ++wire_->messages_;
  scheduler_->After(after, [wire = wire_, sender = serial_, receiver, cut_midway, end_unheard,
                            offer = std::move(offer), snapshot = std::move(snapshot),
                            done = std::move(done)]() mutable {
    SimNetwork* self = wire->Alive(sender);
    if (self == nullptr) return;  // Whoever waited for it is gone.
    SimNetwork* there = wire->Alive(receiver);
    const bool connected =
        there != nullptr && !wire->IsCut(self->url_, there->url_) && there->Accepts(*self->self_);
    const bool taken = connected && !cut_midway && there->TakeSnapshot(self->env_, offer, snapshot);
    std::move(done)(taken && !end_unheard);
  });
}

// As the real one: piece by piece into incoming/, verified, then handed over.
bool SimNetwork::TakeSnapshot(rocksdb::Env* from, const raft::Envelope& offer,
                              const Snapshot& snapshot) {
  SnapshotReader reader(from, snapshot);
  SnapshotReceiver receiver(env_, incoming_ + "/" + std::to_string(++received_));
  if (!receiver.Begin(EncodeManifest(snapshot.manifest)).ok()) return false;
  for (;;) {
    const absl::StatusOr<std::string> piece = reader.Next();
    if (!piece.ok() || !receiver.Append(*piece).ok()) return false;
    if (piece->empty()) break;
  }
  absl::StatusOr<Snapshot> taken = receiver.Finish();
  if (!taken.ok()) return false;
  handlers_.receive_snapshot(offer, *std::move(taken));
  return true;
}

void SimNetwork::Handle(const std::string& method, Serve serve) {
  serves_[method] = std::move(serve);
}

void SimNetwork::Answered(CallDone done, absl::StatusOr<std::string> answer, Time after) {
  scheduler_->After(after, [wire = wire_, serial = serial_, done = std::move(done),
                            answer = std::move(answer)]() mutable {
    if (wire->Alive(serial) != nullptr) std::move(done)(std::move(answer));
  });
}

void SimNetwork::Call(const std::string& address, const std::string& method, std::string request,
                      absl::Duration deadline, CallDone done) {
  ++wire_->messages_;
  const Time limit = std::max<Time>(absl::ToInt64Nanoseconds(deadline), kMicrosecond);
  const bool answer_lost = scheduler_->Permille(wire_->options_.lost_answer_permille);
  SimNetwork* callee = wire_->At(address);
  if (callee == nullptr) {
    return Answered(std::move(done), Unavailable(), scheduler_->Draw({}));
  }
  // A cut link says nothing; the caller only sees its time pass.
  if (wire_->IsCut(url_, callee->url_)) {
    return Answered(std::move(done), TimeIsOver(), limit);
  }
  const Time arrival = wire_->Arrival(url_, callee->url_);
  scheduler_->At(arrival, [wire = wire_, caller = serial_, caller_url = url_,
                           receiver = callee->serial_, method, request = std::move(request), limit,
                           answer_lost, sent = scheduler_->now(),
                           done = std::move(done)]() mutable {
    SimNetwork* self = wire->Alive(caller);
    if (self == nullptr) return;
    Scheduler* scheduler = wire->scheduler_;
    const Time left = std::max<Time>(limit - (scheduler->now() - sent), 0);
    SimNetwork* there = wire->Alive(receiver);
    if (there == nullptr || !there->serves_.contains(method)) {
      return self->Answered(std::move(done), Unavailable(), scheduler->Draw({}));
    }
    if (left == 0) return self->Answered(std::move(done), TimeIsOver(), 0);
    // Answered once: by the callee, by its end, or by the time that is over.
    auto open = std::make_shared<CallDone>(std::move(done));
    auto finish = [wire, caller, open](absl::StatusOr<std::string> answer) {
      if (*open == nullptr) return;
      CallDone last = std::move(*open);
      *open = nullptr;
      if (wire->Alive(caller) != nullptr) std::move(last)(std::move(answer));
    };
    scheduler->After(left, [finish] { finish(TimeIsOver()); });
    there->serves_[method](
        std::move(request), absl::Nanoseconds(left),
        [wire, caller_url, receiver, answer_lost, finish](absl::StatusOr<std::string> answer) {
          Scheduler* clock = wire->scheduler_;
          SimNetwork* from = wire->Alive(receiver);
          if (from == nullptr) {
            clock->After(kMillisecond, [finish] { finish(ConnectionBroken()); });
            return;
          }
          if (answer_lost || wire->IsCut(from->url_, caller_url)) return;
          const Time back = wire->Arrival(from->url_, caller_url);
          clock->At(back,
                    [finish, answer = std::move(answer)]() mutable { finish(std::move(answer)); });
        });
  });
}

}  // namespace kv::sim

#include "server/replica/peer_port.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "server/replica/peer_codec.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv {
namespace {

namespace pb = kvd::internal;

constexpr uint32_t kProtocolMin = 1;
constexpr uint32_t kProtocolMax = 1;
constexpr int kDiskThreads = 2;

}  // namespace

absl::StatusOr<std::string> HostAndPort(std::string_view url) {
  std::string_view rest = url;
  if (rest.starts_with("http://")) {
    rest.remove_prefix(7);
  } else if (rest.find("://") != std::string_view::npos) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "peer URL \"{}\": only http:// is spoken between members", url);
  }
  if (rest.ends_with('/')) rest.remove_suffix(1);
  size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || colon == 0 || colon + 1 == rest.size()) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "peer URL \"{}\" must be http://HOST:PORT", url);
  }
  return std::string(rest);
}

PeerPort::PeerPort(Runtime* runtime, GrpcNetworkOptions options)
    : runtime_(runtime),
      options_(std::move(options)),
      disk_(runtime->NewUnorderedLoop("kvd-snapshot", kDiskThreads)),
      timers_(runtime->NewLoop("kvd-peers")) {}

void PeerPort::Start(const LocalIdentity& self, Network::Handlers handlers) {
  MutexLock lock(mutex_);
  KV_CHECK(!started_, "a network speaks for one member, once");
  started_ = true;
  self_ = self;
  handlers_ = std::make_shared<const Network::Handlers>(std::move(handlers));
}

void PeerPort::SetPeers(const std::vector<PeerAddress>& peers) {
  MutexLock lock(mutex_);
  uuids_.clear();
  for (const PeerAddress& peer : peers) uuids_[peer.id] = peer.node_uuid;
}

void PeerPort::Stop() {
  MutexLock lock(mutex_);
  stopping_ = true;
}

bool PeerPort::stopping() const {
  MutexLock lock(mutex_);
  return stopping_;
}

void PeerPort::EndLoops() {
  disk_->Stop();
  timers_->Stop();
}

std::shared_ptr<const Network::Handlers> PeerPort::handlers() const {
  MutexLock lock(mutex_);
  return stopping_ ? nullptr : handlers_;
}

void PeerPort::FillHandshake(const PeerAddress* asked, pb::Handshake* handshake) const {
  Index last_index = 0;
  if (auto now = handlers(); now != nullptr && now->last_index) last_index = now->last_index();
  MutexLock lock(mutex_);
  handshake->set_protocol_min(kProtocolMin);
  handshake->set_protocol_max(kProtocolMax);
  handshake->set_cluster_id(self_.cluster_id);
  handshake->set_member_id(self_.member_id);
  handshake->set_name(self_.name);
  handshake->set_node_uuid(self_.node_uuid);
  handshake->set_boot_epoch(self_.boot_epoch);
  handshake->set_machine_version(self_.machine_version);
  handshake->set_last_index(last_index);
  handshake->set_version(options_.version);
  if (asked != nullptr) {
    handshake->set_to_member_id(asked->id);
    handshake->set_to_node_uuid(asked->node_uuid);
  }
}

// Asked outside the mutex, as everything that is not ours.
Index PeerPort::AcknowledgedBy(const pb::Handshake& theirs) const {
  const auto now = handlers();
  return now != nullptr && now->acknowledged_by ? now->acknowledged_by(theirs.member_id()) : 0;
}

std::string PeerPort::JudgeIdentity(const pb::Handshake& theirs, Index acknowledged) {
  if (theirs.protocol_min() > kProtocolMax || theirs.protocol_max() < kProtocolMin) {
    return fmt::format(
        "member {:x} (version {}) speaks peer protocols {} to {}, this member (version {}) {} to "
        "{}; upgrade the older one step by step",
        theirs.member_id(), theirs.version(), theirs.protocol_min(), theirs.protocol_max(),
        options_.version, kProtocolMin, kProtocolMax);
  }
  if (theirs.cluster_id() != self_.cluster_id) {
    return fmt::format("{} is of cluster {:x}, {} of cluster {:x}", theirs.name(),
                       theirs.cluster_id(), self_.name, self_.cluster_id);
  }
  if (theirs.member_id() == 0 || theirs.member_id() == self_.member_id) {
    return fmt::format("{} says that it is member {:x}, which cannot be", theirs.name(),
                       theirs.member_id());
  }
  auto uuid = uuids_.find(theirs.member_id());
  if (uuid != uuids_.end() && !uuid->second.empty() && uuid->second != theirs.node_uuid()) {
    return fmt::format(
        "member {:x} is bound to disk {}, but {} has disk {}: its data was lost or replaced; "
        "remove the member and add it again",
        theirs.member_id(), uuid->second, theirs.name(), theirs.node_uuid());
  }
  Incarnation& newest = newest_[theirs.member_id()];
  if (newest.node_uuid == theirs.node_uuid() && theirs.boot_epoch() < newest.boot_epoch) {
    return fmt::format(
        "start {} of {} is over: start {} was seen; an old process or an old copy "
        "of its disk is running",
        theirs.boot_epoch(), theirs.name(), newest.boot_epoch);
  }
  if (theirs.last_index() < acknowledged) {
    return fmt::format(
        "the log of {} (member {:x}) ends at entry {}, but it has acknowledged entry {}: an old "
        "copy of its disk is running, or the disk lost what it had synced",
        theirs.name(), theirs.member_id(), theirs.last_index(), acknowledged);
  }
  newest = {.node_uuid = theirs.node_uuid(), .boot_epoch = theirs.boot_epoch()};
  return {};
}

std::string PeerPort::Judge(const pb::Handshake& theirs) {
  const Index acknowledged = AcknowledgedBy(theirs);
  MutexLock lock(mutex_);
  if (stopping_) return "it is stopping";
  if (!started_) return "it has not begun as a member yet";
  if (theirs.cluster_id() == self_.cluster_id &&
      (theirs.to_member_id() != self_.member_id ||
       (!theirs.to_node_uuid().empty() && theirs.to_node_uuid() != self_.node_uuid))) {
    return fmt::format("member {:x} on disk {} was asked for; this is member {:x} on disk {}",
                       theirs.to_member_id(), theirs.to_node_uuid(), self_.member_id,
                       self_.node_uuid);
  }
  return JudgeIdentity(theirs, acknowledged);
}

std::string PeerPort::JudgeAnswer(const PeerAddress& asked, const pb::HandshakeAnswer& answer) {
  const pb::Handshake& theirs = answer.self();
  if (theirs.member_id() == asked.id && theirs.node_uuid() == asked.node_uuid) HearKnown(answer);
  if (!answer.refusal().empty()) return answer.refusal();
  const Index acknowledged = AcknowledgedBy(theirs);
  MutexLock lock(mutex_);
  if (theirs.cluster_id() == self_.cluster_id && theirs.member_id() != asked.id) {
    return fmt::format("member {:x} was asked for; this is {}, member {:x}", asked.id,
                       theirs.name(), theirs.member_id());
  }
  return JudgeIdentity(theirs, acknowledged);
}

void PeerPort::FillKnown(const pb::Handshake& theirs, pb::HandshakeAnswer* answer) const {
  answer->set_acknowledged_index(AcknowledgedBy(theirs));
  MutexLock lock(mutex_);
  const auto newest = newest_.find(theirs.member_id());
  if (newest != newest_.end() && newest->second.node_uuid == theirs.node_uuid()) {
    answer->set_newest_boot_epoch(newest->second.boot_epoch);
  }
}

void PeerPort::HearKnown(const pb::HandshakeAnswer& answer) {
  const auto now = handlers();
  if (now == nullptr || !now->last_index || !now->found_stale) return;
  uint64_t boot_epoch = 0;
  {
    MutexLock lock(mutex_);
    boot_epoch = self_.boot_epoch;
  }
  const std::string evidence = StaleEvidence({.by = answer.self().member_id(),
                                              .acknowledged = answer.acknowledged_index(),
                                              .newest_boot_epoch = answer.newest_boot_epoch()},
                                             now->last_index(), boot_epoch);
  if (!evidence.empty()) now->found_stale(evidence);
}

void PeerPort::Deliver(MemberId peer, const pb::EnvelopeBatch& batch) {
  std::shared_ptr<const Network::Handlers> now = handlers();
  if (now == nullptr) return;
  if (options_.received) options_.received(peer, batch.ByteSizeLong());
  for (const pb::Envelope& packed : batch.envelopes()) {
    std::optional<raft::Envelope> envelope = DecodeEnvelope(packed);
    if (!envelope || envelope->from != peer) {
      // Whatever it was, the protocol copes with its loss.
      spdlog::warn("dropped a malformed message of member {:x}", peer);
      continue;
    }
    now->receive(*std::move(envelope));
  }
}

void PeerPort::DeliverSnapshot(raft::Envelope offer, Snapshot snapshot) {
  if (auto now = handlers()) now->receive_snapshot(std::move(offer), std::move(snapshot));
}

void PeerPort::PeerMet(const pb::Handshake& theirs) {
  auto now = handlers();
  if (now != nullptr && now->peer_met) now->peer_met(theirs.member_id(), theirs.machine_version());
}

void PeerPort::PeerLost(MemberId peer) {
  auto now = handlers();
  if (now != nullptr && now->peer_lost) now->peer_lost(peer);
}

}  // namespace kv

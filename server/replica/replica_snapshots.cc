// Snapshots out and in, and how long the log grows.
#include <spdlog/spdlog.h>

#include <algorithm>
#include <utility>

#include "server/replica/applier.h"
#include "server/replica/door.h"
#include "server/replica/log_writer.h"
#include "server/replica/replica.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {

void Replica::SendSnapshot(MemberId to) {
  if (!snapshots_under_way_.insert(to).second) return;
  std::string path = fmt::format("{}/outgoing/{}", options_.data_dir, next_number_++);
  work_loop_->Post([this, to, path = std::move(path)] {
    absl::StatusOr<Snapshot> snapshot = machine_->Take(path);
    ToRaft([this, to, path, snapshot = std::move(snapshot)]() mutable {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      if (snapshot.ok()) return OfferSnapshot(to, *std::move(snapshot));
      spdlog::error("cannot make a snapshot for member {:x}: {}", to, Describe(snapshot.status()));
      OnSnapshotSent(to, {}, path, /*delivered=*/false);
    });
  });
}

void Replica::OfferSnapshot(MemberId to, Snapshot snapshot) {
  Position at = snapshot.manifest.position;
  raft::Envelope offer{
      .from = id(),
      .to = to,
      .term = core_.term(),
      .message = raft::SnapshotOffer{.at = at, .members = snapshot.manifest.members}};
  spdlog::info("sending member {:x} a snapshot of index {}, {} bytes", to, at.index,
               snapshot.manifest.TotalBytes());
  auto done = [this, door = door_, to, at, path = snapshot.path,
               bytes = snapshot.manifest.TotalBytes(), begun = runtime_->Uptime()](bool delivered) {
    door->Post([this, to, at, path, bytes, begun, delivered] {
      raft_loop_->AssertCurrent();
      absl::Duration took = runtime_->Uptime() - begun;
      if (metrics_.snapshot_sent) metrics_.snapshot_sent(delivered, took, bytes);
      spdlog::info("the snapshot of index {} {} member {:x} after {} ms", at.index,
                   delivered ? "reached" : "did not reach", to, absl::ToInt64Milliseconds(took));
      if (!closed_) OnSnapshotSent(to, at, path, delivered);
    });
  };
  network_->SendSnapshot(std::move(offer), std::move(snapshot), std::move(done));
}

void Replica::OnSnapshotSent(MemberId to, Position at, const std::string& path, bool delivered) {
  snapshots_under_way_.erase(to);
  RemoveLater(path);
  core_.SnapshotSent(to, at, delivered);
  Wake();
}

void Replica::OnSnapshotReceived(raft::Envelope envelope, Snapshot snapshot) {
  const auto* offer = std::get_if<raft::SnapshotOffer>(&envelope.message);
  if (offer == nullptr || offer->at != snapshot.manifest.position ||
      offer->members != snapshot.manifest.members) {
    spdlog::error("the snapshot that member {:x} sent is not what it offered", envelope.from);
    return RemoveLater(std::move(snapshot.path));
  }
  Position at = offer->at;
  auto [it, is_new] = received_.try_emplace(at, snapshot);
  if (!is_new) return RemoveLater(std::move(snapshot.path));
  core_.Step(std::move(envelope));
  Wake();
}

// In this order, so that a crash at any point leaves something to start from: the log notes what is
// about to become the state, the state is switched, the log is reset (by the core's next write).
void Replica::Adopt(const raft::SnapshotOffer& offer) {
  auto it = received_.find(offer.at);
  KV_CHECK(it != received_.end(), "the core adopts only what was received");
  Snapshot snapshot = std::move(it->second);
  received_.erase(it);
  std::optional<raft::Members> members = raft::DecodeMembers(offer.members);
  KV_CHECK(members.has_value(), "the core checked the configuration");
  // Their entries may be in the snapshot; nobody here will see them applied.
  while (!waiters_.empty() && waiters_.begin()->first <= offer.at.index) {
    MARK("replica.snapshot_passes_waiter");
    Fail(waiters_.begin()->second.caller, ReplicaError::kUnknown);
    waiters_.erase(waiters_.begin());
  }
  for (Change& change : changes_) {
    if (change.position.index == 0 || change.position.index > offer.at.index) continue;
    change.caller.Answer({.error = ReplicaError::kUnknown});
  }
  auto adopted = [this, at = offer.at, members = *std::move(members),
                  bytes = snapshot.manifest.TotalBytes(), begun = runtime_->Uptime()]() mutable {
    ToRaft([this, at, members = std::move(members), bytes, begun]() mutable {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      absl::Duration took = runtime_->Uptime() - begun;
      if (metrics_.snapshot_adopted) metrics_.snapshot_adopted(took, bytes);
      MARK("replica.snapshot_adopted");
      spdlog::info("adopted the snapshot of index {}, {} bytes, in {} ms", at.index, bytes,
                   absl::ToInt64Milliseconds(took));
      core_.SnapshotAdopted(at, std::move(members));
      flushed_ = at.index;
      OnApplied(at);
    });
  };
  log_->BeginAdopting(
      offer.at, [this, snapshot = std::move(snapshot), adopted = std::move(adopted)]() mutable {
        applier_->Adopt(std::move(snapshot), std::move(adopted));
      });
}

void Replica::DropSnapshot(Position at) {
  MARK("replica.snapshot_not_needed");
  auto it = received_.find(at);
  if (it == received_.end()) return;
  RemoveLater(std::move(it->second.path));
  received_.erase(it);
}

void Replica::RemoveLater(std::string path) {
  work_loop_->Post([env = env_, path = std::move(path)] {
    if (absl::Status status = RemoveDirectory(env, path); !status.ok()) {
      spdlog::error("cannot remove {}: {}", path, Describe(status));
    }
  });
}

// The machine's own files are all that lets the log become shorter: it has no log of its own.
void Replica::FlushIfDue() {
  if (flushing_) return;
  Index flushed = std::max(flushed_, core_.log().base().index);
  if (applied_ <= flushed) return;
  uint64_t due = core_.log().BytesIn(flushed, std::min(applied_, core_.log().last_index()));
  if (due < options_.flush_log_bytes && !log_full_) return;
  flushing_ = true;
  work_loop_->Post([this] {
    absl::Status status =
        MUTANT("replica.log_dropped_before_flush") ? absl::OkStatus() : machine_->Flush();
    absl::StatusOr<Position> durable = Position{};
    if (status.ok()) {
      durable = machine_->Durable();
      status = durable.status();
      if (MUTANT("replica.log_dropped_before_flush")) durable = machine_->applied();
    }
    if (!status.ok()) {
      fatal_(fmt::format("writing the state to disk failed: {}", Describe(status)));
      return;
    }
    ToRaft([this, position = *durable] {
      raft_loop_->AssertCurrent();
      if (closed_) return;
      flushing_ = false;
      if (position.index > flushed_) {
        flushed_ = position.index;
        core_.DropThrough(position);
      }
      Wake();
    });
  });
}

}  // namespace kv

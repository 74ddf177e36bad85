#include "server/replica/log_writer.h"

#include <spdlog/spdlog.h>

#include <string>
#include <utility>

#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr size_t kCommitBytesMax = size_t{8} << 20;
constexpr absl::Duration kFloorPeriod = absl::Milliseconds(200);
constexpr absl::Duration kSlowSync = absl::Seconds(1);

size_t EntryBytes(const LogUpdate& update) {
  size_t bytes = 0;
  for (const EntryPtr& entry : update.entries) bytes += entry->data.size();
  return bytes;
}

}  // namespace

LogWriter::LogWriter(Parts parts, std::unique_ptr<Loop> loop)
    : store_(std::move(parts.store)),
      floor_(std::move(parts.floor)),
      runtime_(parts.runtime),
      done_(std::move(parts.done)),
      fatal_(std::move(parts.fatal)),
      synced_(std::move(parts.synced)),
      loop_(std::move(loop)) {}

void LogWriter::Submit(raft::Write write, Index commit) {
  loop_->Post([this, write = std::move(write), commit]() mutable {
    loop_->AssertCurrent();
    Enqueue(std::move(write), commit);
  });
}

void LogWriter::Enqueue(raft::Write write, Index commit) {
  commit_ = commit;
  queued_.push_back(std::move(write));
  if (queued_.size() > 1) MARK("replica.group_commit");
  if (queued_.size() > 1) return;  // A commit is already posted behind us and will take this too.
  loop_->Post([this] {
    loop_->AssertCurrent();
    CommitQueued();
  });
}

void LogWriter::CommitQueued() {
  if (failed_ || queued_.empty()) return;
  std::vector<raft::Write> writes;
  std::vector<LogUpdate> updates;
  size_t entries = 0;
  size_t bytes = 0;
  size_t taken = 0;
  for (; taken < queued_.size() && (taken == 0 || bytes < kCommitBytesMax); ++taken) {
    raft::Write& write = queued_[taken];
    entries += write.update.entries.size();
    bytes += EntryBytes(write.update);
    if (!write.update.empty()) updates.push_back(std::move(write.update));
    writes.push_back(std::move(write));
  }
  queued_.erase(queued_.begin(), queued_.begin() + static_cast<std::ptrdiff_t>(taken));

  if (!updates.empty()) {
    absl::Duration begun = runtime_->Uptime();
    if (!Healthy(floor_->LowerFor(updates), "lowering the log's floor")) return;
    if (!Healthy(store_->Commit(updates), "writing the log")) return;
    absl::Duration took = runtime_->Uptime() - begun;
    if (synced_) synced_(took, entries, bytes);
    if (took > kSlowSync) {
      spdlog::warn("the disk took {} ms to make {} log entries durable",
                   absl::ToInt64Milliseconds(took), entries);
    }
  }
  done_(std::move(writes));
  RaiseFloorLater();
  if (!queued_.empty()) {
    loop_->Post([this] {
      loop_->AssertCurrent();
      CommitQueued();
    });
  }
}

void LogWriter::RaiseFloorLater() {
  if (floor_due_) return;
  floor_due_ = true;
  loop_->PostAfter(kFloorPeriod, [this] {
    loop_->AssertCurrent();
    floor_due_ = false;
    RaiseFloor();
  });
}

void LogWriter::RaiseFloor() {
  if (failed_) return;
  Healthy(floor_->Raise(commit_, *store_), "writing the log's floor");
}

void LogWriter::BeginAdopting(Position position, Loop::Task noted) {
  loop_->Post([this, position, noted = std::move(noted)]() mutable {
    loop_->AssertCurrent();
    if (failed_) return;
    if (MUTANT("replica.adoption_not_noted") ||
        Healthy(store_->BeginAdopting(position), "noting the adoption of a snapshot")) {
      std::move(noted)();
    }
  });
}

void LogWriter::DropThrough(Position position) {
  loop_->Post([this, position] {
    loop_->AssertCurrent();
    if (failed_) return;
    // Behind what is queued: the core has seen the log as those writes leave it.
    while (!queued_.empty() && !failed_) CommitQueued();
    if (!failed_) Healthy(store_->DropThrough(position), "dropping the applied part of the log");
  });
}

void LogWriter::Close(Index commit, Loop::Task closed) {
  loop_->Post([this, commit, closed = std::move(closed)]() mutable {
    loop_->AssertCurrent();
    commit_ = commit;
    while (!queued_.empty() && !failed_) CommitQueued();
    RaiseFloor();
    std::move(closed)();
  });
}

bool LogWriter::Healthy(const absl::Status& status, std::string_view what) {
  if (MUTANT("replica.go_on_after_failed_sync")) return true;
  if (!status.ok() && !failed_) {
    MARK("replica.log_failed");
    failed_ = true;
    fatal_(fmt::format("{} failed: {}; nothing that was not durable before was acknowledged", what,
                       Describe(status)));
  }
  return !failed_;
}

}  // namespace kv

#include "server/replica/applier.h"

#include <spdlog/spdlog.h>

#include <iterator>
#include <string>
#include <utility>

#include "storage/check.h"
#include "storage/status.h"

namespace kv {
namespace {

// Bounds the machine's batch and how long the first of a run waits for the last.
constexpr size_t kRunEntriesMax = 1024;
constexpr size_t kRunBytesMax = size_t{4} << 20;
constexpr absl::Duration kSlowApply = absl::Seconds(1);

}  // namespace

Applier::Applier(Parts parts, std::unique_ptr<Loop> loop)
    : runtime_(parts.runtime),
      machine_(parts.machine),
      applied_(std::move(parts.applied)),
      fatal_(std::move(parts.fatal)),
      measured_(std::move(parts.measured)),
      loop_(std::move(loop)) {}

void Applier::Submit(std::vector<Work> work) {
  loop_->Post([this, work = std::move(work)]() mutable {
    loop_->AssertCurrent();
    bool first = queued_.empty();
    std::move(work.begin(), work.end(), std::back_inserter(queued_));
    if (!first) return;  // A run is already posted behind us and will take this too.
    loop_->Post([this] {
      loop_->AssertCurrent();
      ApplyQueued();
    });
  });
}

void Applier::ApplyQueued() {
  std::vector<Work> work = std::move(queued_);
  queued_.clear();
  std::vector<Work> run;
  size_t bytes = 0;
  for (Work& next : work) {
    bytes += next.entry->data.size();
    run.push_back(std::move(next));
    if (run.size() < kRunEntriesMax && bytes < kRunBytesMax) continue;
    ApplyRun(std::exchange(run, {}));
    bytes = 0;
  }
  if (!run.empty()) ApplyRun(std::move(run));
}

void Applier::ApplyRun(std::vector<Work> run) {
  if (failed_) return;
  Position last = run.back().entry->position();
  std::vector<Committed> committed;
  committed.reserve(run.size());
  for (Work& work : run) {
    committed.push_back({.entry = work.entry, .wants_reply = static_cast<bool>(work.caller)});
  }
  absl::Duration begun = runtime_->Uptime();
  std::vector<Reply> replies = machine_->Apply(committed);
  KV_CHECK(replies.size() == run.size(), "one reply an entry");
  absl::Duration took = runtime_->Uptime() - begun;
  if (measured_) measured_(took, run.size());
  if (took > kSlowApply) {
    spdlog::warn("applying {} entries took {} ms", run.size(), absl::ToInt64Milliseconds(took));
  }
  applied_(last);
  for (size_t i = 0; i < run.size(); ++i) {
    run[i].caller.Answer({.error = ReplicaError::kNone,
                          .reply = std::move(replies[i]),
                          .position = run[i].entry->position()});
  }
}

void Applier::Adopt(Snapshot snapshot, Loop::Task adopted) {
  loop_->Post([this, snapshot = std::move(snapshot), adopted = std::move(adopted)]() mutable {
    loop_->AssertCurrent();
    ApplyQueued();
    if (failed_) return;
    if (absl::Status status = machine_->Adopt(snapshot); !status.ok()) {
      failed_ = true;
      fatal_(fmt::format("adopting the snapshot at index {}, term {}, failed: {}",
                         snapshot.manifest.position.index, snapshot.manifest.position.term,
                         Describe(status)));
      return;
    }
    std::move(adopted)();
  });
}

void Applier::Close(Loop::Task closed) {
  loop_->Post([this, closed = std::move(closed)]() mutable {
    loop_->AssertCurrent();
    ApplyQueued();
    std::move(closed)();
  });
}

}  // namespace kv

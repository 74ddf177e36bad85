#include "server/api/probes.h"

#include <atomic>
#include <cstddef>
#include <utility>

namespace kv::api {
namespace {

// Collects the answers of probes that were asked at the same time.
struct Round {
  Probes::Answers answers;
  std::atomic<size_t> open;
  Probes::Done done;
};

}  // namespace

void Probes::Open(Set set) {
  MutexLock lock(mutex_);
  open_ = was_open_ = true;
  set_ = std::move(set);
}

void Probes::Close(std::string_view reason) {
  MutexLock lock(mutex_);
  open_ = false;
  reason_ = reason;
  set_.clear();
}

std::string Probes::WhyClosed() const {
  {
    MutexLock lock(mutex_);
    if (was_open_ || !waits_for_) return reason_;
  }
  std::string reason = waits_for_();
  MutexLock lock(mutex_);
  return reason.empty() ? reason_ : reason;
}

void Probes::Ask(ProbeKind kind, const std::function<bool(std::string_view)>& wanted, Done done) {
  auto round = std::make_shared<Round>();
  round->done = std::move(done);
  const std::string why_closed = WhyClosed();  // Asks others, so not under the lock.
  {
    // Probes are begun under the lock, so that Close can promise that none is begun after it; they
    // answer from threads of their own and never from within.
    MutexLock lock(mutex_);
    std::vector<const Probe*> asked;
    for (const auto& [probe_kind, probe] : set_) {
      if (probe_kind == kind && wanted(probe.name)) asked.push_back(&probe);
    }
    for (const Probe* probe : asked) round->answers.push_back({probe->name, absl::OkStatus()});
    if (!open_) {
      round->answers.push_back(
          {std::string(kClosed), absl::Status(absl::StatusCode::kUnavailable, why_closed)});
    }
    // One more than there are probes: this function, so that none of them answers under the lock.
    round->open = asked.size() + 1;
    for (size_t i = 0; i < asked.size(); ++i) {
      asked[i]->ask([round, i](absl::Status status) {
        round->answers[i].status = std::move(status);
        if (--round->open == 0) std::move(round->done)(std::move(round->answers));
      });
    }
  }
  if (--round->open == 0) std::move(round->done)(std::move(round->answers));
}

bool Probes::Has(ProbeKind kind, std::string_view name) const {
  MutexLock lock(mutex_);
  for (const auto& [probe_kind, probe] : set_) {
    if (probe_kind == kind && probe.name == name) return true;
  }
  return false;
}

}  // namespace kv::api

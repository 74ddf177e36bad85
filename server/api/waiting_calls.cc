#include "server/api/waiting_calls.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "server/api/errors.h"

namespace kv::api {

void WaitingCalls::Add(std::shared_ptr<WaitingCall> call) {
  {
    const MutexLock lock(mutex_);
    if (!stopped_) {
      calls_.insert(std::move(call));
      return;
    }
  }
  call->End(ToStatus(Error::kStopped));
}

void WaitingCalls::Remove(const std::shared_ptr<WaitingCall>& call) {
  const MutexLock lock(mutex_);
  calls_.erase(call);
}

void WaitingCalls::EndWithoutLeader() {
  std::vector<std::shared_ptr<WaitingCall>> lost;
  {
    const MutexLock lock(mutex_);
    std::copy_if(calls_.begin(), calls_.end(), std::back_inserter(lost),
                 [](const auto& call) { return call->needs_leader(); });
  }
  for (const auto& call : lost) call->End(ToStatus(Error::kNoLeader));
}

void WaitingCalls::Stop() {
  std::set<std::shared_ptr<WaitingCall>> calls;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    calls.swap(calls_);
  }
  for (const auto& call : calls) call->End(ToStatus(Error::kStopped));
}

}  // namespace kv::api

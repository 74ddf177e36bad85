// A lease that is kept: renewed after each third of its time, over whichever endpoint answers,
// until it is gone or nobody has renewed it in time.
//
// A renewal counts from when it was sent, so the keeper never believes in a lease that the cluster
// has already ended.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace kv::client {

// One renewal. A TTL of 0 in the response: there is no such lease.
Answer<pb::LeaseKeepAliveResponse> RenewLease(Client* client, int64_t id,
                                              const CallOptions& options);

// Any thread may ask it.
class LeaseKeeper {
 public:
  struct Options {
    // How long the lease lives at least, counted from now. Zero: not known, and then the keeper
    // ends if its first renewal fails.
    absl::Duration left = absl::ZeroDuration();
    CallOptions call;  // Of one renewal; never longer than the lease lives.
    // Told of each renewal, on the keeper's thread; must not end the keeper.
    std::function<void(const pb::LeaseKeepAliveResponse&)> renewed = nullptr;
    // Told of the end, as Wait() is, unless it was canceled; on the keeper's thread, as above.
    std::function<void(const absl::Status&)> ended = nullptr;
  };

  // The first renewal is sent at once. `client` outlives the keeper.
  LeaseKeeper(Client* client, int64_t id, Options options);
  // Cancels. The lease is not revoked: it ends by itself unless somebody else renews it.
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;

  // Waits until the lease is kept no more. NotFound: the cluster says that there is none.
  // DeadlineExceeded: its time is up, as far as is known here. Cancelled: by Cancel(). Else: what
  // the first renewal failed with.
  absl::Status Wait();
  // No renewal is sent any more; one that is under way is waited for by the destructor.
  void Cancel();

 private:
  using Clock = std::chrono::steady_clock;

  void Run();
  absl::Status Keep();
  // Of a renewal that is sent now.
  CallOptions Patience() const;
  // False: canceled meanwhile.
  bool Pause(Clock::duration pause);

  // Constant after construction.
  Client* const client_;
  const int64_t id_;
  const Options options_;

  // The keeper's thread.
  Clock::time_point until_;  // So long it lives for certain, once ttl_ is known.
  absl::Duration ttl_ = absl::ZeroDuration();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool canceled_ = false;  // Guarded by mutex_, as what follows.
  bool over_ = false;
  absl::Status end_;

  std::thread thread_;  // Last: it uses all of the above.
};

}  // namespace kv::client

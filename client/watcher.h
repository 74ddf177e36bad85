// A watcher: the events of a range of keys from a revision on, each once and in order, whatever
// happens to the connection.
//
// When its stream ends, it opens another, at the next endpoint, where it had come to: behind the
// last event or progress it was told of. Revisions come whole; pieces of a large one are put
// together first. It ends when the server says so (what it wants is compacted, or refused), when
// the call is refused for good, or when it is canceled.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "client/client.h"

namespace kv::client {

inline constexpr const char* kWatchPath = "/etcdserverpb.Watch/Watch";

// Next is for one thread, the rest for any.
class Watcher {
 public:
  // `client` outlives it. The watcher has a stream to itself; it chooses the id.
  Watcher(Client* client, pb::WatchCreateRequest request);
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Waits for news: events; or how far it is, without events; or the end (`canceled`), which is the
  // last. Nothing: it is over.
  std::optional<pb::WatchResponse> Next();
  // Why the server, or the call, ended it; OK while it goes on.
  const absl::Status& status() const { return status_; }

  // Asks how far it is. Lost without an answer if the connection breaks, or if it is behind.
  void AskProgress();
  // Next gives nothing any more, a little later.
  void Cancel();

 private:
  bool Connect();
  void Disconnect();
  void Pause();
  std::optional<pb::WatchResponse> Take(pb::WatchResponse response);
  pb::WatchResponse End(absl::Status status, pb::WatchResponse last);

  // Constant after construction.
  Client* const client_;

  // The thread's that calls Next.
  pb::WatchCreateRequest request_;  // Its start_revision is where to go on; 0: not yet known.
  pb::WatchResponse pieces_;        // Of a revision that is not complete.
  absl::Duration pause_;
  absl::Status status_;
  bool over_ = false;

  std::mutex mutex_;
  std::condition_variable woken_;
  bool canceled_ = false;                   // Guarded by mutex_.
  std::unique_ptr<Client::Stream> stream_;  // Changed under mutex_, by the thread of Next.
};

}  // namespace kv::client

// Streams of backups: a copy of the state is made, read piece by piece as the client takes it, and
// removed when the call ends, however it ends.
//
// One loop of its own does all the work, so that however many clients ask, making and reading
// copies takes one thread from nobody else. At most kStreamsMax copies are there at a time; whoever
// comes then is refused. A client that takes nothing for kPatience is given up: a copy keeps files
// on the disk that the store is done with.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/replica/runtime.h"
#include "storage/backup.h"

namespace kv::api {

// Any thread.
class Backups {
 public:
  static constexpr size_t kStreamsMax = 4;
  static constexpr absl::Duration kPatience = absl::Minutes(5);

  // Makes the copy; may wait for the disk.
  using Open = std::function<absl::StatusOr<std::unique_ptr<BackupSource>>()>;
  Backups(Runtime* runtime, Open open);
  ~Backups();

  void Send(Writer<etcdserverpb::SnapshotResponse>* writer);
  // What is under way ends; what comes from now on is refused. Twice does no harm.
  void Stop();

 private:
  class Stream;

  const Open open_;
  const std::shared_ptr<std::atomic<size_t>> streams_ = std::make_shared<std::atomic<size_t>>(0);
  const std::unique_ptr<Loop> loop_;
};

}  // namespace kv::api

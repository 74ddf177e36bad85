// Which directory holds the machine's state, and how another takes its place.
//
//     STATE           the name of the current state directory; replaced by rename
//     state-000007/   the database
//
// A directory counts once STATE names it; any other state directory is left over from a crash and
// removed at the next start. Stateless but for the name; one thread.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "storage/database.h"
#include "storage/snapshot.h"

namespace rocksdb {
class Env;
}

namespace kv {

using OpenDatabase = std::function<absl::StatusOr<std::unique_ptr<Database>>(
    const std::string& path, const DatabaseOptions& options)>;

class StateDirectory {
 public:
  // `open` opens the databases; RocksDB under `env` if it is empty.
  StateDirectory(rocksdb::Env* env, std::string data_dir, DatabaseOptions options,
                 OpenDatabase open);

  // Whether there is a state; an error if STATE cannot be read or makes no sense.
  absl::StatusOr<bool> Exists() const;

  // Opens what STATE names and removes what it does not name.
  absl::StatusOr<std::shared_ptr<Database>> Open();

  // A new, empty database, not yet the state. What an earlier attempt left is removed.
  absl::StatusOr<std::unique_ptr<Database>> Create();
  // The snapshot's database, consumed, not yet the state.
  absl::StatusOr<std::shared_ptr<Database>> Place(const Snapshot& snapshot);
  // A second copy of the snapshot's database, which stays as it is; not yet the state. What an
  // earlier attempt left is removed.
  absl::StatusOr<std::shared_ptr<Database>> Link(const Snapshot& snapshot);
  // What Create, Place or Link made becomes the state, durably. The directory of the old one goes
  // when its database is closed.
  absl::Status Switch();

 private:
  // A database whose directory is removed with it once it is no longer the state.
  struct Fate {
    bool removed = false;  // Written before the last reference is dropped, read after.
  };

  std::string PathOf(const std::string& name) const { return data_dir_ + "/" + name; }
  absl::StatusOr<std::string> ReadName() const;
  absl::Status RemoveOthers(const std::string& kept) const;
  absl::StatusOr<std::shared_ptr<Database>> OpenAt(const std::string& name);

  rocksdb::Env* const env_;
  const std::string data_dir_;
  const DatabaseOptions options_;
  const OpenDatabase open_;
  std::string current_;  // Empty: none.
  std::string next_;
  std::shared_ptr<Fate> current_fate_;
  std::shared_ptr<Fate> next_fate_;
};

}  // namespace kv

// A KvMachine in a directory of its own, fed by hand: what a Replica would do, without the log.
#pragma once

#include <rocksdb/env.h>

#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "proto/internal/command.pb.h"
#include "server/kv/kv_machine.h"

namespace google::protobuf {
class MessageLite;
}

namespace kv {

// A directory under the system's temporary one, gone with the object.
class TemporaryDirectory {
 public:
  TemporaryDirectory();
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The value of `variable` in the environment, or one drawn from the system; printed, so that a
// failure can be replayed.
uint64_t SeedFrom(const char* variable);

// Chance for tests: splitmix64.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t Next();
  uint64_t Below(uint64_t bound) { return Next() % bound; }
  bool OneIn(uint64_t bound) { return Below(bound) == 0; }

 private:
  uint64_t state_;
};

std::string EncodeCommand(kvd::internal::Kind kind, const google::protobuf::MessageLite& body);

class MachineFixture {
 public:
  // Founds a machine at entry 1 with one voter.
  explicit MachineFixture(size_t record_cache_bytes = size_t{1} << 20,
                          rocksdb::Env* env = rocksdb::Env::Default());
  ~MachineFixture();

  KvMachine& machine() { return *machine_; }
  const KvMachineOptions& options() const { return options_; }
  const std::string& path() const { return directory_.path(); }
  const std::vector<EntryPtr>& entries() const { return entries_; }

  // The next entry of the log: made, kept, not applied.
  EntryPtr Append(EntryKind kind, std::string data);
  // Applies entries in runs of at most `run`; the replies.
  std::vector<Reply> Apply(const std::vector<EntryPtr>& entries, size_t run = 64);
  Reply Do(kvd::internal::Kind kind, const google::protobuf::MessageLite& body);

  // Runs what the machine asked of the work loop, tasks they ask for included.
  void Work();
  // One task, if there is any.
  bool WorkOnce();
  // Closes the machine without a flush, as a crash of the process does, opens what is left and
  // applies the entries that are lost from the state.
  void CrashAndRecover();
  void Close();
  void Open();

 private:
  TemporaryDirectory directory_;
  KvMachineOptions options_;
  std::deque<absl::AnyInvocable<void() &&>> work_;
  std::vector<EntryPtr> entries_;
  std::unique_ptr<KvMachine> machine_;
};

}  // namespace kv

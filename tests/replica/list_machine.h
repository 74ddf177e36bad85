// A Machine for tests: the list of the commands applied, and what was made of each.
#pragma once

#include <rocksdb/env.h>

#include <string>
#include <vector>

#include "server/replica/machine.h"
#include "storage/check.h"
#include "storage/files.h"
#include "storage/mutex.h"

namespace kv::test {

class ListMachine final : public Machine {
 public:
  struct State {
    Position applied;
    raft::Members members;
    std::vector<std::string> commands;
  };

  // `founders` are the members as of position {1, 1}.
  explicit ListMachine(raft::Members founders) {
    state_.applied = {.index = 1, .term = 1};
    state_.members = std::move(founders);
    durable_ = state_;
  }

  std::vector<Reply> Apply(std::span<const Committed> run) override {
    MutexLock lock(mutex_);
    std::vector<Reply> replies;
    for (const Committed& committed : run) {
      const Entry& entry = *committed.entry;
      KV_CHECK(entry.index == state_.applied.index + 1, "applied in order");
      state_.applied = entry.position();
      Reply reply;
      if (entry.kind == EntryKind::kCommand) {
        state_.commands.push_back(entry.data);
        if (committed.wants_reply) reply.body = "did " + entry.data;
        if (entry.data == "refuse") reply.status = absl::FailedPreconditionError("as asked");
      } else if (entry.kind == EntryKind::kMembers) {
        state_.members = *raft::DecodeMembers(entry.data);
      }
      replies.push_back(std::move(reply));
    }
    ++runs_;
    return replies;
  }
  Position applied() const override {
    MutexLock lock(mutex_);
    return state_.applied;
  }
  absl::StatusOr<Position> Durable() const override {
    MutexLock lock(mutex_);
    return durable_.applied;
  }
  raft::Members members() const override {
    MutexLock lock(mutex_);
    return state_.members;
  }
  absl::Status Flush() override {
    MutexLock lock(mutex_);
    durable_ = state_;
    return absl::OkStatus();
  }
  absl::StatusOr<Snapshot> Take(const std::string& path) override {
    rocksdb::Env* env = rocksdb::Env::Default();
    State state = this->state();
    absl::Status made = CreateDirectory(env, path);
    if (!made.ok()) return made;
    std::string bytes;
    for (const std::string& command : state.commands) PutBytes(bytes, command);
    made = WriteFileAtomically(env, path + "/commands", bytes);
    if (!made.ok()) return made;
    return SealSnapshot(env, path, state.applied, raft::Encode(state.members));
  }
  absl::Status Adopt(const Snapshot& snapshot) override {
    rocksdb::Env* env = rocksdb::Env::Default();
    auto bytes = ReadFile(env, snapshot.path + "/commands");
    if (!bytes.ok()) return bytes.status();
    State state;
    state.applied = snapshot.manifest.position;
    state.members = *raft::DecodeMembers(snapshot.manifest.members);
    for (ByteReader reader(**bytes); !reader.rest().empty();) {
      state.commands.emplace_back(reader.Bytes());
    }
    MutexLock lock(mutex_);
    state_ = std::move(state);
    durable_ = state_;
    ++adopted_;
    return RemoveDirectory(env, snapshot.path);
  }

  State state() const {
    MutexLock lock(mutex_);
    return state_;
  }
  std::vector<std::string> commands() const { return state().commands; }
  int adopted() const {
    MutexLock lock(mutex_);
    return adopted_;
  }
  int runs() const {
    MutexLock lock(mutex_);
    return runs_;
  }
  // What a crash leaves.
  void Crash() {
    MutexLock lock(mutex_);
    state_ = durable_;
  }

 private:
  mutable Mutex mutex_;
  State state_ ABSL_GUARDED_BY(mutex_);
  State durable_ ABSL_GUARDED_BY(mutex_);
  int adopted_ ABSL_GUARDED_BY(mutex_) = 0;
  int runs_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kv::test

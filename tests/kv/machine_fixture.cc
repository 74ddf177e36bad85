#include "tests/kv/machine_fixture.h"

#include <google/protobuf/message_lite.h>
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <random>
#include <utility>

#include "storage/status.h"

namespace kv {

TemporaryDirectory::TemporaryDirectory() {
  std::string name = (std::filesystem::temp_directory_path() / "kvd-test-XXXXXX").string();
  REQUIRE(::mkdtemp(name.data()) != nullptr);
  path_ = name;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

uint64_t SeedFrom(const char* variable) {
  const char* const set = std::getenv(variable);
  const uint64_t seed = set != nullptr ? std::strtoull(set, nullptr, 10) : std::random_device{}();
  std::printf("%s=%llu\n", variable, static_cast<unsigned long long>(seed));
  return seed;
}

uint64_t Dice::Next() {
  state_ += 0x9e3779b97f4a7c15;
  uint64_t mixed = state_;
  mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9;
  mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
  return mixed ^ (mixed >> 31);
}

std::string EncodeCommand(kvd::internal::Kind kind, const google::protobuf::MessageLite& body) {
  kvd::internal::Command command;
  command.set_kind(kind);
  command.set_min_version(1);
  command.set_body(body.SerializeAsString());
  return command.SerializeAsString();
}

MachineFixture::MachineFixture(size_t record_cache_bytes, rocksdb::Env* env) {
  options_.env = env;
  options_.data_dir = path();
  options_.memtable_bytes = size_t{4} << 20;
  options_.record_cache_bytes = record_cache_bytes;
  options_.work = [this](absl::AnyInvocable<void()&&> task) { work_.push_back(std::move(task)); };
  raft::Members members;
  members.voters = {1};
  const absl::Status founded = KvMachine::Found(options_, {.index = 1, .term = 1}, members);
  INFO(Describe(founded));
  REQUIRE(founded.ok());
  Open();
}

MachineFixture::~MachineFixture() = default;

void MachineFixture::Open() {
  absl::StatusOr<std::unique_ptr<KvMachine>> machine = KvMachine::Open(options_);
  INFO(Describe(machine.status()));
  REQUIRE(machine.ok());
  machine_ = *std::move(machine);
}

void MachineFixture::Close() {
  machine_.reset();
  work_.clear();
}

EntryPtr MachineFixture::Append(EntryKind kind, std::string data) {
  entries_.push_back(MakeEntry(entries_.size() + 2, 1, kind, std::move(data)));
  return entries_.back();
}

std::vector<Reply> MachineFixture::Apply(const std::vector<EntryPtr>& entries, size_t run) {
  std::vector<Reply> replies;
  for (size_t at = 0; at < entries.size(); at += run) {
    std::vector<Committed> committed;
    for (size_t i = at; i < std::min(at + run, entries.size()); ++i) {
      committed.push_back({.entry = entries[i], .wants_reply = true});
    }
    for (Reply& reply : machine_->Apply(committed)) replies.push_back(std::move(reply));
  }
  return replies;
}

Reply MachineFixture::Do(kvd::internal::Kind kind, const google::protobuf::MessageLite& body) {
  return Apply({Append(EntryKind::kCommand, EncodeCommand(kind, body))}).front();
}

bool MachineFixture::WorkOnce() {
  if (work_.empty()) return false;
  absl::AnyInvocable<void() &&> task = std::move(work_.front());
  work_.pop_front();
  std::move(task)();
  return true;
}

void MachineFixture::Work() {
  while (WorkOnce()) {
  }
}

void MachineFixture::CrashAndRecover() {
  Close();
  Open();
  const Index applied = machine_->applied().index;
  REQUIRE(applied <= entries_.size() + 1);
  Apply({entries_.begin() + static_cast<std::ptrdiff_t>(applied - 1), entries_.end()});
}

}  // namespace kv

// Streams of backups: by hand in virtual time, and from a member over a real channel.
#include "server/api/backups.h"

#include <rocksdb/env.h>

#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <deque>
#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "storage/files.h"
#include "storage/status.h"
#include "tests/api/lone_member.h"
#include "tests/replica/fake_runtime.h"

namespace kv::api {
namespace {

using etcdserverpb::SnapshotRequest;
using etcdserverpb::SnapshotResponse;

// A client by hand: it takes what is sent when the test says so.
class Client {
 public:
  Client() = default;
  Client(const Client&) = delete;

  Writer<SnapshotResponse>* NewWriter() { return new Ours(this); }
  void Take(bool taken) {
    auto ready = std::exchange(ready_, nullptr);
    std::move(ready)(taken);
  }
  bool waits() const { return ready_ != nullptr; }
  const std::optional<absl::Status>& end() const { return end_; }
  const std::string& bytes() const { return bytes_; }

 private:
  class Ours : public Writer<SnapshotResponse> {
   public:
    explicit Ours(Client* client) : client_(client) {}
    void Write(SnapshotResponse response, absl::AnyInvocable<void(bool) &&> ready) override {
      CHECK(client_->ready_ == nullptr);
      client_->bytes_ += response.blob();
      client_->ready_ = std::move(ready);
    }
    void Finish(absl::Status status) override {
      CHECK(!client_->end_.has_value());
      client_->end_ = std::move(status);
      delete this;
    }
    void OnGone(absl::AnyInvocable<void() &&>) override {}

   private:
    Client* const client_;
  };

  std::string bytes_;
  absl::AnyInvocable<void(bool) &&> ready_;
  std::optional<absl::Status> end_;
};

// Makes sealed snapshots of one file of three pieces.
class Copies {
 public:
  Copies() {
    path_ = (std::filesystem::temp_directory_path() / "kvd-backups-XXXXXX").string();
    REQUIRE(mkdtemp(path_.data()) != nullptr);
  }
  ~Copies() { std::filesystem::remove_all(path_); }

  absl::StatusOr<std::unique_ptr<BackupSource>> Open() {
    rocksdb::Env* env = rocksdb::Env::Default();
    const std::string path = fmt::format("{}/{}", path_, ++made_);
    RETURN_IF_ERROR(CreateDirectory(env, path));
    RETURN_IF_ERROR(WriteFileAtomically(env, path + "/000001.sst",
                                        std::string(5 * kSnapshotPieceBytes / 2, 'x')));
    ASSIGN_OR_RETURN(Snapshot snapshot, SealSnapshot(env, path, {.index = 3, .term = 1}, ""));
    BackupHeader header{.manifest = snapshot.manifest};
    return std::make_unique<BackupSource>(env, std::move(snapshot), std::move(header));
  }
  size_t there() const {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(path_), {}));
  }

 private:
  std::string path_;
  int made_ = 0;
};

TEST_CASE("a backup's copy is there for as long as its stream is, and only so many are") {
  test::FakeRuntime runtime;
  Copies copies;
  Backups backups(&runtime, [&copies] { return copies.Open(); });
  std::deque<Client> clients(Backups::kStreamsMax + 2);
  for (size_t i = 0; i <= Backups::kStreamsMax; ++i) backups.Send(clients[i].NewWriter());
  runtime.RunFor(absl::Seconds(1));
  CHECK(copies.there() == Backups::kStreamsMax);
  Client& refused = clients[Backups::kStreamsMax];
  REQUIRE(refused.end().has_value());
  CHECK(Describe(*refused.end()) == "RESOURCE_EXHAUSTED: etcdserver: too many requests");

  // One piece at a time, and the next when it is taken.
  Client& reader = clients[0];
  while (!reader.end()) {
    REQUIRE(reader.waits());
    reader.Take(true);
    runtime.RunFor(absl::Seconds(1));
  }
  CHECK(reader.end()->ok());
  CHECK(reader.bytes().size() % 512 == 32);
  Client& gone = clients[1];
  gone.Take(false);
  runtime.RunFor(absl::Seconds(1));
  CHECK(gone.end().has_value());
  CHECK(copies.there() == Backups::kStreamsMax - 2);

  // There is room again.
  Client& later = clients.back();
  backups.Send(later.NewWriter());
  runtime.RunFor(absl::Seconds(1));
  CHECK(later.waits());
  CHECK(copies.there() == Backups::kStreamsMax - 1);
  backups.Stop();
  for (Client& client : clients) {
    if (client.waits()) client.Take(false);
    CHECK(client.end().has_value());
  }
  CHECK(copies.there() == 0);
}

TEST_CASE("a client that takes nothing loses its backup, one that is slow does not") {
  test::FakeRuntime runtime;
  Copies copies;
  Backups backups(&runtime, [&copies] { return copies.Open(); });
  Client still;
  Client slow;
  backups.Send(still.NewWriter());
  backups.Send(slow.NewWriter());
  for (int i = 0; i < 3; ++i) {
    runtime.RunFor(Backups::kPatience * 0.8);
    slow.Take(true);
    runtime.RunFor(absl::Seconds(1));
  }
  REQUIRE(still.end().has_value());
  CHECK(still.end()->code() == absl::StatusCode::kDeadlineExceeded);
  CHECK(!slow.end().has_value());
  CHECK(copies.there() == 1);
  // Coming back to it does no harm.
  still.Take(true);
  slow.Take(false);
  runtime.RunFor(absl::Seconds(1));
  CHECK(copies.there() == 0);
}

TEST_CASE("a copy that cannot be made ends its call and takes no place") {
  test::FakeRuntime runtime;
  Backups backups(&runtime, []() -> absl::StatusOr<std::unique_ptr<BackupSource>> {
    return absl::UnavailableError("no room");
  });
  for (size_t i = 0; i < 2 * Backups::kStreamsMax; ++i) {
    Client client;
    backups.Send(client.NewWriter());
    runtime.RunFor(absl::Seconds(1));
    REQUIRE(client.end().has_value());
    CHECK(client.end()->code() == absl::StatusCode::kUnavailable);
  }
}

std::string OutgoingOf(LoneMember& member) {
  return member.machine().options().data_dir + "/outgoing";
}
bool NothingOutgoing(LoneMember& member) { return std::filesystem::is_empty(OutgoingOf(member)); }
void AwaitNothingOutgoing(LoneMember& member) {
  while (!NothingOutgoing(member)) std::this_thread::yield();
}

TEST_CASE("a backup of a member that is written to is of one revision, and ends with its sum") {
  LoneMember member;
  // Each transaction writes both: they are the same in whatever is consistent.
  std::atomic<bool> ended = false;
  std::thread writer([&] {
    for (int i = 0; !ended; ++i) {
      grpc::ClientContext context;
      etcdserverpb::TxnRequest txn;
      for (const char* key : {"left", "right"}) {
        auto* put = txn.add_success()->mutable_request_put();
        put->set_key(key);
        put->set_value(std::to_string(i));
      }
      etcdserverpb::TxnResponse response;
      CHECK(member.kv().Txn(&context, txn, &response).ok());
    }
  });
  for (int round = 0; round < 3; ++round) {
    const std::string path = fmt::format("{}-{}.db", OutgoingOf(member), round);
    grpc::ClientContext context;
    const auto reader = member.maintenance().Snapshot(&context, SnapshotRequest());
    std::ofstream file(path, std::ios::binary);
    SnapshotResponse response;
    uint64_t left = UINT64_MAX;
    std::string last;
    while (reader->Read(&response)) {
      CHECK(response.version() == kBackupVersion);
      CHECK(response.remaining_bytes() <= left);
      left = response.remaining_bytes();
      last = response.blob();
      file << last;
    }
    const grpc::Status status = reader->Finish();
    INFO(status.error_message());
    REQUIRE(status.ok());
    CHECK(left == 0);
    CHECK(last.size() == Sha256::kBytes);
    file.close();

    rocksdb::Env* env = rocksdb::Env::Default();
    const std::string target = path + ".out";
    const auto backup = ReadBackup(env, path, SumCheck::kYes, target);
    INFO(Describe(backup.status()));
    REQUIRE(backup.ok());
    CHECK(backup->header.cluster_id == LoneMember::kClusterId);
    DatabaseOptions options;
    options.write_ahead_log = false;
    auto database = OpenRocksDatabase(env, target, options);
    REQUIRE(database.ok());
    auto store = Mvcc::Open(*std::move(database), {});
    REQUIRE(store.ok());
    CHECK((*store)->head().revision == backup->header.revision);
    CHECK((*store)->head().keys == backup->header.keys);
    const auto left_value = (*store)->GetCurrent("left");
    const auto right_value = (*store)->GetCurrent("right");
    REQUIRE(left_value->record != nullptr);
    CHECK(left_value->record->value == right_value->record->value);
    CHECK(left_value->record->mod <= backup->header.revision);
  }
  ended = true;
  writer.join();
  AwaitNothingOutgoing(member);
}

TEST_CASE("a client that stops reading disturbs nobody, and leaves nothing when it goes") {
  LoneMember member;
  for (int i = 0; i < 64; ++i) {
    std::string value(size_t{1} << 20, '\0');
    raft::SplitMix64 chance(static_cast<uint64_t>(i));
    for (char& byte : value) byte = static_cast<char>(chance.Next());
    REQUIRE(member.Put(fmt::format("key{}", i), value).ok());
  }
  {
    grpc::ClientContext context;
    const auto reader = member.maintenance().Snapshot(&context, SnapshotRequest());
    SnapshotResponse response;
    REQUIRE(reader->Read(&response));
    CHECK(!NothingOutgoing(member));
    const size_t before = ResidentBytes();
    for (int i = 0; i < 200; ++i) REQUIRE(member.Put("other", "value").ok());
    CHECK(ResidentBytes() < before + (size_t{48} << 20));
    CHECK(!NothingOutgoing(member));
    context.TryCancel();
    CHECK(reader->Finish().error_code() == grpc::StatusCode::CANCELLED);
  }
  AwaitNothingOutgoing(member);

  // And when the member stops first.
  grpc::ClientContext context;
  const auto reader = member.maintenance().Snapshot(&context, SnapshotRequest());
  SnapshotResponse response;
  REQUIRE(reader->Read(&response));
  member.services().Stop(absl::Milliseconds(100));
  CHECK(NothingOutgoing(member));
  while (reader->Read(&response)) {
  }
  CHECK(!reader->Finish().ok());
}

TEST_CASE("a learner gives a backup too") {
  LoneMember member({}, Cluster::kAsLearner);
  grpc::ClientContext context;
  const auto reader = member.maintenance().Snapshot(&context, SnapshotRequest());
  SnapshotResponse response;
  size_t bytes = 0;
  while (reader->Read(&response)) bytes += response.blob().size();
  CHECK(reader->Finish().ok());
  CHECK(bytes % 512 == 32);
}

}  // namespace
}  // namespace kv::api

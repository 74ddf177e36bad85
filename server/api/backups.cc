#include "server/api/backups.h"

#include <utility>

#include "server/api/errors.h"
#include "storage/status.h"

namespace kv::api {

using etcdserverpb::SnapshotResponse;

// One call, on the loop. Whoever holds it last ends it.
class Backups::Stream : public std::enable_shared_from_this<Stream> {
 public:
  // `slot` is given back when the copy is gone.
  Stream(Loop* loop, Writer<SnapshotResponse>* writer, std::shared_ptr<void> slot)
      : loop_(loop), writer_(writer), slot_(std::move(slot)) {}
  ~Stream() { End(MakeStatus(absl::StatusCode::kUnavailable, "etcdserver: server stopped")); }

  void Begin(const Open& open) {
    absl::StatusOr<std::unique_ptr<BackupSource>> source = open();
    if (!source.ok()) return End(source.status());
    source_ = *std::move(source);
    WatchProgress();
    SendNext();
  }

 private:
  void SendNext() {
    if (writer_ == nullptr) return;
    absl::StatusOr<BackupSource::Piece> piece = source_->Next();
    if (!piece.ok()) return End(piece.status());
    if (piece->bytes.empty()) return End(absl::OkStatus());
    SnapshotResponse response;
    response.set_remaining_bytes(piece->left);
    response.set_blob(std::move(piece->bytes));
    response.set_version(std::string(kBackupVersion));
    writer_->Write(std::move(response), [self = shared_from_this()](bool taken) mutable {
      Loop* const loop = self->loop_;
      loop->Post([self = std::move(self), taken] {
        ++self->taken_;
        if (taken) {
          self->SendNext();
        } else {
          self->End(MakeStatus(absl::StatusCode::kCancelled, "the client is gone"));
        }
      });
    });
  }

  void WatchProgress() {
    loop_->PostAfter(kPatience, [weak = weak_from_this(), before = taken_] {
      const std::shared_ptr<Stream> self = weak.lock();
      if (self == nullptr || self->writer_ == nullptr) return;
      if (self->taken_ != before) return self->WatchProgress();
      self->End(MakeStatus(absl::StatusCode::kDeadlineExceeded,
                           "nothing of the snapshot was taken for {} minutes; it was given up",
                           absl::ToInt64Minutes(kPatience)));
    });
  }

  void End(absl::Status status) {
    if (writer_ == nullptr) return;
    source_.reset();
    slot_.reset();
    std::exchange(writer_, nullptr)->Finish(std::move(status));
  }

  Loop* const loop_;
  Writer<SnapshotResponse>* writer_;  // Null: ended.
  std::shared_ptr<void> slot_;
  std::unique_ptr<BackupSource> source_;
  uint64_t taken_ = 0;
};

Backups::Backups(Runtime* runtime, Open open)
    : open_(std::move(open)), loop_(runtime->NewLoop("backup")) {}

Backups::~Backups() = default;

void Backups::Send(Writer<SnapshotResponse>* writer) {
  if (streams_->fetch_add(1) >= kStreamsMax) {
    --*streams_;
    writer->Finish(ToStatus(Error::kTooManyRequests));
    return;
  }
  std::shared_ptr<void> slot(nullptr, [streams = streams_](void*) { --*streams; });
  auto stream = std::make_shared<Stream>(loop_.get(), writer, std::move(slot));
  loop_->Post([this, stream = std::move(stream)] { stream->Begin(open_); });
}

void Backups::Stop() { loop_->Stop(); }

}  // namespace kv::api

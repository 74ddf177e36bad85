#include "server/api/key_watch.h"

#include <optional>
#include <utility>

#include "server/api/errors.h"

namespace kv::api {
namespace {

class KeyWatch final : public WatchSink {
 public:
  KeyWatch(WatchHub* hub, std::shared_ptr<KeyListener> listener)
      : hub_(hub), listener_(std::move(listener)) {}

  // Before anything is ordered.
  void OpenedAs(WatchHub::StreamId id) { id_ = id; }

  bool full() const override { return listener_->full(); }

  void Told(const WatchNews& news) override {
    for (const SharedEvent* event : news.events) {
      if (over_) return;
      if (!listener_->OnEvent(news.revision, *event)) Close();
    }
  }
  void Refused(WatchRefusal refusal, Revision) override {
    Lose(refusal == WatchRefusal::kCompacted ? absl::OkStatus()
                                             : ToStatus(Error::kTooManyRequests));
  }
  void Compacted(int64_t, Revision) override { Lose(absl::OkStatus()); }
  void Failed(int64_t, const absl::Status& status) override { Lose(status); }
  void Canceled(int64_t, Revision) override {}
  void Created(int64_t, Revision) override {}
  void Progress(std::optional<int64_t>, Revision) override {}
  void Handled() override {}

 private:
  void Lose(absl::Status why) {
    if (over_) return;
    Close();
    listener_->OnLost(std::move(why));
  }
  void Close() {
    over_ = true;
    hub_->Close(id_);
  }

  WatchHub* const hub_;
  const std::shared_ptr<KeyListener> listener_;
  WatchHub::StreamId id_ = 0;  // Constant once something is ordered.
  bool over_ = false;          // The hub's loop's.
};

}  // namespace

WatchHub::StreamId WatchKeys(WatchHub* hub, WatchOrder order,
                             std::shared_ptr<KeyListener> listener) {
  const auto watch = std::make_shared<KeyWatch>(hub, std::move(listener));
  const WatchHub::StreamId id = hub->Open(watch, absl::InfiniteDuration());
  watch->OpenedAs(id);
  hub->Order(id, std::move(order));
  return id;
}

}  // namespace kv::api

// The hub: every watcher of this member, and what each is told.
//
// A watcher is a cursor. In step, it hears of each revision as it is applied. Behind (it asked for
// the past, or its client does not read), it costs nothing until its stream has room; then it is
// told from the newest revisions, which the hub keeps, or from the store's history, a page at a
// time, until it is in step again. The hub is a cursor too: where it was not told of revisions, it
// reads the history before it goes on.
//
// Every function may be called from any thread; the work is done on the hub's own loop, and a page
// is read on the work loop. Neither the apply loop nor one stream ever waits for another.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/kv/follower.h"
#include "server/kv/kv_machine.h"
#include "server/replica/door.h"
#include "server/replica/runtime.h"
#include "server/watch/shared_event.h"
#include "server/watch/watcher.h"
#include "server/watch/watcher_index.h"

namespace kv {

// What a stream asks for.
struct WatchOrder {
  KeyRange range;
  Revision start = 0;  // 0: from the next one on.
  int64_t id = 0;      // 0: the hub chooses.
  bool previous = false;
  bool puts = true;
  bool deletions = true;
  bool fragments = false;
  bool reports = false;
};

enum class WatchRefusal : uint8_t { kCompacted, kEmptyRange, kDuplicateId, kTooMany };

// Some or all of what one watcher is told at once: whole revisions, in order.
struct WatchNews {
  int64_t id = 0;
  Revision revision = 0;  // Of the store.
  bool previous = false;
  bool fragments = false;
  std::span<const SharedEvent* const> events;
};

// Where a stream's answers go, in this order. Called on the hub's loop; never waits.
class WatchSink {
 public:
  virtual ~WatchSink() = default;
  // Takes no more news for now: whoever said so calls Resume once it does.
  virtual bool full() const = 0;
  virtual void Created(int64_t id, Revision revision) = 0;
  virtual void Refused(WatchRefusal refusal, Revision revision) = 0;
  virtual void Canceled(int64_t id, Revision revision) = 0;
  virtual void Compacted(int64_t id, Revision compacted) = 0;
  virtual void Failed(int64_t id, const absl::Status& status) = 0;
  virtual void Told(const WatchNews& news) = 0;
  // Nothing up to `revision` is missing; without an id, to any watcher of the stream.
  virtual void Progress(std::optional<int64_t> id, Revision revision) = 0;
  // An order, a cancellation or a question was dealt with.
  virtual void Handled() = 0;
};

struct WatchHubOptions {
  size_t recent_bytes_max = size_t{16} << 20;    // Of the newest revisions, kept for stragglers.
  size_t inbox_bytes_max = size_t{16} << 20;     // Of what the apply loop is ahead.
  size_t page_events = 1000;                     // Of the history, at a time;
  size_t page_bytes = size_t{1} << 20;           // of one answer too.
  size_t watcher_bytes_max = size_t{512} << 20;  // Of all watchers together.
};

class WatchHub {
 public:
  using StreamId = uint64_t;

  // `machine` and `work` outlive the hub; `work` is unordered.
  WatchHub(Runtime* runtime, KvMachine* machine, Loop* work, const WatchHubOptions& options);
  ~WatchHub();
  WatchHub(const WatchHub&) = delete;
  WatchHub& operator=(const WatchHub&) = delete;

  // A watcher that reports says every `report_every` that it is in step, unless it had news.
  StreamId Open(std::shared_ptr<WatchSink> sink, absl::Duration report_every);
  void Order(StreamId stream, WatchOrder order);
  void Cancel(StreamId stream, int64_t id);
  void AskProgress(StreamId stream);
  void Resume(StreamId stream);  // Its sink has room again.
  void Close(StreamId stream);   // With all its watchers; its sink hears nothing more, soon.

  // Nobody is told anything more. Whoever reads a page for the hub may still be doing so.
  void Stop();

  struct Counts {
    size_t streams = 0;
    size_t watchers = 0;
    size_t slow = 0;     // Not in step.
    size_t unheard = 0;  // Events that the apply loop has told of and the hub has not looked at.
    uint64_t told = 0;   // Events, to each watcher anew.
  };
  Counts counts() const;

 private:
  class Inbox;
  // Revisions [first, through] as the history has them.
  struct Page {
    absl::Status status;
    Revision first = 0;
    Revision through = 0;
    Revision compacted = 0;  // Above `first`: they are gone.
    std::vector<RevisionEvents> revisions;
  };
  using WithPage = absl::AnyInvocable<void(Page) &&>;
  struct Gathered {
    Watcher* watcher = nullptr;
    std::vector<const SharedEvent*> events;
  };

#define KV_HUB_LOOP ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_)
  void Post(absl::AnyInvocable<void() &&> task);
  WatchStream* Find(StreamId id) KV_HUB_LOOP;
  void OnOrder(WatchStream& stream, WatchOrder order) KV_HUB_LOOP;
  std::optional<WatchRefusal> WhyNot(const WatchStream& stream,
                                     const WatchOrder& order) const KV_HUB_LOOP;
  void OnAskProgress(WatchStream& stream) KV_HUB_LOOP;
  void OnClose(StreamId id) KV_HUB_LOOP;
  void ReportLater(StreamId id, absl::Duration every) KV_HUB_LOOP;
  void Report(WatchStream& stream) KV_HUB_LOOP;
  bool IsCurrent(const Watcher& watcher) const KV_HUB_LOOP;

  void OnApplied(AppliedRevisions applied) KV_HUB_LOOP;
  void CatchUp() KV_HUB_LOOP;
  void SkipTo(Revision compacted) KV_HUB_LOOP;
  void Advance(std::vector<RevisionEvents> revisions, Revision through) KV_HUB_LOOP;
  void Gather(const SharedEvent& event) KV_HUB_LOOP;
  void TrimRecent() KV_HUB_LOOP;

  void Want(bool events) KV_HUB_LOOP;
  void Move(Watcher& watcher, Watcher::Place place) KV_HUB_LOOP;
  void Leave(Watcher& watcher) KV_HUB_LOOP;
  void Erase(Watcher& watcher) KV_HUB_LOOP;
  void StepLater() KV_HUB_LOOP;
  void Step() KV_HUB_LOOP;
  void TellRecent(Watcher& watcher) KV_HUB_LOOP;
  void TellPage(const Page& page) KV_HUB_LOOP;
  void Tell(Watcher& watcher, std::span<const SharedEvent* const> events) KV_HUB_LOOP;
  void ReadPage(Revision first, Revision last, WithPage then) KV_HUB_LOOP;
#undef KV_HUB_LOOP

  // Constant after construction.
  KvMachine* const machine_;
  Loop* const work_;
  const WatchHubOptions options_;
  const std::shared_ptr<Inbox> inbox_;

  std::atomic<StreamId> last_stream_ = 0;
  std::atomic<size_t> streams_open_ = 0;
  std::atomic<size_t> watchers_open_ = 0;
  std::atomic<size_t> watchers_slow_ = 0;
  std::atomic<uint64_t> events_told_ = 0;

  // The loop's.
  Revision revision_ ABSL_GUARDED_BY(*loop_) = 0;  // Those in step were told up to here.
  Revision known_ ABSL_GUARDED_BY(*loop_) = 0;     // Applied, as far as the hub has heard.
  std::unordered_map<StreamId, std::unique_ptr<WatchStream>> streams_ ABSL_GUARDED_BY(*loop_);
  WatcherIndex in_step_ ABSL_GUARDED_BY(*loop_);
  WatcherList behind_ ABSL_GUARDED_BY(*loop_);
  size_t watcher_bytes_ ABSL_GUARDED_BY(*loop_) = 0;
  // All events of the revisions (recent_after_, revision_], in order.
  std::deque<SharedEvent> recent_ ABSL_GUARDED_BY(*loop_);
  Revision recent_after_ ABSL_GUARDED_BY(*loop_) = 0;
  size_t recent_bytes_ ABSL_GUARDED_BY(*loop_) = 0;
  // What Advance is about to tell; kept for its memory.
  std::vector<Gathered> gathered_ ABSL_GUARDED_BY(*loop_);
  size_t gathering_ ABSL_GUARDED_BY(*loop_) = 0;
  bool hub_reads_ ABSL_GUARDED_BY(*loop_) = false;      // A page, for itself;
  bool watchers_read_ ABSL_GUARDED_BY(*loop_) = false;  // for those behind.
  bool step_posted_ ABSL_GUARDED_BY(*loop_) = false;

  const std::unique_ptr<Loop> loop_;
};

}  // namespace kv

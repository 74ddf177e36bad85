#include "server/watch/watch_hub.h"

#include <algorithm>
#include <utility>

#include "storage/check.h"
#include "storage/mark.h"

namespace kv {
namespace {

// Of those behind, this many are looked at for one page, so that no task of the loop is long.
constexpr size_t kWatchersPerPage = 512;

size_t CostOf(const KeyRange& range) {
  // The watcher, its place in its stream and in the index.
  return sizeof(Watcher) + 128 + 2 * (range.first.size() + range.end.size());
}

bool IsOneKey(const KeyRange& range) {
  return range.end.size() == range.first.size() + 1 && range.end.back() == '\0' &&
         range.end.starts_with(range.first);
}

}  // namespace

// The hub's alone.
struct WatchStream {
  WatchHub::StreamId id = 0;
  std::shared_ptr<WatchSink> sink;
  absl::Duration report_every;
  bool reports = false;  // The timer runs.
  int64_t next_id = 0;
  Revision said = 0;  // The newest in a header; a later answer never names an older one.
  std::unordered_map<int64_t, std::unique_ptr<Watcher>> watchers;
  WatcherList stalled;  // Until the sink has room.
};

// The apply loop's way to the hub, which it may outlive.
class WatchHub::Inbox final : public Follower, public std::enable_shared_from_this<Inbox> {
 public:
  Inbox(WatchHub* hub, size_t bytes_max) : hub_(hub), bytes_max_(bytes_max) {}

  bool WantsEvents() const override { return wanted.load(); }

  void OnApplied(AppliedRevisions applied) override {
    size_t bytes = 0;
    size_t count = 0;
    for (const RevisionEvents& revision : applied.events) {
      count += revision.events.size();
      for (const KeyEvent& event : revision.events) bytes += MemoryOf(event);
    }
    // A hub that cannot follow reads the history instead.
    if (bytes > 0 && bytes_ + bytes > bytes_max_) {
      MARK("watch.hub_cannot_follow");
      applied.complete = false;
      applied.events.clear();
      bytes = count = 0;
    }
    bytes_ += bytes;
    unheard += count;
    door.Post([self = shared_from_this(), applied = std::move(applied), bytes, count]() mutable {
      self->bytes_ -= bytes;
      self->unheard -= count;
      self->hub_->loop_->AssertCurrent();
      self->hub_->OnApplied(std::move(applied));
    });
  }

  std::atomic<bool> wanted = false;
  std::atomic<size_t> unheard = 0;  // Events.
  Door door;

 private:
  WatchHub* const hub_;  // Alive while the door is open.
  const size_t bytes_max_;
  std::atomic<size_t> bytes_ = 0;  // Posted and not yet looked at.
};

WatchHub::WatchHub(Runtime* runtime, KvMachine* machine, Loop* work, const WatchHubOptions& options)
    : machine_(machine),
      work_(work),
      options_(options),
      inbox_(std::make_shared<Inbox>(this, options.inbox_bytes_max)),
      loop_(runtime->NewLoop("watch")) {
  inbox_->door.Open(loop_.get());
  machine_->SetFollower(inbox_);
}

WatchHub::~WatchHub() { Stop(); }

void WatchHub::Stop() {
  machine_->SetFollower(nullptr);
  inbox_->door.Close();
  loop_->Stop();
}

void WatchHub::Post(absl::AnyInvocable<void() &&> task) { inbox_->door.Post(std::move(task)); }

WatchHub::Counts WatchHub::counts() const {
  return {.streams = streams_open_,
          .watchers = watchers_open_,
          .slow = watchers_slow_,
          .unheard = inbox_->unheard,
          .told = events_told_};
}

// ---- Streams and their orders ----

namespace {

// As etcd, every header names the store's revision, not the watcher's.
Revision Say(WatchStream& stream, Revision revision) {
  stream.said = std::max(stream.said, revision);
  return stream.said;
}

}  // namespace

WatchHub::StreamId WatchHub::Open(std::shared_ptr<WatchSink> sink, absl::Duration report_every) {
  const StreamId id = ++last_stream_;
  Post([this, id, sink = std::move(sink), report_every]() mutable {
    loop_->AssertCurrent();
    auto stream = std::make_unique<WatchStream>();
    stream->id = id;
    stream->sink = std::move(sink);
    stream->report_every = report_every;
    streams_.emplace(id, std::move(stream));
    streams_open_ = streams_.size();
  });
  return id;
}

WatchStream* WatchHub::Find(StreamId id) {
  const auto at = streams_.find(id);
  return at == streams_.end() ? nullptr : at->second.get();
}

void WatchHub::Order(StreamId stream, WatchOrder order) {
  Post([this, stream, order = std::move(order)]() mutable {
    loop_->AssertCurrent();
    if (WatchStream* found = Find(stream)) OnOrder(*found, std::move(order));
  });
}

std::optional<WatchRefusal> WatchHub::WhyNot(const WatchStream& stream,
                                             const WatchOrder& order) const {
  if (order.start < 0) return WatchRefusal::kCompacted;
  if (order.range.empty()) return WatchRefusal::kEmptyRange;
  if (order.id != 0 && stream.watchers.contains(order.id)) return WatchRefusal::kDuplicateId;
  if (watcher_bytes_ + CostOf(order.range) > options_.watcher_bytes_max) {
    return WatchRefusal::kTooMany;
  }
  return std::nullopt;
}

void WatchHub::OnOrder(WatchStream& stream, WatchOrder order) {
  // Before the head is read: what is committed after it is then told of.
  Want(true);
  const Head head = machine_->head();
  if (watchers_open_ == 0 && head.revision > revision_) {
    // Nobody was in step, so nobody missed what the hub was not told of.
    revision_ = recent_after_ = head.revision;
    known_ = std::max(known_, revision_);
    recent_.clear();
    recent_bytes_ = 0;
  }
  if (const std::optional<WatchRefusal> refusal = WhyNot(stream, order)) {
    if (watchers_open_ == 0) Want(false);
    stream.sink->Refused(*refusal, Say(stream, head.revision));
    stream.sink->Handled();
    return;
  }

  auto made = std::make_unique<Watcher>();
  Watcher& watcher = *made;
  watcher.one_key = IsOneKey(order.range);
  watcher.range = std::move(order.range);
  if (watcher.one_key) watcher.range.end = {};
  watcher.stream = &stream;
  watcher.begun = order.start <= head.revision;
  watcher.next = order.start == 0 ? head.revision + 1 : order.start;
  watcher.previous = order.previous;
  watcher.puts = order.puts;
  watcher.deletions = order.deletions;
  watcher.fragments = order.fragments;
  watcher.reports = watcher.report_due = order.reports;
  watcher.id = order.id;
  if (watcher.id == 0) {
    while (stream.watchers.contains(stream.next_id)) ++stream.next_id;
    watcher.id = stream.next_id++;
  }
  stream.watchers.emplace(watcher.id, std::move(made));
  watcher_bytes_ += CostOf(watcher.range);
  ++watchers_open_;
  ++watchers_slow_;
  behind_.PushBack(watcher);

  stream.sink->Created(watcher.id, Say(stream, head.revision));
  if (watcher.next < head.compacted) {
    stream.sink->Compacted(watcher.id, head.compacted);
    Erase(watcher);
  } else if (watcher.next > revision_ || MUTANT("watch.past_not_read")) {
    Move(watcher, Watcher::Place::kInStep);
  } else {
    StepLater();
  }
  if (order.reports && !stream.reports) {
    stream.reports = true;
    ReportLater(stream.id, stream.report_every);
  }
  stream.sink->Handled();
}

void WatchHub::Cancel(StreamId stream, int64_t id) {
  Post([this, stream, id] {
    loop_->AssertCurrent();
    WatchStream* found = Find(stream);
    if (found == nullptr) return;
    if (const auto at = found->watchers.find(id); at != found->watchers.end()) {
      Erase(*at->second);
      found->sink->Canceled(id, Say(*found, machine_->head().revision));
    }
    found->sink->Handled();
  });
}

// Whether there is nothing to tell it up to revision_, and its turn has come at all.
bool WatchHub::IsCurrent(const Watcher& watcher) const {
  if (MUTANT("watch.progress_too_early")) return true;
  return watcher.place == Watcher::Place::kInStep && (watcher.begun || watcher.next <= revision_);
}

void WatchHub::AskProgress(StreamId stream) {
  Post([this, stream] {
    loop_->AssertCurrent();
    if (WatchStream* found = Find(stream)) OnAskProgress(*found);
  });
}

void WatchHub::OnAskProgress(WatchStream& stream) {
  const auto current = [this](const auto& watcher) {
    loop_->AssertCurrent();
    return IsCurrent(*watcher.second);
  };
  if (!stream.watchers.empty() && !stream.sink->full() && revision_ >= stream.said &&
      std::all_of(stream.watchers.begin(), stream.watchers.end(), current)) {
    stream.sink->Progress(std::nullopt, Say(stream, revision_));
  }
  stream.sink->Handled();
}

void WatchHub::ReportLater(StreamId id, absl::Duration every) {
  loop_->PostAfter(every, [this, id, every] {
    loop_->AssertCurrent();
    WatchStream* stream = Find(id);
    if (stream == nullptr) return;
    Report(*stream);
    ReportLater(id, every);
  });
}

void WatchHub::Report(WatchStream& stream) {
  for (const auto& [id, watcher] : stream.watchers) {
    if (!watcher->reports) continue;
    if (watcher->report_due && IsCurrent(*watcher) && revision_ >= stream.said &&
        !stream.sink->full()) {
      stream.sink->Progress(id, Say(stream, revision_));
    }
    watcher->report_due = true;
  }
}

void WatchHub::Resume(StreamId stream) {
  Post([this, stream] {
    loop_->AssertCurrent();
    WatchStream* found = Find(stream);
    if (found == nullptr) return;
    while (Watcher* watcher = found->stalled.front()) Move(*watcher, Watcher::Place::kBehind);
    StepLater();
  });
}

void WatchHub::Close(StreamId stream) {
  Post([this, stream] {
    loop_->AssertCurrent();
    OnClose(stream);
  });
}

void WatchHub::OnClose(StreamId id) {
  WatchStream* stream = Find(id);
  if (stream == nullptr) return;
  while (!stream->watchers.empty()) Erase(*stream->watchers.begin()->second);
  streams_.erase(id);
  streams_open_ = streams_.size();
}

// ---- Where a watcher is ----

void WatchHub::Want(bool events) {
  inbox_->wanted = events;
  if (events) return;
  recent_.clear();
  recent_bytes_ = 0;
  recent_after_ = revision_;
}

void WatchHub::Leave(Watcher& watcher) {
  switch (watcher.place) {
    case Watcher::Place::kInStep:
      in_step_.Remove(watcher);
      break;
    case Watcher::Place::kBehind:
      behind_.Remove(watcher);
      break;
    case Watcher::Place::kStalled:
      watcher.stream->stalled.Remove(watcher);
      break;
  }
  if (watcher.place != Watcher::Place::kInStep) --watchers_slow_;
}

void WatchHub::Move(Watcher& watcher, Watcher::Place place) {
  Leave(watcher);
  watcher.place = place;
  switch (place) {
    case Watcher::Place::kInStep:
      in_step_.Add(watcher);
      return;
    case Watcher::Place::kBehind:
      behind_.PushBack(watcher);
      break;
    case Watcher::Place::kStalled:
      watcher.stream->stalled.PushBack(watcher);
      break;
  }
  ++watchers_slow_;
}

void WatchHub::Erase(Watcher& watcher) {
  Leave(watcher);
  watcher_bytes_ -= CostOf(watcher.range);
  if (--watchers_open_ == 0) Want(false);
  watcher.stream->watchers.erase(watcher.id);
}

// ---- The hub's own cursor ----

void WatchHub::OnApplied(AppliedRevisions applied) {
  known_ = std::max(known_, applied.after);
  if (applied.after <= revision_) return;
  if ((applied.complete || MUTANT("watch.untold_taken_for_nothing")) &&
      applied.before <= revision_) {
    Advance(std::move(applied.events), applied.after);
  } else {
    CatchUp();
  }
}

void WatchHub::CatchUp() {
  if (hub_reads_ || known_ <= revision_) return;
  MARK("watch.hub_reads_history");
  hub_reads_ = true;
  ReadPage(revision_ + 1, known_, [this](Page page) {
    loop_->AssertCurrent();
    hub_reads_ = false;
    KV_CHECK(page.status.ok(), "the history of the keys cannot be read");
    if (page.compacted > revision_ + 1) {
      SkipTo(page.compacted);
    } else if (page.compacted == 0 && page.through > revision_) {
      Advance(std::move(page.revisions), page.through);
    }
    CatchUp();
    StepLater();
  });
}

// Those in step have missed what is below: each is told so, unless it begins later.
void WatchHub::SkipTo(Revision compacted) {
  MARK("watch.hub_meets_compaction");
  for (const auto& [id, stream] : streams_) {
    for (const auto& [watcher_id, watcher] : stream->watchers) {
      if (watcher->place != Watcher::Place::kInStep) continue;
      watcher->next = std::max(watcher->next, revision_ + 1);
      if (MUTANT("watch.hub_skips_in_silence")) continue;
      if (watcher->next < compacted) Move(*watcher, Watcher::Place::kBehind);
    }
  }
  revision_ = recent_after_ = compacted - 1;
  recent_.clear();
  recent_bytes_ = 0;
}

void WatchHub::Advance(std::vector<RevisionEvents> revisions, Revision through) {
  const Revision told = revision_;
  gathering_ = 0;
  for (RevisionEvents& revision : revisions) {
    if (revision.revision <= told) continue;
    for (KeyEvent& event : revision.events) {
      recent_.emplace_back(revision.revision, std::move(event));
      recent_bytes_ += recent_.back().memory();
      Gather(recent_.back());
    }
  }
  revision_ = through;
  for (size_t i = 0; i < gathering_; ++i) {
    Gathered& gathered = gathered_[i];
    Watcher& watcher = *gathered.watcher;
    watcher.gathered = 0;
    if (watcher.stream->sink->full()) {
      MARK("watch.stalls_in_step");
      if (!MUTANT("watch.stalled_begins_again")) watcher.next = std::max(watcher.next, told + 1);
      watcher.begun = true;
      Move(watcher, Watcher::Place::kStalled);
    } else {
      Tell(watcher, gathered.events);
    }
    gathered.events.clear();
  }
  TrimRecent();
}

void WatchHub::Gather(const SharedEvent& event) {
  in_step_.ForEach(event.key(), [this, &event](Watcher& watcher) {
    loop_->AssertCurrent();
    const bool before = event.revision() < watcher.next && !MUTANT("watch.start_unheeded");
    if (before || !watcher.Wants(event.key(), event.deletion())) return;
    if (watcher.gathered == 0) {
      if (gathering_ == gathered_.size()) gathered_.emplace_back();
      gathered_[gathering_].watcher = &watcher;
      watcher.gathered = static_cast<uint32_t>(++gathering_);
    }
    gathered_[watcher.gathered - 1].events.push_back(&event);
  });
}

void WatchHub::TrimRecent() {
  while (recent_bytes_ > options_.recent_bytes_max && !recent_.empty()) {
    recent_after_ = recent_.front().revision();
    while (!recent_.empty() && recent_.front().revision() == recent_after_) {
      recent_bytes_ -= recent_.front().memory();
      recent_.pop_front();
    }
  }
}

// ---- Those behind ----

void WatchHub::StepLater() {
  if (step_posted_ || watchers_read_ || behind_.empty()) return;
  step_posted_ = true;
  loop_->Post([this] {
    loop_->AssertCurrent();
    step_posted_ = false;
    Step();
  });
}

// One watcher, or one page: others get the loop in between.
void WatchHub::Step() {
  Watcher* watcher = behind_.front();
  if (watcher == nullptr || watchers_read_) return;
  if (watcher->stream->sink->full()) {
    Move(*watcher, Watcher::Place::kStalled);
  } else if (watcher->next > revision_) {
    Move(*watcher, Watcher::Place::kInStep);
  } else if (watcher->next > recent_after_) {
    TellRecent(*watcher);
  } else {
    watchers_read_ = true;
    ReadPage(watcher->next, revision_, [this](Page page) {
      loop_->AssertCurrent();
      watchers_read_ = false;
      TellPage(page);
      StepLater();
    });
    return;
  }
  StepLater();
}

void WatchHub::TellRecent(Watcher& watcher) {
  std::vector<const SharedEvent*> events;
  size_t bytes = 0;
  Revision through = revision_;
  auto at = std::lower_bound(
      recent_.begin(), recent_.end(), watcher.next,
      [](const SharedEvent& event, Revision next) { return event.revision() < next; });
  for (; at != recent_.end(); ++at) {
    if (bytes >= options_.page_bytes && at->revision() != events.back()->revision()) {
      through = at->revision() - 1;
      break;
    }
    if (!watcher.Wants(at->key(), at->deletion())) continue;
    bytes += at->bytes();
    events.push_back(&*at);
  }
  MARK("watch.told_from_recent");
  Tell(watcher, events);
  watcher.next = through + 1;
  Move(watcher, watcher.next > revision_ ? Watcher::Place::kInStep : Watcher::Place::kBehind);
}

// To everybody behind whom it helps, first of all the one it was read for, which is in front unless
// it has gone.
void WatchHub::TellPage(const Page& page) {
  std::deque<SharedEvent> shared;
  for (const RevisionEvents& revision : page.revisions) {
    for (const KeyEvent& event : revision.events) shared.emplace_back(revision.revision, event);
  }
  std::vector<const SharedEvent*> events;
  std::vector<Watcher*> again;
  Watcher* each = behind_.front();
  for (size_t looked = 0; each != nullptr && looked < kWatchersPerPage; ++looked) {
    Watcher& watcher = *std::exchange(each, each->after);
    if (page.compacted > watcher.next) {
      MARK("watch.compacted_while_behind");
      if (MUTANT("watch.compacted_not_told")) {
        watcher.next = page.compacted;
        continue;
      }
      watcher.stream->sink->Compacted(watcher.id, page.compacted);
      Erase(watcher);
      continue;
    }
    // A page that is gone says nothing of what is left behind it.
    if (page.compacted != 0) continue;
    if (watcher.next < page.first || watcher.next > page.through) continue;
    if (!page.status.ok()) {
      watcher.stream->sink->Failed(watcher.id, page.status);
      Erase(watcher);
      continue;
    }
    if (watcher.stream->sink->full()) {
      Move(watcher, Watcher::Place::kStalled);
      continue;
    }
    events.clear();
    for (const SharedEvent& event : shared) {
      if (event.revision() >= watcher.next && watcher.Wants(event.key(), event.deletion())) {
        events.push_back(&event);
      }
    }
    Tell(watcher, events);
    watcher.next = page.through + (MUTANT("watch.event_lost_at_hand_over") ? 2 : 1);
    if (watcher.next > revision_) {
      Move(watcher, Watcher::Place::kInStep);
    } else {
      again.push_back(&watcher);
    }
  }
  for (Watcher* watcher : again) Move(*watcher, Watcher::Place::kBehind);
}

// In answers of whole revisions, each of about a page's bytes at most.
void WatchHub::Tell(Watcher& watcher, std::span<const SharedEvent* const> events) {
  events_told_ += events.size();
  size_t begin = 0;
  size_t bytes = 0;
  for (size_t i = 0; i < events.size(); ++i) {
    bytes += events[i]->bytes();
    if (i + 1 < events.size() &&
        (bytes < options_.page_bytes || events[i + 1]->revision() == events[i]->revision())) {
      continue;
    }
    watcher.report_due = false;
    watcher.stream->sink->Told({.id = watcher.id,
                                .revision = Say(*watcher.stream, revision_),
                                .previous = watcher.previous,
                                .fragments = watcher.fragments,
                                .events = events.subspan(begin, i + 1 - begin)});
    begin = i + 1;
    bytes = 0;
  }
}

void WatchHub::ReadPage(Revision first, Revision last, WithPage then) {
  work_->Post([machine = machine_, options = options_, inbox = inbox_, first, last,
               then = std::move(then)]() mutable {
    Page page{.status = absl::OkStatus(), .first = first, .through = last, .revisions = {}};
    View view = machine->Latest();
    if (first < view.head().compacted) {
      page.compacted = view.head().compacted;
    } else {
      if (last < view.revision()) view = view.Before(last);
      auto history = view.History(first, options.page_events, options.page_bytes);
      page.status = history.status();
      size_t events = 0;
      size_t bytes = 0;
      if (history.ok()) page.revisions = *std::move(history);
      for (const RevisionEvents& revision : page.revisions) {
        events += revision.events.size();
        for (const KeyEvent& event : revision.events) bytes += BytesOf(event);
      }
      if (events >= options.page_events || bytes >= options.page_bytes) {
        MARK("watch.page_is_not_all");
        page.through = page.revisions.back().revision;
      }
    }
    inbox->door.Post([page = std::move(page), then = std::move(then)]() mutable {
      std::move(then)(std::move(page));
    });
  });
}

}  // namespace kv

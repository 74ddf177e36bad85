#include "server/watch/watch_hub.h"

#include <fmt/format.h>
#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "tests/kv/machine_fixture.h"
#include "tests/replica/fake_runtime.h"

namespace kv {
namespace {

using etcdserverpb::WatchResponse;

// Syncs nothing. Nobody here loses power, and three thousand syncs a run made its time that of the
// disk: twenty seconds and more beside a busy neighbour, for one second of work.
class HastyFileSystem final : public rocksdb::FileSystemWrapper {
 public:
  using FileSystemWrapper::FileSystemWrapper;
  const char* Name() const override { return "HastyFileSystem"; }
  rocksdb::IOStatus NewWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    return Hasten(target()->NewWritableFile(name, options, file, debug), file);
  }
  rocksdb::IOStatus ReopenWritableFile(const std::string& name, const rocksdb::FileOptions& options,
                                       std::unique_ptr<rocksdb::FSWritableFile>* file,
                                       rocksdb::IODebugContext* debug) override {
    return Hasten(target()->ReopenWritableFile(name, options, file, debug), file);
  }
  rocksdb::IOStatus NewDirectory(const std::string&, const rocksdb::IOOptions&,
                                 std::unique_ptr<rocksdb::FSDirectory>* directory,
                                 rocksdb::IODebugContext*) override {
    *directory = std::make_unique<HastyDirectory>();
    return rocksdb::IOStatus::OK();
  }

 private:
  using Options = rocksdb::IOOptions;
  using Debug = rocksdb::IODebugContext;
  class HastyFile final : public rocksdb::FSWritableFileOwnerWrapper {
   public:
    using FSWritableFileOwnerWrapper::FSWritableFileOwnerWrapper;
    rocksdb::IOStatus Sync(const Options&, Debug*) override { return rocksdb::IOStatus::OK(); }
    rocksdb::IOStatus Fsync(const Options&, Debug*) override { return rocksdb::IOStatus::OK(); }
    rocksdb::IOStatus RangeSync(uint64_t, uint64_t, const Options&, Debug*) override {
      return rocksdb::IOStatus::OK();
    }
  };
  class HastyDirectory final : public rocksdb::FSDirectory {
   public:
    rocksdb::IOStatus Fsync(const Options&, Debug*) override { return rocksdb::IOStatus::OK(); }
    rocksdb::IOStatus Close(const Options&, Debug*) override { return rocksdb::IOStatus::OK(); }
  };

  static rocksdb::IOStatus Hasten(rocksdb::IOStatus opened,
                                  std::unique_ptr<rocksdb::FSWritableFile>* file) {
    if (opened.ok()) *file = std::make_unique<HastyFile>(std::move(*file));
    return opened;
  }
};

// One change, as the naive model has it.
struct Change {
  Revision revision = 0;
  std::string key;
  std::string value;
  bool deletion = false;
  std::optional<std::string> previous;
};

// What one watcher asked for and heard.
struct Heard {
  WatchOrder order;
  Revision from = 0;
  std::vector<Change> events;
  Revision compacted = 0;
  bool over = false;
};

class Sink final : public WatchSink {
 public:
  bool full() const override { return full_; }
  void Created(int64_t id, Revision revision) override {
    ++answered;
    Heard& heard = watchers[id];
    heard.order = ordered;
    heard.from = ordered.start == 0 ? revision + 1 : ordered.start;
    Say(revision);
  }
  void Refused(WatchRefusal refusal, Revision revision) override {
    ++answered;
    refusals.push_back(refusal);
    Say(revision);
  }
  void Canceled(int64_t id, Revision revision) override {
    watchers.at(id).over = true;
    Say(revision);
  }
  void Compacted(int64_t id, Revision compacted) override {
    watchers.at(id).over = true;
    watchers.at(id).compacted = compacted;
  }
  void Failed(int64_t, const absl::Status& status) override { FAIL(status.ToString()); }
  void Told(const WatchNews& news) override {
    Say(news.revision);
    Heard& heard = watchers.at(news.id);
    REQUIRE(!heard.over);
    REQUIRE(!news.events.empty());
    const Revision before = heard.events.empty() ? 0 : heard.events.back().revision;
    // A revision is told at once and whole.
    REQUIRE(news.events.front()->revision() > before);
    std::string bytes;
    for (const SharedEvent* event : news.events) bytes += event->Field(news.previous);
    WatchResponse response;
    REQUIRE(response.ParseFromString(bytes));
    for (const mvccpb::Event& event : response.events()) {
      Change change{.revision = event.kv().mod_revision(),
                    .key = event.kv().key(),
                    .value = event.kv().value(),
                    .deletion = event.type() == mvccpb::Event::DELETE,
                    .previous = {}};
      if (event.has_prev_kv()) change.previous = event.prev_kv().value();
      REQUIRE(change.revision <= news.revision);
      heard.events.push_back(std::move(change));
    }
    told_bytes += bytes.size();
    if (takes > 0 && --takes == 0) full_ = true;
  }
  void Progress(std::optional<int64_t> id, Revision revision) override {
    Say(revision);
    progress.emplace_back(id, revision);
  }
  void Handled() override {}

  void Say(Revision revision) {
    REQUIRE(revision >= said);
    said = revision;
  }

  WatchOrder ordered;  // The one under way.
  bool full_ = false;
  int takes = 0;  // Answers until it is full; 0: any number.
  Revision said = 0;
  int answered = 0;  // Orders.
  size_t told_bytes = 0;
  std::map<int64_t, Heard> watchers;
  std::vector<WatchRefusal> refusals;
  std::vector<std::pair<std::optional<int64_t>, Revision>> progress;
};

// Two members with one history: the first has all of it at once, the second has the hub, and comes
// after by entries or by a snapshot.
class Member {
 public:
  explicit Member(const WatchHubOptions& options = {})
      : work_(runtime_.NewUnorderedLoop("work", 1)),
        hub_(std::make_unique<WatchHub>(&runtime_, &second_.machine(), work_.get(), options)) {}

  WatchHub& hub() { return *hub_; }
  test::FakeRuntime& runtime() { return runtime_; }
  const std::vector<Change>& history() const { return history_; }
  Revision revision() { return first_.machine().head().revision; }
  Revision compacted() { return first_.machine().head().compacted; }
  KvMachine& machine() { return second_.machine(); }

  void Put(const std::string& key, const std::string& value) {
    etcdserverpb::TxnRequest txn;
    AddPut(txn, key, value);
    Do(txn);
  }
  void AddPut(etcdserverpb::TxnRequest& txn, const std::string& key, const std::string& value) {
    auto* put = txn.add_success()->mutable_request_put();
    put->set_key(key);
    put->set_value(value);
  }
  void Do(const etcdserverpb::TxnRequest& txn) {
    const Revision revision = this->revision() + 1;
    for (const auto& op : txn.success()) {
      if (op.has_request_put()) {
        Note(revision, op.request_put().key(), op.request_put().value());
      } else {
        const auto& request = op.request_delete_range();
        const KeyRange range = KeyRange::FromRequest(request.key(), request.range_end());
        std::vector<std::string> keys;
        for (const auto& [key, value] : now_) {
          if (range.Contains(key)) keys.push_back(key);
        }
        for (const std::string& key : keys) Note(revision, key, std::nullopt);
      }
    }
    REQUIRE(first_.Do(kvd::internal::TXN, txn).status.ok());
  }
  void Compact(Revision revision) {
    etcdserverpb::CompactionRequest request;
    request.set_revision(revision);
    REQUIRE(first_.Do(kvd::internal::COMPACT, request).status.ok());
  }

  void Follow(size_t run) {
    const auto& entries = first_.entries();
    second_.Apply({entries.begin() + static_cast<ptrdiff_t>(followed_), entries.end()}, run);
    followed_ = entries.size();
    second_.Work();
  }
  void FollowBySnapshot() {
    if (followed_ == first_.entries().size()) return;
    const std::string path = fmt::format("{}/copy", second_.path());
    auto snapshot = first_.machine().Take(path);
    REQUIRE(snapshot.ok());
    REQUIRE(second_.machine().Adopt(*snapshot).ok());
    followed_ = first_.entries().size();
  }

  // What is to be done now; without what is to be done later.
  void RunDue() { runtime_.RunFor(absl::ZeroDuration()); }
  // Until nobody has anything to do.
  void Settle() {
    while (runtime_.RunOne()) {
    }
  }

 private:
  void Note(Revision revision, const std::string& key, std::optional<std::string> value) {
    Change change{.revision = revision,
                  .key = key,
                  .value = value.value_or(""),
                  .deletion = !value,
                  .previous = {}};
    if (const auto at = now_.find(key); at != now_.end()) change.previous = at->second;
    if (value) {
      now_[key] = *value;
    } else {
      now_.erase(key);
    }
    history_.push_back(std::move(change));
  }

  static constexpr size_t kCacheBytes = size_t{1} << 20;

  const std::unique_ptr<rocksdb::Env> disk_{
      rocksdb::NewCompositeEnv(std::make_shared<HastyFileSystem>(rocksdb::FileSystem::Default()))};
  test::FakeRuntime runtime_;
  MachineFixture first_{kCacheBytes, disk_.get()};
  MachineFixture second_{kCacheBytes, disk_.get()};
  size_t followed_ = 0;
  std::map<std::string, std::string> now_;
  std::vector<Change> history_;
  std::unique_ptr<Loop> work_;
  std::unique_ptr<WatchHub> hub_;
};

WatchHub::StreamId OpenSink(Member& member, const std::shared_ptr<Sink>& sink) {
  return member.hub().Open(sink, absl::Hours(1));
}

void Order(Member& member, Sink& sink, WatchHub::StreamId stream, const WatchOrder& order) {
  const int answered = sink.answered;
  sink.ordered = order;
  member.hub().Order(stream, order);
  while (sink.answered == answered) REQUIRE(member.runtime().RunOne());
}

std::string Key(Dice& dice) { return fmt::format("k{}", dice.Below(12)); }

WatchOrder AnyOrder(Dice& dice, Revision now) {
  WatchOrder order;
  const std::string key = Key(dice);
  switch (dice.Below(3)) {
    case 0:
      order.range = KeyRange::FromRequest(key, "");
      break;
    case 1:
      order.range = KeyRange::FromRequest("k", "l");
      break;
    default:
      order.range = KeyRange::FromRequest(key, std::string(1, '\0'));
  }
  if (!dice.OneIn(3))
    order.start = 1 + static_cast<Revision>(dice.Below(2 * static_cast<uint64_t>(now + 1)));
  order.previous = dice.OneIn(2);
  order.puts = !dice.OneIn(5);
  order.deletions = !dice.OneIn(5);
  return order;
}

bool Wants(const WatchOrder& order, const Change& change) {
  return order.range.Contains(change.key) && (change.deletion ? order.deletions : order.puts);
}

// No gap, no repetition, nothing made up; `through`: how far it must have heard.
void CheckHeard(Member& member, const Heard& heard, Revision through) {
  size_t at = 0;
  for (const Change& change : member.history()) {
    if (change.revision < heard.from || !Wants(heard.order, change)) continue;
    if (at == heard.events.size()) {
      if (heard.over) {
        // It was told where it stopped, or its client canceled it.
        if (heard.compacted != 0) REQUIRE(change.revision >= heard.from);
        return;
      }
      if (change.revision > through) return;
      FAIL(fmt::format("revision {} of {} is missing", change.revision, change.key));
    }
    const Change& got = heard.events[at++];
    REQUIRE(got.revision == change.revision);
    REQUIRE(got.key == change.key);
    REQUIRE(got.deletion == change.deletion);
    REQUIRE(got.value == change.value);
    if (!heard.order.previous) {
      REQUIRE(!got.previous);
    } else if (got.previous || change.revision > member.compacted()) {
      REQUIRE(got.previous == change.previous);
    }
  }
  REQUIRE(at == heard.events.size());
}

TEST_CASE("every watcher hears the history of its range, whatever happens") {
  const uint64_t seed = SeedFrom("KVD_WATCH_SEED");
  CAPTURE(seed);
  Dice dice(seed);
  for (int round = 0; round < 6; ++round) {
    WatchHubOptions options;
    options.recent_bytes_max = dice.OneIn(2) ? 200 : 20000;
    options.inbox_bytes_max = dice.OneIn(2) ? 1500 : 1 << 20;
    options.page_events = 1 + dice.Below(20);
    options.page_bytes = 1 + dice.Below(400);
    Member member(options);
    std::vector<std::pair<WatchHub::StreamId, std::shared_ptr<Sink>>> streams;
    const auto resume = [&](size_t i) {
      streams[i].second->full_ = false;
      streams[i].second->takes = dice.OneIn(2) ? 0 : 1 + static_cast<int>(dice.Below(4));
      member.hub().Resume(streams[i].first);
    };
    for (int step = 0; step < 600; ++step) {
      const uint64_t what = dice.Below(100);
      const size_t any = streams.empty() ? 0 : dice.Below(streams.size());
      if (what < 40) {
        etcdserverpb::TxnRequest txn;
        member.AddPut(txn, Key(dice), fmt::format("v{}", step));
        if (dice.OneIn(4)) member.AddPut(txn, "l" + Key(dice), fmt::format("w{}", step));
        member.Do(txn);
      } else if (what < 50) {
        etcdserverpb::TxnRequest txn;
        auto* deletion = txn.add_success()->mutable_request_delete_range();
        deletion->set_key(Key(dice));
        if (dice.OneIn(3)) deletion->set_range_end("l");
        member.Do(txn);
      } else if (what < 68) {
        member.Follow(1 + dice.Below(8));
      } else if (what < 70) {
        member.FollowBySnapshot();
      } else if (what < 72) {
        const Revision now = member.revision();
        const Revision at = now - static_cast<Revision>(dice.Below(30));
        if (at > member.compacted() && at > 0) member.Compact(at);
      } else if (what < 74 && streams.size() < 5) {
        auto sink = std::make_shared<Sink>();
        streams.emplace_back(OpenSink(member, sink), sink);
      } else if (streams.empty()) {
        continue;
      } else if (what < 80) {
        // What was reported before does not speak of a watcher that comes now.
        Order(member, *streams[any].second, streams[any].first, AnyOrder(dice, member.revision()));
        streams[any].second->progress.clear();
      } else if (what < 82) {
        member.hub().Cancel(streams[any].first, static_cast<int64_t>(dice.Below(6)));
      } else if (what < 86) {
        resume(any);
      } else if (what < 88) {
        streams[any].second->full_ = true;
      } else {
        for (uint64_t i = dice.Below(20); i > 0; --i) member.runtime().RunOne();
      }
      if (dice.OneIn(20) && !streams.empty()) member.hub().AskProgress(streams[any].first);
      for (auto& [id, sink] : streams) {
        for (const auto& [asked, revision] : std::exchange(sink->progress, {})) {
          for (const auto& [watcher, heard] : sink->watchers) CheckHeard(member, heard, revision);
        }
      }
    }
    member.Follow(8);
    for (int left = 0; left < 50; ++left) {
      for (size_t i = 0; i < streams.size(); ++i) resume(i);
      member.Settle();
    }
    for (size_t i = 0; i < streams.size(); ++i) {
      streams[i].second->takes = 0;
      streams[i].second->full_ = false;
      member.hub().Resume(streams[i].first);
    }
    member.Settle();
    size_t events = 0;
    for (const auto& [id, sink] : streams) {
      for (const auto& [watcher, heard] : sink->watchers) {
        CheckHeard(member, heard, member.revision());
        events += heard.events.size();
        // Who was not told everything was told why.
        if (heard.compacted != 0) REQUIRE(heard.compacted <= member.compacted());
      }
    }
    REQUIRE((streams.empty() || events > 0));
    REQUIRE(member.hub().counts().unheard == 0);
    REQUIRE(member.hub().counts().slow == 0);
    for (const auto& [id, sink] : streams) member.hub().Close(id);
    member.Settle();
    REQUIRE(member.hub().counts().watchers == 0);
  }
}

TEST_CASE("a sink that is full is told nothing until it has room, and then everything") {
  Member member;
  auto slow = std::make_shared<Sink>();
  auto quick = std::make_shared<Sink>();
  const auto slow_id = OpenSink(member, slow);
  const auto quick_id = OpenSink(member, quick);
  const WatchOrder order{.range = KeyRange::FromRequest("a", "b")};
  Order(member, *slow, slow_id, order);
  Order(member, *quick, quick_id, order);
  slow->full_ = true;
  for (int i = 0; i < 100; ++i) member.Put("a", fmt::format("{}", i));
  member.Follow(1);
  member.Settle();
  CHECK(slow->watchers.at(0).events.empty());
  CHECK(quick->watchers.at(0).events.size() == 100);
  CHECK(member.hub().counts().slow == 1);
  member.hub().AskProgress(slow_id);
  member.hub().AskProgress(quick_id);
  member.Settle();
  CHECK(slow->progress.empty());
  CHECK(quick->progress.size() == 1);
  slow->full_ = false;
  member.hub().Resume(slow_id);
  member.Settle();
  CHECK(slow->watchers.at(0).events.size() == 100);
  CHECK(member.hub().counts().slow == 0);
}

TEST_CASE("a watcher that compaction overtakes is told so, others go on") {
  Member member({.recent_bytes_max = 0});
  auto sink = std::make_shared<Sink>();
  const auto id = OpenSink(member, sink);
  Order(member, *sink, id, {.range = KeyRange::FromRequest("a", "")});
  sink->full_ = true;
  for (int i = 0; i < 10; ++i) member.Put("a", "v");
  member.Follow(8);
  member.Settle();
  member.Compact(member.revision());
  member.Follow(8);
  Order(member, *sink, id, {.range = KeyRange::FromRequest("a", "")});
  sink->full_ = false;
  member.hub().Resume(id);
  member.Put("a", "w");
  member.Follow(8);
  member.Settle();
  CHECK(sink->watchers.at(0).compacted == 11);
  CHECK(sink->watchers.at(0).events.empty());
  CHECK(sink->watchers.at(1).events.size() == 1);
}

TEST_CASE("watchers that ask for it are told how far they are, unless they had news") {
  Member member;
  auto sink = std::make_shared<Sink>();
  const auto id = member.hub().Open(sink, absl::Seconds(10));
  Order(member, *sink, id, {.range = KeyRange::FromRequest("a", ""), .reports = true});
  Order(member, *sink, id, {.range = KeyRange::FromRequest("b", ""), .reports = true});
  Order(member, *sink, id, {.range = KeyRange::FromRequest("c", "")});
  Order(member, *sink, id, {.range = KeyRange::FromRequest("d", ""), .start = 50, .reports = true});
  member.Put("a", "v");
  member.Follow(1);
  member.runtime().RunFor(absl::Seconds(11));
  REQUIRE(sink->progress.size() == 1);
  CHECK(sink->progress[0] == std::pair(std::optional<int64_t>(1), Revision{2}));
  member.runtime().RunFor(absl::Seconds(10));
  CHECK(sink->progress.size() == 3);  // Both, as nothing happened meanwhile.
}

TEST_CASE("a question for progress is answered at once to whoever has caught up") {
  Member member({.recent_bytes_max = GENERATE(size_t{0}, size_t{1} << 20)});
  auto sink = std::make_shared<Sink>();
  const auto id = OpenSink(member, sink);
  // Somebody else, so that the newest revisions are kept at all.
  auto other = std::make_shared<Sink>();
  Order(member, *other, OpenSink(member, other), {.range = KeyRange::FromRequest("x", "")});
  for (int i = 0; i < 5; ++i) member.Put("a", "v");
  member.Put("b", "v");
  member.Follow(8);
  member.RunDue();
  Order(member, *sink, id, {.range = KeyRange::FromRequest("a", ""), .start = 2});
  member.RunDue();
  CHECK(sink->watchers.at(0).events.size() == 5);
  member.hub().AskProgress(id);
  member.RunDue();
  REQUIRE(sink->progress.size() == 1);
  CHECK(sink->progress[0] == std::pair(std::optional<int64_t>(), Revision{7}));

  // One that is to begin later is not asked before.
  Order(member, *sink, id, {.range = KeyRange::FromRequest("a", ""), .start = 8});
  member.hub().AskProgress(id);
  member.RunDue();
  CHECK(sink->progress.size() == 1);
  member.Put("b", "v");
  member.Follow(8);
  member.hub().AskProgress(id);
  member.RunDue();
  CHECK(sink->progress.size() == 2);
}

TEST_CASE("orders that cannot be carried out are refused") {
  Member member({.watcher_bytes_max = 2000});
  auto sink = std::make_shared<Sink>();
  const auto id = OpenSink(member, sink);
  const KeyRange a = KeyRange::FromRequest("a", "");
  Order(member, *sink, id, {.range = a, .id = 3});
  Order(member, *sink, id, {.range = a, .id = 3});
  Order(member, *sink, id, {.range = KeyRange::FromRequest("b", "a")});
  Order(member, *sink, id, {.range = a, .start = -1});
  Order(member, *sink, id, {.range = KeyRange::FromRequest(std::string(2000, 'x'), "")});
  CHECK(sink->refusals == std::vector{WatchRefusal::kDuplicateId, WatchRefusal::kEmptyRange,
                                      WatchRefusal::kCompacted, WatchRefusal::kTooMany});
  CHECK(member.hub().counts().watchers == 1);
  member.hub().Close(id);
  member.Settle();
  CHECK(member.hub().counts().watchers == 0);
  CHECK(member.hub().counts().streams == 0);
}

}  // namespace
}  // namespace kv

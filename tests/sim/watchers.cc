#include "tests/sim/watchers.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "server/watch/watch_hub.h"
#include "storage/status.h"

namespace kv::sim {
namespace {

constexpr size_t kLinesMax = 3;  // Open, of a client.

Row RowOf(const mvccpb::KeyValue& kv) {
  return {.key = kv.key(),
          .value = kv.value(),
          .create = kv.create_revision(),
          .mod = kv.mod_revision(),
          .version = kv.version(),
          .lease = kv.lease()};
}

Event EventOf(const mvccpb::Event& event) {
  Event told{.revision = event.kv().mod_revision(),
             .deletion = event.type() == mvccpb::Event::DELETE,
             .row = RowOf(event.kv())};
  if (event.has_prev_kv()) told.previous = RowOf(event.prev_kv());
  return told;
}

std::string Describe(const Event& event) {
  return fmt::format("{} {}={} at {}, create {}, version {}, lease {}{}",
                     event.deletion ? "deletion of" : "put", event.row.key, event.row.value,
                     event.revision, event.row.create, event.row.version, event.row.lease,
                     event.previous ? fmt::format(", before it {} of {}", event.previous->value,
                                                  event.previous->mod)
                                    : "");
}

}  // namespace

// What a member sends to one client, until it is read.
class Watchers::Stream final : public WatchSink {
 public:
  struct Answer {
    enum class What : uint8_t { kCreated, kCanceled, kCompacted, kTold, kProgress };
    What what = What::kTold;
    std::optional<int64_t> id;
    int64_t revision = 0;
    etcdserverpb::WatchResponse response{};  // kTold.
  };

  Stream(Host& host, size_t room)
      : number_(host.number), life_(host.process->number), room_(room) {}

  bool full() const override {
    if (answers.size() < room_) return false;
    said_full = true;
    return true;
  }
  void Created(int64_t id, Revision revision) override {
    Add({.what = Answer::What::kCreated, .id = id, .revision = revision});
  }
  void Refused(WatchRefusal, Revision) override {
    Condemn("a watcher that is in order was refused");
  }
  void Canceled(int64_t id, Revision revision) override {
    Add({.what = Answer::What::kCanceled, .id = id, .revision = revision});
  }
  void Compacted(int64_t id, Revision compacted) override {
    Add({.what = Answer::What::kCompacted, .id = id, .revision = compacted});
  }
  void Failed(int64_t, const absl::Status& status) override {
    Condemn("a watcher ends with an error: " + kv::Describe(status));
  }
  void Told(const WatchNews& news) override {
    Answer answer{.what = Answer::What::kTold, .id = news.id, .revision = news.revision};
    std::string bytes;
    for (const SharedEvent* event : news.events) bytes += event->Field(news.previous);
    if (!answer.response.ParseFromString(bytes)) Condemn("events that are no message");
    Add(std::move(answer));
  }
  void Progress(std::optional<int64_t> id, Revision revision) override {
    Add({.what = Answer::What::kProgress, .id = id, .revision = revision});
  }
  void Handled() override {}

  // The hub that it hangs on; null: the process is gone, and the stream with it.
  WatchHub* Hub(Cluster& cluster) const {
    Host& host = cluster.host(number_);
    if (host.process == nullptr || host.process->number != life_) return nullptr;
    return host.process->hub.get();
  }

  // A member that was forgotten by the others hears of nothing new.
  bool HearsAll(Cluster& cluster) const {
    return cluster.host(number_).machine().applied().index >= cluster.judge().last_committed();
  }

  WatchHub::StreamId stream_id = 0;
  std::deque<Answer> answers;
  mutable bool said_full = false;
  bool reading = false;  // A read is on its way.
  std::function<void()> arrived;

 private:
  void Add(Answer answer) {
    answers.push_back(std::move(answer));
    if (!reading && arrived) arrived();
  }

  const int number_;
  const uint64_t life_;
  const size_t room_;
};

Watchers::Watchers(Cluster* cluster, const WatchersOptions& options)
    : cluster_(cluster),
      scheduler_(cluster->scheduler()),
      options_(options),
      clients_(options.clients) {}

// A hub may outlive the clients.
Watchers::~Watchers() {
  for (Client& client : clients_) {
    if (client.stream != nullptr) client.stream->arrived = nullptr;
  }
}

void Watchers::Start() {
  for (size_t client = 0; client < clients_.size(); ++client) Think(client);
}

void Watchers::Think(size_t client) {
  const Time pause = scheduler_.Draw(options_.between);
  scheduler_.After(pause, [this, client] {
    Act(client);
    Think(client);
  });
}

void Watchers::Act(size_t number) {
  Client& client = clients_[number];
  if (client.stream != nullptr && client.stream->Hub(*cluster_) == nullptr) Disconnect(client);
  if (client.stream == nullptr) return Connect(client);
  WatchHub& hub = *client.stream->Hub(*cluster_);
  if (calm_) {
    if (client.stream->HearsAll(*cluster_)) return;
    hub.Close(client.stream->stream_id);
    return Disconnect(client);
  }
  switch (scheduler_.Below(8)) {
    case 0:
    case 1:
      return AddLine(client);
    case 2: {
      if (client.by_id.empty()) return;
      const uint64_t skip = scheduler_.Below(client.by_id.size());
      return hub.Cancel(client.stream->stream_id,
                        std::next(client.by_id.begin(), static_cast<std::ptrdiff_t>(skip))->first);
    }
    case 3:
    case 4:
      return hub.AskProgress(client.stream->stream_id);
    case 5:
      hub.Close(client.stream->stream_id);
      return Disconnect(client);
    default:
      client.slow = !client.slow;
  }
}

void Watchers::Connect(Client& client) {
  Host& host = cluster_->hosts()[scheduler_.Below(cluster_->hosts().size())];
  if (!host.serving()) return;
  if (calm_ && host.machine().applied().index < cluster_->judge().last_committed()) return;
  const size_t number =
      static_cast<size_t>(std::find_if(clients_.begin(), clients_.end(),
                                       [&client](const Client& each) { return &each == &client; }) -
                          clients_.begin());
  WatchHub& hub = cluster_->HubOf(host);
  client.stream = std::make_shared<Stream>(host, options_.room);
  client.stream->arrived = [this, number, stream = std::weak_ptr(client.stream)] {
    if (const auto self = stream.lock()) ReadLater(number, self);
  };
  const Time every = scheduler_.Draw({.least = 50 * kMillisecond, .spread = 2 * kSecond});
  client.stream->stream_id = hub.Open(client.stream, absl::Nanoseconds(every));
  if (cluster_->tracing()) cluster_->Note(&host, fmt::format("is watched by client {}", number));
  for (Line& line : client.lines) {
    if (line.open) Order(client, line);
  }
  if (client.lines.empty()) AddLine(client);
}

void Watchers::Disconnect(Client& client) {
  client.stream->arrived = nullptr;
  client.stream = nullptr;
  client.by_id.clear();
  client.ordered.clear();
}

void Watchers::AddLine(Client& client) {
  const auto open = static_cast<size_t>(std::count_if(client.lines.begin(), client.lines.end(),
                                                      [](const Line& l) { return l.open; }));
  if (open >= kLinesMax) return;
  Line& line = client.lines.emplace_back();
  line.key = fmt::format("k{:03}", scheduler_.Below(options_.keys));
  if (scheduler_.Below(4) > 0) {
    line.end = fmt::format("k{:03}~", scheduler_.Below(options_.keys));
    if (line.end < line.key) std::swap(line.key, line.end);
  }
  const uint64_t start = scheduler_.Below(8);
  if (start < 4)
    line.next = 1 + static_cast<int64_t>(scheduler_.Below(static_cast<uint64_t>(seen_)));
  if (start == 4) line.next = seen_ + 1 + static_cast<int64_t>(scheduler_.Below(20));
  line.previous = scheduler_.Below(2) == 0;
  const uint64_t filter = scheduler_.Below(10);
  line.puts = filter != 0;
  line.deletions = filter != 1;
  line.reports = scheduler_.Below(2) == 0;
  if (line.next != 0) line.heard.push_back({.what = Heard::What::kBegins, .revision = line.next});
  Order(client, line);
}

void Watchers::Order(Client& client, Line& line) {
  WatchHub* const hub = client.stream->Hub(*cluster_);
  if (hub == nullptr) return;
  client.ordered.push_back(&line);
  WatchOrder order;
  order.range = KeyRange::FromRequest(line.key, line.end);
  order.start = line.next;
  order.previous = line.previous;
  order.puts = line.puts;
  order.deletions = line.deletions;
  order.reports = line.reports;
  hub->Order(client.stream->stream_id, std::move(order));
}

void Watchers::ReadLater(size_t client, const std::shared_ptr<Stream>& stream) {
  stream->reading = true;
  const bool slow = clients_[client].slow && !calm_;
  const Time after = scheduler_.Draw(slow ? options_.slow : options_.quick);
  scheduler_.After(after, [this, client, stream] {
    stream->reading = false;
    Read(client, stream);
  });
}

void Watchers::Read(size_t number, const std::shared_ptr<Stream>& stream) {
  Client& client = clients_[number];
  // What a dead process had still to send is lost.
  WatchHub* const hub = stream->Hub(*cluster_);
  if (client.stream != stream || hub == nullptr) return;
  while (!stream->answers.empty()) {
    const Stream::Answer answer = std::move(stream->answers.front());
    stream->answers.pop_front();
    seen_ = std::max(seen_, answer.what == Stream::Answer::What::kCompacted ? 0 : answer.revision);
    if (answer.what == Stream::Answer::What::kCreated) {
      Line& line = *client.ordered.front();
      client.ordered.pop_front();
      client.by_id[*answer.id] = &line;
      if (line.next == 0) {
        line.next = answer.revision + 1;
        line.heard.push_back({.what = Heard::What::kBegins, .revision = line.next});
      }
      continue;
    }
    std::vector<Line*> lines;
    if (answer.id) {
      const auto found = client.by_id.find(*answer.id);
      if (found == client.by_id.end()) Condemn("a watcher is told of that is not there");
      lines.push_back(found->second);
    } else {
      for (const auto& [id, line] : client.by_id) lines.push_back(line);
    }
    for (Line* line : lines) {
      switch (answer.what) {
        case Stream::Answer::What::kCreated:
          break;
        case Stream::Answer::What::kCanceled:
          line->open = false;
          client.by_id.erase(*answer.id);
          break;
        case Stream::Answer::What::kCompacted:
          line->heard.push_back({.what = Heard::What::kCompacted, .revision = answer.revision});
          if (line->next >= answer.revision) Condemn("a watcher ends by a compaction before it");
          line->next = answer.revision;
          client.by_id.erase(*answer.id);
          Order(client, *line);
          break;
        case Stream::Answer::What::kTold:
          for (const mvccpb::Event& event : answer.response.events()) {
            ++heard_;
            line->heard.push_back({.what = Heard::What::kEvent, .event = EventOf(event)});
            line->next = event.kv().mod_revision() + 1;
            if (event.kv().mod_revision() > answer.revision) {
              Condemn("an answer to a watcher holds what is newer than its header");
            }
          }
          break;
        case Stream::Answer::What::kProgress:
          line->heard.push_back({.what = Heard::What::kProgress, .revision = answer.revision});
          line->next = std::max(line->next, answer.revision + 1);
          break;
      }
    }
  }
  if (std::exchange(stream->said_full, false)) hub->Resume(stream->stream_id);
}

bool Watchers::Line::Wants(const Event& event) const {
  if (!(event.deletion ? deletions : puts)) return false;
  if (end.empty()) return event.row.key == key;
  return event.row.key >= key && event.row.key < end;
}

bool Watchers::AreCurrent(const std::vector<Event>& events) const {
  for (const Client& client : clients_) {
    for (const Line& line : client.lines) {
      if (!line.open) continue;
      const auto last = std::find_if(events.rbegin(), events.rend(),
                                     [&line](const Event& event) { return line.Wants(event); });
      if (last != events.rend() && line.next <= last->revision) return false;
    }
  }
  return true;
}

std::optional<std::string> Watchers::Check(const std::vector<Event>& events,
                                           const std::vector<int64_t>& compactions) const {
  for (size_t client = 0; client < clients_.size(); ++client) {
    for (const Line& line : clients_[client].lines) {
      if (auto fault = Check(line, events, compactions)) {
        return fmt::format("client {}, who watches {}..{}: {}", client, line.key, line.end, *fault);
      }
    }
  }
  return std::nullopt;
}

// Walks along the history beside what was heard.
std::optional<std::string> Watchers::Check(const Line& line, const std::vector<Event>& events,
                                           const std::vector<int64_t>& compactions) const {
  auto due = events.end();
  const auto skip = [&] {
    while (due != events.end() && !line.Wants(*due)) ++due;
  };
  const auto begin_at = [&](int64_t revision) {
    due = std::lower_bound(events.begin(), events.end(), revision,
                           [](const Event& event, int64_t at) { return event.revision < at; });
    skip();
  };
  for (const Heard& heard : line.heard) {
    switch (heard.what) {
      case Heard::What::kBegins:
        begin_at(heard.revision);
        break;
      case Heard::What::kCompacted:
        if (std::find(compactions.begin(), compactions.end(), heard.revision) ==
            compactions.end()) {
          return fmt::format("was told of a compaction at {}, which never was", heard.revision);
        }
        begin_at(heard.revision);
        break;
      case Heard::What::kProgress:
        if (due != events.end() && due->revision <= heard.revision) {
          return fmt::format("was told that nothing is missing through {} and never heard of: {}",
                             heard.revision, Describe(*due));
        }
        break;
      case Heard::What::kEvent: {
        if (due == events.end()) {
          return fmt::format("heard of what never was, or twice: {}", Describe(heard.event));
        }
        Event expected = *due;
        // What was before a revision may be gone once it is the oldest that is kept.
        const bool may_lack =
            std::find(compactions.begin(), compactions.end(), due->revision) != compactions.end();
        if (!line.previous || (may_lack && !heard.event.previous)) expected.previous.reset();
        if (heard.event != expected) {
          return fmt::format("heard of \"{}\" and should have heard of \"{}\"",
                             Describe(heard.event), Describe(expected));
        }
        ++due;
        skip();
        break;
      }
    }
  }
  if (line.open && due != events.end()) {
    return "never heard of: " + Describe(*due);
  }
  return std::nullopt;
}

}  // namespace kv::sim

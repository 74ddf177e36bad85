// Clients that watch ranges of keys: what each of them hears must be the history of its range.
//
// A client has one stream at a time, to some member's hub, and a few lines on it. It reads fast or
// slowly, opens and cancels lines, asks how far they are, and moves to other members with what it
// has heard so far: from the last revision on, as clients of etcd do. What was on its way when a
// process died, or a stream was closed, is never heard.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/sim/cluster.h"
#include "tests/sim/history.h"

namespace kv::sim {

struct WatchersOptions {
  uint64_t clients = 0;
  uint64_t keys = 8;  // As the workload's.
  Delay between{.least = 20 * kMillisecond, .spread = 1500 * kMillisecond};
  // How long what was sent is on its way, and not yet read.
  Delay quick{.least = 100 * kMicrosecond, .spread = 2 * kMillisecond};
  Delay slow{.least = 100 * kMillisecond, .spread = 2 * kSecond};
  size_t room = 4;  // Answers that a stream holds for its client.
};

class Watchers {
 public:
  Watchers(Cluster* cluster, const WatchersOptions& options);
  ~Watchers();
  void Start();
  // From here on everybody reads quickly and stays where there is somebody.
  void Calm() { calm_ = true; }

  // Whether every line that is open was told of all that it is due of `events`.
  bool AreCurrent(const std::vector<Event>& events) const;
  // What somebody heard, or did not, that the history does not explain. `compactions`: the
  // revisions that compactions were asked for.
  std::optional<std::string> Check(const std::vector<Event>& events,
                                   const std::vector<int64_t>& compactions) const;
  uint64_t heard() const { return heard_; }  // Events.

 private:
  class Stream;
  struct Heard {
    enum class What : uint8_t { kBegins, kEvent, kProgress, kCompacted };
    What what = What::kBegins;
    int64_t revision = 0;
    Event event{};
  };
  struct Line {
    std::string key;
    std::string end;
    int64_t next = 0;  // To go on from; 0: from whatever is next.
    bool previous = false;
    bool puts = true;
    bool deletions = true;
    bool reports = false;
    bool open = true;
    std::vector<Heard> heard{};
    bool Wants(const Event& event) const;
  };
  struct Client {
    std::deque<Line> lines;
    std::shared_ptr<Stream> stream;
    std::map<int64_t, Line*> by_id;
    std::deque<Line*> ordered;  // And not yet answered.
    bool slow = false;
    int streams = 0;
  };

  void Think(size_t client);
  void Act(size_t client);
  void Connect(Client& client);
  void Disconnect(Client& client);
  void AddLine(Client& client);
  void Order(Client& client, Line& line);
  void ReadLater(size_t client, const std::shared_ptr<Stream>& stream);
  void Read(size_t client, const std::shared_ptr<Stream>& stream);
  std::optional<std::string> Check(const Line& line, const std::vector<Event>& events,
                                   const std::vector<int64_t>& compactions) const;

  Cluster* const cluster_;
  Scheduler& scheduler_;
  const WatchersOptions options_;
  std::deque<Client> clients_;
  int64_t seen_ = 1;
  uint64_t heard_ = 0;
  bool calm_ = false;
};

}  // namespace kv::sim

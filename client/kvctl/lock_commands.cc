#include <fmt/format.h>

#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "client/kvctl/commands.h"
#include "client/kvctl/program.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"
#include "client/lease_keeper.h"
#include "client/watcher.h"

namespace kv::kvctl {
namespace {

using client::CallOptions;

constexpr int64_t kElectionTtl = 60;  // Seconds; etcdctl's.

// What a command waits for, whichever comes first.
enum class Event { kInterrupted, kAnswered, kExpired };

class Events {
 public:
  void Add(Event event) {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
    added_.notify_all();
  }
  Event Await() {
    std::unique_lock lock(mutex_);
    added_.wait(lock, [this] { return !events_.empty(); });
    const Event event = events_.front();
    events_.pop_front();
    return event;
  }

 private:
  std::mutex mutex_;
  std::condition_variable added_;
  std::deque<Event> events_;
};

// A connection, a lease that is kept alive, and the signals that end the command. The threads and
// the calls that it begins may wait for ever: what they use lives until the process ends, which
// waits for nobody.
struct Stay {
  Session session;
  client::Client* client = nullptr;
  int64_t lease = 0;
  Events* events = nullptr;
};

// Before the first thread, so that all of them leave the signals to this one.
void AwaitSignals(Events* events) {
  static sigset_t ends;
  sigemptyset(&ends);
  sigaddset(&ends, SIGINT);
  sigaddset(&ends, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &ends, nullptr);
  std::thread([events] {
    int signal = 0;
    while (sigwait(&ends, &signal) != 0) {
    }
    events->Add(Event::kInterrupted);
  }).detach();
}

absl::StatusOr<Stay> Begin(const Arguments& arguments) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return session.status();
  absl::Status can = session->CanShow(pb::RangeResponse());
  if (!can.ok()) return can;
  Stay stay{.session = *std::move(session), .client = nullptr, .lease = 0, .events = new Events};
  AwaitSignals(stay.events);
  stay.client = stay.session.Connect().release();
  return stay;
}

absl::Status TakeLease(Stay& stay, int64_t ttl) {
  pb::LeaseGrantRequest request;
  request.set_ttl(ttl);
  auto granted =
      stay.client->CallAndWait(client::kLeaseGrant, request, stay.session.call_options());
  if (!granted.ok()) return Refused(Complaint(granted), absl::StatusCode::kUnknown);
  stay.lease = granted.response.id();
  // Not owned by anybody: see Stay.
  new client::LeaseKeeper(
      stay.client, stay.lease,
      {.left = absl::Seconds(granted.response.ttl()),
       .call = stay.session.call_options(),
       .ended = [events = stay.events](const absl::Status&) { events->Add(Event::kExpired); }});
  return absl::OkStatus();
}

// The keys of a lease that has ended are gone already.
absl::Status GiveBack(const Stay& stay) {
  pb::LeaseRevokeRequest request;
  request.set_id(stay.lease);
  auto revoked =
      stay.client->CallAndWait(client::kLeaseRevoke, request, stay.session.call_options());
  if (revoked.ok() || revoked.status.code() == absl::StatusCode::kNotFound) return absl::OkStatus();
  return Refused(Complaint(revoked), absl::StatusCode::kUnknown);
}

int Leave(const Stay& stay) {
  const absl::Status status = GiveBack(stay);
  return status.ok() ? kOk : Fail(status);
}

CallOptions WaitsForEver() {
  CallOptions options;
  options.timeout = absl::InfiniteDuration();
  return options;
}

// Waits for the turn that `request` asks for. Nothing: why is said, and the code is in `code`.
template <typename Method>
std::optional<typename Method::Response> AwaitTurn(const Stay& stay, const Method& method,
                                                   const typename Method::Request& request,
                                                   std::string_view expired, int& code) {
  using Answer = client::Answer<typename Method::Response>;
  const auto answer = std::make_shared<Answer>();
  stay.client->Call(method, request, WaitsForEver(), [answer, events = stay.events](Answer given) {
    *answer = std::move(given);
    events->Add(Event::kAnswered);
  });
  const Event event = stay.events->Await();
  if (event == Event::kAnswered && answer->ok()) return std::move(answer->response);
  static_cast<void>(GiveBack(stay));  // It ends by itself.
  std::string why = "context canceled";
  if (event == Event::kAnswered) why = Complaint(*answer);
  if (event == Event::kExpired) why = expired;
  code = Fail(kError, why);
  return std::nullopt;
}

absl::StatusOr<pb::RangeResponse> Get(const Stay& stay, const std::string& key) {
  pb::RangeRequest request;
  request.set_key(key);
  auto answer = stay.client->CallAndWait(client::kRange, request, stay.session.call_options());
  if (!answer.ok()) return Refused(Complaint(answer), absl::StatusCode::kUnknown);
  return std::move(answer.response);
}

void PrintNow(const pb::RangeResponse& response, const Style& style) {
  Print(*Show(response, style));
  std::fflush(stdout);  // Whoever reads it waits for just this.
}

int RunLocked(const Stay& stay, const v3lockpb::LockResponse& locked,
              std::vector<std::string> program) {
  const ProgramEnd end =
      RunProgram(std::move(program), {"ETCD_LOCK_KEY=" + locked.key(),
                                      fmt::format("ETCD_LOCK_REV={}", locked.header().revision())});
  const int code = Leave(stay);
  if (end.failure.empty()) return code;
  Fail(kError, end.failure);
  return end.code;
}

int Lock(const Arguments& arguments) {
  if (arguments.rest.empty()) {
    return Fail(kBadArguments,
                "lock takes a lock name argument and an optional command to execute");
  }
  absl::StatusOr<Stay> stay = Begin(arguments);
  if (!stay.ok()) return Fail(stay.status());
  if (absl::Status status = TakeLease(*stay, arguments.Int("ttl")); !status.ok()) {
    return Fail(status);
  }
  v3lockpb::LockRequest request;
  request.set_name(arguments.rest[0]);
  request.set_lease(stay->lease);
  int code = kOk;
  const auto locked = AwaitTurn(*stay, client::kLock, request, "session expired", code);
  if (!locked) return code;
  if (arguments.rest.size() > 1) {
    return RunLocked(*stay, *locked, {arguments.rest.begin() + 1, arguments.rest.end()});
  }
  absl::StatusOr<pb::RangeResponse> own = Get(*stay, locked->key());
  if (!own.ok()) return Fail(own.status());
  if (own->kvs().empty()) return Fail(kError, "lock lost on init");
  PrintNow(*own, stay->session.style());
  if (stay->events->Await() == Event::kExpired) return Fail(kError, "session expired");
  return Leave(*stay);
}

int Campaign(const Arguments& arguments) {
  absl::StatusOr<Stay> stay = Begin(arguments);
  if (!stay.ok()) return Fail(stay.status());
  if (absl::Status status = TakeLease(*stay, kElectionTtl); !status.ok()) return Fail(status);
  v3electionpb::CampaignRequest request;
  request.set_name(arguments.rest[0]);
  request.set_value(arguments.rest[1]);
  request.set_lease(stay->lease);
  int code = kOk;
  const auto won = AwaitTurn(*stay, client::kCampaign, request, "elect: session expired", code);
  if (!won) return code;
  absl::StatusOr<pb::RangeResponse> own = Get(*stay, won->leader().key());
  if (!own.ok()) return Fail(own.status());
  PrintNow(*own, stay->session.style());
  if (stay->events->Await() == Event::kExpired) return Fail(kError, "elect: session expired");
  return Leave(*stay);
}

// Prints every put that the watch tells of, until there is a deletion or the first put was all
// that was wanted. The last put; nothing: the watch was lost.
struct Heard {
  bool lost = false;
  mvccpb::KeyValue kv;
};
enum class Until { kFirstPut, kDeletion };

Heard Follow(const Stay& stay, pb::WatchCreateRequest request, Until until) {
  client::Watcher watcher(stay.client, std::move(request));
  while (const auto news = watcher.Next()) {
    if (news->canceled()) break;
    for (const mvccpb::Event& event : news->events()) {
      if (event.type() == mvccpb::Event::DELETE) return {};
      pb::RangeResponse told;
      *told.mutable_header() = news->header();
      *told.add_kvs() = event.kv();
      if (until == Until::kFirstPut) told.mutable_header()->set_revision(event.kv().mod_revision());
      PrintNow(told, stay.session.style());
      if (until == Until::kFirstPut) return {.lost = false, .kv = event.kv()};
    }
  }
  return {.lost = true, .kv = {}};
}

// The leader's key is watched from here, not told by the Election service: a watch goes on at
// another endpoint without missing a word.
void Observe(const Stay& stay, const std::string& name) {
  pb::RangeRequest oldest;
  oldest.set_key(name + '/');
  oldest.set_range_end(PrefixEnd(oldest.key()));
  oldest.set_sort_target(pb::RangeRequest::CREATE);
  oldest.set_sort_order(pb::RangeRequest::ASCEND);
  oldest.set_limit(1);
  for (;;) {
    auto found = stay.client->CallAndWait(client::kRange, oldest, stay.session.call_options());
    if (!found.ok()) return;
    mvccpb::KeyValue leader;
    int64_t seen = found.response.header().revision();
    if (found.response.kvs().empty()) {
      pb::WatchCreateRequest anybody;
      anybody.set_key(oldest.key());
      anybody.set_range_end(oldest.range_end());
      anybody.set_start_revision(seen + 1);
      anybody.add_filters(pb::WatchCreateRequest::NODELETE);
      Heard heard = Follow(stay, std::move(anybody), Until::kFirstPut);
      if (heard.lost) return;
      leader = std::move(heard.kv);
      seen = leader.mod_revision();
    } else {
      leader = found.response.kvs(0);
      found.response.set_count(0);  // As etcdctl, which tells of one key only.
      found.response.set_more(false);
      PrintNow(found.response, stay.session.style());
    }
    pb::WatchCreateRequest words;
    words.set_key(leader.key());
    words.set_start_revision(seen + 1);
    if (Follow(stay, std::move(words), Until::kDeletion).lost) return;
  }
}

int Listen(const Arguments& arguments) {
  absl::StatusOr<Stay> stay = Begin(arguments);
  if (!stay.ok()) return Fail(stay.status());
  std::thread([stay = *stay, name = arguments.rest[0]] {
    Observe(stay, name);
    stay.events->Add(Event::kExpired);
  }).detach();
  if (stay->events->Await() == Event::kExpired) return Fail(kError, "elect: observer lost");
  return kOk;
}

int Elect(const Arguments& arguments) {
  const size_t count = arguments.rest.size();
  if (count != 1 && count != 2) {
    return Fail(kBadArguments,
                "elect takes one election name argument and an optional proposal argument");
  }
  if (count == 1 && !arguments.Bool("listen")) {
    return Fail(kBadArguments, "no proposal argument but -l not set");
  }
  if (count == 2 && arguments.Bool("listen")) {
    return Fail(kBadArguments, "proposal given but -l is set");
  }
  return count == 1 ? Listen(arguments) : Campaign(arguments);
}

}  // namespace

std::vector<Command> LockCommands() {
  return {
      {.name = "lock",
       .group = "Concurrency",
       .summary = "Takes a lock and holds it",
       .arguments = "<name> [program arguments...]",
       .text =
           "Waits for the lock, prints its key and holds it until SIGINT or SIGTERM; or runs the "
           "program while\nholding it, with ETCD_LOCK_KEY and ETCD_LOCK_REV in its environment, "
           "and exits as the program does.\n\nExamples:\n  kvctl lock deploy\n"
           "  kvctl lock deploy -- sh -c 'echo holding $ETCD_LOCK_KEY'",
       .flags = {{.name = "ttl",
                  .type = FlagType::kInt,
                  .fallback = "10",
                  .help = "seconds after which a lock is free whose holder was killed"}},
       .run = Lock},
      {.name = "elect",
       .group = "Concurrency",
       .summary = "Stands for election, or listens to who leads",
       .arguments = "<name> [proposal]",
       .text = "Waits until the election is won, prints the leader's key and leads until SIGINT or "
               "SIGTERM.\n\nExamples:\n  kvctl elect scheduler host-1\n  kvctl elect -l scheduler",
       .flags = {{.name = "listen", .letter = 'l', .help = "print every leader and proposal"}},
       .run = Elect}};
}

}  // namespace kv::kvctl

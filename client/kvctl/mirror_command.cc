#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <thread>
#include <utility>

#include "client/kvctl/commands.h"
#include "client/kvctl/pages.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"
#include "client/watcher.h"

namespace kv::kvctl {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kCountEvery(30);
constexpr size_t kTxnBytesMax = 512 * 1024;
// A destination that does not answer is asked again for so long.
constexpr std::chrono::seconds kPatience(60);
constexpr std::chrono::milliseconds kPause(500);

// Prints a number every 30 s while it lives.
class Counter {
 public:
  Counter() : thread_([this] { Run(); }) {}
  ~Counter() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
      changed_.notify_all();
    }
    thread_.join();
  }
  void Add(int64_t more) { total_ += more; }

 private:
  void Run() {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kCountEvery, [this] { return over_; })) {
      Print(fmt::format("{}\n", total_.load()));
      std::fflush(stdout);
    }
  }

  std::atomic<int64_t> total_ = 0;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;   // Guarded by mutex_.
  std::thread thread_;  // Last: it uses all of the above.
};

struct Plan {
  std::string prefix;
  std::string to_prefix;
  int64_t revision = 0;  // To begin with; 0: copy what is there, then go on.
  int64_t ops_max = 128;
  client::CallOptions call;
};

class Mirror {
 public:
  Mirror(client::Client* from, client::Client* to, Plan plan)
      : from_(from), to_(to), plan_(std::move(plan)), next_(plan_.revision) {}

  // Goes on until it fails; says why.
  absl::Status Run() {
    if (next_ == 0) {
      if (absl::Status status = CopyAll(); !status.ok()) return status;
    }
    return FollowChanges();
  }

  // Everything before it is at the destination; 0: not even the copy is whole.
  int64_t next_revision() const { return next_; }

 private:
  pb::RangeRequest Range() const {
    pb::RangeRequest request;
    request.set_key(plan_.prefix.empty() ? std::string(1, '\0') : plan_.prefix);
    request.set_range_end(PrefixEnd(plan_.prefix));
    return request;
  }

  std::string Renamed(const std::string& key) const {
    return plan_.to_prefix + key.substr(plan_.prefix.size());
  }

  absl::Status CopyAll() {
    Pages pages(from_, Range(), plan_.call);
    for (;;) {
      absl::StatusOr<const mvccpb::KeyValue*> pair = pages.Next();
      if (!pair.ok()) return pair.status();
      if (*pair == nullptr) break;
      if (absl::Status status = Put(**pair); !status.ok()) return status;
    }
    if (absl::Status status = Send(); !status.ok()) return status;
    next_ = pages.revision() + 1;
    return absl::OkStatus();
  }

  absl::Status FollowChanges() {
    pb::WatchCreateRequest request;
    request.set_key(Range().key());
    request.set_range_end(Range().range_end());
    request.set_start_revision(next_);
    client::Watcher watcher(from_, request);
    while (const auto news = watcher.Next()) {
      if (news->canceled()) return watcher.status();
      for (const mvccpb::Event& event : news->events()) {
        if (absl::Status status = Take(event); !status.ok()) return status;
      }
      // Each response holds its last revision whole.
      if (absl::Status status = Send(); !status.ok()) return status;
      if (news->events_size() > 0) next_ = news->events().rbegin()->kv().mod_revision() + 1;
    }
    return watcher.status();
  }

  // What happened at one revision becomes one transaction, as long as it is not too large.
  absl::Status Take(const mvccpb::Event& event) {
    const int64_t revision = event.kv().mod_revision();
    if (revision >= next_ && txn_.success_size() > 0 && revision != revision_) {
      if (absl::Status status = Send(); !status.ok()) return status;
      next_ = revision;
    }
    revision_ = revision;
    if (event.type() == mvccpb::Event::PUT) return Put(event.kv());
    if (absl::Status status = MakeRoom(0); !status.ok()) return status;
    txn_.add_success()->mutable_request_delete_range()->set_key(Renamed(event.kv().key()));
    return absl::OkStatus();
  }

  absl::Status Put(const mvccpb::KeyValue& pair) {
    const size_t bytes = pair.key().size() + pair.value().size();
    if (absl::Status status = MakeRoom(bytes); !status.ok()) return status;
    pb::PutRequest* put = txn_.add_success()->mutable_request_put();
    put->set_key(Renamed(pair.key()));
    put->set_value(pair.value());
    bytes_ += bytes;
    return absl::OkStatus();
  }

  absl::Status MakeRoom(size_t bytes) {
    const bool full = txn_.success_size() >= plan_.ops_max || bytes_ + bytes > kTxnBytesMax;
    return full ? Send() : absl::OkStatus();
  }

  // A transaction whose outcome is unknown is sent again: it puts and deletes the same either way,
  // and nothing follows before it is done.
  absl::Status Send() {
    if (txn_.success_size() == 0) return absl::OkStatus();
    const Clock::time_point until = Clock::now() + kPatience;
    for (;;) {
      auto answer = to_->CallAndWait(client::kTxn, txn_, plan_.call);
      if (answer.ok()) break;
      const bool again = answer.fate == client::Fate::kUnknown ||
                         answer.status.code() == absl::StatusCode::kUnavailable;
      if (!again || Clock::now() >= until) {
        return Refused("the destination: " + Text(answer.status), absl::StatusCode::kUnknown);
      }
      std::this_thread::sleep_for(kPause);
    }
    counter_.Add(txn_.success_size());
    txn_.Clear();
    bytes_ = 0;
    return absl::OkStatus();
  }

  client::Client* const from_;
  client::Client* const to_;
  const Plan plan_;
  int64_t next_;
  pb::TxnRequest txn_;  // Not yet sent.
  size_t bytes_ = 0;    // In it.
  int64_t revision_ = 0;
  Counter counter_;
};

// What may be done about it.
std::string NextStep(const Mirror& mirror, const absl::Status& why) {
  if (why.code() == absl::StatusCode::kOutOfRange || mirror.next_revision() == 0) {
    return "; run it again without --rev, which copies everything anew (keys deleted meanwhile "
           "stay "
           "at the destination)";
  }
  return fmt::format("; run it again with --rev {} to go on", mirror.next_revision());
}

int MakeMirror(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "make-mirror takes one destination argument");
  }
  Plan plan{.prefix = arguments.String("prefix"),
            .to_prefix = arguments.String("dest-prefix"),
            .revision = std::max<int64_t>(0, arguments.Int("rev")),
            .ops_max = arguments.Int("max-txn-ops"),
            .call = {}};
  if (arguments.Bool("no-dest-prefix") && !plan.to_prefix.empty()) {
    return Fail(
        kBadArguments,
        "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one");
  }
  if (!arguments.Bool("no-dest-prefix") && plan.to_prefix.empty()) plan.to_prefix = plan.prefix;
  if (plan.ops_max < 1) return Fail(kBadArguments, "--max-txn-ops must be at least 1");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  plan.call = session->call_options();
  auto to = session->ConnectElsewhere(arguments, arguments.rest[0], "dest-");
  if (!to.ok()) return Fail(to.status());
  const std::unique_ptr<client::Client> from = session->Connect();
  // A watcher never gives up; whether anybody is there at all is asked first.
  for (client::Client* one : {from.get(), to->get()}) {
    auto found = one->CallAndWait(client::kStatus, pb::StatusRequest(), plan.call);
    if (!found.ok()) return Fail(kError, Complaint(found));
  }
  Mirror mirror(from.get(), to->get(), std::move(plan));
  const absl::Status end = mirror.Run();
  return Fail(kError, Text(end) + NextStep(mirror, end));
}

}  // namespace

Command MirrorCommand() {
  return {
      .name = "make-mirror",
      .group = "Other",
      .summary = "Copies keys to another cluster, and then every change",
      .arguments = "<destination>",
      .text =
          "The destination is host:port, or several with commas. Goes on until it is interrupted "
          "or "
          "fails,\nand then says how to go on. Prints every 30 seconds how many puts and deletes "
          "it "
          "has made. Leases\nare not copied.\n\n"
          "Examples:\n"
          "  kvctl make-mirror other:2379\n"
          "  kvctl make-mirror --prefix /prod/ --dest-prefix /copy/ other:2379",
      .flags = {{.name = "prefix", .type = FlagType::kString, .help = "only keys that begin so"},
                {.name = "dest-prefix",
                 .type = FlagType::kString,
                 .help = "what keys begin with at the destination instead of the prefix"},
                {.name = "no-dest-prefix", .help = "keys have no prefix at the destination"},
                {.name = "rev",
                 .type = FlagType::kInt,
                 .help = "copy nothing, begin with the changes of this revision"},
                {.name = "max-txn-ops",
                 .type = FlagType::kInt,
                 .fallback = "128",
                 .help = "so many puts and deletes in a transaction at most"},
                {.name = "dest-insecure-transport",
                 .fallback = "true",
                 .help = "no TLS for a destination without a scheme"},
                {.name = "dest-cacert",
                 .type = FlagType::kString,
                 .help = "certificates that the destination is verified with (PEM file)"},
                {.name = "dest-cert",
                 .type = FlagType::kString,
                 .help = "our TLS certificate at the destination (PEM file)"},
                {.name = "dest-key",
                 .type = FlagType::kString,
                 .help = "our TLS key at the destination (PEM file)"},
                {.name = "dest-user",
                 .type = FlagType::kString,
                 .help = "name[:password] at the destination; asked for if missing"},
                {.name = "dest-password",
                 .type = FlagType::kString,
                 .help = "password of --dest-user"}},
      .run = MakeMirror};
}

}  // namespace kv::kvctl

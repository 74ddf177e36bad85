// kvctl check cluster: whether a cluster does what it is there for, as a client sees it.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>
#include <thread>

#include "client/kvctl/commands.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"
#include "client/kvctl/survey.h"
#include "client/watcher.h"

namespace kv::kvctl {
namespace {

// Cancels a watcher that brings nothing, so that a check ends.
class Patience {
 public:
  Patience(client::Watcher* watcher, absl::Duration time)
      : thread_([this, watcher, time] {
          std::unique_lock<std::mutex> held(mutex_);
          if (!over_.wait_for(held, absl::ToChronoNanoseconds(time), [this] { return ended_; })) {
            watcher->Cancel();
          }
        }) {}
  ~Patience() {
    {
      const std::lock_guard<std::mutex> held(mutex_);
      ended_ = true;
    }
    over_.notify_all();
    thread_.join();
  }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable over_;
  bool ended_ = false;  // Guarded by mutex_.
  std::thread thread_;
};

class ClusterCheck {
 public:
  ClusterCheck(const Session& session, int64_t wanted)
      : session_(session),
        wanted_(wanted),
        client_(session.Connect()),
        key_(fmt::format("/kvctl-check-cluster/{}-{}", getpid(),
                         std::chrono::system_clock::now().time_since_epoch().count())) {}

  bool Run() {
    CheckMembers();
    if (Write()) {
      ReadEverywhere();
      Delete();
      Watch();
    }
    Print(well_ ? "PASS\n" : "FAIL\n");
    return well_;
  }

 private:
  void Tell(bool good, const std::string& text) {
    well_ = well_ && good;
    Print(fmt::format("{}: {}\n", good ? "PASS" : "FAIL", text));
  }

  void CheckMembers() {
    pb::MemberListRequest request;
    request.set_linearizable(true);
    auto list = client_->CallAndWait(client::kMemberList, request, session_.call_options());
    if (!list.ok()) return Tell(false, "the members cannot be listed: " + Complaint(list));
    int64_t voters = 0;
    for (const pb::Member& member : list.response.members()) {
      if (member.name().empty()) {
        Tell(false, fmt::format("member {:x} was added and has not started", member.id()));
      } else if (member.islearner()) {
        Print(fmt::format("NOTE: {} is a learner\n", member.name()));
      } else {
        ++voters;
      }
      for (const std::string& url : member.clienturls()) endpoints_.insert(url);
    }
    if (wanted_ == 0) {
      Tell(voters > 0, fmt::format("{} members vote", voters));
    } else {
      Tell(voters == wanted_, fmt::format("{} of {} wanted members vote", voters, wanted_));
    }
    CheckLeader();
  }

  void CheckLeader() {
    const absl::StatusOr<Picture> picture = TakeSurvey(session_);
    if (!picture.ok()) return Tell(false, Text(picture.status()));
    std::set<uint64_t> leaders;
    for (const Line& line : picture->lines) {
      if (!line.status) {
        Tell(false, fmt::format("no status of {} at {}: {}", line.name, line.endpoint, line.error));
        continue;
      }
      leaders.insert(line.status->leader());
      if (const std::string errors = Errors(line); !errors.empty()) {
        Tell(false, fmt::format("{} complains: {}", line.name, errors));
      }
    }
    const bool one = leaders.size() == 1 && !leaders.contains(0);
    Tell(one, one ? fmt::format("all agree that {:x} leads", *leaders.begin())
                  : "the members do not agree on who leads");
  }

  bool Write() {
    pb::PutRequest request;
    request.set_key(key_);
    request.set_value(key_);
    auto put = client_->CallAndWait(client::kPut, request, session_.call_options());
    revision_ = put.response.header().revision();
    Tell(put.ok(), put.ok() ? fmt::format("wrote {} at revision {}", key_, revision_)
                            : "a write failed: " + Complaint(put));
    return put.ok();
  }

  // A linearizable read at each member finds the write, whichever member took it.
  void ReadEverywhere() {
    for (const std::string& endpoint : endpoints_) {
      pb::RangeRequest request;
      request.set_key(key_);
      auto read =
          session_.Connect(endpoint)->CallAndWait(client::kRange, request, session_.call_options());
      const bool found = read.ok() && read.response.kvs_size() == 1 &&
                         read.response.kvs(0).value() == key_ &&
                         read.response.kvs(0).mod_revision() == revision_;
      Tell(found, found       ? fmt::format("read it at {}", endpoint)
                  : read.ok() ? fmt::format("{} does not have it", endpoint)
                              : fmt::format("a read failed: {}", Complaint(read)));
    }
  }

  void Delete() {
    pb::DeleteRangeRequest request;
    request.set_key(key_);
    auto gone = client_->CallAndWait(client::kDeleteRange, request, session_.call_options());
    Tell(gone.ok() && gone.response.deleted() == 1,
         gone.ok() ? "deleted it" : "a deletion failed: " + Complaint(gone));
  }

  void Watch() {
    pb::WatchCreateRequest request;
    request.set_key(key_);
    request.set_start_revision(revision_);
    client::Watcher watcher(client_.get(), request);
    const Patience patience(&watcher, session_.call_options().timeout);
    std::string seen;
    while (seen.size() < 2) {
      const auto news = watcher.Next();
      if (!news || news->canceled()) break;
      for (const auto& event : news->events()) {
        seen += event.type() == mvccpb::Event::PUT ? 'p' : 'd';
      }
    }
    Tell(seen == "pd", seen == "pd" ? "a watcher heard of both"
                                    : "a watcher heard of something else, or not in time");
  }

  const Session& session_;
  const int64_t wanted_;  // 0: any number.
  const std::unique_ptr<client::Client> client_;
  const std::string key_;
  std::set<std::string> endpoints_;
  int64_t revision_ = 0;
  bool well_ = true;
};

int CheckCluster(const Arguments& arguments) {
  const int64_t wanted = arguments.Int("members");
  if (wanted < 0) return Fail(kBadArguments, "--members may be 0 (any) or more");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  return ClusterCheck(*session, wanted).Run() ? kOk : kError;
}

}  // namespace

Command CheckClusterCommand() {
  return {.name = "cluster",
          .summary = "Whether all members are there and agree, and a write is read and watched",
          .text =
              "Writes one key, reads it at every member, deletes it, and watches both. Exit "
              "code 1 if anything fails.\n\n"
              "Examples:\n"
              "  kvctl check cluster --members 3",
          .flags = {{.name = "members",
                     .type = FlagType::kInt,
                     .fallback = "0",
                     .help = "how many members must vote; 0: any number"}},
          .run = CheckCluster};
}

}  // namespace kv::kvctl

#include "server/cluster/founding_driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "server/cluster/hello.h"
#include "server/cluster/join.h"
#include "storage/status.h"

namespace kv::cluster {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(2);
// The leader commits before it answers.
constexpr absl::Duration kJoinTimeout = absl::Seconds(5);
constexpr absl::Duration kReportInterval = absl::Seconds(10);

}  // namespace

FoundingDriver::FoundingDriver(Parts parts, FoundingOptions options, Identity identity)
    : parts_(std::move(parts)),
      options_(options),
      founding_(std::move(options), std::move(identity), parts_.runtime->Random()),
      reported_(parts_.runtime->Uptime()),
      door_(std::make_shared<Door>()) {
  door_->Open(parts_.loop);
}

FoundingDriver::~FoundingDriver() { Close(); }

void FoundingDriver::Close() { door_->Close(); }

void FoundingDriver::Start(Done done) {
  done_ = std::move(done);
  Handle(kHelloCall, &FoundingDriver::ServeHello);
  Handle(kPrepareCall, &FoundingDriver::ServePrepare);
  Handle(kCommitCall, &FoundingDriver::ServeCommit);
  if (founding_.founded() && founding_.halted().empty()) {
    Finish(absl::OkStatus());
    return;
  }
  if (options_.discovery) {
    if (founding_.halted().empty()) parts_.log("not a member yet; looking for the others");
  } else if (options_.list.size() > 1) {
    std::vector<std::string_view> names;
    for (const Listed& listed : options_.list) names.push_back(listed.name);
    parts_.log(fmt::format(
        "no cluster yet; founding one once all of --initial-cluster have answered: founders={} "
        "coordinator={}",
        fmt::join(names, ","), names.front()));
  }
  Tick();
}

void FoundingDriver::Handle(const char* method,
                            void (FoundingDriver::*serve)(std::string, Answer)) {
  parts_.network->Handle(method, [this, door = door_, serve](std::string request, absl::Duration,
                                                             Network::Answer answer) {
    // A task that is dropped with the loop answers, too.
    Answer caller(std::move(answer),
                  MakeStatus(absl::StatusCode::kUnavailable, "the member is stopping"));
    door->Post([this, serve, request = std::move(request), caller = std::move(caller)]() mutable {
      (this->*serve)(std::move(request), std::move(caller));
    });
  });
}

void FoundingDriver::ServeHello(std::string request, Answer answer) {
  const absl::StatusOr<Hello> hello = DecodeHello(request);
  if (!hello.ok()) {
    answer.Answer(hello.status());
    return;
  }
  if (hello->to_name != options_.name) {
    answer.Answer(MakeStatus(absl::StatusCode::kNotFound, "the address belongs to \"{}\"; check {}",
                             options_.name,
                             options_.discovery ? "the names of the others" : "--initial-cluster"));
    return;
  }
  Carry(founding_.HelloAsked(hello->from));
  Standing standing = founding_.standing();
  if (parts_.leader) standing.leader = parts_.leader();
  answer.Answer(EncodeHelloAnswer(standing));
}

void FoundingDriver::ServePrepare(std::string request, Answer answer) {
  const absl::StatusOr<FoundingRecord> record = DecodeRecordRequest(request);
  if (!record.ok()) {
    answer.Answer(record.status());
    return;
  }
  Carry(founding_.PrepareAsked(*record), std::move(answer));
}

void FoundingDriver::ServeCommit(std::string request, Answer answer) {
  const absl::StatusOr<FoundingRecord> record = DecodeRecordRequest(request);
  if (!record.ok()) {
    answer.Answer(record.status());
    return;
  }
  Carry(founding_.CommitAsked(*record), std::move(answer));
}

void FoundingDriver::Tick() {
  if (IsDone()) return;
  Carry(founding_.Tick());
  if (IsDone()) return;
  Report();
  const absl::Duration jitter =
      absl::Milliseconds(static_cast<int64_t>(parts_.runtime->Random() % 401));
  parts_.loop->PostAfter(absl::Milliseconds(800) + jitter, [this] { Tick(); });
}

void FoundingDriver::Carry(Founding::Output output, Answer answer) {
  // After a halt or a failed sync nothing may be said any more.
  if (finished_ && output.persist) return;
  if (output.persist) {
    absl::Status written = WriteIdentity(parts_.env, parts_.identity_path, *output.persist);
    if (!written.ok()) {
      Finish(std::move(written));
      return;
    }
  }
  if (output.refusal) answer.Answer(EncodeRefusal(*output.refusal));
  AskOutside(output);
  for (Founding::Ask& ask : output.asks) Send(std::move(ask));
  if (output.halt) {
    Finish(MakeStatus(absl::StatusCode::kFailedPrecondition, "{}", *output.halt));
  } else if (founding_.founded() && founding_.halted().empty()) {
    Finish(absl::OkStatus());
  }
  if (output.begin_anew) {
    finished_ = true;
    parts_.begin_anew();
  }
}

// What is asked outside answers once, from any thread, within its own time bound.
void FoundingDriver::AskOutside(const Founding::Output& output) {
  if (output.write_marker) {
    parts_.marker->Write(*output.write_marker, [this, door = door_](absl::Status status) {
      door->Post([this, status = std::move(status)] { Carry(founding_.MarkerWritten(status)); });
    });
  }
  if (output.read_marker && !std::exchange(reading_marker_, true)) {
    parts_.marker->Read([this, door = door_](absl::StatusOr<Marker> marker) {
      door->Post([this, marker = std::move(marker)] {
        reading_marker_ = false;
        Carry(founding_.MarkerRead(marker));
      });
    });
  }
  if (!output.read_desired) return;
  if (parts_.desired == nullptr) {
    DesiredCount unknown;
    unknown.reason = "there is nobody to ask";
    return Carry(founding_.DesiredRead(unknown));
  }
  if (std::exchange(reading_desired_, true)) return;
  parts_.desired->Read([this, door = door_](DesiredCount desired) {
    door->Post([this, desired = std::move(desired)] {
      reading_desired_ = false;
      Carry(founding_.DesiredRead(desired));
    });
  });
}

void FoundingDriver::Send(Founding::Ask ask) {
  const Listed* to = founding_.Find(ask.to);
  const std::string url = to->peer_urls[calls_++ % to->peer_urls.size()];
  const auto post = [this, door = door_](auto task) {
    return [door, task = std::move(task), this](absl::StatusOr<std::string> answer) mutable {
      door->Post([this, task = std::move(task), answer = std::move(answer)]() mutable {
        task(*this, std::move(answer));
      });
    };
  };
  switch (ask.kind) {
    case Founding::Ask::Kind::kHello: {
      std::string request = EncodeHello({.from = founding_.standing(), .to_name = ask.to});
      parts_.network->Call(url, kHelloCall, std::move(request), kCallTimeout,
                           post([ask](FoundingDriver& self, absl::StatusOr<std::string> answer) {
                             absl::StatusOr<Standing> standing =
                                 answer.ok() ? DecodeHelloAnswer(*answer) : answer.status();
                             self.Carry(self.founding_.HelloAnswered(ask.to, ask.round, standing));
                           }));
      return;
    }
    case Founding::Ask::Kind::kPrepare:
      parts_.network->Call(
          url, kPrepareCall, EncodeRecordRequest(*ask.record), kCallTimeout,
          post([ask](FoundingDriver& self, absl::StatusOr<std::string> answer) {
            absl::StatusOr<std::string> refusal =
                answer.ok() ? DecodeRefusal(*answer) : answer.status();
            self.Carry(self.founding_.PrepareAnswered(ask.to, *ask.record, refusal));
          }));
      return;
    case Founding::Ask::Kind::kCommit:
      // Whoever misses it learns the same from the next Hello.
      parts_.network->Call(url, kCommitCall, EncodeRecordRequest(*ask.record), kCallTimeout,
                           [](absl::StatusOr<std::string>) {});
      return;
    case Founding::Ask::Kind::kJoin:
      parts_.network->Call(url, kJoinCall, Encode(founding_.MakeJoinRequest()), kJoinTimeout,
                           post([ask](FoundingDriver& self, absl::StatusOr<std::string> answer) {
                             absl::StatusOr<JoinAnswer> decoded =
                                 answer.ok() ? DecodeJoinAnswer(*answer) : answer.status();
                             self.Carry(self.founding_.JoinAnswered(ask.to, decoded));
                           }));
      return;
  }
}

void FoundingDriver::Halt(std::string sentence) {
  const bool ticks = done_ != nullptr;
  founding_.Halt(std::move(sentence));
  if (finished_ && !ticks) {
    Tick();
  } else {
    Report();
  }
}

// A contradiction is said again and again, also by who was a member already.
bool FoundingDriver::IsDone() const { return finished_ && founding_.halted().empty(); }

void FoundingDriver::Report() {
  const std::vector<std::string> missing = founding_.Missing();
  const bool halted = !founding_.halted().empty();
  if (parts_.stands) {
    parts_.stands(halted ? State::kHalted : founding_.identity().state, missing);
  }
  // A contradiction is said at once, and whenever it becomes another one.
  const bool news = halted && founding_.halted() != said_;
  if (!news && parts_.runtime->Uptime() - reported_ < kReportInterval) return;
  reported_ = parts_.runtime->Uptime();
  said_ = founding_.halted();
  if (missing.empty()) return;
  if (halted) {
    parts_.warn(fmt::format("HALTED: {}", fmt::join(missing, "; ")));
  } else {
    parts_.log(fmt::format("{}; waiting for: {}",
                           options_.discovery ? "not a member yet" : "no cluster yet",
                           fmt::join(missing, "; ")));
  }
}

void FoundingDriver::Finish(absl::Status status) {
  if (finished_) return;
  finished_ = true;
  if (status.ok()) {
    const Identity& identity = founding_.identity();
    parts_.log(fmt::format("member of the cluster: cluster={:x} member={:x} name={}",
                           identity.cluster_id, identity.member_id, identity.name));
  }
  std::move(done_)(std::move(status));
}

}  // namespace kv::cluster

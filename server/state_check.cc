#include "server/state_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "proto/internal/peer.pb.h"
#include "server/replica/caller.h"
#include "server/replica/forward.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(30);
constexpr absl::Duration kRaiseDeadline = absl::Seconds(10);
// A round costs at most this part of the time.
constexpr int kShare = 20;

absl::StatusOr<StateHash> HashOf(const View& view) {
  ASSIGN_OR_RETURN(const uint32_t hash, view.Hash());
  return StateHash{.revision = view.revision(), .compacted = view.head().compacted, .hash = hash};
}

std::string Encode(const StateHash& hash) {
  kvd::internal::StateHashResponse message;
  message.set_revision(hash.revision);
  message.set_compacted(hash.compacted);
  message.set_hash(hash.hash);
  return message.SerializeAsString();
}

}  // namespace

std::vector<MemberId> Differing(MemberId leader, const std::map<MemberId, StateHash>& answers) {
  const StateHash& own = answers.at(leader);
  std::map<uint32_t, size_t> votes;
  const auto comparable = [&own](const StateHash& answer) {
    return answer.revision == own.revision && answer.compacted == own.compacted;
  };
  for (const auto& [member, answer] : answers) {
    if (comparable(answer)) ++votes[answer.hash];
  }
  uint32_t right = own.hash;
  for (const auto& [hash, count] : votes) {
    if (count > votes[right]) right = hash;
  }
  std::vector<MemberId> differing;
  for (const auto& [member, answer] : answers) {
    if (comparable(answer) && answer.hash != right) differing.push_back(member);
  }
  return differing;
}

StateCheck::StateCheck(Parts parts, absl::Duration interval)
    : parts_(std::move(parts)), interval_(interval), door_(std::make_shared<Door>()) {
  door_->Open(parts_.loop);
}

StateCheck::~StateCheck() { door_->Close(); }

void StateCheck::Start() {
  Serve();
  BeginLater(interval_);
}

void StateCheck::Serve() {
  parts_.network->Handle(kStateHashCall, [machine = parts_.machine, work = parts_.work,
                                          self = parts_.replica->id(),
                                          door = door_](const std::string& request, absl::Duration,
                                                        Network::Answer answer) {
    // A task that is dropped with the loop answers, too.
    Caller<absl::StatusOr<std::string>> caller(
        std::move(answer), MakeStatus(absl::StatusCode::kUnavailable, "the member is stopping"));
    kvd::internal::StateHashRequest message;
    if (!message.ParseFromString(request) || message.to_member_id() != self) {
      return caller.Answer(MakeStatus(absl::StatusCode::kNotFound, "somebody else was asked"));
    }
    // Through the door: the machine is there as long as it is open, and the view keeps what is
    // read.
    door->Post(
        [machine, work, revision = message.revision(), caller = std::move(caller)]() mutable {
          absl::StatusOr<View> view = machine->At(revision);
          if (!view.ok()) return caller.Answer(view.status());
          work->Post([view = *std::move(view), caller = std::move(caller)]() mutable {
            absl::StatusOr<StateHash> hash = HashOf(view);
            caller.Answer(hash.ok() ? absl::StatusOr<std::string>(Encode(*hash)) : hash.status());
          });
        });
  });
}

void StateCheck::BeginLater(absl::Duration delay) {
  parts_.loop->PostAfter(delay, [this, door = door_] { door->Post([this] { Begin(); }); });
}

void StateCheck::Begin() {
  if (!parts_.replica->leading() || parts_.machine->cluster_version() < kMaintenanceVersion) {
    return BeginLater(interval_);
  }
  parts_.work->Post([this, view = parts_.machine->Latest(), runtime = parts_.runtime,
                     door = door_] {
    const absl::Duration begun = runtime->Uptime();
    absl::StatusOr<StateHash> own = HashOf(view);
    const absl::Duration took = runtime->Uptime() - begun;
    door->Post([this, own = std::move(own), took] {
      if (own.ok()) {
        AskOthers(*own, took);
      } else {
        parts_.log(fmt::format("the state could not be hashed: reason={}", Message(own.status())));
      }
      BeginLater(std::max(interval_, kShare * took));
    });
  });
}

void StateCheck::AskOthers(const StateHash& own, absl::Duration took) {
  const MemberId self = parts_.replica->id();
  const raft::Members members = parts_.machine->members();
  auto round = std::make_shared<Round>();
  round->revision = own.revision;
  round->answers[self] = own;
  for (const auto& [id, bytes] : members.records) {
    const std::optional<MemberRecord> record = DecodeMemberRecord(bytes);
    if (id == self || !record || record->node_uuid.empty() || record->peer_urls.empty()) continue;
    ++round->awaited;
    kvd::internal::StateHashRequest request;
    request.set_to_member_id(id);
    request.set_revision(own.revision);
    parts_.network->Call(
        record->peer_urls.front(), kStateHashCall, request.SerializeAsString(),
        kCallTimeout + 2 * took,
        [this, round, member = id, door = door_](absl::StatusOr<std::string> answer) {
          door->Post([this, round, member, answer = std::move(answer)] {
            OnAnswered(round, member, answer);
          });
        });
  }
}

void StateCheck::OnAnswered(const std::shared_ptr<Round>& round, MemberId member,
                            const absl::StatusOr<std::string>& answer) {
  kvd::internal::StateHashResponse message;
  if (answer.ok() && message.ParseFromString(*answer)) {
    round->answers[member] = {
        .revision = message.revision(), .compacted = message.compacted(), .hash = message.hash()};
  }
  if (--round->awaited == 0) Judge(*round);
}

void StateCheck::Judge(const Round& round) {
  for (const MemberId member : Differing(parts_.replica->id(), round.answers)) {
    parts_.log(fmt::format(
        "members differ: the keys of member {:x} are not those of the others at revision {}; "
        "writes are refused until the alarm CORRUPT is lifted. Next: \"kvctl member remove {:x}\", "
        "add it again with an empty data directory, then \"kvctl alarm disarm\"",
        member, round.revision, member));
    Raise(member);
  }
}

void StateCheck::Raise(MemberId member) {
  const RaisedAlarm raised{.type = etcdserverpb::CORRUPT, .member = member};
  if (parts_.machine->maintenance().Raised(raised)) return;
  // Should it fail, the next round tries again.
  parts_.replica->Propose(RaiseAlarmCommand(raised), kRaiseDeadline, [](const ProposalResult&) {});
}

}  // namespace kv

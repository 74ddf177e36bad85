#include "server/member_keeper.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "server/cluster/acknowledged.h"
#include "server/cluster/hello.h"
#include "server/raft/describe.h"
#include "storage/status.h"

namespace kv {
namespace {

// What a member that was asked to take somebody in asks its leader.
constexpr char kAdmitCall[] = "admit";
constexpr absl::Duration kAskDeadline = absl::Seconds(3);
constexpr absl::Duration kChangeDeadline = absl::Seconds(5);
constexpr absl::Duration kLeaderlessForLong = absl::Seconds(5);
constexpr absl::Duration kHelloDeadline = absl::Seconds(1);

absl::Status NotLeading() {
  return MakeStatus(absl::StatusCode::kUnavailable, "this member does not lead the cluster (yet)");
}

std::string RetryJoin(std::string sentence) {
  return Encode(cluster::JoinAnswer{
      .kind = cluster::JoinAnswer::Kind::kRetry, .sentence = std::move(sentence), .members = {}});
}

std::string_view Reason(const MembersResult& result) {
  return result.error == ReplicaError::kNotAccepted ? raft::Describe(result.refusal)
                                                    : Describe(result.error);
}

std::optional<cluster::HeldPermit> HeldIn(const KvMachine& machine) {
  const std::optional<StopPermit> permit = machine.maintenance().permit;
  if (!permit) return std::nullopt;
  return cluster::HeldPermit{.member = permit->member,
                             .boot_epoch = permit->boot_epoch,
                             .unknown_reason = permit->unknown_reason};
}

}  // namespace

MemberKeeper::MemberKeeper(Parts parts, Options options)
    : parts_(std::move(parts)), options_(std::move(options)), door_(std::make_shared<Door>()) {
  door_->Open(parts_.loop);
}

MemberKeeper::~MemberKeeper() { door_->Close(); }

void MemberKeeper::Start() {
  Serve(cluster::kJoinCall, true, &MemberKeeper::OnJoin);
  Serve(kAdmitCall, false, &MemberKeeper::OnAdmit);
  Serve(cluster::kRemovedCall, true, &MemberKeeper::OnAskedWhetherRemoved);
  Serve(cluster::kLeaveCall, false, &MemberKeeper::OnLeave);
  Serve(cluster::kPermitCall, false, &MemberKeeper::OnPermit);
}

void MemberKeeper::Serve(const char* method, bool from_anybody,
                         void (MemberKeeper::*serve)(std::string, absl::Duration, BytesCaller)) {
  Network::Serve posted = [this, door = door_, serve](std::string request, absl::Duration deadline,
                                                      Network::Answer answer) {
    // A task that is dropped with the loop answers, too.
    BytesCaller caller(std::move(answer),
                       MakeStatus(absl::StatusCode::kUnavailable, "the member is stopping"));
    door->Post([this, serve, deadline, request = std::move(request),
                caller = std::move(caller)]() mutable {
      (this->*serve)(std::move(request), deadline, std::move(caller));
    });
  };
  if (from_anybody) {
    parts_.network->Handle(method, std::move(posted));
  } else {
    parts_.replica->AnswerAsLeader(method, std::move(posted));
  }
}

absl::Duration MemberKeeper::Left(absl::Duration until) const {
  return std::max(until - parts_.runtime->Uptime(), absl::ZeroDuration());
}

bool MemberKeeper::Leads() {
  const raft::Standing standing = parts_.replica->Status().standing;
  return upkeep_ && standing.role == raft::Role::kLeader && standing.term == term_;
}

void MemberKeeper::OnJoin(std::string request, absl::Duration deadline, BytesCaller caller) {
  AskLeader(kAdmitCall, std::move(request), deadline, &MemberKeeper::OnAdmit, std::move(caller));
}

void MemberKeeper::OnAdmit(std::string bytes, absl::Duration deadline, BytesCaller caller) {
  absl::StatusOr<cluster::JoinRequest> request = cluster::DecodeJoinRequest(bytes);
  if (!request.ok()) return caller.Answer(request.status());
  if (!Leads()) return caller.Answer(NotLeading());
  auto joining = std::make_shared<Joining>();
  joining->request = *std::move(request);
  joining->until = parts_.runtime->Uptime() + deadline;
  joining->caller = std::move(caller);
  // What was acknowledged anywhere must be seen: a slot that was given, a member that was removed.
  parts_.replica->Read(deadline, [this, door = door_, joining](ReadResult read) {
    door->Post([this, joining, read] {
      if (read.error == ReplicaError::kNone) return AskRivals(joining);
      joining->caller.Answer(
          MakeStatus(absl::StatusCode::kUnavailable, "{}", Describe(read.error)));
    });
  });
}

// A process that ended answers nobody; one that the leader alone does not hear still does.
void MemberKeeper::AskRivals(const std::shared_ptr<Joining>& joining) {
  const std::vector<MemberRecord> rivals =
      cluster::Rivals(parts_.machine->members(), joining->request);
  for (const MemberRecord& rival : rivals) joining->awaited += rival.peer_urls.size();
  if (joining->awaited == 0) return Admit(*joining);
  for (const MemberRecord& rival : rivals) {
    const std::string hello = cluster::EncodeHello({.from = options_.self, .to_name = rival.name});
    for (const std::string& url : rival.peer_urls) {
      parts_.network->Call(url, cluster::kHelloCall, hello, kHelloDeadline,
                           [this, door = door_, joining](absl::StatusOr<std::string> answer) {
                             door->Post([this, joining, answer = std::move(answer)] {
                               if (answer.ok()) {
                                 const auto standing = cluster::DecodeHelloAnswer(*answer);
                                 if (standing.ok()) joining->answering.insert(standing->node_uuid);
                               }
                               if (--joining->awaited == 0) Admit(*joining);
                             });
                           });
    }
  }
}

void MemberKeeper::Admit(Joining& joining) {
  if (!Leads()) return joining.caller.Answer(NotLeading());
  const raft::Members members = parts_.machine->members();
  if (members.IsJoint()) {
    return joining.caller.Answer(RetryJoin("the members are changing right now"));
  }
  cluster::JoinFacts facts{.cluster_version = parts_.machine->cluster_version(),
                           .token_hash = options_.self.token_hash,
                           .counted = parts_.desired != nullptr,
                           .desired = upkeep_->desired(),
                           .sights = upkeep_->sights(),
                           .answering = std::move(joining.answering),
                           .fresh_id = parts_.runtime->Random()};
  cluster::JoinDecision decision =
      cluster::Decide(options_.upkeep, members, joining.request, facts);
  if (decision.kind == cluster::JoinAnswer::Kind::kGranted) {
    return TakeIn(std::move(decision), joining);
  }
  joining.caller.Answer(Encode(cluster::JoinAnswer{
      .kind = decision.kind, .sentence = std::move(decision.sentence), .members = {}}));
}

void MemberKeeper::TakeIn(cluster::JoinDecision decision, Joining& joining) {
  cluster::JoinAnswer granted{.kind = cluster::JoinAnswer::Kind::kGranted,
                              .sentence = {},
                              .cluster_id = parts_.replica->cluster_id(),
                              .member_id = decision.member_id,
                              .members = parts_.machine->members()};
  if (!decision.change) return joining.caller.Answer(Encode(granted));
  parts_.log(fmt::format("taking in a disk that asked to join: name={} uuid={} member={:x} of={}",
                         joining.request.name, joining.request.node_uuid, granted.member_id,
                         joining.request.version));
  parts_.replica->ChangeMembers(
      *std::move(decision.change), Left(joining.until),
      [granted = std::move(granted),
       caller = std::move(joining.caller)](MembersResult result) mutable {
        if (result.error != ReplicaError::kNone) {
          return caller.Answer(RetryJoin(fmt::format("{}", Reason(result))));
        }
        granted.members = std::move(result.members);
        if (!granted.members.IsMember(granted.member_id)) {
          return caller.Answer(RetryJoin("it was removed meanwhile"));
        }
        caller.Answer(Encode(granted));
      });
}

void MemberKeeper::OnLeave(std::string bytes, absl::Duration, BytesCaller caller) {
  const absl::StatusOr<cluster::LeaveRequest> request = cluster::DecodeLeaveRequest(bytes);
  if (!request.ok()) return caller.Answer(request.status());
  const raft::Members members = parts_.machine->members();
  if (members.IsRemoved(request->member_id)) {
    return caller.Answer(Encode(cluster::LeaveAnswer{.done = true, .sentence = {}}));
  }
  if (!Leads()) return caller.Answer(NotLeading());
  const std::optional<MemberRecord> record = RecordOf(members, request->member_id);
  if (!record || record->node_uuid != request->node_uuid) {
    return caller.Answer(
        Encode(cluster::LeaveAnswer{.done = false, .sentence = "no member is bound to this disk"}));
  }
  upkeep_->WantsToLeave(parts_.runtime->Uptime(), request->member_id);
  ReadCount();
  caller.Answer(Encode(
      cluster::LeaveAnswer{.done = false, .sentence = upkeep_->WhyStillHere(request->member_id)}));
}

void MemberKeeper::OnAskedWhetherRemoved(std::string bytes, absl::Duration, BytesCaller caller) {
  const absl::StatusOr<cluster::LeaveRequest> request = cluster::DecodeLeaveRequest(bytes);
  if (!request.ok()) return caller.Answer(request.status());
  const bool removed = parts_.machine->members().IsRemoved(request->member_id);
  caller.Answer(Encode(cluster::LeaveAnswer{.done = removed, .sentence = {}}));
}

// A voter is told when it asks for votes. A learner asks for none, and nobody calls on those who
// were removed while they were away.
void MemberKeeper::AskWhetherRemoved(const ReplicaStatus& status) {
  if (status.leaderless < kLeaderlessForLong || removed_ || asking_whether_removed_) return;
  const raft::Members members = parts_.machine->members();
  std::vector<MemberId> others = members.All();
  std::erase(others, parts_.replica->id());
  if (others.empty()) return;
  const auto record = RecordOf(members, others[asked_++ % others.size()]);
  if (!record || record->peer_urls.empty()) return;
  asking_whether_removed_ = true;
  parts_.network->Call(record->peer_urls.front(), cluster::kRemovedCall, Encode(OwnDeparture()),
                       kAskDeadline, [this, door = door_](absl::StatusOr<std::string> bytes) {
                         door->Post([this, bytes = std::move(bytes)] {
                           asking_whether_removed_ = false;
                           if (!bytes.ok()) return;
                           const auto answer = cluster::DecodeLeaveAnswer(*bytes);
                           if (answer.ok() && answer->done) removed_ = true;
                         });
                       });
}

cluster::Permits::Facts MemberKeeper::PermitFacts() const {
  return {.now = parts_.runtime->Uptime(),
          .members = parts_.machine->members(),
          .sights = upkeep_->sights(),
          .held = HeldIn(*parts_.machine)};
}

void MemberKeeper::OnPermit(std::string bytes, absl::Duration deadline, BytesCaller caller) {
  const absl::StatusOr<cluster::PermitRequest> request = cluster::DecodePermitRequest(bytes);
  if (!request.ok()) return caller.Answer(request.status());
  if (!Leads()) return caller.Answer(NotLeading());
  cluster::Permits::Decision decision = permits_->Decide(*request, PermitFacts());
  const bool noted = parts_.machine->cluster_version() >= kMembershipVersion;
  if (decision.verdict == cluster::Permits::Verdict::kNote && noted) {
    return NotePermit(*request, deadline, std::move(caller));
  }
  caller.Answer(
      Encode(cluster::PermitAnswer{.granted = decision.verdict != cluster::Permits::Verdict::kWait,
                                   .sentence = std::move(decision.sentence)}));
}

void MemberKeeper::NotePermit(const cluster::PermitRequest& request, absl::Duration deadline,
                              BytesCaller caller) {
  caller.Otherwise(MakeStatus(absl::StatusCode::kUnknown, "the outcome is unknown"));
  const StopPermit permit{.member = request.member_id,
                          .boot_epoch = request.boot_epoch,
                          .unknown_reason = request.reason == cluster::PermitReason::kUnknown};
  parts_.replica->Propose(StopPermitCommand(permit, false), deadline,
                          [caller = std::move(caller)](ProposalResult result) mutable {
                            if (result.error != ReplicaError::kNone) {
                              return caller.Answer(MakeStatus(absl::StatusCode::kUnavailable, "{}",
                                                              Describe(result.error)));
                            }
                            caller.Answer(Encode(cluster::PermitAnswer{
                                .granted = result.reply.status.ok(),
                                .sentence = std::string(Message(result.reply.status))}));
                          });
}

void MemberKeeper::AskLeader(const char* method, std::string request, absl::Duration deadline,
                             void (MemberKeeper::*serve)(std::string, absl::Duration, BytesCaller),
                             BytesCaller caller) {
  if (parts_.replica->leading()) {
    return (this->*serve)(std::move(request), deadline, std::move(caller));
  }
  parts_.replica->AskLeader(
      method, std::move(request), deadline,
      [caller = std::move(caller)](absl::StatusOr<std::string> answer) mutable {
        caller.Answer(std::move(answer));
      });
}

// Told what the leader answers, as AskPermit and Leave say; dropped with the loop it answers, too.
template <typename Answer>
MemberKeeper::BytesCaller MemberKeeper::Tells(Answered done,
                                              absl::StatusOr<Answer> (*decode)(std::string_view),
                                              bool Answer::* yes) {
  return {[done = std::move(done), decode, yes](absl::StatusOr<std::string> bytes) mutable {
            if (!bytes.ok()) return std::move(done)(bytes.status());
            absl::StatusOr<Answer> answer = decode(*bytes);
            if (!answer.ok()) return std::move(done)(answer.status());
            std::move(done)(*answer.*yes ? std::string() : std::move(answer->sentence));
          },
          NotLeading()};
}

cluster::LeaveRequest MemberKeeper::OwnDeparture() const {
  return {.member_id = parts_.replica->id(),
          .node_uuid = options_.self.node_uuid,
          .boot_epoch = options_.self.boot_epoch};
}

void MemberKeeper::AskPermit(cluster::PermitReason reason, Answered done) {
  BytesCaller caller =
      Tells(std::move(done), cluster::DecodePermitAnswer, &cluster::PermitAnswer::granted);
  door_->Post([this, reason, caller = std::move(caller)]() mutable {
    const cluster::PermitRequest request{.member_id = parts_.replica->id(),
                                         .boot_epoch = options_.self.boot_epoch,
                                         .reason = reason};
    AskLeader(cluster::kPermitCall, Encode(request), kAskDeadline, &MemberKeeper::OnPermit,
              std::move(caller));
  });
}

void MemberKeeper::Leave(Answered done) {
  BytesCaller caller =
      Tells(std::move(done), cluster::DecodeLeaveAnswer, &cluster::LeaveAnswer::done);
  door_->Post([this, caller = std::move(caller)]() mutable {
    if (removed_ || parts_.replica->Status().standing.removed) {
      return caller.Answer(Encode(cluster::LeaveAnswer{.done = true, .sentence = {}}));
    }
    AskLeader(cluster::kLeaveCall, Encode(OwnDeparture()), kAskDeadline, &MemberKeeper::OnLeave,
              std::move(caller));
  });
}

void MemberKeeper::Tick() {
  GiveBackOwnPermit();
  const ReplicaStatus status = parts_.replica->Status();
  AskWhetherRemoved(status);
  const raft::Standing& standing = status.standing;
  if (standing.role != raft::Role::kLeader || !standing.established) {
    upkeep_.reset();
    permits_.reset();
    return;
  }
  if (!upkeep_ || term_ != standing.term) {
    term_ = standing.term;
    upkeep_.emplace(options_.upkeep);
    permits_.emplace();
    count_read_.reset();
    noted_ = parts_.runtime->Uptime();
    said_.clear();
  }
  Look(status);
}

void MemberKeeper::Look(const ReplicaStatus& status) {
  const raft::Standing& standing = status.standing;
  const absl::Duration now = parts_.runtime->Uptime();
  const std::optional<cluster::HeldPermit> held = HeldIn(*parts_.machine);
  cluster::Upkeep::Output output =
      upkeep_->Tick({.now = now,
                     .self = parts_.replica->id(),
                     .members = standing.members,
                     .settled = standing.members_committed && !standing.members.IsJoint() &&
                                standing.successor == 0 && !changing_,
                     .commit = status.commit,
                     .followers = status.followers,
                     .permitted = held ? held->member : 0});
  Say(output.sentences);
  if (output.change) Change(*std::move(output.change), std::move(output.what));
  if (output.hand_over != 0) HandOver(output.hand_over);
  if (!count_read_ || now - *count_read_ >= options_.poll_interval || upkeep_->WantsCount()) {
    ReadCount();
  }
  TakeBackPermit();
  NoteAcknowledged(status);
}

void MemberKeeper::NoteAcknowledged(const ReplicaStatus& status) {
  const absl::Duration now = parts_.runtime->Uptime();
  if (now - noted_ < options_.note_interval) return;
  noted_ = now;
  if (parts_.machine->cluster_version() < kMembershipVersion) return;
  const auto worth = cluster::WorthNoting({.self = parts_.replica->id(),
                                           .members = status.standing.members,
                                           .commit = status.commit,
                                           .stable = status.stable_index,
                                           .followers = status.followers,
                                           .noted = parts_.machine->maintenance().acknowledged});
  // Lost with this leader or its term: the next look finds the same again.
  if (worth) {
    parts_.replica->Propose(AcknowledgedCommand(*worth), kChangeDeadline, [](ProposalResult) {});
  }
}

void MemberKeeper::ReadCount() {
  if (parts_.desired == nullptr || std::exchange(reading_count_, true)) return;
  count_read_ = parts_.runtime->Uptime();
  // As of when it was asked: whoever wants to leave since then is not meant.
  parts_.desired->Read([this, door = door_, asked = *count_read_](cluster::DesiredCount desired) {
    door->Post([this, asked, desired = std::move(desired)] {
      reading_count_ = false;
      if (upkeep_) upkeep_->CountRead(asked, desired);
    });
  });
}

void MemberKeeper::Change(raft::MemberChange change, std::string what) {
  changing_ = true;
  parts_.log(what);
  parts_.replica->ChangeMembers(
      std::move(change), kChangeDeadline,
      [this, door = door_, what = std::move(what)](MembersResult result) {
        door->Post([this, what, result = std::move(result)] {
          changing_ = false;
          if (result.error == ReplicaError::kNone) return;
          parts_.log(fmt::format("{}: {}; looking again", what, Reason(result)));
        });
      });
}

void MemberKeeper::HandOver(MemberId to) {
  if (std::exchange(handing_over_, true)) return;
  parts_.log(fmt::format("handing the leadership over, as this member is to go: to={:x}", to));
  parts_.replica->TransferLeadership(to, kChangeDeadline, [this, door = door_](ReplicaError) {
    door->Post([this] { handing_over_ = false; });
  });
}

void MemberKeeper::Say(const std::vector<std::string>& sentences) {
  for (const std::string& sentence : sentences) {
    if (std::ranges::find(said_, sentence) == said_.end()) parts_.log(sentence);
  }
  said_ = sentences;
}

void MemberKeeper::TakeBackPermit() {
  const std::optional<cluster::HeldPermit> overdue = permits_->Overdue(PermitFacts());
  if (!overdue || giving_back_) return;
  parts_.log(fmt::format("the permit to stop of member {:x} is over", overdue->member));
  GiveBackPermit({.member = overdue->member, .boot_epoch = overdue->boot_epoch});
}

void MemberKeeper::GiveBackPermit(const StopPermit& permit) {
  giving_back_ = true;
  parts_.replica->Propose(StopPermitCommand(permit, true), kChangeDeadline,
                          [this, door = door_](const ProposalResult&) {
                            door->Post([this] { giving_back_ = false; });
                          });
}

// This start follows the one that was let go; once a read has worked it has caught up.
void MemberKeeper::GiveBackOwnPermit() {
  const std::optional<StopPermit> permit = parts_.machine->maintenance().permit;
  if (!permit || permit->member != parts_.replica->id() ||
      permit->boot_epoch >= options_.self.boot_epoch || std::exchange(giving_back_, true)) {
    return;
  }
  parts_.replica->Read(kChangeDeadline, [this, door = door_, permit = *permit](ReadResult read) {
    door->Post([this, permit, read] {
      giving_back_ = false;
      if (read.error == ReplicaError::kNone) GiveBackPermit(permit);
    });
  });
}

}  // namespace kv

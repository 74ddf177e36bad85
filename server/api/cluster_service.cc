#include "server/api/cluster_service.h"

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/api/errors.h"
#include "server/api/member_changes.h"
#include "server/kv/kv_machine.h"
#include "server/raft/describe.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::Member;
using etcdserverpb::MemberAddRequest;
using etcdserverpb::MemberAddResponse;
using etcdserverpb::MemberListRequest;
using etcdserverpb::MemberListResponse;
using etcdserverpb::MemberPromoteRequest;
using etcdserverpb::MemberPromoteResponse;
using etcdserverpb::MemberRemoveRequest;
using etcdserverpb::MemberRemoveResponse;
using etcdserverpb::MemberUpdateRequest;
using etcdserverpb::MemberUpdateResponse;

// Between two looks at a configuration that is just changing.
constexpr absl::Duration kChangePause = absl::Milliseconds(20);

void Fill(const ShownMember& shown, Member* member) {
  member->set_id(shown.id);
  member->set_islearner(shown.learner);
  member->set_name(shown.record.name);
  for (const std::string& url : shown.record.peer_urls) member->add_peerurls(url);
  for (const std::string& url : shown.record.client_urls) member->add_clienturls(url);
}

// A response of this service: the header, which says nothing of revisions, and all members.
template <typename Response>
Response AnswerWith(const Edge& edge, const raft::Members& members) {
  Response response;
  edge.FillHeader(response.mutable_header());
  for (const ShownMember& shown : ShownMembers(members)) Fill(shown, response.add_members());
  return response;
}

absl::Status ToStatus(raft::ChangeRefusal refusal) {
  switch (refusal) {
    case raft::ChangeRefusal::kInactive:
      return ToStatus(Error::kUnhealthy);
    case raft::ChangeRefusal::kNotCaughtUp:
      return ToStatus(Error::kLearnerNotReady);
    case raft::ChangeRefusal::kUnknownMember:
    case raft::ChangeRefusal::kWasRemoved:
      return ToStatus(Error::kMemberNotFound);
    case raft::ChangeRefusal::kNoVoter:
      return ToStatus(Error::kMemberNotEnoughStarted);
    case raft::ChangeRefusal::kTooMany:
    case raft::ChangeRefusal::kInvalid:
      return MakeStatus(absl::StatusCode::kFailedPrecondition, "etcdserver: {}",
                        raft::Describe(refusal));
    default:
      // Another change, or a new leader, was in the way all the time; nothing was changed.
      return ToStatus(Error::kTimeout);
  }
}

// One change of the members: looks who they are, decides, and proposes what holds for exactly them;
// looks again when somebody was faster.
class MembersCall : public std::enable_shared_from_this<MembersCall> {
 public:
  using Plan = std::function<absl::StatusOr<raft::MemberChange>(const raft::Members&)>;

  MembersCall(Edge* edge, const Call& call, Plan plan, Done<raft::Members> done)
      : edge_(edge),
        call_(call),
        until_(edge->runtime().Uptime() + edge->TimeFor(call)),
        plan_(std::move(plan)),
        done_(std::move(done)) {}

  void Begin() {
    call_.deadline = until_ - edge_->runtime().Uptime();
    if (edge_->stopping()) return std::move(done_)(api::ToStatus(Error::kStopped));
    if (call_.deadline <= absl::ZeroDuration()) {
      return std::move(done_)(api::ToStatus(Error::kTimeout));
    }
    edge_->Read(call_, Edge::Consistency::kLinearizable,
                [self = shared_from_this()](absl::Status read) {
                  if (!read.ok()) return std::move(self->done_)(std::move(read));
                  self->Propose();
                });
  }

 private:
  void Propose() {
    const raft::Members members = edge_->machine().members();
    if (members.IsJoint()) return Again();
    absl::StatusOr<raft::MemberChange> change = plan_(members);
    if (!change.ok()) return std::move(done_)(change.status());
    edge_->replica().ChangeMembers(
        *std::move(change), until_ - edge_->runtime().Uptime(),
        [self = shared_from_this()](MembersResult result) { self->OnChanged(std::move(result)); });
  }

  void OnChanged(MembersResult result) {
    if (result.error == ReplicaError::kNone) {
      return std::move(done_)(std::move(result.members));
    }
    if (result.error != ReplicaError::kNotAccepted) {
      return std::move(done_)(api::ToStatus(result.error));
    }
    if (result.refusal == raft::ChangeRefusal::kMoved) return Again();
    std::move(done_)(ToStatus(result.refusal));
  }

  void Again() {
    edge_->After(kChangePause, [self = shared_from_this()] { self->Begin(); });
  }

  Edge* const edge_;
  Call call_;
  const absl::Duration until_;
  const Plan plan_;
  Done<raft::Members> done_;
};

void ChangeMembers(Edge* edge, const Call& call, MembersCall::Plan plan, Done<raft::Members> done) {
  std::make_shared<MembersCall>(edge, call, std::move(plan), std::move(done))->Begin();
}

// For answers that are the members and nothing else.
template <typename Response>
void ChangeAndList(Edge* edge, const Call& call, MembersCall::Plan plan, Done<Response> done) {
  absl::Status admitted = edge->Admit(call, Edge::OnLearner::kRefused);
  if (!admitted.ok()) return std::move(done)(std::move(admitted));
  ChangeMembers(edge, call, std::move(plan),
                [edge, done = std::move(done)](absl::StatusOr<raft::Members> members) mutable {
                  if (!members.ok()) return std::move(done)(members.status());
                  std::move(done)(AnswerWith<Response>(*edge, *members));
                });
}

}  // namespace

void ClusterService::MemberList(const Call& call, MemberListRequest request,
                                Done<MemberListResponse> done) {
  absl::Status admitted = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!admitted.ok()) return std::move(done)(std::move(admitted));
  edge_->Read(
      call,
      request.linearizable() ? Edge::Consistency::kLinearizable : Edge::Consistency::kSerializable,
      [edge = edge_, done = std::move(done)](absl::Status status) mutable {
        if (!status.ok()) return std::move(done)(std::move(status));
        std::move(done)(AnswerWith<MemberListResponse>(*edge, edge->machine().members()));
      });
}

void ClusterService::MemberAdd(const Call& call, MemberAddRequest request,
                               Done<MemberAddResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  auto urls = CheckPeerUrls({request.peerurls().begin(), request.peerurls().end()});
  if (!urls.ok()) return std::move(done)(urls.status());
  NewMember added{.peer_urls = *std::move(urls), .learner = request.islearner()};
  while (added.id == 0) added.id = edge_->runtime().Random();
  const MemberId id = added.id;
  ChangeMembers(
      edge_, call,
      [added = std::move(added), learners_max = edge_->options().learners_max](
          const raft::Members& members) { return PlanAdd(members, added, learners_max); },
      [edge = edge_, id, done = std::move(done)](absl::StatusOr<raft::Members> members) mutable {
        if (!members.ok()) return std::move(done)(members.status());
        auto response = AnswerWith<MemberAddResponse>(*edge, *members);
        for (const ShownMember& shown : ShownMembers(*members)) {
          if (shown.id == id) Fill(shown, response.mutable_member());
        }
        std::move(done)(std::move(response));
      });
}

void ClusterService::MemberRemove(const Call& call, MemberRemoveRequest request,
                                  Done<MemberRemoveResponse> done) {
  ChangeAndList<MemberRemoveResponse>(
      edge_, call,
      [id = request.id()](const raft::Members& members) { return PlanRemove(members, id); },
      std::move(done));
}

void ClusterService::MemberUpdate(const Call& call, MemberUpdateRequest request,
                                  Done<MemberUpdateResponse> done) {
  ChangeAndList<MemberUpdateResponse>(
      edge_, call,
      [id = request.id(),
       urls = std::vector<std::string>(request.peerurls().begin(), request.peerurls().end())](
          const raft::Members& members) { return PlanUpdate(members, id, urls); },
      std::move(done));
}

void ClusterService::MemberPromote(const Call& call, MemberPromoteRequest request,
                                   Done<MemberPromoteResponse> done) {
  ChangeAndList<MemberPromoteResponse>(
      edge_, call,
      [id = request.id()](const raft::Members& members) { return PlanPromote(members, id); },
      std::move(done));
}

}  // namespace kv::api

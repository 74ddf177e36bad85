#include "server/api/cluster_service.h"

#include <algorithm>
#include <string>
#include <utility>

#include "proto/internal/peer.pb.h"
#include "server/kv/kv_machine.h"

namespace kv::api {
namespace {

using etcdserverpb::Member;
using etcdserverpb::MemberListRequest;
using etcdserverpb::MemberListResponse;

// By the first peer URL, as etcd lists them.
bool Before(const Member& a, const Member& b) {
  const auto first = [](const Member& member) {
    return member.peerurls_size() > 0 ? member.peerurls(0) : std::string();
  };
  return first(a) != first(b) ? first(a) < first(b) : a.id() < b.id();
}

MemberListResponse ListMembers(const Edge& edge) {
  MemberListResponse response;
  // The one header that says nothing of revisions.
  edge.FillHeader(response.mutable_header());
  const raft::Members members = edge.machine().members();
  for (const MemberId id : members.All()) {
    Member* member = response.add_members();
    member->set_id(id);
    member->set_islearner(members.IsLearner(id));
    const auto record = members.records.find(id);
    kvd::internal::MemberRecord fields;
    if (record == members.records.end() || !fields.ParseFromString(record->second)) continue;
    member->set_name(fields.name());
    *member->mutable_peerurls() = fields.peer_urls();
    *member->mutable_clienturls() = fields.client_urls();
  }
  std::sort(response.mutable_members()->begin(), response.mutable_members()->end(), Before);
  return response;
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
        std::move(done)(ListMembers(*edge));
      });
}

}  // namespace kv::api

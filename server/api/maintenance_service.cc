#include "server/api/maintenance_service.h"

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "server/api/errors.h"
#include "server/api/version.h"
#include "server/kv/kv_machine.h"
#include "storage/status.h"

namespace kv::api {

using etcdserverpb::AlarmRequest;
using etcdserverpb::AlarmResponse;
using etcdserverpb::HashKVRequest;
using etcdserverpb::HashKVResponse;
using etcdserverpb::StatusRequest;
using etcdserverpb::StatusResponse;

void MaintenanceService::Status(const Call& call, StatusRequest, Done<StatusResponse> done) {
  absl::Status admitted = edge_->Admit(call, Edge::OnLearner::kServed);
  if (!admitted.ok()) return std::move(done)(std::move(admitted));
  const ReplicaStatus replica = edge_->replica().Status();
  const Head head = edge_->machine().head();
  const auto bytes =
      static_cast<int64_t>(edge_->machine().SizeOnDisk() + edge_->machine().UnflushedBytes());
  StatusResponse response;
  response.mutable_header()->set_revision(head.revision);
  edge_->FillHeader(response.mutable_header());
  response.set_version(std::string(kApiVersion));
  response.set_dbsize(bytes);
  response.set_leader(edge_->replica().leader());
  response.set_raftindex(replica.commit);
  response.set_raftterm(edge_->replica().term());
  response.set_raftappliedindex(head.applied.index);
  if (response.leader() == 0) {
    response.add_errors(std::string(Message(ToStatus(Error::kNoLeader))));
  }
  response.set_dbsizeinuse(bytes);  // A log-structured store has no free pages to give back.
  response.set_islearner(edge_->learner());
  response.set_storageversion(std::string(kClusterVersion));
  response.set_dbsizequota(std::max<int64_t>(edge_->options().quota_bytes, 0));
  response.mutable_downgradeinfo()->set_enabled(false);
  std::move(done)(std::move(response));
}

void MaintenanceService::Alarm(const Call& call, AlarmRequest request, Done<AlarmResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (status.ok() && !AlarmRequest::AlarmAction_IsValid(request.action())) {
    status = MakeStatus(absl::StatusCode::kInvalidArgument,
                        "{} is no alarm action; use GET (0), ACTIVATE (1) or DEACTIVATE (2)",
                        static_cast<int>(request.action()));
  }
  if (status.ok() && request.action() == AlarmRequest::ACTIVATE) {
    status = MakeStatus(absl::StatusCode::kUnimplemented,
                        "raising an alarm arrives with the complete v3 API");
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  // In etcd this is a command of the log: an answer says that the cluster can still decide.
  edge_->Read(call, Edge::Consistency::kLinearizable,
              [edge = edge_, done = std::move(done)](absl::Status read) mutable {
                if (!read.ok()) return std::move(done)(std::move(read));
                AlarmResponse response;
                response.mutable_header()->set_revision(edge->machine().head().revision);
                edge->FillHeader(response.mutable_header());
                std::move(done)(std::move(response));
              });
}

void MaintenanceService::HashKv(const Call& call, HashKVRequest request,
                                Done<HashKVResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  auto shared = std::make_shared<Done<HashKVResponse>>(std::move(done));
  status = edge_->ReadLater([edge = edge_, revision = request.revision(), shared] {
    absl::StatusOr<HashKVResponse> response = edge->machine().HashKv(revision);
    if (response.ok()) edge->FillHeader(response->mutable_header());
    std::move (*shared)(std::move(response));
  });
  if (!status.ok()) std::move (*shared)(std::move(status));
}

}  // namespace kv::api

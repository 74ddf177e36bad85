#include "server/api/maintenance_service.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "server/api/answers.h"
#include "server/api/errors.h"
#include "server/api/validate.h"
#include "server/api/version.h"
#include "server/kv/kv_machine.h"
#include "storage/backup.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv::api {

using etcdserverpb::AlarmRequest;
using etcdserverpb::AlarmResponse;
using etcdserverpb::DefragmentRequest;
using etcdserverpb::DefragmentResponse;
using etcdserverpb::DowngradeRequest;
using etcdserverpb::DowngradeResponse;
using etcdserverpb::HashKVRequest;
using etcdserverpb::HashKVResponse;
using etcdserverpb::HashRequest;
using etcdserverpb::HashResponse;
using etcdserverpb::MoveLeaderRequest;
using etcdserverpb::MoveLeaderResponse;
using etcdserverpb::SnapshotRequest;
using etcdserverpb::SnapshotResponse;
using etcdserverpb::StatusRequest;
using etcdserverpb::StatusResponse;

namespace {

// An alarm as Go prints it in Status.errors.
std::string AlarmText(const RaisedAlarm& alarm) {
  std::string text = alarm.member == 0 ? "" : fmt::format("memberID:{} ", alarm.member);
  const auto type = static_cast<etcdserverpb::AlarmType>(alarm.type);
  return text + "alarm:" +
         (etcdserverpb::AlarmType_IsValid(type) ? etcdserverpb::AlarmType_Name(type)
                                                : std::to_string(alarm.type));
}

absl::Status CheckAlarmAction(const AlarmRequest& request) {
  if (AlarmRequest::AlarmAction_IsValid(request.action())) return absl::OkStatus();
  return MakeStatus(absl::StatusCode::kInvalidArgument,
                    "{} is no alarm action; use GET (0), ACTIVATE (1) or DEACTIVATE (2)",
                    static_cast<int>(request.action()));
}

absl::StatusOr<std::unique_ptr<BackupSource>> OpenBackup(const Edge& edge, uint64_t number) {
  const KvMachineOptions& machine = edge.machine().options();
  // Beside those for other members: what a crash leaves there is removed at the next start.
  const std::string path = fmt::format("{}/outgoing/backup-{}", machine.data_dir, number);
  // Copying flushes twice: what came until then, and, while commits wait, what came meanwhile. Once
  // more before that, and what is left for the last is next to nothing.
  RETURN_IF_ERROR(edge.machine().Flush());
  absl::StatusOr<KvMachine::Copied> copied = edge.machine().Copy(path);
  if (!copied.ok()) {
    RemoveDirectory(machine.env, path).IgnoreError();
    return copied.status();
  }
  BackupHeader header{.cluster_id = edge.replica().cluster_id(),
                      .machine_version = copied->cluster_version,
                      .revision = copied->head.revision,
                      .compacted = copied->head.compacted,
                      .keys = copied->head.keys,
                      .manifest = copied->snapshot.manifest};
  return std::make_unique<BackupSource>(machine.env, std::move(copied->snapshot),
                                        std::move(header));
}

Encoded<DowngradeResponse> Answer(const Edge& edge) {
  DowngradeResponse response;
  response.mutable_header()->set_revision(edge.machine().head().revision);
  edge.FillHeader(response.mutable_header());
  response.set_version(std::string(kApiMinorVersion));
  return {.bytes = response.SerializeAsString(), .hold = nullptr};
}

}  // namespace

MaintenanceService::MaintenanceService(Edge* edge)
    : edge_(edge), backups_(&edge->runtime(), [edge, number = uint64_t{0}]() mutable {
        return OpenBackup(*edge, ++number);
      }) {}

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
  const Maintenance maintenance = edge_->machine().maintenance();
  for (const RaisedAlarm& alarm : maintenance.alarms) response.add_errors(AlarmText(alarm));
  response.set_dbsizeinuse(bytes);  // A log-structured store has no free pages to give back.
  response.set_islearner(edge_->learner());
  response.set_storageversion(std::string(kClusterVersion));
  response.set_dbsizequota(std::max<int64_t>(edge_->quota_bytes(), 0));
  response.mutable_downgradeinfo()->set_enabled(!maintenance.downgrade_target.empty());
  response.mutable_downgradeinfo()->set_targetversion(maintenance.downgrade_target);
  std::move(done)(std::move(response));
}

void MaintenanceService::Alarm(const Call& call, Received<AlarmRequest> request,
                               Done<Encoded<AlarmResponse>> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (status.ok()) status = CheckAlarmAction(request.message);
  if (!status.ok()) return std::move(done)(std::move(status));
  if (request.message.action() == AlarmRequest::GET) {
    return ListAlarms(call, request.message.alarm(), std::move(done));
  }
  if (edge_->machine().cluster_version() < kMaintenanceVersion) {
    return std::move(done)(ToStatus(Error::kNotCapable));
  }
  Propose(edge_, call,
          EncodeCommand(kvd::internal::ALARM, std::move(request.bytes), kMaintenanceVersion),
          std::move(done));
}

// In etcd this is a command of the log: an answer says that the cluster can still decide.
void MaintenanceService::ListAlarms(const Call& call, int32_t type,
                                    Done<Encoded<AlarmResponse>> done) {
  edge_->Read(call, Edge::Consistency::kLinearizable,
              [edge = edge_, type, done = std::move(done)](absl::Status read) mutable {
                if (!read.ok()) return std::move(done)(std::move(read));
                AlarmResponse response;
                response.mutable_header()->set_revision(edge->machine().head().revision);
                edge->FillHeader(response.mutable_header());
                for (const RaisedAlarm& alarm : edge->machine().maintenance().alarms) {
                  if (type != etcdserverpb::NONE && type != alarm.type) continue;
                  etcdserverpb::AlarmMember* member = response.add_alarms();
                  member->set_memberid(alarm.member);
                  member->set_alarm(static_cast<etcdserverpb::AlarmType>(alarm.type));
                }
                std::move(done)(Encoded<AlarmResponse>{response.SerializeAsString(), nullptr});
              });
}

template <typename Response, typename Compute>
void MaintenanceService::HashLater(const Call& call, Compute compute, Done<Response> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  auto shared = std::make_shared<Done<Response>>(std::move(done));
  status = edge_->ReadLater([edge = edge_, compute = std::move(compute), shared] {
    absl::StatusOr<Response> response = compute(*edge);
    if (response.ok()) edge->FillHeader(response->mutable_header());
    std::move (*shared)(std::move(response));
  });
  if (!status.ok()) std::move (*shared)(std::move(status));
}

void MaintenanceService::HashKv(const Call& call, HashKVRequest request,
                                Done<HashKVResponse> done) {
  HashLater<HashKVResponse>(
      call,
      [revision = request.revision()](const Edge& edge) { return edge.machine().HashKv(revision); },
      std::move(done));
}

void MaintenanceService::Hash(const Call& call, HashRequest, Done<HashResponse> done) {
  HashLater<HashResponse>(
      call,
      [](const Edge& edge) -> absl::StatusOr<HashResponse> {
        ASSIGN_OR_RETURN(const HashKVResponse keys, edge.machine().HashKv(0));
        HashResponse response;
        response.mutable_header()->set_revision(keys.header().revision());
        response.set_hash(keys.hash());
        return response;
      },
      std::move(done));
}

void MaintenanceService::Defragment(const Call& call, DefragmentRequest,
                                    Done<DefragmentResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  std::move(done)(DefragmentResponse());
}

void MaintenanceService::Snapshot(const Call& call, SnapshotRequest,
                                  Writer<SnapshotResponse>* writer) {
  absl::Status admitted = edge_->Admit(call, Edge::OnLearner::kServed);
  if (!admitted.ok()) return writer->Finish(std::move(admitted));
  backups_.Send(writer);
}

void MaintenanceService::MoveLeader(const Call& call, MoveLeaderRequest request,
                                    Done<MoveLeaderResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (status.ok() && !edge_->replica().leading()) status = ToStatus(Error::kNotLeader);
  const MemberId target = request.targetid();
  if (status.ok() && !edge_->machine().members().IsVoter(target)) {
    status = ToStatus(Error::kBadLeaderTransferee);
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->replica().TransferLeadership(
      target, edge_->TimeFor(call), [done = std::move(done)](ReplicaError error) mutable {
        if (error == ReplicaError::kNone) return std::move(done)(MoveLeaderResponse());
        if (error != ReplicaError::kNotAccepted) return std::move(done)(ToStatus(error));
        std::move(done)(MakeStatus(absl::StatusCode::kUnknown,
                                   "etcdserver: request timed out, leader transfer took too long"));
      });
}

void MaintenanceService::Downgrade(const Call& call, Received<DowngradeRequest> request,
                                   Done<Encoded<DowngradeResponse>> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  const auto action = request.message.action();
  if (status.ok() && !DowngradeRequest::DowngradeAction_IsValid(action)) {
    status = MakeStatus(absl::StatusCode::kUnknown, "etcdserver: unknown method");
  }
  absl::StatusOr<std::string> target{std::string()};
  if (status.ok() && action != DowngradeRequest::CANCEL) {
    target = DowngradeTarget(request.message.version());
    status = target.status();
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  if (action == DowngradeRequest::VALIDATE) {
    return edge_->Read(call, Edge::Consistency::kLinearizable,
                       [edge = edge_, done = std::move(done)](absl::Status read) mutable {
                         if (read.ok() && !edge->machine().maintenance().downgrade_target.empty()) {
                           read = ToStatus(Error::kDowngradeInProcess);
                         }
                         if (!read.ok()) return std::move(done)(std::move(read));
                         std::move(done)(Answer(*edge));
                       });
  }
  if (edge_->machine().cluster_version() < kMaintenanceVersion) {
    return std::move(done)(ToStatus(Error::kNotCapable));
  }
  request.message.set_version(*target);
  Propose<DowngradeResponse>(
      edge_, call,
      EncodeCommand(kvd::internal::DOWNGRADE, request.message.SerializeAsString(),
                    kMaintenanceVersion),
      [edge = edge_,
       done = std::move(done)](absl::StatusOr<Encoded<DowngradeResponse>> response) mutable {
        if (!response.ok()) return std::move(done)(std::move(response));
        std::move(done)(Answer(*edge));
      });
}

}  // namespace kv::api

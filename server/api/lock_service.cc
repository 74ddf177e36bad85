#include "server/api/lock_service.h"

#include <utility>

#include "server/api/answers.h"

namespace kv::api {

using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using v3lockpb::LockRequest;
using v3lockpb::LockResponse;
using v3lockpb::UnlockRequest;
using v3lockpb::UnlockResponse;

void LockService::Lock(const Call& call, LockRequest request, Writer<LockResponse>* writer) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  turns_->Take(
      call,
      {.kind = TurnRequest::Kind::kLock,
       .name = std::move(*request.mutable_name()),
       .lease = request.lease(),
       .value = {}},
      [writer](auto gone) { writer->OnGone(std::move(gone)); },
      [writer](absl::StatusOr<Turn> turn) {
        if (!turn.ok()) return writer->Finish(turn.status());
        LockResponse response;
        *response.mutable_header() = std::move(turn->header);
        response.set_key(std::move(turn->key));
        WriteLast(writer, std::move(response));
      });
}

void LockService::Unlock(const Call& call, const UnlockRequest& request,
                         Done<UnlockResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  DeleteRangeRequest deletion;
  deletion.set_key(request.key());
  inner_->Delete(call, std::move(deletion),
                 [done = std::move(done)](absl::StatusOr<DeleteRangeResponse> response) mutable {
                   if (!response.ok()) return std::move(done)(response.status());
                   UnlockResponse unlocked;
                   *unlocked.mutable_header() = std::move(*response->mutable_header());
                   std::move(done)(std::move(unlocked));
                 });
}

}  // namespace kv::api

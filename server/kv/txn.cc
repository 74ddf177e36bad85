#include "server/kv/txn.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "storage/check.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

using Ops = google::protobuf::RepeatedPtrField<RequestOp>;

int Sign(int64_t a, int64_t b) { return a < b ? -1 : (a > b ? 1 : 0); }

// A target that the request does not carry counts as zero; a result that nobody knows holds.
bool Holds(const Compare& compare, const RecordView& record) {
  int order = 0;
  switch (compare.target()) {
    case Compare::VERSION:
      order = Sign(record.version, compare.version());
      break;
    case Compare::CREATE:
      order = Sign(record.create, compare.create_revision());
      break;
    case Compare::MOD:
      order = Sign(record.mod, compare.mod_revision());
      break;
    case Compare::VALUE:
      order = record.value.compare(compare.value());
      break;
    case Compare::LEASE:
      order = Sign(record.lease, compare.lease());
      break;
    default:
      break;
  }
  switch (compare.result()) {
    case Compare::EQUAL:
      return order == 0;
    case Compare::NOT_EQUAL:
      return order != 0;
    case Compare::GREATER:
      return order > 0;
    case Compare::LESS:
      return order < 0;
    default:
      return true;
  }
}

bool HoldsForNoKey(const Compare& compare) {
  return compare.target() != Compare::VALUE && Holds(compare, RecordView{});
}

absl::StatusOr<bool> Holds(const Reading& reading, const Compare& compare) {
  if (compare.range_end().empty()) {
    ASSIGN_OR_RETURN(const KeyRecordPtr record, reading.Get(compare.key()));
    if (record == nullptr) return HoldsForNoKey(compare);
    return Holds(compare, RecordView{.create = record->create,
                                     .mod = record->mod,
                                     .version = record->version,
                                     .lease = record->lease,
                                     .tombstone = false,
                                     .value = record->value});
  }
  Walk walk = reading.NewWalk(KeyRange::FromRequest(compare.key(), compare.range_end()),
                              Direction::kAscending);
  bool any = false;
  while (walk.Next()) {
    any = true;
    if (!Holds(compare, walk.record())) return false;
  }
  RETURN_IF_ERROR(walk.status());
  return any || HoldsForNoKey(compare);
}

// Which branch each transaction takes: of the outer one first, then of those in that branch, in
// order and depth first.
using Path = std::vector<bool>;

absl::Status Choose(const Reading& reading, const TxnRequest& request, Path& path) {
  bool succeeded = true;
  for (const Compare& compare : request.compare()) {
    ASSIGN_OR_RETURN(succeeded, Holds(reading, compare));
    if (!succeeded) break;
  }
  path.push_back(succeeded);
  for (const RequestOp& op : succeeded ? request.success() : request.failure()) {
    if (op.has_request_txn()) RETURN_IF_ERROR(Choose(reading, op.request_txn(), path));
  }
  return absl::OkStatus();
}

// Walks a path beside its transaction.
class PathReader {
 public:
  explicit PathReader(const Path& path) : path_(path) {}
  bool Next() {
    KV_CHECK(at_ < path_.size(), "a transaction is deeper than its path");
    return path_[at_++];
  }

 private:
  const Path& path_;
  size_t at_ = 0;
};

struct Bounds {
  Revision revision = 0;
  Revision compacted = 0;
};

absl::Status CheckRead(const RangeRequest& request, const Bounds& bounds) {
  if (request.revision() <= 0) return absl::OkStatus();
  if (request.revision() > bounds.revision) return FutureRevisionError();
  if (request.revision() < bounds.compacted) return CompactedError();
  return absl::OkStatus();
}

absl::Status CheckPut(const Reading& reading, std::string_view key, int64_t lease, bool needs_old) {
  if (lease != 0 && !reading.HasLease(lease)) return LeaseNotFoundError();
  if (!needs_old) return absl::OkStatus();
  ASSIGN_OR_RETURN(const KeyRecordPtr record, reading.Get(key));
  return record == nullptr ? KeyNotFoundError() : absl::OkStatus();
}

// In the order of the operations: the first fault is the answer.
absl::Status Check(const Reading& reading, const Bounds& bounds, const TxnRequest& request,
                   PathReader& path) {
  for (const RequestOp& op : path.Next() ? request.success() : request.failure()) {
    switch (op.request_case()) {
      case RequestOp::kRequestRange:
        RETURN_IF_ERROR(CheckRead(op.request_range(), bounds));
        break;
      case RequestOp::kRequestPut: {
        const auto& put = op.request_put();
        RETURN_IF_ERROR(
            CheckPut(reading, put.key(), put.lease(), put.ignore_value() || put.ignore_lease()));
        break;
      }
      case RequestOp::kRequestTxn:
        RETURN_IF_ERROR(Check(reading, bounds, op.request_txn(), path));
        break;
      case RequestOp::kRequestDeleteRange:
        break;
      case RequestOp::REQUEST_NOT_SET:
        return KeyNotFoundError();
    }
  }
  return absl::OkStatus();
}

// What is left of a reply's bytes; once they are used up the rest is done without filling it.
struct Room {
  bool wanted = true;
  uint64_t bytes = 0;
  absl::Status refusal;

  bool TakeKeyValue(std::string_view key, const KeyRecord& record) {
    return Take(key.size() + record.value.size() + kKeyValueFrameBytes);
  }
  bool Take(uint64_t more) {
    if (!wanted || !refusal.ok()) return false;
    if (more > bytes) {
      refusal = TooLargeError(kResponseBytesMax, Effect::kApplied);
      return false;
    }
    bytes -= more;
    return true;
  }
};

void Put(Batch& batch, const PutView& put, Room& room, PutResponse& response) {
  KeyRecordPtr old;
  if (put.prev_kv || put.ignore_value || put.ignore_lease) old = batch.Get(put.key);
  const bool keeps_value = put.ignore_value && old != nullptr;
  const int64_t lease = put.ignore_lease && old != nullptr ? old->lease : put.lease;
  batch.Put(put.key, keeps_value ? old->value : std::string(put.value), lease);
  if (!room.wanted) return;
  response.mutable_header()->set_revision(batch.reading());
  if (put.prev_kv && old != nullptr && room.TakeKeyValue(put.key, *old)) {
    FillKeyValue(put.key, *old, *response.mutable_prev_kv());
  }
}

void DeleteRange(Batch& batch, const DeleteRangeRequest& request, Room& room,
                 DeleteRangeResponse& response) {
  const std::vector<Batch::Deleted> deleted =
      batch.DeleteRange(KeyRange::FromRequest(request.key(), request.range_end()));
  if (!room.wanted) return;
  response.set_deleted(static_cast<int64_t>(deleted.size()));
  response.mutable_header()->set_revision(batch.reading());
  if (!request.prev_kv()) return;
  for (const Batch::Deleted& each : deleted) {
    if (!room.TakeKeyValue(each.key, *each.record)) return;
    FillKeyValue(each.key, *each.record, *response.add_prev_kvs());
  }
}

void Range(Batch& batch, const RangeRequest& request, Room& room,
           etcdserverpb::RangeResponse& response) {
  // A read changes nothing, so nobody's absence is noticed.
  if (!room.wanted || !room.refusal.ok()) return;
  const Reading reading(batch, std::max(request.revision(), Revision{0}));
  response.mutable_header()->set_revision(batch.reading());
  const absl::Status status = AnswerRange(reading, request, room.bytes, Effect::kApplied, response);
  if (!status.ok()) {
    KV_CHECK(status.code() == absl::StatusCode::kResourceExhausted, Describe(status));
    room.refusal = status;
    return;
  }
  room.Take(std::min<uint64_t>(room.bytes, response.ByteSizeLong()));
}

PutView ViewOf(const etcdserverpb::PutRequest& put) {
  return {.key = put.key(),
          .value = put.value(),
          .lease = put.lease(),
          .prev_kv = put.prev_kv(),
          .ignore_value = put.ignore_value(),
          .ignore_lease = put.ignore_lease()};
}

void Execute(Batch& batch, const TxnRequest& request, PathReader& path, Room& room,
             TxnResponse& response) {
  const bool succeeded = path.Next();
  if (!succeeded) MARK("kv.txn_takes_other_branch");
  response.set_succeeded(succeeded);
  response.mutable_header();
  for (const RequestOp& op : succeeded ? request.success() : request.failure()) {
    etcdserverpb::ResponseOp& answer = *response.add_responses();
    switch (op.request_case()) {
      case RequestOp::kRequestRange:
        Range(batch, op.request_range(), room, *answer.mutable_response_range());
        break;
      case RequestOp::kRequestPut:
        Put(batch, ViewOf(op.request_put()), room, *answer.mutable_response_put());
        if (MUTANT("kv.txn_in_pieces")) batch.Finish();
        break;
      case RequestOp::kRequestDeleteRange:
        DeleteRange(batch, op.request_delete_range(), room,
                    *answer.mutable_response_delete_range());
        break;
      case RequestOp::kRequestTxn:
        Execute(batch, op.request_txn(), path, room, *answer.mutable_response_txn());
        break;
      case RequestOp::REQUEST_NOT_SET:
        break;
    }
  }
}

template <typename Response>
Reply Replied(const Room& room, const Response& response) {
  if (!room.wanted) return {};
  if (!room.refusal.ok()) return {.status = room.refusal, .body = {}};
  return {.status = absl::OkStatus(), .body = response.SerializeAsString()};
}

Reply Refused(absl::Status status) { return {.status = std::move(status), .body = {}}; }

}  // namespace

Reply DoPut(Batch& batch, const PutView& put, bool wants_reply) {
  const Reading reading(batch, 0);
  if (absl::Status status =
          CheckPut(reading, put.key, put.lease, put.ignore_value || put.ignore_lease);
      !status.ok()) {
    return Refused(std::move(status));
  }
  Room room{.wanted = wants_reply, .bytes = kResponseBytesMax, .refusal = {}};
  PutResponse response;
  Put(batch, put, room, response);
  return Replied(room, response);
}

Reply DoDeleteRange(Batch& batch, const DeleteRangeRequest& request, bool wants_reply) {
  Room room{.wanted = wants_reply, .bytes = kResponseBytesMax, .refusal = {}};
  DeleteRangeResponse response;
  DeleteRange(batch, request, room, response);
  return Replied(room, response);
}

Reply DoTxn(Batch& batch, const TxnRequest& request, bool wants_reply) {
  const Reading reading(batch, 0);
  Path path;
  absl::Status status = Choose(reading, request, path);
  KV_CHECK(status.ok(), Describe(status));
  PathReader checked(path);
  status = Check(reading, {.revision = batch.revision(), .compacted = batch.compacted()}, request,
                 checked);
  if (!status.ok()) {
    MARK("kv.txn_refused_whole");
    return Refused(std::move(status));
  }

  Room room{.wanted = wants_reply, .bytes = kResponseBytesMax, .refusal = {}};
  TxnResponse response;
  PathReader taken(path);
  Execute(batch, request, taken, room, response);
  response.mutable_header()->set_revision(batch.reading());
  return Replied(room, response);
}

absl::Status AnswerTxn(const View& view, const TxnRequest& request, uint64_t bytes_max,
                       TxnResponse& response) {
  const Reading now(view);
  Path path;
  RETURN_IF_ERROR(Choose(now, request, path));
  PathReader checked(path);
  RETURN_IF_ERROR(Check(now, {.revision = view.revision(), .compacted = view.head().compacted},
                        request, checked));
  response.set_succeeded(path.front());
  response.mutable_header()->set_revision(view.revision());
  for (const RequestOp& op : path.front() ? request.success() : request.failure()) {
    if (!op.has_request_range()) {
      return MakeStatus(absl::StatusCode::kInternal,
                        "a transaction that writes was not sent through the log");
    }
    etcdserverpb::RangeResponse& answer = *response.add_responses()->mutable_response_range();
    answer.mutable_header()->set_revision(view.revision());
    const Revision at = op.request_range().revision();
    const View then = at > 0 ? view.Before(at) : view;
    RETURN_IF_ERROR(
        AnswerRange(Reading(then), op.request_range(), bytes_max, Effect::kNone, answer));
    bytes_max -= std::min<uint64_t>(bytes_max, answer.ByteSizeLong());
  }
  return absl::OkStatus();
}

}  // namespace kv

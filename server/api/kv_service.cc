#include "server/api/kv_service.h"

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "server/api/answers.h"
#include "server/api/errors.h"
#include "server/api/page_stream.h"
#include "server/api/validate.h"
#include "server/kv/kv_machine.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::CompactionRequest;
using etcdserverpb::CompactionResponse;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::PutRequest;
using etcdserverpb::PutResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::RangeStreamResponse;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using Consistency = Edge::Consistency;
using OnLearner = Edge::OnLearner;

// A transaction of so few single keys is read by the thread that is there.
constexpr int kQuickOpsMax = 8;

bool IsQuick(const TxnRequest& txn) {
  auto one_key = [](const RequestOp& op) { return ReadsOneCurrentKey(op.request_range()); };
  return txn.compare_size() + txn.success_size() + txn.failure_size() <= kQuickOpsMax &&
         std::all_of(txn.compare().begin(), txn.compare().end(),
                     [](const auto& compare) { return compare.range_end().empty(); }) &&
         std::all_of(txn.success().begin(), txn.success().end(), one_key) &&
         std::all_of(txn.failure().begin(), txn.failure().end(), one_key);
}

RangeStreamResponse ToStreamed(const Edge& edge, RangeResponse page, Revision, bool last) {
  if (last) edge.FillHeader(page.mutable_header());
  RangeStreamResponse response;
  *response.mutable_range_response() = std::move(page);
  return response;
}

// Answers a request from the machine, once what it must see is applied: `read` is called at once
// when it is quick, by a reading thread otherwise.
template <typename Response, typename Read>
void Answer(Edge* edge, const Call& call, Consistency consistency, bool quick, Read read,
            Done<Encoded<Response>> done) {
  edge->Read(
      call, consistency,
      [edge, quick, read = std::move(read), done = std::move(done)](absl::Status status) mutable {
        if (status.ok() && !quick) status = edge->CheckAnswerRoom();
        if (!status.ok()) {
          std::move(done)(std::move(status));
          return;
        }
        if (quick) {
          std::move(done)(EncodeAnswer<Response>(*edge, read()));
          return;
        }
        // Shared, because a refused task would be dropped with what it holds.
        auto shared = std::make_shared<Done<Encoded<Response>>>(std::move(done));
        status = edge->ReadLater([edge, read = std::move(read), shared] {
          std::move (*shared)(EncodeAnswer<Response>(*edge, read()));
        });
        if (!status.ok()) std::move (*shared)(std::move(status));
      });
}

// Waits until a compaction has deleted what it may. That can take long, so a stop of the server
// ends the wait. Whoever comes first answers.
class CompactionWait : public std::enable_shared_from_this<CompactionWait> {
 public:
  static void Begin(Edge* edge, int64_t revision, Encoded<CompactionResponse> response,
                    Done<Encoded<CompactionResponse>> done) {
    auto wait = std::make_shared<CompactionWait>(edge, std::move(response), std::move(done));
    edge->machine().AwaitCompacted(
        revision, [wait](absl::Status status) { wait->Answer(std::move(status)); });
    wait->LookForStop();
  }

  CompactionWait(Edge* edge, Encoded<CompactionResponse> response,
                 Done<Encoded<CompactionResponse>> done)
      : edge_(edge), response_(std::move(response)), done_(std::move(done)) {}

 private:
  void LookForStop() {
    if (answered_.load()) return;
    if (edge_->stopping()) return Answer(ToStatus(Error::kStopped));
    edge_->After(absl::Milliseconds(100), [self = shared_from_this()] { self->LookForStop(); });
  }

  void Answer(absl::Status status) {
    if (answered_.exchange(true)) return;
    if (!status.ok()) return std::move(done_)(std::move(status));
    std::move(done_)(std::move(response_));
  }

  Edge* const edge_;
  std::atomic<bool> answered_ = false;
  Encoded<CompactionResponse> response_;
  Done<Encoded<CompactionResponse>> done_;
};

}  // namespace

void KvService::Range(const Call& call, RangeRequest request, Done<Encoded<RangeResponse>> done) {
  absl::Status status =
      edge_->Admit(call, request.serializable() ? OnLearner::kServed : OnLearner::kRefused);
  if (status.ok()) status = CheckRange(request);
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->metrics().CountRange();
  const Consistency consistency = Edge::ConsistencyOf(request.serializable());
  const bool quick = ReadsOneCurrentKey(request);
  Answer<RangeResponse>(
      edge_, call, consistency, quick,
      [edge = edge_, request = std::move(request)] {
        return edge->machine().Range(request, edge->options().range_bytes_max);
      },
      std::move(done));
}

void KvService::Put(const Call& call, Received<PutRequest> request,
                    Done<Encoded<PutResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (status.ok() && !edge_->HasRoom(QuotaCost(request.message))) {
    return edge_->RaiseNoSpace(call, [done = std::move(done)](absl::Status refused) mutable {
      std::move(done)(std::move(refused));
    });
  }
  if (status.ok()) status = CheckPut(request.message);
  if (status.ok()) {
    status = CheckEntryBytes(request.bytes.size(), edge_->options().request_bytes_max);
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->metrics().CountPut(request.message.key().size() + request.message.value().size());
  Propose(edge_, call, EncodeCommand(kvd::internal::PUT, std::move(request.bytes)),
          std::move(done));
}

void KvService::DeleteRange(const Call& call, Received<DeleteRangeRequest> request,
                            Done<Encoded<DeleteRangeResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (status.ok()) status = CheckDeleteRange(request.message);
  if (status.ok()) {
    status = CheckEntryBytes(request.bytes.size(), edge_->options().request_bytes_max);
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->metrics().CountDelete();
  Propose(edge_, call, EncodeCommand(kvd::internal::DELETE_RANGE, std::move(request.bytes)),
          std::move(done));
}

void KvService::Txn(const Call& call, Received<TxnRequest> request,
                    Done<Encoded<TxnResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (status.ok() && !edge_->HasRoom(QuotaCost(request.message))) {
    return edge_->RaiseNoSpace(call, [done = std::move(done)](absl::Status refused) mutable {
      std::move(done)(std::move(refused));
    });
  }
  if (status.ok()) status = CheckTxn(request.message, edge_->options().txn_ops_max);
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->metrics().CountTxn();
  CountOps(request.message);
  if (OnlyReads(request.message)) {
    return ReadTxn(call, std::move(request.message), std::move(done));
  }
  status = CheckEntryBytes(request.bytes.size(), edge_->options().request_bytes_max);
  if (!status.ok()) return std::move(done)(std::move(status));
  Propose(edge_, call, EncodeCommand(kvd::internal::TXN, std::move(request.bytes)),
          std::move(done));
}

void KvService::ReadTxn(const Call& call, TxnRequest request, Done<Encoded<TxnResponse>> done) {
  const Consistency consistency = Edge::ConsistencyOf(OnlySerializable(request));
  const bool quick = IsQuick(request);
  Answer<TxnResponse>(
      edge_, call, consistency, quick,
      [edge = edge_, request = std::move(request)] {
        return edge->machine().ReadTxn(request, edge->options().range_bytes_max);
      },
      std::move(done));
}

void KvService::Compact(const Call& call, Received<CompactionRequest> request,
                        Done<Encoded<CompactionResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  if (request.message.physical()) {
    done = [edge = edge_, revision = request.message.revision(),
            done = std::move(done)](absl::StatusOr<Encoded<CompactionResponse>> response) mutable {
      if (!response.ok()) return std::move(done)(std::move(response));
      CompactionWait::Begin(edge, revision, *std::move(response), std::move(done));
    };
  }
  Propose(edge_, call, EncodeCommand(kvd::internal::COMPACT, std::move(request.bytes)),
          std::move(done));
}

void KvService::RangeStream(const Call& call, RangeRequest request,
                            Writer<RangeStreamResponse>* writer) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (status.ok()) status = CheckRangeStream(request);
  if (!status.ok()) return writer->Finish(std::move(status));
  edge_->metrics().CountRange();
  PageStream<RangeStreamResponse>::Begin(edge_, call, std::move(request), ToStreamed, writer);
}

void KvService::CountOps(const TxnRequest& request) const {
  for (const auto* ops : {&request.success(), &request.failure()}) {
    for (const RequestOp& op : *ops) {
      if (op.has_request_range()) edge_->metrics().CountRange();
      if (op.has_request_delete_range()) edge_->metrics().CountDelete();
      if (op.has_request_put()) {
        edge_->metrics().CountPut(op.request_put().key().size() + op.request_put().value().size());
      }
      if (op.has_request_txn()) CountOps(op.request_txn());
    }
  }
}

}  // namespace kv::api

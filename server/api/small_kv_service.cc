#include "server/api/small_kv_service.h"

#include <string>
#include <string_view>
#include <utility>

#include "server/api/answers.h"
#include "server/api/page_stream.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using kvd::v1::DeleteRequest;
using kvd::v1::DeleteResponse;
using kvd::v1::GetRequest;
using kvd::v1::GetResponse;
using kvd::v1::PutRequest;
using kvd::v1::PutResponse;
using kvd::v1::ScanRequest;
using kvd::v1::ScanResponse;

constexpr std::string_view kEnd("\0", 1);  // Every key, as etcd spells it.

TxnRequest If(const std::string& key, int64_t mod_revision) {
  TxnRequest txn;
  Compare& compare = *txn.add_compare();
  compare.set_target(Compare::MOD);
  compare.set_result(Compare::EQUAL);
  compare.set_key(key);
  compare.set_mod_revision(mod_revision);
  return txn;
}

// The condition of a write did not hold; nothing was changed.
absl::Status Changed(int64_t wanted, int64_t store_revision) {
  if (wanted == 0) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "the key exists already at revision {}; get it, and name its mod_revision",
                      store_revision);
  }
  return MakeStatus(absl::StatusCode::kFailedPrecondition,
                    "the key's mod_revision at revision {} is not {}; get it, and try again",
                    store_revision, wanted);
}

void FillPair(mvccpb::KeyValue* kv, kvd::v1::Pair* pair) {
  pair->set_key(std::move(*kv->mutable_key()));
  pair->set_value(std::move(*kv->mutable_value()));
  pair->set_create_revision(kv->create_revision());
  pair->set_mod_revision(kv->mod_revision());
  pair->set_version(kv->version());
}

std::string EndOfPrefix(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return std::string(kEnd);
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

absl::StatusOr<RangeRequest> ToRange(const ScanRequest& scan) {
  RangeRequest range;
  switch (scan.range_case()) {
    case ScanRequest::kPrefix:
      range.set_key(scan.prefix());
      range.set_range_end(EndOfPrefix(scan.prefix()));
      break;
    case ScanRequest::kSpan:
      range.set_key(scan.span().first());
      range.set_range_end(scan.span().end());
      break;
    case ScanRequest::RANGE_NOT_SET:
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "a scan names a prefix or a span; the empty prefix means every key");
  }
  if (range.key().empty()) range.set_key(std::string(kEnd));
  if (range.range_end().empty()) range.set_range_end(std::string(kEnd));
  if (scan.limit() < 0 || scan.revision() < 0) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "limit and revision of a scan are 0 (none, the newest) or more");
  }
  range.set_limit(scan.limit());
  range.set_revision(scan.revision());
  range.set_keys_only(scan.keys_only());
  range.set_serializable(scan.allow_stale());
  return range;
}

ScanResponse ToScanned(const Edge&, RangeResponse page, Revision revision, bool) {
  ScanResponse response;
  response.set_revision(revision);
  for (mvccpb::KeyValue& kv : *page.mutable_kvs()) FillPair(&kv, response.add_pairs());
  return response;
}

}  // namespace

void SmallKvService::Put(const Call& call, PutRequest request, Done<PutResponse> done) {
  etcdserverpb::PutRequest put;
  put.set_key(request.key());
  put.set_value(std::move(*request.mutable_value()));
  const auto answer = [](int64_t revision) {
    PutResponse response;
    response.set_revision(revision);
    return response;
  };
  if (!request.has_if_mod_revision()) {
    return kv_->Put(call, Receive(std::move(put)),
                    Converted<etcdserverpb::PutResponse>(
                        std::move(done), [answer](const etcdserverpb::PutResponse& response) {
                          return answer(response.header().revision());
                        }));
  }
  const int64_t wanted = request.if_mod_revision();
  TxnRequest txn = If(request.key(), wanted);
  *txn.add_success()->mutable_request_put() = std::move(put);
  kv_->Txn(call, Receive(std::move(txn)),
           Converted<TxnResponse>(
               std::move(done),
               [answer, wanted](const TxnResponse& response) -> absl::StatusOr<PutResponse> {
                 const int64_t revision = response.header().revision();
                 if (!response.succeeded()) return Changed(wanted, revision);
                 return answer(revision);
               }));
}

void SmallKvService::Get(const Call& call, GetRequest request, Done<GetResponse> done) {
  if (request.revision() < 0) {
    return std::move(done)(MakeStatus(absl::StatusCode::kInvalidArgument,
                                      "the revision of a get is 0 (the newest) or more"));
  }
  RangeRequest range;
  range.set_key(request.key());
  range.set_revision(request.revision());
  range.set_serializable(request.allow_stale());
  kv_->Range(call, std::move(range),
             Converted<RangeResponse>(
                 std::move(done), [](RangeResponse response) -> absl::StatusOr<GetResponse> {
                   if (response.kvs().empty()) {
                     return MakeStatus(absl::StatusCode::kNotFound, "no such key at revision {}",
                                       response.header().revision());
                   }
                   GetResponse got;
                   got.set_revision(response.header().revision());
                   FillPair(response.mutable_kvs(0), got.mutable_pair());
                   return got;
                 }));
}

void SmallKvService::Delete(const Call& call, DeleteRequest request, Done<DeleteResponse> done) {
  DeleteRangeRequest one;
  one.set_key(request.key());
  const auto answer = [](bool deleted, int64_t revision) {
    DeleteResponse response;
    response.set_deleted(deleted);
    response.set_revision(revision);
    return response;
  };
  if (!request.has_if_mod_revision()) {
    return kv_->DeleteRange(call, Receive(std::move(one)),
                            Converted<DeleteRangeResponse>(
                                std::move(done), [answer](const DeleteRangeResponse& response) {
                                  return answer(response.deleted() > 0,
                                                response.header().revision());
                                }));
  }
  const int64_t wanted = request.if_mod_revision();
  TxnRequest txn = If(request.key(), wanted);
  *txn.add_success()->mutable_request_delete_range() = std::move(one);
  kv_->Txn(call, Receive(std::move(txn)),
           Converted<TxnResponse>(
               std::move(done),
               [answer, wanted](const TxnResponse& response) -> absl::StatusOr<DeleteResponse> {
                 const int64_t revision = response.header().revision();
                 if (!response.succeeded()) return Changed(wanted, revision);
                 return answer(response.responses(0).response_delete_range().deleted() > 0,
                               revision);
               }));
}

void SmallKvService::Scan(const Call& call, ScanRequest request, Writer<ScanResponse>* writer) {
  absl::Status status = edge_->Admit(
      call, request.allow_stale() ? Edge::OnLearner::kServed : Edge::OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  absl::StatusOr<RangeRequest> range = ToRange(request);
  if (!range.ok()) return writer->Finish(range.status());
  edge_->metrics().CountRange();
  PageStream<ScanResponse>::Begin(edge_, call, *std::move(range), ToScanned, writer);
}

}  // namespace kv::api

#include "server/api/inner_calls.h"

#include <utility>

#include "server/api/answers.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::DeleteRangeResponse;
using etcdserverpb::LeaseGrantRequest;
using etcdserverpb::LeaseGrantResponse;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

constexpr int64_t kOwnLeaseTtl = 60;  // Seconds.

template <typename Response>
Done<Encoded<Response>> Decoded(Done<Response> done) {
  Done<Response> inner = [done = std::move(done)](absl::StatusOr<Response> response) mutable {
    if (!response.ok()) return std::move(done)(Inner(response.status()));
    std::move(done)(std::move(response));
  };
  return Converted<Response>(std::move(inner), [](Response response) { return response; });
}

RangeRequest OneUnder(const std::string& prefix, RangeRequest::SortOrder order) {
  RangeRequest request;
  request.set_key(prefix);
  request.set_range_end(EndOf(prefix));
  request.set_sort_target(RangeRequest::CREATE);
  request.set_sort_order(order);
  request.set_limit(1);
  return request;
}

}  // namespace

void InnerCalls::Range(const Call& call, RangeRequest request, Done<RangeResponse> done) {
  kv_->Range(call, std::move(request), Decoded(std::move(done)));
}

void InnerCalls::Txn(const Call& call, TxnRequest request, Done<TxnResponse> done) {
  kv_->Txn(call, Receive(std::move(request)), Decoded(std::move(done)));
}

void InnerCalls::Delete(const Call& call, DeleteRangeRequest request,
                        Done<DeleteRangeResponse> done) {
  kv_->DeleteRange(call, Receive(std::move(request)), Decoded(std::move(done)));
}

void InnerCalls::WithLease(const Call& call, int64_t lease, Done<int64_t> done) {
  if (lease != 0) return std::move(done)(lease);
  LeaseGrantRequest request;
  request.set_ttl(kOwnLeaseTtl);
  Done<LeaseGrantResponse> granted =
      [done = std::move(done)](absl::StatusOr<LeaseGrantResponse> response) mutable {
        if (!response.ok()) return std::move(done)(response.status());
        std::move(done)(response->id());
      };
  lease_->Grant(call, request, Decoded(std::move(granted)));
}

absl::Status Inner(const absl::Status& status) { return Inner(Message(status)); }
absl::Status Inner(std::string_view text) {
  return absl::Status(absl::StatusCode::kUnknown, std::string(text));
}

std::string PrefixOf(const std::string& name) { return name + '/'; }

std::string EndOf(std::string prefix) {
  prefix.back() = '/' + 1;
  return prefix;
}

RangeRequest OldestUnder(const std::string& prefix) {
  return OneUnder(prefix, RangeRequest::ASCEND);
}

RangeRequest NewestBefore(const std::string& prefix, Revision revision) {
  RangeRequest request = OneUnder(prefix, RangeRequest::DESCEND);
  request.set_max_create_revision(revision - 1);
  return request;
}

TxnRequest IfCreatedAt(const std::string& key, Revision revision) {
  TxnRequest txn;
  Compare& compare = *txn.add_compare();
  compare.set_target(Compare::CREATE);
  compare.set_result(Compare::EQUAL);
  compare.set_key(key);
  compare.set_create_revision(revision);
  return txn;
}

}  // namespace kv::api

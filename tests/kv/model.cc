#include "tests/kv/model.h"

#include <algorithm>
#include <utility>

#include "storage/status.h"

namespace kv {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;

absl::Status KeyNotFound() {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "etcdserver: key not found");
}

bool InRange(const std::string& key, const std::string& first, const std::string& end) {
  if (end.empty()) return key == first;
  if (end == std::string(1, '\0')) return key >= first;
  return key >= first && key < end;
}

int Order(int64_t a, int64_t b) { return a < b ? -1 : (a > b ? 1 : 0); }

bool Holds(const Compare& compare, const mvccpb::KeyValue& kv) {
  int order = 0;
  if (compare.target() == Compare::VERSION) order = Order(kv.version(), compare.version());
  if (compare.target() == Compare::CREATE) {
    order = Order(kv.create_revision(), compare.create_revision());
  }
  if (compare.target() == Compare::MOD) order = Order(kv.mod_revision(), compare.mod_revision());
  if (compare.target() == Compare::VALUE) order = kv.value().compare(compare.value());
  if (compare.target() == Compare::LEASE) order = Order(kv.lease(), compare.lease());
  if (compare.result() == Compare::EQUAL) return order == 0;
  if (compare.result() == Compare::NOT_EQUAL) return order != 0;
  if (compare.result() == Compare::GREATER) return order > 0;
  return order < 0;
}

}  // namespace

void Model::End(Command command) {
  if (command.changed) states_.push_back(std::move(command.state));
}

absl::Status Model::CheckRevision(int64_t wanted) const {
  if (wanted > revision()) {
    return MakeStatus(absl::StatusCode::kOutOfRange,
                      "etcdserver: mvcc: required revision is a future revision");
  }
  if (wanted > 0 && wanted < compacted_) {
    return MakeStatus(absl::StatusCode::kOutOfRange,
                      "etcdserver: mvcc: required revision has been compacted");
  }
  return absl::OkStatus();
}

absl::Status Model::CheckPut(const etcdserverpb::PutRequest& request) const {
  if (request.lease() != 0 && !leases_.contains(request.lease())) {
    return MakeStatus(absl::StatusCode::kNotFound, "etcdserver: requested lease not found");
  }
  const bool there = states_.back().count(request.key()) != 0;
  if ((request.ignore_value() || request.ignore_lease()) && !there) return KeyNotFound();
  return absl::OkStatus();
}

absl::Status Model::CheckTxn(const etcdserverpb::TxnRequest& request) const {
  for (const RequestOp& op : Succeeds(request) ? request.success() : request.failure()) {
    if (op.has_request_put()) RETURN_IF_ERROR(CheckPut(op.request_put()));
    if (op.has_request_range()) RETURN_IF_ERROR(CheckRevision(op.request_range().revision()));
    if (op.has_request_txn()) RETURN_IF_ERROR(CheckTxn(op.request_txn()));
  }
  return absl::OkStatus();
}

absl::StatusOr<etcdserverpb::LeaseGrantResponse> Model::Grant(
    const etcdserverpb::LeaseGrantRequest& request) {
  if (!leases_.insert(request.id()).second) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition, "etcdserver: lease already exists");
  }
  etcdserverpb::LeaseGrantResponse response;
  response.mutable_header()->set_revision(revision());
  response.set_id(request.id());
  response.set_ttl(request.ttl());
  return response;
}

absl::StatusOr<etcdserverpb::LeaseRevokeResponse> Model::Revoke(
    const etcdserverpb::LeaseRevokeRequest& request) {
  if (leases_.erase(request.id()) == 0) {
    return MakeStatus(absl::StatusCode::kNotFound, "etcdserver: requested lease not found");
  }
  Command command = Begin();
  command.changed = std::erase_if(command.state, [&request](const auto& each) {
                      return each.second.lease() == request.id();
                    }) > 0;
  End(std::move(command));
  etcdserverpb::LeaseRevokeResponse response;
  response.mutable_header()->set_revision(revision());
  return response;
}

std::map<int64_t, std::vector<std::string>> Model::Leases() const {
  std::map<int64_t, std::vector<std::string>> leases;
  for (const int64_t id : leases_) leases[id];
  for (const auto& [key, kv] : states_.back()) {
    if (kv.lease() != 0) leases[kv.lease()].push_back(key);
  }
  return leases;
}

bool Model::Succeeds(const etcdserverpb::TxnRequest& request) const {
  for (const Compare& compare : request.compare()) {
    bool any = false;
    for (const auto& [key, kv] : states_.back()) {
      if (!InRange(key, compare.key(), compare.range_end())) continue;
      any = true;
      if (!Holds(compare, kv)) return false;
    }
    if (!any && (compare.target() == Compare::VALUE || !Holds(compare, {}))) return false;
  }
  return true;
}

void Model::DoPut(Command& command, const etcdserverpb::PutRequest& request,
                  etcdserverpb::PutResponse& response) const {
  const auto old = command.state.find(request.key());
  const bool there = old != command.state.end();
  if (there && request.prev_kv()) *response.mutable_prev_kv() = old->second;
  mvccpb::KeyValue kv;
  kv.set_key(request.key());
  kv.set_mod_revision(revision() + 1);
  kv.set_create_revision(there ? old->second.create_revision() : revision() + 1);
  kv.set_version(there ? old->second.version() + 1 : 1);
  kv.set_value(request.ignore_value() ? old->second.value() : request.value());
  kv.set_lease(request.ignore_lease() ? old->second.lease() : request.lease());
  command.state[request.key()] = kv;
  command.changed = true;
  response.mutable_header()->set_revision(Reading(command));
}

void Model::DoDelete(Command& command, const etcdserverpb::DeleteRangeRequest& request,
                     etcdserverpb::DeleteRangeResponse& response) const {
  for (auto at = command.state.begin(); at != command.state.end();) {
    if (!InRange(at->first, request.key(), request.range_end())) {
      ++at;
      continue;
    }
    response.set_deleted(response.deleted() + 1);
    if (request.prev_kv()) *response.add_prev_kvs() = at->second;
    at = command.state.erase(at);
    command.changed = true;
  }
  response.mutable_header()->set_revision(Reading(command));
}

void Model::DoTxn(Command& command, const etcdserverpb::TxnRequest& request,
                  etcdserverpb::TxnResponse& response) const {
  const bool succeeded = Succeeds(request);
  response.set_succeeded(succeeded);
  response.mutable_header();
  for (const RequestOp& op : succeeded ? request.success() : request.failure()) {
    etcdserverpb::ResponseOp& answer = *response.add_responses();
    if (op.has_request_put()) DoPut(command, op.request_put(), *answer.mutable_response_put());
    if (op.has_request_delete_range()) {
      DoDelete(command, op.request_delete_range(), *answer.mutable_response_delete_range());
    }
    if (op.has_request_txn()) DoTxn(command, op.request_txn(), *answer.mutable_response_txn());
    if (op.has_request_range()) {
      const int64_t at = op.request_range().revision();
      Answer(at > 0 ? states_[static_cast<size_t>(at)] : command.state, op.request_range(),
             *answer.mutable_response_range());
      answer.mutable_response_range()->mutable_header()->set_revision(Reading(command));
    }
  }
}

absl::StatusOr<etcdserverpb::PutResponse> Model::Put(const etcdserverpb::PutRequest& request) {
  RETURN_IF_ERROR(CheckPut(request));
  etcdserverpb::PutResponse response;
  Command command = Begin();
  DoPut(command, request, response);
  End(std::move(command));
  return response;
}

absl::StatusOr<etcdserverpb::DeleteRangeResponse> Model::DeleteRange(
    const etcdserverpb::DeleteRangeRequest& request) {
  etcdserverpb::DeleteRangeResponse response;
  Command command = Begin();
  DoDelete(command, request, response);
  End(std::move(command));
  return response;
}

absl::StatusOr<etcdserverpb::TxnResponse> Model::Txn(const etcdserverpb::TxnRequest& request) {
  RETURN_IF_ERROR(CheckTxn(request));
  etcdserverpb::TxnResponse response;
  Command command = Begin();
  DoTxn(command, request, response);
  response.mutable_header()->set_revision(Reading(command));
  End(std::move(command));
  return response;
}

absl::StatusOr<etcdserverpb::CompactionResponse> Model::Compact(
    const etcdserverpb::CompactionRequest& request) {
  if (request.revision() <= compacted_) {
    return MakeStatus(absl::StatusCode::kOutOfRange,
                      "etcdserver: mvcc: required revision has been compacted");
  }
  RETURN_IF_ERROR(CheckRevision(request.revision()));
  compacted_ = request.revision();
  etcdserverpb::CompactionResponse response;
  response.mutable_header()->set_revision(revision());
  return response;
}

absl::StatusOr<etcdserverpb::RangeResponse> Model::Range(const RangeRequest& request) const {
  RETURN_IF_ERROR(CheckRevision(request.revision()));
  etcdserverpb::RangeResponse response;
  Answer(request.revision() > 0 ? states_[static_cast<size_t>(request.revision())] : states_.back(),
         request, response);
  response.mutable_header()->set_revision(revision());
  return response;
}

void Model::Answer(const State& state, const RangeRequest& request,
                   etcdserverpb::RangeResponse& response) {
  std::vector<mvccpb::KeyValue> kvs;
  for (const auto& [key, kv] : state) {
    if (!InRange(key, request.key(), request.range_end())) continue;
    response.set_count(response.count() + 1);
    kvs.push_back(kv);
  }
  if (request.count_only()) return;
  const bool filtered = request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
                        request.min_create_revision() != 0 || request.max_create_revision() != 0;
  const auto limit = static_cast<size_t>(std::max<int64_t>(request.limit(), 0));
  if (request.sort_order() == RangeRequest::NONE && !filtered && limit > 0 &&
      kvs.size() > limit + 1) {
    kvs.resize(limit + 1);  // 3.7.3: without an order it sorts only what the limit lets through.
  }
  std::erase_if(kvs, [&request](const mvccpb::KeyValue& kv) {
    return (request.min_mod_revision() != 0 && kv.mod_revision() < request.min_mod_revision()) ||
           (request.max_mod_revision() != 0 && kv.mod_revision() > request.max_mod_revision()) ||
           (request.min_create_revision() != 0 &&
            kv.create_revision() < request.min_create_revision()) ||
           (request.max_create_revision() != 0 &&
            kv.create_revision() > request.max_create_revision());
  });
  const bool descending = request.sort_order() == RangeRequest::DESCEND;
  std::sort(kvs.begin(), kvs.end(), [&](const mvccpb::KeyValue& a, const mvccpb::KeyValue& b) {
    int order = 0;
    if (request.sort_target() == RangeRequest::KEY) order = a.key().compare(b.key());
    if (request.sort_target() == RangeRequest::VERSION) {
      order = Order(a.version(), b.version());
    }
    if (request.sort_target() == RangeRequest::CREATE) {
      order = Order(a.create_revision(), b.create_revision());
    }
    if (request.sort_target() == RangeRequest::MOD) {
      order = Order(a.mod_revision(), b.mod_revision());
    }
    if (request.sort_target() == RangeRequest::VALUE) {
      order = a.value().compare(b.value());
    }
    if (order == 0) return a.key() < b.key();
    return descending ? order > 0 : order < 0;
  });
  if (limit > 0 && kvs.size() > limit) {
    kvs.resize(limit);
    response.set_more(true);
  }
  for (mvccpb::KeyValue& kv : kvs) {
    if (request.keys_only()) {
      kv.clear_value();
      if (request.sort_target() != RangeRequest::VALUE) kv.clear_lease();
    }
    *response.add_kvs() = std::move(kv);
  }
}

std::vector<Model::Event> Model::EventsAt(int64_t wanted) const {
  std::vector<Event> events;
  const State& before = states_[static_cast<size_t>(wanted) - 1];
  const State& after = states_[static_cast<size_t>(wanted)];
  const bool with_previous = wanted > compacted_;
  for (const auto& [key, kv] : after) {
    if (kv.mod_revision() != wanted) continue;
    Event event{.is_delete = false, .kv = kv, .previous = {}};
    const auto old = before.find(key);
    if (old != before.end() && with_previous) event.previous = old->second;
    events.push_back(std::move(event));
  }
  for (const auto& [key, kv] : before) {
    if (after.count(key) != 0) continue;
    Event event{.is_delete = true, .kv = {}, .previous = {}};
    event.kv.set_key(key);
    event.kv.set_mod_revision(wanted);
    if (with_previous) event.previous = kv;
    events.push_back(std::move(event));
  }
  std::sort(events.begin(), events.end(),
            [](const Event& a, const Event& b) { return a.kv.key() < b.kv.key(); });
  return events;
}

}  // namespace kv

#include "server/api/validate.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "server/api/errors.h"
#include "server/api/version.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::DeleteRangeRequest;
using etcdserverpb::PutRequest;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;
using Ops = google::protobuf::RepeatedPtrField<RequestOp>;

// Keys that deletes cover: disjoint ranges [first, second); no second: to the end of all keys.
class Ranges {
 public:
  void Add(std::string_view key, std::string_view range_end) {
    if (range_end.empty()) {
      AddHalfOpen(std::string(key), std::string(key) + '\0');
    } else if (key < range_end) {
      AddHalfOpen(std::string(key), std::string(range_end));
    }
    // etcd takes "from this key on" (an end of "\0") for an interval that ends before it begins,
    // so that such a delete collides with no put.
  }

  void Add(Ranges other) {
    if (ranges_.size() < other.ranges_.size()) ranges_.swap(other.ranges_);
    for (auto& [begin, end] : other.ranges_) AddHalfOpen(begin, std::move(end));
  }

  bool Contains(std::string_view key) const {
    auto after = ranges_.upper_bound(key);
    return after != ranges_.begin() && key < std::prev(after)->second;
  }

 private:
  void AddHalfOpen(std::string begin, std::string end) {
    auto at = ranges_.upper_bound(begin);
    if (at != ranges_.begin() && begin <= std::prev(at)->second) --at;
    while (at != ranges_.end() && at->first <= end) {
      begin = std::min(begin, at->first);
      end = std::max(end, at->second);
      at = ranges_.erase(at);
    }
    ranges_.emplace(std::move(begin), std::move(end));
  }

  std::map<std::string, std::string, std::less<>> ranges_;
};

// What the operations of a branch write, found to be without a collision.
struct Written {
  std::set<std::string_view> puts;
  Ranges deletes;
};

bool Collides(std::string_view put, const Written& written) {
  return written.puts.contains(put) || written.deletes.Contains(put);
}

std::optional<Written> CheckOverlaps(const Ops& ops);

// Adds what the two branches of a nested transaction write. Only one of them runs, so they may
// repeat each other.
bool AddNested(const TxnRequest& txn, Written* written) {
  std::optional<Written> then = CheckOverlaps(txn.success());
  if (!then) return false;
  std::optional<Written> otherwise = CheckOverlaps(txn.failure());
  if (!otherwise) return false;
  for (std::string_view put : then->puts) {
    if (Collides(put, *written)) return false;
  }
  for (std::string_view put : otherwise->puts) {
    if (Collides(put, *written)) return false;
  }
  if (written->puts.size() < then->puts.size()) written->puts.swap(then->puts);
  written->puts.merge(then->puts);
  written->puts.merge(otherwise->puts);
  written->deletes.Add(std::move(then->deletes));
  written->deletes.Add(std::move(otherwise->deletes));
  return true;
}

// In etcd's order: deletes of this level, nested transactions one after the other, puts of this
// level. So a nested put is held against the deletes of this level and of nested transactions
// before it, not of those after it.
std::optional<Written> CheckOverlaps(const Ops& ops) {
  Written written;
  for (const RequestOp& op : ops) {
    if (!op.has_request_delete_range()) continue;
    written.deletes.Add(op.request_delete_range().key(), op.request_delete_range().range_end());
  }
  for (const RequestOp& op : ops) {
    if (op.has_request_txn() && !AddNested(op.request_txn(), &written)) return std::nullopt;
  }
  for (const RequestOp& op : ops) {
    if (!op.has_request_put()) continue;
    if (Collides(op.request_put().key(), written)) return std::nullopt;
    written.puts.insert(op.request_put().key());
  }
  return written;
}

absl::Status CheckOps(const TxnRequest& request, size_t ops_max, int depth);

absl::Status CheckOp(const RequestOp& op, size_t ops_max, int depth) {
  switch (op.request_case()) {
    case RequestOp::kRequestRange:
      return CheckRange(op.request_range());
    case RequestOp::kRequestPut:
      return CheckPut(op.request_put());
    case RequestOp::kRequestDeleteRange:
      return CheckDeleteRange(op.request_delete_range());
    case RequestOp::kRequestTxn:
      return CheckOps(op.request_txn(), ops_max, depth + 1);
    case RequestOp::REQUEST_NOT_SET:
      return ToStatus(Error::kKeyNotFound);
  }
  return ToStatus(Error::kKeyNotFound);
}

absl::Status CheckOps(const TxnRequest& request, size_t ops_max, int depth) {
  const auto ops = static_cast<size_t>(
      std::max({request.compare_size(), request.success_size(), request.failure_size()}));
  if (ops > ops_max || depth > kTxnDepthMax) return ToStatus(Error::kTooManyOps);
  for (const etcdserverpb::Compare& compare : request.compare()) {
    if (compare.key().empty()) return ToStatus(Error::kEmptyKey);
  }
  for (const RequestOp& op : request.success()) RETURN_IF_ERROR(CheckOp(op, ops_max - ops, depth));
  for (const RequestOp& op : request.failure()) RETURN_IF_ERROR(CheckOp(op, ops_max - ops, depth));
  return absl::OkStatus();
}

int64_t PutCost(const Ops& ops) {
  int64_t cost = 0;
  for (const RequestOp& op : ops) {
    if (op.has_request_put()) cost += QuotaCost(op.request_put());
  }
  return cost;
}

template <typename Predicate>
bool AllRanges(const TxnRequest& request, Predicate predicate) {
  auto holds = [&](const RequestOp& op) {
    return op.has_request_range() && predicate(op.request_range());
  };
  return std::all_of(request.success().begin(), request.success().end(), holds) &&
         std::all_of(request.failure().begin(), request.failure().end(), holds);
}

}  // namespace

absl::Status CheckRange(const RangeRequest& request) {
  if (request.key().empty()) return ToStatus(Error::kEmptyKey);
  if (!RangeRequest::SortOrder_IsValid(request.sort_order()) ||
      !RangeRequest::SortTarget_IsValid(request.sort_target())) {
    return ToStatus(Error::kInvalidSortOption);
  }
  return absl::OkStatus();
}

absl::Status CheckRangeStream(const RangeRequest& request) {
  RETURN_IF_ERROR(CheckRange(request));
  // etcd takes another target without an order, and then sorts each page by itself.
  if (request.sort_order() == RangeRequest::DESCEND || request.sort_target() != RangeRequest::KEY) {
    return MakeStatus(absl::StatusCode::kUnimplemented,
                      "RangeStream does not support custom sort orders");
  }
  if (request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
      request.min_create_revision() != 0 || request.max_create_revision() != 0) {
    return MakeStatus(absl::StatusCode::kUnimplemented,
                      "RangeStream does not support revision filters");
  }
  return absl::OkStatus();
}

absl::Status CheckPut(const PutRequest& request) {
  if (request.key().empty()) return ToStatus(Error::kEmptyKey);
  if (request.ignore_value() && !request.value().empty()) return ToStatus(Error::kValueProvided);
  if (request.ignore_lease() && request.lease() != 0) return ToStatus(Error::kLeaseProvided);
  return absl::OkStatus();
}

absl::Status CheckDeleteRange(const DeleteRangeRequest& request) {
  if (request.key().empty()) return ToStatus(Error::kEmptyKey);
  return absl::OkStatus();
}

absl::Status CheckTxn(const TxnRequest& request, size_t ops_max) {
  RETURN_IF_ERROR(CheckOps(request, ops_max, 1));
  if (!CheckOverlaps(request.success()) || !CheckOverlaps(request.failure())) {
    return ToStatus(Error::kDuplicateKey);
  }
  return absl::OkStatus();
}

size_t EntryBytes(size_t request_bytes) {
  // A header with the request's id (tag of two bytes, length, tag, nine bytes for most ids), then
  // the request as a field: tag, length, bytes.
  constexpr size_t kHeaderBytes = 2 + 1 + 1 + 9;
  size_t length_bytes = 1;
  for (size_t rest = request_bytes; rest >= 128; rest /= 128) ++length_bytes;
  return kHeaderBytes + 1 + length_bytes + request_bytes;
}

absl::Status CheckEntryBytes(size_t request_bytes, size_t bytes_max) {
  if (EntryBytes(request_bytes) > bytes_max) return ToStatus(Error::kRequestTooLarge);
  return absl::OkStatus();
}

absl::StatusOr<std::string> DowngradeTarget(std::string_view version) {
  // major.minor, or major.minor.patch with what semantic versions may carry behind it.
  std::string_view rest = version;
  std::vector<int> numbers;
  while (numbers.size() < 3) {
    int number = 0;
    const auto read = std::from_chars(rest.data(), rest.data() + rest.size(), number);
    if (read.ec != std::errc() || number < 0 || rest.front() == '-') break;
    numbers.push_back(number);
    rest.remove_prefix(static_cast<size_t>(read.ptr - rest.data()));
    if (!rest.starts_with('.')) break;
    if (numbers.size() < 3) rest.remove_prefix(1);
  }
  const bool suffixed = numbers.size() == 3 && (rest.starts_with('-') || rest.starts_with('+'));
  if (numbers.size() < 2 || !(rest.empty() || suffixed) || version.ends_with('.')) {
    return ToStatus(Error::kWrongDowngradeVersionFormat);
  }
  if (numbers[0] != kApiMajor || numbers[1] + 1 != kApiMinor) {
    return ToStatus(Error::kInvalidDowngradeTargetVersion);
  }
  return fmt::format("{}.{}.0", numbers[0], numbers[1]);
}

int64_t QuotaCost(const PutRequest& request) {
  return 256 + static_cast<int64_t>(request.key().size() + request.value().size());
}

int64_t QuotaCost(const TxnRequest& request) {
  return std::max(PutCost(request.success()), PutCost(request.failure()));
}

bool OnlyReads(const TxnRequest& request) {
  return AllRanges(request, [](const RangeRequest&) { return true; });
}

bool OnlySerializable(const TxnRequest& request) {
  return AllRanges(request, [](const RangeRequest& range) { return range.serializable(); });
}

}  // namespace kv::api

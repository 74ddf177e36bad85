// Every limit that a request is held against before anybody acts on it, in etcd 3.7's order of
// checks where a request breaks several.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace etcdserverpb {
class DeleteRangeRequest;
class PutRequest;
class RangeRequest;
class TxnRequest;
}  // namespace etcdserverpb

namespace kv::api {

// Transactions may hold transactions; each level takes its operations from what the level above
// left of the limit. Deeper than this is refused as too many operations; far deeper ones are not
// even decoded, because protobuf stops at 100 messages inside each other (two for each level).
inline constexpr int kTxnDepthMax = 40;

absl::Status CheckRange(const etcdserverpb::RangeRequest& request);
absl::Status CheckRangeStream(const etcdserverpb::RangeRequest& request);
absl::Status CheckPut(const etcdserverpb::PutRequest& request);
absl::Status CheckDeleteRange(const etcdserverpb::DeleteRangeRequest& request);
absl::Status CheckTxn(const etcdserverpb::TxnRequest& request, size_t ops_max);

// etcd measures the log entry that a request becomes: the request's own bytes and what its
// envelope adds.
size_t EntryBytes(size_t request_bytes);
absl::Status CheckEntryBytes(size_t request_bytes, size_t bytes_max);

// A downgrade goes to the minor version before this one, as "3.6" or "3.6.5"; answers "3.6.0".
absl::StatusOr<std::string> DowngradeTarget(std::string_view version);

// What a write may add to the database, by etcd's reckoning: 256 + key + value for a put, the
// larger branch's puts for a transaction (nested ones are not looked into), nothing for a delete.
int64_t QuotaCost(const etcdserverpb::PutRequest& request);
int64_t QuotaCost(const etcdserverpb::TxnRequest& request);

// Whether every operation is a read, so that the transaction need not enter the log. A nested
// transaction counts as a write.
bool OnlyReads(const etcdserverpb::TxnRequest& request);
// Whether all those reads are serializable.
bool OnlySerializable(const etcdserverpb::TxnRequest& request);

}  // namespace kv::api

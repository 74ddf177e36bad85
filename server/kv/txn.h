// Puts, deletions and transactions on a batch: what a command of the log does (contract §1.4).
//
// A command is checked whole before it changes anything, so a refusal leaves nothing behind. All
// compares, those of nested transactions too, and all checks see the state before the command.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/kv/command.h"
#include "server/kv/range.h"
#include "server/replica/machine.h"
#include "storage/mvcc.h"

namespace etcdserverpb {
class DeleteRangeRequest;
class TxnRequest;
class TxnResponse;
}  // namespace etcdserverpb

namespace kv {

// Each does its command on the batch and leaves Finish() to the caller. `wants_reply` false spares
// the reply's body. A reply that is too large is refused after the command took effect, and says
// so.
Reply DoPut(Batch& batch, const PutView& put, bool wants_reply);
Reply DoDeleteRange(Batch& batch, const etcdserverpb::DeleteRangeRequest& request,
                    bool wants_reply);
Reply DoTxn(Batch& batch, const etcdserverpb::TxnRequest& request, bool wants_reply);

// A transaction that holds only ranges, on a view; any thread.
absl::Status AnswerTxn(const View& view, const etcdserverpb::TxnRequest& request,
                       uint64_t bytes_max, etcdserverpb::TxnResponse& response);

}  // namespace kv

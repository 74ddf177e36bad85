// Answers a RangeRequest out of a consistent reading of the keys (contract §1.4).
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/kv/errors.h"
#include "storage/mvcc.h"

namespace mvccpb {
class KeyValue;
}
namespace etcdserverpb {
class RangeRequest;
class RangeResponse;
}  // namespace etcdserverpb

namespace kv {

// What gRPC can send as one message.
inline constexpr uint64_t kResponseBytesMax = 2147483647;
// A key-value's part of that besides key and value: tags, lengths and five integers at most.
inline constexpr uint64_t kKeyValueFrameBytes = 64;

// Where a request reads: a View, or the batch that its transaction is part of.
class Reading {
 public:
  explicit Reading(const View& view) : view_(&view) {}
  Reading(Batch& batch, Revision at) : batch_(&batch), at_(at) {}

  absl::StatusOr<KeyRecordPtr> Get(std::string_view key) const;
  Walk NewWalk(const KeyRange& range, Direction direction) const;
  absl::StatusOr<int64_t> Count(const KeyRange& range) const;
  // Only puts ask, so a view never does.
  bool HasLease(int64_t id) const { return batch_ != nullptr && batch_->FindLease(id); }

 private:
  const View* view_ = nullptr;
  Batch* batch_ = nullptr;
  Revision at_ = 0;  // Of the batch; 0: as the command under way left it.
};

// Whether the request can be answered from one key's current record.
bool ReadsOneCurrentKey(const etcdserverpb::RangeRequest& request);

// Fills kvs, more and count. Costs what it answers where the order is by key without filters;
// otherwise it passes the range, and holds no more than what it answers. `bytes_max` bounds the
// key-values: beyond it a refusal, which says whether the command they belong to took effect.
absl::Status AnswerRange(const Reading& reading, const etcdserverpb::RangeRequest& request,
                         uint64_t bytes_max, Effect effect, etcdserverpb::RangeResponse& response);

// The same for the only key that the request names; null: it is not there.
absl::Status AnswerOneKey(const KeyRecord* record, const etcdserverpb::RangeRequest& request,
                          uint64_t bytes_max, Effect effect, etcdserverpb::RangeResponse& response);

void FillKeyValue(std::string_view key, const KeyRecord& record, mvccpb::KeyValue& kv);

// The pages of one answer, of one View. Pull until `last`; each page holds at most `page_bytes` of
// key-values, or one. The order is by key; filters and other orders are the edge's to refuse.
class RangePages {
 public:
  RangePages(View view, etcdserverpb::RangeRequest request, uint64_t page_bytes);
  ~RangePages();

  Revision revision() const { return view_.revision(); }  // Of all pages.

  // Fills an empty message with the next page; true: it is the last, which alone carries header
  // (revision only), more and count. Any thread, one at a time.
  absl::StatusOr<bool> Next(etcdserverpb::RangeResponse& page);

 private:
  const View view_;
  const std::unique_ptr<const etcdserverpb::RangeRequest> request_;
  const uint64_t page_bytes_;
  const KeyRange range_;
  KeyRange rest_;
  int64_t sent_ = 0;
};

}  // namespace kv

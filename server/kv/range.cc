#include "server/kv/range.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "storage/status.h"

namespace kv {
namespace {

using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;

bool IsFiltered(const RangeRequest& request) {
  return request.min_mod_revision() != 0 || request.max_mod_revision() != 0 ||
         request.min_create_revision() != 0 || request.max_create_revision() != 0;
}

bool Passes(const RangeRequest& request, const RecordView& record) {
  const auto at_most = [](int64_t value, int64_t max) { return max == 0 || value <= max; };
  const auto at_least = [](int64_t value, int64_t min) { return min == 0 || value >= min; };
  return at_most(record.mod, request.max_mod_revision()) &&
         at_least(record.mod, request.min_mod_revision()) &&
         at_most(record.create, request.max_create_revision()) &&
         at_least(record.create, request.min_create_revision());
}

RecordView ViewOf(const KeyRecord& record) {
  return {.create = record.create,
          .mod = record.mod,
          .version = record.version,
          .lease = record.lease,
          .tombstone = record.tombstone,
          .value = record.value};
}

void FillFromView(std::string_view key, const RecordView& record, mvccpb::KeyValue& kv) {
  kv.set_key(key.data(), key.size());
  kv.set_create_revision(record.create);
  kv.set_mod_revision(record.mod);
  kv.set_version(record.version);
  kv.set_value(record.value.data(), record.value.size());
  kv.set_lease(record.lease);
}

// Adds to an answer until it is full.
class Answer {
 public:
  Answer(const RangeRequest& request, uint64_t bytes_max, Effect effect, RangeResponse& response)
      : request_(request), bytes_max_(bytes_max), effect_(effect), response_(response) {}

  absl::Status Add(std::string_view key, const RecordView& record) {
    const uint64_t value_bytes = request_.keys_only() ? 0 : record.value.size();
    bytes_ += key.size() + value_bytes + kKeyValueFrameBytes;
    if (bytes_ > bytes_max_) return TooLargeError(bytes_max_, effect_);
    mvccpb::KeyValue& kv = *response_.add_kvs();
    FillFromView(key, record, kv);
    if (request_.keys_only()) {
      kv.clear_value();
      // 3.7 answers these from its index, which knows no leases, unless it needs the values.
      if (request_.sort_target() != RangeRequest::VALUE) kv.clear_lease();
    }
    return absl::OkStatus();
  }
  uint64_t bytes() const { return bytes_; }

 private:
  const RangeRequest& request_;
  const uint64_t bytes_max_;
  const Effect effect_;
  RangeResponse& response_;
  uint64_t bytes_ = 0;
};

// A key-value that waits to be sorted.
struct Held {
  std::string key;
  RecordView record;
  std::string value;
};

// By the target; by key where that does not decide, so that every member answers alike.
class HeldOrder {
 public:
  HeldOrder(RangeRequest::SortTarget target, bool descending)
      : target_(target), descending_(descending) {}

  bool operator()(const Held& a, const Held& b) const {
    const int order = Compare(a, b);
    if (order != 0) return descending_ ? order > 0 : order < 0;
    return a.key < b.key;
  }

 private:
  static int Sign(int64_t a, int64_t b) { return a < b ? -1 : (a > b ? 1 : 0); }
  int Compare(const Held& a, const Held& b) const {
    switch (target_) {
      case RangeRequest::VERSION:
        return Sign(a.record.version, b.record.version);
      case RangeRequest::CREATE:
        return Sign(a.record.create, b.record.create);
      case RangeRequest::MOD:
        return Sign(a.record.mod, b.record.mod);
      case RangeRequest::VALUE:
        return a.value.compare(b.value);
      default:
        return a.key.compare(b.key);
    }
  }

  const RangeRequest::SortTarget target_;
  const bool descending_;
};

absl::Status AnswerByKey(const Reading& reading, const RangeRequest& request, const KeyRange& range,
                         Answer answer, RangeResponse& response) {
  const bool filtered = IsFiltered(request);
  const int64_t limit = request.limit();
  Walk walk =
      reading.NewWalk(range, request.sort_order() == RangeRequest::DESCEND ? Direction::kDescending
                                                                           : Direction::kAscending);
  int64_t passed = 0;
  int64_t taken = 0;
  while (walk.Next()) {
    ++passed;
    if (filtered && !Passes(request, walk.record())) continue;
    if (limit > 0 && taken == limit) {
      response.set_more(true);
      break;
    }
    RETURN_IF_ERROR(answer.Add(walk.key(), walk.record()));
    ++taken;
  }
  RETURN_IF_ERROR(walk.status());
  if (response.more()) {
    ASSIGN_OR_RETURN(passed, reading.Count(range));
  }
  response.set_count(passed);
  return absl::OkStatus();
}

// Keeps the `limit` first of the order in a heap whose top is the last of them; everything, if
// there is no limit.
absl::Status AnswerSorted(const Reading& reading, const RangeRequest& request,
                          const KeyRange& range, uint64_t bytes_max, Effect effect, Answer answer,
                          RangeResponse& response) {
  const bool filtered = IsFiltered(request);
  const int64_t limit = request.limit();
  // 3.7.3 cuts before it sorts where a target is named and no order (seen by running it).
  const bool cut_first = limit > 0 && request.sort_order() == RangeRequest::NONE && !filtered;
  const bool with_value = !request.keys_only() || request.sort_target() == RangeRequest::VALUE;
  const HeldOrder order(request.sort_target(), request.sort_order() == RangeRequest::DESCEND);
  std::vector<Held> held;
  uint64_t bytes = 0;
  int64_t passed = 0;
  int64_t matching = 0;
  const auto cost = [](const Held& each) {
    return each.key.size() + each.value.size() + kKeyValueFrameBytes;
  };

  Walk walk = reading.NewWalk(range, Direction::kAscending);
  while (walk.Next()) {
    ++passed;
    if (filtered && !Passes(request, walk.record())) continue;
    ++matching;
    Held next{.key = std::string(walk.key()), .record = walk.record(), .value = {}};
    next.record.value = {};
    if (with_value) next.value = walk.record().value;
    bytes += cost(next);
    held.push_back(std::move(next));
    if (limit > 0) {
      std::push_heap(held.begin(), held.end(), order);
      if (matching > limit) {
        std::pop_heap(held.begin(), held.end(), order);
        bytes -= cost(held.back());
        held.pop_back();
      }
    }
    if (bytes > bytes_max) return TooLargeError(bytes_max, effect);
    if (cut_first && matching > limit) break;
  }
  RETURN_IF_ERROR(walk.status());
  if (cut_first && matching > limit) {
    ASSIGN_OR_RETURN(passed, reading.Count(range));
  }
  std::sort(held.begin(), held.end(), order);
  for (Held& each : held) {
    each.record.value = each.value;
    RETURN_IF_ERROR(answer.Add(each.key, each.record));
  }
  response.set_more(limit > 0 && matching > limit);
  response.set_count(passed);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<KeyRecordPtr> Reading::Get(std::string_view key) const {
  if (view_ != nullptr) return view_->Get(key);
  if (at_ == 0) return batch_->Get(key);
  KeyRange single = KeyRange::FromRequest(key, {});
  Walk walk = batch_->NewWalk(single, Direction::kAscending, at_);
  if (walk.Next()) return CopyKeyRecord(walk.record());
  RETURN_IF_ERROR(walk.status());
  return nullptr;
}

Walk Reading::NewWalk(const KeyRange& range, Direction direction) const {
  if (view_ != nullptr) return view_->NewWalk(range, direction);
  return batch_->NewWalk(range, direction, at_ == 0 ? batch_->reading() : at_);
}

absl::StatusOr<int64_t> Reading::Count(const KeyRange& range) const {
  if (view_ != nullptr) return view_->Count(range);
  return batch_->Count(range, at_ == 0 ? batch_->reading() : at_);
}

bool ReadsOneCurrentKey(const RangeRequest& request) {
  return request.range_end().empty() && request.revision() <= 0;
}

void FillKeyValue(std::string_view key, const KeyRecord& record, mvccpb::KeyValue& kv) {
  FillFromView(key, ViewOf(record), kv);
}

absl::Status AnswerOneKey(const KeyRecord* record, const RangeRequest& request, uint64_t bytes_max,
                          Effect effect, RangeResponse& response) {
  if (record == nullptr) return absl::OkStatus();
  response.set_count(1);
  const RecordView view = ViewOf(*record);
  if (request.count_only() || !Passes(request, view)) return absl::OkStatus();
  return Answer(request, bytes_max, effect, response).Add(request.key(), view);
}

absl::Status AnswerRange(const Reading& reading, const RangeRequest& request, uint64_t bytes_max,
                         Effect effect, RangeResponse& response) {
  if (request.range_end().empty()) {
    ASSIGN_OR_RETURN(const KeyRecordPtr record, reading.Get(request.key()));
    return AnswerOneKey(record.get(), request, bytes_max, effect, response);
  }
  const KeyRange range = KeyRange::FromRequest(request.key(), request.range_end());
  if (request.count_only()) {
    ASSIGN_OR_RETURN(const int64_t count, reading.Count(range));
    response.set_count(count);
    return absl::OkStatus();
  }
  const Answer answer(request, bytes_max, effect, response);
  if (request.sort_target() == RangeRequest::KEY) {
    return AnswerByKey(reading, request, range, answer, response);
  }
  return AnswerSorted(reading, request, range, bytes_max, effect, answer, response);
}

RangePages::RangePages(View view, RangeRequest request, uint64_t page_bytes)
    : view_(std::move(view)),
      request_(std::make_unique<const RangeRequest>(std::move(request))),
      page_bytes_(page_bytes),
      range_(KeyRange::FromRequest(request_->key(), request_->range_end())),
      rest_(range_) {}

RangePages::~RangePages() = default;

absl::StatusOr<bool> RangePages::Next(RangeResponse& page) {
  if (!request_->count_only()) {
    const int64_t limit = request_->limit();
    Answer answer(*request_, kResponseBytesMax, Effect::kNone, page);
    Walk walk = view_.NewWalk(rest_, Direction::kAscending);
    while (walk.Next()) {
      if (limit > 0 && sent_ == limit) {
        page.set_more(true);
        break;
      }
      if (answer.bytes() >= page_bytes_) {
        rest_.first = walk.key();
        return false;
      }
      RETURN_IF_ERROR(answer.Add(walk.key(), walk.record()));
      ++sent_;
    }
    RETURN_IF_ERROR(walk.status());
  }
  int64_t count = sent_;
  if (request_->count_only() || page.more()) {
    ASSIGN_OR_RETURN(count, view_.Count(range_));
  }
  page.set_count(count);
  page.mutable_header()->set_revision(view_.head().revision);
  return true;
}

}  // namespace kv

#include "client/kvctl/pages.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

constexpr size_t kPageBytes = 1 << 20;
constexpr int64_t kPageKeysMax = 5000;
constexpr size_t kPairBytes = 32;  // What a pair costs besides its key and value, about.

}  // namespace

Pages::Pages(client::Client* client, pb::RangeRequest request, client::CallOptions call)
    : client_(client),
      request_(std::move(request)),
      call_(call),
      left_(request_.limit() > 0 ? request_.limit() : INT64_MAX) {}

absl::StatusOr<const mvccpb::KeyValue*> Pages::Next() {
  if (at_ == page_.kvs_size() && more_) {
    if (absl::Status status = Turn(); !status.ok()) return status;
  }
  if (at_ == page_.kvs_size()) return nullptr;
  return &page_.kvs(at_++);
}

absl::Status Pages::Turn() {
  request_.set_limit(std::min(page_keys_, left_));
  auto answer = client_->CallAndWait(client::kRange, request_, call_);
  if (!answer.ok()) {
    std::string text = Complaint(answer);
    if (text == "etcdserver: mvcc: required revision has been compacted") {
      text += fmt::format(" (revision {}; begin again to read a newer one)", revision());
    }
    return Refused(text, answer.status.code());
  }
  page_ = std::move(answer.response);
  at_ = 0;
  if (request_.revision() == 0) request_.set_revision(page_.header().revision());
  if (std::exchange(first_, false)) total_ = page_.count();
  left_ -= page_.kvs_size();
  more_ = page_.more() && page_.kvs_size() > 0 && left_ > 0;
  if (!more_) return absl::OkStatus();
  request_.set_key(page_.kvs(page_.kvs_size() - 1).key() + std::string(1, '\0'));
  size_t bytes = 0;
  for (const mvccpb::KeyValue& pair : page_.kvs()) {
    bytes += pair.key().size() + pair.value().size() + kPairBytes;
  }
  const auto fitting =
      static_cast<int64_t>(static_cast<size_t>(page_.kvs_size()) * kPageBytes / bytes);
  page_keys_ = std::clamp<int64_t>(fitting, 1, std::min(kPageKeysMax, page_keys_ * 8));
  return absl::OkStatus();
}

}  // namespace kv::kvctl

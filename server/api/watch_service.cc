#include "server/api/watch_service.h"

#include <algorithm>
#include <atomic>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "server/api/errors.h"
#include "storage/status.h"

namespace kv::api {
namespace {

using etcdserverpb::WatchCreateRequest;
using etcdserverpb::WatchResponse;

// Of what a client has not taken. At the first a stream is full, at the second it has room again;
// one message may come on top.
constexpr size_t kFullBytes = size_t{64} << 10;
constexpr size_t kRoomBytes = size_t{16} << 10;
// As etcd's: what a message may hold beside one request's worth of events.
constexpr size_t kFragmentOverhead = size_t{512} << 10;
constexpr int64_t kNoId = -1;
constexpr double kReportJitter = 0.1;

std::string_view TextOf(Error error) {
  const auto errors = ContractErrors();
  return errors[static_cast<size_t>(error)].text;
}

std::string_view TextOf(WatchRefusal refusal) {
  switch (refusal) {
    case WatchRefusal::kCompacted:
      return TextOf(Error::kCompacted);
    case WatchRefusal::kEmptyRange:
      return "mvcc: watcher range is empty";
    case WatchRefusal::kDuplicateId:
      return "mvcc: duplicate watch ID provided on the WatchStream";
    case WatchRefusal::kTooMany:
      return TextOf(Error::kTooManyRequests);
  }
  return {};
}

WatchOrder OrderOf(const WatchCreateRequest& request) {
  // No key is the first that may be; with no end it is watched alone, and never written.
  const std::string key = request.key().empty() ? std::string(1, '\0') : request.key();
  WatchOrder order;
  order.range = KeyRange::FromRequest(key, request.range_end());
  order.start = request.start_revision();
  order.id = request.watch_id();
  order.previous = request.prev_kv();
  order.fragments = request.fragment();
  order.reports = request.progress_notify();
  for (const int filter : request.filters()) {
    if (filter == WatchCreateRequest::NOPUT) order.puts = false;
    if (filter == WatchCreateRequest::NODELETE) order.deletions = false;
  }
  return order;
}

}  // namespace

class WatchService::Stream final : public WatchSink, public std::enable_shared_from_this<Stream> {
 public:
  Stream(WatchService* service, bool needs_leader, Reader<Request>* reader,
         Writer<Response>* writer)
      : service_(service),
        needs_leader_(needs_leader),
        request_bytes_max_(service->edge_->options().request_bytes_max),
        reader_(reader),
        writer_(writer) {}

  // First of all, by whoever made it.
  void Open() { id_ = service_->hub_->Open(shared_from_this(), service_->ReportEvery()); }

  void Begin() {
    {
      const MutexLock lock(mutex_);
      if (ended_) return;
      writer_->OnGone(
          [self = shared_from_this()] { self->service_->End(self, absl::CancelledError()); });
    }
    ReadNext();
  }

  // Once; nothing is written or read after it.
  void End(absl::Status status) {
    {
      const MutexLock lock(mutex_);
      if (std::exchange(ended_, true)) return;
      waiting_.clear();
      writer_->Finish(std::move(status));
    }
    service_->hub_->Close(id_);
  }

  bool needs_leader() const { return needs_leader_; }

  bool full() const override { return full_.load(); }

  void Created(int64_t id, Revision revision) override {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_created(true);
    Send(response, revision);
  }
  void Refused(WatchRefusal refusal, Revision revision) override {
    WatchResponse response;
    response.set_watch_id(kNoId);
    response.set_created(true);
    response.set_canceled(true);
    response.set_cancel_reason(std::string(TextOf(refusal)));
    Send(response, revision);
  }
  void Canceled(int64_t id, Revision revision) override {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_canceled(true);
    Send(response, revision);
  }
  // Without a revision and without a reason, as etcd says it.
  void Compacted(int64_t id, Revision compacted) override {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_canceled(true);
    response.set_compact_revision(compacted);
    Send(response, 0);
  }
  void Failed(int64_t id, const absl::Status& status) override {
    WatchResponse response;
    response.set_watch_id(id);
    response.set_canceled(true);
    response.set_cancel_reason(std::string(Message(status)));
    Send(response, 0);
  }
  void Progress(std::optional<int64_t> id, Revision revision) override {
    WatchResponse response;
    response.set_watch_id(id.value_or(kNoId));
    Send(response, revision);
  }

  // One revision's events are split only for a client that asked for it, and then as etcd splits.
  void Told(const WatchNews& news) override {
    WatchResponse response;
    response.set_watch_id(news.id);
    const size_t bytes_max = request_bytes_max_ + kFragmentOverhead;
    for (size_t begin = 0; begin < news.events.size();) {
      response.set_fragment(false);
      std::string bytes = Begun(response, news.revision);
      const size_t bare = bytes.size();
      size_t end = begin;
      for (; end < news.events.size(); ++end) {
        const std::string_view field = news.events[end]->Field(news.previous);
        if (news.fragments && end > begin && bytes.size() + field.size() >= bytes_max) break;
        bytes += field;
      }
      if (end < news.events.size()) {
        response.set_fragment(true);
        bytes.replace(0, bare, Begun(response, news.revision));
      }
      begin = end;
      Put(std::move(bytes));
    }
  }

  void Handled() override {
    {
      const MutexLock lock(mutex_);
      if (full_) {
        reads_when_room_ = true;
        return;
      }
    }
    ReadNext();
  }

 private:
  void ReadNext() {
    const MutexLock lock(mutex_);
    if (ended_) return;
    reader_->Read([self = shared_from_this()](std::optional<Request> request) {
      // A client that closed its side still listens; one that is gone is heard of elsewhere.
      if (request) self->OnRequest(*request);
    });
  }

  void OnRequest(const Request& request) {
    WatchHub* const hub = service_->hub_;
    switch (request.request_union_case()) {
      case Request::kCreateRequest:
        return hub->Order(id_, OrderOf(request.create_request()));
      case Request::kCancelRequest:
        return hub->Cancel(id_, request.cancel_request().watch_id());
      case Request::kProgressRequest:
        return hub->AskProgress(id_);
      case Request::REQUEST_UNION_NOT_SET:
        return ReadNext();
    }
  }

  // All of a message but its events, which come last in it.
  std::string Begun(WatchResponse& response, Revision revision) const {
    service_->edge_->FillHeader(response.mutable_header());
    response.mutable_header()->set_revision(revision);
    return response.SerializeAsString();
  }
  void Send(WatchResponse& response, Revision revision) { Put(Begun(response, revision)); }

  void Put(std::string bytes) {
    const MutexLock lock(mutex_);
    if (ended_) return;
    if (writing_) {
      waiting_bytes_ += bytes.size();
      waiting_.push_back(std::move(bytes));
      if (waiting_bytes_ >= kFullBytes) full_ = true;
    } else {
      Write(std::move(bytes));
    }
  }

  void Write(std::string bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    writer_->Write({.bytes = std::move(bytes), .hold = nullptr},
                   [self = shared_from_this()](bool taken) {
                     if (taken) self->OnTaken();  // Otherwise OnGone ends it.
                   });
  }

  void OnTaken() {
    bool room = false;
    bool reads = false;
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      if (ended_ || waiting_.empty()) return;
      std::string bytes = std::move(waiting_.front());
      waiting_.pop_front();
      waiting_bytes_ -= bytes.size();
      Write(std::move(bytes));
      if (full_ && waiting_bytes_ <= kRoomBytes) {
        room = true;
        full_ = false;
        reads = std::exchange(reads_when_room_, false);
      }
    }
    if (room) service_->hub_->Resume(id_);
    if (reads) ReadNext();
  }

  WatchService* const service_;
  const bool needs_leader_;
  const size_t request_bytes_max_;
  WatchHub::StreamId id_ = 0;  // Constant once it is open.

  std::atomic<bool> full_ = false;  // Written under the mutex.

  Mutex mutex_;
  // Both live until Finish.
  Reader<Request>* const reader_ ABSL_PT_GUARDED_BY(mutex_);
  Writer<Response>* const writer_ ABSL_PT_GUARDED_BY(mutex_);
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool reads_when_room_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<std::string> waiting_ ABSL_GUARDED_BY(mutex_);
  size_t waiting_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

void WatchService::Watch(const Call& call, Reader<Request>* reader, Writer<Response>* writer) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  const auto stream = std::make_shared<Stream>(this, call.require_leader, reader, writer);
  stream->Open();
  {
    const MutexLock lock(mutex_);
    if (!stopped_) streams_.insert(stream);
    status = stopped_ ? ToStatus(Error::kStopped) : absl::OkStatus();
  }
  if (!status.ok()) return stream->End(std::move(status));
  stream->Begin();
}

void WatchService::End(const std::shared_ptr<Stream>& stream, absl::Status status) {
  {
    const MutexLock lock(mutex_);
    streams_.erase(stream);
  }
  stream->End(std::move(status));
}

void WatchService::EndWithoutLeader() {
  std::vector<std::shared_ptr<Stream>> lost;
  {
    const MutexLock lock(mutex_);
    std::copy_if(streams_.begin(), streams_.end(), std::back_inserter(lost),
                 [](const auto& stream) { return stream->needs_leader(); });
  }
  for (const auto& stream : lost) End(stream, ToStatus(Error::kNoLeader));
}

void WatchService::Stop() {
  std::set<std::shared_ptr<Stream>> streams;
  {
    const MutexLock lock(mutex_);
    stopped_ = true;
    streams.swap(streams_);
  }
  for (const auto& stream : streams) stream->End(ToStatus(Error::kStopped));
}

absl::Duration WatchService::ReportEvery() const {
  const absl::Duration interval = edge_->options().watch_progress_interval;
  const double part = static_cast<double>(edge_->runtime().Random() >> 11) * 0x1.0p-53;
  return interval + interval * kReportJitter * part;
}

}  // namespace kv::api

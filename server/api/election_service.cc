#include "server/api/election_service.h"

#include <atomic>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "server/api/answers.h"
#include "server/api/key_watch.h"
#include "storage/check.h"
#include "storage/mutex.h"

namespace kv::api {

using etcdserverpb::RangeResponse;
using etcdserverpb::ResponseHeader;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;
using v3electionpb::CampaignRequest;
using v3electionpb::CampaignResponse;
using v3electionpb::LeaderKey;
using v3electionpb::LeaderRequest;
using v3electionpb::LeaderResponse;
using v3electionpb::ProclaimRequest;
using v3electionpb::ProclaimResponse;
using v3electionpb::ResignRequest;
using v3electionpb::ResignResponse;

namespace {

absl::Status NoLeaderKey() { return Inner("\"leader\" field must be provided"); }
absl::Status NotLeader() { return Inner("election: not leader"); }

TxnRequest IfStillLeader(const LeaderKey& leader) {
  return IfCreatedAt(leader.key(), leader.rev());
}

// The key-value of a put. An event is told as a field of etcdserverpb.WatchResponse.
mvccpb::KeyValue PutIn(const SharedEvent& event) {
  const std::string_view field = event.Field(false);
  etcdserverpb::WatchResponse response;
  KV_CHECK(response.ParseFromArray(field.data(), static_cast<int>(field.size())) &&
               response.events_size() == 1,
           "an event that cannot be decoded");
  return std::move(*response.mutable_events(0)->mutable_kv());
}

}  // namespace

// One Observe stream. Its steps follow one another: the leader is looked up, or awaited; then its
// key is watched until it is gone. Only End and the client's reading come at any time. What the
// client has not taken is bounded by one page of the hub's.
class ElectionService::Observer final : public WaitingCall,
                                        public KeyListener,
                                        public std::enable_shared_from_this<Observer> {
 public:
  Observer(const ElectionService* service, Call call, const std::string& name,
           Writer<LeaderResponse>* writer)
      : WaitingCall(call.require_leader),
        service_(service),
        call_(std::move(call)),
        prefix_(PrefixOf(name)),
        writer_(writer) {
    call_.require_leader = false;  // Looked after by WaitingCalls.
  }

  // First of all, by whoever made it.
  void AwaitGone() {
    const MutexLock lock(mutex_);
    writer_->OnGone([weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->End(absl::CancelledError());
    });
  }

  void LookUp() {
    if (over()) return;
    service_->inner_->Range(call_, OldestUnder(prefix_),
                            [self = shared_from_this()](absl::StatusOr<RangeResponse> response) {
                              if (!response.ok()) return self->EndEarly();
                              self->OnLookedUp(*std::move(response));
                            });
  }

  void End(absl::Status status) override {
    WatchHub::StreamId watch = 0;
    {
      const MutexLock lock(mutex_);
      if (writer_ == nullptr) return;
      untaken_.clear();
      watch = watch_;
      std::exchange(writer_, nullptr)->Finish(std::move(status));
    }
    if (watch != 0) service_->hub_->Close(watch);
    service_->waiting_->Remove(shared_from_this());
  }

  bool full() const override { return full_.load(); }

  bool OnEvent(Revision store, const SharedEvent& event) override {
    if (event.deletion()) {
      LookUp();
      return false;
    }
    mvccpb::KeyValue kv = PutIn(event);
    if (has_leader_) {
      Tell(store, std::move(kv));
      return true;
    }
    const std::string key = kv.key();
    Tell(event.revision(), std::move(kv));
    WatchLeader(key, event.revision());
    return false;
  }
  void OnLost(absl::Status why) override {
    if (!why.ok()) return EndEarly();
    LookUp();
  }

 private:
  bool over() {
    const MutexLock lock(mutex_);
    return writer_ == nullptr;
  }

  void EndEarly() { End(Inner("election: observe closed early")); }

  void OnLookedUp(RangeResponse response) {
    const auto seen = response.header().revision();
    if (response.kvs().empty()) {
      has_leader_ = false;
      WatchOrder order;
      order.range = KeyRange::FromRequest(prefix_, EndOf(prefix_));
      order.start = seen + 1;
      order.deletions = false;
      return Watch(std::move(order));
    }
    const std::string key = response.kvs(0).key();
    Tell(seen, std::move(*response.mutable_kvs(0)));
    WatchLeader(key, seen);
  }

  void WatchLeader(const std::string& key, Revision seen) {
    has_leader_ = true;
    WatchOrder order;
    order.range = KeyRange::FromRequest(key, {});
    order.start = seen + 1;
    Watch(std::move(order));
  }

  void Watch(WatchOrder order) {
    const MutexLock lock(mutex_);
    if (writer_ == nullptr) return;
    watch_ = WatchKeys(service_->hub_, std::move(order), shared_from_this());
  }

  void Tell(Revision revision, mvccpb::KeyValue kv) {
    LeaderResponse response;
    service_->edge_->FillHeader(response.mutable_header());
    response.mutable_header()->set_revision(revision);
    *response.mutable_kv() = std::move(kv);
    const MutexLock lock(mutex_);
    if (writer_ == nullptr) return;
    if (!writing_) return Write(std::move(response));
    untaken_.push_back(std::move(response));
    full_ = true;
  }

  void Write(LeaderResponse response) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    writing_ = true;
    writer_->Write(std::move(response), [self = shared_from_this()](bool taken) {
      if (taken) self->OnTaken();  // Otherwise OnGone ends it.
    });
  }

  void OnTaken() {
    WatchHub::StreamId watch = 0;
    {
      const MutexLock lock(mutex_);
      writing_ = false;
      if (writer_ == nullptr || untaken_.empty()) return;
      LeaderResponse next = std::move(untaken_.front());
      untaken_.pop_front();
      Write(std::move(next));
      if (!untaken_.empty()) return;
      full_ = false;
      watch = watch_;
    }
    service_->hub_->Resume(watch);
  }

  const ElectionService* const service_;
  Call call_;
  const std::string prefix_;
  bool has_leader_ = false;  // The steps', one after the other.

  std::atomic<bool> full_ = false;  // Written under the mutex.

  Mutex mutex_;
  Writer<LeaderResponse>* writer_ ABSL_GUARDED_BY(mutex_);  // Null once the stream is over.
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  std::deque<LeaderResponse> untaken_ ABSL_GUARDED_BY(mutex_);
  WatchHub::StreamId watch_ ABSL_GUARDED_BY(mutex_) = 0;
};

void ElectionService::Campaign(const Call& call, CampaignRequest request,
                               Writer<CampaignResponse>* writer) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  const std::string name = request.name();
  turns_->Take(
      call,
      {.kind = TurnRequest::Kind::kElection,
       .name = name,
       .lease = request.lease(),
       .value = std::move(*request.mutable_value())},
      [writer](auto gone) { writer->OnGone(std::move(gone)); },
      [writer, name](absl::StatusOr<Turn> turn) {
        if (!turn.ok()) return writer->Finish(turn.status());
        CampaignResponse response;
        *response.mutable_header() = std::move(turn->header);
        LeaderKey& leader = *response.mutable_leader();
        leader.set_name(name);
        leader.set_key(std::move(turn->key));
        leader.set_rev(turn->revision);
        leader.set_lease(turn->lease);
        WriteLast(writer, std::move(response));
      });
}

void ElectionService::Proclaim(const Call& call, ProclaimRequest request,
                               Done<ProclaimResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (status.ok() && !request.has_leader()) status = NoLeaderKey();
  if (!status.ok()) return std::move(done)(std::move(status));
  Done<TxnResponse> proclaimed =
      [done = std::move(done)](absl::StatusOr<TxnResponse> response) mutable {
        if (!response.ok()) return std::move(done)(response.status());
        if (!response->succeeded()) return std::move(done)(NotLeader());
        ProclaimResponse answer;
        *answer.mutable_header() = std::move(*response->mutable_header());
        std::move(done)(std::move(answer));
      };
  const int64_t lease = request.leader().lease();
  inner_->WithLease(call, lease,
                    [this, call, request = std::move(request),
                     done = std::move(proclaimed)](const absl::StatusOr<int64_t>& own) mutable {
                      if (!own.ok()) return std::move(done)(own.status());
                      TxnRequest txn = IfStillLeader(request.leader());
                      auto& put = *txn.add_success()->mutable_request_put();
                      put.set_key(request.leader().key());
                      put.set_value(std::move(*request.mutable_value()));
                      put.set_lease(*own);
                      inner_->Txn(call, std::move(txn), std::move(done));
                    });
}

void ElectionService::Leader(const Call& call, const LeaderRequest& request,
                             Done<LeaderResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  inner_->Range(call, OldestUnder(PrefixOf(request.name())),
                [done = std::move(done)](absl::StatusOr<RangeResponse> response) mutable {
                  if (!response.ok()) return std::move(done)(response.status());
                  if (response->kvs().empty()) {
                    return std::move(done)(Inner("election: no leader"));
                  }
                  LeaderResponse leader;
                  *leader.mutable_header() = std::move(*response->mutable_header());
                  *leader.mutable_kv() = std::move(*response->mutable_kvs(0));
                  std::move(done)(std::move(leader));
                });
}

void ElectionService::Observe(const Call& call, LeaderRequest request,
                              Writer<LeaderResponse>* writer) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  const auto observer = std::make_shared<Observer>(this, call, request.name(), writer);
  observer->AwaitGone();
  waiting_->Add(observer);
  observer->LookUp();
}

void ElectionService::Resign(const Call& call, const ResignRequest& request,
                             Done<ResignResponse> done) {
  absl::Status status = edge_->Admit(call, Edge::OnLearner::kRefused);
  if (status.ok() && !request.has_leader()) status = NoLeaderKey();
  if (!status.ok()) return std::move(done)(std::move(status));
  TxnRequest txn = IfStillLeader(request.leader());
  txn.add_success()->mutable_request_delete_range()->set_key(request.leader().key());
  inner_->Txn(call, std::move(txn),
              [done = std::move(done)](absl::StatusOr<TxnResponse> response) mutable {
                if (!response.ok()) return std::move(done)(response.status());
                ResignResponse resigned;
                *resigned.mutable_header() = std::move(*response->mutable_header());
                std::move(done)(std::move(resigned));
              });
}

}  // namespace kv::api

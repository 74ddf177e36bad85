#include "server/api/turns.h"

#include <fmt/format.h>

#include <memory>
#include <utility>

#include "server/api/key_watch.h"
#include "storage/mutex.h"

namespace kv::api {

using etcdserverpb::PutRequest;
using etcdserverpb::RangeRequest;
using etcdserverpb::RangeResponse;
using etcdserverpb::TxnRequest;
using etcdserverpb::TxnResponse;

// One caller. Its steps follow one another, each begun by the answer to the one before; only End
// may come at any time, and makes the next step the last.
class Turns::Waiter final : public WaitingCall,
                            public KeyListener,
                            public std::enable_shared_from_this<Waiter> {
 public:
  Waiter(const Turns* turns, Call call, TurnRequest request, Done<Turn> done)
      : WaitingCall(false),
        turns_(turns),
        call_(std::move(call)),
        request_(std::move(request)),
        prefix_(PrefixOf(request_.name)),
        done_(std::move(done)) {
    call_.require_leader = false;  // It was asked for when the call came.
  }

  void Begin() {
    inner()->WithLease(call_, request_.lease,
                       [self = shared_from_this()](const absl::StatusOr<int64_t>& lease) {
                         if (!lease.ok()) return self->Answer(lease.status());
                         if (!self->over()) self->LeaveKey(*lease);
                       });
  }

  void End(absl::Status status) override { Finish(std::move(status), GivesUp::kPlace); }

  // The key before ours is gone.
  bool OnEvent(Revision, const SharedEvent&) override {
    LookBefore();
    return false;
  }
  void OnLost(absl::Status why) override {
    if (!why.ok()) return Fail(Inner(why));
    LookBefore();
  }

 private:
  enum class GivesUp : uint8_t { kNothing, kPlace };

  InnerCalls* inner() const { return turns_->inner_; }
  bool over() {
    const MutexLock lock(mutex_);
    return done_ == nullptr;
  }

  void LeaveKey(int64_t lease) {
    turn_.lease = lease;
    turn_.key = fmt::format("{}{:x}", prefix_, lease);
    TxnRequest txn = IfCreatedAt(turn_.key, 0);
    *txn.add_success()->mutable_request_put() = OwnPut();
    txn.add_failure()->mutable_request_range()->set_key(turn_.key);
    for (auto* ops : {txn.mutable_success(), txn.mutable_failure()}) {
      *ops->Add()->mutable_request_range() = OldestUnder(prefix_);
    }
    inner()->Txn(call_, std::move(txn),
                 [self = shared_from_this()](absl::StatusOr<TxnResponse> response) {
                   if (!response.ok()) return self->Answer(response.status());
                   self->OnKeyLeft(*response);
                 });
  }

  void OnKeyLeft(const TxnResponse& response) {
    turn_.header = response.header();
    turn_.revision = response.header().revision();
    bool same_value = true;
    if (!response.succeeded()) {
      const mvccpb::KeyValue& own = response.responses(0).response_range().kvs(0);
      turn_.revision = own.create_revision();
      same_value = own.value() == request_.value;
    }
    const mvccpb::KeyValue& oldest = response.responses(1).response_range().kvs(0);
    const bool ours = oldest.create_revision() == turn_.revision;
    if (!same_value && request_.kind == TurnRequest::Kind::kElection) return Proclaim(ours);
    Queue(ours);
  }

  // The lease's key was there, with another value.
  void Proclaim(bool ours) {
    TxnRequest txn = IfCreatedAt(turn_.key, turn_.revision);
    *txn.add_success()->mutable_request_put() = OwnPut();
    inner()->Txn(call_, std::move(txn),
                 [self = shared_from_this(), ours](const absl::StatusOr<TxnResponse>& response) {
                   if (!response.ok()) return self->Answer(response.status());
                   if (!response->succeeded()) return self->Answer(self->Lost());
                   self->Queue(ours);
                 });
  }

  void Queue(bool ours) {
    if (ours) return Answer(turn_);
    bool waits = false;
    {
      const MutexLock lock(mutex_);
      placed_ = waits = done_ != nullptr;
    }
    if (!waits) return GiveUpPlace();
    LookBefore();
  }

  void LookBefore() {
    if (over()) return;
    inner()->Range(call_, NewestBefore(prefix_, turn_.revision),
                   [self = shared_from_this()](absl::StatusOr<RangeResponse> response) {
                     if (!response.ok()) return self->Fail(response.status());
                     if (response->kvs().empty()) return self->LookAtOwn();
                     self->Watch(response->kvs(0).key(), response->header().revision());
                   });
  }

  void Watch(const std::string& key, int64_t seen) {
    WatchOrder order;
    order.range = KeyRange::FromRequest(key, {});
    order.start = seen + 1;
    order.puts = false;
    const MutexLock lock(mutex_);
    if (done_ == nullptr) return;
    watch_ = WatchKeys(turns_->hub_, std::move(order), shared_from_this());
  }

  // Nobody is before us; but the lease may have ended meanwhile.
  void LookAtOwn() {
    RangeRequest request;
    request.set_key(turn_.key);
    inner()->Range(call_, std::move(request),
                   [self = shared_from_this()](absl::StatusOr<RangeResponse> response) {
                     if (!response.ok()) return self->Fail(response.status());
                     self->OnOwn(*response);
                   });
  }

  void OnOwn(const RangeResponse& response) {
    if (response.kvs().empty() || response.kvs(0).create_revision() != turn_.revision) {
      return Answer(Lost());
    }
    if (request_.kind == TurnRequest::Kind::kLock) turn_.header = response.header();
    Answer(turn_);
  }

  PutRequest OwnPut() const {
    PutRequest put;
    put.set_key(turn_.key);
    put.set_value(request_.value);
    put.set_lease(turn_.lease);
    return put;
  }

  absl::Status Lost() const {
    return Inner(request_.kind == TurnRequest::Kind::kLock ? "mutex: session is expired"
                                                           : "election: not leader");
  }

  void Answer(absl::StatusOr<Turn> turn) { Finish(std::move(turn), GivesUp::kNothing); }

  // While waiting. etcd's lock then gives its place up, and its election does not.
  void Fail(absl::Status why) {
    Finish(std::move(why),
           request_.kind == TurnRequest::Kind::kLock ? GivesUp::kPlace : GivesUp::kNothing);
  }

  void Finish(absl::StatusOr<Turn> turn, GivesUp gives_up) {
    Done<Turn> done;
    WatchHub::StreamId watch = 0;
    bool placed = false;
    {
      const MutexLock lock(mutex_);
      if (done_ == nullptr) return;
      done = std::move(done_);
      done_ = nullptr;
      watch = watch_;
      placed = placed_;
    }
    if (watch != 0) turns_->hub_->Close(watch);
    if (placed && gives_up == GivesUp::kPlace) GiveUpPlace();
    turns_->waiting_->Remove(shared_from_this());
    std::move(done)(std::move(turn));
  }

  void GiveUpPlace() {
    if (turns_->edge_->stopping()) return;
    TxnRequest txn = IfCreatedAt(turn_.key, turn_.revision);
    txn.add_success()->mutable_request_delete_range()->set_key(turn_.key);
    Call call;
    call.token = call_.token;
    inner()->Txn(call, std::move(txn), [](const absl::StatusOr<TxnResponse>&) {});
  }

  const Turns* const turns_;
  Call call_;
  const TurnRequest request_;
  const std::string prefix_;
  Turn turn_;  // The steps', one after the other.

  Mutex mutex_;
  Done<Turn> done_ ABSL_GUARDED_BY(mutex_);      // Null once it was called.
  bool placed_ ABSL_GUARDED_BY(mutex_) = false;  // Its key waits behind another.
  WatchHub::StreamId watch_ ABSL_GUARDED_BY(mutex_) = 0;
};

void Turns::Take(const Call& call, TurnRequest request, const OnGone& on_gone, Done<Turn> done) {
  const auto waiter = std::make_shared<Waiter>(this, call, std::move(request), std::move(done));
  on_gone([weak = std::weak_ptr<Waiter>(waiter)] {
    if (const auto gone = weak.lock()) gone->End(absl::CancelledError());
  });
  waiting_->Add(waiter);
  waiter->Begin();
}

}  // namespace kv::api

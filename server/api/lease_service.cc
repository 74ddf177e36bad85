#include "server/api/lease_service.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/api/answers.h"
#include "server/api/errors.h"
#include "server/kv/kv_machine.h"
#include "server/kv/lease_keeper.h"

namespace kv::api {
namespace {

using etcdserverpb::LeaseGrantRequest;
using etcdserverpb::LeaseGrantResponse;
using etcdserverpb::LeaseKeepAliveRequest;
using etcdserverpb::LeaseKeepAliveResponse;
using etcdserverpb::LeaseLeasesResponse;
using etcdserverpb::LeaseRevokeRequest;
using etcdserverpb::LeaseRevokeResponse;
using etcdserverpb::LeaseTimeToLiveRequest;
using etcdserverpb::LeaseTimeToLiveResponse;
using OnLearner = Edge::OnLearner;

// What a lease adds to the database, by etcd's reckoning.
constexpr int64_t kLeaseCost = 64;
// While the members of a young cluster have not all met.
constexpr absl::Duration kMachineAgain = absl::Milliseconds(50);
constexpr absl::Duration kLeaderLook = absl::Milliseconds(500);

// One LeaseKeepAlive stream. Ended by whoever comes first: the client, an error, or the loss of the
// leader, which is looked for while the stream waits for the client. Lives as long as somebody may
// still call it.
class KeepAliveStream : public std::enable_shared_from_this<KeepAliveStream> {
 public:
  KeepAliveStream(Edge* edge, const Call& call, Reader<LeaseKeepAliveRequest>* reader,
                  Writer<LeaseKeepAliveResponse>* writer)
      : edge_(edge), require_leader_(call.require_leader), reader_(reader), writer_(writer) {}

  void Begin() {
    if (require_leader_) LookForLeader();
    ReadNext();
  }

 private:
  enum class State : uint8_t { kBusy, kReading, kDone };

  void ReadNext() {
    state_ = State::kReading;
    reader_->Read([self = shared_from_this()](std::optional<LeaseKeepAliveRequest> request) {
      State reading = State::kReading;
      if (!self->state_.compare_exchange_strong(reading, State::kBusy)) return;
      if (!request) return self->Finish(absl::OkStatus());
      self->Renew(request->id());
    });
  }

  void Renew(int64_t id) {
    edge_->leases().Renew(id, RequestTimeout(edge_->options()),
                          [self = shared_from_this(), id](LeaseAnswer answer) {
                            if (answer.error != ReplicaError::kNone) {
                              return self->Finish(ToStatus(answer.error));
                            }
                            self->Answer(id, answer.seconds.value_or(0));
                          });
  }

  void Answer(int64_t id, int64_t ttl) {
    LeaseKeepAliveResponse response;
    edge_->FillHeader(response.mutable_header());
    response.mutable_header()->set_revision(edge_->machine().head().revision);
    response.set_id(id);
    response.set_ttl(ttl);
    writer_->Write(std::move(response), [self = shared_from_this()](bool taken) {
      if (!taken) return self->Finish(absl::CancelledError());
      self->ReadNext();
    });
  }

  void LookForLeader() {
    if (state_ == State::kDone || edge_->stopping()) return;
    State reading = State::kReading;
    if (edge_->LeaderLost() && state_.compare_exchange_strong(reading, State::kBusy)) {
      return Finish(ToStatus(Error::kNoLeader));
    }
    edge_->After(kLeaderLook, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->LookForLeader();
    });
  }

  void Finish(absl::Status status) {
    state_ = State::kDone;
    writer_->Finish(std::move(status));
  }

  Edge* const edge_;
  const bool require_leader_;
  Reader<LeaseKeepAliveRequest>* const reader_;
  Writer<LeaseKeepAliveResponse>* const writer_;
  std::atomic<State> state_ = State::kBusy;
};

LeaseTimeToLiveResponse NoSuchLease(int64_t id, int64_t revision) {
  LeaseTimeToLiveResponse response;
  response.mutable_header()->set_revision(revision);
  response.set_id(id);
  response.set_ttl(-1);
  return response;
}

}  // namespace

LeaseService::LeaseService(Edge* edge)
    : edge_(edge), ttl_min_(LeaseTtlMin(edge->options().election_timeout)) {}

void LeaseService::Grant(const Call& call, const LeaseGrantRequest& request,
                         Done<Encoded<LeaseGrantResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (status.ok() && !edge_->HasRoom(kLeaseCost)) {
    return edge_->RaiseNoSpace(call, [done = std::move(done)](absl::Status refused) mutable {
      std::move(done)(std::move(refused));
    });
  }
  if (status.ok() && request.ttl() > kLeaseTtlMax) status = ToStatus(Error::kLeaseTtlTooLarge);
  if (!status.ok()) return std::move(done)(std::move(status));
  LeaseGrantRequest granted;
  granted.set_id(request.id());
  granted.set_ttl(std::max(request.ttl(), ttl_min_));
  AwaitMachine(call, std::move(granted), std::move(done));
}

// A cluster whose members have just met moves to the machine version with leases within ticks.
void LeaseService::AwaitMachine(Call call, LeaseGrantRequest request,
                                Done<Encoded<LeaseGrantResponse>> done) {
  if (edge_->machine().cluster_version() >= kLeaseMachineVersion) {
    if (request.id() == 0) return GrantAny(std::move(call), std::move(request), std::move(done));
    return Propose(edge_, call,
                   EncodeCommand(kvd::internal::LEASE_GRANT, request.SerializeAsString(),
                                 kLeaseMachineVersion),
                   std::move(done));
  }
  call.deadline = edge_->TimeFor(call) - kMachineAgain;
  if (call.deadline <= absl::ZeroDuration() || edge_->stopping()) {
    return std::move(done)(ToStatus(Error::kNotCapable));
  }
  edge_->After(kMachineAgain, [this, call = std::move(call), request = std::move(request),
                               done = std::move(done)]() mutable {
    AwaitMachine(std::move(call), std::move(request), std::move(done));
  });
}

// Under an id of ours, positive as etcd's are.
void LeaseService::GrantAny(Call call, LeaseGrantRequest request,
                            Done<Encoded<LeaseGrantResponse>> done) {
  request.set_id(static_cast<int64_t>(edge_->runtime().Random() &
                                      static_cast<uint64_t>(std::numeric_limits<int64_t>::max())));
  const std::string body = request.SerializeAsString();
  Done<Encoded<LeaseGrantResponse>> taken_again =
      [this, call, request = std::move(request),
       done = std::move(done)](absl::StatusOr<Encoded<LeaseGrantResponse>> response) mutable {
        // Somebody has just this id, or we drew zero.
        const absl::Status status = response.status();
        if (status == ToStatus(Error::kLeaseExists) || status == ToStatus(Error::kLeaseNotFound)) {
          return GrantAny(std::move(call), std::move(request), std::move(done));
        }
        std::move(done)(std::move(response));
      };
  Propose(edge_, call, EncodeCommand(kvd::internal::LEASE_GRANT, body, kLeaseMachineVersion),
          std::move(taken_again));
}

void LeaseService::Revoke(const Call& call, Received<LeaseRevokeRequest> request,
                          Done<Encoded<LeaseRevokeResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  // What no member of a young cluster can have granted yet is not there.
  if (status.ok() && edge_->machine().cluster_version() < kLeaseMachineVersion) {
    status = ToStatus(Error::kLeaseNotFound);
  }
  if (!status.ok()) return std::move(done)(std::move(status));
  Propose(
      edge_, call,
      EncodeCommand(kvd::internal::LEASE_REVOKE, std::move(request.bytes), kLeaseMachineVersion),
      std::move(done));
}

void LeaseService::KeepAlive(const Call& call, Reader<LeaseKeepAliveRequest>* reader,
                             Writer<LeaseKeepAliveResponse>* writer) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (!status.ok()) return writer->Finish(std::move(status));
  std::make_shared<KeepAliveStream>(edge_, call, reader, writer)->Begin();
}

void LeaseService::TimeToLive(const Call& call, const LeaseTimeToLiveRequest& request,
                              Done<Encoded<LeaseTimeToLiveResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  const auto answer =
      [edge = edge_, request](int64_t seconds) -> absl::StatusOr<Encoded<LeaseTimeToLiveResponse>> {
    const int64_t revision = edge->machine().head().revision;
    const std::optional<Lease> lease = edge->machine().FindLease(request.id());
    if (!lease)
      return EncodeAnswer<LeaseTimeToLiveResponse>(*edge, NoSuchLease(request.id(), revision));
    LeaseTimeToLiveResponse response;
    response.mutable_header()->set_revision(revision);
    response.set_id(request.id());
    response.set_ttl(seconds);
    response.set_grantedttl(lease->ttl);
    if (request.keys()) {
      absl::StatusOr<std::vector<std::string>> keys =
          edge->machine().KeysOf(request.id(), edge->options().range_bytes_max);
      if (!keys.ok()) return keys.status();
      for (std::string& key : *keys) response.add_keys(std::move(key));
    }
    return EncodeAnswer<LeaseTimeToLiveResponse>(*edge, std::move(response));
  };
  edge_->Read(call, Edge::Consistency::kLinearizable,
              [edge = edge_, request, answer, time = edge_->TimeFor(call),
               done = std::move(done)](absl::Status read) mutable {
                if (!read.ok()) return std::move(done)(std::move(read));
                edge->leases().TimeLeft(
                    request.id(), time,
                    [edge, request, answer, done = std::move(done)](LeaseAnswer left) mutable {
                      if (left.error != ReplicaError::kNone)
                        return std::move(done)(ToStatus(left.error));
                      if (!left.seconds) {
                        return std::move(done)(EncodeAnswer<LeaseTimeToLiveResponse>(
                            *edge, NoSuchLease(request.id(), edge->machine().head().revision)));
                      }
                      // Shared, because a refused task would be dropped with what it holds.
                      auto shared =
                          std::make_shared<Done<Encoded<LeaseTimeToLiveResponse>>>(std::move(done));
                      absl::Status room = edge->CheckAnswerRoom();
                      if (room.ok()) {
                        room = edge->ReadLater([shared, answer, seconds = *left.seconds] {
                          std::move (*shared)(answer(seconds));
                        });
                      }
                      if (!room.ok()) std::move (*shared)(std::move(room));
                    });
              });
}

void LeaseService::Leases(const Call& call, Done<Encoded<LeaseLeasesResponse>> done) {
  absl::Status status = edge_->Admit(call, OnLearner::kRefused);
  if (!status.ok()) return std::move(done)(std::move(status));
  edge_->Read(call, Edge::Consistency::kLinearizable,
              [edge = edge_, done = std::move(done)](absl::Status read) mutable {
                if (!read.ok()) return std::move(done)(std::move(read));
                edge->leases().InOrder([edge, done = std::move(done)](
                                           const std::vector<int64_t>& ids) mutable {
                  LeaseLeasesResponse response;
                  response.mutable_header()->set_revision(edge->machine().head().revision);
                  for (const int64_t id : ids) response.add_leases()->set_id(id);
                  std::move(done)(EncodeAnswer<LeaseLeasesResponse>(*edge, std::move(response)));
                });
              });
}

}  // namespace kv::api

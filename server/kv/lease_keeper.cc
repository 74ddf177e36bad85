#include "server/kv/lease_keeper.h"

#include <algorithm>
#include <utility>

#include "proto/internal/command.pb.h"
#include "proto/internal/peer.pb.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

// How late a lease may end, and how often leadership is looked at while there are leases.
constexpr absl::Duration kBeat = absl::Milliseconds(100);
constexpr absl::Duration kAgain = absl::Milliseconds(50);
constexpr absl::Duration kConfirm = absl::Seconds(5);
constexpr absl::Duration kPropose = absl::Seconds(5);
// While an alarm forbids that anything ends.
constexpr absl::Duration kRefusedAgain = absl::Seconds(1);
// What ends at once leaves room between the commands for what clients write.
constexpr size_t kExpiredInCommand = 500;
constexpr size_t kExpiriesUnderWay = 2;
constexpr size_t kCheckpointsInCommand = 1000;

std::string ExpiryCommand(uint64_t term, const std::vector<Lease>& leases) {
  kvd::internal::LeaseExpiry expiry;
  expiry.set_term(term);
  for (const Lease& lease : leases) {
    auto* expired = expiry.add_leases();
    expired->set_id(lease.id);
    expired->set_granted(lease.granted);
  }
  return EncodeCommand(kvd::internal::LEASE_EXPIRE, expiry.SerializeAsString(),
                       kLeaseMachineVersion);
}

std::string CheckpointCommand(uint64_t term, const std::vector<Lease>& leases) {
  kvd::internal::LeaseCheckpoints checkpoints;
  checkpoints.set_term(term);
  for (const Lease& lease : leases) {
    auto* checkpoint = checkpoints.add_checkpoints();
    checkpoint->set_id(lease.id);
    checkpoint->set_granted(lease.granted);
    checkpoint->set_remaining(lease.remaining);
  }
  return EncodeCommand(kvd::internal::LEASE_CHECKPOINT, checkpoints.SerializeAsString(),
                       kLeaseMachineVersion);
}

std::string Encode(const LeaseAnswer& answer) {
  kvd::internal::LeaseCallAnswer message;
  message.set_error(static_cast<uint32_t>(answer.error));
  if (answer.seconds) message.set_seconds(*answer.seconds);
  return message.SerializeAsString();
}

std::optional<LeaseAnswer> Decode(std::string_view bytes) {
  kvd::internal::LeaseCallAnswer message;
  if (!message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())) ||
      message.error() > static_cast<uint32_t>(ReplicaError::kUnknown)) {
    return std::nullopt;
  }
  LeaseAnswer answer{.error = static_cast<ReplicaError>(message.error())};
  if (message.has_seconds()) answer.seconds = message.seconds();
  return answer;
}

}  // namespace

LeaseKeeper::LeaseKeeper(Parts parts)
    : parts_(std::move(parts)),
      lessor_(parts_.election_timeout),
      loop_(parts_.runtime->NewLoop("lease")) {
  door_->Open(loop_.get());
}

LeaseKeeper::~LeaseKeeper() { Close(); }

void LeaseKeeper::Close() {
  door_->Close();
  loop_->Stop();
}

void LeaseKeeper::OnLeases(std::vector<LeaseChange> changes) {
  for (const LeaseChange& change : changes) {
    const LeaseMetrics& metrics = parts_.metrics;
    if (change.kind == LeaseChange::Kind::kGranted && metrics.granted) {
      metrics.granted(change.lease.ttl);
    }
    if (change.kind == LeaseChange::Kind::kRevoked || change.kind == LeaseChange::Kind::kExpired) {
      if (metrics.revoked) metrics.revoked();
    }
  }
  if (!hears_.load()) return;
  door_->Post([this, changes = std::move(changes)] {
    loop_->AssertCurrent();
    Take(changes);
  });
}

void LeaseKeeper::OnLeadership() {
  // Before anybody loads the leases: what the machine does from here on is heard.
  if (parts_.leadership().leads) hears_.store(true);
  door_->Post([this] {
    loop_->AssertCurrent();
    Look();
  });
}

bool LeaseKeeper::LeadsIn(uint64_t term) const {
  const Leadership leadership = parts_.leadership();
  return leadership.leads && leadership.term == term;
}

// Nothing is taken over while there are no leases: the first one that is granted brings us here
// again.
void LeaseKeeper::Look() {
  const Leadership leadership = parts_.leadership();
  if (!leadership.leads) return Follow();
  hears_.store(true);
  if (leadership.term == term_ || parts_.lease_count() == 0) return;
  Follow();
  hears_.store(true);
  term_ = leadership.term;
  // Confirmed, what every earlier leader had appended is applied here: the leases are all there,
  // and nobody renews them elsewhere.
  parts_.confirm(kConfirm, [this, door = door_, term = term_](ReadResult result) {
    door->Post([this, term, result] {
      loop_->AssertCurrent();
      OnEstablished(term, result);
    });
  });
}

void LeaseKeeper::OnEstablished(uint64_t term, ReadResult result) {
  if (term != term_) return;
  if (result.error != ReplicaError::kNone || !LeadsIn(term)) {
    Follow();
    return BeatLater();
  }
  lessor_.Begin(parts_.leases(), Now());
  established_ = true;
  BeatLater();
}

void LeaseKeeper::Follow() {
  hears_.store(false);
  lessor_.Clear();
  established_ = false;
  term_ = 0;
}

void LeaseKeeper::Take(const std::vector<LeaseChange>& changes) {
  if (!established_) return Look();
  for (const LeaseChange& change : changes) {
    switch (change.kind) {
      case LeaseChange::Kind::kGranted:
        lessor_.Granted(change.lease, Now());
        break;
      case LeaseChange::Kind::kExpired:
        if (parts_.metrics.expired) parts_.metrics.expired();
        lessor_.Ended(change.lease.id);
        break;
      case LeaseChange::Kind::kRevoked:
        lessor_.Ended(change.lease.id);
        break;
      case LeaseChange::Kind::kCheckpointed:
        break;
    }
  }
  BeatLater();
}

void LeaseKeeper::BeatLater() {
  if (beating_) return;
  beating_ = true;
  loop_->PostAfter(kBeat, [this] {
    loop_->AssertCurrent();
    beating_ = false;
    Beat();
  });
}

void LeaseKeeper::Beat() {
  Look();
  if (term_ == 0) {
    // A leadership that could not be confirmed yet is looked at again.
    if (parts_.leadership().leads && parts_.lease_count() > 0) BeatLater();
    return;
  }
  if (!established_) return;
  Expire();
  Checkpoint();
  if (!lessor_.empty()) BeatLater();
}

void LeaseKeeper::Expire() {
  while (established_ && expiring_ < kExpiriesUnderWay) {
    std::vector<Lease> leases = lessor_.TakeExpired(Now(), kExpiredInCommand);
    if (leases.empty()) return;
    ++expiring_;
    std::string command = ExpiryCommand(term_, leases);
    parts_.propose(
        std::move(command), kPropose,
        [this, door = door_, term = term_,
         leases = std::move(leases)](ProposalResult result) mutable {
          door->Post([this, term, leases = std::move(leases), result = std::move(result)] {
            loop_->AssertCurrent();
            OnExpired(term, leases, result);
          });
        });
  }
}

void LeaseKeeper::OnExpired(uint64_t term, const std::vector<Lease>& leases,
                            const ProposalResult& result) {
  --expiring_;
  if (term != term_ || !established_) return;
  if (result.error == ReplicaError::kNone &&
      (result.reply.status.ok() || MUTANT("lease.refused_expiry_is_done"))) {
    return Expire();
  }
  if (result.error == ReplicaError::kNone) {
    MARK("lease.expiry_refused");
    loop_->PostAfter(kRefusedAgain, [this, term, leases] {
      loop_->AssertCurrent();
      if (term == term_ && established_) ExpireAgain(leases);
    });
    return;
  }
  ExpireAgain(leases);
}

void LeaseKeeper::ExpireAgain(const std::vector<Lease>& leases) {
  lessor_.Retry(leases, Now());
  BeatLater();
}

// One command at a time; what became of it does not matter, the next comes in its time.
void LeaseKeeper::Checkpoint() {
  if (checkpointing_) return;
  const std::vector<Lease> due = lessor_.TakeCheckpoints(Now(), kCheckpointsInCommand);
  if (due.empty()) return;
  checkpointing_ = true;
  parts_.propose(CheckpointCommand(term_, due), kPropose,
                 [this, door = door_](const ProposalResult&) {
                   door->Post([this] {
                     loop_->AssertCurrent();
                     checkpointing_ = false;
                   });
                 });
}

void LeaseKeeper::Renew(int64_t id, absl::Duration deadline, Done done) {
  Begin(Ask::kRenew, id, deadline, /*forwarded=*/false, std::move(done));
}

void LeaseKeeper::TimeLeft(int64_t id, absl::Duration deadline, Done done) {
  Begin(Ask::kTimeLeft, id, deadline, /*forwarded=*/false, std::move(done));
}

void LeaseKeeper::Serve(std::string_view request, absl::Duration deadline, Parts::Answered done) {
  kvd::internal::LeaseCall call;
  if (!call.ParseFromArray(request.data(), static_cast<int>(request.size()))) {
    std::move(done)(MakeStatus(absl::StatusCode::kUnavailable, "this is no call about a lease"));
    return;
  }
  const Ask ask = call.ask() == kvd::internal::LeaseCall::TIME_LEFT ? Ask::kTimeLeft : Ask::kRenew;
  Begin(ask, call.id(), deadline, /*forwarded=*/true,
        [done = std::move(done)](LeaseAnswer answer) mutable { std::move(done)(Encode(answer)); });
}

void LeaseKeeper::Begin(Ask ask, int64_t id, absl::Duration deadline, bool forwarded, Done done) {
  Request request{
      .ask = ask,
      .id = id,
      .deadline = Now() + deadline,
      .forwarded = forwarded,
      .caller = Caller<LeaseAnswer>(std::move(done), {.error = ReplicaError::kStopped})};
  door_->Post([this, request = std::move(request)]() mutable {
    loop_->AssertCurrent();
    Handle(std::move(request));
  });
}

void LeaseKeeper::Handle(Request request) {
  const absl::Duration left = request.deadline - Now();
  const Leadership leadership = parts_.leadership();
  if (left <= absl::ZeroDuration() || (!leadership.leads && request.forwarded)) {
    return request.caller.Answer({.error = ReplicaError::kNoLeader});
  }
  if (!leadership.leads) return Forward(std::move(request));
  // A leader that was deposed and does not know it must promise nothing: the next one may end the
  // lease by what it knows.
  parts_.confirm(left, [this, door = door_, term = leadership.term,
                        request = std::move(request)](ReadResult result) mutable {
    door->Post([this, term, result, request = std::move(request)]() mutable {
      loop_->AssertCurrent();
      OnConfirmed(std::move(request), result, term);
    });
  });
}

void LeaseKeeper::OnConfirmed(Request request, ReadResult result, uint64_t term) {
  if (result.error != ReplicaError::kNone) return request.caller.Answer({.error = result.error});
  if (!LeadsIn(term)) return HandleLater(std::move(request));
  if (!parts_.find_lease(request.id)) return request.caller.Answer({});
  if (!established_ || term_ != term) {
    Look();
    return HandleLater(std::move(request));
  }
  if (request.ask == Ask::kTimeLeft) {
    request.caller.Answer({.seconds = lessor_.SecondsLeft(request.id, Now())});
  } else {
    AnswerRenewal(std::move(request));
  }
}

void LeaseKeeper::AnswerRenewal(Request request) {
  const std::optional<Lessor::Renewal> renewal = lessor_.Renew(request.id, Now());
  if (!renewal) return request.caller.Answer({});
  if (parts_.metrics.renewed) parts_.metrics.renewed();
  const int64_t ttl = renewal->ttl;
  if (!renewal->clears) return request.caller.Answer({.seconds = ttl});
  MARK("lease.renewal_takes_checkpoint_back");
  request.caller.Otherwise({.error = ReplicaError::kUnknown});
  parts_.propose(
      CheckpointCommand(term_, {*renewal->clears}),
      std::max(request.deadline - Now(), absl::ZeroDuration()),
      [this, door = door_, term = term_, ttl, lease = *renewal->clears, after = renewal->after,
       request = std::move(request)](const ProposalResult& result) mutable {
        if (result.error != ReplicaError::kNone) {
          return request.caller.Answer({.error = result.error});
        }
        // Another leader's entry: the machine did not do it.
        const bool done = result.position.term == term;
        if (done) request.caller.Answer({.seconds = ttl});
        door->Post([this, done, lease, after, request = std::move(request)]() mutable {
          loop_->AssertCurrent();
          if (done) return lessor_.Cleared(lease, after);
          Handle(std::move(request));
        });
      });
}

void LeaseKeeper::HandleLater(Request request) {
  loop_->PostAfter(kAgain, [this, request = std::move(request)]() mutable {
    loop_->AssertCurrent();
    Handle(std::move(request));
  });
}

void LeaseKeeper::Forward(Request request) {
  kvd::internal::LeaseCall call;
  call.set_ask(request.ask == Ask::kRenew ? kvd::internal::LeaseCall::RENEW
                                          : kvd::internal::LeaseCall::TIME_LEFT);
  call.set_id(request.id);
  parts_.ask_leader(
      call.SerializeAsString(), request.deadline - Now(),
      [this, door = door_,
       request = std::move(request)](absl::StatusOr<std::string> answer) mutable {
        door->Post([this, answer = std::move(answer), request = std::move(request)]() mutable {
          loop_->AssertCurrent();
          OnForwarded(std::move(request), std::move(answer));
        });
      });
}

// Asking again is harmless, so only the deadline ends it.
void LeaseKeeper::OnForwarded(Request request, absl::StatusOr<std::string> answer) {
  std::optional<LeaseAnswer> decoded;
  if (answer.ok()) decoded = Decode(*answer);
  const bool led = decoded && decoded->error != ReplicaError::kNoLeader &&
                   decoded->error != ReplicaError::kStopped;
  if (!led) return HandleLater(std::move(request));
  request.caller.Answer(*decoded);
}

void LeaseKeeper::InOrder(absl::AnyInvocable<void(std::vector<int64_t>) &&> done) {
  door_->Post([this, caller = Caller<std::vector<int64_t>>(std::move(done), {})]() mutable {
    loop_->AssertCurrent();
    std::vector<int64_t> ids;
    if (established_ && LeadsIn(term_)) {
      ids = lessor_.InOrder();
    } else {
      std::vector<Lease> leases = parts_.leases();
      std::ranges::sort(leases, {}, [](const Lease& lease) {
        return std::pair(lease.remaining == 0 ? lease.ttl : lease.remaining, lease.id);
      });
      for (const Lease& lease : leases) ids.push_back(lease.id);
    }
    caller.Answer(std::move(ids));
  });
}

}  // namespace kv

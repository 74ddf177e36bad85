// Ends leases and keeps them alive: the part of a member that acts on what its Lessor says.
//
// Every member has one; only the leader's has anything to do. It hears from the machine what became
// of leases, and from the replica that this member leads; then it confirms the leadership, takes
// the leases over, and has the log end those whose time is over. What clients ask is answered here
// on the leader and carried to it elsewhere.
//
// Public functions may be called from any thread and never block. Every `done` is called exactly
// once; with kStopped when the keeper goes.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/kv/lease_commands.h"
#include "server/kv/lessor.h"
#include "server/replica/caller.h"
#include "server/replica/door.h"
#include "server/replica/result.h"
#include "server/replica/runtime.h"

namespace kv {

// What a client is told of a lease.
struct LeaseAnswer {
  ReplicaError error = ReplicaError::kNone;
  std::optional<int64_t> seconds = std::nullopt;  // Nothing: there is no such lease.
};

// Worth counting, as it happens, on loops. Empty ones are skipped.
struct LeaseMetrics {
  std::function<void(int64_t ttl)> granted;  // Applied here, whoever granted it.
  std::function<void()> revoked;             // Applied here, expired ones too.
  std::function<void()> renewed;             // By this member as the leader.
  std::function<void()> expired;             // The same.
};

inline constexpr char kLeaseCall[] = "lease";

class LeaseKeeper {
 public:
  using Done = absl::AnyInvocable<void(LeaseAnswer) &&>;
  // Whether this member leads, and in which term.
  struct Leadership {
    bool leads = false;
    uint64_t term = 0;
  };
  // What it works with. All must outlive Close().
  struct Parts {
    Runtime* runtime = nullptr;
    // Of this member's machine.
    std::function<std::vector<Lease>()> leases;
    std::function<std::optional<Lease>(int64_t id)> find_lease;
    std::function<size_t()> lease_count;
    // Of its replica: leading() before term(), Propose, Read, AskLeader.
    std::function<Leadership()> leadership;
    std::function<void(std::string command, absl::Duration deadline,
                       absl::AnyInvocable<void(ProposalResult) &&> done)>
        propose;
    std::function<void(absl::Duration deadline, absl::AnyInvocable<void(ReadResult) &&> done)>
        confirm;
    using Answered = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
    std::function<void(std::string request, absl::Duration deadline, Answered done)> ask_leader;
    absl::Duration election_timeout;
    LeaseMetrics metrics;
  };

  explicit LeaseKeeper(Parts parts);
  ~LeaseKeeper();
  LeaseKeeper(const LeaseKeeper&) = delete;
  LeaseKeeper& operator=(const LeaseKeeper&) = delete;
  // Touches none of its parts any more once this returns, and answers everybody.
  void Close();

  // From the machine, on the apply loop.
  void OnLeases(std::vector<LeaseChange> changes);
  // From the replica: this member leads now, or does not any more.
  void OnLeadership();

  // Gives the lease its whole time again, once this is certain to hold: `seconds` is its TTL.
  void Renew(int64_t id, absl::Duration deadline, Done done);
  // `seconds`: what is left.
  void TimeLeft(int64_t id, absl::Duration deadline, Done done);
  // The leases of this member's machine by what is left: exactly at the leader, elsewhere as the
  // latest checkpoints say.
  void InOrder(absl::AnyInvocable<void(std::vector<int64_t>) &&> done);

  // Another member's Renew or TimeLeft (LeaseCall in proto/internal/peer.proto).
  void Serve(std::string_view request, absl::Duration deadline, Parts::Answered done);

 private:
  enum class Ask : uint8_t { kRenew, kTimeLeft };
  struct Request {
    Ask ask = Ask::kRenew;
    int64_t id = 0;
    absl::Duration deadline;  // Uptime.
    bool forwarded = false;   // Came from another member: not passed on.
    Caller<LeaseAnswer> caller;
  };
#define KV_LEASE_LOOP ABSL_EXCLUSIVE_LOCKS_REQUIRED(*loop_)
  void Begin(Ask ask, int64_t id, absl::Duration deadline, bool forwarded, Done done);
  void Handle(Request request) KV_LEASE_LOOP;
  void HandleLater(Request request) KV_LEASE_LOOP;
  void Forward(Request request) KV_LEASE_LOOP;
  void OnForwarded(Request request, absl::StatusOr<std::string> answer) KV_LEASE_LOOP;
  void OnConfirmed(Request request, ReadResult result, uint64_t term) KV_LEASE_LOOP;
  void AnswerRenewal(Request request) KV_LEASE_LOOP;

  void Look() KV_LEASE_LOOP;
  void OnEstablished(uint64_t term, ReadResult result) KV_LEASE_LOOP;
  void Follow() KV_LEASE_LOOP;
  void Take(const std::vector<LeaseChange>& changes) KV_LEASE_LOOP;
  void BeatLater() KV_LEASE_LOOP;
  void Beat() KV_LEASE_LOOP;
  void Expire() KV_LEASE_LOOP;
  void OnExpired(uint64_t term, const std::vector<Lease>& leases,
                 const ProposalResult& result) KV_LEASE_LOOP;
  void ExpireAgain(const std::vector<Lease>& leases) KV_LEASE_LOOP;
  void Checkpoint() KV_LEASE_LOOP;
#undef KV_LEASE_LOOP
  absl::Duration Now() const { return parts_.runtime->Uptime(); }
  bool LeadsIn(uint64_t term) const;

  // Constant after construction.
  const Parts parts_;
  const std::shared_ptr<Door> door_ = std::make_shared<Door>();

  std::atomic<bool> hears_ = false;  // Changes matter: this member leads, or is about to.

  // Guarded by loop_.
  Lessor lessor_ ABSL_GUARDED_BY(*loop_);
  uint64_t term_ ABSL_GUARDED_BY(*loop_) = 0;         // Led, or being taken over; 0: neither.
  bool established_ ABSL_GUARDED_BY(*loop_) = false;  // The lessor has all leases of term_.
  bool beating_ ABSL_GUARDED_BY(*loop_) = false;
  size_t expiring_ ABSL_GUARDED_BY(*loop_) = 0;  // Commands under way.
  bool checkpointing_ ABSL_GUARDED_BY(*loop_) = false;

  const std::unique_ptr<Loop> loop_;
};

}  // namespace kv

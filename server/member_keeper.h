// One member's part in the coming and going of members without a person's hand: on the leader it
// carries out what server/cluster decides (upkeep.h, admission.h, permits.h), elsewhere it carries
// requests there; for its own process it asks to stop or to leave.
//
// Works on the node's loop. AskPermit and Leave: any thread; `done` is called once, on that loop or
// when the keeper goes.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/admission.h"
#include "server/cluster/permits.h"
#include "server/cluster/upkeep.h"
#include "server/kv/kv_machine.h"
#include "server/replica/caller.h"
#include "server/replica/door.h"
#include "server/replica/network.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"

namespace kv {

class MemberKeeper {
 public:
  struct Parts {  // All outlive it.
    Runtime* runtime = nullptr;
    Network* network = nullptr;
    Replica* replica = nullptr;
    KvMachine* machine = nullptr;
    Loop* loop = nullptr;
    cluster::DesiredSource* desired = nullptr;  // Null: nobody says how many are wanted.
    std::function<void(std::string_view line)> log;
  };
  struct Options {
    cluster::UpkeepOptions upkeep;
    absl::Duration poll_interval = absl::Seconds(10);
    absl::Duration note_interval = absl::Seconds(10);
    cluster::Standing self;  // Of this process, for a Hello; its token is the cluster's.
  };

  MemberKeeper(Parts parts, Options options);
  ~MemberKeeper();
  MemberKeeper(const MemberKeeper&) = delete;
  MemberKeeper& operator=(const MemberKeeper&) = delete;

  void Start();
  void Tick();  // About once a second.

  // Empty: done. Otherwise: what is waited for; ask again. An error: nobody could be asked.
  using Answered = absl::AnyInvocable<void(absl::StatusOr<std::string>) &&>;
  // Whether this process may end now and come back.
  void AskPermit(cluster::PermitReason reason, Answered done);
  // Whether this member has been removed; until then it votes on.
  void Leave(Answered done);
  // Somebody said that this member was removed, while it was away. The node's loop.
  bool removed() const { return removed_; }

 private:
  using BytesCaller = Caller<absl::StatusOr<std::string>>;
  struct Joining {  // A disk asks to be taken in.
    cluster::JoinRequest request;
    absl::Duration until;
    BytesCaller caller;
    size_t awaited = 0;  // Answers of those whose place it would take.
    std::set<std::string> answering;
  };

  void Serve(const char* method, bool from_anybody,
             void (MemberKeeper::*serve)(std::string, absl::Duration, BytesCaller));
  void OnJoin(std::string request, absl::Duration deadline, BytesCaller caller);
  void OnAdmit(std::string request, absl::Duration deadline, BytesCaller caller);
  void AskRivals(const std::shared_ptr<Joining>& joining);
  void Admit(Joining& joining);
  void TakeIn(cluster::JoinDecision decision, Joining& joining);
  void OnLeave(std::string request, absl::Duration deadline, BytesCaller caller);
  void OnPermit(std::string request, absl::Duration deadline, BytesCaller caller);
  void NotePermit(const cluster::PermitRequest& request, absl::Duration deadline,
                  BytesCaller caller);
  template <typename Answer>
  static BytesCaller Tells(Answered done, absl::StatusOr<Answer> (*decode)(std::string_view),
                           bool Answer::* yes);
  cluster::LeaveRequest OwnDeparture() const;
  void AskLeader(const char* method, std::string request, absl::Duration deadline,
                 void (MemberKeeper::*serve)(std::string, absl::Duration, BytesCaller),
                 BytesCaller caller);

  void OnAskedWhetherRemoved(std::string request, absl::Duration deadline, BytesCaller caller);
  void AskWhetherRemoved(const ReplicaStatus& status);

  bool Leads();  // And has begun to look after the members.
  void Look(const ReplicaStatus& status);
  void ReadCount();
  void Change(raft::MemberChange change, std::string what);
  void HandOver(MemberId to);
  void Say(const std::vector<std::string>& sentences);
  void NoteAcknowledged(const ReplicaStatus& status);
  void TakeBackPermit();
  void GiveBackPermit(const StopPermit& permit);
  void GiveBackOwnPermit();
  cluster::Permits::Facts PermitFacts() const;
  absl::Duration Left(absl::Duration until) const;

  const Parts parts_;
  const Options options_;
  const std::shared_ptr<Door> door_;
  // Of the leadership in `term_`.
  std::optional<cluster::Upkeep> upkeep_;
  std::optional<cluster::Permits> permits_;
  Term term_ = 0;
  bool changing_ = false;
  bool handing_over_ = false;
  bool giving_back_ = false;
  bool removed_ = false;
  bool asking_whether_removed_ = false;
  size_t asked_ = 0;
  bool reading_count_ = false;
  std::optional<absl::Duration> count_read_;
  absl::Duration noted_;  // When it was last noted who acknowledged what.
  std::vector<std::string> said_;
};

}  // namespace kv

// How members come and go by themselves, as bytes: a blank disk asks to be taken in ("join"), a
// member whose slot is no longer wanted asks to be let go ("leave"), one that hears of no leader
// asks whether it was ("removed"), one that was told to stop asks whether it may now ("permit").
// Each may be asked again without harm. What the leader answers is decided next door.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cluster/founding.h"
#include "server/raft/members.h"

namespace kv::cluster {

inline constexpr char kJoinCall[] = "join";
inline constexpr char kLeaveCall[] = "leave";
inline constexpr char kRemovedCall[] = "removed";
inline constexpr char kPermitCall[] = "permit";

struct JoinRequest {
  std::string name;  // Of the slot.
  std::string node_uuid;
  std::vector<std::string> peer_urls;
  std::vector<std::string> client_urls;
  std::string version;           // Of the build, for the log.
  uint32_t machine_version = 0;  // The newest that the build can run.
  uint32_t protocol_min = kProtocolMin;
  uint32_t protocol_max = kProtocolMax;
  std::string token_hash;
  std::optional<uint64_t> slot;  // Its number, if slots are numbered.
  friend bool operator==(const JoinRequest&, const JoinRequest&) = default;
};

struct JoinAnswer {
  enum class Kind {
    kGranted,  // A learner with `member_id`, which `members` holds.
    kRefused,  // Final for this disk under these settings; `sentence` has the next step.
    kRetry,    // Not now; `sentence` says what for.
  };
  Kind kind = Kind::kRetry;
  std::string sentence;
  uint64_t cluster_id = 0;
  MemberId member_id = 0;
  raft::Members members{};
  friend bool operator==(const JoinAnswer&, const JoinAnswer&) = default;
};

struct LeaveRequest {
  MemberId member_id = 0;
  std::string node_uuid;
  uint64_t boot_epoch = 0;
  friend bool operator==(const LeaveRequest&, const LeaveRequest&) = default;
};

struct LeaveAnswer {
  bool done = false;     // The removal is committed.
  std::string sentence;  // Why not yet.
  friend bool operator==(const LeaveAnswer&, const LeaveAnswer&) = default;
};

enum class PermitReason {
  kRestart,
  kUnknown,  // Whoever could say why did not answer.
};

struct PermitRequest {
  MemberId member_id = 0;
  uint64_t boot_epoch = 0;  // Of the start that is ending.
  PermitReason reason = PermitReason::kRestart;
  friend bool operator==(const PermitRequest&, const PermitRequest&) = default;
};

struct PermitAnswer {
  bool granted = false;
  std::string sentence;  // What is waited for.
  friend bool operator==(const PermitAnswer&, const PermitAnswer&) = default;
};

// An error of decoding is a sentence; another protocol is one, too.
std::string Encode(const JoinRequest& request);
absl::StatusOr<JoinRequest> DecodeJoinRequest(std::string_view bytes);
std::string Encode(const JoinAnswer& answer);
absl::StatusOr<JoinAnswer> DecodeJoinAnswer(std::string_view bytes);
std::string Encode(const LeaveRequest& request);
absl::StatusOr<LeaveRequest> DecodeLeaveRequest(std::string_view bytes);
std::string Encode(const LeaveAnswer& answer);
absl::StatusOr<LeaveAnswer> DecodeLeaveAnswer(std::string_view bytes);
std::string Encode(const PermitRequest& request);
absl::StatusOr<PermitRequest> DecodePermitRequest(std::string_view bytes);
std::string Encode(const PermitAnswer& answer);
absl::StatusOr<PermitAnswer> DecodePermitAnswer(std::string_view bytes);

}  // namespace kv::cluster

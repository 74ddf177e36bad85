// One look at every member of a cluster.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "client/kvctl/session.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::kvctl {

struct Line {
  std::string endpoint;
  std::string name;
  uint64_t id = 0;
  std::optional<pb::StatusResponse> status;
  std::string error;  // Why there is no status.
};

struct Picture {
  std::vector<Line> lines;
  uint64_t leader = 0;
  uint64_t leader_index = 0;  // What lag is measured from.
};

// Asks the endpoints that were named, and the members whose status that did not bring at their own.
// Unavailable if nobody answers.
absl::StatusOr<Picture> TakeSurvey(const Session& session);

std::string_view Role(const pb::StatusResponse& status);
// Log entries that a member has not applied and the leader has.
uint64_t Lag(const Picture& picture, const pb::StatusResponse& status);
// Why there is no status, and what the member complains about.
std::string Errors(const Line& line);
// Without the scheme.
std::string Address(std::string endpoint);

}  // namespace kv::kvctl

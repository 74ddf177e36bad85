// From a command line to the request it stands for; txn reads its lines with the same rules.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/kvctl/arguments.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::kvctl {

const std::vector<Flag>& PutFlags();
const std::vector<Flag>& GetFlags();
const std::vector<Flag>& DeleteFlags();
const std::vector<Flag>& WatchFlags();

// Without a value on the command line and without --ignore-value, the value is left empty and
// `*value_missing` is set.
absl::StatusOr<etcdserverpb::PutRequest> PutRequestFrom(const Arguments& arguments,
                                                        bool* value_missing);
absl::StatusOr<etcdserverpb::RangeRequest> RangeRequestFrom(const Arguments& arguments);
absl::StatusOr<etcdserverpb::DeleteRangeRequest> DeleteRequestFrom(const Arguments& arguments);
absl::StatusOr<etcdserverpb::WatchCreateRequest> WatchRequestFrom(const Arguments& arguments);

// "l" or "s"; true for serializable.
absl::StatusOr<bool> Serializable(const std::string& consistency);

// The end of the range of all keys that begin with `prefix`.
std::string PrefixEnd(std::string prefix);

}  // namespace kv::kvctl

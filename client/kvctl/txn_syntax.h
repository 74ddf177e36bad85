// The lines that `kvctl txn` reads: compares such as `mod("key") > "0"`, and put, get and del
// commands whose words may be quoted. A line that cannot be read is OutOfRange; a command that can
// be read and makes no sense fails as it does on the command line.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::kvctl {

// Words separated by space; 'single' quotes hold plain text, "double" ones Go's escapes.
absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view line);

// A Go string literal ("…" or `…`) at the beginning of `text`, which is cut off; nothing if there
// is none.
std::optional<std::string> TakeQuoted(std::string_view& text);

absl::StatusOr<etcdserverpb::Compare> ParseCompare(std::string_view line);
absl::StatusOr<etcdserverpb::RequestOp> ParseOperation(std::string_view line);

}  // namespace kv::kvctl

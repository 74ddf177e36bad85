// The flags that kvd knows, as one table: their names, defaults and help, and how a value is read.
//
// A flag of etcd's that means nothing here stands in the table, too, with what to say about it.
// Errors of `apply` say only what is allowed ("must be …"); whoever asked names setting and value.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/config.h"

namespace kv {

enum class FlagKind {
  kValue,
  kList,    // A value; a YAML file may give a sequence.
  kSwitch,  // true or false; on the command line --flag alone means true.
};
enum class FlagStance {
  kUsed,
  kIgnored,  // Accepted with a warning that says `help`.
  kTls,      // Refused: TLS is not there yet, and ignoring it would serve in the clear.
  kRefused,  // Refused: ignoring it would do something else than was asked; `help` says what to do.
};

struct Flag {
  std::string_view name;
  FlagStance stance = FlagStance::kUsed;
  FlagKind kind = FlagKind::kValue;
  std::string_view help;
  std::string_view group = {};     // Used ones only, from here on.
  std::string_view fallback = {};  // The default, as help and errors show it.
  absl::Status (*apply)(std::string_view, Config&) = nullptr;
  bool reloads = false;  // May change while kvd runs.
};

// Ours first, group by group; then etcd's others.
const std::vector<Flag>& Flags();
const Flag* FindFlag(std::string_view name);

// Reads --auto-compaction-retention by --auto-compaction-mode, once both are known. An error names
// both.
absl::Status ReadAutoCompaction(Config& config);

// KVD_DATA_DIR for data-dir.
std::string VariableOf(std::string_view flag);
// What kvd --help prints.
std::string FlagsHelp();

}  // namespace kv

// Programs that kvctl runs for its user.
#pragma once

#include <string>
#include <vector>

namespace kv::kvctl {

struct ProgramEnd {
  int code = 0;         // What a shell would say.
  std::string failure;  // Empty: there was none.
};

// With our environment and `variables` besides; waits for its end. It can be interrupted even where
// we cannot.
ProgramEnd RunProgram(std::vector<std::string> program, std::vector<std::string> variables);

}  // namespace kv::kvctl

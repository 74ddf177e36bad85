// kvctl: from the words of a command line to an exit code.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "client/kvctl/arguments.h"
#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"

extern char** environ;

namespace kv::kvctl {
namespace {

std::map<std::string, std::string> Environment() {
  std::map<std::string, std::string> all;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    std::string text = *entry;
    size_t equals = text.find('=');
    if (equals != std::string::npos) all.emplace(text.substr(0, equals), text.substr(equals + 1));
  }
  return all;
}

int FailBadly(const absl::Status& status) { return Fail(kError, Text(status)); }

int Run(const std::vector<std::string>& words) {
  absl::StatusOr<Arguments> arguments = Parse(Root(), GlobalFlags(), words);
  if (!arguments.ok()) return FailBadly(arguments.status());
  if (arguments->help || arguments->command->run == nullptr) {
    Print(Help(Root(), GlobalFlags(), *arguments));
    return kOk;
  }
  if (!arguments->command->offline) {
    std::vector<std::string> warnings;
    absl::Status status =
        AddEnvironment(Root(), GlobalFlags(), Environment(), "KVCTL", *arguments, warnings);
    for (const std::string& warning : warnings) Warn(warning);
    if (!status.ok()) return FailBadly(status);
  }
  // Set before the first connection is made: gRPC reads it once. What it logs by itself is noise;
  // every failure reaches the user through a status.
  setenv("GRPC_VERBOSITY", arguments->Bool("debug") ? "DEBUG" : "NONE", 0);
  return arguments->command->run(*arguments);
}

}  // namespace
}  // namespace kv::kvctl

int main(int argc, char** argv) {
  using namespace kv::kvctl;
  int code = Run(std::vector<std::string>(argv + 1, argv + argc));
  if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) {
    code = Fail(kInputOutput, "standard output cannot be written");
  }
  // Threads of gRPC's may still be cleaning up; nothing of theirs is wanted any more.
  std::fflush(stderr);
  std::_Exit(code);
}

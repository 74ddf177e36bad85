#include <fmt/format.h>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

int Version(const Arguments&) {
  Print("kvctl version: " KVD_VERSION "\nAPI version: 3.7\n");
  return kOk;
}

int Options(const Arguments&) {
  Print(
      "These flags can be given to every command, and as KVCTL_<NAME> in the environment, for\n"
      "example KVCTL_ENDPOINTS or KVCTL_WRITE_OUT (not both ways at once):\n\n" +
      FlagTable(GlobalFlags()));
  return kOk;
}

int Complete(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kError, fmt::format("accepts 1 arg(s), received {}; name bash, zsh or fish",
                                    arguments.rest.size()));
  }
  const std::string& shell = arguments.rest[0];
  if (shell != "bash" && shell != "zsh" && shell != "fish") {
    return Fail(kError, fmt::format("invalid argument \"{}\" for \"kvctl completion\"; there is "
                                    "bash, zsh and fish",
                                    shell));
  }
  Print(Completion(Root(), GlobalFlags(), shell));
  return kOk;
}

int ShowHelp(const Arguments& arguments) {
  absl::StatusOr<Arguments> named = Parse(Root(), GlobalFlags(), arguments.rest);
  if (!named.ok()) {
    return Fail(kError, Text(named.status()));
  }
  Print(Help(Root(), GlobalFlags(), *named));
  return kOk;
}

}  // namespace

std::vector<Command> UtilityCommands() {
  constexpr std::string_view kGroup = "Other";
  return {
      {.name = "completion",
       .group = kGroup,
       .summary = "Prints a completion script for bash, zsh or fish",
       .arguments = "<shell>",
       .text = "Examples:\n"
               "  source <(kvctl completion bash)\n"
               "  kvctl completion bash > /etc/bash_completion.d/kvctl\n"
               "  kvctl completion zsh > \"${fpath[1]}/_kvctl\"\n"
               "  kvctl completion fish > ~/.config/fish/completions/kvctl.fish",
       .run = Complete,
       .offline = true},
      {.name = "help",
       .group = kGroup,
       .summary = "Tells about a command",
       .arguments = "[command]",
       .run = ShowHelp,
       .offline = true},
      {.name = "options",
       .group = kGroup,
       .summary = "Lists the flags that every command takes",
       .run = Options,
       .offline = true},
      {.name = "version",
       .group = kGroup,
       .summary = "Prints the version",
       .run = Version,
       .offline = true},
  };
}

const Command& Root() {
  static const Command root = [] {
    Command made{.name = "kvctl",
                 .summary =
                     "The command line of kvd, a replicated key-value store that speaks the "
                     "etcd v3 API."};
    made.children = KvCommands();
    made.children.push_back(TxnCommand());
    made.children.push_back(WatchCommand());
    made.children.push_back(LeaseCommand());
    for (Command& command : LockCommands()) made.children.push_back(std::move(command));
    made.children.push_back(ImportCommand());
    made.children.push_back(ExportCommand());
    for (Command& command : BrowseCommands()) made.children.push_back(std::move(command));
    made.children.push_back(StatusCommand());
    made.children.push_back(TopCommand());
    made.children.push_back(EndpointCommand());
    made.children.push_back(MemberCommand());
    made.children.push_back(SnapshotCommand());
    for (Command& command : MaintenanceCommands()) made.children.push_back(std::move(command));
    made.children.push_back(CheckCommand());
    made.children.push_back(MirrorCommand());
    for (Command& command : UtilityCommands()) made.children.push_back(std::move(command));
    return made;
  }();
  return root;
}

}  // namespace kv::kvctl

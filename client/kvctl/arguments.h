// What a command line says: commands, their flags, and everything else.
//
// The rules are those that users of etcdctl know: flags anywhere, `--flag value` and
// `--flag=value`,
// `-w json` and `-wjson`, `--` before data that begins with a dash, commands shortened as long as
// they stay unambiguous. Keys and values are arbitrary bytes, so no other argument has a meaning
// (a library that gives one to `++` or `-5` would lose data here).
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kv::kvctl {

enum class FlagType { kBool, kInt, kString, kStrings, kDuration };

struct Flag {
  std::string_view name;
  char letter = 0;  // 0: none.
  FlagType type = FlagType::kBool;
  std::string_view fallback = {};  // As text; empty: false, 0, "".
  std::string_view help = {};
  std::vector<std::string_view> choices = {};  // For completion.
};

// Without the spaces around the parts, and without empty ones.
std::vector<std::string> SplitAtCommas(std::string_view text);

class Arguments;

struct Command {
  std::string_view name;
  std::string_view group = {};      // Of a top-level command, for --help.
  std::string_view summary = {};    // One line.
  std::string_view arguments = {};  // "<key> [range_end]".
  std::string_view text = {};       // Paragraphs and examples.
  std::vector<Flag> flags = {};
  std::function<int(const Arguments&)> run = nullptr;  // The exit code.
  std::vector<Command> children = {};
  bool offline = false;  // Makes no connection: the environment is not looked at.
  // What it reads from the environment by itself, without the prefix.
  std::vector<std::string_view> variables = {};
};

class Arguments {
 public:
  // The command that was named, and the path to it ("endpoint status").
  const Command* command = nullptr;
  std::string path;
  std::vector<std::string> rest;
  std::optional<size_t> separator;  // So many of `rest` come before `--`.
  bool help = false;

  // Flags that may be given to the command: its own, its parents', the global ones.
  bool Given(std::string_view flag) const;  // On the command line or in the environment.
  bool Bool(std::string_view flag) const;
  int64_t Int(std::string_view flag) const;
  const std::string& String(std::string_view flag) const;
  std::vector<std::string> Strings(std::string_view flag) const;  // Split at commas.
  absl::Duration Duration(std::string_view flag) const;

 private:
  friend class Reading;
  std::map<std::string, std::string, std::less<>> values_;  // Of every flag; checked.
  std::map<std::string, bool, std::less<>> given_;
};

// The message of a failure is for the user.
absl::StatusOr<Arguments> Parse(const Command& root, const std::vector<Flag>& global,
                                const std::vector<std::string>& words);

// Fills in what the environment says (PREFIX_WRITE_OUT for --write-out): global flags and those of
// a command's parents. A setting given both ways is refused. Unknown variables that begin with the
// prefix are named in `warnings`.
absl::Status AddEnvironment(const Command& root, const std::vector<Flag>& global,
                            const std::map<std::string, std::string>& environment,
                            std::string_view prefix, Arguments& arguments,
                            std::vector<std::string>& warnings);

// Go's spellings of a bool.
bool ParseBool(std::string_view text, bool& value);

// --help of the command at `path` ("" is the root).
std::string Help(const Command& root, const std::vector<Flag>& global, const Arguments& arguments);
std::string FlagTable(const std::vector<Flag>& flags);

// A completion script; shell is bash, zsh or fish.
std::string Completion(const Command& root, const std::vector<Flag>& global,
                       std::string_view shell);

}  // namespace kv::kvctl

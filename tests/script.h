// Data-driven tests: a script is a text file of blocks, each with the output it must produce.
//
//     # A comment; free between blocks.
//     command positional key=value "quoted words"
//     more input lines, if the command takes any
//     ----
//     expected output, up to the next blank line
//
// Output that itself holds blank lines stands between doubled separators ("----" twice before,
// "----" twice after). The runner knows no commands: a vocabulary turns one block into its output.
// With KVD_REWRITE=1 in the environment the expected parts are rewritten in place with what came
// out; read the difference before you keep it.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace kv {

// One line split at spaces: quotes ("a b", with \" \\ \n \t \xHH inside) and brackets ([a b])
// keep words together; quotes are taken off, brackets stay.
struct ScriptLine {
  std::string command;
  std::vector<std::string> args;                           // Positional ones, in order.
  std::vector<std::pair<std::string, std::string>> named;  // key=value, in order.

  // The value of key=value; nothing if it is not there.
  std::optional<std::string> Find(std::string_view key) const;
  // The same with a default.
  std::string Get(std::string_view key, std::string_view fallback) const;
  // Whether the bare word stands among the positional arguments.
  bool Has(std::string_view word) const;
};
ScriptLine ParseScriptLine(std::string_view text);

struct ScriptBlock {
  std::string file;                // As given to RunScript.
  int line = 0;                    // Of the block's first line; counts from 1.
  std::vector<std::string> input;  // All lines above the separator; input[0] holds the command.

  ScriptLine Command() const { return ParseScriptLine(input.front()); }
};

// Returns what the block puts out. A missing newline at the end is added.
using ScriptVocabulary = std::function<std::string(const ScriptBlock&)>;

// Runs a script, blocks in order, and returns one text per block that put out something else than
// expected ("file:line" and a difference), or one that says why the file cannot be read. `path`
// is relative to the source tree unless absolute. All blocks run even if one differs.
std::vector<std::string> RunScript(const std::string& path, const ScriptVocabulary& vocabulary);

// The *.txt files of a folder (relative to the source tree unless absolute), sorted by name.
std::vector<std::string> ListScripts(const std::string& folder);

// Line by line: " same", "-only expected", "+only actual".
std::string ScriptDifference(std::string_view expected, std::string_view actual);

}  // namespace kv

#include "client/kvctl/arguments.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

namespace kv::kvctl {
namespace {

absl::Status Refuse(std::string text) {
  return absl::Status(absl::StatusCode::kInvalidArgument, text);
}

bool ParseInt(std::string_view text, int64_t& value) {
  if (text.starts_with('+')) text.remove_prefix(1);
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

// Why `text` is no value of this type; nothing if it is.
std::optional<std::string> Complaint(FlagType type, const std::string& text) {
  bool flag = false;
  int64_t number = 0;
  absl::Duration duration;
  switch (type) {
    case FlagType::kBool:
      if (!ParseBool(text, flag)) return "write true or false";
      break;
    case FlagType::kInt:
      if (!ParseInt(text, number)) return "write a whole number";
      break;
    case FlagType::kDuration:
      if (!absl::ParseDuration(text, &duration)) {
        return "write a number with a unit, for example 500ms, 5s or 1m";
      }
      break;
    case FlagType::kString:
    case FlagType::kStrings:
      break;
  }
  return std::nullopt;
}

std::string Fallback(const Flag& flag) {
  if (!flag.fallback.empty()) return std::string(flag.fallback);
  switch (flag.type) {
    case FlagType::kBool:
      return "false";
    case FlagType::kInt:
      return "0";
    case FlagType::kDuration:
      return "0s";
    default:
      return "";
  }
}

std::string_view TypeName(FlagType type) {
  switch (type) {
    case FlagType::kBool:
      return "";
    case FlagType::kInt:
      return "int";
    case FlagType::kString:
      return "string";
    case FlagType::kStrings:
      return "strings";
    case FlagType::kDuration:
      return "duration";
  }
  return "";
}

std::string EnvironmentName(std::string_view prefix, std::string_view flag) {
  std::string name = std::string(prefix) + "_";
  for (char c : flag) {
    name += c == '-' ? '_' : (c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
  }
  return name;
}

const Command* Child(const Command& parent, std::string_view name) {
  for (const Command& child : parent.children) {
    if (child.name == name) return &child;
  }
  const Command* found = nullptr;
  for (const Command& child : parent.children) {
    if (!child.name.starts_with(name) || name.empty()) continue;
    if (found != nullptr) return nullptr;
    found = &child;
  }
  return found;
}

// The commands from the root's child down to the one at `path`.
std::vector<const Command*> Chain(const Command& root, std::string_view path) {
  std::vector<const Command*> chain;
  const Command* at = &root;
  while (!path.empty()) {
    size_t space = path.find(' ');
    std::string_view name = path.substr(0, space);
    path = space == std::string_view::npos ? "" : path.substr(space + 1);
    at = Child(*at, name);
    if (at == nullptr) break;
    chain.push_back(at);
  }
  return chain;
}

}  // namespace

bool ParseBool(std::string_view text, bool& value) {
  for (std::string_view word : {"1", "t", "T", "TRUE", "true", "True"}) {
    if (text == word) return value = true;
  }
  for (std::string_view word : {"0", "f", "F", "FALSE", "false", "False"}) {
    if (text == word) {
      value = false;
      return true;
    }
  }
  return false;
}

bool Arguments::Given(std::string_view flag) const { return given_.contains(flag); }

const std::string& Arguments::String(std::string_view flag) const {
  static const std::string nothing;
  auto found = values_.find(flag);
  return found == values_.end() ? nothing : found->second;
}

bool Arguments::Bool(std::string_view flag) const {
  bool value = false;
  return ParseBool(String(flag), value) && value;
}

int64_t Arguments::Int(std::string_view flag) const {
  int64_t value = 0;
  return ParseInt(String(flag), value) ? value : 0;
}

absl::Duration Arguments::Duration(std::string_view flag) const {
  absl::Duration value;
  return absl::ParseDuration(String(flag), &value) ? value : absl::ZeroDuration();
}

std::vector<std::string> SplitAtCommas(std::string_view text) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    size_t comma = text.find(',');
    std::string_view part = text.substr(0, comma);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.emplace_back(part);
    text = comma == std::string_view::npos ? "" : text.substr(comma + 1);
  }
  return parts;
}

std::vector<std::string> Arguments::Strings(std::string_view flag) const {
  return SplitAtCommas(String(flag));
}

// One pass over the words.
class Reading {
 public:
  Reading(const Command& root, const std::vector<Flag>& global) : global_(global) {
    arguments_.command = &root;
    Allow(global_);
    Allow(root.flags);
  }

  absl::StatusOr<Arguments> Run(const std::vector<std::string>& words) {
    bool data_only = false;
    for (size_t i = 0; i < words.size(); ++i) {
      const std::string& word = words[i];
      absl::Status status;
      if (data_only || word.size() < 2 || word[0] != '-') {
        status = Word(word);
      } else if (word == "--") {
        data_only = true;
        arguments_.separator = arguments_.rest.size();
      } else if (word.starts_with("--")) {
        status = Long(words, i);
      } else {
        status = Letters(words, i);
      }
      if (!status.ok()) return status;
    }
    return std::move(arguments_);
  }

  static void Set(Arguments& arguments, const Flag& flag, std::string value) {
    std::string name(flag.name);
    // A list that is given again grows.
    if (flag.type == FlagType::kStrings && arguments.Given(name)) {
      value = arguments.values_[name] + "," + value;
    }
    arguments.values_[name] = std::move(value);
    arguments.given_[name] = true;
  }

 private:
  void Allow(const std::vector<Flag>& flags) {
    for (const Flag& flag : flags) {
      allowed_.push_back(&flag);
      arguments_.values_.emplace(std::string(flag.name), Fallback(flag));
    }
  }

  absl::Status Word(const std::string& word) {
    const Command& at = *arguments_.command;
    if (at.children.empty()) {
      arguments_.rest.push_back(word);
      return absl::OkStatus();
    }
    const Command* child = Child(at, word);
    if (child == nullptr) return Unknown(word);
    arguments_.command = child;
    arguments_.path += (arguments_.path.empty() ? "" : " ") + std::string(child->name);
    Allow(child->flags);
    return absl::OkStatus();
  }

  absl::Status Unknown(const std::string& word) const {
    std::string known;
    for (const Command& child : arguments_.command->children) {
      known += (known.empty() ? "" : ", ") + std::string(child.name);
    }
    return Refuse(fmt::format("unknown command \"{}\" for \"kvctl{}{}\"; there is: {}", word,
                              arguments_.path.empty() ? "" : " ", arguments_.path, known));
  }

  std::string SeeHelp() const {
    return fmt::format("see `kvctl {}{}--help` and `kvctl options`", arguments_.path,
                       arguments_.path.empty() ? "" : " ");
  }

  absl::Status Long(const std::vector<std::string>& words, size_t& i) {
    std::string_view body = std::string_view(words[i]).substr(2);
    size_t equals = body.find('=');
    std::string_view name = body.substr(0, equals);
    if (name == "help" && equals == std::string_view::npos) {
      arguments_.help = true;
      return absl::OkStatus();
    }
    const Flag* flag = nullptr;
    for (const Flag* candidate : allowed_) {
      if (candidate->name == name) flag = candidate;
    }
    if (flag == nullptr) return Refuse(fmt::format("unknown flag: --{}; {}", name, SeeHelp()));
    if (equals != std::string_view::npos) return Take(*flag, std::string(body.substr(equals + 1)));
    if (flag->type == FlagType::kBool) return Take(*flag, "true");
    if (i + 1 >= words.size()) return Refuse(fmt::format("flag needs an argument: --{}", name));
    return Take(*flag, words[++i]);
  }

  absl::Status Letters(const std::vector<std::string>& words, size_t& i) {
    std::string_view letters = std::string_view(words[i]).substr(1);
    while (!letters.empty()) {
      char letter = letters[0];
      letters.remove_prefix(1);
      if (letter == 'h') {
        arguments_.help = true;
        continue;
      }
      const Flag* flag = nullptr;
      for (const Flag* candidate : allowed_) {
        if (candidate->letter != 0 && candidate->letter == letter) flag = candidate;
      }
      if (flag == nullptr) {
        return Refuse(fmt::format(
            "unknown shorthand flag: '{}' in {}; put `--` before a key or value that begins "
            "with a dash",
            letter, words[i]));
      }
      if (flag->type == FlagType::kBool && !letters.starts_with('=')) {
        if (absl::Status status = Take(*flag, "true"); !status.ok()) return status;
        continue;
      }
      if (letters.starts_with('=')) letters.remove_prefix(1);
      if (!letters.empty()) return Take(*flag, std::string(letters));
      if (i + 1 >= words.size()) {
        return Refuse(fmt::format("flag needs an argument: '{}' in {}", letter, words[i]));
      }
      return Take(*flag, words[++i]);
    }
    return absl::OkStatus();
  }

  absl::Status Take(const Flag& flag, std::string value) {
    if (auto complaint = Complaint(flag.type, value)) {
      return Refuse(
          fmt::format("invalid argument \"{}\" for \"--{}\": {}", value, flag.name, *complaint));
    }
    Set(arguments_, flag, std::move(value));
    return absl::OkStatus();
  }

  const std::vector<Flag>& global_;
  std::vector<const Flag*> allowed_;
  Arguments arguments_;
};

absl::StatusOr<Arguments> Parse(const Command& root, const std::vector<Flag>& global,
                                const std::vector<std::string>& words) {
  return Reading(root, global).Run(words);
}

absl::Status AddEnvironment(const Command& root, const std::vector<Flag>& global,
                            const std::map<std::string, std::string>& environment,
                            std::string_view prefix, Arguments& arguments,
                            std::vector<std::string>& warnings) {
  std::vector<Flag> inherited = global;
  std::vector<const Command*> chain = Chain(root, arguments.path);
  for (size_t i = 0; i + 1 < chain.size(); ++i) {
    inherited.insert(inherited.end(), chain[i]->flags.begin(), chain[i]->flags.end());
  }
  std::set<std::string> known;
  for (const Flag& flag : inherited) {
    std::string name = EnvironmentName(prefix, flag.name);
    known.insert(name);
    auto found = environment.find(name);
    if (found == environment.end()) continue;
    if (arguments.Given(flag.name)) {
      return Refuse(
          fmt::format("environment variable {} and flag --{} are both set; unset one of them", name,
                      flag.name));
    }
    if (found->second.empty()) continue;
    if (auto complaint = Complaint(flag.type, found->second)) {
      return Refuse(
          fmt::format("invalid value \"{}\" for {}: {}", found->second, name, *complaint));
    }
    Reading::Set(arguments, flag, found->second);
  }
  std::string begin = std::string(prefix) + "_";
  for (const Command& command : root.children) {
    for (std::string_view variable : command.variables) known.insert(begin + std::string(variable));
  }
  for (const auto& [name, value] : environment) {
    if (name.starts_with(begin) && !known.contains(name)) {
      warnings.push_back(fmt::format("unrecognized environment variable {}", name));
    }
  }
  return absl::OkStatus();
}

std::string FlagTable(const std::vector<Flag>& flags) {
  std::vector<Flag> sorted = flags;
  std::sort(sorted.begin(), sorted.end(),
            [](const Flag& a, const Flag& b) { return a.name < b.name; });
  std::vector<std::string> left;
  size_t width = 0;
  for (const Flag& flag : sorted) {
    std::string text = flag.letter != 0 ? fmt::format("  -{}, --{}", flag.letter, flag.name)
                                        : fmt::format("      --{}", flag.name);
    if (flag.type != FlagType::kBool) text += fmt::format(" {}", TypeName(flag.type));
    width = std::max(width, text.size());
    left.push_back(std::move(text));
  }
  std::string table;
  for (size_t i = 0; i < sorted.size(); ++i) {
    const Flag& flag = sorted[i];
    std::string fallback;
    if (!flag.fallback.empty()) {
      bool quoted = flag.type == FlagType::kString;
      fallback = quoted ? fmt::format(" (default \"{}\")", flag.fallback)
                        : fmt::format(" (default {})", flag.fallback);
    }
    table += fmt::format("{:<{}}   {}{}\n", left[i], width, flag.help, fallback);
  }
  return table;
}

std::string Help(const Command& root, const std::vector<Flag>& global, const Arguments& arguments) {
  const Command& command = *arguments.command;
  std::string help = fmt::format("{}\n", command.summary);
  if (!command.text.empty()) help += fmt::format("\n{}\n", command.text);
  std::string name = "kvctl" + (arguments.path.empty() ? "" : " " + arguments.path);
  help += fmt::format("\nUsage:\n  {}{}{}\n", name,
                      command.children.empty() ? " [flags]" : " <command> [flags]",
                      command.arguments.empty() ? "" : " " + std::string(command.arguments));

  std::vector<std::string_view> groups;
  size_t width = 0;
  for (const Command& child : command.children) {
    width = std::max(width, child.name.size());
    if (std::find(groups.begin(), groups.end(), child.group) == groups.end()) {
      groups.push_back(child.group);
    }
  }
  for (std::string_view group : groups) {
    help += fmt::format("\n{}:\n", group.empty() ? "Commands" : group);
    for (const Command& child : command.children) {
      if (child.group != group) continue;
      help += fmt::format("  {:<{}}  {}\n", child.name, width, child.summary);
    }
  }

  std::vector<Flag> flags;
  for (const Command* at : Chain(root, arguments.path)) {
    flags.insert(flags.end(), at->flags.begin(), at->flags.end());
  }
  flags.push_back({.name = "help", .letter = 'h', .help = "show this text"});
  help += "\nFlags:\n" + FlagTable(flags);
  if (!command.children.empty()) {
    help += fmt::format("\n`{} <command> --help` tells more about a command.\n", name);
  }
  if (!global.empty()) {
    help += "`kvctl options` lists the flags that every command takes.\n";
  }
  return help;
}

namespace {

// A command with everything that may follow it.
struct Place {
  std::string path;  // "endpoint status"
  const Command* command;
  std::vector<const Flag*> flags;
};

void Collect(const Command& command, const std::string& path, std::vector<const Flag*> flags,
             std::vector<Place>& places) {
  for (const Flag& flag : command.flags) flags.push_back(&flag);
  places.push_back({path, &command, flags});
  for (const Command& child : command.children) {
    Collect(child, path + (path.empty() ? "" : " ") + std::string(child.name), flags, places);
  }
}

std::string Join(const std::vector<std::string_view>& words) {
  return fmt::format("{}", fmt::join(words, " "));
}

std::vector<std::string_view> Words(const Place& place) {
  std::vector<std::string_view> words;
  for (const Command& child : place.command->children) words.push_back(child.name);
  return words;
}

// zsh runs the same script through its emulation of bash completion.
std::string BashCompletion(const std::vector<Place>& places) {
  std::string script =
      "# bash completion for kvctl\n_kvctl() {\n"
      "  local current=${COMP_WORDS[COMP_CWORD]} path= word i words=\n"
      "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
      "    word=${COMP_WORDS[i]}\n"
      "    case \"$path $word\" in\n";
  for (const Place& place : places) {
    if (!place.path.empty()) {
      size_t space = place.path.rfind(' ');
      std::string parent = space == std::string::npos ? "" : place.path.substr(0, space);
      script +=
          fmt::format("      \"{} {}\") path=\"{}\" ;;\n", parent, place.command->name, place.path);
    }
  }
  script +=
      "    esac\n  done\n"
      "  case \"$path ${COMP_WORDS[COMP_CWORD-1]}\" in\n";
  for (const Place& place : places) {
    for (const Flag* flag : place.flags) {
      if (flag->choices.empty()) continue;
      script += fmt::format("    \"{} --{}\"", place.path, flag->name);
      if (flag->letter != 0) script += fmt::format(" | \"{} -{}\"", place.path, flag->letter);
      script += fmt::format(") COMPREPLY=($(compgen -W \"{}\" -- \"$current\")); return ;;\n",
                            Join(flag->choices));
    }
  }
  script += "  esac\n  case \"$path\" in\n";
  for (const Place& place : places) {
    std::string flags = "--help";
    for (const Flag* flag : place.flags) flags += " --" + std::string(flag->name);
    script += fmt::format(
        "    \"{}\") if [[ $current == -* ]]; then words=\"{}\"; else words=\"{}\"; fi ;;\n",
        place.path, flags, Join(Words(place)));
  }
  script +=
      "  esac\n"
      "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  if [[ -z $words ]]; then COMPREPLY=($(compgen -f -- \"$current\")); fi\n"
      "}\ncomplete -F _kvctl kvctl\n";
  return script;
}

std::string FishQuote(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'' || c == '\\') quoted += '\\';
    quoted += c;
  }
  return quoted + "'";
}

std::string FishCompletion(const std::vector<Place>& places) {
  std::string script =
      "# fish completion for kvctl\n"
      "function __kvctl_at\n"
      "  set -l words (commandline -opc | string match -v -- '-*')\n"
      "  set -e words[1]\n"
      "  test (string join ' ' -- $words[1..(count $argv)]) = (string join ' ' -- $argv)\n"
      "end\n"
      "function __kvctl_just\n"
      "  set -l words (commandline -opc | string match -v -- '-*')\n"
      "  test (count $words) -eq (math 1 + (count $argv)); and __kvctl_at $argv\n"
      "end\n";
  for (const Place& place : places) {
    for (const Command& child : place.command->children) {
      script += fmt::format("complete -c kvctl -f -n '__kvctl_just {}' -a {} -d {}\n", place.path,
                            child.name, FishQuote(child.summary));
    }
    const std::vector<Flag>& own = place.command->flags;
    for (const Flag& flag : own) {
      script += fmt::format("complete -c kvctl -n '__kvctl_at {}' -l {}", place.path, flag.name);
      if (flag.letter != 0) script += fmt::format(" -s {}", flag.letter);
      if (flag.type != FlagType::kBool) script += " -r";
      if (!flag.choices.empty()) script += fmt::format(" -f -a '{}'", Join(flag.choices));
      script += fmt::format(" -d {}\n", FishQuote(flag.help));
    }
  }
  return script;
}

}  // namespace

std::string Completion(const Command& root, const std::vector<Flag>& global,
                       std::string_view shell) {
  Command everything = root;
  everything.flags.insert(everything.flags.end(), global.begin(), global.end());
  std::vector<Place> places;
  Collect(everything, "", {}, places);
  if (shell == "fish") return FishCompletion(places);
  std::string script = BashCompletion(places);
  if (shell == "zsh") {
    return "#compdef kvctl\nautoload -U +X bashcompinit && bashcompinit\n" + script;
  }
  return script;
}

}  // namespace kv::kvctl

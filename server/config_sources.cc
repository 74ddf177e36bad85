#include "server/config_sources.h"

#include <fmt/format.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <string_view>
#include <utility>

#include "server/config_flags.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kConfigFile = "config-file";
constexpr std::string_view kRuntimeConfigFile = "runtime-config-file";

size_t EditDistance(std::string_view left, std::string_view right) {
  std::vector<size_t> row(right.size() + 1);
  for (size_t i = 0; i < row.size(); ++i) row[i] = i;
  for (size_t i = 0; i < left.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < right.size(); ++j) {
      const size_t replaced = diagonal + (left[i] == right[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({row[j] + 1, row[j + 1] + 1, replaced});
    }
  }
  return row.back();
}

// " did you mean …?", or nothing when nothing is near.
std::string Suggest(std::string_view name, std::string_view prefix) {
  if (name.starts_with("experimental-"))
    name.remove_prefix(std::string_view("experimental-").size());
  std::string_view nearest;
  size_t least = std::max<size_t>(2, name.size() / 3) + 1;
  for (const Flag& flag : Flags()) {
    const size_t distance = EditDistance(name, flag.name);
    if (distance < least) {
      least = distance;
      nearest = flag.name;
    }
  }
  if (nearest.empty()) return "";
  return fmt::format("did you mean {}{}? ", prefix, nearest);
}

absl::Status UnknownArgument(const std::string& argument) {
  if (!argument.starts_with('-')) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "unexpected argument \"{}\": kvd takes flags only; see kvd --help", argument);
  }
  std::string_view name = argument;
  name.remove_prefix(std::min(name.find_first_not_of('-'), name.size()));
  name = name.substr(0, name.find('='));
  return MakeStatus(absl::StatusCode::kInvalidArgument, "unknown flag {}: {}see kvd --help",
                    argument.substr(0, argument.find('=')), Suggest(name, "--"));
}

absl::Status ReadFileNode(const std::string& path, const YAML::Node& key, const YAML::Node& value,
                          Settings& settings) {
  const auto where = [&path](const YAML::Node& node) {
    return fmt::format("{}:{}", path, node.Mark().line + 1);
  };
  const std::string name = key.IsScalar() ? key.Scalar() : "";
  if (name == "client-transport-security" || name == "peer-transport-security") {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: \"{}\": TLS arrives with a later release; use http:// URLs and leave "
                      "it out",
                      where(key), name);
  }
  const Flag* flag = FindFlag(name);
  if (flag == nullptr) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: unknown key \"{}\": {}keys are the flags without dashes, see kvd --help",
                      where(key), name, Suggest(name, ""));
  }
  if (settings.contains(name)) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "{}: the key \"{}\" stands there twice; remove one", where(key), name);
  }
  std::string text;
  if (value.IsScalar()) {
    text = value.Scalar();
  } else if (value.IsSequence() && flag->kind == FlagKind::kList) {
    for (const YAML::Node& item : value) {
      if (!item.IsScalar()) {
        return MakeStatus(absl::StatusCode::kInvalidArgument,
                          "{}: the key \"{}\" must be a list of plain values", where(item), name);
      }
      text += (text.empty() ? "" : ",") + item.Scalar();
    }
  } else {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}: the key \"{}\" must be {}, not {}",
                      where(key), name,
                      flag->kind == FlagKind::kList     ? "one value or a list of them"
                      : flag->kind == FlagKind::kSwitch ? "true or false"
                                                        : "one value",
                      value.IsMap() ? "a map" : (value.IsSequence() ? "a list" : "nothing"));
  }
  settings[name] = {.value = std::move(text), .origin = fmt::format("{}: {}", where(key), name)};
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Arguments> ReadArguments(const std::vector<std::string>& arguments) {
  CLI::App app;
  app.set_help_flag();
  app.allow_extras();
  CLI::Option* help = app.add_flag("-h,--help");
  CLI::Option* version = app.add_flag("--version");
  std::map<std::string, CLI::Option*, std::less<>> options;
  const auto add = [&app, &options](std::string_view name, bool is_switch) {
    const std::string dashed = "--" + std::string(name);
    CLI::Option* option = is_switch ? app.add_flag(dashed) : app.add_option(dashed);
    option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    options[std::string(name)] = option;
  };
  add(kConfigFile, false);
  add(kRuntimeConfigFile, false);
  for (const Flag& flag : Flags()) add(flag.name, flag.kind == FlagKind::kSwitch);

  // From the back, as CLI11 takes them; "--flag=" becomes two, since it would not see the value.
  std::vector<std::string> reversed;
  for (const std::string& argument : arguments) {
    const bool empty_value = argument.starts_with("--") && argument.ends_with('=');
    reversed.push_back(empty_value ? argument.substr(0, argument.size() - 1) : argument);
    if (empty_value) reversed.emplace_back();
  }
  std::ranges::reverse(reversed);
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::ArgumentMismatch&) {
    return MakeStatus(absl::StatusCode::kInvalidArgument,
                      "flag {} needs a value; write {}=VALUE, or see kvd --help", arguments.back(),
                      arguments.back());
  } catch (const CLI::Error& error) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}; see kvd --help", error.what());
  }
  Arguments result;
  result.help = help->count() > 0;
  result.version = version->count() > 0;
  if (result.help || result.version) return result;
  for (const std::string& rest : app.remaining()) return UnknownArgument(rest);
  for (const auto& [name, option] : options) {
    if (option->count() == 0) continue;
    Given given{.value = option->results().back(), .origin = "--" + name};
    if (name == kConfigFile) {
      result.files.config = std::move(given);
    } else if (name == kRuntimeConfigFile) {
      result.files.runtime = std::move(given);
    } else {
      result.settings[name] = std::move(given);
    }
  }
  return result;
}

EnvironmentSettings ReadEnvironment(
    const std::map<std::string, std::string, std::less<>>& environment) {
  EnvironmentSettings result;
  std::map<std::string, std::string_view, std::less<>> variables;
  for (const Flag& flag : Flags()) variables[VariableOf(flag.name)] = flag.name;
  for (const auto& [variable, value] : environment) {
    if (!variable.starts_with("KVD_") || value.empty()) continue;
    const auto at = variables.find(variable);
    if (at != variables.end()) {
      result.settings[std::string(at->second)] = {.value = value, .origin = variable};
    } else if (variable == VariableOf(kConfigFile)) {
      result.files.config = Given{.value = value, .origin = variable};
    } else if (variable == VariableOf(kRuntimeConfigFile)) {
      result.files.runtime = Given{.value = value, .origin = variable};
    } else {
      result.unknown.push_back(variable);
    }
  }
  return result;
}

absl::StatusOr<Settings> ReadConfigFile(const std::string& path, const std::string& text) {
  Settings settings;
  try {
    const YAML::Node root = YAML::Load(text);
    if (root.IsNull()) return settings;
    if (!root.IsMap()) {
      return MakeStatus(absl::StatusCode::kInvalidArgument,
                        "{}: must hold lines of the form \"flag: value\"", path);
    }
    for (const auto& entry : root) {
      RETURN_IF_ERROR(ReadFileNode(path, entry.first, entry.second, settings));
    }
  } catch (const YAML::Exception& error) {
    return MakeStatus(absl::StatusCode::kInvalidArgument, "{}:{}: not valid YAML: {}", path,
                      error.mark.line + 1, error.msg);
  }
  return settings;
}

}  // namespace kv

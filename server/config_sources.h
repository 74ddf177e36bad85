// The three places where a setting may stand, each read into the same form: arguments, environment,
// YAML file. Values are not looked into here.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace kv {

// A value as somebody wrote it, and where, as errors say it.
struct Given {
  std::string value;
  std::string origin;
};
using Settings = std::map<std::string, Given, std::less<>>;

// Which files hold settings, as they were named.
struct SettingsFiles {
  std::optional<Given> config;
  std::optional<Given> runtime;
};

struct Arguments {
  Settings settings;
  SettingsFiles files;
  bool help = false;
  bool version = false;
};

absl::StatusOr<Arguments> ReadArguments(const std::vector<std::string>& arguments);

struct EnvironmentSettings {
  Settings settings;
  SettingsFiles files;
  std::vector<std::string> unknown;  // Variables that look like ours.
};
// An empty variable counts as not set.
EnvironmentSettings ReadEnvironment(
    const std::map<std::string, std::string, std::less<>>& environment);

// `text` is what the file at `path` holds.
absl::StatusOr<Settings> ReadConfigFile(const std::string& path, const std::string& text);

}  // namespace kv

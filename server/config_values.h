// How the text of a setting becomes its value. Errors say only what is allowed ("must be …");
// whoever asked names setting and value.
#pragma once

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/config.h"

namespace kv {

absl::Status Wrong(std::string_view rule);

template <typename Number>
absl::Status ReadNumber(std::string_view text, Number low, Number high, std::string_view unit,
                        Number& target) {
  Number number{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number < low || number > high) {
    return Wrong(fmt::format("must be a whole number{}{} from {} to {}", unit.empty() ? "" : " of ",
                             unit, low, high));
  }
  target = number;
  return absl::OkStatus();
}

absl::Status ReadMilliseconds(std::string_view text, int64_t high, absl::Duration& target);
// At least `low`, at most a year.
absl::Status ReadDuration(std::string_view text, absl::Duration low, absl::Duration& target);
// 0.05 to 0.90, as a percentage.
absl::Status ReadFraction(std::string_view text, uint64_t& percent);
absl::StatusOr<bool> ReadBool(std::string_view text);

std::vector<std::string> Split(std::string_view text, char separator);
std::string_view Trim(std::string_view text);  // Without spaces and newlines around it.

// 0.0.0.0 or ::, which others cannot connect to.
bool IsWildcard(const Url& url);
absl::Status ReadUrls(std::string_view text, std::vector<Url>& target);
// Addresses of this machine: a socket is bound to them, and a name could mean another tomorrow.
absl::Status ReadListenUrls(std::string_view text, std::vector<Url>& target);
// What others connect to.
absl::Status ReadAdvertisedUrls(std::string_view text, std::vector<Url>& target);
// Of a member.
absl::Status CheckName(std::string_view name);

}  // namespace kv

#include "server/config_values.h"

#include <arpa/inet.h>

#include <algorithm>
#include <array>
#include <utility>

#include "storage/status.h"

namespace kv {
namespace {

constexpr size_t kNameBytesMax = 128;

bool IsIp(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> address{};
  return inet_pton(AF_INET, host.c_str(), address.data()) == 1 ||
         inet_pton(AF_INET6, host.c_str(), address.data()) == 1;
}

}  // namespace

absl::Status Wrong(std::string_view rule) {
  return MakeStatus(absl::StatusCode::kInvalidArgument, "{}", rule);
}

absl::Status ReadMilliseconds(std::string_view text, int64_t high, absl::Duration& target) {
  int64_t milliseconds = 0;
  RETURN_IF_ERROR(ReadNumber<int64_t>(text, 1, high, "milliseconds", milliseconds));
  target = absl::Milliseconds(milliseconds);
  return absl::OkStatus();
}

absl::Status ReadDuration(std::string_view text, absl::Duration low, absl::Duration& target) {
  absl::Duration duration;
  if (!absl::ParseDuration(absl::string_view(text.data(), text.size()), &duration) ||
      duration < low || duration > absl::Hours(24 * 365)) {
    return Wrong(fmt::format("must be a duration such as 5s or 2h, from {} to one year",
                             absl::FormatDuration(low)));
  }
  target = duration;
  return absl::OkStatus();
}

std::vector<std::string> Split(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (true) {
    const size_t at = text.find(separator);
    parts.emplace_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::string_view Trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \n");
  if (first == std::string_view::npos) return "";
  return text.substr(first, text.find_last_not_of(" \n") - first + 1);
}

bool IsWildcard(const Url& url) { return url.host == "0.0.0.0" || url.host == "::"; }

absl::Status ReadUrls(std::string_view text, std::vector<Url>& target) {
  std::vector<Url> urls;
  for (const std::string& part : Split(text, ',')) {
    ASSIGN_OR_RETURN(Url url, ParseUrl(Trim(part)));
    if (std::ranges::find(urls, url) != urls.end()) {
      return Wrong(fmt::format("{} stands there twice", url.Text()));
    }
    urls.push_back(std::move(url));
  }
  target = std::move(urls);
  return absl::OkStatus();
}

absl::Status ReadListenUrls(std::string_view text, std::vector<Url>& target) {
  std::vector<Url> urls;
  RETURN_IF_ERROR(ReadUrls(text, urls));
  for (const Url& url : urls) {
    if (url.host != "localhost" && !IsIp(url.host)) {
      return Wrong(
          fmt::format("\"{}\" must be an IP address of this machine or localhost, as "
                      "http://127.0.0.1:{} or http://0.0.0.0:{}",
                      url.host, url.port, url.port));
    }
  }
  target = std::move(urls);
  return absl::OkStatus();
}

absl::Status ReadAdvertisedUrls(std::string_view text, std::vector<Url>& target) {
  std::vector<Url> urls;
  RETURN_IF_ERROR(ReadUrls(text, urls));
  for (const Url& url : urls) {
    if (IsWildcard(url)) {
      return Wrong(
          fmt::format("others cannot connect to {}; name an address of this machine", url.Text()));
    }
  }
  target = std::move(urls);
  return absl::OkStatus();
}

absl::Status CheckName(std::string_view name) {
  const bool good =
      !name.empty() && name.size() <= kNameBytesMax && std::ranges::all_of(name, [](char c) {
        return c > ' ' && c < 0x7f && std::string_view("=,/\\\"").find(c) == std::string_view::npos;
      });
  if (good) return absl::OkStatus();
  return Wrong(
      fmt::format("must be 1 to {} printable characters without space, comma, =, / or "
                  "quotes",
                  kNameBytesMax));
}

absl::Status ReadFraction(std::string_view text, uint64_t& percent) {
  const bool shaped = text.starts_with("0.") && text.size() >= 3 && text.size() <= 4;
  uint64_t digits = 0;
  if (!shaped || !ReadNumber<uint64_t>(text.substr(2), 0, 99, "", digits).ok() ||
      (text.size() == 3 ? digits *= 10 : digits) < 5 || digits > 90) {
    return Wrong("must be a number from 0.05 to 0.9 with at most two digits behind the point");
  }
  percent = digits;
  return absl::OkStatus();
}

absl::StatusOr<bool> ReadBool(std::string_view text) {
  if (text == "true" || text == "1" || text == "t" || text == "TRUE" || text == "True") return true;
  if (text == "false" || text == "0" || text == "f" || text == "FALSE" || text == "False") {
    return false;
  }
  return Wrong("must be true or false");
}

std::string Url::HostPort() const {
  return host.find(':') == std::string::npos ? fmt::format("{}:{}", host, port)
                                             : fmt::format("[{}]:{}", host, port);
}

std::string Url::Text() const { return "http://" + HostPort(); }

absl::StatusOr<Url> ParseUrl(std::string_view text) {
  const auto wrong = [text](std::string_view why) {
    return Wrong(fmt::format("\"{}\" {}; write http://host:port", text, why));
  };
  if (text.starts_with("https://")) {
    return Wrong(fmt::format("\"{}\": TLS arrives with a later release; use http://", text));
  }
  constexpr std::string_view kScheme = "http://";
  if (!text.starts_with(kScheme)) return wrong("is not an http URL");
  std::string_view rest = text.substr(kScheme.size());
  if (rest.ends_with('/')) rest.remove_suffix(1);
  if (rest.find_first_of("/?#@ ") != std::string_view::npos) {
    return wrong("has more than a host and a port");
  }
  const size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || rest.ends_with(']')) return wrong("has no port");
  std::string_view host = rest.substr(0, colon);
  const std::string_view port = rest.substr(colon + 1);
  const bool bracketed = host.starts_with('[') && host.ends_with(']');
  if (bracketed) host = host.substr(1, host.size() - 2);
  if (host.empty()) return wrong("has no host");
  if (bracketed != (host.find(':') != std::string_view::npos)) {
    return wrong("has an IPv6 address without brackets");
  }
  Url url;
  if (!ReadNumber<uint16_t>(port, 1, UINT16_MAX, "", url.port).ok()) {
    return wrong("has a port that is not between 1 and 65535");
  }
  for (const char c : host) {
    url.host += static_cast<char>(c >= 'A' && c <= 'Z' ? c - 'A' + 'a' : c);
  }
  if (bracketed && !IsIp(url.host)) return wrong("has no valid IPv6 address in its brackets");
  return url;
}

}  // namespace kv

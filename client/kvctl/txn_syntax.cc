#include "client/kvctl/txn_syntax.h"

#include <fmt/format.h>

#include <charconv>

#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

bool IsSpace(char c) {
  return c == ' ' || c == '\t' || c == '\r' || c == '\n' || c == '\f' || c == '\v';
}

void SkipSpace(std::string_view& text) {
  while (!text.empty() && IsSpace(text[0])) text.remove_prefix(1);
}

void AppendUtf8(std::string& out, uint32_t point) {
  auto add = [&out](uint32_t byte) { out += static_cast<char>(byte); };
  if (point < 0x80) {
    add(point);
  } else if (point < 0x800) {
    add(0xC0 | point >> 6);
    add(0x80 | (point & 0x3F));
  } else if (point < 0x10000) {
    add(0xE0 | point >> 12);
    add(0x80 | (point >> 6 & 0x3F));
    add(0x80 | (point & 0x3F));
  } else {
    add(0xF0 | point >> 18);
    add(0x80 | (point >> 12 & 0x3F));
    add(0x80 | (point >> 6 & 0x3F));
    add(0x80 | (point & 0x3F));
  }
}

// `digits` digits of `base` at the beginning of `text`, which is cut off.
std::optional<uint32_t> TakeDigits(std::string_view& text, size_t digits, int base) {
  if (text.size() < digits) return std::nullopt;
  const std::string_view head = text.substr(0, digits);
  const char* const head_end = head.data() + head.size();
  uint32_t value = 0;
  auto [end, error] = std::from_chars(head.data(), head_end, value, base);
  if (error != std::errc() || end != head_end) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

// What comes after a backslash.
bool TakeEscape(std::string_view& text, std::string& out) {
  static constexpr std::string_view kNames = "abfnrtv\\\"";
  static constexpr std::string_view kBytes = "\a\b\f\n\r\t\v\\\"";
  if (text.empty()) return false;
  char c = text[0];
  if (size_t at = kNames.find(c); at != std::string_view::npos) {
    text.remove_prefix(1);
    out += kBytes[at];
    return true;
  }
  if (c >= '0' && c <= '7') {
    auto value = TakeDigits(text, 3, 8);
    if (!value || *value > 0xFF) return false;
    out += static_cast<char>(*value);
    return true;
  }
  size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits == 0) return false;
  text.remove_prefix(1);
  auto value = TakeDigits(text, digits, 16);
  if (!value) return false;
  if (c == 'x') {
    out += static_cast<char>(*value);
    return true;
  }
  if (*value > 0x10FFFF || (*value >= 0xD800 && *value <= 0xDFFF)) return false;
  AppendUtf8(out, *value);
  return true;
}

// Lines that cannot be read are OutOfRange.
absl::Status Malformed(std::string_view line, std::string_view why) {
  return Refused(fmt::format("malformed comparison: {}: {}; write for example mod(\"key\") > \"0\"",
                             line, why),
                 absl::StatusCode::kOutOfRange);
}

absl::Status SetTarget(std::string_view line, std::string_view target, const std::string& value,
                       pb::Compare& compare) {
  if (target == "val" || target == "value") {
    compare.set_target(pb::Compare::VALUE);
    compare.set_value(value);
    return absl::OkStatus();
  }
  bool lease = target == "lease";
  int64_t number = 0;
  auto [end, error] =
      std::from_chars(value.data(), value.data() + value.size(), number, lease ? 16 : 10);
  bool is_number = error == std::errc() && end == value.data() + value.size();
  if (target == "ver" || target == "version") {
    compare.set_target(pb::Compare::VERSION);
    compare.set_version(number);
  } else if (target == "c" || target == "create") {
    compare.set_target(pb::Compare::CREATE);
    compare.set_create_revision(number);
  } else if (target == "m" || target == "mod") {
    compare.set_target(pb::Compare::MOD);
    compare.set_mod_revision(number);
  } else if (lease) {
    compare.set_target(pb::Compare::LEASE);
    compare.set_lease(number);
  } else {
    return Malformed(line, fmt::format("unknown target {}; there is version, create, mod, value "
                                       "and lease",
                                       target));
  }
  if (!is_number) {
    return Malformed(line, fmt::format("\"{}\" is no {}", value,
                                       lease ? "lease ID in hexadecimal" : "whole number"));
  }
  return absl::OkStatus();
}

}  // namespace

std::optional<std::string> TakeQuoted(std::string_view& text) {
  if (text.empty()) return std::nullopt;
  std::string_view rest = text.substr(1);
  std::string out;
  if (text[0] == '`') {
    size_t end = rest.find('`');
    if (end == std::string_view::npos) return std::nullopt;
    out = rest.substr(0, end);
    text = rest.substr(end + 1);
    return out;
  }
  if (text[0] != '"') return std::nullopt;
  while (!rest.empty() && rest[0] != '"') {
    char c = rest[0];
    rest.remove_prefix(1);
    if (c != '\\') {
      out += c;
    } else if (!TakeEscape(rest, out)) {
      return std::nullopt;
    }
  }
  if (rest.empty()) return std::nullopt;
  text = rest.substr(1);
  return out;
}

absl::StatusOr<std::vector<std::string>> SplitWords(std::string_view line) {
  std::vector<std::string> words;
  for (SkipSpace(line); !line.empty(); SkipSpace(line)) {
    if (line[0] == '\'') {
      size_t end = line.find('\'', 1);
      if (end == std::string_view::npos) return Refused("a single quote is not closed");
      words.emplace_back(line.substr(1, end - 1));
      line.remove_prefix(end + 1);
    } else if (line[0] == '"') {
      std::string_view at = line;
      std::optional<std::string> word = TakeQuoted(line);
      if (!word) return Refused(fmt::format("not a valid quoted string: {}", at));
      words.push_back(*std::move(word));
    } else {
      size_t end = 0;
      while (end < line.size() && !IsSpace(line[end])) ++end;
      words.emplace_back(line.substr(0, end));
      line.remove_prefix(end);
    }
  }
  return words;
}

absl::StatusOr<pb::Compare> ParseCompare(std::string_view line) {
  size_t parenthesis = line.find('(');
  if (parenthesis == std::string_view::npos) return Malformed(line, "there is no \"(\"");
  std::string_view target = line.substr(0, parenthesis);
  std::string_view rest = line.substr(parenthesis + 1);
  SkipSpace(rest);
  std::optional<std::string> key = TakeQuoted(rest);
  if (!key) return Malformed(line, "the key is not a quoted string");
  if (!rest.starts_with(')')) return Malformed(line, "there is no \")\" after the key");
  rest.remove_prefix(1);
  SkipSpace(rest);
  size_t end = 0;
  while (end < rest.size() && !IsSpace(rest[end])) ++end;
  std::string_view op = rest.substr(0, end);
  rest.remove_prefix(end);
  SkipSpace(rest);
  std::optional<std::string> value = TakeQuoted(rest);
  if (!value) return Malformed(line, "the value is not a quoted string");

  pb::Compare compare;
  compare.set_key(*key);
  if (op == "=") {
    compare.set_result(pb::Compare::EQUAL);
  } else if (op == "!=") {
    compare.set_result(pb::Compare::NOT_EQUAL);
  } else if (op == ">") {
    compare.set_result(pb::Compare::GREATER);
  } else if (op == "<") {
    compare.set_result(pb::Compare::LESS);
  } else {
    return Malformed(line, fmt::format("unknown operator \"{}\"; there is = != > and <", op));
  }
  if (absl::Status status = SetTarget(line, target, *value, compare); !status.ok()) return status;
  return compare;
}

absl::StatusOr<pb::RequestOp> ParseOperation(std::string_view line) {
  absl::StatusOr<std::vector<std::string>> words = SplitWords(line);
  auto refuse = [&](absl::StatusCode code, std::string_view why) {
    return Refused(fmt::format("invalid txn request: {}: {}", line, why), code);
  };
  auto because = [&](const absl::Status& status) {
    return refuse(status.code(), {status.message().data(), status.message().size()});
  };
  auto unreadable = [&](const absl::Status& status) {
    return refuse(absl::StatusCode::kOutOfRange,
                  {status.message().data(), status.message().size()});
  };
  if (!words.ok()) return unreadable(words.status());
  static const Command commands = {.name = "txn",
                                   .children = {{.name = "put", .flags = PutFlags()},
                                                {.name = "get", .flags = GetFlags()},
                                                {.name = "del", .flags = DeleteFlags()}}};
  absl::StatusOr<Arguments> arguments = Parse(commands, {}, *words);
  if (!arguments.ok()) return unreadable(arguments.status());
  pb::RequestOp op;
  if (arguments->path == "put") {
    bool value_missing = false;
    absl::StatusOr<pb::PutRequest> put = PutRequestFrom(*arguments, &value_missing);
    if (!put.ok()) return because(put.status());
    if (value_missing) return refuse(absl::StatusCode::kInvalidArgument, "there is no value");
    *op.mutable_request_put() = *std::move(put);
  } else if (arguments->path == "get") {
    absl::StatusOr<pb::RangeRequest> get = RangeRequestFrom(*arguments);
    if (!get.ok()) return because(get.status());
    *op.mutable_request_range() = *std::move(get);
  } else if (arguments->path == "del") {
    absl::StatusOr<pb::DeleteRangeRequest> del = DeleteRequestFrom(*arguments);
    if (!del.ok()) return because(del.status());
    *op.mutable_request_delete_range() = *std::move(del);
  } else {
    return refuse(absl::StatusCode::kOutOfRange, "begin with put, get or del");
  }
  return op;
}

}  // namespace kv::kvctl

#include "client/kvctl/go_text.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>

namespace kv::kvctl {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

constexpr std::string_view kBase64 =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Controls, formats, separators other than the space, private use, non-characters.
bool Printable(uint32_t point) {
  static constexpr RuneSpan kHidden[] = {
      {0x00, 0x1F},       {0x7F, 0xA0},       {0xAD, 0xAD},       {0x600, 0x605},
      {0x61C, 0x61C},     {0x6DD, 0x6DD},     {0x70F, 0x70F},     {0x1680, 0x1680},
      {0x180E, 0x180E},   {0x2000, 0x200F},   {0x2028, 0x202F},   {0x205F, 0x206F},
      {0x3000, 0x3000},   {0xE000, 0xF8FF},   {0xFEFF, 0xFEFF},   {0xFFF0, 0xFFFB},
      {0xFFFE, 0xFFFF},   {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A}, {0x1FFFE, 0x1FFFF},
      {0xE0000, 0xE00FF}, {0xE01F0, 0x10FFFF}};
  return !InSpans(point, kHidden);
}

// Whether Go's omitempty leaves the field out.
bool Omitted(const Message& message, const FieldDescriptor* field) {
  const Reflection* reflection = message.GetReflection();
  if (field->is_repeated()) return reflection->FieldSize(message, field) == 0;
  return !reflection->HasField(message, field);  // proto3: set and not zero.
}

void AppendJson(std::string& out, const Message& message);

// `index` is -1 for a field that is not repeated.
void AppendJsonValue(std::string& out, const Message& message, const FieldDescriptor* field,
                     int index) {
  const Reflection* r = message.GetReflection();
  auto to = std::back_inserter(out);
  bool one = index < 0;
  switch (field->cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      fmt::format_to(
          to, "{}", one ? r->GetInt32(message, field) : r->GetRepeatedInt32(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      fmt::format_to(
          to, "{}", one ? r->GetInt64(message, field) : r->GetRepeatedInt64(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT32:
      fmt::format_to(
          to, "{}",
          one ? r->GetUInt32(message, field) : r->GetRepeatedUInt32(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_UINT64:
      fmt::format_to(
          to, "{}",
          one ? r->GetUInt64(message, field) : r->GetRepeatedUInt64(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      fmt::format_to(
          to, "{}",
          one ? r->GetDouble(message, field) : r->GetRepeatedDouble(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_FLOAT:
      fmt::format_to(
          to, "{}", one ? r->GetFloat(message, field) : r->GetRepeatedFloat(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_BOOL:
      out += (one ? r->GetBool(message, field) : r->GetRepeatedBool(message, field, index))
                 ? "true"
                 : "false";
      break;
    case FieldDescriptor::CPPTYPE_ENUM:
      fmt::format_to(
          to, "{}",
          one ? r->GetEnumValue(message, field) : r->GetRepeatedEnumValue(message, field, index));
      break;
    case FieldDescriptor::CPPTYPE_STRING: {
      std::string text =
          one ? r->GetString(message, field) : r->GetRepeatedString(message, field, index);
      bool bytes = field->type() == FieldDescriptor::TYPE_BYTES;
      out += bytes ? "\"" + Base64(text) + "\"" : GoJsonString(text);
      break;
    }
    case FieldDescriptor::CPPTYPE_MESSAGE:
      AppendJson(
          out, one ? r->GetMessage(message, field) : r->GetRepeatedMessage(message, field, index));
      break;
  }
}

void AppendJson(std::string& out, const Message& message) {
  const auto* descriptor = message.GetDescriptor();
  // Go holds a oneof in a field of its own, named after it.
  bool wrapped = descriptor->full_name() == "etcdserverpb.ResponseOp";
  out += wrapped ? "{\"Response\":{" : "{";
  bool first = true;
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* field = descriptor->field(i);
    if (Omitted(message, field)) continue;
    if (!first) out += ",";
    first = false;
    out += "\"" + field->name() + "\":";
    if (!field->is_repeated()) {
      AppendJsonValue(out, message, field, -1);
      continue;
    }
    out += "[";
    for (int item = 0; item < message.GetReflection()->FieldSize(message, field); ++item) {
      if (item > 0) out += ",";
      AppendJsonValue(out, message, field, item);
    }
    out += "]";
  }
  out += wrapped ? "}}" : "}";
}

}  // namespace

Rune FirstRune(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  Rune bad{.point = byte(0), .bytes = 1, .valid = false};
  if (byte(0) < 0x80) return {.point = byte(0), .bytes = 1, .valid = true};
  size_t bytes = byte(0) >= 0xF0 ? 4 : byte(0) >= 0xE0 ? 3 : byte(0) >= 0xC2 ? 2 : 0;
  if (bytes == 0 || byte(0) > 0xF4 || text.size() < bytes) return bad;
  uint32_t point = byte(0) & (0xFFu >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return bad;
    point = point << 6 | (byte(i) & 0x3Fu);
  }
  constexpr std::array<uint32_t, 5> kLeast = {0, 0, 0x80, 0x800, 0x10000};
  if (point < kLeast[bytes] || point > 0x10FFFF || (point >= 0xD800 && point <= 0xDFFF)) return bad;
  return {.point = point, .bytes = bytes, .valid = true};
}

std::string GoJson(const Message& message) {
  std::string out;
  AppendJson(out, message);
  return out;
}

std::string GoJsonString(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    Rune rune = FirstRune(text);
    std::string_view raw = text.substr(0, rune.bytes);
    text.remove_prefix(rune.bytes);
    if (!rune.valid) {
      out += "\\ufffd";
      continue;
    }
    switch (rune.point) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (rune.point < 0x20 || rune.point == '<' || rune.point == '>' || rune.point == '&' ||
            rune.point == 0x2028 || rune.point == 0x2029) {
          fmt::format_to(std::back_inserter(out), "\\u{:04x}", rune.point);
        } else {
          out += raw;
        }
    }
  }
  return out + "\"";
}

std::string GoQuoted(std::string_view text) {
  static constexpr std::string_view kNamed = "abfnrtv";
  static constexpr std::string_view kNamedBytes = "\a\b\f\n\r\t\v";
  std::string out = "\"";
  auto to = std::back_inserter(out);
  while (!text.empty()) {
    Rune rune = FirstRune(text);
    std::string_view raw = text.substr(0, rune.bytes);
    text.remove_prefix(rune.bytes);
    if (!rune.valid) {
      fmt::format_to(to, "\\x{:02x}", rune.point);
      continue;
    }
    size_t named = rune.bytes == 1 ? kNamedBytes.find(raw) : std::string_view::npos;
    if (rune.point == '"' || rune.point == '\\') {
      out += '\\';
      out += raw;
    } else if (named != std::string_view::npos) {
      out += '\\';
      out += kNamed[named];
    } else if (Printable(rune.point)) {
      out += raw;
    } else if (rune.point < 0x20 || rune.point == 0x7F) {
      fmt::format_to(to, "\\x{:02x}", rune.point);
    } else if (rune.point > 0xFFFF) {
      fmt::format_to(to, "\\U{:08x}", rune.point);
    } else {
      fmt::format_to(to, "\\u{:04x}", rune.point);
    }
  }
  return out + "\"";
}

std::string GoDuration(absl::Duration duration) {
  int64_t nanoseconds = absl::ToInt64Nanoseconds(duration);
  if (nanoseconds == 0) return "0s";
  std::string sign = nanoseconds < 0 ? "-" : "";
  uint64_t n = nanoseconds < 0 ? ~static_cast<uint64_t>(nanoseconds) + 1
                               : static_cast<uint64_t>(nanoseconds);
  // A number of `unit` nanoseconds with as many decimals as it takes.
  auto decimal = [](uint64_t value, uint64_t unit) {
    std::string text = std::to_string(value / unit);
    std::string rest;
    for (uint64_t left = value % unit; left > 0; left %= unit) {
      unit /= 10;
      rest += static_cast<char>('0' + left / unit);
    }
    return rest.empty() ? text : text + "." + rest;
  };
  constexpr uint64_t kSecond = 1'000'000'000;
  if (n < 1'000) return sign + std::to_string(n) + "ns";
  if (n < 1'000'000) return sign + decimal(n, 1'000) + "µs";
  if (n < kSecond) return sign + decimal(n, 1'000'000) + "ms";
  uint64_t minutes = n / kSecond / 60;
  std::string out = decimal(n - minutes * 60 * kSecond, kSecond) + "s";
  if (minutes > 0) out = std::to_string(minutes % 60) + "m" + out;
  if (minutes >= 60) out = std::to_string(minutes / 60) + "h" + out;
  return sign + out;
}

std::string HumanBytes(uint64_t bytes) {
  if (bytes < 10) return fmt::format("{} B", bytes);
  static constexpr std::array<std::string_view, 7> kUnits = {"B",  "kB", "MB", "GB",
                                                             "TB", "PB", "EB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1000 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  value = std::floor(value * 10 + 0.5) / 10;
  return value < 10 ? fmt::format("{:.1f} {}", value, kUnits[unit])
                    : fmt::format("{:.0f} {}", value, kUnits[unit]);
}

std::string Base64(std::string_view bytes) {
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (size_t i = 0; i < bytes.size(); i += 3) {
    uint32_t group = 0;
    size_t count = std::min<size_t>(3, bytes.size() - i);
    for (size_t j = 0; j < 3; ++j) {
      group = group << 8 | (j < count ? static_cast<uint8_t>(bytes[i + j]) : 0u);
    }
    for (size_t j = 0; j < 4; ++j) {
      out += j <= count ? kBase64[group >> (18 - 6 * j) & 63] : '=';
    }
  }
  return out;
}

std::optional<std::string> FromBase64(std::string_view text) {
  static constexpr auto kValues = [] {
    std::array<int8_t, 256> values{};
    values.fill(-1);
    for (size_t i = 0; i < kBase64.size(); ++i) {
      values[static_cast<uint8_t>(kBase64[i])] = static_cast<int8_t>(i);
    }
    return values;
  }();
  if (text.size() % 4 != 0) return std::nullopt;
  size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  size_t digits = text.size() - padding;
  std::string out;
  out.reserve(text.size() / 4 * 3);
  uint32_t group = 0;
  for (size_t i = 0; i < digits; ++i) {
    int8_t value = kValues[static_cast<uint8_t>(text[i])];
    if (value < 0) return std::nullopt;
    group = group << 6 | static_cast<uint32_t>(value);
    if (i % 4 == 3) {
      for (int shift : {16, 8, 0}) out += static_cast<char>(group >> shift & 0xFF);
      group = 0;
    }
  }
  // What is left over must be zero bits, or two texts would mean the same bytes.
  if (padding == 2) {
    if ((group & 0xF) != 0) return std::nullopt;
    out += static_cast<char>(group >> 4 & 0xFF);
  } else if (padding == 1) {
    if ((group & 0x3) != 0) return std::nullopt;
    out += static_cast<char>(group >> 10 & 0xFF);
    out += static_cast<char>(group >> 2 & 0xFF);
  }
  return out;
}

}  // namespace kv::kvctl

#include "client/kvctl/json_lines.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "client/kvctl/output.h"

namespace kv::kvctl {
namespace {

absl::Status Wrong(std::string text) {
  return absl::Status(absl::StatusCode::kInvalidArgument, text);
}

absl::StatusOr<std::string> Bytes(const nlohmann::json& object, const char* name) {
  auto found = object.find(name);
  if (found == object.end()) return std::string();
  if (!found->is_string()) {
    return Wrong(fmt::format("\"{}\" is not a string; write its bytes in base64", name));
  }
  auto bytes = FromBase64(found->get_ref<const std::string&>());
  if (!bytes) return Wrong(fmt::format("\"{}\" is not valid base64", name));
  return *std::move(bytes);
}

}  // namespace

absl::StatusOr<ImportedPair> ParseLine(std::string_view line) {
  nlohmann::json object = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded()) return Wrong("not valid JSON");
  if (!object.is_object()) {
    return Wrong("not a JSON object; write {\"key\":\"<base64>\",\"value\":\"<base64>\"}");
  }
  absl::StatusOr<std::string> key = Bytes(object, "key");
  if (!key.ok()) return key.status();
  if (key->empty()) return Wrong("\"key\" is missing or empty");
  absl::StatusOr<std::string> value = Bytes(object, "value");
  if (!value.ok()) return value.status();
  auto lease = object.find("lease");
  bool has_lease = lease != object.end() && !(lease->is_number() && *lease == 0);
  return ImportedPair{.key = *std::move(key), .value = *std::move(value), .has_lease = has_lease};
}

std::string FormatLine(const mvccpb::KeyValue& pair) { return GoJson(pair) + "\n"; }

absl::StatusOr<std::string> LineReader::Next() {
  std::string line;
  while (true) {
    if (at_ == end_) {
      at_ = 0;
      end_ = std::fread(buffer_.data(), 1, buffer_.size(), file_);
      if (end_ == 0) {
        if (std::ferror(file_) != 0) {
          return absl::Status(absl::StatusCode::kDataLoss,
                              fmt::format("cannot be read: {}", std::strerror(errno)));
        }
        if (line.empty()) return absl::Status(absl::StatusCode::kOutOfRange, "end of file");
        ++lines_;
        return line;
      }
    }
    std::string_view rest(buffer_.data() + at_, end_ - at_);
    size_t newline = rest.find('\n');
    std::string_view part = rest.substr(0, newline);
    if (line.size() + part.size() > kLineBytesMax) {
      ++lines_;
      return Wrong(fmt::format("the line is longer than {} bytes", kLineBytesMax));
    }
    line += part;
    bool whole = newline != std::string_view::npos;
    at_ += part.size() + (whole ? 1 : 0);
    bytes_ += part.size() + (whole ? 1 : 0);
    if (whole) {
      ++lines_;
      return line;
    }
  }
}

}  // namespace kv::kvctl

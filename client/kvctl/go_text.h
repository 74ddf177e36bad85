// Values as Go programs print them: etcdctl is one, and its output is our contract.
#pragma once

#include <google/protobuf/message.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/time/time.h"

namespace kv::kvctl {

// One character of UTF-8 as Go reads it: no surrogates, nothing over-long.
struct Rune {
  uint32_t point = 0;
  size_t bytes = 1;
  bool valid = false;  // Otherwise `point` is a single byte that begins no character.
};
Rune FirstRune(std::string_view text);  // `text` is not empty.

// Whether `point` lies in one of the spans.
struct RuneSpan {
  uint32_t first, last;
};
template <size_t kSize>
bool InSpans(uint32_t point, const RuneSpan (&spans)[kSize]) {
  for (RuneSpan span : spans) {
    if (span.first <= point && point <= span.last) return true;
  }
  return false;
}

// The message as Go's encoding/json prints the struct generated from it.
std::string GoJson(const google::protobuf::Message& message);
// A string as Go's encoding/json prints it, quotes included.
std::string GoJsonString(std::string_view text);
// As Go's %q.
std::string GoQuoted(std::string_view text);
// As Go prints a time.Duration: "1.5ms", "2m0s".
std::string GoDuration(absl::Duration duration);
// "20 kB", "2.1 GB": powers of 1000.
std::string HumanBytes(uint64_t bytes);

std::string Base64(std::string_view bytes);
// Standard alphabet with padding; nothing if it is none.
std::optional<std::string> FromBase64(std::string_view text);

}  // namespace kv::kvctl

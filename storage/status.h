// How statuses are made, read and passed on. Text is built with fmt: the distribution's Abseil has
// a string_view of its own, so ours never meets absl::StrCat or absl::InvalidArgumentError.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace kv {

template <typename... Args>
absl::Status MakeStatus(absl::StatusCode code, fmt::format_string<Args...> format, Args&&... args) {
  return absl::Status(code, fmt::format(format, std::forward<Args>(args)...));
}

inline std::string_view Message(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}

// "NOT_FOUND: no such thing", for logs and tests.
inline std::string Describe(const absl::Status& status) {
  if (status.ok()) return "OK";
  return absl::StatusCodeToString(status.code()) + ": " + std::string(Message(status));
}

}  // namespace kv

#define RETURN_IF_ERROR(expression)                                               \
  do {                                                                            \
    if (absl::Status kv_status = (expression); !kv_status.ok()) return kv_status; \
  } while (false)

#define KV_STATUS_CONCAT_INNER(a, b) a##b
#define KV_STATUS_CONCAT(a, b) KV_STATUS_CONCAT_INNER(a, b)
#define ASSIGN_OR_RETURN(target, expression) \
  ASSIGN_OR_RETURN_IMPL(KV_STATUS_CONCAT(kv_statusor_, __LINE__), target, expression)
#define ASSIGN_OR_RETURN_IMPL(statusor, target, expression) \
  auto statusor = (expression);                             \
  if (!statusor.ok()) return statusor.status();             \
  target = *std::move(statusor)

// KV_CHECK: a law of ours that does not hold ends the process.
//
// Checks are on in every build. A crash is a fault that the cluster is built to survive; a member
// that goes on from a broken invariant is not. The name is not CHECK because test frameworks own
// that word and would silently take it over.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

namespace kv {

// Called with the failed condition's text before the process aborts; a simulation installs one to
// print its seed and virtual time. Never returns control to the failed check.
using CheckHook = std::function<void(std::string_view failure)>;
inline CheckHook& TheCheckHook() {
  static CheckHook hook;
  return hook;
}

[[noreturn]] inline void FailCheck(const char* file, int line, const char* condition,
                                   std::string_view detail = {}) {
  std::string text =
      std::string(file) + ":" + std::to_string(line) + ": check failed: " + condition;
  if (!detail.empty()) text.append(": ").append(detail);
  if (TheCheckHook()) TheCheckHook()(text);
  std::fprintf(stderr, "%s\n", text.c_str());
  std::fflush(stderr);
  std::abort();
}

}  // namespace kv

// KV_CHECK(condition) or KV_CHECK(condition, text): text is evaluated only on failure.
#define KV_CHECK(condition, ...)                                                  \
  do {                                                                            \
    if (!(condition)) [[unlikely]] {                                              \
      ::kv::FailCheck(__FILE__, __LINE__, #condition __VA_OPT__(, ) __VA_ARGS__); \
    }                                                                             \
  } while (false)

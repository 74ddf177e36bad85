// MARK("raft.name") notes that a rare branch ran, so that a corpus of random runs can be asked
// whether it reached them all. Builds without KVD_SIM contain nothing of it.
#pragma once

#ifdef KVD_SIM

#include <functional>
#include <string_view>

namespace kv {

inline std::function<void(std::string_view name)>& TheMarkHook() {
  static std::function<void(std::string_view name)> hook;
  return hook;
}

inline void HitMark(std::string_view name) {
  if (TheMarkHook()) TheMarkHook()(name);
}

}  // namespace kv

#define MARK(name) ::kv::HitMark(name)

#else

#define MARK(name) static_cast<void>(0)

#endif

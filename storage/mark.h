// MARK and MUTANT: how the simulation is itself put to the test.
//
// MARK(NAME) notes that a rare branch ran, so that a corpus of random runs can be asked
// whether it reached them all. `if (MUTANT(NAME))` puts a known bug back, chosen at run
// time, so that the tests can be asked whether they find it. Builds without KVD_SIM contain nothing
// of either: not a branch, not a name.
#pragma once

#ifdef KVD_SIM

#include <cstdlib>
#include <functional>
#include <string>
#include <string_view>

namespace kv {

inline std::function<void(std::string_view name)>& TheMarkHook() {
  static std::function<void(std::string_view name)> hook;
  return hook;
}

inline void HitMark(std::string_view name) {
  if (TheMarkHook()) TheMarkHook()(name);
}

// The one mutant that lives; empty: none. KVD_MUTANT in the environment names it for every test
// that is built so.
inline std::string& TheMutant() {
  static std::string name = std::getenv("KVD_MUTANT") == nullptr ? "" : std::getenv("KVD_MUTANT");
  return name;
}

inline bool IsMutant(std::string_view name) { return TheMutant() == name; }

}  // namespace kv

#define MARK(name) ::kv::HitMark(name)
#define MUTANT(name) ::kv::IsMutant(name)

#else

#define MARK(name) static_cast<void>(0)
#define MUTANT(name) false

#endif

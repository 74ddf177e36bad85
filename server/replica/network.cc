#include "server/replica/network.h"

#include <fmt/format.h>

namespace kv {

std::string StaleEvidence(const KnownOfSelf& known, Index last_index, uint64_t boot_epoch) {
  if (last_index < known.acknowledged) {
    return fmt::format("its log ends at entry {}, and member {:x} knows of entry {}", last_index,
                       known.by, known.acknowledged);
  }
  if (boot_epoch < known.newest_boot_epoch) {
    return fmt::format("this is start {} on it, and member {:x} has seen start {}", boot_epoch,
                       known.by, known.newest_boot_epoch);
  }
  return {};
}

}  // namespace kv

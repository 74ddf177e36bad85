#include "server/raft/message.h"

#include <algorithm>

namespace kv::raft {

// By what the entries are, not by where they are kept.
bool operator==(const Append& a, const Append& b) {
  return a.prev == b.prev && a.commit == b.commit &&
         std::equal(a.entries.begin(), a.entries.end(), b.entries.begin(), b.entries.end(),
                    [](const EntryPtr& x, const EntryPtr& y) { return *x == *y; });
}

}  // namespace kv::raft

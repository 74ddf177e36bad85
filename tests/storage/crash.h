// Looks at every moment of a recorded workload: cuts the power there in every way that FaultDisk
// knows, opens what is left and lets the workload's own check judge it.
//
// One run is recorded and then replayed operation by operation, so a failure names the operation,
// the policy and the seed, and the same trace can be looked at again. KVD_CRASH_SEED starts from
// another seed; KVD_CRASH_STRIDE=n looks at every n-th combination only (1: at all of them).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/storage/fault_disk.h"

namespace kv::test {

uint64_t CrashSeed();
size_t CrashStride(size_t otherwise);

// What an opened disk turned out to hold.
struct Verdict {
  std::string failure;  // Empty: all is well.
  std::string found;    // Describes what was found; equal for equal content.
};
// Opens the disk as a restarting member would and compares it with what had been acknowledged when
// `operations` of the trace were done.
using Judge = std::function<Verdict(FaultDisk& disk, size_t operations)>;

struct CutCount {
  size_t cuts = 0;    // Combinations of moment and policy.
  size_t nested = 0;  // Of these, with a second loss of power during or after the recovery.
};
// Fails the running test case at the first combination that `judge` rejects.
CutCount CutEverywhere(const std::string& name, const std::vector<DiskOperation>& trace,
                       uint64_t seed, size_t stride, const Judge& judge);

}  // namespace kv::test

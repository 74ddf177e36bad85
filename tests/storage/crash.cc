#include "tests/storage/crash.h"

#include <fmt/format.h>

#include <algorithm>

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>

namespace kv::test {
namespace {

uint64_t FromEnvironment(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::strtoull(text, nullptr, 10) : otherwise;
}

void Reject(const std::string& where, const std::string& failure) {
  FAIL(where << "\n  " << failure << "\n  replay with KVD_CRASH_SEED=" << CrashSeed());
}

}  // namespace

uint64_t CrashSeed() { return FromEnvironment("KVD_CRASH_SEED", 1); }

size_t CrashStride(size_t otherwise) {
  return std::max<size_t>(1, FromEnvironment("KVD_CRASH_STRIDE", otherwise));
}

CutCount CutEverywhere(const std::string& name, const std::vector<DiskOperation>& trace,
                       uint64_t seed, size_t stride, const Judge& judge) {
  CutCount count;
  DiskImage image;
  size_t combination = 0;
  for (size_t operations = 0; operations <= trace.size(); ++operations) {
    if (operations > 0) image.Apply(trace[operations - 1]);
    for (const PowerLoss policy : kPowerLosses) {
      if (combination++ % stride != 0) continue;
      Dice dice(seed + combination);
      const std::string where = fmt::format(
          "{}: cut after operation {} of {} ({}), policy \"{}\"", name, operations, trace.size(),
          operations > 0 ? trace[operations - 1].ToString() : "none", Name(policy));
      const DiskImage left = image.AfterPowerLoss(policy, dice.Next());
      FaultDisk disk(left);
      const Verdict verdict = judge(disk, operations);
      if (!verdict.failure.empty()) Reject(where, verdict.failure);
      ++count.cuts;

      // A process that died takes nothing with it, so the interesting moment is the next loss of
      // power; after the other policies a tenth is cut again while it recovers.
      const bool process_only = policy == PowerLoss::kProcessOnly;
      if (!process_only && dice.Below(10) != 0) continue;
      const std::vector<DiskOperation> recovery = disk.trace();
      const bool after_recovery = process_only && dice.Coin();
      const size_t kept = after_recovery ? recovery.size() : dice.Below(recovery.size() + 1);
      DiskImage second = left;
      for (size_t i = 0; i < kept; ++i) second.Apply(recovery[i]);
      const PowerLoss again = after_recovery ? PowerLoss::kDropAll : kPowerLosses[dice.Below(6)];
      FaultDisk second_disk(second.AfterPowerLoss(again, dice.Next()));
      const Verdict repeated = judge(second_disk, operations);
      const std::string there =
          fmt::format("{}, then after {} of {} operations of recovery, \"{}\"", where, kept,
                      recovery.size(), Name(again));
      if (!repeated.failure.empty()) Reject(there, repeated.failure);
      if (kept == recovery.size() && repeated.found != verdict.found) {
        Reject(there, fmt::format("the first recovery found {}, the second {}", verdict.found,
                                  repeated.found));
      }
      ++count.nested;
    }
  }
  return count;
}

}  // namespace kv::test

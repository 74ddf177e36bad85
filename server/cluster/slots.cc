#include "server/cluster/slots.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "storage/mark.h"

namespace kv::cluster {

std::optional<uint64_t> SlotNumber(std::string_view prefix, std::string_view name) {
  if (prefix.empty() || !name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  if (!name.starts_with('-')) return std::nullopt;
  const std::string_view digits = name.substr(1);
  if (digits.size() > 1 && digits.front() == '0') return std::nullopt;
  uint64_t number = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  return number;
}

bool IsWanted(const UpkeepOptions& options, const DesiredCount& desired, std::string_view name) {
  const std::optional<uint64_t> slot = SlotNumber(options.slot_prefix, name);
  return !slot || desired.Wants(*slot);
}

const Sight& SightOf(const Sights& sights, MemberId id) {
  static const Sight kUnseen;
  const auto at = sights.find(id);
  return at == sights.end() ? kUnseen : at->second;
}

bool ShareAny(const std::vector<std::string>& left, const std::vector<std::string>& right) {
  return std::ranges::any_of(left, [&right](const std::string& url) {
    return std::ranges::find(right, url) != right.end();
  });
}

std::string NameOf(const raft::Members& members, MemberId id) {
  const std::optional<MemberRecord> record = RecordOf(members, id);
  return fmt::format("{} (member {:x})", record ? record->name : "?", id);
}

std::vector<MemberId> Holders(const raft::Members& members, std::string_view name) {
  std::vector<MemberId> holders;
  for (const MemberId id : members.All()) {
    const std::optional<MemberRecord> record = RecordOf(members, id);
    if (record && record->kept && record->name == name) holders.push_back(id);
  }
  return holders;
}

size_t CountActive(const std::vector<MemberId>& voters, const Sights& sights) {
  return static_cast<size_t>(std::ranges::count_if(voters, [&sights](MemberId id) {
    const Sight& sight = SightOf(sights, id);
    return sight.active && (!sight.stopping || MUTANT("upkeep.stopping_counts"));
  }));
}

bool IsMajority(size_t some, const std::vector<MemberId>& voters) {
  return some > voters.size() / 2;
}

}  // namespace kv::cluster

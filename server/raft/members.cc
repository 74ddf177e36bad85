#include "server/raft/members.h"
#include "storage/mark.h"

#include <algorithm>
#include <iterator>

namespace kv::raft {
namespace {

using Ids = std::vector<MemberId>;

constexpr char kVersion = 1;
constexpr size_t kTombstonesMax = size_t{1} << 20;

bool Contains(const Ids& ids, MemberId id) {
  return std::binary_search(ids.begin(), ids.end(), id);
}

void Insert(Ids& ids, MemberId id) {
  const auto at = std::lower_bound(ids.begin(), ids.end(), id);
  if (at == ids.end() || *at != id) ids.insert(at, id);
}

void Erase(Ids& ids, MemberId id) {
  const auto at = std::lower_bound(ids.begin(), ids.end(), id);
  if (at != ids.end() && *at == id) ids.erase(at);
}

bool IsSet(const Ids& ids) {
  const bool ascends =
      std::adjacent_find(ids.begin(), ids.end(), std::greater_equal<>()) == ids.end();
  return ascends && (ids.empty() || ids.front() != 0);
}

bool Disjoint(const Ids& a, const Ids& b) {
  return std::none_of(a.begin(), a.end(), [&b](MemberId id) { return Contains(b, id); });
}

void PutNumber(std::string& out, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out.push_back(static_cast<char>((value >> (8 * i)) & 0xff));
}

void PutIds(std::string& out, const Ids& ids) {
  PutNumber(out, ids.size(), 4);
  for (const MemberId id : ids) PutNumber(out, id, 8);
}

// Reads from the front of `bytes`; once something is missing, everything after it is too.
class Decoder {
 public:
  explicit Decoder(std::string_view bytes) : bytes_(bytes) {}

  uint64_t Number(size_t width) {
    if (bytes_.size() < width) Fail();
    if (!sound_) return 0;
    uint64_t value = 0;
    for (size_t i = 0; i < width; ++i) {
      value |= uint64_t{static_cast<unsigned char>(bytes_[i])} << (8 * i);
    }
    bytes_.remove_prefix(width);
    return value;
  }

  Ids IdList(size_t count_max) {
    const uint64_t count = Number(4);
    if (count > count_max || bytes_.size() / 8 < count) Fail();
    Ids ids;
    if (!sound_) return ids;
    ids.reserve(count);
    for (uint64_t i = 0; i < count; ++i) ids.push_back(Number(8));
    return ids;
  }

  std::string Bytes(size_t size_max) {
    const uint64_t size = Number(4);
    if (size > size_max || bytes_.size() < size) Fail();
    if (!sound_) return {};
    std::string out(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return out;
  }

  void Fail() {
    sound_ = false;
    bytes_ = {};
  }
  bool sound() const { return sound_; }
  bool AtEnd() const { return sound_ && bytes_.empty(); }

 private:
  std::string_view bytes_;
  bool sound_ = true;
};

bool TargetsAreSound(const MemberChange& change) {
  Ids named;
  for (const MemberTarget& target : change.targets) {
    if (target.id == 0 || Contains(named, target.id)) return false;
    Insert(named, target.id);
    if (!target.record) continue;
    if (target.fate == MemberFate::kRemoved || target.record->size() > kRecordBytesMax)
      return false;
  }
  return true;
}

// Moves one member of a configuration that is not joint.
ChangeRefusal MoveMember(Members& next, const MemberTarget& target) {
  if (next.IsRemoved(target.id)) return ChangeRefusal::kWasRemoved;
  if (target.fate == MemberFate::kRemoved && !next.IsMember(target.id)) {
    return ChangeRefusal::kUnknownMember;
  }
  Erase(next.voters, target.id);
  Erase(next.learners, target.id);
  switch (target.fate) {
    case MemberFate::kVoter:
      Insert(next.voters, target.id);
      break;
    case MemberFate::kLearner:
      Insert(next.learners, target.id);
      break;
    case MemberFate::kRemoved:
      Insert(next.removed, target.id);
      next.records.erase(target.id);
      break;
  }
  if (target.record) next.records[target.id] = *target.record;
  return ChangeRefusal::kNone;
}

// `next` holds the members as they shall be; makes it the joint configuration that leads there.
void EnterJoint(const Members& from, Members& next) {
  next.outgoing = from.voters;
  for (const MemberId id : from.voters) {
    if (Contains(next.learners, id)) {
      Erase(next.learners, id);
      Insert(next.learners_next, id);
    }
    if (!Contains(next.removed, id)) continue;
    // It votes until the joint configuration is left, so it keeps its record until then.
    Erase(next.removed, id);
    const auto record = from.records.find(id);
    if (record != from.records.end()) next.records.insert(*record);
  }
}

}  // namespace

bool Members::IsVoter(MemberId id) const { return Contains(voters, id) || Contains(outgoing, id); }
bool Members::IsLearner(MemberId id) const { return Contains(learners, id); }
bool Members::IsMember(MemberId id) const { return IsVoter(id) || IsLearner(id); }
bool Members::IsRemoved(MemberId id) const { return Contains(removed, id); }

bool Members::IsSoleVoter(MemberId id) const {
  return voters == Ids{id} && (outgoing.empty() || outgoing == Ids{id});
}

std::vector<MemberId> Members::All() const {
  Ids all = voters;
  for (const MemberId id : outgoing) Insert(all, id);
  for (const MemberId id : learners) Insert(all, id);
  return all;
}

bool Members::IsValid() const {
  for (const Ids* ids : {&voters, &outgoing, &learners, &learners_next, &removed}) {
    if (!IsSet(*ids)) return false;
  }
  if (voters.size() > kVotersMax || outgoing.size() > kVotersMax) return false;
  if (removed.size() > kTombstonesMax) return false;
  const Ids all = All();
  if (all.size() > kMembersMax) return false;
  if (voters.empty() && !(all.empty() && removed.empty())) return false;
  if (!Disjoint(learners, voters) || !Disjoint(learners, outgoing)) return false;
  if (!Disjoint(learners_next, voters) || !Disjoint(removed, all)) return false;
  if (!std::includes(outgoing.begin(), outgoing.end(), learners_next.begin(),
                     learners_next.end())) {
    return false;
  }
  return std::all_of(records.begin(), records.end(), [&all](const auto& record) {
    return Contains(all, record.first) && record.second.size() <= kRecordBytesMax;
  });
}

// version 1 | five lists: u32 count, u64 ids | u32 count of records: u64 id, u32 size, bytes.
// Little-endian.
std::string Encode(const Members& members) {
  std::string out(1, kVersion);
  PutIds(out, members.voters);
  PutIds(out, members.outgoing);
  PutIds(out, members.learners);
  PutIds(out, members.learners_next);
  PutIds(out, members.removed);
  PutNumber(out, members.records.size(), 4);
  for (const auto& [id, record] : members.records) {
    PutNumber(out, id, 8);
    PutNumber(out, record.size(), 4);
    out += record;
  }
  return out;
}

std::optional<Members> DecodeMembers(std::string_view bytes) {
  Decoder decoder(bytes);
  if (decoder.Number(1) != uint64_t{kVersion}) return std::nullopt;
  Members members;
  members.voters = decoder.IdList(kVotersMax);
  members.outgoing = decoder.IdList(kVotersMax);
  members.learners = decoder.IdList(kMembersMax);
  members.learners_next = decoder.IdList(kVotersMax);
  members.removed = decoder.IdList(kTombstonesMax);
  const uint64_t records = decoder.Number(4);
  if (records > kMembersMax) return std::nullopt;
  for (uint64_t i = 0; i < records && decoder.sound(); ++i) {
    const MemberId id = decoder.Number(8);
    // Ascending ids only: a value has one encoding.
    if (!members.records.empty() && members.records.rbegin()->first >= id) return std::nullopt;
    members.records.emplace_hint(members.records.end(), id, decoder.Bytes(kRecordBytesMax));
  }
  if (!decoder.AtEnd() || !members.IsValid()) return std::nullopt;
  return members;
}

ChangeOutcome PlanChange(const Members& from, const MemberChange& change) {
  if (from.IsJoint()) return {ChangeRefusal::kUnderWay, {}};
  if (!TargetsAreSound(change)) return {ChangeRefusal::kInvalid, {}};
  if (change.from && *change.from != from) return {ChangeRefusal::kMoved, {}};
  ChangeOutcome outcome{ChangeRefusal::kNone, from};
  Members& next = outcome.next;
  for (const MemberTarget& target : change.targets) {
    if (const ChangeRefusal refusal = MoveMember(next, target); refusal != ChangeRefusal::kNone) {
      return {refusal, {}};
    }
  }
  if (next.voters.empty()) return {ChangeRefusal::kNoVoter, {}};
  if (next == from) return {ChangeRefusal::kNothingChanges, {}};
  if (next.voters != from.voters && !MUTANT("raft.change_without_joint")) EnterJoint(from, next);
  if (next.voters.size() > kVotersMax || next.All().size() > kMembersMax) {
    return {ChangeRefusal::kTooMany, {}};
  }
  return outcome;
}

Members LeaveJoint(const Members& joint) {
  Members next = joint;
  next.outgoing.clear();
  next.learners_next.clear();
  for (const MemberId id : joint.outgoing) {
    if (Contains(joint.voters, id)) continue;
    if (Contains(joint.learners_next, id)) {
      Insert(next.learners, id);
    } else {
      Insert(next.removed, id);
      next.records.erase(id);
    }
  }
  return next;
}

}  // namespace kv::raft

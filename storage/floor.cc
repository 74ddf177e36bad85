#include "storage/floor.h"

#include <rocksdb/env.h>

#include <algorithm>
#include <array>
#include <utility>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr uint32_t kFormat = 1;
constexpr std::string_view kKind = "kvd floor";
constexpr size_t kSlotBytes = 4096;
constexpr size_t kRecordBytes = 16 + 3 * 4 + 8 * 8 + 4;  // A framed record of eight integers.
constexpr std::string_view kNextStep =
    "the disk has lost what it had acknowledged: check it, then remove this member and add it "
    "again with an empty disk";

struct Slot {
  uint64_t sequence = 0;
  Floor::Owner owner;
  Floor::Mark mark;
};

absl::StatusOr<Slot> DecodeSlot(std::string_view bytes, std::string_view origin) {
  ASSIGN_OR_RETURN(const Record record,
                   DecodeRecord(bytes.substr(0, kRecordBytes), kKind, kFormat, origin));
  ByteReader reader(record.body);
  Slot slot;
  slot.sequence = reader.U64();
  slot.owner.cluster_id = reader.U64();
  slot.owner.member_id = reader.U64();
  slot.mark.term = reader.U64();
  slot.mark.vote = reader.U64();
  slot.mark.commit = reader.U64();
  slot.mark.last.index = reader.U64();
  slot.mark.last.term = reader.U64();
  return slot;
}

}  // namespace

Floor::Floor(rocksdb::Env* env, std::string path, Owner owner)
    : env_(env), path_(std::move(path)), owner_(owner) {}
Floor::~Floor() = default;

absl::StatusOr<std::unique_ptr<Floor>> Floor::Open(rocksdb::Env* env, const std::string& path,
                                                   Owner owner,
                                                   const LogStore::Contents& contents) {
  std::unique_ptr<Floor> floor(new Floor(env, path, owner));
  ASSIGN_OR_RETURN(const bool exists, FileExists(env, path));
  if (exists) {
    RETURN_IF_ERROR(floor->Read());
    RETURN_IF_ERROR(floor->Check(contents));
  } else if (contents.empty()) {
    RETURN_IF_ERROR(floor->Create());
  } else {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} is missing beside a log that ends at index {} (term {}); restore the "
                      "member's directory from a backup, or remove this member and add it again "
                      "with an empty disk",
                      path, contents.last().index, contents.last().term);
  }
  RETURN_IF_ERROR(FromRocks(env->NewRandomRWFile(path, &floor->file_, rocksdb::EnvOptions()),
                            fmt::format("cannot open {}", path)));
  return floor;
}

absl::Status Floor::Raise(Index commit, const LogStore& log) {
  const Mark next{.term = log.hard_state().term,
                  .vote = log.hard_state().vote,
                  .commit = std::max(mark_.commit, std::min(commit, log.last().index)),
                  .last = log.last()};
  return next == mark_ ? absl::OkStatus() : Write(next);
}

absl::Status Floor::LowerFor(std::span<const LogUpdate> updates) {
  if (MUTANT("storage.floor_not_lowered")) return absl::OkStatus();
  Mark next = mark_;
  const auto lower_to = [&next](Index index) {
    next.commit = std::min(next.commit, index);
    next.last = {.index = index, .term = 0};
  };
  for (const LogUpdate& update : updates) {
    if (update.reset) {
      const bool replaces_last =
          update.reset->index == next.last.index && update.reset->term != next.last.term;
      if (update.reset->index < next.last.index || replaces_last) lower_to(update.reset->index);
    }
    if (!update.entries.empty() && update.entries.front()->index <= next.last.index) {
      lower_to(update.entries.front()->index - 1);
    }
  }
  if (next != mark_) MARK("storage.floor_lowered");
  return next == mark_ ? absl::OkStatus() : Write(next);
}

absl::Status Floor::Read() {
  // A process that died in Write left a slot that reads show and power loss still takes; what is
  // believed here must not vanish later.
  RETURN_IF_ERROR(SyncFile(env_, path_));
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, ReadFile(env_, path_));
  if (!bytes || bytes->size() != 2 * kSlotBytes) {
    return MakeStatus(absl::StatusCode::kDataLoss, "{} is damaged: it has {} bytes, not {}; {}",
                      path_, bytes ? bytes->size() : 0, 2 * kSlotBytes, kNextStep);
  }
  std::optional<Slot> newest;
  absl::Status damage;
  for (size_t i = 0; i < 2; ++i) {
    const absl::StatusOr<Slot> slot =
        DecodeSlot(std::string_view(*bytes).substr(i * kSlotBytes, kSlotBytes), path_);
    if (slot.ok()) {
      if (!newest || slot->sequence > newest->sequence) newest = *slot;
    } else if (slot.status().code() == absl::StatusCode::kFailedPrecondition) {
      return slot.status();
    } else {
      damage = slot.status();  // A torn write; the other slot holds.
    }
  }
  if (!newest) return damage;
  if (newest->owner != owner_) {
    return MakeStatus(absl::StatusCode::kFailedPrecondition,
                      "{} belongs to member {:016x} of cluster {:016x}, but this is member {:016x} "
                      "of cluster {:016x}; give every member its own data directory",
                      path_, newest->owner.member_id, newest->owner.cluster_id, owner_.member_id,
                      owner_.cluster_id);
  }
  sequence_ = newest->sequence;
  mark_ = newest->mark;
  return absl::OkStatus();
}

absl::Status Floor::Create() {
  sequence_ = 2;
  std::string bytes = EncodeSlot(mark_, 2);
  bytes += EncodeSlot(mark_, 1);
  return WriteFileAtomically(env_, path_, bytes);
}

absl::Status Floor::Check(const LogStore::Contents& contents) const {
  const Position last = contents.last();
  if (last.index < mark_.commit || last.index < mark_.last.index) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the log ends at index {} (term {}), but {} says that it reached index {} "
                      "(term {}) with index {} committed; {}",
                      last.index, last.term, path_, mark_.last.index, mark_.last.term, mark_.commit,
                      kNextStep);
  }
  if (contents.hard_state.term < mark_.term) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the log's hard state is of term {}, but {} says that it reached term {}; {}",
                      contents.hard_state.term, path_, mark_.term, kNextStep);
  }
  if (contents.hard_state.term == mark_.term && mark_.vote != 0 &&
      contents.hard_state.vote != mark_.vote) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the log's hard state holds a vote for {:016x} in term {}, but {} says that "
                      "it was for {:016x}; {}",
                      contents.hard_state.vote, mark_.term, path_, mark_.vote, kNextStep);
  }
  const bool comparable = mark_.last.term != 0 && mark_.last.index >= contents.base.index;
  if (comparable && !contents.Holds(mark_.last)) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the log (base {}, term {}; end {}, term {}) does not hold index {} of term "
                      "{}, which {} says it held; {}",
                      contents.base.index, contents.base.term, last.index, last.term,
                      mark_.last.index, mark_.last.term, path_, kNextStep);
  }
  return absl::OkStatus();
}

absl::Status Floor::Write(const Mark& mark) {
  const uint64_t sequence = sequence_ + 1;
  const std::string slot = EncodeSlot(mark, sequence);
  const std::string what = fmt::format("cannot write {}", path_);
  // Even numbers in the first slot: a torn write only ever hits the older of the two.
  RETURN_IF_ERROR(FromRocks(
      file_->Write((sequence % 2) * kSlotBytes, rocksdb::Slice(slot.data(), slot.size())), what));
  RETURN_IF_ERROR(FromRocks(file_->Fsync(), what));
  sequence_ = sequence;
  mark_ = mark;
  return absl::OkStatus();
}

std::string Floor::EncodeSlot(const Mark& mark, uint64_t sequence) const {
  Record record{.kind = std::string(kKind), .format = kFormat, .minimum_reader = 1, .body = {}};
  for (const uint64_t field : {sequence, owner_.cluster_id, owner_.member_id, mark.term, mark.vote,
                               mark.commit, mark.last.index, mark.last.term}) {
    PutU64(record.body, field);
  }
  std::string bytes = EncodeRecord(record);
  KV_CHECK(bytes.size() == kRecordBytes);
  bytes.resize(kSlotBytes, '\0');
  return bytes;
}

}  // namespace kv

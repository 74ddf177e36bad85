// The state of one cluster becomes the first state of another.
#include <utility>

#include "storage/files.h"
#include "storage/mvcc.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr size_t kWriteBytes = size_t{1} << 20;

// A lease is told from an older one of the same id by the index that granted it. Indices begin
// anew: all are said to be of the first, where no command can grant one.
absl::Status RegrantLeases(Database& database, const DatabaseView& data, Index index) {
  WriteSet writes;
  const std::unique_ptr<Cursor> rows = data.NewCursor(LeaseLower(), LeaseUpper());
  for (rows->Seek(LeaseLower()); rows->Valid(); rows->Next()) {
    const std::optional<int64_t> id = ParseLeaseKey(rows->key());
    std::optional<Lease> lease;
    if (id) lease = DecodeLease(*id, rows->value());
    if (!lease) {
      return MakeStatus(absl::StatusCode::kDataLoss, "the state database holds a malformed lease");
    }
    lease->granted = index;
    writes.Put(rows->key(), EncodeLease(*lease));
    if (writes.bytes() < kWriteBytes) continue;
    RETURN_IF_ERROR(database.Write(writes, Sync::kNo));
    writes = {};
  }
  RETURN_IF_ERROR(rows->status());
  return writes.empty() ? absl::OkStatus() : database.Write(writes, Sync::kNo);
}

}  // namespace

absl::Status Mvcc::Refound(Database& database, const Refounding& refounding) {
  const std::shared_ptr<const DatabaseView> data = database.View();
  ASSIGN_OR_RETURN(const std::optional<std::string> bytes, data->Get(NoteKey(kHeadNote)));
  if (!bytes) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "the state database does not say how far it is applied");
  }
  ASSIGN_OR_RETURN(Head head, DecodeHead(*bytes));
  const Revision before = head.revision;
  head.applied = refounding.applied;
  head.digest = 0;
  head.revision += static_cast<Revision>(refounding.bump);
  if (refounding.mark_compacted) head.compacted = head.revision;

  WriteSet writes;
  writes.Put(NoteKey(kHeadNote), EncodeHead(head));
  for (const auto& [name, value] : refounding.notes) writes.Put(NoteKey(name), value);
  // The runs of live keys are of the last revision, which has another number now. Were they older,
  // opening the state would make them anew.
  ASSIGN_OR_RETURN(const std::optional<std::string> counts, data->Get(NoteKey(kCountsNote)));
  std::string last;
  PutU64(last, static_cast<uint64_t>(before));
  if (counts == last) {
    std::string now;
    PutU64(now, static_cast<uint64_t>(head.revision));
    writes.Put(NoteKey(kCountsNote), now);
  }
  RETURN_IF_ERROR(database.Write(writes, Sync::kNo));
  RETURN_IF_ERROR(RegrantLeases(database, *data, refounding.applied.index));
  return database.Flush();
}

}  // namespace kv

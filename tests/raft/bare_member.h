// A member without a shell: a core, a disk that forgets what was not synced, and a machine that
// only counts. What the raft scripts and the explorer are built from; both drive it by hand.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "server/raft/core.h"

namespace kv::raft {

// What is durable: the log as LogStore keeps it, and the machine as of its last flush.
struct BareDisk {
  HardState hard_state;
  Position base;
  Members base_members;
  std::vector<EntryPtr> entries;
  Position applied;         // The machine's.
  Members applied_members;  // As of `applied`.
  Position adopting;        // The last snapshot whose adoption was begun.

  Index last_index() const { return base.index + entries.size(); }
  std::optional<Term> TermAt(Index index) const;
  bool Holds(Position position) const { return TermAt(position.index) == position.term; }
  void Write(const LogUpdate& update);
  void Drop(Position through);
  // Makes the snapshot the machine's state. The log is untouched.
  void Adopt(Position at, const Members& members);
  // What a start finds, after the recovery rule: replay if the log holds `applied`, reset the log
  // if an adoption of just that position was under way.
  Found Recover() const;
};

class BareMember {
 public:
  BareMember(MemberId id, const Options& options, BareDisk disk);

  void Start(uint64_t seed);
  void Crash();  // Unfinished writes, and what the machine did not flush, are gone.
  bool running() const { return core_ != nullptr; }

  // Takes the core's output; keeps its write, its committed entries and its adoption for later.
  Output Take();
  // Finishes the oldest write: durable, and reported to the core. Returns its promises.
  std::vector<Envelope> FinishWrite();
  // The same in two steps, as where the promises leave from the disk's own thread: whoever they
  // reach may have answered before the core hears that they are true.
  std::vector<Envelope> SyncWrite();
  void HearOfWrites();
  // The oldest write reaches the disk, but nobody hears of it: power fails right after the sync.
  void WriteUnheard();
  // Applies up to `count` committed entries and reports them.
  void Apply(size_t count);
  // Makes the machine durable as it is and lets the core drop its log.
  void Flush();
  // Adopts the snapshot that the core asked for and reports it.
  void FinishAdoption();
  // A snapshot of the machine, in an envelope to `to`. Making it flushes the machine.
  Envelope TakeSnapshot(MemberId to);

  MemberId id() const { return id_; }
  Core& core() { return *core_; }
  const Core& core() const { return *core_; }
  const BareDisk& disk() const { return disk_; }
  const std::deque<Write>& writing() const { return writing_; }
  bool has_unheard() const { return !unheard_.empty(); }                // Synced, not reported.
  const std::deque<EntryPtr>& committed() const { return committed_; }  // Not yet applied.
  const std::optional<SnapshotOffer>& adoption() const { return adoption_; }
  Position applied() const { return applied_; }

 private:
  const MemberId id_;
  const Options options_;
  BareDisk disk_;
  std::unique_ptr<Core> core_;
  std::deque<Write> writing_;
  std::deque<WriteId> unheard_;
  std::deque<EntryPtr> committed_;
  std::optional<SnapshotOffer> adoption_;
  Position applied_;
  Members applied_members_;
};

}  // namespace kv::raft

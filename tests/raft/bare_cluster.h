// Bare members and the messages between them, all moved by hand: nothing is delivered, written or
// applied unless the test says so. The raft scripts speak to it, and so do the tests of the rules.
//
// Every input is followed by the core's CheckInvariants and by taking its output; what passes the
// seam is traced as text.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "tests/raft/bare_member.h"

namespace kv::raft {

struct BareFounding {
  std::vector<MemberId> voters{};
  std::vector<MemberId> learners{};
  Term term = 1;
  std::vector<Term> log{};  // Terms of the entries behind the base, 1@1.
};

class BareCluster {
 public:
  explicit BareCluster(const Options& options = {}) : options_(options) {}

  // Makes and starts members that agree on everything in `founding`.
  void Found(const BareFounding& founding);
  // Makes (again) and starts one founding member with a disk of its own.
  void Place(MemberId id, const BareFounding& founding, HardState hard_state);
  // A member that has nothing yet.
  void PlaceBlank(MemberId id);

  BareMember& operator[](MemberId id) { return members_.at(id); }
  Core& core(MemberId id) { return members_.at(id).core(); }
  bool Has(MemberId id) const { return members_.contains(id); }
  std::vector<MemberId> Ids() const;
  bool IsRunning(MemberId id) const { return Has(id) && members_.at(id).running(); }

  // Inputs. Each takes the output, traces it and puts its messages on the network.
  void Tick(MemberId id, int times = 1);
  void Campaign(MemberId id);  // Ticks until it asks for pre-votes or leads.
  ProposeResult Propose(MemberId id, std::vector<std::string> commands);
  ChangeResult Change(MemberId id, const MemberChange& change);
  TransferRefusal Transfer(MemberId id, MemberId to);
  void Read(MemberId id, ReadId read);
  void Step(Envelope envelope);
  void Unreachable(MemberId id, MemberId peer);
  bool FinishWrite(MemberId id);     // False: there is none.
  bool FinishAdoption(MemberId id);  // The same.
  bool Apply(MemberId id);           // The same.
  void Flush(MemberId id);
  void OfferSnapshot(MemberId from, MemberId to);  // On the network as any message.
  void FailSnapshot(MemberId from, MemberId to);
  void Crash(MemberId id);
  void Restart(MemberId id);

  // The network. `kind` as KindOf names it, or "*"; 0 is any member.
  struct Filter {
    MemberId from = 0;
    MemberId to = 0;
    std::string kind = "*";
    bool Takes(const Envelope& envelope) const;
  };
  const std::vector<Envelope>& network() const { return network_; }
  size_t CountOnNetwork(const Filter& filter) const;
  bool Deliver(const Filter& filter);  // The oldest that the filter takes; false: there is none.
  size_t DeliverAll(const Filter& filter);  // Those there now, not what they bring about.
  bool Drop(const Filter& filter);
  size_t DropAll(const Filter& filter);
  bool Copy(const Filter& filter);  // A second one, at the end.
  void Cut(MemberId from, MemberId to) { cuts_.insert({from, to}); }
  void Isolate(MemberId id);
  void Heal() { cuts_.clear(); }
  bool IsCut(MemberId from, MemberId to) const { return cuts_.contains({from, to}); }
  // Delivers, writes, adopts and applies among `ids` (none: all) until nothing is left to do.
  void Settle(std::vector<MemberId> ids = {});
  // What Settle and the inputs leave alone.
  void HoldWrites(MemberId id) { held_writes_.insert(id); }
  void ReleaseWrites(MemberId id) { held_writes_.erase(id); }
  void HoldMachine(MemberId id) { held_machines_.insert(id); }
  void ReleaseMachine(MemberId id) { held_machines_.erase(id); }

  // The others miss their leader, `id` campaigns, everything settles. What was under way is lost.
  void Elect(MemberId id);

  // What the members gave out so far, over all their lives.
  struct Record {
    std::vector<ReadGrant> reads{};
    std::vector<ReadId> dropped_reads{};
    std::vector<MemberId> need_snapshot{};
    std::vector<SnapshotOffer> refused_snapshots{};
    std::vector<EntryPtr> committed{};
    std::vector<Standing> standings{};
    std::vector<Envelope> sent{};
  };
  const Record& record(MemberId id) { return records_[id]; }
  void ForgetRecords() { records_.clear(); }

  std::string TakeTrace();

 private:
  void Collect(MemberId id);
  void Send(const Envelope& envelope);
  void Trace(MemberId id, const std::string& line);

  Options options_;
  std::map<MemberId, BareMember> members_;
  std::map<MemberId, uint64_t> lives_;
  std::vector<Envelope> network_;
  std::set<std::pair<MemberId, MemberId>> cuts_;
  std::set<MemberId> held_writes_;
  std::set<MemberId> held_machines_;
  std::map<MemberId, Record> records_;
  std::string trace_;
};

// "pre-vote-request", "append", "append-reply", …
std::string_view KindOf(const Message& message);

}  // namespace kv::raft

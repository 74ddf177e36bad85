// The wire between simulated members: everything that server/replica/network.h allows a network to
// do, and nothing more.
//
// A message goes to the process that listened when it was sent (a connection is bound to one
// incarnation), may come late, twice, out of order or never, and is never changed. Links are cut,
// clogged and slowed one direction at a time. Snapshots really move: file by file from one disk to
// the other, sometimes not to the end.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "server/replica/network.h"
#include "tests/sim/scheduler.h"

namespace rocksdb {
class Env;
}

namespace kv::sim {

class SimNetwork;

struct WireOptions {
  Delay delay{.least = 200 * kMicrosecond, .spread = kMillisecond};
  uint64_t loss_permille = 0;
  uint64_t repeat_permille = 0;
  bool ordered = false;  // Each link keeps the order, as one stream does.
  Delay snapshot{.least = 5 * kMillisecond, .spread = 200 * kMillisecond};
  uint64_t snapshot_cut_permille = 0;
  uint64_t lost_answer_permille = 0;  // Of calls.
};

class Wire {
 public:
  Wire(Scheduler* scheduler, const WireOptions& options)
      : scheduler_(scheduler), options_(options) {}

  // Between URLs, from one to the other only. All are undone by Heal.
  void Cut(const std::string& from, const std::string& to) { LinkOf(from, to).cut = true; }
  void Join(const std::string& from, const std::string& to) { LinkOf(from, to).cut = false; }
  void Clog(const std::string& from, const std::string& to, Time until);
  void Slow(const std::string& from, const std::string& to, Time extra);
  void Heal() { links_.clear(); }
  // No chance in the wire from here on, but for delays.
  void Calm();

  WireOptions& options() { return options_; }
  uint64_t messages() const { return messages_; }  // Sent, of all kinds.

  // Judges and scenarios see what is sent; true: it is dropped. May be empty.
  std::function<bool(const raft::Envelope&)> tap;

 private:
  friend class SimNetwork;
  struct Link {
    bool cut = false;
    Time clogged_until = 0;
    Time extra = 0;
    Time last = 0;  // Arrival, of an ordered link.
  };
  struct ByEnds {
    using is_transparent = void;
    bool operator()(const auto& a, const auto& b) const {
      const int order = std::string_view(a.first).compare(b.first);
      return order != 0 ? order < 0 : std::string_view(a.second) < b.second;
    }
  };

  SimNetwork* At(const std::string& url) const;
  SimNetwork* Alive(uint64_t serial) const;
  const std::string& UrlOf(uint64_t serial) const { return urls_[serial - 1]; }
  bool IsCut(const std::string& from, const std::string& to) const;
  Link& LinkOf(const std::string& from, const std::string& to) { return links_[{from, to}]; }
  Time Arrival(const std::string& from, const std::string& to);

  Scheduler* const scheduler_;
  WireOptions options_;
  std::map<std::pair<std::string, std::string>, Link, ByEnds> links_;
  std::map<std::string, SimNetwork*> by_url_;
  std::map<uint64_t, SimNetwork*> by_serial_;
  std::vector<std::string> urls_;  // Of all there ever were, by serial.
  uint64_t messages_ = 0;
  uint64_t turns_ = 1;  // One more whenever it may have changed who reaches or accepts whom.
};

// One process's end of it.
class SimNetwork final : public Network {
 public:
  SimNetwork(Wire* wire, std::string url, rocksdb::Env* env, std::string incoming);
  ~SimNetwork() override;

  void Start(const LocalIdentity& self, Handlers handlers) override;
  void SetPeers(std::vector<PeerAddress> peers) override;
  void Send(raft::Envelope envelope) override;
  void SendSnapshot(raft::Envelope offer, Snapshot snapshot, SnapshotDone done) override;
  void Call(const std::string& address, const std::string& method, std::string request,
            absl::Duration deadline, CallDone done) override;
  void Handle(const std::string& method, Serve serve) override;

  // The process is about to end: nothing comes or goes any more.
  void Close();
  const std::string& url() const { return url_; }

 private:
  friend class Wire;
  // Where a member may be reached now: nobody, or whoever its handshake would accept.
  SimNetwork* Connect(MemberId to);
  SimNetwork* Find(MemberId to) const;
  bool Accepts(const LocalIdentity& peer) const;
  bool TrustsDiskOf(const SimNetwork& peer) const;
  void Lost(MemberId peer);
  void Deliver(const LocalIdentity& from, uint64_t sender, raft::Envelope envelope);
  bool Meet(const LocalIdentity& from, uint64_t sender);
  void ForgetFound();
  bool TakeSnapshot(rocksdb::Env* from, const raft::Envelope& offer, const Snapshot& snapshot);
  void Answered(CallDone done, absl::StatusOr<std::string> answer, Time after);

  Wire* const wire_;
  Scheduler* const scheduler_;
  const std::string url_;
  rocksdb::Env* const env_;
  const std::string incoming_;
  const uint64_t serial_;
  bool open_ = true;
  bool started_ = false;
  std::shared_ptr<const LocalIdentity> self_ = std::make_shared<LocalIdentity>();
  Handlers handlers_;
  std::map<MemberId, PeerAddress> peers_;
  std::map<MemberId, uint64_t> met_;        // The start that was met.
  std::map<MemberId, uint64_t> sessions_;   // Who spoke to us, by serial: can be answered.
  std::map<MemberId, Time> lost_;           // When it was last said.
  std::map<std::string, uint64_t> epochs_;  // The newest start seen of each disk.
  std::map<std::string, Serve> serves_;
  uint64_t received_ = 0;
  // What was found out in this turn of the wire: who is reached, and whom nothing new is known of.
  uint64_t found_in_ = 0;
  std::vector<std::pair<MemberId, SimNetwork*>> reached_;
  std::vector<uint64_t> met_before_;  // By serial.
};

}  // namespace kv::sim

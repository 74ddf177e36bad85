// Clients of a simulated cluster: requests in, operations of a history out.
//
// They call what the services below the wire call: Replica for commands and read indexes, KvMachine
// for reads. What a dying process says is never heard: the outcome is unknown then, as it is for a
// client whose connection broke.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tests/sim/cluster.h"
#include "tests/sim/history.h"

namespace kv::sim {

class History {
 public:
  explicit History(Cluster* cluster) : cluster_(cluster) {}

  using Done = std::function<void(const Operation&)>;
  // Asks the member on `host`, which must be serving. `done` may be empty.
  OperationId Issue(Host& host, Request request, absl::Duration deadline, Done done = {});

  // Asks the member on `host`, which must be serving, to keep a lease alive. `done` hears whether
  // it is.
  void Renew(Host& host, int64_t lease, absl::Duration deadline, std::function<void(bool)> done);

  const Operations& operations() const { return operations_; }
  const std::vector<Renewal>& renewals() const { return renewals_; }  // That were granted.
  const Operation& operation(OperationId id) const { return operations_[id - 1]; }
  size_t open() const { return open_; }
  uint64_t answered() const { return answered_; }

 private:
  void Propose(Host& host, OperationId id, absl::Duration deadline);
  void Read(Host& host, OperationId id, absl::Duration deadline);
  void AnswerRead(OperationId id, const Process& process);
  void Finish(OperationId id, Outcome outcome, Answer answer);
  // Null: it is another life by now.
  Process* Alive(int host, uint64_t life) const;

  Cluster* const cluster_;
  Operations operations_;
  std::vector<Done> waiting_;  // By operation.
  std::vector<Renewal> renewals_;
  size_t open_ = 0;
  uint64_t answered_ = 0;
};

struct WorkloadOptions {
  uint64_t clients = 4;
  Delay think{.least = 5 * kMillisecond, .spread = 100 * kMillisecond};
  uint64_t keys = 8;
  uint64_t value_bytes = 12;
  Delay deadline{.least = kSecond, .spread = 5 * kSecond};
  // Weights.
  uint64_t puts = 40;
  uint64_t deletes = 8;
  uint64_t ranges = 30;
  uint64_t txns = 15;
  uint64_t compactions = 1;
  uint64_t grants = 0;
  uint64_t revokes = 0;
  uint64_t alarms = 0;
  uint64_t leased_permille = 0;  // Of puts, where there are leases.
  uint64_t serializable_permille = 100;
  uint64_t old_revision_permille = 150;
  uint64_t range_permille = 300;  // Of reads and deletions: several keys.
  bool faithful = false;          // Each client keeps to one member as long as it serves.
};

// Each client asks, waits for the answer, thinks, and asks again.
class Workload {
 public:
  Workload(Cluster* cluster, History* history, const WorkloadOptions& options);
  void Start();
  void Stop() { stopped_ = true; }

 private:
  struct Client {
    int host = 0;  // That it keeps to; 0: none.
  };
  void Think(size_t client);
  void Ask(size_t client);
  Request Draw(bool leases);
  Request DrawTxn();
  Request DrawOfLease(Kind kind);
  Request DrawAlarm();
  int64_t DrawLease();
  void Granted(const Operation& grant);
  void KeepAlive(int64_t lease, Time every, Time until);
  Request DrawPart();
  std::string DrawKey();
  void DrawRange(Request& request);
  int64_t DrawRevision();
  Host* DrawHost(Client& client);

  Cluster* const cluster_;
  History* const history_;
  Scheduler& scheduler_;
  const WorkloadOptions options_;
  std::vector<Client> clients_;
  bool stopped_ = false;
  uint64_t values_ = 0;
  int64_t revision_seen_ = 1;
  int64_t leases_ = 0;                    // Ids given so far.
  std::vector<int64_t> leases_seen_;      // The latest few that were granted.
  std::vector<std::string> values_seen_;  // The latest few, for conditions.
};

}  // namespace kv::sim

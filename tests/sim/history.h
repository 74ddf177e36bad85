// What clients asked and were told, and whether any of it could not have been.
//
// Requests and answers are small values of our own, so that histories can be written down by hand
// and the judge shares no code with what it judges. CheckHistory is linear: the order in which
// writes took effect is known (the log that was committed), so it is replayed once on a plain model
// and every answer compared; then real time is checked along the same order. What has an unknown
// outcome took effect if and only if the log holds it.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tests/sim/scheduler.h"

namespace kv::sim {

enum class Kind : uint8_t { kPut, kDelete, kRange, kTxn, kCompact, kGrant, kRevoke, kAlarm };
std::string_view Describe(Kind kind);

// Of a transaction: the key's field against a value.
struct Condition {
  enum class Field : uint8_t { kVersion, kCreate, kMod, kValue };
  enum class Relation : uint8_t { kEqual, kNotEqual, kGreater, kLess };
  std::string key;
  Field field = Field::kVersion;
  Relation relation = Relation::kEqual;
  int64_t number = 0;
  std::string value{};  // Of kValue.
};

// As a member of the cluster raises it, or an operator lifts it.
struct Alarm {
  enum class Type : uint8_t { kNoSpace = 1, kCorrupt = 2 };
  Type type = Type::kNoSpace;
  uint64_t member = 0;
  friend auto operator<=>(const Alarm&, const Alarm&) = default;
};

struct Request {
  Kind kind = Kind::kPut;
  std::string key{};
  std::string end{};        // kDelete, kRange: empty for one key.
  std::string value{};      // kPut.
  bool previous = false;    // kPut, kDelete: answer what was there before.
  int64_t revision = 0;     // kRange: read there; kCompact: to there.
  int64_t limit = 0;        // kRange.
  bool count_only = false;  // kRange.
  bool serializable = false;
  int64_t lease = 0;  // kPut: attached to it; kGrant, kRevoke: which.
  int64_t ttl = 0;    // kGrant: seconds.
  Alarm alarm{};      // kAlarm.
  bool lifts = false;
  std::vector<Condition> conditions{};  // kTxn.
  std::vector<Request> then{};
  std::vector<Request> otherwise{};
};

struct Row {
  std::string key;
  std::string value;
  int64_t create = 0;
  int64_t mod = 0;
  int64_t version = 0;
  int64_t lease = 0;
  friend bool operator==(const Row&, const Row&) = default;
};

// What a revision did to a key, as watchers are told of it.
struct Event {
  int64_t revision = 0;
  bool deletion = false;
  Row row{};  // Of a deletion: the key and its revision.
  std::optional<Row> previous{};
  friend bool operator==(const Event&, const Event&) = default;
};

enum class Refusal : uint8_t {
  kNone,
  kCompacted,
  kFuture,
  kLeaseNotFound,
  kLeaseExists,
  kNoSpace,
  kCorrupt,
};

struct Answer {
  Refusal refusal = Refusal::kNone;
  int64_t revision = 0;     // Of the header.
  std::vector<Row> rows{};  // What a range found, or what was there before.
  int64_t count = 0;        // Found, or deleted; kGrant: the TTL; kAlarm: alarms that changed.
  bool more = false;
  bool succeeded = false;  // kTxn.
  std::vector<Answer> parts{};
  friend bool operator==(const Answer&, const Answer&) = default;
};

std::string Describe(const Request& request);
std::string Describe(const Answer& answer);

using OperationId = uint64_t;  // From 1.

enum class Outcome : uint8_t {
  kAnswered,
  kRefused,  // For certain: nothing was done.
  kUnknown,
};

struct Operation {
  OperationId id = 0;
  Time invoked = 0;
  std::optional<Time> returned;
  Request request;
  Outcome outcome = Outcome::kUnknown;
  Answer answer{};  // kAnswered.
};

using Operations = std::deque<Operation>;

// One command of the committed log.
struct Taken {
  OperationId id = 0;  // Whose it is; 0: nobody's.
  uint64_t index = 0;
  Time at = 0;  // When it was first known to be committed.
  // The leases that their leader ends with it: the id, and the index of the command that granted.
  std::vector<std::pair<int64_t, uint64_t>> expired{};
};

// A client was told that its lease lives on.
struct Renewal {
  int64_t lease = 0;
  int64_t seconds = 0;
  Time invoked = 0;
  Time returned = 0;
};

// The contract of the keys, as plainly as it can be said and still cheap for a long run.
class Model {
 public:
  // Does it, in its turn, as the command at `index`.
  Answer Apply(const Request& request, uint64_t index = 0);
  // The leases of these that there are end, in this order; answers which.
  std::vector<int64_t> Expire(const std::vector<std::pair<int64_t, uint64_t>>& leases);
  // As of `at`, or now if 0. Never changes anything.
  Answer Read(const Request& range, int64_t at) const;

  int64_t revision() const { return revision_; }
  int64_t compacted() const { return compacted_; }
  // The live rows, by key.
  std::vector<Row> Rows() const;
  const std::vector<Event>& events() const { return events_; }
  const std::vector<int64_t>& compactions() const { return compactions_; }

 private:
  struct Version {
    int64_t mod = 0;
    std::optional<Row> row;  // Nothing: deleted.
  };
  using Keys = std::map<std::string, std::vector<Version>, std::less<>>;

  const Row* Find(const std::vector<Version>& versions, int64_t at) const;
  const Row* Current(const std::string& key) const;
  bool Holds(const Condition& condition) const;
  Refusal CheckRanges(const std::vector<Request>& requests) const;
  void Put(const Request& request, int64_t at, Answer& answer);
  void Delete(const Request& request, int64_t at, Answer& answer);
  Answer Txn(const Request& request);
  Answer Grant(const Request& request, uint64_t index);
  Answer Revoke(const Request& request);
  Answer Raise(const Request& request);
  void End(int64_t lease);
  Refusal CheckAlarms(const Request& request) const;
  bool Raised(Alarm::Type type) const;
  void SetVersion(const std::string& key, int64_t at, std::optional<Row> row);

  struct Lease {
    uint64_t granted = 0;
    std::set<std::string> keys{};
  };

  Keys keys_;
  std::map<int64_t, Lease> leases_;
  std::set<Alarm> alarms_;
  std::vector<Event> events_;
  std::vector<int64_t> compactions_;
  int64_t revision_ = 1;
  int64_t compacted_ = -1;
};

// What the log made, all of it.
Model Replayed(const Operations& history, const std::vector<Taken>& committed);

// The commands of `committed`, in the order of the log. Nothing: the history could be; otherwise
// what could not.
std::optional<std::string> CheckHistory(const Operations& history,
                                        const std::vector<Taken>& committed);

// No lease ended before its time by any good clock: neither the one it was granted, nor what a
// client was told since; and nobody was told that a lease lives that had ended.
std::optional<std::string> CheckLeases(const Operations& history,
                                       const std::vector<Taken>& committed,
                                       const std::vector<Renewal>& renewals);

// A second opinion that knows neither revisions nor a log: for each key on its own, is there any
// order of its operations that explains what was answered (Wing and Gong, with Lowe's memory of
// states seen)? Exponential in how many are open at a time, so for small histories. Parts of
// transactions are looked at as operations of their own key.
std::optional<std::string> SearchOrder(const Operations& history);

}  // namespace kv::sim

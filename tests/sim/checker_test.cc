// The judges judged: histories that could be pass, and one planted violation of each class in each
// of many histories is found.
#include <fmt/format.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <string>
#include <vector>

#include "server/raft/random.h"
#include "tests/sim/history.h"

namespace kv::sim {
namespace {

// A history that could be: clients overlap, some answers are lost, and every operation takes effect
// at one moment between its invocation and its return.
struct Synthetic {
  Operations history;
  std::vector<Taken> committed;
};

class Maker {
 public:
  // `certain`: every outcome is known, and no two operations overlap.
  explicit Maker(uint64_t seed, bool certain = false) : chance_(seed), certain_(certain) {}

  Synthetic Make(size_t operations) {
    Synthetic made;
    Model model;
    Time now = 0;
    for (OperationId id = 1; id <= operations; ++id) {
      now += static_cast<Time>(1 + chance_.Below(5)) + (certain_ ? 20 : 0);
      Operation operation{.id = id, .invoked = now, .returned = {}, .request = Draw(model)};
      // It takes effect now; it was invoked a little earlier and returns a little later.
      const Time early = static_cast<Time>(chance_.Below(8));
      const Time late = static_cast<Time>(1 + chance_.Below(8));
      operation.invoked = std::max<Time>(0, now - early);
      operation.returned = now + late;
      const uint64_t fate = chance_.Below(12) + (certain_ ? 3 : 0);
      const bool reads = operation.request.kind == Kind::kRange;
      if (fate == 0 && !reads) {
        operation.outcome = Outcome::kRefused;
      } else if (fate == 1 && !reads) {
        operation.outcome = Outcome::kUnknown;  // And never took effect.
      } else if (reads) {
        operation.outcome = Outcome::kAnswered;
        operation.answer = model.Read(operation.request, model.revision());
      } else {
        operation.answer = model.Apply(operation.request);
        operation.outcome = fate == 2 ? Outcome::kUnknown : Outcome::kAnswered;
        if (fate == 2) operation.answer = {};
        made.committed.push_back({.id = id});
        if (chance_.Below(10) == 0) made.committed.push_back({});
      }
      made.history.push_back(std::move(operation));
    }
    return made;
  }

 private:
  Request Draw(const Model& model) {
    Request request;
    request.key = fmt::format("k{}", chance_.Below(3));
    switch (chance_.Below(10)) {
      case 0:
        request.kind = Kind::kDelete;
        request.previous = true;
        break;
      case 1: {
        request.kind = Kind::kTxn;
        request.conditions.push_back({.key = request.key,
                                      .field = Condition::Field::kVersion,
                                      .relation = Condition::Relation::kGreater,
                                      .number = static_cast<int64_t>(chance_.Below(3))});
        request.then.push_back({.kind = Kind::kPut, .key = "k0", .value = Value()});
        request.then.push_back({.kind = Kind::kPut, .key = "k1", .value = Value()});
        request.otherwise.push_back({.kind = Kind::kRange, .key = "k2"});
        request.key.clear();
        break;
      }
      case 2:
      case 3:
      case 4:
      case 5:
        request.kind = Kind::kRange;
        if (chance_.Below(3) == 0) {
          request.key = "k0";
          request.end = "k9";
        }
        break;
      case 6:
        if (chance_.Below(6) == 0) {
          request.kind = Kind::kCompact;
          request.key.clear();
          request.revision = std::max<int64_t>(1, model.revision() - 2);
          break;
        }
        [[fallthrough]];
      default:
        request.kind = Kind::kPut;
        request.value = Value();
        request.previous = chance_.Below(2) == 0;
    }
    return request;
  }
  std::string Value() { return fmt::format("v{}", ++values_); }

  raft::SplitMix64 chance_;
  const bool certain_;
  uint64_t values_ = 0;
};

using Plant = std::function<bool(Synthetic&, raft::SplitMix64&)>;

// A random operation that fits; null: there is none.
Operation* Pick(Synthetic& made, raft::SplitMix64& chance,
                const std::function<bool(const Operation&)>& fits) {
  std::vector<Operation*> all;
  for (Operation& operation : made.history) {
    if (fits(operation)) all.push_back(&operation);
  }
  return all.empty() ? nullptr : all[chance.Below(all.size())];
}

bool IsAnswered(const Operation& operation, Kind kind) {
  return operation.outcome == Outcome::kAnswered && operation.request.kind == kind &&
         operation.answer.refusal == Refusal::kNone;
}

// A read of an earlier state than one that had been acknowledged before it was asked for.
bool PlantStaleRead(Synthetic& made, raft::SplitMix64& chance) {
  Operation* read = Pick(made, chance, [](const Operation& o) {
    return IsAnswered(o, Kind::kRange) && o.request.end.empty();
  });
  if (read == nullptr) return false;
  Model model;
  std::optional<Answer> old;
  const int64_t revision = read->answer.revision;
  for (const Taken& taken : made.committed) {
    const OperationId id = taken.id;
    if (id == 0) continue;
    const Operation& operation = made.history[id - 1];
    // The write that it misses had returned before the read began.
    const bool seen_by_then =
        operation.outcome == Outcome::kAnswered && *operation.returned < read->invoked;
    const int64_t before = model.revision();
    const Answer earlier = model.Read(read->request, before);
    model.Apply(operation.request);
    if (model.revision() > before && model.revision() <= revision && seen_by_then &&
        earlier.rows != read->answer.rows) {
      old = earlier;
    }
  }
  if (!old) return false;
  read->answer = *old;
  return true;
}

bool PlantLostUpdate(Synthetic& made, raft::SplitMix64& chance) {
  Operation* write =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kPut); });
  if (write == nullptr) return false;
  std::erase_if(made.committed, [write](const Taken& taken) { return taken.id == write->id; });
  return true;
}

bool PlantAbortedRead(Synthetic& made, raft::SplitMix64& chance) {
  Operation* write =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kPut); });
  if (write == nullptr) return false;
  write->outcome = Outcome::kRefused;
  return true;
}

bool PlantSecondExecution(Synthetic& made, raft::SplitMix64& chance) {
  Operation* write = Pick(made, chance, [](const Operation& o) {
    return o.request.kind == Kind::kPut && o.outcome != Outcome::kRefused;
  });
  if (write == nullptr ||
      std::none_of(made.committed.begin(), made.committed.end(),
                   [write](const Taken& taken) { return taken.id == write->id; })) {
    return false;
  }
  made.committed.push_back({.id = write->id});
  return true;
}

bool PlantTimeTravel(Synthetic& made, raft::SplitMix64& chance) {
  // Asked for only after everything that is later in the log had returned.
  Operation* write = Pick(made, chance, [&made](const Operation& o) {
    return IsAnswered(o, Kind::kPut) && o.id + 10 < made.history.size();
  });
  if (write == nullptr) return false;
  bool later = false;
  Time end = 0;
  for (const Operation& operation : made.history) {
    if (operation.id > write->id && IsAnswered(operation, Kind::kPut)) later = true;
    end = std::max(end, operation.returned.value_or(0));
  }
  write->invoked = end + 1;
  write->returned = end + 2;
  return later;
}

bool PlantSplitTransaction(Synthetic& made, raft::SplitMix64& chance) {
  // A range sees one of the two keys that a transaction wrote, and the other as it was before.
  Model model;
  for (const Taken& taken : made.committed) {
    const OperationId id = taken.id;
    if (id == 0) continue;
    Operation& txn = made.history[id - 1];
    const Request all{.kind = Kind::kRange, .key = "k0", .end = "k9"};
    const Answer before = model.Read(all, model.revision());
    model.Apply(txn.request);
    if (txn.request.kind != Kind::kTxn || txn.outcome != Outcome::kAnswered ||
        !txn.answer.succeeded || chance.Below(2) == 0) {
      continue;
    }
    Answer half = model.Read(all, model.revision());
    for (Row& row : half.rows) {
      for (const Row& old : before.rows) {
        if (row.key == "k1" && old.key == "k1") row = old;
      }
    }
    if (half == model.Read(all, model.revision())) continue;
    made.history.push_back({.id = made.history.size() + 1,
                            .invoked = txn.invoked,
                            .returned = *txn.returned + 1,
                            .request = all,
                            .outcome = Outcome::kAnswered,
                            .answer = half});
    return true;
  }
  return false;
}

bool PlantWrongAnswer(Synthetic& made, raft::SplitMix64& chance) {
  Operation* write = Pick(made, chance, [](const Operation& o) {
    return IsAnswered(o, Kind::kPut) && o.request.previous && !o.answer.rows.empty();
  });
  if (write == nullptr) return false;
  write->answer.rows.front().value += "!";
  return true;
}

bool PlantWrongRevision(Synthetic& made, raft::SplitMix64& chance) {
  Operation* write =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kPut); });
  if (write == nullptr) return false;
  ++write->answer.revision;
  return true;
}

bool PlantFutureRead(Synthetic& made, raft::SplitMix64& chance) {
  Operation* read =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kRange); });
  if (read == nullptr) return false;
  read->answer.revision += 1'000'000;
  return true;
}

bool PlantPhantom(Synthetic& made, raft::SplitMix64&) {
  made.committed.push_back({.id = 1'000'000});
  return true;
}

bool PlantCompactedRead(Synthetic& made, raft::SplitMix64& chance) {
  Operation* compaction =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kCompact); });
  if (compaction == nullptr || compaction->request.revision < 2) return false;
  // Read below it, after it had returned, and answered as if nothing were gone.
  Model model;
  for (const Taken& taken : made.committed) {
    const OperationId id = taken.id;
    if (id != 0) model.Apply(made.history[id - 1].request);
  }
  Time end = 0;
  for (const Operation& operation : made.history) {
    end = std::max(end, operation.returned.value_or(0));
  }
  Request range{.kind = Kind::kRange, .key = "k0", .end = "k9"};
  Answer answer = model.Read(range, compaction->request.revision - 1);
  range.revision = compaction->request.revision - 1;
  made.history.push_back({.id = made.history.size() + 1,
                          .invoked = end + 1,
                          .returned = end + 2,
                          .request = range,
                          .outcome = Outcome::kAnswered,
                          .answer = answer});
  return true;
}

bool PlantGroundlessRefusal(Synthetic& made, raft::SplitMix64& chance) {
  Operation* read =
      Pick(made, chance, [](const Operation& o) { return IsAnswered(o, Kind::kRange); });
  if (read == nullptr) return false;
  read->request.revision = 1'000'000;
  read->answer = {.refusal = Refusal::kCompacted};
  return true;
}

constexpr uint64_t kEach = 40;

// `sees_values`: what was planted shows in the values alone, so the search finds it too, as long as
// no other order of writes that overlap, and no write of unknown outcome, could explain it.
void Check(const Plant& plant, bool sees_values = false) {
  uint64_t planted = 0;
  for (uint64_t seed = 1; planted < kEach; ++seed) {
    REQUIRE(seed < 2000);
    Synthetic made = Maker(seed, sees_values).Make(60);
    raft::SplitMix64 chance(seed);
    if (!plant(made, chance)) continue;
    ++planted;
    INFO("seed " << seed);
    CHECK(CheckHistory(made.history, made.committed).has_value());
    if (sees_values) CHECK(SearchOrder(made.history).has_value());
  }
}

TEST_CASE("both checkers pass histories that could be") {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const Synthetic made = Maker(seed).Make(60);
    INFO("seed " << seed);
    CHECK(CheckHistory(made.history, made.committed).value_or("") == "");
    CHECK(SearchOrder(made.history).value_or("") == "");
  }
}

TEST_CASE("a stale read is found, by both") { Check(PlantStaleRead, true); }
TEST_CASE("a lost update is found") { Check(PlantLostUpdate); }
TEST_CASE("an aborted read is found") { Check(PlantAbortedRead); }
TEST_CASE("a write that was executed twice is found") { Check(PlantSecondExecution); }
TEST_CASE("a write before its time is found") { Check(PlantTimeTravel); }
TEST_CASE("a transaction seen by halves is found") { Check(PlantSplitTransaction); }
TEST_CASE("a wrong answer is found, by both") { Check(PlantWrongAnswer, true); }
TEST_CASE("a wrong revision is found") { Check(PlantWrongRevision); }
TEST_CASE("a read of a revision that never was is found") { Check(PlantFutureRead); }
TEST_CASE("a write that nobody asked for is found") { Check(PlantPhantom); }
TEST_CASE("a read of what was compacted is found") { Check(PlantCompactedRead); }
TEST_CASE("a groundless refusal is found") { Check(PlantGroundlessRefusal); }

TEST_CASE("a small linear history is decided for what it is") {
  const auto put = [](OperationId id, Time invoked, Time returned, std::string value) {
    return Operation{.id = id,
                     .invoked = invoked,
                     .returned = returned,
                     .request = {.kind = Kind::kPut, .key = "k", .value = std::move(value)},
                     .outcome = Outcome::kAnswered,
                     .answer = {}};
  };
  const auto get = [](OperationId id, Time invoked, Time returned, std::string value) {
    return Operation{.id = id,
                     .invoked = invoked,
                     .returned = returned,
                     .request = {.kind = Kind::kRange, .key = "k"},
                     .outcome = Outcome::kAnswered,
                     .answer = {.rows = {{.key = "k", .value = std::move(value)}}, .count = 1}};
  };
  // Two puts overlap: either may be last.
  CHECK_FALSE(SearchOrder({put(1, 0, 10, "a"), put(2, 5, 15, "b"), get(3, 20, 21, "a")}));
  CHECK_FALSE(SearchOrder({put(1, 0, 10, "a"), put(2, 5, 15, "b"), get(3, 20, 21, "b")}));
  // One after the other: only the second.
  CHECK(SearchOrder({put(1, 0, 4, "a"), put(2, 5, 15, "b"), get(3, 20, 21, "a")}));
  // Nor may two reads disagree about the order.
  CHECK(SearchOrder(
      {put(1, 0, 10, "a"), put(2, 5, 15, "b"), get(3, 20, 21, "a"), get(4, 22, 23, "b")}));
}

}  // namespace
}  // namespace kv::sim

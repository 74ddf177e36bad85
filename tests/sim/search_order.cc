// The second opinion on a history: a search, key by key (history.h).
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/sim/history.h"

namespace kv::sim {
namespace {

using Value = std::optional<std::string>;

// What one operation did to, or saw of, one key.
struct Step {
  enum class Do : uint8_t { kSee, kSet, kErase };
  Time invoked = 0;
  Time returned = 0;  // INT64_MAX: open for ever.
  bool certain = true;
  Do does = Do::kSee;
  Value value{};                                     // kSet: what; kSee: what was seen.
  std::optional<bool> found{};                       // kErase: whether there was something.
  std::optional<Value> saw{};                        // Before it, if that was answered.
  std::optional<std::pair<Value, bool>> compared{};  // Was it equal to this, or was it not?
};

constexpr Time kNever = INT64_MAX;

class KeySearch {
 public:
  explicit KeySearch(std::vector<Step> steps) : steps_(std::move(steps)) {
    std::sort(steps_.begin(), steps_.end(), [](const Step& a, const Step& b) {
      return std::pair(a.invoked, a.returned) < std::pair(b.invoked, b.returned);
    });
    taken_.assign(steps_.size(), false);
  }

  bool Explains() { return Search({}); }

 private:
  bool Search(const Value& value) {
    Time horizon = kNever;  // Nothing may come after a step that has returned before it began.
    bool all = true;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (taken_[i] || !steps_[i].certain) continue;
      all = false;
      horizon = std::min(horizon, steps_[i].returned);
    }
    if (all) return true;
    if (!seen_.emplace(taken_, value).second) return false;
    for (size_t i = 0; i < steps_.size(); ++i) {
      if (taken_[i]) continue;
      const Step& step = steps_[i];
      if (step.invoked > horizon) break;
      const std::optional<Value> next = Do(step, value);
      if (!next) continue;
      taken_[i] = true;
      if (Search(*next)) return true;
      taken_[i] = false;
    }
    return false;
  }

  // Nothing: it cannot be done here.
  static std::optional<Value> Do(const Step& step, const Value& value) {
    if (step.saw && *step.saw != value) return std::nullopt;
    if (step.compared && (step.compared->first == value) != step.compared->second) {
      return std::nullopt;
    }
    switch (step.does) {
      case Step::Do::kSee:
        return value;
      case Step::Do::kSet:
        return step.value;
      case Step::Do::kErase:
        if (step.found && *step.found != value.has_value()) return std::nullopt;
        return Value();
    }
    return std::nullopt;
  }

  std::vector<Step> steps_;
  std::vector<bool> taken_;
  std::set<std::pair<std::vector<bool>, Value>> seen_;
};

using Steps = std::map<std::string, std::vector<Step>>;

const Row* RowOf(const std::vector<Row>& rows, const std::string& key) {
  const auto row =
      std::find_if(rows.begin(), rows.end(), [&key](const Row& each) { return each.key == key; });
  return row == rows.end() ? nullptr : &*row;
}

// One step for each key that the part touched. Ranges over several keys fall apart into their keys,
// which is weaker than what they promise, and never wrong.
void AddPart(const Operation& operation, const Request& part, const Answer* answer,
             const std::set<std::string>& keys, Steps& steps) {
  Step step{.invoked = operation.invoked,
            .returned = answer != nullptr ? operation.returned.value() : kNever,
            .certain = answer != nullptr};
  const auto in_range = [&part](const std::string& key) {
    return part.end.empty() ? key == part.key : key >= part.key && key < part.end;
  };
  for (const std::string& key : keys) {
    if (!in_range(key)) continue;
    Step one = step;
    if (part.kind == Kind::kPut) {
      one.does = Step::Do::kSet;
      one.value = part.value;
      if (answer != nullptr && part.previous) {
        const Row* row = RowOf(answer->rows, key);
        one.saw = row == nullptr ? Value() : Value(row->value);
      }
    } else if (part.kind == Kind::kDelete) {
      one.does = Step::Do::kErase;
      if (answer != nullptr && part.end.empty()) one.found = answer->count > 0;
    } else {
      const bool complete = answer != nullptr && answer->refusal == Refusal::kNone &&
                            part.revision == 0 && !part.count_only && !part.serializable &&
                            !answer->more;
      if (!complete) continue;
      const Row* row = RowOf(answer->rows, key);
      one.saw = row == nullptr ? Value() : Value(row->value);
    }
    steps[key].push_back(std::move(one));
  }
}

void AddTxn(const Operation& operation, const std::set<std::string>& keys, Steps& steps) {
  const Answer* answer = operation.outcome == Outcome::kAnswered ? &operation.answer : nullptr;
  if (answer == nullptr) {
    // Either branch, or none of it: every write of it may have happened.
    for (const auto* parts : {&operation.request.then, &operation.request.otherwise}) {
      for (const Request& part : *parts) AddPart(operation, part, nullptr, keys, steps);
    }
    return;
  }
  if (answer->refusal != Refusal::kNone) return;
  const std::vector<Request>& parts =
      answer->succeeded ? operation.request.then : operation.request.otherwise;
  // Several parts that touch one key see each other: leave such keys to the other checker.
  std::map<std::string, int> touched;
  for (const Request& part : parts) {
    for (const std::string& key : keys) {
      if (part.end.empty() ? key == part.key : key >= part.key && key < part.end) ++touched[key];
    }
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    std::set<std::string> alone;
    for (const auto& [key, times] : touched) {
      if (times == 1) alone.insert(key);
    }
    AddPart(operation, parts[i], &answer->parts[i], alone, steps);
    std::set<std::string> shared;
    for (const auto& [key, times] : touched) {
      if (times > 1) shared.insert(key);
    }
    // What it writes there still happened.
    if (parts[i].kind != Kind::kRange) {
      Request blind = parts[i];
      blind.previous = false;
      Operation open = operation;
      AddPart(open, blind, nullptr, shared, steps);
    }
  }
  // A single condition is known to have held, or not to have.
  if (operation.request.conditions.size() != 1) return;
  const Condition& condition = operation.request.conditions.front();
  if (condition.field != Condition::Field::kValue ||
      condition.relation != Condition::Relation::kEqual || touched.contains(condition.key)) {
    return;
  }
  steps[condition.key].push_back({.invoked = operation.invoked,
                                  .returned = operation.returned.value(),
                                  .certain = true,
                                  .does = Step::Do::kSee,
                                  .value = {},
                                  .found = {},
                                  .saw = {},
                                  .compared = {{Value(condition.value), answer->succeeded}}});
}

void CollectKeys(const Request& request, std::set<std::string>& keys) {
  if (!request.key.empty() && request.end.empty()) keys.insert(request.key);
  for (const Condition& condition : request.conditions) keys.insert(condition.key);
  for (const Request& part : request.then) CollectKeys(part, keys);
  for (const Request& part : request.otherwise) CollectKeys(part, keys);
}

}  // namespace

std::optional<std::string> SearchOrder(const Operations& history) {
  std::set<std::string> keys;
  for (const Operation& operation : history) CollectKeys(operation.request, keys);
  Steps steps;
  for (const Operation& operation : history) {
    if (operation.outcome == Outcome::kRefused || operation.request.kind == Kind::kCompact) {
      continue;
    }
    const bool answered = operation.outcome == Outcome::kAnswered;
    if (operation.request.kind == Kind::kTxn) {
      AddTxn(operation, keys, steps);
    } else if (answered || operation.request.kind != Kind::kRange) {
      AddPart(operation, operation.request, answered ? &operation.answer : nullptr, keys, steps);
    }
  }
  for (auto& [key, of_key] : steps) {
    if (!KeySearch(std::move(of_key)).Explains()) {
      return "no order of the operations on " + key + " explains their answers";
    }
  }
  return std::nullopt;
}

}  // namespace kv::sim

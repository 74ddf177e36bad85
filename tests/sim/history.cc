#include "tests/sim/history.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "storage/check.h"

namespace kv::sim {
namespace {

bool InRange(std::string_view key, const Request& request) {
  if (request.end.empty()) return key == request.key;
  return key >= request.key && key < request.end;
}

template <typename T>
bool Compare(const T& found, Condition::Relation relation, const T& wanted) {
  switch (relation) {
    case Condition::Relation::kEqual:
      return found == wanted;
    case Condition::Relation::kNotEqual:
      return found != wanted;
    case Condition::Relation::kGreater:
      return found > wanted;
    case Condition::Relation::kLess:
      return found < wanted;
  }
  return false;
}

}  // namespace

std::string_view Describe(Kind kind) {
  switch (kind) {
    case Kind::kPut:
      return "put";
    case Kind::kDelete:
      return "delete";
    case Kind::kRange:
      return "range";
    case Kind::kTxn:
      return "txn";
    case Kind::kCompact:
      return "compact";
    case Kind::kGrant:
      return "grant";
    case Kind::kRevoke:
      return "revoke";
    case Kind::kAlarm:
      return "alarm";
  }
  return "?";
}

std::string Describe(const Request& request) {
  std::string text(Describe(request.kind));
  if (!request.key.empty()) text += " " + request.key;
  if (!request.end.empty()) text += ".." + request.end;
  if (request.kind == Kind::kPut) text += "=" + request.value.substr(0, 16);
  if (request.revision != 0) text += fmt::format(" at {}", request.revision);
  if (request.lease != 0) text += fmt::format(" lease {}", request.lease);
  if (request.ttl != 0) text += fmt::format(" for {} s", request.ttl);
  if (request.kind == Kind::kAlarm) {
    text += fmt::format(" {} of {:x}{}", static_cast<int>(request.alarm.type), request.alarm.member,
                        request.lifts ? " lifted" : "");
  }
  if (request.limit != 0) text += fmt::format(" limit {}", request.limit);
  if (request.serializable) text += " serializable";
  for (const Condition& condition : request.conditions) {
    text += fmt::format(" if({} {} {} {}{})", condition.key, static_cast<int>(condition.field),
                        static_cast<int>(condition.relation), condition.number, condition.value);
  }
  for (const Request& part : request.then) text += " then(" + Describe(part) + ")";
  for (const Request& part : request.otherwise) text += " else(" + Describe(part) + ")";
  return text;
}

std::string Describe(const Answer& answer) {
  if (answer.refusal == Refusal::kCompacted) return "compacted";
  if (answer.refusal == Refusal::kFuture) return "future revision";
  if (answer.refusal == Refusal::kLeaseNotFound) return "no such lease";
  if (answer.refusal == Refusal::kLeaseExists) return "there is such a lease";
  if (answer.refusal == Refusal::kNoSpace) return "no space";
  if (answer.refusal == Refusal::kCorrupt) return "corrupt";
  std::string text = fmt::format("revision {} count {}", answer.revision, answer.count);
  if (answer.more) text += " more";
  if (answer.succeeded) text += " succeeded";
  for (const Row& row : answer.rows) {
    text += fmt::format(" [{}={} create {} mod {} version {} lease {}]", row.key,
                        row.value.substr(0, 16), row.create, row.mod, row.version, row.lease);
  }
  for (const Answer& part : answer.parts) text += " (" + Describe(part) + ")";
  return text;
}

const Row* Model::Find(const std::vector<Version>& versions, int64_t at) const {
  for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
    if (version->mod <= at) return version->row ? &*version->row : nullptr;
  }
  return nullptr;
}

const Row* Model::Current(const std::string& key) const {
  const auto found = keys_.find(key);
  if (found == keys_.end() || !found->second.back().row) return nullptr;
  return &*found->second.back().row;
}

// The one place where a key changes: its lease and those who watch it learn of it here.
void Model::SetVersion(const std::string& key, int64_t at, std::optional<Row> row) {
  std::vector<Version>& versions = keys_[key];
  Event event{.revision = at, .deletion = !row};
  event.row = row ? *row : Row{.key = key, .value = {}, .create = 0, .mod = at};
  if (!versions.empty()) event.previous = versions.back().row;
  if (event.previous && event.previous->lease != 0) {
    leases_[event.previous->lease].keys.erase(key);
  }
  if (event.row.lease != 0) leases_[event.row.lease].keys.insert(key);
  events_.push_back(std::move(event));
  if (!versions.empty() && versions.back().mod == at) versions.pop_back();
  versions.push_back({.mod = at, .row = std::move(row)});
}

bool Model::Holds(const Condition& condition) const {
  const Row* row = Current(condition.key);
  switch (condition.field) {
    case Condition::Field::kValue:
      return row != nullptr && Compare(row->value, condition.relation, condition.value);
    case Condition::Field::kVersion:
      return Compare(row ? row->version : 0, condition.relation, condition.number);
    case Condition::Field::kCreate:
      return Compare(row ? row->create : 0, condition.relation, condition.number);
    case Condition::Field::kMod:
      return Compare(row ? row->mod : 0, condition.relation, condition.number);
  }
  return false;
}

void Model::Put(const Request& request, int64_t at, Answer& answer) {
  const Row* old = Current(request.key);
  if (old != nullptr && request.previous) answer.rows.push_back(*old);
  Row row{.key = request.key,
          .value = request.value,
          .create = at,
          .mod = at,
          .version = 1,
          .lease = request.lease};
  if (old != nullptr) {
    row.create = old->create;
    row.version = old->version + 1;
  }
  SetVersion(request.key, at, std::move(row));
}

void Model::Delete(const Request& request, int64_t at, Answer& answer) {
  std::vector<std::string> gone;
  for (auto key = keys_.lower_bound(request.key); key != keys_.end(); ++key) {
    if (!InRange(key->first, request)) break;
    const std::optional<Row>& row = key->second.back().row;
    if (!row) continue;
    ++answer.count;
    if (request.previous) answer.rows.push_back(*row);
    gone.push_back(key->first);
  }
  for (const std::string& key : gone) SetVersion(key, at, std::nullopt);
}

Answer Model::Read(const Request& range, int64_t at) const {
  Answer answer;
  answer.revision = revision_;
  const int64_t revision = range.revision > 0 ? range.revision : at;
  if (range.revision > revision_) {
    answer.refusal = Refusal::kFuture;
    return answer;
  }
  if (range.revision > 0 && range.revision < compacted_) {
    answer.refusal = Refusal::kCompacted;
    return answer;
  }
  for (auto key = keys_.lower_bound(range.key); key != keys_.end(); ++key) {
    if (!InRange(key->first, range)) break;
    const Row* row = Find(key->second, revision);
    if (row == nullptr) continue;
    ++answer.count;
    if (range.count_only) continue;
    if (range.limit > 0 && answer.rows.size() == static_cast<size_t>(range.limit)) {
      answer.more = true;
    } else {
      answer.rows.push_back(*row);
    }
  }
  return answer;
}

Refusal Model::CheckRanges(const std::vector<Request>& requests) const {
  for (const Request& request : requests) {
    if (request.kind == Kind::kPut && request.lease != 0 && !leases_.contains(request.lease)) {
      return Refusal::kLeaseNotFound;
    }
    if (request.kind != Kind::kRange || request.revision == 0) continue;
    if (request.revision > revision_) return Refusal::kFuture;
    if (request.revision < compacted_) return Refusal::kCompacted;
  }
  return Refusal::kNone;
}

Answer Model::Txn(const Request& request) {
  Answer answer;
  answer.succeeded = std::all_of(request.conditions.begin(), request.conditions.end(),
                                 [this](const Condition& c) { return Holds(c); });
  const std::vector<Request>& parts = answer.succeeded ? request.then : request.otherwise;
  if (const Refusal refusal = CheckRanges(parts); refusal != Refusal::kNone) {
    return {.refusal = refusal};
  }
  const int64_t next = revision_ + 1;
  bool changed = false;
  for (const Request& part : parts) {
    Answer& reply = answer.parts.emplace_back();
    if (part.kind == Kind::kPut) {
      Put(part, next, reply);
      changed = true;
    } else if (part.kind == Kind::kDelete) {
      Delete(part, next, reply);
      changed = changed || reply.count > 0;
    } else {
      // Its own earlier writes are seen.
      reply = Read(part, next);
    }
    reply.revision = changed ? next : revision_;
  }
  if (changed) revision_ = next;
  answer.revision = revision_;
  return answer;
}

Answer Model::Grant(const Request& request, uint64_t index) {
  if (leases_.contains(request.lease)) return {.refusal = Refusal::kLeaseExists};
  leases_[request.lease] = {.granted = index};
  return {.revision = revision_, .count = request.ttl};
}

Answer Model::Revoke(const Request& request) {
  if (!leases_.contains(request.lease)) return {.refusal = Refusal::kLeaseNotFound};
  End(request.lease);
  return {.revision = revision_};
}

// All its keys go at one revision, in their order.
void Model::End(int64_t lease) {
  const std::set<std::string> keys = leases_.at(lease).keys;
  if (!keys.empty()) ++revision_;
  for (const std::string& key : keys) SetVersion(key, revision_, std::nullopt);
  leases_.erase(lease);
}

std::vector<int64_t> Model::Expire(const std::vector<std::pair<int64_t, uint64_t>>& leases) {
  std::vector<int64_t> ended;
  if (Raised(Alarm::Type::kCorrupt)) return ended;
  for (const auto& [lease, granted] : leases) {
    const auto found = leases_.find(lease);
    if (found == leases_.end() || found->second.granted != granted) continue;
    End(lease);
    ended.push_back(lease);
  }
  return ended;
}

Answer Model::Raise(const Request& request) {
  const bool changes = request.lifts ? alarms_.erase(request.alarm) > 0 : true;
  if (!request.lifts) alarms_.insert(request.alarm);
  return {.revision = revision_, .count = changes ? 1 : 0};
}

bool Model::Raised(Alarm::Type type) const {
  return std::any_of(alarms_.begin(), alarms_.end(),
                     [type](const Alarm& alarm) { return alarm.type == type; });
}

Refusal Model::CheckAlarms(const Request& request) const {
  if (request.kind == Kind::kAlarm) return Refusal::kNone;
  if (Raised(Alarm::Type::kCorrupt)) return Refusal::kCorrupt;
  const auto puts = [](const std::vector<Request>& parts) {
    return std::any_of(parts.begin(), parts.end(),
                       [](const Request& part) { return part.kind == Kind::kPut; });
  };
  const bool grows = request.kind == Kind::kPut || request.kind == Kind::kGrant ||
                     puts(request.then) || puts(request.otherwise);
  return grows && Raised(Alarm::Type::kNoSpace) ? Refusal::kNoSpace : Refusal::kNone;
}

Answer Model::Apply(const Request& request, uint64_t index) {
  if (const Refusal refusal = CheckAlarms(request); refusal != Refusal::kNone) {
    return {.refusal = refusal};
  }
  Answer answer;
  switch (request.kind) {
    case Kind::kPut:
      if (const Refusal refusal = CheckRanges({request}); refusal != Refusal::kNone) {
        return {.refusal = refusal};
      }
      Put(request, revision_ + 1, answer);
      answer.revision = ++revision_;
      return answer;
    case Kind::kDelete:
      Delete(request, revision_ + 1, answer);
      if (answer.count > 0) ++revision_;
      answer.revision = revision_;
      return answer;
    case Kind::kTxn:
      return Txn(request);
    case Kind::kCompact:
      if (request.revision <= compacted_) {
        answer.refusal = Refusal::kCompacted;
      } else if (request.revision > revision_) {
        answer.refusal = Refusal::kFuture;
      } else {
        compacted_ = request.revision;
        compactions_.push_back(compacted_);
        answer.revision = revision_;
      }
      return answer;
    case Kind::kGrant:
      return Grant(request, index);
    case Kind::kRevoke:
      return Revoke(request);
    case Kind::kAlarm:
      return Raise(request);
    case Kind::kRange:
      break;
  }
  FailCheck(__FILE__, __LINE__, "a range does not enter the log");
}

std::vector<Row> Model::Rows() const {
  std::vector<Row> rows;
  for (const auto& [key, versions] : keys_) {
    if (versions.back().row) rows.push_back(*versions.back().row);
  }
  return rows;
}

namespace {

// Where an operation stands in the one order: after so many commands of the log.
struct Place {
  const Operation* operation = nullptr;
  int64_t least = 0;  // The earliest that its answer allows; for a command, its own place.
};

std::string Where(const Operation& operation) {
  return fmt::format("operation {} ({}), invoked at {} ms", operation.id,
                     Describe(operation.request), operation.invoked / kMillisecond);
}

class Checker {
 public:
  Checker(const Operations& history, const std::vector<Taken>& committed)
      : history_(history), committed_(committed) {
    for (const Operation& operation : history_) by_id_[operation.id] = &operation;
  }

  std::optional<std::string> Check() {
    if (auto fault = Replay()) return fault;
    if (auto fault = CheckAnswered()) return fault;
    if (auto fault = CheckReads()) return fault;
    return CheckRealTime();
  }

 private:
  // The log, in order: what it did, and whether that is what was answered.
  std::optional<std::string> Replay() {
    reads_due_ = ReadsByRevision();
    reads_at_ = reads_due_.begin();
    AnswerReads(0);
    for (size_t i = 0; i < committed_.size(); ++i) {
      const int64_t place = static_cast<int64_t>(i) + 1;
      const OperationId id = committed_[i].id;
      if (!committed_[i].expired.empty()) {
        model_.Expire(committed_[i].expired);
        AnswerReads(place);
      }
      if (id == 0) continue;
      const auto found = by_id_.find(id);
      if (found == by_id_.end()) return fmt::format("nobody asked for operation {}", id);
      const Operation& operation = *found->second;
      if (!done_.emplace(id, place).second) {
        return Where(operation) + " took effect twice";
      }
      if (operation.outcome == Outcome::kRefused) {
        return Where(operation) + " took effect, but its client was told that it did not";
      }
      const Answer answer = model_.Apply(operation.request, committed_[i].index);
      if (operation.outcome == Outcome::kAnswered && answer != operation.answer) {
        return fmt::format("{} was answered \"{}\" and should have been \"{}\"", Where(operation),
                           Describe(operation.answer), Describe(answer));
      }
      if (model_.compacted() != compactions_.back().second) {
        compactions_.emplace_back(place, model_.compacted());
      }
      AnswerReads(place);
    }
    return wrong_read_;
  }

  std::optional<std::string> CheckAnswered() const {
    for (const Operation& operation : history_) {
      if (operation.outcome != Outcome::kAnswered || operation.request.kind == Kind::kRange) {
        continue;
      }
      if (!done_.contains(operation.id)) {
        return Where(operation) + " was acknowledged and is lost";
      }
    }
    return std::nullopt;
  }

  // Reads that were answered, by the revision they say they are of.
  std::multimap<int64_t, const Operation*> ReadsByRevision() const {
    std::multimap<int64_t, const Operation*> reads;
    for (const Operation& operation : history_) {
      if (operation.outcome != Outcome::kAnswered || operation.request.kind != Kind::kRange) {
        continue;
      }
      if (operation.answer.refusal == Refusal::kNone) {
        reads.emplace(operation.answer.revision, &operation);
      }
    }
    return reads;
  }

  // The model has just reached a revision: what was read there is compared now.
  void AnswerReads(int64_t place) {
    for (; reads_at_ != reads_due_.end() && reads_at_->first <= model_.revision(); ++reads_at_) {
      const Operation& operation = *reads_at_->second;
      read_places_[operation.id] = place;
      if (wrong_read_ || reads_at_->first != model_.revision()) {
        if (!wrong_read_) wrong_read_ = Where(operation) + " names a revision that never was";
        continue;
      }
      Request plain = operation.request;
      // Whether its revision was compacted by then is a matter of time, not of content.
      Answer answer = ReadIgnoringCompaction(plain);
      if (answer != operation.answer) {
        wrong_read_ = fmt::format("{} was answered \"{}\" and should have been \"{}\"",
                                  Where(operation), Describe(operation.answer), Describe(answer));
      }
    }
  }

  Answer ReadIgnoringCompaction(Request range) const {
    if (range.revision > model_.revision()) return model_.Read(range, model_.revision());
    const int64_t at = range.revision > 0 ? range.revision : model_.revision();
    range.revision = 0;
    return model_.Read(range, at);
  }

  std::optional<std::string> CheckReads() {
    if (wrong_read_) return wrong_read_;
    if (reads_at_ != reads_due_.end()) {
      return Where(*reads_at_->second) + " names a revision that never was";
    }
    for (const Operation& operation : history_) {
      if (operation.request.kind == Kind::kRange &&
          operation.answer.refusal == Refusal::kCompacted &&
          operation.request.revision >= model_.compacted()) {
        return Where(operation) + " was refused as compacted, which its revision never was";
      }
    }
    return std::nullopt;
  }

  // Along the one order, no operation may come before one that had returned when it was invoked.
  std::optional<std::string> CheckRealTime() const {
    struct Event {
      Time at = 0;
      bool returns = false;
      const Operation* operation = nullptr;
    };
    std::vector<Event> events;
    for (const Operation& operation : history_) {
      const bool placed = done_.contains(operation.id) || read_places_.contains(operation.id) ||
                          operation.answer.refusal != Refusal::kNone;
      if (!placed) continue;
      events.push_back({.at = operation.invoked, .returns = false, .operation = &operation});
      if (operation.outcome == Outcome::kAnswered && operation.returned) {
        events.push_back({.at = *operation.returned, .returns = true, .operation = &operation});
      }
    }
    // At the same instant an invocation counts as earlier: the two may overlap.
    std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
      return std::tuple(a.at, a.returns, a.operation->id) <
             std::tuple(b.at, b.returns, b.operation->id);
    });
    int64_t passed = 0;  // The place of the last that returned.
    const Operation* by = nullptr;
    std::map<OperationId, int64_t> bounds;
    for (const Event& event : events) {
      const Operation& operation = *event.operation;
      const auto done = done_.find(operation.id);
      const auto read = read_places_.find(operation.id);
      if (!event.returns) {
        bounds[operation.id] = passed;
        const Operation* before = by;
        if (done != done_.end() && done->second <= passed) {
          return fmt::format("{} took effect before {}, which had returned when it was invoked",
                             Where(operation), before == nullptr ? "?" : Where(*before));
        }
        if (read != read_places_.end() && !operation.request.serializable &&
            LastPlaceOf(operation.answer.revision) < passed) {
          return fmt::format("{} is stale (\"{}\"): {} had returned when it was invoked",
                             Where(operation), Describe(operation.answer),
                             before == nullptr ? "?" : Where(*before));
        }
        if (operation.request.kind == Kind::kRange && !operation.request.serializable &&
            operation.answer.refusal == Refusal::kNone && operation.request.revision > 0 &&
            CompactedAt(passed) > operation.request.revision) {
          return Where(operation) + " was answered although its revision had been compacted";
        }
        continue;
      }
      // What a serializable read saw says nothing to others.
      if (operation.request.kind == Kind::kRange && operation.request.serializable) continue;
      const int64_t place = done != done_.end()          ? done->second
                            : read != read_places_.end() ? read->second
                                                         : 0;
      if (place > passed) {
        passed = place;
        by = &operation;
      }
    }
    return std::nullopt;
  }

  // The last place in the order at which the revision was still the current one.
  int64_t LastPlaceOf(int64_t revision) const {
    const auto next = first_places_.upper_bound(revision);
    return next == first_places_.end() ? static_cast<int64_t>(committed_.size()) : next->second - 1;
  }
  int64_t CompactedAt(int64_t place) const {
    int64_t compacted = -1;
    for (const auto& [at, revision] : compactions_) {
      if (at <= place) compacted = revision;
    }
    return compacted;
  }

 public:
  // Where each revision began: filled by a replay of its own, so that Replay stays readable.
  void FindPlaces() {
    Model model;
    for (size_t i = 0; i < committed_.size(); ++i) {
      const int64_t before = model.revision();
      model.Expire(committed_[i].expired);
      const auto found = by_id_.find(committed_[i].id);
      if (found != by_id_.end()) model.Apply(found->second->request, committed_[i].index);
      if (model.revision() != before) {
        first_places_[model.revision()] = static_cast<int64_t>(i) + 1;
      }
    }
  }

 private:
  const Operations& history_;
  const std::vector<Taken>& committed_;
  std::map<OperationId, const Operation*> by_id_;
  Model model_;
  std::map<OperationId, int64_t> done_;         // Commands, by their place in the order.
  std::map<OperationId, int64_t> read_places_;  // Reads: the earliest place that explains them.
  std::map<int64_t, int64_t> first_places_;     // Of each revision.
  std::vector<std::pair<int64_t, int64_t>> compactions_ = {{0, -1}};
  std::multimap<int64_t, const Operation*> reads_due_;
  std::multimap<int64_t, const Operation*>::const_iterator reads_at_;
  std::optional<std::string> wrong_read_;
};

}  // namespace

Model Replayed(const Operations& history, const std::vector<Taken>& committed) {
  Model model;
  for (const Taken& taken : committed) {
    model.Expire(taken.expired);
    if (taken.id != 0) model.Apply(history[taken.id - 1].request, taken.index);
  }
  return model;
}

std::optional<std::string> CheckLeases(const Operations& history,
                                       const std::vector<Taken>& committed,
                                       const std::vector<Renewal>& renewals) {
  // Clocks are told in whole units.
  constexpr Time kTolerance = kMillisecond;
  struct Life {
    Time begun = 0;
    Time ended = INT64_MAX;
    bool revoked = false;
    int64_t ttl = 0;
  };
  std::map<int64_t, std::vector<Life>> lives;
  Model model;
  for (const Taken& taken : committed) {
    for (const int64_t lease : model.Expire(taken.expired)) lives[lease].back().ended = taken.at;
    if (taken.id == 0) continue;
    const Request& request = history[taken.id - 1].request;
    if (model.Apply(request, taken.index).refusal != Refusal::kNone) continue;
    if (request.kind == Kind::kGrant) {
      lives[request.lease].push_back({.begun = taken.at, .ttl = request.ttl});
    } else if (request.kind == Kind::kRevoke) {
      lives[request.lease].back().ended = taken.at;
      lives[request.lease].back().revoked = true;
    }
  }
  for (const auto& [lease, all] : lives) {
    for (const Life& life : all) {
      if (life.revoked || life.ended >= life.begun + life.ttl * kSecond - kTolerance) continue;
      return fmt::format("lease {} of {} s ended {} ms after it was granted", lease, life.ttl,
                         (life.ended - life.begun) / kMillisecond);
    }
  }
  for (const Renewal& renewal : renewals) {
    // The life that it was told of: one that had begun when it returned, and not ended when it
    // was asked for.
    const std::vector<Life>& all = lives[renewal.lease];
    const bool holds = std::any_of(all.begin(), all.end(), [&renewal](const Life& life) {
      if (life.begun > renewal.returned || life.ended < renewal.invoked) return false;
      return life.revoked || life.ended >= renewal.invoked + renewal.seconds * kSecond - kTolerance;
    });
    if (holds) continue;
    return fmt::format("lease {} was renewed for {} s between {} and {} ms, and did not last",
                       renewal.lease, renewal.seconds, renewal.invoked / kMillisecond,
                       renewal.returned / kMillisecond);
  }
  return std::nullopt;
}

std::optional<std::string> CheckHistory(const Operations& history,
                                        const std::vector<Taken>& committed) {
  Checker checker(history, committed);
  checker.FindPlaces();
  return checker.Check();
}

}  // namespace kv::sim

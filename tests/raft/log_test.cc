#include "server/raft/log.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <map>
#include <utility>

#include "server/raft/random.h"
#include "storage/check.h"

namespace kv::raft {
namespace {

const Members kFounders{.voters = {1, 2, 3}};

EntryPtr Command(Index index, Term term, std::string data = "x") {
  return MakeEntry(index, term, EntryKind::kCommand, std::move(data));
}
EntryPtr Configuration(Index index, Term term, const Members& members) {
  return MakeEntry(index, term, EntryKind::kMembers, Encode(members));
}

// Entries 2, 3, … with these terms behind 1@1, all durable.
Log LogOf(const std::vector<Term>& terms) {
  std::vector<EntryPtr> entries;
  for (const Term term : terms) entries.push_back(Command(entries.size() + 2, term));
  return Log({.index = 1, .term = 1}, kFounders, std::move(entries));
}

struct LawBroken {};
template <typename Act>
bool EndsTheProcess(const Act& act) {
  TheCheckHook() = [](std::string_view) { throw LawBroken{}; };
  bool ended = false;
  try {
    act();
  } catch (const LawBroken&) {
    ended = true;
  }
  TheCheckHook() = nullptr;
  return ended;
}

TEST_CASE("a found log is durable and begins behind its base") {
  const Log log = LogOf({1, 1, 2});
  CHECK(log.base() == Position{.index = 1, .term = 1});
  CHECK(log.last() == Position{.index = 4, .term = 2});
  CHECK(log.stable() == 4);
  CHECK_FALSE(log.HasUnwritten());
  CHECK(log.members() == kFounders);
  CHECK(log.members_index() == 1);
  log.CheckInvariants();
}

TEST_CASE("a term is known from the base to the last entry and nowhere else") {
  const Log log = LogOf({1, 2});
  CHECK_FALSE(log.TermAt(0));
  CHECK(log.TermAt(1) == Term{1});
  CHECK(log.TermAt(2) == Term{1});
  CHECK(log.TermAt(3) == Term{2});
  CHECK_FALSE(log.TermAt(4));
  CHECK_FALSE(log.Holds({.index = 4, .term = 0}));
  CHECK_FALSE(log.Holds({.index = 0, .term = 0}));
  CHECK(log.Holds({.index = 3, .term = 2}));
  CHECK_FALSE(log.Holds({.index = 3, .term = 1}));
}

TEST_CASE("slices hold as many bytes as asked for, and one entry at least") {
  Log log = LogOf({});
  for (Index i = 2; i <= 11; ++i) log.Append(Command(i, 1, std::string(100, 'x')));
  const uint64_t each = EntryBytes(*log.At(2));
  CHECK(each >= 100);
  CHECK(log.bytes() == 10 * each);
  CHECK(log.BytesIn(3, 6) == 3 * each);
  CHECK(log.Slice(1, 11, 1).size() == 1);
  CHECK(log.Slice(1, 11, 3 * each).size() == 3);
  CHECK(log.Slice(1, 11, 3 * each + each - 1).size() == 3);
  CHECK(log.Slice(1, 11, 1000 * each).size() == 10);
  CHECK(log.Slice(4, 6, 1000 * each).size() == 2);
  CHECK(log.Slice(4, 6, 1000 * each).front()->index == 5);
}

TEST_CASE("where two logs may still agree is found by terms") {
  const Log log = LogOf({1, 1, 2, 4, 4});  // 2@1 3@1 4@2 5@4 6@4
  CHECK(log.LastAtMost(6, 4) == Position{.index = 6, .term = 4});
  CHECK(log.LastAtMost(9, 9) == Position{.index = 6, .term = 4});
  CHECK(log.LastAtMost(5, 4) == Position{.index = 5, .term = 4});
  CHECK(log.LastAtMost(6, 3) == Position{.index = 4, .term = 2});
  CHECK(log.LastAtMost(6, 1) == Position{.index = 3, .term = 1});
  CHECK(log.LastAtMost(2, 1) == Position{.index = 2, .term = 1});
  CHECK(log.LastAtMost(6, 0) == Position{.index = 1, .term = 1});  // Never below the base.
}

TEST_CASE("writes hand out what is new and make it durable when they end") {
  Log log = LogOf({});
  log.Append(Command(2, 1));
  log.Append(Command(3, 1));
  CHECK(log.HasUnwritten());
  const LogUpdate first = log.TakeUnwritten(1);
  CHECK(first.entries.size() == 2);
  CHECK_FALSE(first.reset);
  CHECK_FALSE(log.HasUnwritten());
  log.Append(Command(4, 1));
  CHECK(log.TakeUnwritten(2).entries.size() == 1);
  CHECK(log.stable() == 1);
  log.Persisted(1);
  CHECK(log.stable() == 3);
  log.Persisted(2);
  CHECK(log.stable() == 4);
}

TEST_CASE("the end of a write covers every earlier one") {
  Log log = LogOf({});
  log.Append(Command(2, 1));
  log.TakeUnwritten(1);
  log.Append(Command(3, 1));
  log.TakeUnwritten(2);
  log.Persisted(2);
  CHECK(log.stable() == 3);
}

TEST_CASE("overwriting clips the writes in flight") {
  Log log = LogOf({1});
  log.Append(Command(3, 2));
  log.Append(Command(4, 2));
  log.TakeUnwritten(1);
  log.TruncateFrom(3);
  log.Append(Command(3, 3));
  log.Append(Command(4, 3));
  log.TakeUnwritten(2);
  log.CheckInvariants();
  log.Persisted(1);
  CHECK(log.stable() == 2);  // What ended is no longer in the log.
  log.Persisted(2);
  CHECK(log.stable() == 4);
}

TEST_CASE("overwriting durable entries takes their durability away") {
  Log log = LogOf({1, 1, 1});
  CHECK(log.stable() == 4);
  log.TruncateFrom(3);
  CHECK(log.stable() == 2);
  CHECK(log.last_index() == 2);
  log.Append(Command(3, 2));
  CHECK(log.stable() == 2);
  const LogUpdate update = log.TakeUnwritten(1);
  REQUIRE(update.entries.size() == 1);
  CHECK(update.entries[0]->term == 2);
}

TEST_CASE("the newest configuration in the log is in force, and is rolled back") {
  Log log = LogOf({});
  const Members joint{.voters = {1, 2, 3, 4}, .outgoing = {1, 2, 3}};
  const Members last{.voters = {1, 2, 3, 4}};
  CHECK(log.previous_members() == nullptr);
  log.Append(Configuration(2, 1, joint));
  log.Append(Command(3, 1));
  log.Append(Configuration(4, 1, last));
  CHECK(log.members() == last);
  CHECK(log.members_index() == 4);
  REQUIRE(log.previous_members() != nullptr);
  CHECK(*log.previous_members() == joint);
  log.TruncateFrom(4);
  CHECK(log.members() == joint);
  log.TruncateFrom(3);
  CHECK(log.members() == joint);
  CHECK(log.members_index() == 2);
  log.TruncateFrom(2);
  CHECK(log.members() == kFounders);
  CHECK(log.members_index() == 1);
}

TEST_CASE("a dropped prefix leaves its configuration behind") {
  Log log = LogOf({1});
  const Members next{.voters = {1, 2, 3}, .learners = {4}};
  log.Append(Configuration(3, 1, next));
  log.Append(Command(4, 2));
  log.TakeUnwritten(1);
  log.Persisted(1);
  const uint64_t bytes = log.bytes();
  log.DropThrough(3);
  log.CheckInvariants();
  CHECK(log.base() == Position{.index = 3, .term = 1});
  CHECK(log.members() == next);
  CHECK(log.last() == Position{.index = 4, .term = 2});
  CHECK(log.bytes() < bytes);
  CHECK(log.bytes() == EntryBytes(*log.At(4)));
  log.TruncateFrom(4);
  CHECK(log.members() == next);
}

TEST_CASE("a snapshot takes the log's place") {
  Log log = LogOf({1, 1});
  log.Append(Command(4, 2));
  log.TakeUnwritten(1);
  const Members members{.voters = {2, 3}};
  log.Reset({.index = 9, .term = 2}, members);
  log.CheckInvariants();
  CHECK(log.last() == Position{.index = 9, .term = 2});
  CHECK(log.members() == members);
  CHECK(log.bytes() == 0);
  CHECK(log.HasUnwritten());
  log.Append(Command(10, 2));
  const LogUpdate update = log.TakeUnwritten(2);
  CHECK(update.reset == Position{.index = 9, .term = 2});
  CHECK(update.entries.size() == 1);
  log.Persisted(1);
  CHECK(log.stable() == 9);
  log.Persisted(2);
  CHECK(log.stable() == 10);
}

TEST_CASE("misuse ends the process") {
  CHECK(EndsTheProcess([] { LogOf({1}).Append(Command(9, 1)); }));
  CHECK(EndsTheProcess([] { LogOf({2}).Append(Command(3, 1)); }));
  CHECK(EndsTheProcess([] { LogOf({1, 1}).TruncateFrom(1); }));
  CHECK(EndsTheProcess([] {
    Log log = LogOf({1});
    log.Append(Command(3, 1));
    log.DropThrough(3);  // Not durable.
  }));
  CHECK(EndsTheProcess([] {
    Log({.index = 1, .term = 1}, kFounders, {Command(3, 1)});  // A gap.
  }));
  CHECK(EndsTheProcess([] { LogOf({}).Append(MakeEntry(2, 1, EntryKind::kMembers, "nonsense")); }));
}

// A log that keeps no clever state: a map of entries, each with whether its bytes are on disk.
TEST_CASE("whatever is done to it, a log agrees with a naive one and with its disk") {
  const char* text = std::getenv("KVD_SEED");
  const uint64_t seed = text == nullptr ? 1 : std::strtoull(text, nullptr, 10);
  INFO("KVD_SEED=" << seed);
  SplitMix64 chance(seed);
  for (int run = 0; run < 200; ++run) {
    Log log = LogOf({});
    std::map<Index, EntryPtr> naive;
    std::map<Index, EntryPtr> disk;
    std::deque<std::pair<WriteId, LogUpdate>> writing;
    WriteId writes = 0;
    Term term = 1;
    Index dropped = 1;
    for (int step = 0; step < 150; ++step) {
      switch (chance.Below(6)) {
        case 0:
        case 1: {
          const EntryPtr entry = Command(log.last_index() + 1, term, std::to_string(step));
          naive[entry->index] = entry;
          log.Append(entry);
          break;
        }
        case 2: {
          if (log.last_index() <= dropped + 1) break;
          const Index from = dropped + 1 + chance.Below(log.last_index() - dropped);
          ++term;
          log.TruncateFrom(from);
          naive.erase(naive.lower_bound(from), naive.end());
          break;
        }
        case 3:
          if (!log.HasUnwritten()) break;
          ++writes;
          writing.emplace_back(writes, log.TakeUnwritten(writes));
          break;
        case 4: {
          if (writing.empty()) break;
          const auto [id, update] = writing.front();
          writing.pop_front();
          if (!update.entries.empty()) {
            disk.erase(disk.lower_bound(update.entries.front()->index), disk.end());
            for (const EntryPtr& entry : update.entries) disk[entry->index] = entry;
          }
          log.Persisted(id);
          break;
        }
        default: {
          if (log.stable() <= dropped) break;
          dropped += 1 + chance.Below(log.stable() - dropped);
          log.DropThrough(dropped);
        }
      }
      log.CheckInvariants();
      REQUIRE(log.last_index() == (naive.empty() ? 1 : naive.rbegin()->first));
      uint64_t bytes = 0;
      for (Index i = log.base().index + 1; i <= log.last_index(); ++i) {
        REQUIRE(log.At(i) == naive.at(i));
        bytes += EntryBytes(*log.At(i));
        // Stable is a promise about the disk: exactly these bytes are there.
        if (i <= log.stable()) REQUIRE(disk.at(i) == naive.at(i));
      }
      REQUIRE(log.bytes() == bytes);
    }
    // Once everything is written, everything is durable.
    ++writes;
    if (log.HasUnwritten()) writing.emplace_back(writes, log.TakeUnwritten(writes));
    for (const auto& [id, update] : writing) log.Persisted(id);
    REQUIRE(log.stable() == log.last_index());
  }
}

}  // namespace
}  // namespace kv::raft

#include "server/watch/watcher_index.h"

#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/kv/machine_fixture.h"

namespace kv {
namespace {

std::set<const Watcher*> Found(const WatcherIndex& index, std::string_view key) {
  std::set<const Watcher*> found;
  index.ForEach(key, [&found](Watcher& watcher) {
    if (!found.insert(&watcher).second) FAIL("found twice");
  });
  return found;
}

// Short keys of few letters, so that ranges nest, touch and repeat.
std::string AnyKey(Dice& dice) {
  std::string key;
  for (uint64_t i = dice.Below(4); i > 0; --i) key += static_cast<char>('a' + dice.Below(3));
  return key;
}

std::unique_ptr<Watcher> AnyWatcher(Dice& dice) {
  auto watcher = std::make_unique<Watcher>();
  watcher->range.first = AnyKey(dice);
  watcher->one_key = dice.OneIn(2);
  if (watcher->one_key || dice.OneIn(8)) return watcher;
  do {
    watcher->range.end = AnyKey(dice) + "b";
  } while (watcher->range.empty());
  return watcher;
}

TEST_CASE("the index finds exactly who watches a key") {
  const uint64_t seed = SeedFrom("KVD_WATCH_INDEX_SEED");
  CAPTURE(seed);
  Dice dice(seed);
  for (int round = 0; round < 20; ++round) {
    WatcherIndex index;
    std::vector<std::unique_ptr<Watcher>> watchers;
    const uint64_t grows = 1 + dice.Below(3);
    for (int step = 0; step < 1500; ++step) {
      if (watchers.empty() || dice.Below(4) < grows) {
        watchers.push_back(AnyWatcher(dice));
        index.Add(*watchers.back());
      } else {
        std::swap(watchers[dice.Below(watchers.size())], watchers.back());
        index.Remove(*watchers.back());
        watchers.pop_back();
      }
      const std::string key = AnyKey(dice);
      std::set<const Watcher*> expected;
      for (const auto& watcher : watchers) {
        if (watcher->Wants(key, false)) expected.insert(watcher.get());
      }
      REQUIRE(Found(index, key) == expected);
    }
  }
}

TEST_CASE("a key's watchers are found whichever of them goes first") {
  WatcherIndex index;
  std::vector<std::unique_ptr<Watcher>> watchers;
  for (int i = 0; i < 3; ++i) {
    watchers.push_back(std::make_unique<Watcher>());
    watchers.back()->range.first = "a key that is too long to lie within its string";
    watchers.back()->one_key = true;
    index.Add(*watchers.back());
  }
  const std::string key = watchers[0]->range.first;
  index.Remove(*watchers[0]);
  watchers[0].reset();  // Its key lent the index its bytes.
  CHECK(Found(index, key) == std::set<const Watcher*>{watchers[1].get(), watchers[2].get()});
  index.Remove(*watchers[2]);
  CHECK(Found(index, key) == std::set<const Watcher*>{watchers[1].get()});
  index.Remove(*watchers[1]);
  CHECK(Found(index, key).empty());
}

}  // namespace
}  // namespace kv

// How many live keys there are, by runs of neighbours: a count sums whole runs and leaves the two
// ends of its range, at most a run each, to be scanned. Exact.
//
// A plain value; whoever shares it guards it. In memory one small node per thousand keys or so.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "storage/database.h"
#include "storage/keys.h"

namespace kv {

class Counts {
 public:
  static constexpr int64_t kRunKeysMax = 2048;

  // One run that holds everything and has no keys.
  Counts();

  int64_t keys() const { return keys_; }
  size_t runs() const { return runs_.size(); }

  // False: the run would count below zero, so these counts are not of these keys.
  bool Add(std::string_view key, int64_t delta);

  struct Sum {
    int64_t whole = 0;           // Keys of the runs that lie within the range.
    std::vector<KeyRange> ends;  // To be scanned; at most two.
  };
  Sum SumOf(const KeyRange& range) const;

  // A run with more than kRunKeysMax keys, and how many. Split gives its keys from `middle` on,
  // `right` of them, to a run of their own.
  struct Oversized {
    KeyRange range;
    int64_t keys = 0;
  };
  std::optional<Oversized> FindOversized() const;
  void Split(const std::string& first, std::string middle, int64_t right);

  // What changed since the last call, as rows of the run table.
  void Persist(WriteSet& writes);
  size_t dirty() const { return dirty_.size(); }
  // A row of the run table, in order; false: it cannot be one.
  bool Load(std::string_view row_key, std::string_view row_value);
  // The rebuild: rows that lie in the table and are not believed, then all keys in ascending order.
  void Forget(std::string_view row_key);
  void Append(std::string_view key);

 private:
  using Runs = std::map<std::string, int64_t, std::less<>>;
  Runs::iterator RunOf(std::string_view key);
  void MergeAround(Runs::iterator run);

  // First key of the run (it ends where the next begins) → live keys in it. Never empty: the first
  // run begins before every key.
  Runs runs_;
  int64_t keys_ = 0;
  std::set<std::string> oversized_;
  std::set<std::string> dirty_;  // Runs to write, or to delete where there is none any more.
};

}  // namespace kv

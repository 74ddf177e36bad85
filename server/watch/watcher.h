// One watcher: a cursor into the history of a range of keys. Plain values; the hub's alone.
//
// A member may hold a hundred thousand of them, most of them idle: what is here is what each costs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "storage/key_record.h"
#include "storage/keys.h"

namespace kv {

struct WatchStream;

struct Watcher {
  // Where it is: told of each revision as it comes, waiting for history, or for its client to read.
  enum class Place : uint8_t { kInStep, kBehind, kStalled };

  KeyRange range;     // Without an end if it is one key.
  Revision next = 0;  // What is older was delivered, or was never asked for.
  int64_t id = 0;
  WatchStream* stream = nullptr;

  // In the list of its place.
  Watcher* before = nullptr;
  Watcher* after = nullptr;

  uint32_t gathered = 0;  // Where its events are gathered, from 1; 0: nowhere.
  Place place = Place::kBehind;
  bool one_key : 1 = false;
  bool begun : 1 = false;  // Its start, if it asked for one, is not in the future.
  bool previous : 1 = false;
  bool puts : 1 = true;
  bool deletions : 1 = true;
  bool fragments : 1 = false;
  bool reports : 1 = false;     // progress_notify.
  bool report_due : 1 = false;  // Nothing was sent since the last one.

  bool Wants(std::string_view key, bool deletion) const {
    if (!(deletion ? deletions : puts)) return false;
    return one_key ? key == range.first : range.Contains(key);
  }
};

// Watchers in the order they came; each is in at most one list.
class WatcherList {
 public:
  bool empty() const { return front_ == nullptr; }
  Watcher* front() const { return front_; }

  void PushBack(Watcher& watcher) {
    watcher.before = back_;
    watcher.after = nullptr;
    (back_ == nullptr ? front_ : back_->after) = &watcher;
    back_ = &watcher;
  }
  void Remove(Watcher& watcher) {
    (watcher.before == nullptr ? front_ : watcher.before->after) = watcher.after;
    (watcher.after == nullptr ? back_ : watcher.after->before) = watcher.before;
    watcher.before = watcher.after = nullptr;
  }

 private:
  Watcher* front_ = nullptr;
  Watcher* back_ = nullptr;
};

}  // namespace kv

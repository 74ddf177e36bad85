// One change of a key as watchers are told of it: encoded once, whoever and however many they are.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "storage/mvcc.h"

namespace kv {

// What keeping an event costs, about; small ones cost much more than their bytes.
size_t MemoryOf(const KeyEvent& event);

// The hub's loop only.
class SharedEvent {
 public:
  SharedEvent(Revision revision, KeyEvent event) : revision_(revision), event_(std::move(event)) {}

  Revision revision() const { return revision_; }
  const std::string& key() const { return event_.key; }
  bool deletion() const { return event_.record->tombstone; }
  size_t bytes() const { return BytesOf(event_); }
  // With one of its encoded forms.
  size_t memory() const { return sizeof(SharedEvent) + MemoryOf(event_) + bytes(); }

  // As field `events` of a WatchResponse, tag and length included; with prev_kv if asked for and
  // there is one.
  std::string_view Field(bool previous) const;

 private:
  const Revision revision_;
  const KeyEvent event_;
  mutable std::string plain_;  // Empty until somebody wants it; so below.
  mutable std::string with_previous_;
};

}  // namespace kv

#include "server/watch/shared_event.h"

#include "proto/etcd/kv.pb.h"

namespace kv {
namespace {

// Field 11, length-delimited.
constexpr char kEventsTag = 11 << 3 | 2;

void Fill(const std::string& key, const KeyRecord& record, mvccpb::KeyValue* kv) {
  kv->set_key(key);
  kv->set_create_revision(record.create);
  kv->set_mod_revision(record.mod);
  kv->set_version(record.version);
  kv->set_value(record.value);
  kv->set_lease(record.lease);
}

std::string Encode(const KeyEvent& event, bool previous) {
  mvccpb::Event message;
  if (event.record->tombstone) message.set_type(mvccpb::Event::DELETE);
  Fill(event.key, *event.record, message.mutable_kv());
  if (previous) Fill(event.key, *event.previous, message.mutable_prev_kv());
  std::string field{kEventsTag};
  size_t length = message.ByteSizeLong();
  field.reserve(length + 6);
  for (; length >= 0x80; length >>= 7) field += static_cast<char>(length | 0x80);
  field += static_cast<char>(length);
  message.AppendToString(&field);
  return field;
}

}  // namespace

size_t MemoryOf(const KeyEvent& event) {
  const size_t records = event.previous == nullptr ? 1 : 2;
  return sizeof(KeyEvent) + records * sizeof(KeyRecord) + BytesOf(event);
}

std::string_view SharedEvent::Field(bool previous) const {
  previous = previous && event_.previous != nullptr;
  std::string& field = previous ? with_previous_ : plain_;
  if (field.empty()) field = Encode(event_, previous);
  return field;
}

}  // namespace kv

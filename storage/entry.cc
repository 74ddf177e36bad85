#include "storage/entry.h"

#include <isa-l/crc.h>

#include <array>

namespace kv {

uint32_t Crc32c(std::string_view bytes, uint32_t seed) {
  // The library works on the inverted register and takes int lengths; values here are far below.
  // It wants a mutable pointer but does not write through it.
  auto* data = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
  return ~crc32_iscsi(data, static_cast<int>(bytes.size()), ~seed);
}

uint32_t EntryChecksum(const Entry& entry) {
  std::array<char, 17> head;
  for (size_t i = 0; i < 8; ++i) {
    head[i] = static_cast<char>(entry.index >> (8 * i));
    head[8 + i] = static_cast<char>(entry.term >> (8 * i));
  }
  head[16] = static_cast<char>(entry.kind);
  return Crc32c(entry.data, Crc32c({head.data(), head.size()}));
}

EntryPtr MakeEntry(Index index, Term term, EntryKind kind, std::string data) {
  auto entry = std::make_shared<Entry>();
  entry->index = index;
  entry->term = term;
  entry->kind = kind;
  entry->data = std::move(data);
  entry->checksum = EntryChecksum(*entry);
  return entry;
}

}  // namespace kv

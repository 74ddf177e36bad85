#include "server/kv/command.h"

#include <utility>

#include "proto/internal/command.pb.h"

namespace kv {
namespace {

// One field of a protobuf message. The wire format's rules: fields in any order, the last of a kind
// wins, unknown ones are skipped.
struct Field {
  uint64_t number = 0;
  uint64_t integer = 0;    // Of a varint field.
  std::string_view bytes;  // Of a length-delimited field.
  bool is_varint = false;
  bool is_bytes = false;
};

class Fields {
 public:
  explicit Fields(std::string_view bytes) : rest_(bytes) {}

  // The next field; nothing at the end and where the bytes are no message (ok() tells).
  std::optional<Field> Next() {
    if (rest_.empty() || !ok_) return std::nullopt;
    const uint64_t tag = Varint();
    Field field;
    field.number = tag >> 3;
    if (field.number == 0 || tag > UINT32_MAX) ok_ = false;
    switch (tag & 7) {
      case 0:
        field.is_varint = true;
        field.integer = Varint();
        break;
      case 1:
        Take(8);
        break;
      case 2:
        field.is_bytes = true;
        field.bytes = Take(Varint());
        break;
      case 5:
        Take(4);
        break;
      default:  // Groups: no message of ours or of etcd's has any.
        ok_ = false;
    }
    if (!ok_) return std::nullopt;
    return field;
  }
  bool ok() const { return ok_; }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (rest_.empty()) break;
      const auto byte = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      if (shift < 64) value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if ((byte & 0x80) == 0) return value;
    }
    ok_ = false;
    return 0;
  }
  std::string_view Take(uint64_t length) {
    if (!ok_ || length > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, length);
    rest_.remove_prefix(length);
    return taken;
  }

  std::string_view rest_;
  bool ok_ = true;
};

}  // namespace

std::string EncodeCommand(kvd::internal::Kind kind, std::string body, uint32_t min_version) {
  kvd::internal::Command command;
  command.set_kind(kind);
  command.set_min_version(min_version);
  command.set_body(std::move(body));
  return command.SerializeAsString();
}

std::optional<CommandView> ReadCommand(std::string_view bytes) {
  CommandView command;
  Fields fields(bytes);
  while (const std::optional<Field> field = fields.Next()) {
    if (field->number == 1 && field->is_varint) {
      command.kind = static_cast<uint32_t>(field->integer);
    } else if (field->number == 2 && field->is_varint) {
      command.min_version = static_cast<uint32_t>(field->integer);
    } else if (field->number == 3 && field->is_varint) {
      command.auth_revision = field->integer;
    } else if (field->number == 4 && field->is_bytes) {
      command.body = field->bytes;
    }
  }
  if (!fields.ok()) return std::nullopt;
  return command;
}

std::optional<PutView> ReadPut(std::string_view bytes) {
  PutView put;
  Fields fields(bytes);
  while (const std::optional<Field> field = fields.Next()) {
    if (field->number == 1 && field->is_bytes) {
      put.key = field->bytes;
    } else if (field->number == 2 && field->is_bytes) {
      put.value = field->bytes;
    } else if (field->number == 3 && field->is_varint) {
      put.lease = static_cast<int64_t>(field->integer);
    } else if (field->number == 4 && field->is_varint) {
      put.prev_kv = field->integer != 0;
    } else if (field->number == 5 && field->is_varint) {
      put.ignore_value = field->integer != 0;
    } else if (field->number == 6 && field->is_varint) {
      put.ignore_lease = field->integer != 0;
    }
  }
  if (!fields.ok()) return std::nullopt;
  return put;
}

}  // namespace kv

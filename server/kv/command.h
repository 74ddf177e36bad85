// The bytes of a command entry (proto/internal/command.proto): made, and read without copying.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace kvd::internal {
enum Kind : int;
}

namespace kv {

// `min_version` is the first machine version that knows the command.
std::string EncodeCommand(kvd::internal::Kind kind, std::string body, uint32_t min_version = 1);

// A command whose body still lies in the entry.
struct CommandView {
  uint32_t kind = 0;  // kvd.internal.Kind; a newer member's may be unknown here.
  uint32_t min_version = 0;
  uint64_t auth_revision = 0;
  std::string_view body;
};
// Nothing: the bytes are not a Command.
std::optional<CommandView> ReadCommand(std::string_view bytes);

// An etcdserverpb.PutRequest; puts are most of what a log holds.
struct PutView {
  std::string_view key;
  std::string_view value;
  int64_t lease = 0;
  bool prev_kv = false;
  bool ignore_value = false;
  bool ignore_lease = false;
};
std::optional<PutView> ReadPut(std::string_view bytes);

}  // namespace kv

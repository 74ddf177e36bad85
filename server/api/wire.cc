#include "server/api/wire.h"

#include "storage/status.h"

namespace kv::api {

absl::Status Decode(const std::string& bytes, google::protobuf::MessageLite* message) {
  // By the same rules as the machine, which decodes a write's bytes again: nothing may enter the
  // log that it would not read.
  if (message->ParseFromArray(bytes.data(), static_cast<int>(bytes.size()))) {
    return absl::OkStatus();
  }
  return MakeStatus(absl::StatusCode::kInternal,
                    "the request is not a message of this method: {} bytes cannot be decoded",
                    bytes.size());
}

}  // namespace kv::api

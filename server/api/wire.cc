#include "server/api/wire.h"

#include <grpc/support/time.h>

#include <string_view>
#include <vector>

#include "storage/status.h"

namespace kv::api {
namespace {

// Shared bytes cost an allocation and an atomic count; below this a copy is cheaper.
constexpr size_t kCopyBytesMax = 512;

struct Shared {
  std::string bytes;
  std::shared_ptr<void> hold;
};

bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (length == 0 || lead > 0xF4 || i + length > text.size()) return false;
    for (size_t j = 1; j < length; ++j) {
      if ((static_cast<unsigned char>(text[i + j]) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()), std::string(Message(status)));
}

Call CallOf(const grpc::CallbackServerContext& context) {
  Call call;
  const gpr_timespec deadline = context.raw_deadline();
  if (gpr_time_cmp(deadline, gpr_inf_future(deadline.clock_type)) < 0) {
    const gpr_timespec left = gpr_time_sub(deadline, gpr_now(deadline.clock_type));
    call.deadline = absl::Seconds(left.tv_sec) + absl::Nanoseconds(left.tv_nsec);
  }
  for (const auto& [key, value] : context.client_metadata()) {
    const std::string_view name(key.data(), key.size());
    const std::string_view text(value.data(), value.size());
    if (name == "hasleader") {
      call.require_leader = text == "true";
    } else if (name == "token") {
      call.token = text;
    } else if (name == "client-api-version") {
      call.api_version_ok = IsUtf8(text);
    }
  }
  return call;
}

std::string Flatten(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string bytes;
  if (!buffer.Dump(&slices).ok()) return bytes;
  bytes.reserve(buffer.Length());
  for (const grpc::Slice& slice : slices) {
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return bytes;
}

grpc::ByteBuffer ToBuffer(std::string bytes, std::shared_ptr<void> hold) {
  if (bytes.size() <= kCopyBytesMax && hold == nullptr) {
    const grpc::Slice slice(bytes.data(), bytes.size());
    return grpc::ByteBuffer(&slice, 1);
  }
  auto shared = std::make_unique<Shared>(Shared{std::move(bytes), std::move(hold)});
  std::string& text = shared->bytes;
  const grpc::Slice slice(
      text.data(), text.size(),
      [](void* owner) { std::unique_ptr<Shared>(static_cast<Shared*>(owner)).reset(); },
      shared.get());
  static_cast<void>(shared.release());  // The slice owns it.
  return grpc::ByteBuffer(&slice, 1);
}

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

// Between gRPC's byte buffers and statuses and the types of call.h; what all adapters share.
#pragma once

#include <google/protobuf/message_lite.h>
#include <grpcpp/impl/codegen/byte_buffer.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/status.h>

#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/api/call.h"

namespace kv::api {

grpc::Status ToGrpc(const absl::Status& status);

// What the metadata and the deadline of a call say.
Call CallOf(const grpc::CallbackServerContext& context);

std::string Flatten(const grpc::ByteBuffer& buffer);
// `bytes` go into the buffer without being copied, unless they are few.
grpc::ByteBuffer ToBuffer(std::string bytes, std::shared_ptr<void> hold);

// Internal, as gRPC libraries answer bytes that are no message of this kind.
absl::Status Decode(const std::string& bytes, google::protobuf::MessageLite* message);

// A service function takes its request as a message, or with its bytes.
template <typename Request>
struct RequestShape {
  static absl::Status Fill(std::string bytes, Request* request) { return Decode(bytes, request); }
};
template <typename Message>
struct RequestShape<Received<Message>> {
  static absl::Status Fill(std::string bytes, Received<Message>* request) {
    request->bytes = std::move(bytes);
    return Decode(request->bytes, &request->message);
  }
};

template <typename Message>
grpc::ByteBuffer Encode(const Message& message) {
  return ToBuffer(message.SerializeAsString(), nullptr);
}
template <typename Message>
grpc::ByteBuffer Encode(Encoded<Message> response) {
  return ToBuffer(std::move(response.bytes), std::move(response.hold));
}

}  // namespace kv::api

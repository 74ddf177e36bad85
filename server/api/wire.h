// Between the bytes of a call and the messages that a service function takes and gives; what all
// adapters share.
#pragma once

#include <google/protobuf/message_lite.h>

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "server/api/call.h"
#include "server/api/http2_call.h"

namespace kv::api {

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
Outgoing Encode(const Message& message) {
  Outgoing outgoing;
  outgoing.message = message.SerializeAsString();
  return outgoing;
}
template <typename Message>
Outgoing Encode(Encoded<Message> response) {
  Outgoing outgoing;
  outgoing.message = std::move(response.bytes);
  outgoing.hold = std::move(response.hold);
  return outgoing;
}

}  // namespace kv::api

// One gRPC call on an HTTP/2 stream, and the table of methods that calls go to. This is all that
// the adapters (unary.h, server_stream.h, bidi_stream.h) know of the transport.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/call.h"
#include "server/api/grpc_wire.h"

namespace kv::api {

class Http2Call;
struct Http2Callbacks;
class Http2Connection;
class Http2Loop;
class Mailbox;

struct RpcMethod {
  // A method that takes a stream begins when the headers are there, and reads its messages itself.
  // Any other begins when its one message is complete and the client has closed its side.
  bool takes_stream = false;
  std::function<void(std::shared_ptr<Http2Call> call, std::string message)> begin;
};

struct PathHash {
  using is_transparent = void;
  size_t operator()(std::string_view path) const { return std::hash<std::string_view>()(path); }
};
// By path: /package.Service/Method.
using RpcMethods = std::unordered_map<std::string, RpcMethod, PathHash, std::equal_to<>>;

// What a call says next: a message, its end, or both in this order.
struct Outgoing {
  std::optional<std::string> message;
  std::shared_ptr<void> hold;               // Lives until the message was taken.
  absl::AnyInvocable<void(bool) &&> ready;  // Called once: it was taken; or the client is gone.
  std::optional<absl::Status> end;
};

// The public functions may be called from any thread, also when the client, its connection or the
// whole server is gone; what they are given is called on the connection's loop, never from within.
// Whoever is given a call owes it exactly one end: until then it counts as in flight.
class Http2Call final : public std::enable_shared_from_this<Http2Call> {
 public:
  using Next = absl::AnyInvocable<void(std::optional<std::string>) &&>;
  using Task = absl::AnyInvocable<void() &&>;

  Http2Call(Http2Loop* loop, std::shared_ptr<Mailbox> mailbox, Http2Connection* connection,
            int32_t stream);

  const Call& call() const { return call_; }

  void Say(Outgoing outgoing);
  // Ends the call for the client; its service still owes its own end, which nobody hears.
  void Fail(absl::Status status);
  // The next message, or nothing when the client closed its side or is gone.
  void Read(Next next);
  // Once the client is gone, unless the call's end comes first.
  void OnGone(Task task);

 private:
  friend struct Http2Callbacks;
  friend class Http2Connection;
  friend class Http2Loop;

  void OnLoop(Task task);

  Http2Loop* const loop_;  // Outlives every call that has not ended; used on its own thread only.
  const std::shared_ptr<Mailbox> mailbox_;
  const int32_t stream_;

  // Constant once the call has begun.
  Call call_;
  const RpcMethod* method_ = nullptr;

  // The loop's.
  Http2Connection* connection_;        // Null once it is gone.
  size_t slot_ = 0;                    // Among its calls.
  bool open_ = true;                   // The stream is.
  std::optional<absl::Duration> due_;  // Uptime of the deadline.
  size_t header_bytes_ = 0;
  bool is_post_ = false;
  bool is_grpc_ = false;
  bool is_encoded_ = false;
  absl::Status refusal_;   // Why the call cannot begin.
  size_t held_bytes_ = 0;  // Of the loop's memory.
  bool begun_ = false;     // And not ended: its service is at work.
  bool ended_ = false;     // Its status is decided.

  MessageCutter in_;
  size_t owed_bytes_ = 0;   // Of the stream's window, given back when no message waits.
  bool in_closed_ = false;  // By the client.
  Next next_;
  Task gone_;

  bool headers_sent_ = false;  // Or about to be.
  Outgoing out_;
  size_t sent_bytes_ = 0;    // Of prefix and message.
  size_t framed_bytes_ = 0;  // Promised to nghttp2, to be sent next.
};

}  // namespace kv::api

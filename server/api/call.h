// The seam between the transport and the services: a service is plain functions over
// these types and never sees the transport.
//
// A function answers exactly once, from any thread, and never blocks the calling thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace kv::api {

// What a service may know of the call besides its request.
struct Call {
  absl::Duration deadline = absl::InfiniteDuration();  // Left when the call came in.
  std::string token;            // Metadata `token`: who the caller is, once there are users.
  bool require_leader = false;  // Metadata `hasleader: true`.
  bool api_version_ok = true;   // Metadata `client-api-version` is absent or text.
};

// A request, and the bytes that it came in: a write puts them into the log as they are.
template <typename Message>
struct Received {
  Message message;
  std::string bytes;
};

// A response that is encoded already. `hold` lives as long as the bytes do, in the transport too:
// what they cost is given back when the client has taken them.
template <typename Message>
struct Encoded {
  std::string bytes;
  std::shared_ptr<void> hold;
};

template <typename Response>
using Done = absl::AnyInvocable<void(absl::StatusOr<Response>) &&>;

// The sending half of a stream. Write hands over one message and `ready` is called, once, when the
// next may be written (false: the client is gone; write no more). One write at a time: this is how
// a slow client holds back its own stream and nothing else. Finish ends the stream, exactly once,
// also when the client is gone, and the writer with it.
template <typename Response>
class Writer {
 public:
  virtual ~Writer() = default;
  virtual void Write(Response response, absl::AnyInvocable<void(bool) &&> ready) = 0;
  virtual void Finish(absl::Status status) = 0;
  // For who would not notice for long, having nothing to write: `gone` is called when the client
  // is, unless Finish comes first.
  virtual void OnGone(absl::AnyInvocable<void() &&> gone) = 0;
};

// The receiving half: `next` is called with the next message, or nothing when the client closed its
// side or is gone. One read at a time; one that is open at Finish is dropped.
template <typename Request>
class Reader {
 public:
  virtual ~Reader() = default;
  virtual void Read(absl::AnyInvocable<void(std::optional<Request>) &&> next) = 0;
};

}  // namespace kv::api

// One client's connection: the socket, its HTTP/2 session, and the calls on its streams. All of it
// belongs to one loop.
//
//   kOpen ──GOAWAY, all calls over, all sent──▶ kClosing ──client closed, or a second──▶ kOver
//
// kClosing waits because closing a socket that holds unread bytes would reset it, and the client
// might lose the last answers.
#pragma once

#include <nghttp2/nghttp2.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/api/http2_call.h"
#include "server/api/http2_conduct.h"
#include "server/api/http2_loop.h"

namespace kv::api {

class Http2Connection {
 public:
  Http2Connection(Http2Loop* loop, Descriptor socket);
  ~Http2Connection();
  Http2Connection(const Http2Connection&) = delete;
  Http2Connection& operator=(const Http2Connection&) = delete;

  void OnEvent(uint32_t events);
  // Whatever there is to send and the socket takes. False: only a turn's share of it.
  bool Send();
  void Tick();
  void GoAway();  // No new call; over when the last one is.
  void End();     // At once.

  // For calls.
  void Deliver(Http2Call& call, Outgoing outgoing);
  void Read(Http2Call& call, Http2Call::Next next);
  // Decides the call's status, whatever its service may say later.
  void Fail(Http2Call& call, const absl::Status& status);

  int fd() const { return socket_.get(); }
  bool over() const { return stage_ == Stage::kOver; }

 private:
  friend struct Http2Callbacks;
  enum class Stage { kOpen, kClosing, kOver };

  void Open();
  void Receive();
  void BeginClosing();
  void OnPing();
  // GOAWAY with ENHANCE_YOUR_CALM and a reason; the connection ends.
  void Dismiss(std::string_view reason);

  // The course of a call.
  void OnBeginHeaders(int32_t stream);
  static void OnHeader(Http2Call& call, std::string_view name, std::string_view value);
  void OnHeaders(Http2Call& call);
  void OnData(Http2Call& call, std::string_view bytes);
  void OnEndOfStream(Http2Call& call);
  void OnStreamClose(Http2Call& call);
  void Begin(Http2Call& call, std::string message);
  void SubmitHeaders(Http2Call& call);
  void SubmitEnd(Http2Call& call, const absl::Status& status);
  void SubmitHttpError(Http2Call& call, std::string_view code);
  // Tells the service that nobody listens any more.
  void Sever(Http2Call& call);
  void Remove(Http2Call& call);
  void LetGo();  // Of all calls.
  void MessageSent(Http2Call& call);
  void GiveWindowBack(Http2Call& call);
  void SendSoon();

  Http2Loop* const loop_;
  const Descriptor socket_;
  Stage stage_ = Stage::kOpen;
  nghttp2_session* session_ = nullptr;  // From the first byte on: silent sockets are cheap.
  // With an open stream, or in flight though the client has reset it.
  std::vector<std::shared_ptr<Http2Call>> calls_;
  uint32_t begun_ = 0;  // Of them, in flight.
  std::string unsent_;  // What the socket did not take.
  uint32_t events_;
  bool sending_soon_ = false;
  bool going_away_ = false;

  absl::Duration opened_;
  absl::Duration heard_;   // When bytes came in last.
  absl::Duration pinged_;  // When we asked whether anybody is there.
  absl::Duration close_by_ = absl::InfiniteDuration();
  bool greeted_ = false;  // The client's SETTINGS are there.
  bool awaits_pong_ = false;
  Http2Conduct conduct_;
};

}  // namespace kv::api

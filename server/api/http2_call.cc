#include "server/api/http2_call.h"

#include <utility>

#include "server/api/http2_connection.h"
#include "server/api/http2_loop.h"

namespace kv::api {

Http2Call::Http2Call(Http2Loop* loop, std::shared_ptr<Mailbox> mailbox, Http2Connection* connection,
                     int32_t stream)
    : loop_(loop), mailbox_(std::move(mailbox)), stream_(stream), connection_(connection) {}

void Http2Call::Say(Outgoing outgoing) {
  if (mailbox_->IsCurrent()) {
    loop_->Deliver(*this, std::move(outgoing));
  } else {
    mailbox_->Put(shared_from_this(), std::move(outgoing));
  }
}

void Http2Call::OnLoop(Task task) {
  if (mailbox_->IsCurrent()) {
    std::move(task)();
  } else {
    mailbox_->Put(std::move(task));
  }
}

void Http2Call::Read(Next next) {
  OnLoop([self = shared_from_this(), next = std::move(next)]() mutable {
    if (self->connection_ != nullptr) {
      self->connection_->Read(*self, std::move(next));
    } else {
      self->loop_->Defer([next = std::move(next)]() mutable { std::move(next)(std::nullopt); });
    }
  });
}

void Http2Call::Fail(absl::Status status) {
  OnLoop([self = shared_from_this(), status = std::move(status)] {
    if (self->open_) self->connection_->Fail(*self, status);
  });
}

void Http2Call::OnGone(Task task) {
  OnLoop([self = shared_from_this(), task = std::move(task)]() mutable {
    if (!self->begun_) return;
    if (self->open_ && !self->ended_) {
      self->gone_ = std::move(task);
    } else {
      self->loop_->Defer(std::move(task));
    }
  });
}

}  // namespace kv::api

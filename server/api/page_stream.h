// One answer in pages: a page is read by a reading thread while the client takes none, and the next
// is begun when the client has taken it. So a client that stops reading holds one page and what the
// view keeps on the disk, and disturbs nobody.
#pragma once

#include <memory>
#include <utility>

#include "absl/status/status.h"
#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/errors.h"
#include "server/kv/kv_machine.h"
#include "storage/status.h"

namespace kv::api {

// Owns itself until it has ended the stream.
template <typename Response>
class PageStream {
 public:
  // Makes the message of a page. All pages are read at `revision`; the last one alone has a header.
  using Shape = Response (*)(const Edge& edge, etcdserverpb::RangeResponse page, Revision revision,
                             bool last);

  static void Begin(Edge* edge, const Call& call, etcdserverpb::RangeRequest request, Shape shape,
                    Writer<Response>* writer) {
    const Edge::Consistency consistency = Edge::ConsistencyOf(request.serializable());
    auto stream = std::unique_ptr<PageStream>(
        new PageStream(edge, call.require_leader, std::move(request), shape, writer));
    edge->Read(call, consistency, [stream = std::move(stream)](absl::Status status) mutable {
      if (!status.ok()) {
        stream->writer_->Finish(std::move(status));
      } else {
        ReadPage(std::move(stream));
      }
    });
  }

 private:
  PageStream(Edge* edge, bool require_leader, etcdserverpb::RangeRequest request, Shape shape,
             Writer<Response>* writer)
      : edge_(edge),
        require_leader_(require_leader),
        request_(std::move(request)),
        shape_(shape),
        writer_(writer) {}

  static void ReadPage(std::unique_ptr<PageStream> self) {
    Edge* edge = self->edge_;
    Writer<Response>* writer = self->writer_;
    absl::Status posted = edge->ReadLater([self = std::move(self)]() mutable {
      PageStream* stream = self.get();
      absl::Status status = stream->SendPage(std::move(self));
      if (!status.ok()) stream->writer_->Finish(std::move(status));
    });
    if (!posted.ok()) writer->Finish(std::move(posted));
  }

  // Takes `self` only if it returns OK.
  absl::Status SendPage(std::unique_ptr<PageStream>&& self) {
    if (require_leader_ && edge_->LeaderLost()) return ToStatus(Error::kNoLeader);
    if (pages_ == nullptr) {
      ASSIGN_OR_RETURN(pages_, edge_->machine().OpenRange(std::move(request_),
                                                          edge_->options().request_bytes_max));
    }
    etcdserverpb::RangeResponse page;
    ASSIGN_OR_RETURN(const bool last, pages_->Next(page));
    Response response = shape_(*edge_, std::move(page), pages_->revision(), last);
    // The files that a page is read from are not kept for longer than the client needs them.
    if (last) pages_ = nullptr;
    Writer<Response>* writer = writer_;
    writer->Write(std::move(response), [last, self = std::move(self)](bool taken) mutable {
      if (last || !taken) {
        self->writer_->Finish(absl::OkStatus());
      } else {
        ReadPage(std::move(self));
      }
    });
    return absl::OkStatus();
  }

  Edge* const edge_;
  const bool require_leader_;
  etcdserverpb::RangeRequest request_;
  const Shape shape_;
  Writer<Response>* const writer_;
  std::unique_ptr<RangePages> pages_;
};

}  // namespace kv::api

// A range of any size, read page by page.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "client/client.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::kvctl {

// All pairs are as of one revision, in the order of their keys; memory holds one page of about
// 1 MiB, whatever the values are.
class Pages {
 public:
  // `client` outlives it. Of the request, a limit bounds all pages together (0: none); revision 0
  // is the newest when the first page is read.
  Pages(client::Client* client, etcdserverpb::RangeRequest request, client::CallOptions call);

  // The next pair, which holds until the next call; null: that was the last. The message of a
  // failure is for the user.
  absl::StatusOr<const mvccpb::KeyValue*> Next();

  // Known once Next has answered; 0 before.
  int64_t revision() const { return request_.revision(); }
  int64_t total() const { return total_; }  // Keys of the whole range, whatever the limit.

 private:
  absl::Status Turn();

  client::Client* const client_;
  etcdserverpb::RangeRequest request_;
  const client::CallOptions call_;
  etcdserverpb::RangeResponse page_;
  int at_ = 0;  // In the page.
  int64_t left_;
  int64_t page_keys_ = 100;
  int64_t total_ = 0;
  bool first_ = true;
  bool more_ = true;
};

}  // namespace kv::kvctl

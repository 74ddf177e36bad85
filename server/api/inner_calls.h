// What a member asks of itself: the lock and election services are made of the same requests that
// their clients could send.
//
// Whatever fails inside reaches the client with its own text and the code Unknown, as etcd's does.
// Thread-safe; never blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/kv_service.h"
#include "server/api/lease_service.h"
#include "storage/mvcc.h"

namespace kv::api {

class InnerCalls {
 public:
  InnerCalls(KvService* kv, LeaseService* lease) : kv_(kv), lease_(lease) {}

  void Range(const Call& call, etcdserverpb::RangeRequest request,
             Done<etcdserverpb::RangeResponse> done);
  void Txn(const Call& call, etcdserverpb::TxnRequest request,
           Done<etcdserverpb::TxnResponse> done);
  void Delete(const Call& call, etcdserverpb::DeleteRangeRequest request,
              Done<etcdserverpb::DeleteRangeResponse> done);
  // `lease`; where it is 0, a new one of 60 seconds that nobody renews.
  void WithLease(const Call& call, int64_t lease, Done<int64_t> done);

 private:
  KvService* const kv_;
  LeaseService* const lease_;
};

// The status with the code Unknown.
absl::Status Inner(const absl::Status& status);
absl::Status Inner(std::string_view text);

// The keys of one lock or election begin with its name and a slash.
std::string PrefixOf(const std::string& name);
std::string EndOf(std::string prefix);
// The oldest key under the prefix.
etcdserverpb::RangeRequest OldestUnder(const std::string& prefix);
// The newest key under the prefix that is older than `revision`.
etcdserverpb::RangeRequest NewestBefore(const std::string& prefix, Revision revision);
// On the condition that the key was created at `revision`; 0: that it is not there.
etcdserverpb::TxnRequest IfCreatedAt(const std::string& key, Revision revision);

}  // namespace kv::api

// The keys: etcdserverpb.KV as plain functions.
//
// A write is checked, put into the log as its client sent it, and answered with what the machine
// made of it. A read waits for what it must see and is answered from the machine: by the thread
// that is there already when it is one key's current value, by a reading thread otherwise.
#pragma once

#include "proto/etcd/rpc.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"

namespace kv::api {

class KvService {
 public:
  explicit KvService(Edge* edge) : edge_(edge) {}

  void Range(const Call& call, etcdserverpb::RangeRequest request,
             Done<Encoded<etcdserverpb::RangeResponse>> done);
  void Put(const Call& call, Received<etcdserverpb::PutRequest> request,
           Done<Encoded<etcdserverpb::PutResponse>> done);
  void DeleteRange(const Call& call, Received<etcdserverpb::DeleteRangeRequest> request,
                   Done<Encoded<etcdserverpb::DeleteRangeResponse>> done);
  void Txn(const Call& call, Received<etcdserverpb::TxnRequest> request,
           Done<Encoded<etcdserverpb::TxnResponse>> done);
  void Compact(const Call& call, Received<etcdserverpb::CompactionRequest> request,
               Done<Encoded<etcdserverpb::CompactionResponse>> done);
  void RangeStream(const Call& call, etcdserverpb::RangeRequest request,
                   Writer<etcdserverpb::RangeStreamResponse>* writer);

 private:
  void ReadTxn(const Call& call, etcdserverpb::TxnRequest request,
               Done<Encoded<etcdserverpb::TxnResponse>> done);
  void CountOps(const etcdserverpb::TxnRequest& request) const;

  Edge* const edge_;
};

}  // namespace kv::api

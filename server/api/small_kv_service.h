// The small API: kvd.v1.KV as plain functions. Each request is one of etcd's in other words, so
// that both APIs mean the same and every rule stands in one place.
#pragma once

#include "proto/kvd/v1/kv.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/kv_service.h"

namespace kv::api {

class SmallKvService {
 public:
  SmallKvService(Edge* edge, KvService* kv) : edge_(edge), kv_(kv) {}

  void Put(const Call& call, kvd::v1::PutRequest request, Done<kvd::v1::PutResponse> done);
  void Get(const Call& call, kvd::v1::GetRequest request, Done<kvd::v1::GetResponse> done);
  void Delete(const Call& call, kvd::v1::DeleteRequest request, Done<kvd::v1::DeleteResponse> done);
  void Scan(const Call& call, kvd::v1::ScanRequest request, Writer<kvd::v1::ScanResponse>* writer);

 private:
  Edge* const edge_;
  KvService* const kv_;
};

}  // namespace kv::api

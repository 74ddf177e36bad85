#include <grpcpp/grpcpp.h>

#include <cstdlib>
#include <iostream>

#include "proto/kvd/v1/kv.grpc.pb.h"

int main() {
  const auto credentials = grpc::InsecureChannelCredentials();
  const auto kv =
      kvd::v1::KV::NewStub(grpc::CreateChannel(std::getenv("KVD_ENDPOINT"), credentials));
  kvd::v1::PutRequest put;
  put.set_key("greeting");
  put.set_value("hello from C++");
  kvd::v1::PutResponse done;
  grpc::ClientContext putting;
  grpc::Status status = kv->Put(&putting, put, &done);
  kvd::v1::GetRequest get;
  get.set_key("greeting");
  kvd::v1::GetResponse got;
  grpc::ClientContext getting;
  if (status.ok()) status = kv->Get(&getting, get, &got);
  std::cout << (status.ok() ? got.pair().value() : status.error_message()) << "\n";
  return status.ok() ? 0 : 1;
}

import os

import grpc
from kvd.v1 import kv_pb2, kv_pb2_grpc

kv = kv_pb2_grpc.KVStub(grpc.insecure_channel(os.environ["KVD_ENDPOINT"]))
kv.Put(kv_pb2.PutRequest(key=b"greeting", value=b"hello from Python"))
print(kv.Get(kv_pb2.GetRequest(key=b"greeting")).pair.value.decode())

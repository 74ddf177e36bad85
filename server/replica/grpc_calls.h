// Calls by name over gRPC: one stream an address carries all of them, answered in any order.
//
// Nothing is sent before the callee has been heard, so a call that fails before it was sent
// certainly had no effect, and says so (Unavailable).
#pragma once

#include <grpcpp/channel.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "proto/internal/peer.grpc.pb.h"
#include "server/replica/peer_port.h"
#include "storage/mutex.h"

namespace kv {

// Our side's calls to one address.
class CallLink : public std::enable_shared_from_this<CallLink> {
 public:
  CallLink(PeerPort* port, std::string target);

  void Call(const std::string& method, std::string request, absl::Duration deadline,
            Network::CallDone done);
  // Fails what is over. True: something still waits.
  bool Sweep(absl::Duration now);
  // Fails everything, now and from here on.
  void Close();

 private:
  class Stream;
  struct Pending {
    uint64_t number = 0;
    absl::Duration deadline;
    std::string method;
    std::string request;
    Network::CallDone done;
  };

  void OnOpen(Stream* stream);
  void OnAnswer(kvd::internal::CallAnswer& answer);
  void OnWritten();
  void OnBroken(Stream* stream);
  void OnDone(Stream* stream, const std::string& why);
  void Pump();

  PeerPort* const port_;
  const std::string target_;

  Mutex mutex_;
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
  std::shared_ptr<grpc::Channel> channel_ ABSL_GUARDED_BY(mutex_);
  Stream* stream_ ABSL_GUARDED_BY(mutex_) = nullptr;
  bool open_ ABSL_GUARDED_BY(mutex_) = false;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  uint64_t next_number_ ABSL_GUARDED_BY(mutex_) = 1;
  std::deque<Pending> unsent_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, Pending> sent_ ABSL_GUARDED_BY(mutex_);

  kvd::internal::Call outgoing_;  // Belongs to the write under way.
};

// What others may call here.
class CallTable {
 public:
  explicit CallTable(PeerPort* port) : port_(port) {}

  void Handle(const std::string& method, Network::Serve serve);
  grpc::ServerBidiReactor<kvd::internal::Call, kvd::internal::CallAnswer>* Accept(
      grpc::CallbackServerContext* context);

 private:
  class Session;
  class Desk;

  std::shared_ptr<const Network::Serve> Find(const std::string& method);

  PeerPort* const port_;
  Mutex mutex_;
  std::map<std::string, std::shared_ptr<const Network::Serve>> serves_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kv

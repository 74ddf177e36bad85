// A member as a process: a Node, the peers' network, the edge for clients, the admin port, and the
// log lines that tell a person what happens.
//
// Ports open in this order: admin at once, peers when the data directory is ours, clients when the
// member is one. Stopping goes the other way round (server/README.md, "Stopping").
#pragma once

#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "server/config.h"

namespace kv {

class Server {
 public:
  // `ended` is called at most once, from any thread, when the process must end with a failure whose
  // sentence is logged already: a refusal to start, or a removal from the cluster. It must not
  // block. A disk that breaks its word does not call it: that ends the process at once.
  Server(Config config, std::function<void()> ended);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Returns once the admin port is open; the rest goes on by itself and ends in the log line
  // "ready to serve client requests".
  absl::Status Start();

  // Takes over what may change while it runs (Flag::reloads) and logs what did. Not during Stop.
  void Reload(const Config& now);

  // Waits as the settings say, until the others can spare this member or until it has been let go;
  // then answers what is in flight, hands leadership over, makes the log and its floor durable, and
  // calls `stopped`, from a thread of its own. In any state; once. The process may end at once
  // instead and loses nothing that was acknowledged.
  void Stop(std::function<void()> stopped);
  // After Stop: waits no longer for anybody. False: it waits for nobody any more.
  bool Hurry();

 private:
  class Running;
  std::unique_ptr<Running> running_;
};

}  // namespace kv

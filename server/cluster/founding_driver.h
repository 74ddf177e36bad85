// Carries a Founding out: asks over the network and outside, makes identities durable, answers.
//
// Everything runs on the node's loop, given at construction; nothing blocks but the sync of an
// identity. Once founded it only answers, for as long as the process lives, so that founders that
// missed the news learn it. Its owner calls Close, destroys the loop, and the driver then; calls
// that the network still brings are answered with "stopping".
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/time/time.h"
#include "server/cluster/founding.h"
#include "server/replica/caller.h"
#include "server/replica/door.h"
#include "server/replica/network.h"
#include "server/replica/runtime.h"

namespace rocksdb {
class Env;
}

namespace kv::cluster {

class FoundingDriver {
 public:
  struct Parts {
    Runtime* runtime = nullptr;
    Network* network = nullptr;
    Loop* loop = nullptr;  // The node's; outlives the driver's tasks.
    rocksdb::Env* env = nullptr;
    std::string identity_path;
    DesiredSource* desired = nullptr;  // Under discovery, unless slots are listed.
    MarkerStore* marker = nullptr;     // If the options say that there is one.
    std::function<void(std::string_view line)> log;
    std::function<void(std::string_view line)> warn;
    std::function<MemberId()> leader;  // A hint for Hello; 0: none known.
    // The removed disk is to become a blank one (Founding::Output::begin_anew); the driver does
    // nothing more.
    std::function<void()> begin_anew;
    // Called about once a second until the disk is a member: how it stands, and what is waited for.
    std::function<void(State state, const std::vector<std::string>& waits)> stands;
  };
  // OK: this disk is a member, as identity() says. Otherwise a sentence: the process must not go
  // on. Called once, on the loop; under discovery only when there is something good to say, or the
  // disk fails.
  using Done = absl::AnyInvocable<void(absl::Status) &&>;

  FoundingDriver(Parts parts, FoundingOptions options, Identity identity);
  ~FoundingDriver();
  FoundingDriver(const FoundingDriver&) = delete;
  FoundingDriver& operator=(const FoundingDriver&) = delete;

  // Answers peers from here on, and founds if the disk is not a member yet. On the loop.
  void Start(Done done);
  // No callback of the network reaches the loop after this. Any thread; before the loop goes.
  void Close();
  // Under discovery: a contradiction that its owner found. Before or after Start, on the loop.
  void Halt(std::string sentence);

  const Identity& identity() const { return founding_.identity(); }
  const std::optional<raft::Members>& joined() const { return founding_.joined(); }

 private:
  using Answer = Caller<absl::StatusOr<std::string>>;

  void Handle(const char* method, void (FoundingDriver::*serve)(std::string, Answer));
  void ServeHello(std::string request, Answer answer);
  void ServePrepare(std::string request, Answer answer);
  void ServeCommit(std::string request, Answer answer);
  void Tick();
  void Carry(Founding::Output output, Answer answer = {});
  void Send(Founding::Ask ask);
  void AskOutside(const Founding::Output& output);
  void Report();
  bool IsDone() const;
  void Finish(absl::Status status);

  const Parts parts_;
  const FoundingOptions options_;
  Founding founding_;
  Done done_;
  bool finished_ = false;
  bool reading_desired_ = false;
  bool reading_marker_ = false;
  uint64_t calls_ = 0;
  absl::Duration reported_;
  std::string said_;  // The contradiction that was said last.
  // What the network's callbacks hold: it closes before the loop goes.
  const std::shared_ptr<Door> door_;
};

}  // namespace kv::cluster

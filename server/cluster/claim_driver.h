// Carries a claim (claim.h) to the members that run, one after the other, until one of them
// answers.
//
// Lives on the node's loop. `done` is called once: with the grant, or with the sentence of a
// refusal that is final. Who cannot be reached, or cannot decide now, is asked again.
#pragma once

#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/cluster/claim.h"
#include "server/replica/door.h"
#include "server/replica/network.h"
#include "server/replica/runtime.h"

namespace kv::cluster {

class ClaimDriver {
 public:
  struct Parts {
    Runtime* runtime = nullptr;
    Network* network = nullptr;
    Loop* loop = nullptr;
    std::function<void(std::string_view line)> log;
  };
  using Done = absl::AnyInvocable<void(absl::StatusOr<ClaimAnswer>) &&>;

  // `urls`: where the others are.
  ClaimDriver(Parts parts, Claim claim, std::vector<std::string> urls);
  ~ClaimDriver();
  ClaimDriver(const ClaimDriver&) = delete;
  ClaimDriver& operator=(const ClaimDriver&) = delete;

  void Start(Done done);
  void Close();  // Nothing happens any more.

 private:
  void Ask();
  void AskLater();
  void OnAnswered(const std::string& url, absl::StatusOr<std::string> answer);
  void Report();

  const Parts parts_;
  const Claim claim_;
  const std::vector<std::string> urls_;
  const std::shared_ptr<Door> door_;
  Done done_;  // Null once it was called.
  size_t asked_ = 0;
  absl::Duration reported_;
  std::map<std::string, std::string> reasons_;  // Why there is no answer yet, by URL.
};

}  // namespace kv::cluster

// Compares what the members hold: the leader asks everybody for the hash of all keys at one
// revision and raises CORRUPT for whoever differs from the rest.
//
// A round begins a minute after the last one, or later when reading the whole state takes long: a
// check may cost a twentieth of a thread. Members that lag, or compacted elsewhere, are left out of
// a round. Public functions: any thread; what it does, it does on the work loop.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "server/kv/kv_machine.h"
#include "server/replica/door.h"
#include "server/replica/network.h"
#include "server/replica/replica.h"
#include "server/replica/runtime.h"
#include "storage/entry.h"

namespace kv {

inline constexpr char kStateHashCall[] = "state-hash";

// What one member answers.
struct StateHash {
  int64_t revision = 0;
  int64_t compacted = 0;
  uint32_t hash = 0;
  friend bool operator==(const StateHash&, const StateHash&) = default;
};

// Who differs from the most; in doubt, from the leader. Only answers for the same revision and the
// same compaction as the leader's are compared.
std::vector<MemberId> Differing(MemberId leader, const std::map<MemberId, StateHash>& answers);

class StateCheck {
 public:
  struct Parts {  // All outlive it.
    Runtime* runtime = nullptr;
    Network* network = nullptr;
    Replica* replica = nullptr;
    KvMachine* machine = nullptr;
    Loop* loop = nullptr;  // Where it decides.
    Loop* work = nullptr;  // Where it reads.
    std::function<void(std::string_view line)> log;
  };
  StateCheck(Parts parts, absl::Duration interval);
  ~StateCheck();
  StateCheck(const StateCheck&) = delete;
  StateCheck& operator=(const StateCheck&) = delete;

  void Start();

 private:
  struct Round {
    int64_t revision = 0;
    size_t awaited = 0;
    std::map<MemberId, StateHash> answers;
  };

  void Serve();
  void BeginLater(absl::Duration delay);
  void Begin();
  void AskOthers(const StateHash& own, absl::Duration took);
  void OnAnswered(const std::shared_ptr<Round>& round, MemberId member,
                  const absl::StatusOr<std::string>& answer);
  void Judge(const Round& round);
  void Raise(MemberId member);

  const Parts parts_;
  const absl::Duration interval_;
  const std::shared_ptr<Door> door_;
};

}  // namespace kv

#include "server/lease_parts.h"

#include <string>
#include <utility>

namespace kv {

LeaseKeeper::Parts LeaseParts(Runtime& runtime, const std::unique_ptr<KvMachine>& machine,
                              const std::unique_ptr<Replica>& replica) {
  LeaseKeeper::Parts parts;
  parts.runtime = &runtime;
  parts.leases = [&machine] { return machine->Leases(); };
  parts.find_lease = [&machine](int64_t id) { return machine->FindLease(id); };
  parts.lease_count = [&machine] { return machine->lease_count(); };
  parts.leadership = [&replica] {
    const bool leads = replica->leading();
    return LeaseKeeper::Leadership{.leads = leads, .term = replica->term()};
  };
  parts.propose = [&replica](std::string command, absl::Duration deadline, auto done) {
    replica->Propose(std::move(command), deadline, std::move(done));
  };
  parts.confirm = [&replica](absl::Duration deadline, auto done) {
    replica->Read(deadline, std::move(done));
  };
  parts.ask_leader = [&replica](std::string request, absl::Duration deadline, auto done) {
    replica->AskLeader(kLeaseCall, std::move(request), deadline, std::move(done));
  };
  return parts;
}

}  // namespace kv

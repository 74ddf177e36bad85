// One line of text for everything that passes the core's seam: for scripts, traces and failures.
#pragma once

#include <string>
#include <string_view>

#include "server/raft/core.h"

namespace kv::raft {

std::string Describe(const Position& position);  // 4@2
std::string Describe(const Entry& entry);        // 4@2 "x"   5@3 empty   6@3 members(...)
std::string Describe(const Members& members);    // voters=1,2,3 outgoing=1,2 learners=4 …
std::string Describe(const Message& message);    // append prev=3@2 entries=[4@2 "x"] commit=3
std::string Describe(const Envelope& envelope);  // 1->2 term=2 append …
std::string Describe(const Write& write);        // write #4 state={term=3 vote=2} entries=[…] …
std::string Describe(const Output& output);      // One line per thing asked; ends with a newline.
std::string Describe(const Standing& standing);  // leader term=3 leader=1 commit=4 members{…}
std::string Describe(const FollowerStatus& status);  // 2 replicate match=4 next=5 …

std::string_view Describe(Role role);
std::string_view Describe(ProposeRefusal refusal);
std::string_view Describe(ChangeRefusal refusal);
std::string_view Describe(TransferRefusal refusal);

}  // namespace kv::raft

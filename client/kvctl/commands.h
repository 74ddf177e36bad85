// The commands of kvctl, by group; one file each.
#pragma once

#include <vector>

#include "client/kvctl/arguments.h"

namespace kv::kvctl {

std::vector<Command> KvCommands();           // put get del compaction
Command TxnCommand();                        // txn
Command WatchCommand();                      // watch
Command LeaseCommand();                      // lease grant|revoke|timetolive|list|keep-alive
std::vector<Command> LockCommands();         // lock elect
Command EndpointCommand();                   // endpoint health|status|hashkv
Command MemberCommand();                     // member add|list|promote|remove|update
std::vector<Command> MaintenanceCommands();  // alarm defrag downgrade move-leader
std::vector<Command> BrowseCommands();       // tree diff edit
Command SnapshotCommand();                   // snapshot save|status|restore
Command StatusCommand();                     // status
Command TopCommand();                        // top
Command CheckCommand();                      // check perf|datascale|cluster
Command CheckClusterCommand();
Command MirrorCommand();                 // make-mirror
Command ImportCommand();                 // import
Command ExportCommand();                 // export
std::vector<Command> UtilityCommands();  // version completion options help

// Everything, below a root without a name.
const Command& Root();

}  // namespace kv::kvctl

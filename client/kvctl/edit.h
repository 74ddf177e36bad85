// A value in the editor, and back with compare-and-swap.
#pragma once

#include "client/kvctl/arguments.h"

namespace kv::kvctl {

int Edit(const Arguments& arguments);

}  // namespace kv::kvctl

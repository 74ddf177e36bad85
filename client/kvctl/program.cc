#include "client/kvctl/program.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

namespace kv::kvctl {
namespace {

constexpr int kSignalCode = 255;  // etcdctl's.

std::vector<char*> Pointers(std::vector<std::string>& strings) {
  std::vector<char*> pointers;
  for (std::string& each : strings) pointers.push_back(each.data());
  pointers.push_back(nullptr);
  return pointers;
}

}  // namespace

ProgramEnd RunProgram(std::vector<std::string> program, std::vector<std::string> variables) {
  for (char** entry = environ; *entry != nullptr; ++entry) variables.emplace_back(*entry);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  sigset_t none;
  sigemptyset(&none);
  posix_spawnattr_setsigmask(&attributes, &none);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
  pid_t child = 0;
  const int error = posix_spawnp(&child, program[0].c_str(), nullptr, &attributes,
                                 Pointers(program).data(), Pointers(variables).data());
  posix_spawnattr_destroy(&attributes);
  if (error != 0) return {.code = 1, .failure = strerror(error)};
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFSIGNALED(status)) {
    return {.code = kSignalCode, .failure = fmt::format("signal {}", WTERMSIG(status))};
  }
  const int code = WEXITSTATUS(status);
  return {.code = code, .failure = code == 0 ? "" : fmt::format("exit status {}", code)};
}

}  // namespace kv::kvctl

// kvd: flags, environment and file → Server → wait for a signal.
//
// Exit status: 0 after SIGTERM or SIGINT, 1 when it cannot start or go on, 2 for wrong settings
// (nothing on the disk was touched then).
#include <poll.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <thread>
#include <utility>

#include "server/config.h"
#include "server/server.h"
#include "storage/status.h"

// jemalloc's options: threads of its own give back what is not used, also when nobody allocates.
extern "C" const char* malloc_conf;
const char* malloc_conf = "background_thread:true";

namespace {

absl::StatusOr<std::string> ReadWholeFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (!in) return kv::MakeStatus(absl::StatusCode::kNotFound, "no such readable file");
  return text;
}

kv::ConfigSources Sources(int argc, char** argv) {
  kv::ConfigSources sources;
  sources.arguments.assign(argv + 1, argv + argc);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    const size_t equals = text.find('=');
    if (equals != std::string::npos) {
      sources.environment[text.substr(0, equals)] = text.substr(equals + 1);
    }
  }
  sources.read_file = ReadWholeFile;
  sources.processors = std::max(1U, std::thread::hardware_concurrency());
  std::array<char, HOST_NAME_MAX + 1> host_name{};
  if (gethostname(host_name.data(), host_name.size() - 1) == 0) {
    sources.host_name = host_name.data();
  }
  return sources;
}

// Blocked in every thread: they arrive through the descriptor, on the main thread.
int OpenSignals() {
  signal(SIGPIPE, SIG_IGN);
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  return signalfd(-1, &set, SFD_CLOEXEC);
}

// What other threads tell the main one, as bits of an eventfd.
constexpr uint64_t kEnded = 1;    // Cannot go on.
constexpr uint64_t kStopped = 2;  // Server::Stop is done.

constexpr int kReloadEvery = 10'000;  // Milliseconds.

// Reads the settings again for a server that runs. Wrong ones change nothing, and are told once.
class Reloader {
 public:
  Reloader(kv::ConfigSources sources, kv::Server* server)
      : sources_(std::move(sources)), server_(server) {}

  void Reload() {
    const absl::StatusOr<kv::CommandLine> line = kv::LoadConfig(sources_);
    if (line.ok()) {
      complaint_.clear();
      server_->Reload(line->config);
    } else if (complaint_ != kv::Message(line.status())) {
      complaint_ = kv::Message(line.status());
      spdlog::warn("the settings stay as they are: {}", complaint_);
    }
  }

 private:
  const kv::ConfigSources sources_;
  kv::Server* const server_;
  std::string complaint_;
};

int Run(kv::Config config, kv::ConfigSources sources) {
  const int signals = OpenSignals();
  const int events = eventfd(0, EFD_CLOEXEC);
  if (signals < 0 || events < 0) {
    std::perror("kvd: cannot wait for signals");
    return 1;
  }
  const auto tell = [events](uint64_t event) {
    return [events, event] { (void)!write(events, &event, sizeof event); };
  };
  const int patience = config.runtime_config_file.empty() ? -1 : kReloadEvery;
  kv::Server server(std::move(config), tell(kEnded));
  Reloader reloader(std::move(sources), &server);
  if (const absl::Status status = server.Start(); !status.ok()) {
    spdlog::critical("cannot start: {}", kv::Message(status));
    return 1;
  }
  int exit_status = 0;
  bool stopping = false;
  while (true) {
    std::array<pollfd, 2> ready = {{{signals, POLLIN, 0}, {events, POLLIN, 0}}};
    const int events_seen = poll(ready.data(), ready.size(), stopping ? -1 : patience);
    if (events_seen < 0) continue;
    if (events_seen == 0) {
      reloader.Reload();
      continue;
    }
    if (ready[0].revents != 0) {
      signalfd_siginfo info{};
      (void)!read(signals, &info, sizeof info);
      if (info.ssi_signo == SIGHUP) {
        if (!stopping) reloader.Reload();
        continue;
      }
      if (stopping && !server.Hurry()) {
        spdlog::warn("second signal: ending at once; what was acknowledged is durable");
        std::_Exit(exit_status);
      }
      if (!stopping) spdlog::info("stopping: signal={}", info.ssi_signo);
    }
    uint64_t told = 0;
    if (ready[1].revents != 0) (void)!read(events, &told, sizeof told);
    if ((told & kEnded) != 0) exit_status = 1;
    if ((told & kStopped) != 0) return exit_status;
    if (!stopping) {
      stopping = true;
      server.Stop(tell(kStopped));
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  kv::ConfigSources sources = Sources(argc, argv);
  absl::StatusOr<kv::CommandLine> line = kv::LoadConfig(sources);
  if (!line.ok()) {
    std::fprintf(stderr, "kvd: %s\n", std::string(kv::Message(line.status())).c_str());
    return 2;
  }
  if (line->print) {
    std::fputs(line->print->c_str(), stdout);
    return 0;
  }
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);  // What matters of it, we log ourselves.
  return Run(std::move(line->config), std::move(sources));
}

// kvsim: explores and replays simulated clusters.
//
//   kvsim --seed N           one run; a failure prints its timeline
//   kvsim --seeds A..B       all of them (inclusive), on both cores; non-zero if one fails
//   kvsim --shrink --seed N  looks for a smaller run that still fails, and prints its flags
//   kvsim --mutant NAME ...  with a known bug put back
//
// The last line is `seed N ok digest H` or `seed N FAILED ...` (with --seeds, a summary).
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "storage/check.h"
#include "storage/mark.h"
#include "tests/sim/run.h"

namespace kv::sim {
namespace {

constexpr int kFailed = 3;

struct Settings {
  Shrink shrink;
  bool timeline = false;  // Print it when the run fails,
  bool always = false;    // or in any case,
  bool wire = false;      // with every envelope.
  bool marks = false;     // Count the rare branches that an exploration reaches.
};

Swarm SwarmOf(uint64_t seed, const Shrink& shrink) {
  Swarm swarm = DrawSwarm(seed);
  if (shrink.voters > 0) swarm.cluster.voters = std::min(swarm.cluster.voters, shrink.voters);
  if (shrink.clients > 0) {
    swarm.workload.clients = std::min(swarm.workload.clients, shrink.clients);
  }
  if (shrink.faults_for > 0) swarm.faults_for = std::min(swarm.faults_for, shrink.faults_for);
  for (size_t fault = 0; fault < kFaults; ++fault) {
    if (shrink.without[fault]) swarm.weights[fault] = 0;
  }
  return swarm;
}

// As they are given on the command line.
std::string FlagsOf(const Shrink& shrink) {
  std::string flags;
  if (shrink.voters > 0) flags += fmt::format(" --voters {}", shrink.voters);
  if (shrink.clients > 0) flags += fmt::format(" --clients {}", shrink.clients);
  if (shrink.faults_for > 0) flags += fmt::format(" --faults-for {}", shrink.faults_for / kSecond);
  for (size_t fault = 0; fault < kFaults; ++fault) {
    if (!shrink.without[fault]) continue;
    flags += fmt::format(" --without {}", NameOf(static_cast<Fault>(fault)));
  }
  return flags;
}

std::string CommitHere() {
  std::ifstream file(KVD_COMMIT_FILE);
  std::string commit;
  file >> commit;
  return commit.empty() ? "unknown" : commit;
}

// Runs in this process and does not return when it fails.
Verdict RunHere(uint64_t seed, const Settings& settings) {
  Swarm swarm = SwarmOf(seed, settings.shrink);
  swarm.cluster.trace = settings.timeline;
  swarm.cluster.trace_wire = settings.wire;
  auto run = std::make_unique<Run>(swarm);
  TheCheckHook() = [seed, &settings, cluster = &run->cluster()](std::string_view failure) {
    if (settings.timeline) std::fputs(cluster->Timeline().c_str(), stdout);
    fmt::print("seed {} FAILED commit {} at {} ms: {}\n", seed, CommitHere(),
               cluster->scheduler().now() / kMillisecond, failure);
    std::fflush(stdout);
    _exit(kFailed);
  };
  const Verdict verdict = run->Judge();
  if (settings.always) std::fputs(run->cluster().Timeline().c_str(), stdout);
  run.reset();
  TheCheckHook() = nullptr;
  return verdict;
}

// How often each mark was hit, by all workers together. A table that does not allocate: it lies in
// memory that processes share.
class SharedMarks {
 public:
  void Hit(std::string_view name) {
    const size_t hash = std::hash<std::string_view>()(name);
    for (size_t i = 0; i < kPlaces; ++i) {
      Place& place = places_[(hash + i) % kPlaces];
      if (!place.taken.test() && !place.taken.test_and_set()) {
        name.copy(place.name, kNameMax - 1);
        place.named.store(true);
      }
      while (!place.named.load()) {
      }
      if (name != place.name) continue;
      place.hits.fetch_add(1, std::memory_order_relaxed);
      return;
    }
  }
  void Print() const {
    std::map<std::string, uint64_t> sorted;
    for (const Place& place : places_) {
      if (place.named.load()) sorted[place.name] = place.hits.load();
    }
    for (const auto& [name, hits] : sorted) fmt::print("mark {} {}\n", name, hits);
  }

 private:
  static constexpr size_t kPlaces = 512;
  static constexpr size_t kNameMax = 80;
  struct Place {
    std::atomic_flag taken;
    std::atomic<bool> named;
    std::atomic<uint64_t> hits;
    char name[kNameMax];
  };
  Place places_[kPlaces];
};

// What the workers of an exploration share.
struct Board {
  SharedMarks marks;
  std::atomic<uint64_t> next;
  std::atomic<uint64_t> failed;
  std::atomic<uint64_t> done;
  std::atomic<uint64_t> virtual_ms;
  std::atomic<uint64_t> operations;
  std::atomic<uint64_t> events;
  std::atomic<uint64_t> faults;
  std::atomic<uint64_t> digest;
};

void Work(const std::vector<uint64_t>& seeds, Board& board, const Settings& settings) {
  if (settings.marks) {
    TheMarkHook() = [&board](std::string_view name) { board.marks.Hit(name); };
  }
  for (;;) {
    const uint64_t at = board.next.fetch_add(1);
    if (at >= seeds.size()) return;
    const Verdict verdict = RunHere(seeds[at], settings);
    board.done.fetch_add(1);
    board.virtual_ms.fetch_add(static_cast<uint64_t>(verdict.virtual_time / kMillisecond));
    board.operations.fetch_add(verdict.operations);
    board.events.fetch_add(verdict.events);
    board.faults.fetch_add(verdict.faults);
    // In no order, so that it does not matter who ran what.
    board.digest.fetch_add(verdict.digest * (2 * seeds[at] + 1));
  }
}

// A worker that meets a failure ends with it and another goes on behind it.
int Explore(const std::vector<uint64_t>& seeds, unsigned workers, uint64_t failures_max,
            const Settings& settings) {
  void* shared =
      mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  KV_CHECK(shared != MAP_FAILED);
  auto* board = new (shared) Board();
  const auto begun = std::chrono::steady_clock::now();
  unsigned running = 0;
  while (running > 0 || board->next < seeds.size()) {
    while (running < workers && board->next < seeds.size() && board->failed < failures_max) {
      std::fflush(nullptr);
      const pid_t child = fork();
      if (child == 0) {
        Work(seeds, *board, settings);
        _exit(0);
      }
      KV_CHECK(child > 0);
      ++running;
    }
    if (running == 0) break;
    int status = 0;
    KV_CHECK(wait(&status) > 0);
    --running;
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      board->failed.fetch_add(1);
      if (!WIFEXITED(status) || WEXITSTATUS(status) != kFailed) {
        fmt::print("a worker died of signal {} at or before seed number {}\n",
                   WIFSIGNALED(status) ? WTERMSIG(status) : 0, board->next.load());
      }
    }
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  const double hours = static_cast<double>(board->virtual_ms) / 3'600'000;
  fmt::print(
      "{} seeds, {} failed, {} operations, {} faults, {} events, {:.2f} cluster-hours in "
      "{:.1f} s: {:.2f} a minute; digest {:016x}\n",
      board->done.load(), board->failed.load(), board->operations.load(), board->faults.load(),
      board->events.load(), hours, seconds, hours / (seconds / 60), board->digest.load());
  if (settings.marks) board->marks.Print();
  return board->failed == 0 ? 0 : 1;
}

// Whether a run fails, tried in a process of its own, in silence.
bool Fails(uint64_t seed, const Settings& settings) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(kFailed);
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(kFailed);
    RunHere(seed, settings);
    _exit(0);
  }
  int status = 0;
  KV_CHECK(child > 0 && waitpid(child, &status, 0) == child);
  return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

Shrink FindSmaller(uint64_t seed, Settings settings) {
  const auto keep_if_it_fails = [&](const std::function<void(Shrink&)>& change) {
    Settings smaller = settings;
    change(smaller.shrink);
    if (Fails(seed, smaller)) settings = smaller;
  };
  const Swarm drawn = DrawSwarm(seed);
  for (size_t fault = 0; fault < kFaults; ++fault) {
    if (drawn.weights[fault] == 0) continue;
    keep_if_it_fails([fault](Shrink& shrink) { shrink.without[fault] = true; });
  }
  for (const int voters : {1, 2, 3, 5}) {
    keep_if_it_fails([voters](Shrink& shrink) {
      if (shrink.voters == 0) shrink.voters = voters;
    });
  }
  for (const uint64_t clients : {uint64_t{1}, uint64_t{2}, uint64_t{4}}) {
    keep_if_it_fails([clients](Shrink& shrink) {
      if (shrink.clients == 0) shrink.clients = clients;
    });
  }
  for (const Time span : {kSecond, 2 * kSecond, 4 * kSecond, 8 * kSecond}) {
    keep_if_it_fails([span](Shrink& shrink) {
      if (shrink.faults_for == 0) shrink.faults_for = span;
    });
  }
  return settings.shrink;
}

// The speed that reliability asks for: 5 members, 100 operations a virtual second, nothing fails.
int Bench() {
  Swarm swarm;
  swarm.cluster.voters = 5;
  swarm.cluster.thorough = UINT64_MAX;  // The cheap invariants, which are judged after every event.
  for (Delay& delay : swarm.cluster.delays) delay.at_once_permille = 1000;
  swarm.cluster.raft.max_log_bytes = uint64_t{1} << 20;
  swarm.cluster.flush_log_bytes = size_t{256} << 10;
  swarm.workload.clients = 10;
  swarm.workload.think = {.least = 90 * kMillisecond, .spread = 10 * kMillisecond};
  swarm.workload.serializable_permille = 0;
  swarm.between_faults = {.least = 1'000'000 * kSecond, .spread = 0};
  swarm.faults_for = 600 * kSecond;
  // The processor's time: what else the machine does says nothing of us.
  const std::clock_t begun = std::clock();
  Run run(swarm);
  const Verdict verdict = run.Judge();
  const double seconds = static_cast<double>(std::clock() - begun) / CLOCKS_PER_SEC;
  const double virtual_seconds = static_cast<double>(verdict.virtual_time) / kSecond;
  fmt::print(
      "5 members, {:.0f} operations and {:.0f} events a virtual second: {:.2f} cluster-hours a "
      "minute of one core, {:.2f} us an event\n",
      static_cast<double>(verdict.operations) / 600,
      static_cast<double>(verdict.events) / virtual_seconds, virtual_seconds / seconds / 60,
      seconds * 1e6 / static_cast<double>(verdict.events));
  return 0;
}

int Main(int argc, char** argv) {
  CLI::App app("Explores and replays simulated clusters.");
  std::optional<uint64_t> seed;
  std::string seeds;
  std::string list;
  std::string mutant;
  bool shrink = false;
  bool bench = false;
  unsigned workers = std::max(1U, std::thread::hardware_concurrency());
  uint64_t failures_max = UINT64_MAX;
  Time faults_for_seconds = 0;
  std::vector<std::string> without;
  Settings settings;
  app.add_option("--seed", seed, "replay one run");
  app.add_option("--seeds", seeds, "explore A..B, inclusive");
  app.add_option("--list", list, "explore the seeds in a file, one a line");
  app.add_option("--mutant", mutant, "put a known bug back");
  app.add_option("--workers", workers, "processes at a time");
  app.add_option("--failures", failures_max, "stop after so many");
  app.add_option("--voters", settings.shrink.voters, "at most so many, whatever the seed draws");
  app.add_option("--clients", settings.shrink.clients, "at most so many");
  app.add_option("--faults-for", faults_for_seconds, "at most so many virtual seconds of faults");
  app.add_option("--without", without, "none of this kind of fault (may be repeated)");
  app.add_flag("--bench", bench, "measure the speed of a calm cluster");
  app.add_flag("--marks", settings.marks, "print how often each rare branch was reached");
  app.add_flag("--shrink", shrink, "look for a smaller run that fails");
  app.add_flag("--trace", settings.always, "print the timeline, also of a run that does not fail");
  app.add_flag("--wire", settings.wire, "with every envelope in it");
  CLI11_PARSE(app, argc, argv);
  if (!mutant.empty()) TheMutant() = mutant;
  settings.shrink.faults_for = faults_for_seconds * kSecond;
  for (const std::string& name : without) {
    const std::optional<Fault> fault = FaultNamed(name);
    if (!fault) {
      fmt::print("--without knows no fault {}\n", name);
      return 2;
    }
    settings.shrink.without[static_cast<size_t>(*fault)] = true;
  }

  if (bench) return Bench();
  if (!seeds.empty() || !list.empty()) {
    std::vector<uint64_t> all;
    if (!list.empty()) {
      std::ifstream file(list);
      for (std::string line; std::getline(file, line);) {
        if (!line.empty() && line[0] != '#') all.push_back(std::stoull(line));
      }
    } else {
      const size_t dots = seeds.find("..");
      if (dots == std::string::npos) {
        fmt::print("--seeds takes A..B, not {}\n", seeds);
        return 2;
      }
      const uint64_t first = std::stoull(seeds.substr(0, dots));
      const uint64_t last = std::stoull(seeds.substr(dots + 2));
      for (uint64_t each = first; each <= last; ++each) all.push_back(each);
    }
    return Explore(all, workers, failures_max, settings);
  }
  if (!seed) {
    fmt::print("kvsim wants --seed N or --seeds A..B\n");
    return 2;
  }
  if (shrink) {
    if (!Fails(*seed, settings)) {
      fmt::print("seed {} does not fail\n", *seed);
      return 2;
    }
    settings.shrink = FindSmaller(*seed, settings);
    fmt::print("fails with: kvsim --seed {}{}\n", *seed, FlagsOf(settings.shrink));
  }
  settings.timeline = true;
  const Verdict verdict = RunHere(*seed, settings);
  fmt::print("seed {} ok digest {:016x}\n", *seed, verdict.digest);
  return 0;
}

}  // namespace
}  // namespace kv::sim

int main(int argc, char** argv) { return kv::sim::Main(argc, argv); }

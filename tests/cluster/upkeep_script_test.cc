// The vocabulary of tests/cluster/upkeep: what a leader does about members by itself.
//
//   options [prefix=kvd] [max-voters=N] [max-catching-up=N] [standby]   first, or the defaults
//   voters DISK…, learners DISK…   who is a member already
//   added DISK…                    learners that a person added
//   crash DISK…, start DISK…, lag DISK…, caught-up DISK…
//   cut DISK…                      the leader does not hear them any more
//   deaf DISK…                     nobody reaches them by their address any more
//   count N                        what the platform wants; or unknown, denied, ending, nobody
//   join DISK… [token=T] [version=N]   blank disks ask once; kvd-1' is another disk of slot kvd-1
//   leave DISK…                    they say that they want to
//   permit DISK… [unknown] [linger]    they ask whether they may stop, and stop if they may
//   run N [leaving DISK…]          N seconds, in each of which those repeat their wish
//   why DISK                       why one that wants to leave is still there
//   members
#include <fmt/format.h>

#include <catch2/catch_test_macros.hpp>
#include <optional>

#include "tests/cluster/upkeep_world.h"
#include "tests/script.h"

namespace kv::cluster {
namespace {

class Vocabulary {
 public:
  std::string Run(const ScriptBlock& block) {
    const ScriptLine line = block.Command();
    std::string out = Do(line);
    for (const std::string& event : world().TakeEvents()) out += event + "\n";
    if (!world().broken().empty()) out += "BROKEN: " + world().broken() + "\n";
    return out.empty() ? "ok\n" : out;
  }

 private:
  UpkeepWorld& world() {
    if (!world_) world_.emplace(UpkeepOptions{.slot_prefix = "kvd"});
    return *world_;
  }

  std::string Do(const ScriptLine& line) {
    if (line.command == "options") return Options(line);
    if (line.command == "count") return Count(line.args.at(0));
    if (line.command == "join") return Join(line);
    if (line.command == "permit") return Permit(line);
    if (line.command == "run") return RunFor(line);
    if (line.command == "why") return world().WhyStillHere(line.args.at(0)) + "\n";
    if (line.command == "members") return world().Describe();
    for (const std::string& disk : line.args) {
      if (line.command == "voters") {
        world().Add(disk, true, true);
      } else if (line.command == "learners") {
        world().Add(disk, false, true);
      } else if (line.command == "added") {
        world().Add(disk, false, false);
      } else if (line.command == "crash") {
        world().Crash(disk);
      } else if (line.command == "start") {
        world().Start(disk);
      } else if (line.command == "lag" || line.command == "caught-up") {
        world().SetLag(disk, line.command == "lag");
      } else if (line.command == "cut") {
        world().disks().at(disk).cut = true;
      } else if (line.command == "deaf") {
        world().disks().at(disk).deaf = true;
      } else if (line.command == "leave") {
        world().Leave(disk);
      } else {
        return "unknown command: " + line.command + "\n";
      }
    }
    return "";
  }

  std::string Options(const ScriptLine& line) {
    UpkeepOptions options;
    options.slot_prefix = line.Get("prefix", "kvd");
    options.max_voters = std::stoul(line.Get("max-voters", "7"));
    options.max_catching_up = std::stoul(line.Get("max-catching-up", "2"));
    options.standby_learners = line.Has("standby");
    world_.emplace(options);
    return "";
  }

  std::string Count(const std::string& word) {
    if (word == "nobody") {
      world().CountNobody();
    } else if (word == "unknown") {
      world().Answer(DesiredCount::Kind::kUnknown);
    } else if (word == "denied") {
      world().Answer(DesiredCount::Kind::kDenied);
    } else if (word == "ending") {
      world().Answer(DesiredCount::Kind::kEnding);
    } else {
      world().Answer(DesiredCount::Kind::kCount);
      world().Want(std::stoul(word));
    }
    return "";
  }

  std::string Join(const ScriptLine& line) {
    std::string out;
    for (const std::string& disk : line.args) {
      const JoinDecision decision =
          world().Join(disk, line.Get("token", "token"),
                       static_cast<uint32_t>(std::stoul(line.Get("version", "3"))));
      if (decision.kind == JoinAnswer::Kind::kGranted) {
        if (!decision.change) out += disk + ": granted again\n";
        continue;
      }
      out += fmt::format("{}: {}: {}\n", disk,
                         decision.kind == JoinAnswer::Kind::kRetry ? "not now" : "refused",
                         decision.sentence);
    }
    return out;
  }

  std::string Permit(const ScriptLine& line) {
    std::string out;
    for (const std::string& disk : line.args) {
      if (disk == "unknown" || disk == "linger") continue;
      const Permits::Decision decision = world().AskPermit(
          disk, line.Has("unknown") ? PermitReason::kUnknown : PermitReason::kRestart);
      const bool granted = decision.verdict != Permits::Verdict::kWait;
      out += fmt::format("{}: {}\n", disk, granted ? "granted" : decision.sentence);
      if (granted && !line.Has("linger")) world().Crash(disk);
    }
    return out;
  }

  std::string RunFor(const ScriptLine& line) {
    for (int i = std::stoi(line.args.at(0)); i > 0; --i) {
      for (size_t disk = 2; disk < line.args.size(); ++disk) world().Leave(line.args[disk]);
      world().Tick();
    }
    return "";
  }

  std::optional<UpkeepWorld> world_;
};

TEST_CASE("a leader looks after its members as the scripts say") {
  const std::vector<std::string> scripts = ListScripts("tests/cluster/upkeep");
  REQUIRE(scripts.size() >= 10);
  for (const std::string& script : scripts) {
    Vocabulary vocabulary;
    const auto run = [&vocabulary](const ScriptBlock& block) { return vocabulary.Run(block); };
    for (const std::string& difference : RunScript(script, run)) {
      UNSCOPED_INFO(difference);
      CHECK(difference.empty());
    }
  }
}

}  // namespace
}  // namespace kv::cluster

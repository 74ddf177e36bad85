// The vocabulary of tests/cluster/scripts: bare foundings and the packets between them.
//
//   start NAME… [list=a,b,c] [token=T]   starts processes (list defaults to the last one given)
//     join=a,b,c | slots                 under discovery: by a list in its order, or by kvd-0,
//     kvd-1, … [marker] [alone] [reinitialize] [founders=3]
//                                        a name with a prime (a') is a twin: another disk of that
//                                        name
//   desired N | unknown | denied | ending
//   marker none | down | up              a person sets it, it cannot be reached, it can
//   serves                               who may acknowledge a write
//   stop NAME…                           ends them; what they had in flight stays in flight
//   wipe NAME…                           a stopped process gets a blank disk
//   crash-after NAME N                   NAME dies after N more effects (writes, answers, requests)
//   cut A B, heal
//   tick NAME…                           one round each
//   run N                                N times: everyone ticks, everything is delivered
//   deliver [WORDS…]                     the packets that name all words, until there are none left
//   lose [WORDS…], double [WORDS…]
//   packets                              what is in flight
//   disks                                what the disks say
//   missing NAME                         whom NAME waits for
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <set>

#include "tests/cluster/founding_cluster.h"
#include "tests/script.h"

namespace kv::cluster {
namespace {

class Vocabulary {
 public:
  std::string Run(const ScriptBlock& block) {
    const ScriptLine line = block.Command();
    std::string out = Do(line);
    for (const std::string& event : cluster_.TakeEvents()) out += Shorten(event) + "\n";
    if (!cluster_.broken().empty()) out += "BROKEN: " + cluster_.broken() + "\n";
    return out.empty() ? "ok\n" : out;
  }

 private:
  std::string Do(const ScriptLine& line) {
    if (line.command == "start") return Start(line);
    if (line.command == "crash-after") {
      cluster_.CrashAfter(line.args.at(0), std::stoi(line.args.at(1)));
      return "";
    }
    if (line.command == "stop") {
      for (const std::string& name : line.args) cluster_.Crash(name);
      return "";
    }
    if (line.command == "wipe") {
      for (const std::string& name : line.args) cluster_.Wipe(name);
      return "";
    }
    if (line.command == "cut") {
      cluster_.Cut(line.args.at(0), line.args.at(1));
      return "";
    }
    if (line.command == "heal") {
      cluster_.Heal();
      return "";
    }
    if (line.command == "tick") {
      for (const std::string& name : line.args) cluster_.Tick(name);
      return "";
    }
    if (line.command == "run") return RunRounds(std::stoi(line.args.at(0)));
    if (line.command == "deliver") {
      while (const std::optional<size_t> at = Find(line.args)) cluster_.Deliver(*at);
      return "";
    }
    if (line.command == "lose") {
      while (const std::optional<size_t> at = Find(line.args)) cluster_.Drop(*at);
      return "";
    }
    if (line.command == "double") {
      const std::optional<size_t> at = Find(line.args);
      if (!at) return "no such packet\n";
      cluster_.Double(*at);
      return "";
    }
    if (line.command == "packets") return Packets();
    if (line.command == "disks") return Disks();
    if (line.command == "missing") return Missing(line.args.at(0));
    if (line.command == "desired") return SetDesired(line.args.at(0));
    if (line.command == "marker") return SetMarker(line.args.at(0));
    if (line.command == "serves") return Serves();
    return "unknown command: " + line.command + "\n";
  }

  using Flags = FoundingCluster::Flags;

  // Settings are those of the last start, unless some are given.
  std::string Start(const ScriptLine& line) {
    const std::set<std::string> words(line.args.begin(), line.args.end());
    const auto has = [&words](const char* word) { return words.contains(word); };
    const std::string list = line.Get("list", "");
    const std::string join = line.Get("join", "");
    if (!list.empty() || !join.empty() || has("slots")) {
      flags_ = Flags{.list = Split(list + join)};
      flags_.mode = has("slots")   ? Flags::Mode::kCounted
                    : join.empty() ? Flags::Mode::kList
                                   : Flags::Mode::kJoin;
      flags_.founders_max = std::stoul(line.Get("founders", "3"));
      flags_.marker = has("marker");
      flags_.reinitialize = has("reinitialize");
    }
    flags_.token = line.Get("token", "token");
    flags_.alone = has("alone");
    for (const std::string& name : line.args) {
      if (kSettings.contains(name)) continue;
      cluster_.Start(name, flags_);
      names_.insert(name);
    }
    return "";
  }

  static std::vector<std::string> Split(const std::string& list) {
    std::vector<std::string> parts;
    for (size_t begin = 0; begin <= list.size();) {
      const size_t end = std::min(list.find(',', begin), list.size());
      parts.push_back(list.substr(begin, end - begin));
      begin = end + 1;
    }
    return parts;
  }

  std::string SetDesired(const std::string& what) {
    DesiredCount desired;
    if (what == "unknown") {
      desired.reason = "it does not answer";
    } else if (what == "denied") {
      desired.kind = DesiredCount::Kind::kDenied;
      desired.reason = "forbidden";
    } else if (what == "ending") {
      desired.kind = DesiredCount::Kind::kEnding;
    } else {
      desired.kind = DesiredCount::Kind::kCount;
      desired.count = std::stoull(what);
    }
    cluster_.SetDesired(desired);
    return "";
  }

  std::string SetMarker(const std::string& what) {
    if (what == "none") cluster_.SetMarker(Marker());
    if (what == "down") cluster_.SetMarker(std::nullopt);
    if (what == "up") cluster_.MarkerUp();
    return "";
  }

  std::string Serves() {
    std::string out;
    for (const std::string& name : names_) {
      if (cluster_.Serves(name)) out += name + "\n";
    }
    return out.empty() ? "nobody\n" : out;
  }

  std::string RunRounds(int rounds) {
    for (int round = 0; round < rounds; ++round) {
      for (const std::string& name : names_) cluster_.Tick(name);
      while (!cluster_.packets().empty()) cluster_.Deliver(0);
    }
    return "";
  }

  std::optional<size_t> Find(const std::vector<std::string>& words) {
    for (size_t i = 0; i < cluster_.packets().size(); ++i) {
      const std::string text = " " + cluster_.DescribePacket(cluster_.packets()[i]) + " ";
      if (std::ranges::all_of(words, [&text](const std::string& word) {
            return text.find(" " + word + " ") != std::string::npos;
          })) {
        return i;
      }
    }
    return std::nullopt;
  }

  std::string Packets() {
    std::string out;
    for (const FoundingCluster::Packet& packet : cluster_.packets()) {
      out += cluster_.DescribePacket(packet) + "\n";
    }
    return out.empty() ? "none\n" : out;
  }

  std::string Disks() {
    std::string out;
    for (const auto& [name, disk] : cluster_.disks()) {
      const Identity& identity = disk.identity;
      out += fmt::format("{}: {}", name, ToString(identity.state));
      if (identity.record) out += " " + cluster_.NameOf(identity.record->cluster_id);
      out += "\n";
    }
    return out.empty() ? "none\n" : out;
  }

  std::string Missing(const std::string& name) {
    if (!cluster_.Runs(name)) return name + " does not run\n";
    std::string out;
    for (const std::string& line : cluster_.process(name)->Missing()) out += Shorten(line) + "\n";
    return out.empty() ? "nobody\n" : out;
  }

  // Random ids become F1, M (a member) and D (a disk), so that texts can be compared.
  std::string Shorten(const std::string& text) {
    std::string out;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find_first_of(" \",;:", begin), text.size());
      const std::string word = text.substr(begin, end - begin);
      const bool hex =
          word.size() >= 12 && word.find_first_not_of("0123456789abcdef") == std::string::npos;
      if (!hex) {
        out += word;
      } else if (word.size() == 32) {
        out += "D";
      } else {
        const uint64_t id = std::stoull(word, nullptr, 16);
        out += IsMember(id) ? "M" : cluster_.NameOf(id);
      }
      if (end < text.size()) out += text[end];
      begin = end + 1;
    }
    return out;
  }

  bool IsMember(uint64_t id) const {
    return std::ranges::any_of(cluster_.disks(), [id](const auto& entry) {
      const std::optional<FoundingRecord>& record = entry.second.identity.record;
      return record &&
             std::ranges::find(record->founders, id, &Founder::member_id) != record->founders.end();
    });
  }

  FoundingCluster cluster_{1};
  std::set<std::string> names_;
  static inline const std::set<std::string> kSettings = {"slots", "marker", "alone",
                                                         "reinitialize"};
  Flags flags_{.list = {"a", "b", "c"}};
};

TEST_CASE("founding does what the scripts say") {
  const std::vector<std::string> scripts = ListScripts("tests/cluster/scripts");
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

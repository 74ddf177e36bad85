// The raft vocabulary of the text scripts in tests/raft/scripts: bare cores moved by hand. What
// comes out is what passes the seam, as server/raft/describe.h prints it. The commands are listed
// in tests/raft/scripts/README.md.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <functional>
#include <sstream>
#include <utility>

#include "server/raft/describe.h"
#include "storage/check.h"
#include "tests/raft/bare_cluster.h"
#include "tests/script.h"

namespace kv::raft {
namespace {

uint64_t Number(std::string_view text) {
  if (text == "max") return ~uint64_t{0};
  return std::strtoull(std::string(text).c_str(), nullptr, 10);
}

std::vector<uint64_t> Numbers(std::string_view text) {
  std::vector<uint64_t> numbers;
  std::string word;
  std::istringstream in{std::string(text)};
  while (std::getline(in, word, ',')) numbers.push_back(Number(word));
  return numbers;
}

// 4@2
Position PositionOf(std::string_view text) {
  const size_t at = text.find('@');
  if (at == std::string_view::npos) return {.index = Number(text), .term = 0};
  return {.index = Number(text.substr(0, at)), .term = Number(text.substr(at + 1))};
}

// 4@2,5@2 or 4@2=x,5@2
std::vector<EntryPtr> EntriesOf(std::string_view text) {
  std::vector<EntryPtr> entries;
  std::string word;
  std::istringstream in{std::string(text)};
  while (std::getline(in, word, ',')) {
    const size_t equals = word.find('=');
    const Position at = PositionOf(std::string_view(word).substr(0, equals));
    const std::string data = equals == std::string::npos ? "x" : word.substr(equals + 1);
    entries.push_back(MakeEntry(at.index, at.term, EntryKind::kCommand, data));
  }
  return entries;
}

Message MessageOf(const ScriptLine& line, const std::string& kind) {
  const auto number = [&line](std::string_view key) { return Number(line.Get(key, "0")); };
  const auto position = [&line](std::string_view key) { return PositionOf(line.Get(key, "0@0")); };
  const Vote vote = line.Has("granted") ? Vote::kGranted : Vote::kDenied;
  const Flow flow = line.Has("hold") ? Flow::kHold : Flow::kOpen;
  if (kind == "pre-vote-request") {
    return PreVoteRequest{.proposed = number("proposed"), .last = position("last")};
  }
  if (kind == "pre-vote-reply") return PreVoteReply{.proposed = number("proposed"), .vote = vote};
  if (kind == "vote-request") {
    return VoteRequest{.last = position("last"),
                       .cause = line.Has("transfer") ? Cause::kTransfer : Cause::kTimeout};
  }
  if (kind == "vote-reply") return VoteReply{.vote = vote};
  if (kind == "append") {
    return Append{.prev = position("prev"),
                  .entries = EntriesOf(line.Get("entries", "")),
                  .commit = number("commit")};
  }
  if (kind == "append-reply" && line.Find("match")) {
    return AppendReply{.verdict = Accepted{.match = number("match")}, .flow = flow};
  }
  if (kind == "append-reply") {
    return AppendReply{.verdict = Rejected{.prev = number("rejected"), .hint = position("hint")},
                       .flow = flow};
  }
  if (kind == "heartbeat") return Heartbeat{.commit = number("commit"), .round = number("round")};
  if (kind == "heartbeat-reply") return HeartbeatReply{.round = number("round"), .flow = flow};
  if (kind == "snapshot-offer") {
    Members members;
    members.voters = Numbers(line.Get("voters", ""));
    members.outgoing = Numbers(line.Get("outgoing", ""));
    members.learners = Numbers(line.Get("learners", ""));
    return SnapshotOffer{.at = position("at"), .members = Encode(members)};
  }
  if (kind == "timeout-now") return TimeoutNow{};
  if (kind == "read-request") return ReadRequest{.number = number("number")};
  if (kind == "read-reply") return ReadReply{.number = number("number"), .index = number("index")};
  return Removed{};
}

class Vocabulary {
 public:
  std::string Run(const ScriptBlock& block) {
    std::string out;
    for (const std::string& text : block.input) {
      where_ = block.file + ":" + std::to_string(block.line) + ": " + text;
      out += RunLine(text);
    }
    return out.empty() ? "ok\n" : out;
  }
  const std::string& where() const { return where_; }

 private:
  using Command = void (Vocabulary::*)(const ScriptLine&);
  static const std::map<std::string_view, Command>& Commands() {
    static const std::map<std::string_view, Command> commands = {
        {"options", &Vocabulary::SetOptions},
        {"members", &Vocabulary::Members_},
        {"member", &Vocabulary::Member},
        {"blank", &Vocabulary::Blank},
        {"tick", &Vocabulary::Tick},
        {"campaign", &Vocabulary::Campaign},
        {"elect", &Vocabulary::Elect},
        {"propose", &Vocabulary::Propose},
        {"change", &Vocabulary::Change},
        {"transfer", &Vocabulary::Transfer},
        {"read", &Vocabulary::Read},
        {"unreachable", &Vocabulary::Unreachable},
        {"deliver", &Vocabulary::Deliver},
        {"drop", &Vocabulary::Drop},
        {"copy", &Vocabulary::Copy},
        {"inject", &Vocabulary::Inject},
        {"settle", &Vocabulary::Settle},
        {"persist", &Vocabulary::Persist},
        {"adopt", &Vocabulary::Adopt},
        {"apply", &Vocabulary::Apply},
        {"flush", &Vocabulary::Flush},
        {"hold", &Vocabulary::Hold},
        {"release", &Vocabulary::Release},
        {"snapshot", &Vocabulary::Snapshot},
        {"snapshot-failed", &Vocabulary::SnapshotFailed},
        {"crash", &Vocabulary::Crash},
        {"restart", &Vocabulary::Restart},
        {"cut", &Vocabulary::Cut},
        {"heal", &Vocabulary::Heal},
        {"log", &Vocabulary::ShowLog},
        {"disk", &Vocabulary::ShowDisk},
        {"standing", &Vocabulary::ShowStanding},
        {"progress", &Vocabulary::ShowProgress},
        {"network", &Vocabulary::ShowNetwork}};
    return commands;
  }

  std::string RunLine(const std::string& text) {
    ScriptLine line = ParseScriptLine(text);
    const bool quiet = line.command == "quiet";
    if (quiet) line = ParseScriptLine(std::string_view(text).substr(text.find("quiet") + 6));
    const auto command = Commands().find(line.command);
    if (command == Commands().end()) return "unknown command: " + text + "\n";
    (this->*command->second)(line);
    std::string out = std::exchange(said_, {}) + cluster_.TakeTrace();
    return quiet ? std::string() : out;
  }

  void Say(const std::string& text) { said_ += cluster_.TakeTrace() + text + "\n"; }

  // The members named by position; none or * are all that run.
  std::vector<MemberId> MembersOn(const ScriptLine& line, size_t from = 0) {
    std::vector<MemberId> ids;
    for (size_t i = from; i < line.args.size() && line.args[i] != "*"; ++i) {
      ids.push_back(Number(line.args[i]));
    }
    if (!ids.empty()) return ids;
    for (const MemberId id : cluster_.Ids()) {
      if (cluster_.IsRunning(id)) ids.push_back(id);
    }
    return ids;
  }
  static MemberId Id(const ScriptLine& line, size_t at = 0) {
    return at < line.args.size() ? Number(line.args[at]) : 0;
  }

  void SetOptions(const ScriptLine& line) {
    options_.election_ticks = static_cast<int>(Number(line.Get("election_ticks", "10")));
    options_.heartbeat_ticks = static_cast<int>(Number(line.Get("heartbeat_ticks", "1")));
    options_.max_append_bytes = Number(line.Get("max_append_bytes", "1000000"));
    options_.max_inflight_appends = Number(line.Get("max_inflight_appends", "64"));
    options_.max_log_bytes = Number(line.Get("max_log_bytes", "1000000"));
    cluster_ = BareCluster(options_);
  }
  BareFounding FoundingOf(const ScriptLine& line) const {
    BareFounding founding = founding_;
    if (line.Find("term")) founding.term = Number(*line.Find("term"));
    if (line.Find("log")) founding.log = Numbers(*line.Find("log"));
    if (line.Find("learners")) founding.learners = Numbers(*line.Find("learners"));
    return founding;
  }
  void Members_(const ScriptLine& line) {
    founding_.voters.clear();
    for (const std::string& word : line.args) founding_.voters.push_back(Number(word));
    founding_ = FoundingOf(line);
    cluster_.Found(founding_);
  }
  void Member(const ScriptLine& line) {
    const BareFounding founding = FoundingOf(line);
    cluster_.Place(Id(line), founding,
                   {.term = founding.term, .vote = Number(line.Get("vote", "0"))});
  }
  void Blank(const ScriptLine& line) {
    for (const std::string& word : line.args) cluster_.PlaceBlank(Number(word));
  }

  void Tick(const ScriptLine& line) {
    const int times = line.args.size() > 1 ? static_cast<int>(Number(line.args[1])) : 1;
    if (line.args.empty() || line.args[0] == "*") {
      for (int i = 0; i < times; ++i) {
        for (const MemberId id : MembersOn({})) cluster_.Tick(id);
      }
    } else {
      for (const MemberId id : Numbers(line.args[0])) cluster_.Tick(id, times);
    }
  }
  void Campaign(const ScriptLine& line) { cluster_.Campaign(Id(line)); }
  void Elect(const ScriptLine& line) {
    cluster_.Elect(Id(line));
    cluster_.TakeTrace();
    ShowStanding(line);
  }
  void Propose(const ScriptLine& line) {
    cluster_.Propose(Id(line), {line.args.begin() + 1, line.args.end()});
  }
  void Change(const ScriptLine& line) {
    MemberChange change;
    for (const auto& [id, fate] : line.named) {
      const size_t colon = fate.find(':');
      const std::string word = fate.substr(0, colon);
      MemberTarget target{.id = Number(id),
                          .fate = word == "voter"     ? MemberFate::kVoter
                                  : word == "learner" ? MemberFate::kLearner
                                                      : MemberFate::kRemoved,
                          .record = {}};
      if (colon != std::string::npos) target.record = fate.substr(colon + 1);
      change.targets.push_back(std::move(target));
    }
    cluster_.Change(Id(line), change);
  }
  void Transfer(const ScriptLine& line) { cluster_.Transfer(Id(line), Id(line, 1)); }
  void Read(const ScriptLine& line) {
    for (size_t i = 1; i < line.args.size(); ++i) cluster_.Read(Id(line), Number(line.args[i]));
  }
  void Unreachable(const ScriptLine& line) { cluster_.Unreachable(Id(line), Id(line, 1)); }

  // deliver|drop|copy [from to [kind]] [all]: 0 or * is any member.
  static BareCluster::Filter FilterOf(const ScriptLine& line) {
    BareCluster::Filter filter;
    std::vector<std::string> words;
    for (const std::string& word : line.args) {
      if (word != "all") words.push_back(word);
    }
    if (!words.empty() && words[0] != "*") filter.from = Number(words[0]);
    if (words.size() > 1 && words[1] != "*") filter.to = Number(words[1]);
    if (words.size() > 2) filter.kind = words[2];
    return filter;
  }
  void Deliver(const ScriptLine& line) {
    const BareCluster::Filter filter = FilterOf(line);
    const bool any = line.Has("all") ? cluster_.DeliverAll(filter) > 0 : cluster_.Deliver(filter);
    if (!any) Say("nothing to deliver");
  }
  void Drop(const ScriptLine& line) {
    const BareCluster::Filter filter = FilterOf(line);
    const size_t count = line.Has("all") ? cluster_.DropAll(filter) : cluster_.Drop(filter) ? 1 : 0;
    Say("dropped " + std::to_string(count));
  }
  void Copy(const ScriptLine& line) {
    if (!cluster_.Copy(FilterOf(line))) Say("nothing to copy");
  }
  // inject from to kind term=N …
  void Inject(const ScriptLine& line) {
    const std::string kind = line.args.size() > 2 ? line.args[2] : "";
    Envelope envelope{.from = Id(line),
                      .to = Id(line, 1),
                      .term = Number(line.Get("term", "0")),
                      .message = MessageOf(line, kind)};
    if (KindOf(envelope.message) != kind) {
      Say("unknown message: " + kind);
      return;
    }
    const uint64_t refused = cluster_.core(envelope.to).refused_messages();
    const MemberId to = envelope.to;
    cluster_.Step(std::move(envelope));
    if (cluster_.core(to).refused_messages() > refused) Say(std::to_string(to) + "> malformed");
  }

  void Settle(const ScriptLine& line) {
    cluster_.Settle(line.args.empty() ? std::vector<MemberId>() : MembersOn(line));
  }
  void Persist(const ScriptLine& line) {
    bool any = cluster_.FinishWrite(Id(line));
    while (any && line.Has("all") && cluster_.FinishWrite(Id(line))) {
    }
    if (!any) Say("nothing to persist");
  }
  void Adopt(const ScriptLine& line) {
    if (!cluster_.FinishAdoption(Id(line))) Say("nothing to adopt");
  }
  void Apply(const ScriptLine& line) {
    if (!cluster_.Apply(Id(line))) Say("nothing to apply");
  }
  void Flush(const ScriptLine& line) {
    for (const MemberId id : MembersOn(line)) cluster_.Flush(id);
  }
  void Hold(const ScriptLine& line) {
    if (line.Has("machine")) {
      cluster_.HoldMachine(Id(line));
    } else {
      cluster_.HoldWrites(Id(line));
    }
  }
  void Release(const ScriptLine& line) {
    if (line.Has("machine")) {
      cluster_.ReleaseMachine(Id(line));
    } else {
      cluster_.ReleaseWrites(Id(line));
    }
  }
  void Snapshot(const ScriptLine& line) { cluster_.OfferSnapshot(Id(line), Id(line, 1)); }
  void SnapshotFailed(const ScriptLine& line) { cluster_.FailSnapshot(Id(line), Id(line, 1)); }
  void Crash(const ScriptLine& line) {
    for (const MemberId id : MembersOn(line)) cluster_.Crash(id);
  }
  void Restart(const ScriptLine& line) {
    for (const std::string& word : line.args) cluster_.Restart(Number(word));
  }

  // cut 1 (from everybody), or cut 1>2 (one way).
  void Cut(const ScriptLine& line) {
    for (const std::string& word : line.args) {
      const size_t arrow = word.find('>');
      if (arrow == std::string::npos) {
        cluster_.Isolate(Number(word));
      } else {
        cluster_.Cut(Number(word.substr(0, arrow)), Number(word.substr(arrow + 1)));
      }
    }
    ShowGroups();
  }
  void Heal(const ScriptLine&) {
    cluster_.Heal();
    ShowGroups();
  }
  // Who can talk: "1 | 2 3", and links that work one way only.
  void ShowGroups() {
    const std::vector<MemberId> ids = cluster_.Ids();
    std::set<MemberId> placed;
    std::string text;
    for (const MemberId first : ids) {
      if (placed.contains(first)) continue;
      if (!text.empty()) text += " | ";
      text += std::to_string(first);
      placed.insert(first);
      for (const MemberId other : ids) {
        if (placed.contains(other) ||
            (cluster_.IsCut(first, other) && cluster_.IsCut(other, first))) {
          continue;
        }
        text += " " + std::to_string(other);
        placed.insert(other);
      }
    }
    for (const MemberId a : ids) {
      for (const MemberId b : ids) {
        if (cluster_.IsCut(a, b) && !cluster_.IsCut(b, a)) {
          text += "; " + std::to_string(a) + ">" + std::to_string(b) + " is cut";
        }
      }
    }
    Say(text);
  }

  void ShowLog(const ScriptLine& line) {
    for (const MemberId id : MembersOn(line)) {
      const Core& core = cluster_.core(id);
      std::string text = std::to_string(id) + ": after " + Describe(core.log().base());
      for (Index i = core.log().base().index + 1; i <= core.log().last_index(); ++i) {
        text += " | " + Describe(*core.log().At(i));
      }
      Say(text + " | stable=" + std::to_string(core.log().stable()) + " commit=" +
          std::to_string(core.commit()) + " applied=" + std::to_string(core.applied()));
    }
  }
  void ShowDisk(const ScriptLine& line) {
    for (const std::string& word : line.args) {
      const BareDisk& disk = cluster_[Number(word)].disk();
      std::string text = word + ": term=" + std::to_string(disk.hard_state.term) +
                         " vote=" + std::to_string(disk.hard_state.vote) + " after " +
                         Describe(disk.base);
      for (const EntryPtr& entry : disk.entries) text += " | " + Describe(*entry);
      Say(text + " | machine=" + Describe(disk.applied));
    }
  }
  void ShowStanding(const ScriptLine& line) {
    for (const MemberId id : MembersOn(line)) {
      Say(std::to_string(id) + ": " + Describe(cluster_.core(id).standing()));
    }
  }
  void ShowProgress(const ScriptLine& line) {
    for (const FollowerStatus& status : cluster_.core(Id(line)).Followers()) {
      Say(line.args[0] + ": " + Describe(status));
    }
  }
  void ShowNetwork(const ScriptLine&) {
    if (cluster_.network().empty()) Say("nothing is under way");
    for (const Envelope& envelope : cluster_.network()) Say("under way: " + Describe(envelope));
  }

  Options options_;
  BareFounding founding_;
  BareCluster cluster_;
  std::string said_;
  std::string where_;
};

TEST_CASE("raft scripts put out what they pin") {
  const std::vector<std::string> scripts = ListScripts("tests/raft/scripts");
  REQUIRE(scripts.size() >= 80);
  const char* only = std::getenv("KVD_SCRIPT");  // A part of the name, to run a few.
  for (const std::string& script : scripts) {
    if (only != nullptr && script.find(only) == std::string::npos) continue;
    Vocabulary vocabulary;
    TheCheckHook() = [&vocabulary](std::string_view failure) {
      std::fprintf(stderr, "%s: %.*s\n", vocabulary.where().c_str(),
                   static_cast<int>(failure.size()), failure.data());
    };
    const auto run = [&vocabulary](const ScriptBlock& block) { return vocabulary.Run(block); };
    for (const std::string& failure : RunScript(script, run)) {
      FAIL_CHECK(failure);
    }
    TheCheckHook() = nullptr;
  }
}

}  // namespace
}  // namespace kv::raft

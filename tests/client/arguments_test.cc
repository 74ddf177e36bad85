#include "client/kvctl/arguments.h"

#include <catch2/catch_test_macros.hpp>

#include "client/kvctl/commands.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

absl::StatusOr<Arguments> Read(const std::vector<std::string>& words) {
  return Parse(Root(), GlobalFlags(), words);
}

std::string Complaint(const std::vector<std::string>& words) {
  absl::StatusOr<Arguments> arguments = Read(words);
  return arguments.ok() ? "" : std::string(arguments.status().message());
}

TEST_CASE("keys and values are data, whatever they look like") {
  for (std::string word : {"{}", "[a,b]", "++", "%%", "get", "put", "", "a=b", "=", "@file"}) {
    INFO(word);
    auto arguments = Read({"put", word, word});
    REQUIRE(arguments.ok());
    CHECK(arguments->path == "put");
    CHECK(arguments->rest == std::vector<std::string>{word, word});
  }
  CHECK(Read({"put", "k", "--", "-x"})->rest == std::vector<std::string>{"k", "-x"});
  CHECK(Read({"put", "--", "-k", "--"})->rest == std::vector<std::string>{"-k", "--"});
  CHECK(Read({"put", "k", "-"})->rest == std::vector<std::string>{"k", "-"});
}

TEST_CASE("flags stand anywhere and in any spelling") {
  for (const std::vector<std::string>& words :
       {std::vector<std::string>{"-w", "json", "get", "a", "--limit", "3", "--prefix"},
        {"get", "-wjson", "--limit=3", "a", "--prefix=true"},
        {"get", "a", "--prefix", "-w=json", "--limit=3"},
        {"--write-out=json", "get", "--prefix", "--limit", "3", "a"}}) {
    auto arguments = Read(words);
    REQUIRE(arguments.ok());
    CHECK(arguments->String("write-out") == "json");
    CHECK(arguments->Int("limit") == 3);
    CHECK(arguments->Bool("prefix"));
    CHECK(arguments->rest == std::vector<std::string>{"a"});
  }
  CHECK_FALSE(Read({"get", "a", "--prefix=false"})->Bool("prefix"));
  CHECK(Read({"--endpoints", "a:1, b:2", "get", "k", "--endpoints=c:3"})->Strings("endpoints") ==
        std::vector<std::string>{"a:1", "b:2", "c:3"});
}

TEST_CASE("commands may be shortened while they are unambiguous") {
  CHECK(Read({"mem", "li"})->path == "member list");
  CHECK(Read({"e", "s"}).ok() == false);  // endpoint, export
  CHECK(Read({"endpoint", "hea"})->path == "endpoint health");
  CHECK(Read({"he", "get"})->path == "help");
}

TEST_CASE("what is wrong with a command line is named") {
  CHECK(Complaint({"nope"}).find("unknown command \"nope\"") != std::string::npos);
  CHECK(Complaint({"member", "nope"}).find("\"kvctl member\"") != std::string::npos);
  CHECK(Complaint({"get", "a", "--nope"}).find("unknown flag: --nope") != std::string::npos);
  CHECK(Complaint({"get", "-5"}).find("unknown shorthand flag: '5'") != std::string::npos);
  CHECK(Complaint({"get", "a", "--limit", "x"}).find("--limit") != std::string::npos);
  CHECK(Complaint({"get", "a", "--prefix=maybe"}).find("true or false") != std::string::npos);
  CHECK(Complaint({"get", "a", "--command-timeout", "5"}).find("5s") != std::string::npos);
  CHECK(Complaint({"get", "a", "--limit"}) == "flag needs an argument: --limit");
}

TEST_CASE("a setting comes from the environment or the command line, not from both") {
  std::map<std::string, std::string> environment = {
      {"KVCTL_WRITE_OUT", "json"}, {"KVCTL_CLUSTER", "true"}, {"KVCTL_LIMIT", "5"}, {"HOME", "/"}};
  std::vector<std::string> warnings;

  auto arguments = Read({"endpoint", "status"});
  REQUIRE(AddEnvironment(Root(), GlobalFlags(), environment, "KVCTL", *arguments, warnings).ok());
  CHECK(arguments->String("write-out") == "json");
  CHECK(arguments->Bool("cluster"));  // Of the parent.
  CHECK(warnings == std::vector<std::string>{"unrecognized environment variable KVCTL_LIMIT"});

  auto both = Read({"get", "a", "-w", "json"});
  absl::Status status =
      AddEnvironment(Root(), GlobalFlags(), environment, "KVCTL", *both, warnings);
  CHECK(std::string(status.message()).find("KVCTL_WRITE_OUT") != std::string::npos);

  auto wrong = Read({"get", "a"});
  status =
      AddEnvironment(Root(), GlobalFlags(), {{"KVCTL_HEX", "perhaps"}}, "KVCTL", *wrong, warnings);
  CHECK(std::string(status.message()).find("KVCTL_HEX") != std::string::npos);
}

TEST_CASE("every command has help with its own flags, and is completed in every shell") {
  std::function<void(const Command&, std::vector<std::string>)> visit =
      [&](const Command& command, std::vector<std::string> path) {
        for (const Command& child : command.children) {
          std::vector<std::string> words = path;
          words.emplace_back(child.name);
          auto arguments = Read(words);
          REQUIRE(arguments.ok());
          std::string help = Help(Root(), GlobalFlags(), *arguments);
          CHECK(help.find(child.summary) != std::string::npos);
          for (const Flag& flag : child.flags) {
            INFO(flag.name);
            CHECK(help.find("--" + std::string(flag.name)) != std::string::npos);
            CHECK_FALSE(flag.help.empty());
          }
          for (const char* shell : {"bash", "zsh", "fish"}) {
            std::string script = Completion(Root(), GlobalFlags(), shell);
            CHECK(script.find(child.name) != std::string::npos);
            for (const Flag& flag : child.flags) {
              const std::string dashes = std::string(shell) == "fish" ? " -l " : " --";
              INFO(shell << " " << child.name << " " << flag.name);
              CHECK(script.find(dashes + std::string(flag.name)) != std::string::npos);
            }
          }
          visit(child, words);
        }
      };
  visit(Root(), {});
}

TEST_CASE("what stands behind -- is told apart, and a watch's own variables are known") {
  CHECK_FALSE(Read({"watch", "a", "b"})->separator);
  CHECK(Read({"watch", "a", "--rev=1", "--", "echo", "--", "-x"})->separator == size_t{1});
  CHECK(Read({"watch", "--", "echo"})->separator == size_t{0});

  auto arguments = Read({"watch"});
  std::vector<std::string> warnings;
  REQUIRE(AddEnvironment(Root(), GlobalFlags(), {{"KVCTL_WATCH_KEY", "a"}, {"KVCTL_WATCH", "a"}},
                         "KVCTL", *arguments, warnings)
              .ok());
  CHECK(warnings == std::vector<std::string>{"unrecognized environment variable KVCTL_WATCH"});
}

TEST_CASE("a watch is of a key or a range, from a revision") {
  auto order = [](const std::vector<std::string>& words) { return WatchRequestFrom(*Read(words)); };
  CHECK(order({"watch", "a"})->range_end().empty());
  CHECK(order({"watch", "a", "--prefix"})->range_end() == "b");
  CHECK(order({"watch", "a", "c", "--rev", "7"})->range_end() == "c");
  CHECK(order({"watch", "a", "c", "--rev", "7"})->start_revision() == 7);
  CHECK(order({"watch", "a", "--prev-kv"})->prev_kv());
  CHECK(order({"watch", "a", "--progress-notify"})->progress_notify());
  CHECK(order({"watch"}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(order({"watch", "a", "b", "c"}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(order({"watch", "a", "b", "--prefix"}).status().code() ==
        absl::StatusCode::kInvalidArgument);
}

TEST_CASE("prefixes and open ends become ranges") {
  CHECK(PrefixEnd("a") == "b");
  CHECK(PrefixEnd("a\xff") == "b");
  CHECK(PrefixEnd("\xff\xff") == std::string(1, '\0'));

  auto range = [](const std::vector<std::string>& words) {
    return *RangeRequestFrom(*Read(words));
  };
  const std::string zero(1, '\0');
  CHECK(range({"get", "a", "--prefix"}).range_end() == "b");
  CHECK(range({"get", "a", "--from-key"}).range_end() == zero);
  CHECK(range({"get", "", "--prefix"}).key() == zero);
  CHECK(range({"get", "", "--prefix"}).range_end() == zero);
  CHECK(range({"get", "a", "c"}).range_end() == "c");
  CHECK(range({"get", "a", "--order", "ascend"}).sort_order() == etcdserverpb::RangeRequest::NONE);
  CHECK(range({"get", "a", "--sort-by", "modify"}).sort_target() ==
        etcdserverpb::RangeRequest::MOD);
  CHECK(RangeRequestFrom(*Read({"get", "a", "--prefix", "--from-key"})).status().code() ==
        absl::StatusCode::kInvalidArgument);
  CHECK(RangeRequestFrom(*Read({"get", "a", "--order", "UP"})).status().code() ==
        absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace kv::kvctl

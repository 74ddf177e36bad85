#include "tests/script.h"

#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace kv {
namespace {

// A folder that goes away with the test.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "kvd-script-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string Write(const std::string& name, const std::string& text) const {
    const std::string path = (path_ / name).string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  static std::string Read(const std::string& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Sets KVD_REWRITE for one scope and puts back what stood there.
class Rewriting {
 public:
  explicit Rewriting(const char* value) {
    const char* before = std::getenv("KVD_REWRITE");
    if (before != nullptr) before_ = before;
    setenv("KVD_REWRITE", value, 1);
  }
  ~Rewriting() {
    if (before_) {
      setenv("KVD_REWRITE", before_->c_str(), 1);
    } else {
      unsetenv("KVD_REWRITE");
    }
  }
  Rewriting(const Rewriting&) = delete;
  Rewriting& operator=(const Rewriting&) = delete;

 private:
  std::optional<std::string> before_;
};

// Says what it was asked, one line per input line; "blank" says a blank line.
std::string Echo(const ScriptBlock& block) {
  std::string out;
  for (const std::string& line : block.input) {
    out += line == "blank" ? std::string("one\n\ntwo\n") : "said " + line + "\n";
  }
  return out;
}

TEST_CASE("a script line is split into command, positional and named arguments") {
  const ScriptLine line =
      ParseScriptLine(R"(put  key "two words" lease=7 a="x=y z" [1 2]=3 [p q])");
  CHECK(line.command == "put");
  CHECK(line.args == std::vector<std::string>{"key", "two words", "[p q]"});
  CHECK(line.Find("lease") == "7");
  CHECK(line.Find("a") == "x=y z");
  CHECK(line.Find("[1 2]") == "3");
  CHECK_FALSE(line.Find("key"));
  CHECK(line.Get("none", "fallback") == "fallback");
  CHECK(line.Has("key"));
  CHECK_FALSE(line.Has("lease"));
}

TEST_CASE("quotes in a script line carry any byte") {
  const ScriptLine line = ParseScriptLine(R"(put "a\nb\t\"q\"\\" "\x00\xfF" "=")");
  REQUIRE(line.args.size() == 3);
  CHECK(line.args[0] == "a\nb\t\"q\"\\");
  CHECK(line.args[1] == std::string("\0\xff", 2));
  CHECK(line.args[2] == "=");
}

TEST_CASE("a script whose output is as expected passes") {
  const Rewriting off("0");
  const ScratchFolder folder;
  const std::string path = folder.Write("a.txt",
                                        "# Story.\n\nfirst x\nsecond\n----\nsaid first x\n"
                                        "said second\n\nblank\n----\n----\none\n\ntwo\n----\n----\n"
                                        "\n# The end.\nlast\n----\nsaid last\n");
  CHECK(RunScript(path, Echo).empty());
}

TEST_CASE("a script names file, line and difference of every block that differs") {
  const Rewriting off("0");
  const ScratchFolder folder;
  const std::string path = folder.Write(
      "a.txt", "# Story.\none\n----\nsaid nothing\n\ntwo\n----\nsaid two\n\nthree\n----\n");
  const std::vector<std::string> failures = RunScript(path, Echo);
  REQUIRE(failures.size() == 2);
  CHECK(failures[0].find(path + ":2: one") == 0);
  CHECK(failures[0].find("- said nothing\n") != std::string::npos);
  CHECK(failures[0].find("+ said one\n") != std::string::npos);
  CHECK(failures[1].find(path + ":10: three") == 0);
}

TEST_CASE("rewriting a script keeps comments and makes it pass") {
  const ScratchFolder folder;
  const std::string path = folder.Write(
      "a.txt", "# Story.\n\none\n----\nwrong\n\n# Between.\nblank\n----\n\nlast\n----\nold\n");
  {
    const Rewriting on("1");
    CHECK(RunScript(path, Echo).empty());
  }
  CHECK(ScratchFolder::Read(path) ==
        "# Story.\n\none\n----\nsaid one\n\n# Between.\nblank\n----\n----\none\n\ntwo\n----\n----\n"
        "\nlast\n----\nsaid last\n");
  const Rewriting off("0");
  CHECK(RunScript(path, Echo).empty());
}

TEST_CASE("a block without separator and a missing file are refused with their place") {
  const Rewriting off("0");
  const ScratchFolder folder;
  const std::string path = folder.Write("a.txt", "one\n----\nsaid one\n\ntwo\n\n");
  const std::vector<std::string> failures = RunScript(path, Echo);
  REQUIRE(failures.size() == 1);
  CHECK(failures[0].find(path + ":5: ") == 0);
  CHECK(RunScript((folder.path() / "none.txt").string(), Echo).size() == 1);
}

TEST_CASE("scripts of a folder are listed by name") {
  const ScratchFolder folder;
  folder.Write("b.txt", "");
  folder.Write("a.txt", "");
  folder.Write("c.md", "");
  const std::vector<std::string> scripts = ListScripts(folder.path().string());
  REQUIRE(scripts.size() == 2);
  CHECK(scripts[0].ends_with("a.txt"));
  CHECK(scripts[1].ends_with("b.txt"));
}

TEST_CASE("a difference keeps the common lines") {
  CHECK(ScriptDifference("a\nb\nc\n", "a\nx\nc\n") == "  a\n- b\n+ x\n  c\n");
  CHECK(ScriptDifference("", "a\n") == "+ a\n");
}

}  // namespace
}  // namespace kv

// Trees of keys, plain columns, and what is summed up of a load.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <string>

#include "client/kvctl/load.h"
#include "client/kvctl/table.h"
#include "client/kvctl/tree.h"

namespace kv::kvctl {
namespace {

bool Near(double a, double b) { return std::abs(a - b) < 1e-9; }

}  // namespace

TEST_CASE("a tree is cut at each slash, and counts what is below") {
  Tree tree(0, 100);
  for (std::string_view key : {"a/1", "a/2", "a/b/3", "c", "/", "//x"}) tree.Add(key, 10);
  CHECK(TreeText(tree, "", false) ==
        "6 keys\n"
        "├── /  2 keys with itself\n"
        "│   └── /  1 key\n"
        "│       └── x\n"
        "├── a/  3 keys\n"
        "│   ├── 1\n"
        "│   ├── 2\n"
        "│   └── b/  1 key\n"
        "│       └── 3\n"
        "└── c\n");
  CHECK_FALSE(tree.cut());
}

TEST_CASE("a key and a folder of one name are two lines, and sizes add up") {
  Tree tree(0, 100);
  tree.Add("a", 1);
  tree.Add("a/b", 20);
  CHECK(TreeText(tree, "p", true) ==
        "p  2 keys  21 B\n"
        "├── a  1 B\n"
        "└── a/  1 key  20 B\n"
        "    └── b  20 B\n");
  CHECK(TreeJson(tree, "p", true) ==
        "{\"name\":\"p\",\"keys\":2,\"bytes\":21,\"children\":[{\"name\":\"a\",\"key\":true,"
        "\"keys\":1,"
        "\"bytes\":1},"
        "{\"name\":\"a/"
        "\",\"keys\":1,\"bytes\":20,\"children\":[{\"name\":\"b\",\"key\":true,\"keys\":1,"
        "\"bytes\":20}]}"
        "]}\n");
}

TEST_CASE("no key can give a terminal orders") {
  Tree tree(0, 100);
  tree.Add("a\x1b[2J", 1);
  CHECK(TreeText(tree, "", false) == "1 key\n└── \"a\\x1b[2J\"\n");
}

TEST_CASE("below the depth that is wanted a tree only counts") {
  Tree tree(1, 100);
  for (std::string_view key : {"a/1", "a/2", "c"}) tree.Add(key, 1);
  CHECK(TreeText(tree, "", false) == "3 keys\n├── a/  2 keys\n└── c\n");
}

TEST_CASE("a tree that grows too large gives up its deepest level, and still counts every key") {
  Tree tree(0, 10);
  for (int folder = 0; folder < 4; ++folder) {
    for (int key = 0; key < 100; ++key) {
      tree.Add("f" + std::to_string(folder) + "/" + std::to_string(key), 1);
    }
  }
  CHECK(tree.cut());
  CHECK(tree.depth() == 1);
  CHECK(TreeText(tree, "", false) ==
        "400 keys\n├── f0/  100 keys\n├── f1/  100 keys\n├── f2/  100 keys\n└── f3/  100 keys\n");
}

TEST_CASE("of a level that is too large by itself the rest is counted") {
  Tree tree(0, 3);
  for (char c = 'a'; c <= 'z'; ++c) tree.Add(std::string(1, c), 1);
  CHECK(tree.cut());
  CHECK(TreeText(tree, "", false) == "26 keys\n├── a\n├── b\n├── c\n└── … 23 keys more\n");
}

TEST_CASE("columns stand below their heads") {
  CHECK(Columns({"name", "n", "note"}, {{"a", "10", "x"}, {"long", "5", ""}}, 1) ==
        "NAME   N  NOTE\na     10  x\nlong   5\n");
  CHECK(Columns({"a", "b"}, {{"1", "2"}, {"3", "4"}}, 1, {"", "\033[31m"}) ==
        "A  B\n1  2\n\033[31m3  4\033[0m\n");
}

TEST_CASE("a load's report has the mean and the deviation of all its times") {
  LoadReport report;
  CHECK(report.rate() == 0);
  CHECK(report.stddev() == 0);
  for (double seconds : {0.2, 0.4, 0.4, 0.4, 0.5, 0.5, 0.7, 0.9}) report.Add(seconds);
  report.elapsed = 2;
  CHECK(Near(report.mean, 0.5));
  CHECK(Near(report.stddev(), 0.2));
  CHECK(Near(report.slowest, 0.9));
  CHECK(Near(report.rate(), 4));
}

}  // namespace kv::kvctl

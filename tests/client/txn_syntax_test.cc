#include "client/kvctl/txn_syntax.h"

#include <catch2/catch_test_macros.hpp>

namespace kv::kvctl {
namespace {

using etcdserverpb::Compare;

TEST_CASE("words are split as a shell user expects, with Go's escapes in double quotes") {
  using Words = std::vector<std::string>;
  CHECK(*SplitWords("put  k v") == Words{"put", "k", "v"});
  CHECK(*SplitWords("put 'a b' \"c\\td\"") == Words{"put", "a b", "c\td"});
  CHECK(*SplitWords("put \"\\x00\\u00e9\\101\" ''") ==
        Words{"put", std::string("\0", 1) + "éA", ""});
  CHECK(*SplitWords("get a\"b") == Words{"get", "a\"b"});
  CHECK_FALSE(SplitWords("put k \"open").ok());
  CHECK_FALSE(SplitWords("put k 'open").ok());
  CHECK_FALSE(SplitWords("put k \"\\q\"").ok());
}

TEST_CASE("compares have a target, an operator and a value") {
  auto compare = ParseCompare("mod(\"key\") > \"7\"");
  REQUIRE(compare.ok());
  CHECK(compare->target() == Compare::MOD);
  CHECK(compare->result() == Compare::GREATER);
  CHECK(compare->mod_revision() == 7);
  CHECK(compare->key() == "key");
  CHECK(ParseCompare("ver(\"k\") = \"0\"")->target() == Compare::VERSION);
  CHECK(ParseCompare("c(\"k\") != \"1\"")->result() == Compare::NOT_EQUAL);
  CHECK(ParseCompare("create(\"k\") < \"-1\"")->create_revision() == -1);
  CHECK(ParseCompare("value(\"k\") = \"a b\"")->value() == "a b");
  CHECK(ParseCompare("lease(\"k\") = \"ff\"")->lease() == 255);
  CHECK(ParseCompare("val(`k\\n`) = \"\"")->key() == "k\\n");
}

TEST_CASE("a compare that cannot be read is quoted with the reason") {
  for (const char* line :
       {"mod", "mod(key) > \"0\"", "mod(\"key\" > \"0\"", "mod(\"key\") > 0", "mod(\"key\") >",
        "mod(\"key\") >= \"0\"", "mod(\"key\") > \"x\"", "size(\"key\") > \"0\"", ""}) {
    INFO(line);
    auto compare = ParseCompare(line);
    CHECK(compare.status().code() == absl::StatusCode::kOutOfRange);
    CHECK(std::string(compare.status().message()).find(line) != std::string::npos);
  }
}

TEST_CASE("operations take the flags of their commands") {
  auto put = ParseOperation("put key \"a b\" --prev-kv --lease=1f");
  REQUIRE(put.ok());
  CHECK(put->request_put().value() == "a b");
  CHECK(put->request_put().prev_kv());
  CHECK(put->request_put().lease() == 31);
  CHECK(ParseOperation("get a --prefix --limit 2")->request_range().range_end() == "b");
  CHECK(ParseOperation("del a b")->request_delete_range().range_end() == "b");
  CHECK(ParseOperation("del a b --range")->request_delete_range().key() == "a");
}

TEST_CASE("an operation that cannot be read differs from one that makes no sense") {
  CHECK(ParseOperation("foo a").status().code() == absl::StatusCode::kOutOfRange);
  CHECK(ParseOperation("put a b --nope").status().code() == absl::StatusCode::kOutOfRange);
  CHECK(ParseOperation("").status().code() == absl::StatusCode::kOutOfRange);
  CHECK(ParseOperation("put a").status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(ParseOperation("get a --order UP").status().code() == absl::StatusCode::kUnimplemented);
}

}  // namespace
}  // namespace kv::kvctl

// What import reads and remembers, and that export's lines are what import reads.
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "client/kvctl/json_lines.h"
#include "client/kvctl/progress.h"

namespace kv::kvctl {
namespace {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "kvctl_test_XXXXXX").string();
    path_ = mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const char* name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

void Write(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

TEST_CASE("what export writes is what import reads") {
  mvccpb::KeyValue pair;
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes += static_cast<char>(i);
  pair.set_key(bytes);
  pair.set_value(bytes + bytes);
  pair.set_create_revision(5);
  pair.set_mod_revision(6);
  pair.set_version(2);
  std::string line = FormatLine(pair);
  CHECK(line.back() == '\n');
  auto read = ParseLine(std::string_view(line).substr(0, line.size() - 1));
  REQUIRE(read.ok());
  CHECK(read->key == pair.key());
  CHECK(read->value == pair.value());
  CHECK_FALSE(read->has_lease);
}

TEST_CASE("a line needs a key, and may do without a value") {
  CHECK(ParseLine(R"({"key":"YQ=="})")->value.empty());
  CHECK(ParseLine(R"({"key":"YQ==","value":"Yg==","lease":12})")->has_lease);
  CHECK_FALSE(ParseLine(R"({"key":"YQ==","value":"Yg==","lease":0})")->has_lease);
  CHECK(ParseLine(R"( {"value":"Yg==","version":3,"key":"YQ=="} )")->key == "a");
}

TEST_CASE("a malformed line is refused with what is wrong") {
  struct Case {
    const char* line;
    const char* complaint;
  };
  const Case cases[] = {
      {"not json", "not valid JSON"},
      {R"({"key":"YQ==")", "not valid JSON"},
      {R"(["YQ=="])", "not a JSON object"},
      {R"({"value":"YQ=="})", "\"key\" is missing"},
      {R"({"key":""})", "\"key\" is missing or empty"},
      {R"({"key":5})", "\"key\" is not a string"},
      {R"({"key":"YQ"})", "\"key\" is not valid base64"},
      {R"({"key":"Y?=="})", "\"key\" is not valid base64"},
      {R"({"key":"YQ==","value":"Yh=="})", "\"value\" is not valid base64"},
      {R"({"key":"YQ==","value":null})", "\"value\" is not a string"},
  };
  for (const Case& c : cases) {
    INFO(c.line);
    auto pair = ParseLine(c.line);
    REQUIRE_FALSE(pair.ok());
    CHECK(std::string(pair.status().message()).find(c.complaint) != std::string::npos);
  }
}

TEST_CASE("lines are counted, and the last one needs no end") {
  TemporaryFolder folder;
  Write(folder / "lines", "one\n\n" + std::string(200'000, 'x') + "\nlast");
  std::FILE* file = std::fopen((folder / "lines").c_str(), "rb");
  REQUIRE(file != nullptr);
  LineReader reader(file);
  CHECK(*reader.Next() == "one");
  CHECK(reader.Next()->empty());
  CHECK(reader.Next()->size() == 200'000);
  CHECK(reader.lines() == 3);
  CHECK(*reader.Next() == "last");
  CHECK(reader.lines() == 4);
  CHECK(reader.Next().status().code() == absl::StatusCode::kOutOfRange);
  CHECK(reader.bytes() == std::filesystem::file_size(folder / "lines"));
  std::fclose(file);
}

TEST_CASE("a line of endless length is refused before it fills the memory") {
  TemporaryFolder folder;
  Write(folder / "long", std::string(LineReader::kLineBytesMax + 1, 'x'));
  std::FILE* file = std::fopen((folder / "long").c_str(), "rb");
  REQUIRE(file != nullptr);
  LineReader reader(file);
  CHECK(reader.Next().status().code() == absl::StatusCode::kInvalidArgument);
  std::fclose(file);
}

TEST_CASE("progress is the last line below which none is missing") {
  AcknowledgedLines lines(10);
  lines.Add(12);
  lines.Add(13);
  CHECK(lines.through() == 10);
  lines.Add(11);
  CHECK(lines.through() == 13);
  lines.Add(5);
  lines.Add(13);
  CHECK(lines.through() == 13);
  lines.Add(15);
  CHECK(lines.through() == 13);
}

TEST_CASE("progress survives in its file and is replaced as a whole") {
  TemporaryFolder folder;
  std::string path = folder / "pairs.progress";
  auto none = LoadProgress(path);
  REQUIRE(none.ok());
  CHECK_FALSE(none->has_value());
  for (Progress progress : {Progress{.line = 7, .cluster_id = 0xabc},
                            Progress{.line = 123456789012, .cluster_id = ~uint64_t{0}}}) {
    REQUIRE(SaveProgress(path, progress).ok());
    auto loaded = LoadProgress(path);
    REQUIRE(loaded.ok());
    CHECK(**loaded == progress);
  }
  std::string first;
  std::getline(std::ifstream(path) >> std::ws, first);
  CHECK(first == "123456789012");
}

TEST_CASE("a file that is no progress is refused, not guessed at") {
  TemporaryFolder folder;
  for (const char* text : {"", "7", "7\n", "x\ncluster 1\n", "7\ncluster\n", "7\ncluster 1",
                           "7\ncluster 1\nmore\n", "-7\ncluster 1\n"}) {
    INFO(text);
    Write(folder / "p", text);
    auto loaded = LoadProgress(folder / "p");
    CHECK(loaded.status().code() == absl::StatusCode::kInvalidArgument);
  }
}

TEST_CASE("progress that cannot be written is said") {
  CHECK_FALSE(SaveProgress("/nonexistent/folder/p", {.line = 1, .cluster_id = 1}).ok());
}

}  // namespace
}  // namespace kv::kvctl

#include "tests/script.h"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>

namespace kv {
namespace {

constexpr std::string_view kSeparator = "----";

std::filesystem::path InSourceTree(const std::string& path) {
  return std::filesystem::path(KVD_SOURCE_DIR) / path;  // An absolute path replaces the root.
}

std::vector<std::string> SplitLines(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    lines.emplace_back(text.substr(0, end));
    if (end == std::string_view::npos) break;
    text.remove_prefix(end + 1);
  }
  return lines;
}

std::string JoinLines(const std::vector<std::string>& lines, size_t from, size_t to) {
  std::string text;
  for (size_t i = from; i < to; ++i) text.append(lines[i]).append("\n");
  return text;
}

bool IsBlank(std::string_view line) {
  return line.find_first_not_of(" \t\r") == std::string_view::npos;
}

// A piece of the file: verbatim text (comments, blank lines) and, except at the end, a block.
struct Piece {
  std::string before;
  std::optional<ScriptBlock> block;
  std::string expected;
};

struct Parsed {
  std::vector<Piece> pieces;
  std::string error;
};

// Takes the expected output that starts at lines[i]; leaves i behind it.
std::string TakeExpected(const std::vector<std::string>& lines, size_t& i) {
  if (i < lines.size() && lines[i] == kSeparator) {
    const size_t from = ++i;
    while (i < lines.size() &&
           !(lines[i] == kSeparator && i + 1 < lines.size() && lines[i + 1] == kSeparator)) {
      ++i;
    }
    std::string expected = JoinLines(lines, from, i);
    i = std::min(i + 2, lines.size());
    return expected;
  }
  const size_t from = i;
  while (i < lines.size() && !IsBlank(lines[i])) ++i;
  return JoinLines(lines, from, i);
}

Parsed Parse(const std::string& file, const std::vector<std::string>& lines) {
  Parsed parsed;
  Piece piece;
  for (size_t i = 0; i < lines.size();) {
    if (IsBlank(lines[i]) || lines[i].front() == '#') {
      piece.before.append(lines[i++]).append("\n");
      continue;
    }
    ScriptBlock block{.file = file, .line = static_cast<int>(i) + 1, .input = {}};
    while (i < lines.size() && lines[i] != kSeparator && !IsBlank(lines[i])) {
      block.input.push_back(lines[i++]);
    }
    if (i == lines.size() || lines[i] != kSeparator) {
      parsed.error = file + ":" + std::to_string(block.line) +
                     ": the block has no ---- line; end its input with one";
      return parsed;
    }
    ++i;
    piece.expected = TakeExpected(lines, i);
    piece.block = std::move(block);
    parsed.pieces.push_back(std::move(piece));
    piece = {};
  }
  parsed.pieces.push_back(std::move(piece));
  return parsed;
}

std::string Render(const Piece& piece) {
  std::string text = piece.before;
  if (!piece.block) return text;
  for (const std::string& line : piece.block->input) text.append(line).append("\n");
  text.append(kSeparator).append("\n");
  const std::vector<std::string> lines = SplitLines(piece.expected);
  const bool doubled = std::any_of(lines.begin(), lines.end(), IsBlank) ||
                       (!lines.empty() && lines.front() == kSeparator);
  if (doubled) text.append(kSeparator).append("\n");
  text.append(piece.expected);
  if (doubled) text.append(kSeparator).append("\n").append(kSeparator).append("\n");
  return text;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Takes a quoted run from text[i] (the opening quote) and leaves i behind the closing one.
std::string TakeQuoted(std::string_view text, size_t& i) {
  std::string out;
  for (++i; i < text.size() && text[i] != '"'; ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out.push_back(text[i]);
      continue;
    }
    const char c = text[++i];
    if (c == 'x' && i + 2 < text.size() && HexDigit(text[i + 1]) >= 0 &&
        HexDigit(text[i + 2]) >= 0) {
      out.push_back(static_cast<char>(HexDigit(text[i + 1]) * 16 + HexDigit(text[i + 2])));
      i += 2;
    } else {
      out.push_back(c == 'n' ? '\n' : c == 't' ? '\t' : c);
    }
  }
  if (i < text.size()) ++i;
  return out;
}

struct Word {
  std::string text;
  std::optional<size_t> equals;  // Where an unquoted '=' first stands in text.
};

Word TakeWord(std::string_view text, size_t& i) {
  Word word;
  for (int depth = 0; i < text.size() && (depth > 0 || text[i] != ' ');) {
    if (text[i] == '"') {
      word.text.append(TakeQuoted(text, i));
      continue;
    }
    if (text[i] == '[') ++depth;
    if (text[i] == ']') --depth;
    if (text[i] == '=' && depth == 0 && !word.equals) word.equals = word.text.size();
    word.text.push_back(text[i++]);
  }
  return word;
}

}  // namespace

std::optional<std::string> ScriptLine::Find(std::string_view key) const {
  for (const auto& [name, value] : named) {
    if (name == key) return value;
  }
  return std::nullopt;
}

std::string ScriptLine::Get(std::string_view key, std::string_view fallback) const {
  return Find(key).value_or(std::string(fallback));
}

bool ScriptLine::Has(std::string_view word) const {
  return std::find(args.begin(), args.end(), word) != args.end();
}

ScriptLine ParseScriptLine(std::string_view text) {
  ScriptLine line;
  for (size_t i = 0; i < text.size();) {
    if (text[i] == ' ') {
      ++i;
      continue;
    }
    Word word = TakeWord(text, i);
    if (line.command.empty()) {
      line.command = std::move(word.text);
    } else if (word.equals && *word.equals > 0) {
      line.named.emplace_back(word.text.substr(0, *word.equals),
                              word.text.substr(*word.equals + 1));
    } else {
      line.args.push_back(std::move(word.text));
    }
  }
  return line;
}

std::string ScriptDifference(std::string_view expected, std::string_view actual) {
  const std::vector<std::string> a = SplitLines(expected);
  const std::vector<std::string> b = SplitLines(actual);
  // common[i][j]: the longest common subsequence of a from i on and b from j on.
  std::vector<std::vector<size_t>> common(a.size() + 1, std::vector<size_t>(b.size() + 1, 0));
  for (size_t i = a.size(); i-- > 0;) {
    for (size_t j = b.size(); j-- > 0;) {
      common[i][j] =
          a[i] == b[j] ? common[i + 1][j + 1] + 1 : std::max(common[i + 1][j], common[i][j + 1]);
    }
  }
  std::string text;
  size_t i = 0;
  size_t j = 0;
  while (i < a.size() || j < b.size()) {
    if (i < a.size() && j < b.size() && a[i] == b[j]) {
      text.append("  ").append(a[i++]).append("\n");
      ++j;
    } else if (j == b.size() || (i < a.size() && common[i + 1][j] >= common[i][j + 1])) {
      text.append("- ").append(a[i++]).append("\n");
    } else {
      text.append("+ ").append(b[j++]).append("\n");
    }
  }
  return text;
}

std::vector<std::string> RunScript(const std::string& path, const ScriptVocabulary& vocabulary) {
  std::ifstream in(InSourceTree(path), std::ios::binary);
  if (!in) return {path + ": cannot be opened"};
  const std::string before((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  in.close();
  Parsed parsed = Parse(path, SplitLines(before));
  if (!parsed.error.empty()) return {parsed.error};

  const char* asked = std::getenv("KVD_REWRITE");
  const bool rewrite = asked != nullptr && std::string_view(asked) == "1";
  std::vector<std::string> failures;
  for (Piece& piece : parsed.pieces) {
    if (!piece.block) continue;
    std::string actual = vocabulary(*piece.block);
    if (!actual.empty() && actual.back() != '\n') actual.push_back('\n');
    if (actual == piece.expected) continue;
    if (rewrite) {
      piece.expected = std::move(actual);
      continue;
    }
    failures.push_back(path + ":" + std::to_string(piece.block->line) + ": " +
                       piece.block->input.front() + "\n  (- expected, + came out)\n" +
                       ScriptDifference(piece.expected, actual));
  }
  if (!rewrite) return failures;

  std::string after;
  for (const Piece& piece : parsed.pieces) {
    // Two blocks need a blank line between them; a hand-written script may lack it at first.
    if (!after.empty() && piece.block && piece.before.empty()) after.append("\n");
    after.append(Render(piece));
  }
  if (after != before && !(std::ofstream(InSourceTree(path), std::ios::binary) << after)) {
    failures.push_back(path + ": cannot be written");
  }
  return failures;
}

std::vector<std::string> ListScripts(const std::string& folder) {
  std::vector<std::string> scripts;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(InSourceTree(folder), error)) {
    if (file.path().extension() == ".txt") {
      scripts.push_back((std::filesystem::path(folder) / file.path().filename()).string());
    }
  }
  std::sort(scripts.begin(), scripts.end());
  return scripts;
}

}  // namespace kv

#include "client/kvctl/table.h"

#include <algorithm>

#include "client/kvctl/go_text.h"

namespace kv::kvctl {

size_t Width(std::string_view text) {
  static constexpr RuneSpan kWide[] = {{0x1100, 0x115F},   {0x2E80, 0x303E},  {0x3041, 0xA4CF},
                                       {0xAC00, 0xD7A3},   {0xF900, 0xFAFF},  {0xFE30, 0xFE6F},
                                       {0xFF00, 0xFF60},   {0xFFE0, 0xFFE6},  {0x1F300, 0x1F64F},
                                       {0x1F900, 0x1F9FF}, {0x20000, 0x3FFFD}};
  static constexpr RuneSpan kNone[] = {{0x00, 0x1F},     {0x7F, 0x9F},     {0x300, 0x36F},
                                       {0x200B, 0x200F}, {0xFE00, 0xFE0F}, {0xFEFF, 0xFEFF}};
  size_t width = 0;
  while (!text.empty()) {
    Rune rune = FirstRune(text);
    text.remove_prefix(rune.bytes);
    if (rune.valid && InSpans(rune.point, kNone)) continue;
    width += rune.valid && InSpans(rune.point, kWide) ? 2u : 1u;
  }
  return width;
}

std::string Table(const Row& head, const std::vector<Row>& rows) {
  Row titles;
  for (const std::string& name : head) {
    std::string title;
    for (char c : name) {
      title += c == '_' ? ' ' : (c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c);
    }
    titles.push_back(title);
  }
  auto trimmed = [](std::string_view cell) {
    while (cell.starts_with(' ')) cell.remove_prefix(1);
    while (cell.ends_with(' ')) cell.remove_suffix(1);
    return cell;
  };
  std::vector<size_t> widths;
  for (const std::string& title : titles) widths.push_back(Width(title));
  for (const Row& row : rows) {
    for (size_t i = 0; i < widths.size(); ++i) {
      widths[i] = std::max(widths[i], Width(trimmed(row[i])));
    }
  }
  auto rule = [&](std::string_view left, std::string_view middle, std::string_view right) {
    std::string line(left);
    for (size_t i = 0; i < widths.size(); ++i) {
      if (i > 0) line += middle;
      for (size_t n = 0; n < widths[i] + 2; ++n) line += "─";
    }
    return line + std::string(right) + "\n";
  };
  std::string out = rule("┌", "┬", "┐");
  for (size_t i = 0; i < titles.size(); ++i) {
    size_t space = widths[i] - Width(titles[i]);
    out +=
        "│ " + std::string(space / 2, ' ') + titles[i] + std::string(space - space / 2, ' ') + " ";
  }
  out += "│\n";
  if (!rows.empty()) out += rule("├", "┼", "┤");
  for (const Row& row : rows) {
    for (size_t i = 0; i < widths.size(); ++i) {
      std::string_view cell = trimmed(row[i]);
      out += "│ " + std::string(widths[i] - Width(cell), ' ') + std::string(cell) + " ";
    }
    out += "│\n";
  }
  return out + rule("└", "┴", "┘");
}

std::string Columns(const Row& head, const std::vector<Row>& rows, size_t left,
                    const Row& colours) {
  std::vector<size_t> widths(head.size());
  std::vector<Row> all = {head};
  for (std::string& title : all[0]) {
    for (char& c : title) c = c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  }
  all.insert(all.end(), rows.begin(), rows.end());
  for (const Row& row : all) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], Width(row[i]));
  }
  std::string out;
  for (size_t r = 0; r < all.size(); ++r) {
    std::string text;
    for (size_t i = 0; i < all[r].size(); ++i) {
      const std::string& cell = all[r][i];
      const std::string space(widths[i] - Width(cell), ' ');
      const bool to_left = i < left || i + 1 == all[r].size();
      text += (i == 0 ? "" : "  ") + (to_left ? cell + space : space + cell);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    // Colour goes around whole lines, so that columns stay in place.
    const bool coloured = r > 0 && r <= colours.size() && !colours[r - 1].empty();
    out += coloured ? colours[r - 1] + text + "\033[0m\n" : text + "\n";
  }
  return out;
}

}  // namespace kv::kvctl

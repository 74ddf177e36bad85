// Tables for terminals.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kv::kvctl {

using Row = std::vector<std::string>;
// Boxes; heads in capitals and centred, cells to the right.
std::string Table(const Row& head, const std::vector<Row>& rows);
// Columns without boxes: the first `left` and the last to the left, the others to the right. With
// `colours`, one escape sequence for each row (empty: none), each row stands in its own.
std::string Columns(const Row& head, const std::vector<Row>& rows, size_t left,
                    const Row& colours = {});
// Columns that terminal cells are counted in.
size_t Width(std::string_view text);

}  // namespace kv::kvctl

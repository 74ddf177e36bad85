#include "client/kvctl/tree.h"

#include <fmt/format.h>

#include <algorithm>

#include "client/kvctl/go_text.h"

namespace kv::kvctl {
namespace {

using Node = Tree::Node;

size_t DepthOf(const Node& node) {
  size_t deepest = 0;
  for (const auto& [name, child] : node.children) deepest = std::max(deepest, 1 + DepthOf(child));
  return deepest;
}

// Forgets what is deeper; returns how many lines are left.
size_t Prune(Node& node, size_t depth) {
  if (depth == 0) node.children.clear();
  size_t lines = node.children.size();
  for (auto& [name, child] : node.children) lines += Prune(child, depth - 1);
  return lines;
}

// As it is, unless a terminal would take some of it for an order.
std::string Printable(std::string_view name) {
  std::string quoted = GoQuoted(name);
  return quoted.substr(1, quoted.size() - 2) == name ? std::string(name) : quoted;
}

std::string Count(int64_t keys) { return fmt::format("{} key{}", keys, keys == 1 ? "" : "s"); }

// Keys of a node that none of its lines tells of.
int64_t Untold(const Node& node) {
  int64_t told = node.itself ? 1 : 0;
  for (const auto& [name, child] : node.children) told += child.keys;
  return node.children.empty() ? 0 : node.keys - told;
}

std::string Line(std::string_view name, const Node& node, bool sizes) {
  std::string line = Printable(name);
  if (!node.itself || node.keys > 1) line += "  " + Count(node.keys);
  if (node.itself && node.keys > 1) line += " with itself";
  if (sizes) line += "  " + HumanBytes(node.bytes);
  return line + "\n";
}

void Below(const Node& node, const std::string& margin, bool sizes, std::string& out) {
  const int64_t untold = Untold(node);
  size_t left = node.children.size();
  for (const auto& [name, child] : node.children) {
    const bool last = --left == 0 && untold == 0;
    out += margin + (last ? "└── " : "├── ") + Line(name, child, sizes);
    Below(child, margin + (last ? "    " : "│   "), sizes, out);
  }
  if (untold > 0) out += margin + "└── … " + Count(untold) + " more\n";
}

void Json(std::string_view name, const Node& node, bool sizes, std::string& out) {
  out += fmt::format("{{\"name\":{}{},\"keys\":{}", GoJsonString(name),
                     node.itself ? ",\"key\":true" : "", node.keys);
  if (sizes) out += fmt::format(",\"bytes\":{}", node.bytes);
  if (!node.children.empty()) {
    out += ",\"children\":[";
    for (const auto& [piece, child] : node.children) {
      if (out.back() == '}') out += ',';
      Json(piece, child, sizes, out);
    }
    out += ']';
  }
  out += '}';
}

}  // namespace

void Tree::Add(std::string_view key, uint64_t bytes) {
  Node* at = &root_;
  ++at->keys;
  at->bytes += bytes;
  for (size_t depth = 0; depth < depth_ && !key.empty(); ++depth) {
    const std::string piece(
        key.substr(0, key.find('/') == key.npos ? key.npos : key.find('/') + 1));
    key.remove_prefix(piece.size());
    auto child = at->children.find(piece);
    if (child == at->children.end()) {
      if (lines_ >= max_) {
        cut_ = true;
        // What is given up may hold the place where this key stands.
        if (DepthOf(root_) > 1) GiveUpDeepest();
        if (lines_ >= max_ || depth >= depth_) return;
      }
      child = at->children.emplace(piece, Node()).first;
      ++lines_;
    }
    at = &child->second;
    ++at->keys;
    at->bytes += bytes;
  }
  if (key.empty()) at->itself = true;
}

void Tree::GiveUpDeepest() {
  depth_ = DepthOf(root_) - 1;
  lines_ = Prune(root_, depth_);
}

std::string TreeText(const Tree& tree, std::string_view name, bool sizes) {
  std::string out = name.empty() ? "" : Printable(name) + "  ";
  out += Count(tree.root().keys);
  if (tree.root().itself && !name.empty()) out += " with itself";
  out += sizes ? "  " + HumanBytes(tree.root().bytes) + "\n" : "\n";
  Below(tree.root(), "", sizes, out);
  return out;
}

std::string TreeJson(const Tree& tree, std::string_view name, bool sizes) {
  std::string out;
  Json(name, tree.root(), sizes, out);
  return out + "\n";
}

}  // namespace kv::kvctl

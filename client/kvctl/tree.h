// Keys as a tree, cut at each '/'.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

namespace kv::kvctl {

// Bounded: past so many lines the deepest level is given up, and only counted; of a level that
// cannot be given up, what comes too late is counted.
class Tree {
 public:
  struct Node {
    bool itself = false;                   // There is a key that ends here.
    int64_t keys = 0;                      // At and below it.
    uint64_t bytes = 0;                    // Of these keys and their values.
    std::map<std::string, Node> children;  // By the piece of the key, its '/' included.
  };

  // Depth 0: no limit.
  Tree(size_t depth, size_t lines_max) : depth_(depth == 0 ? SIZE_MAX : depth), max_(lines_max) {}

  void Add(std::string_view key, uint64_t bytes);
  const Node& root() const { return root_; }
  size_t depth() const { return depth_; }  // That is kept; may be less than what was asked for.
  bool cut() const { return cut_; }        // Something is only counted because of the bound.

 private:
  void GiveUpDeepest();

  Node root_;
  size_t depth_;
  const size_t max_;
  size_t lines_ = 0;
  bool cut_ = false;
};

// Lines for people, below a line of its own for `name`; sizes if they are known.
std::string TreeText(const Tree& tree, std::string_view name, bool sizes);
// {"name":…,"key":true,"keys":…,"bytes":…,"children":[…]}; without "key" where no key ends, without
// bytes if they are not known.
std::string TreeJson(const Tree& tree, std::string_view name, bool sizes);

}  // namespace kv::kvctl

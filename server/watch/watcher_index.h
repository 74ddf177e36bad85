// Who watches a key: one look-up for those of that key alone, and a walk that passes little but the
// ranges that hold it. Neither grows with the watchers of other keys but by a logarithm.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>

#include "server/watch/watcher.h"

namespace kv {

class WatcherIndex {
 public:
  WatcherIndex() = default;
  ~WatcherIndex() = default;
  WatcherIndex(const WatcherIndex&) = delete;
  WatcherIndex& operator=(const WatcherIndex&) = delete;

  // The index points to the watcher, which stays where it is, and its range, until it is removed.
  void Add(Watcher& watcher);
  void Remove(Watcher& watcher);

  // `visit` is called with each watcher whose range holds `key`; it leaves the index as it is.
  template <typename Visit>
  void ForEach(std::string_view key, const Visit& visit) const {
    if (const auto at = keys_.find(key); at != keys_.end()) {
      for (Watcher* each = at->second.front(); each != nullptr; each = each->after) visit(*each);
    }
    Walk(root_.get(), key, visit);
  }

 private:
  // Ranges, each once, in a search tree by their first keys. A node knows where the last of the
  // ranges below it ends (an interval tree), and the tree is a heap by priorities drawn from the
  // order of insertion (a treap), which keeps it shallow whatever comes.
  struct Node {
    KeyRange range;
    const std::string* last_end = nullptr;  // Of this node and those below.
    WatcherList watchers;
    uint64_t priority = 0;
    std::unique_ptr<Node> left;
    std::unique_ptr<Node> right;
  };
  using NodePtr = std::unique_ptr<Node>;

  static bool EndsBehind(const std::string& end, std::string_view key) {
    return end.empty() || end > key;
  }
  static bool Less(const KeyRange& a, const KeyRange& b);
  static void Refresh(Node& node);
  static void Insert(NodePtr& at, NodePtr node);
  static void Split(NodePtr tree, const KeyRange& by, NodePtr& below, NodePtr& above);
  static NodePtr Merge(NodePtr below, NodePtr above);
  static void Erase(NodePtr& at, const KeyRange& range);
  Node* Find(const KeyRange& range) const;

  template <typename Visit>
  static void Walk(const Node* node, std::string_view key, const Visit& visit) {
    for (; node != nullptr && EndsBehind(*node->last_end, key); node = node->right.get()) {
      Walk(node->left.get(), key, visit);
      if (node->range.first > key) return;
      if (!EndsBehind(node->range.end, key)) continue;
      for (Watcher* each = node->watchers.front(); each != nullptr; each = each->after) {
        visit(*each);
      }
    }
  }

  // By key, which is the first watcher's own. Only looked up, never walked.
  std::unordered_map<std::string_view, WatcherList> keys_;
  NodePtr root_;
  uint64_t drawn_ = 0;
};

}  // namespace kv

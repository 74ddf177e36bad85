#include "server/watch/watcher_index.h"

#include <tuple>
#include <utility>

#include "storage/check.h"

namespace kv {
namespace {

// Scatters a counter: the same tree on every run, and no way for a client to make it deep.
uint64_t Scatter(uint64_t value) {
  value *= 0x9e3779b97f4a7c15;
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

}  // namespace

void WatcherIndex::Add(Watcher& watcher) {
  if (watcher.one_key) {
    keys_[watcher.range.first].PushBack(watcher);
    return;
  }
  Node* node = Find(watcher.range);
  if (node == nullptr) {
    auto made = std::make_unique<Node>();
    node = made.get();
    node->range = watcher.range;
    node->priority = Scatter(++drawn_);
    Refresh(*node);
    Insert(root_, std::move(made));
  }
  node->watchers.PushBack(watcher);
}

void WatcherIndex::Remove(Watcher& watcher) {
  if (!watcher.one_key) {
    Node* node = Find(watcher.range);
    KV_CHECK(node != nullptr, "a watcher in step is not in the index");
    node->watchers.Remove(watcher);
    if (node->watchers.empty()) Erase(root_, watcher.range);
    return;
  }
  const auto at = keys_.find(watcher.range.first);
  KV_CHECK(at != keys_.end(), "a watcher in step is not in the index");
  const bool lent_the_key = at->second.front() == &watcher;
  at->second.Remove(watcher);
  if (at->second.empty()) {
    keys_.erase(at);
  } else if (lent_the_key) {
    auto node = keys_.extract(at);
    node.key() = node.mapped().front()->range.first;
    keys_.insert(std::move(node));
  }
}

bool WatcherIndex::Less(const KeyRange& a, const KeyRange& b) {
  return std::tie(a.first, a.end) < std::tie(b.first, b.end);
}

void WatcherIndex::Refresh(Node& node) {
  node.last_end = &node.range.end;
  for (const Node* below : {node.left.get(), node.right.get()}) {
    if (below == nullptr || node.last_end->empty()) continue;
    if (EndsBehind(*below->last_end, *node.last_end)) node.last_end = below->last_end;
  }
}

void WatcherIndex::Insert(NodePtr& at, NodePtr node) {
  if (at == nullptr || node->priority > at->priority) {
    Split(std::move(at), node->range, node->left, node->right);
    at = std::move(node);
  } else {
    const bool left = Less(node->range, at->range);
    Insert(left ? at->left : at->right, std::move(node));
  }
  Refresh(*at);
}

void WatcherIndex::Split(NodePtr tree, const KeyRange& by, NodePtr& below, NodePtr& above) {
  if (tree == nullptr) return;
  if (Less(tree->range, by)) {
    NodePtr rest = std::move(tree->right);
    Split(std::move(rest), by, tree->right, above);
    Refresh(*tree);
    below = std::move(tree);
  } else {
    NodePtr rest = std::move(tree->left);
    Split(std::move(rest), by, below, tree->left);
    Refresh(*tree);
    above = std::move(tree);
  }
}

WatcherIndex::NodePtr WatcherIndex::Merge(NodePtr below, NodePtr above) {
  if (below == nullptr) return above;
  if (above == nullptr) return below;
  NodePtr& top = below->priority > above->priority ? below : above;
  if (&top == &below) {
    below->right = Merge(std::move(below->right), std::move(above));
  } else {
    above->left = Merge(std::move(below), std::move(above->left));
  }
  Refresh(*top);
  return std::move(top);
}

void WatcherIndex::Erase(NodePtr& at, const KeyRange& range) {
  KV_CHECK(at != nullptr, "a range to erase is not in the tree");
  if (at->range == range) {
    at = Merge(std::move(at->left), std::move(at->right));
  } else {
    Erase(Less(range, at->range) ? at->left : at->right, range);
  }
  if (at != nullptr) Refresh(*at);
}

WatcherIndex::Node* WatcherIndex::Find(const KeyRange& range) const {
  Node* node = root_.get();
  while (node != nullptr && node->range != range) {
    node = (Less(range, node->range) ? node->left : node->right).get();
  }
  return node;
}

}  // namespace kv

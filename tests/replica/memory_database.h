// A Database in memory for tests of what stands on it: an ordered map that can be told to fail, and
// that remembers what a power loss would leave.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "storage/database.h"

namespace kv::test {

// What survives the process: hand the same disk to the next MemoryDatabase.
struct MemoryDisk {
  std::map<std::string, std::string, std::less<>> synced;
  bool fail_writes = false;  // Every write fails from now on, and nothing of it is kept.
  int syncs = 0;
};

class MemoryDatabase final : public Database {
 public:
  explicit MemoryDatabase(MemoryDisk* disk) : disk_(disk), map_(disk->synced) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
    auto it = map_.find(key);
    return it == map_.end() ? std::nullopt : std::optional(it->second);
  }
  absl::StatusOr<std::optional<std::string>> GetPersisted(std::string_view key) const override {
    auto it = disk_->synced.find(key);
    return it == disk_->synced.end() ? std::nullopt : std::optional(it->second);
  }
  std::shared_ptr<const DatabaseView> View() const override {
    return std::make_shared<MapView>(std::make_shared<const Map>(map_));
  }
  absl::Status Write(const WriteSet& writes, Sync sync) override {
    if (disk_->fail_writes) return absl::DataLossError("the disk is gone");
    for (const WriteSet::Change& change : writes.changes()) {
      if (change.value) {
        map_.insert_or_assign(std::string(change.key), std::string(*change.value));
      } else {
        map_.erase(std::string(change.key));
      }
    }
    if (sync == Sync::kYes) {
      ++disk_->syncs;
      disk_->synced = map_;
    }
    return absl::OkStatus();
  }
  absl::Status Flush() override {
    disk_->synced = map_;
    return absl::OkStatus();
  }
  absl::Status Checkpoint(const std::string&) override {
    return absl::UnimplementedError("no files here");
  }
  uint64_t SizeOnDisk() const override { return 0; }
  uint64_t UnflushedBytes() const override { return 0; }

 private:
  using Map = std::map<std::string, std::string, std::less<>>;

  class MapCursor final : public Cursor {
   public:
    MapCursor(std::shared_ptr<const Map> map, std::string_view lower, std::string_view upper)
        : map_(std::move(map)),
          begin_(map_->lower_bound(lower)),
          end_(upper.empty() ? map_->end() : map_->lower_bound(upper)),
          at_(end_) {}
    void Seek(std::string_view key) override {
      at_ = map_->lower_bound(key);
      if (begin_ != map_->end() && at_ != map_->end() && at_->first < begin_->first) at_ = begin_;
      valid_ = at_ != end_ && at_ != map_->end();
    }
    void SeekForPrev(std::string_view key) override {
      auto after = map_->upper_bound(key);
      valid_ = after != begin_;
      if (valid_) at_ = std::prev(after);
    }
    void Next() override { valid_ = ++at_ != end_; }
    void Prev() override {
      valid_ = at_ != begin_;
      if (valid_) --at_;
    }
    bool Valid() const override { return valid_; }
    std::string_view key() const override { return at_->first; }
    std::string_view value() const override { return at_->second; }
    absl::Status status() const override { return absl::OkStatus(); }

   private:
    std::shared_ptr<const Map> map_;
    Map::const_iterator begin_;
    Map::const_iterator end_;
    Map::const_iterator at_;
    bool valid_ = false;
  };
  class MapView final : public DatabaseView {
   public:
    explicit MapView(std::shared_ptr<const Map> map) : map_(std::move(map)) {}
    absl::StatusOr<std::optional<std::string>> Get(std::string_view key) const override {
      auto it = map_->find(key);
      return it == map_->end() ? std::nullopt : std::optional(it->second);
    }
    std::unique_ptr<Cursor> NewCursor(std::string_view lower,
                                      std::string_view upper) const override {
      return std::make_unique<MapCursor>(map_, lower, upper);
    }

   private:
    std::shared_ptr<const Map> map_;
  };

  MemoryDisk* const disk_;
  Map map_;
};

}  // namespace kv::test

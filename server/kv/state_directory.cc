#include "server/kv/state_directory.h"

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "storage/check.h"
#include "storage/files.h"
#include "storage/mark.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr std::string_view kStateFile = "STATE";
constexpr std::string_view kPrefix = "state-";

std::string NameOf(uint64_t number) { return fmt::format("{}{:06}", kPrefix, number); }

// Nothing: not the name of a state directory.
std::optional<uint64_t> NumberOf(std::string_view name) {
  if (name.substr(0, kPrefix.size()) != kPrefix) return std::nullopt;
  const std::string_view digits = name.substr(kPrefix.size());
  if (digits.size() < 6 || digits.size() > 18) return std::nullopt;
  uint64_t number = 0;
  for (const char digit : digits) {
    if (digit < '0' || digit > '9') return std::nullopt;
    number = 10 * number + static_cast<uint64_t>(digit - '0');
  }
  return number;
}

}  // namespace

StateDirectory::StateDirectory(rocksdb::Env* env, std::string data_dir, DatabaseOptions options,
                               OpenDatabase open)
    : env_(env),
      data_dir_(std::move(data_dir)),
      options_([&options] {
        options.write_ahead_log = false;
        return std::move(options);
      }()),
      open_(open ? std::move(open)
                 : [env](const std::string& path, const DatabaseOptions& database_options) {
                     return OpenRocksDatabase(env, path, database_options);
                   }) {}

absl::StatusOr<std::string> StateDirectory::ReadName() const {
  const std::string path = PathOf(std::string(kStateFile));
  ASSIGN_OR_RETURN(std::optional<std::string> text, ReadFile(env_, path));
  if (!text) return std::string();
  if (!text->empty() && text->back() == '\n') text->pop_back();
  if (!NumberOf(*text)) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} does not name a state directory (\"state-\" and digits); write the name "
                      "of the one that is there into it, or start with an empty data directory as "
                      "a new member",
                      path);
  }
  return *std::move(text);
}

absl::StatusOr<bool> StateDirectory::Exists() const {
  ASSIGN_OR_RETURN(const std::string name, ReadName());
  return !name.empty();
}

absl::Status StateDirectory::RemoveOthers(const std::string& kept) const {
  ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env_, data_dir_));
  for (const std::string& name : names) {
    if (NumberOf(name) && name != kept) RETURN_IF_ERROR(RemoveDirectory(env_, PathOf(name)));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<Database>> StateDirectory::OpenAt(const std::string& name) {
  DatabaseOptions options = options_;
  options.create_if_missing = false;
  ASSIGN_OR_RETURN(std::unique_ptr<Database> database, open_(PathOf(name), options));
  auto fate = std::make_shared<Fate>();
  next_fate_ = fate;
  // Readers may hold the database of a state that is replaced; the last one removes its files.
  return std::shared_ptr<Database>(database.release(),
                                   [env = env_, path = PathOf(name), fate](Database* closed) {
                                     delete closed;
                                     // What cannot be removed now is left over, and removed at the
                                     // next start.
                                     if (fate->removed) RemoveDirectory(env, path).IgnoreError();
                                   });
}

absl::StatusOr<std::shared_ptr<Database>> StateDirectory::Open() {
  ASSIGN_OR_RETURN(const std::string name, ReadName());
  if (name.empty()) {
    return MakeStatus(absl::StatusCode::kNotFound, "{} holds no state", data_dir_);
  }
  ASSIGN_OR_RETURN(const bool there, FileExists(env_, PathOf(name)));
  if (!there) {
    return MakeStatus(absl::StatusCode::kDataLoss,
                      "{} names {}, which is not there; restore it, or start with an empty data "
                      "directory as a new member",
                      PathOf(std::string(kStateFile)), name);
  }
  // A process that died while it switched may have left a STATE that reads show and power loss
  // takes back, to a directory that is removed here.
  RETURN_IF_ERROR(SyncDirectory(env_, data_dir_));
  RETURN_IF_ERROR(RemoveOthers(name));
  ASSIGN_OR_RETURN(std::shared_ptr<Database> database, OpenAt(name));
  current_ = name;
  current_fate_ = std::move(next_fate_);
  return database;
}

absl::StatusOr<std::unique_ptr<Database>> StateDirectory::Create() {
  RETURN_IF_ERROR(RemoveOthers({}));
  next_ = NameOf(1);
  RETURN_IF_ERROR(CreateDirectory(env_, PathOf(next_)));
  DatabaseOptions options = options_;
  options.create_if_missing = true;
  return open_(PathOf(next_), options);
}

absl::StatusOr<std::shared_ptr<Database>> StateDirectory::Place(const Snapshot& snapshot) {
  const std::optional<uint64_t> number = NumberOf(current_);
  KV_CHECK(number, "a snapshot is adopted where there is a state");
  next_ = NameOf(*number + 1);
  RETURN_IF_ERROR(RemoveDirectory(env_, PathOf(next_)));
  RETURN_IF_ERROR(PlaceSnapshot(env_, snapshot, PathOf(next_)));
  return OpenAt(next_);
}

absl::StatusOr<std::shared_ptr<Database>> StateDirectory::Link(const Snapshot& snapshot) {
  RETURN_IF_ERROR(RemoveOthers({}));
  next_ = NameOf(1);
  RETURN_IF_ERROR(LinkSnapshot(env_, snapshot, PathOf(next_)));
  return OpenAt(next_);
}

absl::Status StateDirectory::Switch() {
  KV_CHECK(!next_.empty(), "there is nothing to switch to");
  RETURN_IF_ERROR(SyncDirectory(env_, data_dir_));
  RETURN_IF_ERROR(WriteFileAtomically(env_, PathOf(std::string(kStateFile)), next_ + "\n"));
  if (current_fate_ != nullptr) current_fate_->removed = true;
  current_ = std::exchange(next_, std::string());
  current_fate_ = std::move(next_fate_);
  return absl::OkStatus();
}

}  // namespace kv

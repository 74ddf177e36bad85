// What a Node does only under discovery: it halts instead of ending, waits for the marker before
// clients are answered, and lets a removed disk begin anew.
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <rocksdb/env.h>

#include <algorithm>
#include <utility>

#include "server/node.h"
#include "storage/files.h"
#include "storage/status.h"

namespace kv {
namespace {

constexpr absl::Duration kFormTick = absl::Milliseconds(200);
constexpr absl::Duration kFormedTick = absl::Seconds(1);
constexpr absl::Duration kReportInterval = absl::Seconds(10);
constexpr std::string_view kAside = "removed-";

}  // namespace

NodeStanding Node::standing() const {
  const MutexLock held(standing_mutex_);
  return standing_;
}

void Node::SetStanding(cluster::State state, std::vector<std::string> waits) {
  const MutexLock held(standing_mutex_);
  standing_ = {.state = state, .waits = std::move(waits)};
}

// A volume that is mounted under another slot's name: neither is what it seems.
absl::Status Node::CheckSlot() const {
  if (!config_.discovery || identity_.state == cluster::State::kBlank ||
      identity_.name == config_.name) {
    return absl::OkStatus();
  }
  return MakeStatus(
      absl::StatusCode::kFailedPrecondition,
      "{} holds the data of \"{}\", and this is \"{}\"; give each its own volume back",
      config_.data_dir, identity_.name, config_.name);
}

void Node::ChooseNextUuid() {
  if (!identity_.next_uuid.empty()) return;
  const uint64_t high = runtime_.Random();
  identity_.next_uuid = cluster::MakeNodeUuid(high, runtime_.Random());
}

// The identity says REMOVED or STALE, and the next uuid, durably. Every step below may be cut short
// and is done again by the next start: member/ is gone before the disk calls itself blank.
void Node::BeginAnew() {
  if (stopping_ || halted_) return;
  absl::Status done = PutAside();
  if (done.ok()) {
    cluster::Identity blank;
    blank.node_uuid = identity_.next_uuid;
    blank.boot_epoch = 1;
    done = cluster::WriteIdentity(env_, Path("identity"), blank);
    if (done.ok()) identity_ = std::move(blank);
  }
  if (!done.ok()) return Answer(std::move(done));
  Log(LineLevel::kInfo,
      fmt::format("this disk begins anew, as another one: uuid={}", identity_.node_uuid));
  driver_->Close();
  Found();
}

absl::Status Node::PutAside() {
  const std::string member = Path("member");
  ASSIGN_OR_RETURN(const bool exists, FileExists(env_, member));
  if (exists) {
    // At most one copy: the one that is about to be made.
    ASSIGN_OR_RETURN(const std::vector<std::string> names, ListDirectory(env_, config_.data_dir));
    for (const std::string& name : names) {
      if (name.starts_with(kAside)) RETURN_IF_ERROR(RemoveDirectory(env_, Path(name)));
    }
    const std::string aside = Path(fmt::format("{}{:x}", kAside, identity_.member_id));
    RETURN_IF_ERROR(FromRocks(env_->RenameFile(member, aside),
                              fmt::format("cannot rename {} to {}", member, aside)));
  }
  return SyncDirectory(env_, config_.data_dir);
}

// Once the disk votes again, nobody will want back what it held before.
void Node::RemoveOldCopies() {
  if (copies_gone_ || !replica_->Status().standing.members.IsVoter(identity_.member_id)) return;
  copies_gone_ = true;
  const absl::StatusOr<std::vector<std::string>> names = ListDirectory(env_, config_.data_dir);
  if (!names.ok()) return;
  for (const std::string& name : *names) {
    if (!name.starts_with(kAside)) continue;
    work_loop_->Post([this, path = Path(name)] {
      const absl::Status removed = RemoveDirectory(env_, path);
      Log(LineLevel::kInfo,
          fmt::format("removed what this disk held before: path={}{}", path,
                      removed.ok() ? "" : fmt::format(" failed={}", Message(removed))));
    });
  }
}

void Node::Form() {
  if (stopping_ || halted_) return;
  RemoveOldCopies();
  if (config_.marker != nullptr) {
    if (!forming_) {
      forming_ = std::make_unique<cluster::Forming>(identity_.cluster_id, identity_.formed);
    }
    const raft::Standing standing = replica_->Status().standing;
    CarryForming(forming_->Tick(standing.role == raft::Role::kLeader && standing.established));
  }
  const bool formed = !forming_ || forming_->formed();
  loop_->PostAfter(formed ? kFormedTick : kFormTick, [this] {
    loop_->AssertCurrent();
    Form();
  });
}

void Node::CarryForming(cluster::Forming::Output output) {
  if (stopping_ || halted_) return;
  if (!output.halt.empty()) return Halt(std::move(output.halt));
  if (!output.warning.empty()) Log(LineLevel::kWarn, output.warning);
  if (output.formed) {
    identity_.formed = true;
    absl::Status written = cluster::WriteIdentity(env_, Path("identity"), identity_);
    Answer(std::move(written));
  }
  if (output.read) {
    config_.marker->Read([this, door = door_](absl::StatusOr<cluster::Marker> marker) {
      door->Post([this, marker = std::move(marker)] {
        loop_->AssertCurrent();
        CarryForming(forming_->MarkerRead(marker));
      });
    });
  }
  if (output.write) {
    config_.marker->Write(*output.write, [this, door = door_](absl::Status status) {
      door->Post([this, status = std::move(status)] {
        loop_->AssertCurrent();
        CarryForming(forming_->MarkerWritten(status));
      });
    });
  }
  if (forming_->formed()) return;
  SetStanding(cluster::State::kMember, {forming_->Waits()});
  const absl::Duration now = runtime_.Uptime();
  if (form_said_ && now - *form_said_ < kReportInterval) return;
  if (form_said_) {
    Log(LineLevel::kInfo, fmt::format("a member, but clients are not answered yet; waiting for: {}",
                                      forming_->Waits()));
  }
  form_said_ = now;
}

// The process stays up, says why, and answers Hello as HALTED; it takes no part in anything.
void Node::Halt(std::string sentence) {
  if (halted_) return;
  halted_ = true;
  if (replica_) replica_->Stop(absl::ZeroDuration(), [] {});
  if (absl::Status opened = OpenPorts(); !opened.ok()) {
    started_ = nullptr;
    return config_.fatal(Message(opened));
  }
  if (driver_) return driver_->Halt(std::move(sentence));
  MakeDriver();
  driver_->Halt(std::move(sentence));
  driver_->Start([](absl::Status) {});
}

}  // namespace kv

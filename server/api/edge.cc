#include "server/api/edge.h"

#include <sys/statvfs.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "server/api/errors.h"
#include "server/kv/kv_machine.h"
#include "storage/check.h"

namespace kv::api {
namespace {

constexpr int kLeaderlessElections = 3;
constexpr size_t kWaitingReadsMax = 20'000;
// Smaller answers are not worth counting.
constexpr size_t kHeldBytesMin = size_t{64} << 10;
// Decision 14: without a quota, writes are refused while less than this part of the disk is free.
constexpr double kFreeMin = 0.10;

bool IsFull(const std::string& directory) {
  struct statvfs disk{};
  if (statvfs(directory.c_str(), &disk) != 0 || disk.f_blocks == 0) return false;
  return static_cast<double>(disk.f_bavail) < kFreeMin * static_cast<double>(disk.f_blocks);
}

}  // namespace

absl::Duration RequestTimeout(const Options& options) {
  return absl::Seconds(5) + 2 * options.election_timeout;
}

Edge::Edge(const Options& options, const Services::Parts& parts, Loop* readers)
    : options_(options), parts_(parts), readers_(readers), quota_bytes_(options.quota_bytes) {
  Refresh();
}

absl::Status Edge::Admit(const Call& call, OnLearner on_learner) const {
  if (on_learner == OnLearner::kRefused && learner()) {
    return ToStatus(Error::kNotSupportedForLearner);
  }
  if (!call.api_version_ok) return ToStatus(Error::kInvalidClientApiVersion);
  if (call.require_leader && replica().leader() == 0) return ToStatus(Error::kNoLeader);
  return absl::OkStatus();
}

absl::Duration Edge::TimeFor(const Call& call) const {
  return std::min(call.deadline, RequestTimeout(options_));
}

void Edge::FillHeader(etcdserverpb::ResponseHeader* header) const {
  header->set_cluster_id(replica().cluster_id());
  header->set_member_id(replica().id());
  header->set_raft_term(replica().term());
}

std::string Edge::WithHeader(std::string response) const {
  // Field 1, with a length that fits one byte: a revision takes at most 11.
  constexpr char kHeaderTag = 0x0a;
  etcdserverpb::ResponseHeader header;
  size_t header_bytes = 0;
  if (response.size() >= 2 && response[0] == kHeaderTag) {
    header_bytes = 2 + static_cast<unsigned char>(response[1]);
    KV_CHECK(header_bytes < 2 + 128 && header_bytes <= response.size(),
             "a reply of the machine has no proper header");
    header.ParseFromArray(response.data() + 2, static_cast<int>(header_bytes - 2));
  }
  FillHeader(&header);
  std::string filled{kHeaderTag, static_cast<char>(header.ByteSizeLong())};
  header.AppendToString(&filled);
  response.replace(0, header_bytes, filled);
  return response;
}

bool Edge::HasRoom(int64_t bytes) {
  if (bytes == 0) return true;
  const int64_t quota = quota_bytes();
  if (quota <= 0) return !disk_full_.load(std::memory_order_relaxed);
  const auto held = static_cast<int64_t>(db_bytes_.load(std::memory_order_relaxed));
  if (held + grown_bytes_.load(std::memory_order_relaxed) + bytes >= quota) {
    return false;
  }
  grown_bytes_.fetch_add(bytes, std::memory_order_relaxed);
  return true;
}

void Edge::RaiseNoSpace(const Call& call, Then then) {
  const RaisedAlarm raised{.type = etcdserverpb::NOSPACE, .member = replica().id()};
  if (quota_bytes() <= 0 || machine().cluster_version() < kMaintenanceVersion ||
      machine().maintenance().Raised(raised)) {
    return std::move(then)(ToStatus(Error::kNoSpace));
  }
  replica().Propose(RaiseAlarmCommand(raised), TimeFor(call),
                    [then = std::move(then)](const ProposalResult&) mutable {
                      std::move(then)(ToStatus(Error::kNoSpace));
                    });
}

void Edge::Read(const Call& call, Consistency consistency, Then then) const {
  if (consistency == Consistency::kSerializable) {
    std::move(then)(absl::OkStatus());
    return;
  }
  replica().Read(TimeFor(call), [then = std::move(then)](ReadResult result) mutable {
    std::move(then)(ToStatus(result.error));
  });
}

absl::Status Edge::ReadLater(Loop::Task work) {
  if (waiting_reads_.fetch_add(1) >= kWaitingReadsMax) {
    --waiting_reads_;
    return ToStatus(Error::kTooManyRequests);
  }
  readers_->Post([this, work = std::move(work)]() mutable {
    --waiting_reads_;
    std::move(work)();
  });
  return absl::OkStatus();
}

absl::Status Edge::CheckAnswerRoom() const {
  return answer_bytes_->load() >= options_.range_bytes_max ? ToStatus(Error::kTooManyRequests)
                                                           : absl::OkStatus();
}

std::shared_ptr<void> Edge::HoldAnswer(size_t bytes) const {
  if (bytes < kHeldBytesMin) return nullptr;
  *answer_bytes_ += bytes;
  // The transport may outlive the edge.
  return std::shared_ptr<void>(nullptr, [held = answer_bytes_, bytes](void*) { *held -= bytes; });
}

bool Edge::LeaderLost() const {
  return replica().leaderless() > kLeaderlessElections * options_.election_timeout;
}

void Edge::Refresh() {
  learner_ = machine().members().IsLearner(replica().id());
  grown_bytes_ = 0;
  db_bytes_ = machine().SizeOnDisk() + machine().UnflushedBytes();
  disk_full_ = IsFull(options_.data_dir);
}

}  // namespace kv::api

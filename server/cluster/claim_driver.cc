#include "server/cluster/claim_driver.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <utility>

#include "storage/status.h"

namespace kv::cluster {
namespace {

constexpr absl::Duration kCallTimeout = absl::Seconds(5);
constexpr absl::Duration kPause = absl::Milliseconds(500);
constexpr absl::Duration kReportInterval = absl::Seconds(10);

}  // namespace

ClaimDriver::ClaimDriver(Parts parts, Claim claim, std::vector<std::string> urls)
    : parts_(std::move(parts)),
      claim_(std::move(claim)),
      urls_(std::move(urls)),
      door_(std::make_shared<Door>()),
      reported_(parts_.runtime->Uptime()) {
  door_->Open(parts_.loop);
}

ClaimDriver::~ClaimDriver() { Close(); }

void ClaimDriver::Close() { door_->Close(); }

void ClaimDriver::Start(Done done) {
  done_ = std::move(done);
  if (urls_.empty()) {
    auto answer = std::move(done_);
    done_ = nullptr;
    std::move(answer)(MakeStatus(
        absl::StatusCode::kFailedPrecondition,
        "--initial-cluster-state=existing, but --initial-cluster lists nobody else; list at least "
        "one member that runs"));
    return;
  }
  parts_.log(
      fmt::format("asking the cluster for the record that was added for this member: "
                  "peer-urls={} members={}",
                  fmt::join(claim_.peer_urls, ","), fmt::join(urls_, ",")));
  Ask();
}

void ClaimDriver::Ask() {
  if (done_ == nullptr) return;
  Report();
  const std::string& url = urls_[asked_++ % urls_.size()];
  parts_.network->Call(url, kClaimCall, EncodeClaim(claim_), kCallTimeout,
                       [this, door = door_, url](absl::StatusOr<std::string> answer) mutable {
                         door->Post([this, url, answer = std::move(answer)]() mutable {
                           OnAnswered(url, std::move(answer));
                         });
                       });
}

void ClaimDriver::AskLater() {
  parts_.loop->PostAfter(kPause, [this, door = door_] { door->Post([this] { Ask(); }); });
}

void ClaimDriver::OnAnswered(const std::string& url, absl::StatusOr<std::string> answer) {
  if (done_ == nullptr) return;
  absl::StatusOr<ClaimAnswer> decoded =
      answer.ok() ? DecodeClaimAnswer(*answer) : absl::StatusOr<ClaimAnswer>(answer.status());
  if (!decoded.ok()) {
    reasons_[url] = std::string(Message(decoded.status()));
    AskLater();
    return;
  }
  auto done = std::move(done_);
  done_ = nullptr;
  if (!decoded->refusal.empty()) {
    std::move(done)(MakeStatus(absl::StatusCode::kFailedPrecondition, "{}", decoded->refusal));
  } else {
    std::move(done)(*std::move(decoded));
  }
}

void ClaimDriver::Report() {
  if (parts_.runtime->Uptime() - reported_ < kReportInterval) return;
  reported_ = parts_.runtime->Uptime();
  std::vector<std::string> missing;
  for (const auto& [url, reason] : reasons_) missing.push_back(fmt::format("{}: {}", url, reason));
  parts_.log(fmt::format("not a member yet; nobody could answer: {}", fmt::join(missing, "; ")));
}

}  // namespace kv::cluster

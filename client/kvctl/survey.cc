#include "client/kvctl/survey.h"

#include <algorithm>
#include <future>
#include <set>
#include <tuple>
#include <utility>

namespace kv::kvctl {
namespace {

client::Answer<pb::StatusResponse> AskStatus(const Session& session, const std::string& endpoint) {
  client::Options options = session.options();
  options.endpoints = {endpoint};
  if (absl::Status status = client::Client::Check(options); !status.ok()) {
    client::Answer<pb::StatusResponse> answer;
    answer.status = status;
    return answer;
  }
  client::CallOptions call = session.call_options();
  // A member that is down should not hold the picture up for long.
  call.timeout = std::min(call.timeout, session.options().dial_timeout + absl::Seconds(1));
  return session.Connect(endpoint)->CallAndWait(client::kStatus, pb::StatusRequest(), call);
}

// "no endpoint can be reached: HOST: why" is about one endpoint here, which the table names.
std::string Why(const std::string& endpoint, const absl::Status& status) {
  std::string text = Text(status);
  std::string known = "no endpoint can be reached: " + endpoint + ": ";
  return text.starts_with(known) ? text.substr(known.size()) : text;
}

// Asks the endpoints that were named, and the members whose status that did not bring at their own.
class Survey {
 public:
  explicit Survey(const Session& session) : session_(session) {}

  absl::StatusOr<Picture> Take() {
    Ask(session_.options().endpoints);
    auto members =
        session_.Connect()->CallAndWait(client::kMemberList, pb::MemberListRequest(), Patience());
    std::vector<std::string> more;
    for (const pb::Member& member : members.response.members()) {
      if (Seen(member.id()) != nullptr) continue;
      for (const std::string& url : member.clienturls()) {
        if (!asked_.contains(Address(url))) more.push_back(url);
      }
    }
    Ask(more);
    if (std::none_of(lines_.begin(), lines_.end(), [](const Line& l) { return l.status; }) &&
        !members.ok()) {
      return Refused(Text(members.status), absl::StatusCode::kUnavailable);
    }
    return Assemble(members.response, members.ok());
  }

 private:
  client::CallOptions Patience() const {
    client::CallOptions call = session_.call_options();
    call.timeout = std::min(call.timeout, 2 * session_.options().dial_timeout);
    return call;
  }

  void Ask(const std::vector<std::string>& endpoints) {
    std::vector<std::pair<std::string, std::future<client::Answer<pb::StatusResponse>>>> asked;
    for (const std::string& endpoint : endpoints) {
      if (!asked_.insert(Address(endpoint)).second) continue;
      asked.emplace_back(endpoint, std::async(std::launch::async, [this, endpoint] {
                           return AskStatus(session_, endpoint);
                         }));
    }
    for (auto& [endpoint, future] : asked) {
      client::Answer<pb::StatusResponse> answer = future.get();
      Line line{.endpoint = endpoint, .name = {}, .status = {}, .error = {}};
      if (answer.ok()) {
        line.id = answer.response.header().member_id();
        line.status = std::move(answer.response);
      } else {
        line.error = Why(endpoint, answer.status);
      }
      // Two addresses of one member make one line.
      if (line.status && Seen(line.id) != nullptr) continue;
      lines_.push_back(std::move(line));
    }
  }

  Line* Seen(uint64_t id) {
    for (Line& line : lines_) {
      if (line.status && line.id == id) return &line;
    }
    return nullptr;
  }

  Picture Assemble(const pb::MemberListResponse& members, bool known) {
    Picture picture;
    std::set<std::string> used;
    for (const pb::Member& member : members.members()) {
      Line line{
          .endpoint = {}, .name = member.name(), .id = member.id(), .status = {}, .error = {}};
      if (Line* seen = Seen(member.id())) {
        line.endpoint = seen->endpoint;
        line.status = seen->status;
      } else {
        for (const std::string& url : member.clienturls()) {
          for (const Line& tried : lines_) {
            if (Address(tried.endpoint) != Address(url)) continue;
            line.endpoint = tried.endpoint;
            line.error = tried.status ? "another member answers here" : tried.error;
          }
        }
        if (line.endpoint.empty()) line.error = "has published no client URL";
      }
      used.insert(Address(line.endpoint));
      picture.lines.push_back(std::move(line));
    }
    std::sort(picture.lines.begin(), picture.lines.end(), [](const Line& a, const Line& b) {
      return std::tie(a.name, a.id) < std::tie(b.name, b.id);
    });
    for (Line& line : lines_) {
      if (used.contains(Address(line.endpoint))) continue;
      if (known && line.status) line.error = "not in the member list";
      picture.lines.push_back(line);
    }
    uint64_t term = 0;
    for (const Line& line : picture.lines) {
      if (!line.status || line.status->raftterm() < term) continue;
      if (line.status->raftterm() > term) picture.leader = 0;
      term = line.status->raftterm();
      if (line.status->leader() != 0) picture.leader = line.status->leader();
    }
    for (const Line& line : picture.lines) {
      if (line.status && (line.id == picture.leader || picture.leader == 0)) {
        picture.leader_index = std::max(picture.leader_index, line.status->raftindex());
      }
    }
    return picture;
  }

  const Session& session_;
  std::set<std::string> asked_;  // Addresses.
  std::vector<Line> lines_;
};

}  // namespace

absl::StatusOr<Picture> TakeSurvey(const Session& session) { return Survey(session).Take(); }

std::string_view Role(const pb::StatusResponse& status) {
  if (status.header().member_id() == status.leader()) return "leader";
  return status.islearner() ? "learner" : "follower";
}

uint64_t Lag(const Picture& picture, const pb::StatusResponse& status) {
  uint64_t applied = status.raftappliedindex();
  return picture.leader_index > applied ? picture.leader_index - applied : 0;
}

std::string Address(std::string endpoint) {
  for (std::string_view scheme : {"http://", "https://"}) {
    if (endpoint.starts_with(scheme)) endpoint.erase(0, scheme.size());
  }
  return endpoint;
}

std::string Errors(const Line& line) {
  std::string text = line.error;
  if (line.status) {
    for (const std::string& error : line.status->errors()) {
      text += (text.empty() ? "" : ", ") + error;
    }
  }
  return text;
}

}  // namespace kv::kvctl

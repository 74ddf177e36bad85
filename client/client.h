// A client of the etcd v3 API: endpoints, retries that are safe, answers that say what happened.
//
// One endpoint is used at a time; when it fails, the next in the list takes over, for every call.
// A read is tried again until its time is up. A write is tried again only when it certainly was not
// carried out; if that cannot be told, the caller gets Fate::kUnknown and decides. A write is sent
// only over a connection that stands, so an unreachable server never leaves a doubt.
//
// Thread-safe. Only the functions named ...AndWait, OpenStream, and a stream's Read and Finish
// wait. Every `done` is called exactly once, on a thread of gRPC's, and must not end the client.
#pragma once

#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "proto/etcd/election.pb.h"
#include "proto/etcd/lock.pb.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::client {

struct Options {
  // "host:port", "http://host:port", "https://host:port" or "unix:/path". At least one.
  std::vector<std::string> endpoints;
  // How long a call looks for an endpoint that takes a connection, over all endpoints together,
  // while they refuse it; servers that are only slow to answer get the call's whole time.
  absl::Duration dial_timeout = absl::Seconds(2);
  absl::Duration keepalive_time = absl::Seconds(10);  // Less than 10 s is not sent: servers object.
  absl::Duration keepalive_timeout = absl::Seconds(6);
  int send_bytes_max = 2 * 1024 * 1024;
  int receive_bytes_max = 0;  // 0: no limit.

  // An endpoint without a scheme is spoken to with TLS if this is set, one with https always.
  bool tls = false;
  bool skip_verify = false;
  std::string ca_pem;    // Empty: the system's.
  std::string cert_pem;  // With key_pem: who we are.
  std::string key_pem;

  std::string user;  // Empty: no authentication. Otherwise a token is asked for when needed.
  std::string password;
  std::string token;  // A token from elsewhere.
};

// Whether a call was carried out.
enum class Fate {
  kDone,     // It was; the response holds.
  kNotDone,  // Certainly not.
  kUnknown,  // It may have been, or may yet be.
};

template <typename Response>
struct Answer {
  absl::Status status;
  Fate fate = Fate::kUnknown;
  Response response;
  std::string endpoint;  // Who answered or failed last.

  bool ok() const { return status.ok(); }
};

template <typename Response>
using Done = absl::AnyInvocable<void(Answer<Response>) &&>;

struct CallOptions {
  absl::Duration timeout = absl::Seconds(5);  // Of the whole call, retries included.
  // Of one try of a read: a server that hangs is left for the next. A write is tried once.
  absl::Duration attempt_timeout = absl::InfiniteDuration();
};

enum class Kind { kRead, kWrite };

// A method of the API, and whether it may be repeated.
template <typename Req, typename Resp>
struct Method {
  using Request = Req;
  using Response = Resp;
  const char* path;
  Kind kind;
};

namespace pb = etcdserverpb;
inline constexpr Method<pb::RangeRequest, pb::RangeResponse> kRange{"/etcdserverpb.KV/Range",
                                                                    Kind::kRead};
inline constexpr Method<pb::RangeRequest, pb::RangeStreamResponse> kRangeStream{
    "/etcdserverpb.KV/RangeStream", Kind::kRead};
inline constexpr Method<pb::PutRequest, pb::PutResponse> kPut{"/etcdserverpb.KV/Put", Kind::kWrite};
inline constexpr Method<pb::DeleteRangeRequest, pb::DeleteRangeResponse> kDeleteRange{
    "/etcdserverpb.KV/DeleteRange", Kind::kWrite};
inline constexpr Method<pb::TxnRequest, pb::TxnResponse> kTxn{"/etcdserverpb.KV/Txn", Kind::kWrite};
// A transaction that holds no put and no delete, nor could.
inline constexpr Method<pb::TxnRequest, pb::TxnResponse> kReadOnlyTxn{"/etcdserverpb.KV/Txn",
                                                                      Kind::kRead};
inline constexpr Method<pb::CompactionRequest, pb::CompactionResponse> kCompact{
    "/etcdserverpb.KV/Compact", Kind::kWrite};
inline constexpr Method<pb::LeaseGrantRequest, pb::LeaseGrantResponse> kLeaseGrant{
    "/etcdserverpb.Lease/LeaseGrant", Kind::kWrite};
inline constexpr Method<pb::LeaseRevokeRequest, pb::LeaseRevokeResponse> kLeaseRevoke{
    "/etcdserverpb.Lease/LeaseRevoke", Kind::kWrite};
// For StreamAndWait: one request, one renewal. May be repeated.
inline constexpr Method<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse> kLeaseKeepAlive{
    "/etcdserverpb.Lease/LeaseKeepAlive", Kind::kRead};
inline constexpr Method<pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse> kLeaseTimeToLive{
    "/etcdserverpb.Lease/LeaseTimeToLive", Kind::kRead};
inline constexpr Method<pb::LeaseLeasesRequest, pb::LeaseLeasesResponse> kLeaseLeases{
    "/etcdserverpb.Lease/LeaseLeases", Kind::kRead};
// Both may be repeated for a lease that is not 0: it has one place in the line.
inline constexpr Method<v3lockpb::LockRequest, v3lockpb::LockResponse> kLock{"/v3lockpb.Lock/Lock",
                                                                             Kind::kRead};
inline constexpr Method<v3electionpb::CampaignRequest, v3electionpb::CampaignResponse> kCampaign{
    "/v3electionpb.Election/Campaign", Kind::kRead};
inline constexpr Method<pb::MemberListRequest, pb::MemberListResponse> kMemberList{
    "/etcdserverpb.Cluster/MemberList", Kind::kRead};
inline constexpr Method<pb::StatusRequest, pb::StatusResponse> kStatus{
    "/etcdserverpb.Maintenance/Status", Kind::kRead};
inline constexpr Method<pb::HashKVRequest, pb::HashKVResponse> kHashKV{
    "/etcdserverpb.Maintenance/HashKV", Kind::kRead};
inline constexpr Method<pb::SnapshotRequest, pb::SnapshotResponse> kSnapshot{
    "/etcdserverpb.Maintenance/Snapshot", Kind::kRead};
// Kind::kRead holds for the action GET alone.
inline constexpr Method<pb::AlarmRequest, pb::AlarmResponse> kAlarmGet{
    "/etcdserverpb.Maintenance/Alarm", Kind::kRead};
inline constexpr Method<pb::MemberAddRequest, pb::MemberAddResponse> kMemberAdd{
    "/etcdserverpb.Cluster/MemberAdd", Kind::kWrite};
inline constexpr Method<pb::MemberRemoveRequest, pb::MemberRemoveResponse> kMemberRemove{
    "/etcdserverpb.Cluster/MemberRemove", Kind::kWrite};
inline constexpr Method<pb::MemberUpdateRequest, pb::MemberUpdateResponse> kMemberUpdate{
    "/etcdserverpb.Cluster/MemberUpdate", Kind::kWrite};
inline constexpr Method<pb::MemberPromoteRequest, pb::MemberPromoteResponse> kMemberPromote{
    "/etcdserverpb.Cluster/MemberPromote", Kind::kWrite};
inline constexpr Method<pb::AlarmRequest, pb::AlarmResponse> kAlarmChange{
    "/etcdserverpb.Maintenance/Alarm", Kind::kWrite};
inline constexpr Method<pb::MoveLeaderRequest, pb::MoveLeaderResponse> kMoveLeader{
    "/etcdserverpb.Maintenance/MoveLeader", Kind::kWrite};
inline constexpr Method<pb::DefragmentRequest, pb::DefragmentResponse> kDefragment{
    "/etcdserverpb.Maintenance/Defragment", Kind::kWrite};
inline constexpr Method<pb::DowngradeRequest, pb::DowngradeResponse> kDowngrade{
    "/etcdserverpb.Maintenance/Downgrade", Kind::kWrite};
inline constexpr Method<pb::AuthenticateRequest, pb::AuthenticateResponse> kAuthenticate{
    "/etcdserverpb.Auth/Authenticate", Kind::kRead};

// What a failure means for a call that was sent.
struct Verdict {
  Fate fate = Fate::kUnknown;
  bool retry = false;  // Another try is safe and may help.
};
// The rule table (contract §1.3). `text` is the status message.
Verdict Judge(Kind kind, absl::StatusCode code, std::string_view text);

class Client {
  struct State;

 public:
  // Connects to nobody yet. An endpoint that cannot be understood is an InvalidArgument.
  static absl::Status Check(const Options& options);
  explicit Client(Options options);
  // Waits for the calls that are under way; each ends by its timeout.
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  template <typename Request, typename Response>
  void Call(const Method<Request, Response>& method, const Request& request,
            const CallOptions& options, std::type_identity_t<Done<Response>> done) {
    CallBytes(method.path, method.kind, request.SerializeAsString(), options,
              [done = std::move(done)](Answer<std::string> bytes) mutable {
                std::move(done)(Parse<Response>(std::move(bytes)));
              });
  }

  template <typename Request, typename Response>
  Answer<Response> CallAndWait(const Method<Request, Response>& method, const Request& request,
                               const CallOptions& options = {}) {
    std::promise<Answer<Response>> answered;
    auto answer = answered.get_future();
    Call(method, request, options,
         [&answered](Answer<Response> a) { answered.set_value(std::move(a)); });
    return answer.get();
  }

  // Calls a method that answers with a stream, handing each response to `each` on the waiting
  // thread's behalf, in order. It is started again only while nothing has arrived.
  template <typename Request, typename Response>
  Answer<Response> StreamAndWait(const Method<Request, Response>& method, const Request& request,
                                 const CallOptions& options,
                                 std::type_identity_t<std::function<void(Response)>> each) {
    return Parse<Response>(StreamBytesAndWait(method.path, request.SerializeAsString(), options,
                                              [&each](const std::string& bytes) {
                                                Response response;
                                                if (!response.ParseFromString(bytes)) return false;
                                                each(std::move(response));
                                                return true;
                                              }));
  }

  // One call that streams both ways, over one endpoint; ended before its client. Read and Finish
  // are for one thread, Write and Cancel for any.
  class Stream {
   public:
    ~Stream();  // Cancels it if it is not finished.
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;

    void Write(std::string request);    // In order; dropped once the stream is over.
    std::optional<std::string> Read();  // Waits. Nothing: it is over.
    absl::Status Finish();              // Why; once, after Read has given nothing.
    void Cancel();                      // Read gives nothing, soon.

   private:
    friend class Client;
    struct Call;
    Stream(std::unique_ptr<Call> call, State* state, size_t endpoint);
    bool Await(int tag);

    const std::unique_ptr<Call> call_;
    State* const state_;
    const size_t endpoint_;
  };

  // Looks for an endpoint that answers, as a read does, and begins the call there. When a stream
  // ends badly, the next begins at the next endpoint.
  absl::StatusOr<std::unique_ptr<Stream>> OpenStream(
      const char* path, const std::vector<std::pair<std::string, std::string>>& metadata,
      const CallOptions& options);

 private:
  class Endpoint;
  class Attempts;

  template <typename Response>
  static Answer<Response> Parse(Answer<std::string> bytes) {
    Answer<Response> answer;
    answer.status = std::move(bytes.status);
    answer.fate = bytes.fate;
    answer.endpoint = std::move(bytes.endpoint);
    if (answer.status.ok() && !answer.response.ParseFromString(bytes.response)) {
      answer.status = absl::Status(absl::StatusCode::kInternal,
                                   answer.endpoint + " sent a response that cannot be parsed");
    }
    return answer;
  }

  void CallBytes(const char* path, Kind kind, std::string request, const CallOptions& options,
                 Done<std::string> done);
  Answer<std::string> StreamBytesAndWait(const char* path, std::string request,
                                         const CallOptions& options,
                                         std::function<bool(const std::string&)> each);

  const std::unique_ptr<State> state_;
};

}  // namespace kv::client

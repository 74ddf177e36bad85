#include <fmt/format.h>

#include <charconv>
#include <cstdio>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"
#include "client/lease_keeper.h"

namespace kv::kvctl {
namespace {

absl::StatusOr<int64_t> ParseNumber(const std::string& text, int base, std::string_view complaint) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number, base);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) {
    return Refused(fmt::format("{} \"{}\"", complaint, text));
  }
  return number;
}

absl::StatusOr<int64_t> LeaseIn(const Arguments& arguments, std::string_view what) {
  if (arguments.rest.size() != 1) {
    return Refused(fmt::format("lease {} command needs a lease ID as argument", what));
  }
  return ParseNumber(arguments.rest[0], 16, "write the lease ID in hexadecimal, not as");
}

// Sends the request and prints what `shown` makes of the response.
template <typename Method, typename Shown>
int Run(const Arguments& arguments, const Method& method, const typename Method::Request& request,
        Shown shown) {
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = session->CanShow(shown(typename Method::Response())); !can.ok()) {
    return Fail(can);
  }
  auto answer = session->Connect()->CallAndWait(method, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(shown(answer.response), session->style()));
  return kOk;
}

constexpr auto kAsItIs = [](const auto& response) { return response; };

int Grant(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "lease grant command needs a TTL in seconds as argument");
  }
  absl::StatusOr<int64_t> ttl =
      ParseNumber(arguments.rest[0], 10, "write the TTL in whole seconds, not as");
  if (!ttl.ok()) return Fail(ttl.status());
  pb::LeaseGrantRequest request;
  request.set_ttl(*ttl);
  return Run(arguments, client::kLeaseGrant, request, kAsItIs);
}

int Revoke(const Arguments& arguments) {
  absl::StatusOr<int64_t> id = LeaseIn(arguments, "revoke");
  if (!id.ok()) return Fail(id.status());
  pb::LeaseRevokeRequest request;
  request.set_id(*id);
  return Run(arguments, client::kLeaseRevoke, request, [&id](const pb::LeaseRevokeResponse& r) {
    return RevokedLease{.id = *id, .response = r};
  });
}

int TimeToLive(const Arguments& arguments) {
  absl::StatusOr<int64_t> id = LeaseIn(arguments, "timetolive");
  if (!id.ok()) return Fail(id.status());
  pb::LeaseTimeToLiveRequest request;
  request.set_id(*id);
  request.set_keys(arguments.Bool("keys"));
  return Run(arguments, client::kLeaseTimeToLive, request,
             [&request](const pb::LeaseTimeToLiveResponse& r) {
               return LeaseTimeLeft{.with_keys = request.keys(), .response = r};
             });
}

int List(const Arguments& arguments) {
  return Run(arguments, client::kLeaseLeases, pb::LeaseLeasesRequest(), kAsItIs);
}

// Until the lease is gone.
int RenewForEver(client::Client& to, const Session& session, int64_t id) {
  bool renewed = false;
  client::LeaseKeeper keeper(&to, id,
                             {.left = absl::ZeroDuration(),
                              .call = session.call_options(),
                              .renewed =
                                  [&](const pb::LeaseKeepAliveResponse& response) {
                                    renewed = true;
                                    Print(*Show(response, session.style()));
                                    std::fflush(stdout);
                                  },
                              .ended = nullptr});
  const absl::Status end = keeper.Wait();
  if (!renewed && end.code() != absl::StatusCode::kNotFound) {
    return Fail(kBadConnection, Text(end));
  }
  if (session.style().format == Format::kSimple) {
    Print(fmt::format("lease {:016x} expired or revoked.\n", id));
  }
  return kOk;
}

int KeepAlive(const Arguments& arguments) {
  absl::StatusOr<int64_t> id = LeaseIn(arguments, "keep-alive");
  if (!id.ok()) return Fail(id.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = session->CanShow(pb::LeaseKeepAliveResponse()); !can.ok()) {
    return Fail(can);
  }
  const std::unique_ptr<client::Client> to = session->Connect();
  if (!arguments.Bool("once")) return RenewForEver(*to, *session, *id);
  auto answer = client::RenewLease(to.get(), *id, session->call_options());
  if (!answer.ok()) return Fail(kBadConnection, Complaint(answer));
  if (answer.response.ttl() <= 0) {
    return Fail(kBadConnection, "etcdserver: requested lease not found");
  }
  Print(*Show(answer.response, session->style()));
  return kOk;
}

}  // namespace

Command LeaseCommand() {
  return {
      .name = "lease",
      .group = "Leases",
      .summary = "Makes, ends and renews leases; keys that are put with --lease end with theirs",
      .children = {
          {.name = "grant",
           .summary = "Makes a lease and prints its ID",
           .arguments = "<ttl>",
           .text = "The TTL is in seconds.\n\nExamples:\n  kvctl lease grant 60",
           .run = Grant},
          {.name = "revoke",
           .summary = "Ends a lease and deletes its keys",
           .arguments = "<leaseID>",
           .text = "Examples:\n  kvctl lease revoke 694d6ee9ac06945d",
           .run = Revoke},
          {.name = "timetolive",
           .summary = "Prints how much time a lease has left",
           .arguments = "<leaseID>",
           .text = "Examples:\n  kvctl lease timetolive 694d6ee9ac06945d --keys",
           .flags = {{.name = "keys", .help = "print the keys of the lease, too"}},
           .run = TimeToLive},
          {.name = "list", .summary = "Prints the IDs of all leases", .run = List},
          {.name = "keep-alive",
           .summary = "Renews a lease until it is gone",
           .arguments = "<leaseID>",
           .text = "Examples:\n"
                   "  kvctl lease keep-alive 694d6ee9ac06945d\n"
                   "  kvctl lease keep-alive --once 694d6ee9ac06945d",
           .flags = {{.name = "once", .help = "renew it once and exit"}},
           .run = KeepAlive},
      }};
}

}  // namespace kv::kvctl

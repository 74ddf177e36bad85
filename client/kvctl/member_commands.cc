#include "client/kvctl/commands.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

int List(const Arguments& arguments) {
  absl::StatusOr<bool> serializable = Serializable(arguments.String("consistency"));
  if (!serializable.ok()) return Fail(serializable.status());
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  pb::MemberListRequest request;
  request.set_linearizable(!*serializable);
  auto answer =
      session->Connect()->CallAndWait(client::kMemberList, request, session->call_options());
  if (!answer.ok()) return Fail(kError, Complaint(answer));
  Print(*Show(answer.response, session->style()));
  return kOk;
}

}  // namespace

Command MemberCommand() {
  return {.name = "member",
          .group = "Cluster",
          .summary = "Who belongs to the cluster",
          .children = {{.name = "list",
                        .summary = "Lists the members",
                        .text = "In the simple format: ID, status, name, peer URLs, client URLs, "
                                "is learner.\n\n"
                                "Examples:\n"
                                "  kvctl member list -w table\n"
                                "  kvctl member list --consistency s   # without a quorum",
                        .flags = {{.name = "consistency",
                                   .type = FlagType::kString,
                                   .fallback = "l",
                                   .help = "l: linearizable; s: what the asked member knows",
                                   .choices = {"l", "s"}}},
                        .run = List}}};
}

}  // namespace kv::kvctl

// How services answer: with what the machine made of a command, or with a response of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "proto/internal/command.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/errors.h"
#include "server/kv/command.h"

namespace kv::api {

// Answers with the machine's reply, its header filled in.
template <typename Response>
void Propose(Edge* edge, const Call& call, std::string command, Done<Encoded<Response>> done) {
  edge->replica().Propose(std::move(command), edge->TimeFor(call),
                          [edge, done = std::move(done)](ProposalResult result) mutable {
                            if (result.error != ReplicaError::kNone) {
                              std::move(done)(ToStatus(result.error));
                            } else if (!result.reply.status.ok()) {
                              std::move(done)(std::move(result.reply.status));
                            } else {
                              std::string bytes = edge->WithHeader(std::move(result.reply.body));
                              auto hold = edge->HoldAnswer(bytes.size());
                              std::move(done)(Encoded<Response>{std::move(bytes), std::move(hold)});
                            }
                          });
}

template <typename Response>
absl::StatusOr<Encoded<Response>> EncodeAnswer(const Edge& edge,
                                               absl::StatusOr<Response> response) {
  if (!response.ok()) return response.status();
  edge.FillHeader(response->mutable_header());
  const size_t bytes = response->ByteSizeLong();
  auto hold = edge.HoldAnswer(bytes);
  return Encoded<Response>{response->SerializeAsString(), std::move(hold)};
}

}  // namespace kv::api

// How services answer: with what the machine made of a command, with a response of their own, or
// with what they make of another service's answer.
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
#include "server/api/wire.h"
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

// The one message of a call, and its end.
template <typename Response>
void WriteLast(Writer<Response>* writer, Response response) {
  writer->Write(std::move(response), [writer](bool) { writer->Finish(absl::OkStatus()); });
}

// A request of one service to another, as if it had come from a client.
template <typename Message>
Received<Message> Receive(Message message) {
  std::string bytes = message.SerializeAsString();
  return {.message = std::move(message), .bytes = std::move(bytes)};
}

// Answers with what `convert` makes of the other service's answer.
template <typename From, typename To, typename Convert>
Done<Encoded<From>> Converted(Done<To> done, Convert convert) {
  return [done = std::move(done),
          convert = std::move(convert)](absl::StatusOr<Encoded<From>> answer) mutable {
    From response;
    absl::Status status = answer.status();
    if (status.ok()) status = Decode(answer->bytes, &response);
    if (!status.ok()) return std::move(done)(std::move(status));
    std::move(done)(convert(std::move(response)));
  };
}

}  // namespace kv::api

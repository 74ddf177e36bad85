// Requests in a file and the answers that etcd 3.7.3 gave to them, one after the other, on an empty
// store: `METHOD | REQUEST | ANSWER`, a line each. REQUEST is protobuf text; @N{...} in it stands
// for the braces' inside N times, with each # in it replaced by 1, 2, … N. ANSWER is `OK` and the
// response, or the code and the text of the error. What differs from server to server (ids, terms)
// is left out; the chunks of a stream are merged into one response.
#pragma once

#include <grpcpp/channel.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace kv::api {

struct ContractRow {
  int line = 0;
  std::string method;  // "KV/Put"; of the package etcdserverpb unless it names another.
  std::string request;
  std::string answer;
};

std::vector<ContractRow> LoadContractRows(const std::string& path);
std::string ExpandRow(std::string_view text);

// The answer of whoever is at the channel's other end.
std::string AskContractRow(const std::shared_ptr<grpc::Channel>& channel, const ContractRow& row);

}  // namespace kv::api

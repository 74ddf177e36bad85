// Plays tests/api/contract_rows.txt, or lock_rows.txt, against a server with an empty store and
// compares.
//
//   contract_diff ROWS ADDRESS            says where the answers differ from the file's
//   contract_diff ROWS ADDRESS --record   prints the file anew, with the server's answers
#include <fmt/format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <string>

#include "tests/api/contract_rows.h"

namespace {

int Record(const std::string& path, const std::shared_ptr<grpc::Channel>& channel) {
  std::ifstream file(path);
  std::string line;
  auto rows = kv::api::LoadContractRows(path);
  auto row = rows.begin();
  for (int number = 1; std::getline(file, line); ++number) {
    if (row == rows.end() || row->line != number) {
      fmt::print("{}\n", line);
    } else {
      fmt::print("{} | {} | {}\n", row->method, row->request,
                 kv::api::AskContractRow(channel, *row));
      ++row;
    }
  }
  return 0;
}

int Compare(const std::string& path, const std::shared_ptr<grpc::Channel>& channel) {
  size_t same = 0;
  const auto rows = kv::api::LoadContractRows(path);
  for (const kv::api::ContractRow& row : rows) {
    const std::string answer = kv::api::AskContractRow(channel, row);
    if (answer == row.answer) {
      ++same;
    } else {
      fmt::print("line {}: {} {}\n  etcd: {}\n  here: {}\n", row.line, row.method, row.request,
                 row.answer, answer);
    }
  }
  fmt::print("{} of {} requests answered alike\n", same, rows.size());
  return same == rows.size() ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) {
    fmt::print(stderr, "usage: contract_diff ROWS ADDRESS [--record]\n");
    return 2;
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  const auto channel =
      grpc::CreateCustomChannel(argv[2], grpc::InsecureChannelCredentials(), arguments);
  try {
    return argc > 3 ? Record(argv[1], channel) : Compare(argv[1], channel);
  } catch (const std::exception& failure) {
    fmt::print(stderr, "{}\n", failure.what());
    return 2;
  }
}

#include "tests/api/contract_rows.h"

#include <fmt/format.h>
#include <google/protobuf/descriptor.h>
#include <google/protobuf/message.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/client_context.h>
#include <grpcpp/completion_queue.h>
#include <grpcpp/generic/generic_stub.h>

#include <charconv>
#include <chrono>
#include <fstream>
#include <stdexcept>

#include "absl/status/status.h"
#include "proto/etcd/election.pb.h"
#include "proto/etcd/lock.pb.h"
#include "proto/etcd/rpc.pb.h"

namespace kv::api {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::MessageFactory;

std::string_view Trim(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  while (text.ends_with(' ')) text.remove_suffix(1);
  return text;
}

std::unique_ptr<Message> NewMessage(const Descriptor* type) {
  return std::unique_ptr<Message>(MessageFactory::generated_factory()->GetPrototype(type)->New());
}

// What no two servers agree on. Headers stand in responses and in the responses inside them.
void ForgetIds(Message* message) {
  const google::protobuf::Reflection* reflection = message->GetReflection();
  std::vector<const FieldDescriptor*> fields;
  reflection->ListFields(*message, &fields);
  for (const FieldDescriptor* field : fields) {
    if (field->name() == "cluster_id" || field->name() == "member_id" ||
        field->name() == "raft_term") {
      reflection->ClearField(message, field);
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE && !field->is_repeated()) {
      ForgetIds(reflection->MutableMessage(message, field));
    }
  }
}

std::string Print(const Message& message) {
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(message, &text);
  return std::string(Trim(text));
}

// Long answers are told apart by their FNV-1a hash.
std::string Shorten(const std::string& text) {
  if (text.size() <= 1000) return text;
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return fmt::format("{} … {} bytes, {:016x}", text.substr(0, 100), text.size(), hash);
}

grpc::ByteBuffer ToBuffer(const Message& message) {
  const std::string bytes = message.SerializeAsString();
  const grpc::Slice slice(bytes);
  return grpc::ByteBuffer(&slice, 1);
}

bool Next(grpc::CompletionQueue* queue) {
  void* tag = nullptr;
  bool ok = false;
  return queue->Next(&tag, &ok) && ok;
}

}  // namespace

std::string ExpandRow(std::string_view text) {
  std::string expanded;
  for (size_t at = 0; at < text.size();) {
    const size_t sign = text.find('@', at);
    expanded += text.substr(at, sign == std::string_view::npos ? sign : sign - at);
    if (sign == std::string_view::npos) break;
    const size_t open = text.find('{', sign);
    int times = 0;
    std::from_chars(text.data() + sign + 1, text.data() + open, times);
    size_t close = open + 1;
    for (int depth = 1; depth > 0; ++close)
      depth += text[close] == '{' ? 1 : text[close] == '}' ? -1 : 0;
    const std::string inside = ExpandRow(text.substr(open + 1, close - open - 2));
    for (int i = 1; i <= times; ++i) {
      for (const char c : inside) {
        if (c == '#') {
          expanded += std::to_string(i);
        } else {
          expanded += c;
        }
      }
    }
    at = close;
  }
  return expanded;
}

std::vector<ContractRow> LoadContractRows(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error("cannot read " + path);
  std::vector<ContractRow> rows;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.empty() || line.starts_with('#')) continue;
    const size_t first = line.find('|');
    const size_t last = line.rfind('|');
    if (first == std::string::npos) throw std::runtime_error(fmt::format("line {}: no |", number));
    const std::string_view view = line;
    const std::string_view answer = last == first ? std::string_view() : view.substr(last + 1);
    rows.push_back({.line = number,
                    .method = std::string(Trim(view.substr(0, first))),
                    .request = std::string(Trim(
                        view.substr(first + 1, (last == first ? view.size() : last) - first - 1))),
                    .answer = std::string(Trim(answer))});
  }
  return rows;
}

std::string AskContractRow(const std::shared_ptr<grpc::Channel>& channel, const ContractRow& row) {
  // Links the files' descriptors.
  static_cast<void>(etcdserverpb::RangeRequest::descriptor());
  static_cast<void>(v3lockpb::LockRequest::descriptor());
  static_cast<void>(v3electionpb::LeaderRequest::descriptor());
  const size_t slash = row.method.find('/');
  const std::string name = row.method.substr(slash + 1);
  std::string service = row.method.substr(0, slash);
  if (service.find('.') == std::string::npos) service = "etcdserverpb." + service;
  const auto* pool = google::protobuf::DescriptorPool::generated_pool();
  const auto* descriptor = pool->FindServiceByName(service);
  const auto* method = descriptor == nullptr ? nullptr : descriptor->FindMethodByName(name);
  if (method == nullptr) throw std::runtime_error(fmt::format("line {}: no such method", row.line));
  const std::unique_ptr<Message> request = NewMessage(method->input_type());
  google::protobuf::TextFormat::Parser parser;
  if (!parser.ParseFromString(ExpandRow(row.request), request.get())) {
    throw std::runtime_error(fmt::format("line {}: not a {}", row.line, request->GetTypeName()));
  }

  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, fmt::format("/{}/{}", service, name), &queue);
  call->StartCall(nullptr);
  Next(&queue);
  call->WriteLast(ToBuffer(*request), grpc::WriteOptions(), nullptr);
  Next(&queue);
  const std::unique_ptr<Message> response = NewMessage(method->output_type());
  for (;;) {
    grpc::ByteBuffer buffer;
    call->Read(&buffer, nullptr);
    if (!Next(&queue)) break;
    std::vector<grpc::Slice> slices;
    buffer.Dump(&slices);
    std::string bytes;
    for (const grpc::Slice& slice : slices) {
      bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
    }
    if (!response->MergeFromString(bytes)) return "a response that cannot be decoded";
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  Next(&queue);
  if (!status.ok()) {
    return fmt::format("{}: {}",
                       absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())),
                       status.error_message());
  }
  ForgetIds(response.get());
  const std::string text = Print(*response);
  return text.empty() ? "OK" : "OK " + Shorten(text);
}

}  // namespace kv::api

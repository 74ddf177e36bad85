// The Watch service of a member, over a real channel.
//
// The vocabulary of scripts/: a stream has a name, its requests and responses are protobuf text.
//
//     open STREAM                    nothing is said yet
//     send STREAM REQUEST            WatchRequest
//     read STREAM [COUNT]            the next responses; nothing else than them may come first
//     ask STREAM REQUEST             send and read
//     close STREAM                   the client says nothing more
//     cancel STREAM                  and listens no more: the status
//     KV/METHOD REQUEST              its answer (contract_rows.h)
//
// In requests @N{…} is expanded as in contract_rows.h; long values are printed as their length. The
// answers are those of etcd 3.7.3: KVD_WATCH_ENDPOINT=host:port and KVD_WATCH_SCRIPT=path run one
// script against an empty server that is there already.
#include <fmt/format.h>
#include <google/protobuf/text_format.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <chrono>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "proto/etcd/rpc.grpc.pb.h"
#include "server/api/errors.h"
#include "storage/status.h"
#include "tests/api/contract_rows.h"
#include "tests/api/http2_client.h"
#include "tests/api/lone_member.h"
#include "tests/script.h"

namespace kv::api {
namespace {

using namespace etcdserverpb;  // NOLINT(google-build-using-namespace)

std::string Show(const grpc::Status& status) {
  if (status.ok()) return "OK";
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(status.error_code())) + ": " +
         status.error_message();
}

void Shorten(std::string* value) {
  if (value->size() > 40) *value = fmt::format("<{} bytes>", value->size());
}

std::string Show(WatchResponse response) {
  response.mutable_header()->clear_cluster_id();
  response.mutable_header()->clear_member_id();
  response.mutable_header()->clear_raft_term();
  for (mvccpb::Event& event : *response.mutable_events()) {
    Shorten(event.mutable_kv()->mutable_value());
    if (event.has_prev_kv()) Shorten(event.mutable_prev_kv()->mutable_value());
  }
  google::protobuf::TextFormat::Printer printer;
  printer.SetSingleLineMode(true);
  std::string text;
  printer.PrintToString(response, &text);
  while (text.ends_with(' ')) text.pop_back();
  return text;
}

// One Watch call. Whoever waits for a message that never comes fails after a while.
class Stream {
 public:
  explicit Stream(const std::shared_ptr<grpc::Channel>& channel, bool requires_leader = false)
      : stub_(etcdserverpb::Watch::NewStub(channel)) {
    context_.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
    if (requires_leader) context_.AddMetadata("hasleader", "true");
    stream_ = stub_->Watch(&context_);
  }
  ~Stream() {
    if (!finished_) Cancel();
  }

  void Send(const std::string& text) {
    WatchRequest request;
    REQUIRE(google::protobuf::TextFormat::ParseFromString(ExpandRow(text), &request));
    REQUIRE(stream_->Write(request));
  }
  void Close() { stream_->WritesDone(); }
  bool Read(WatchResponse* response) { return stream_->Read(response); }
  WatchResponse Next() {
    WatchResponse response;
    REQUIRE(Read(&response));
    return response;
  }
  WatchResponse Ask(const std::string& text) {
    Send(text);
    return Next();
  }
  grpc::Status Finish() {
    finished_ = true;
    WatchResponse rest;
    while (Read(&rest)) {
    }
    return stream_->Finish();
  }
  grpc::Status Cancel() {
    context_.TryCancel();
    return Finish();
  }

 private:
  const std::unique_ptr<etcdserverpb::Watch::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<WatchRequest, WatchResponse>> stream_;
  bool finished_ = false;
};

class Dialogue {
 public:
  explicit Dialogue(std::shared_ptr<grpc::Channel> channel) : channel_(std::move(channel)) {}

  std::string Do(const ScriptBlock& block) {
    std::string out;
    for (const std::string& line : block.input) out += DoLine(line);
    return out;
  }

 private:
  static std::string_view Cut(std::string_view* rest) {
    const size_t space = rest->find(' ');
    const std::string_view word = rest->substr(0, space);
    rest->remove_prefix(space == std::string_view::npos ? rest->size() : space + 1);
    return word;
  }

  std::string DoLine(std::string_view rest) {
    const std::string command(Cut(&rest));
    if (command.starts_with("KV/")) {
      return AskContractRow(
                 channel_,
                 {.line = 0, .method = command, .request = std::string(rest), .answer = {}}) +
             "\n";
    }
    std::unique_ptr<Stream>& stream = streams_[std::string(Cut(&rest))];
    const std::string text(rest);
    if (command == "open") {
      stream = std::make_unique<Stream>(channel_);
    } else if (command == "send") {
      stream->Send(text);
    } else if (command == "ask") {
      return Show(stream->Ask(text)) + "\n";
    } else if (command == "close") {
      stream->Close();
    } else if (command == "cancel") {
      return Show(stream->Cancel()) + "\n";
    } else if (command == "read") {
      std::string out;
      for (int left = text.empty() ? 1 : std::stoi(text); left > 0; --left) {
        out += Show(stream->Next()) + "\n";
      }
      return out;
    } else {
      return "unknown command\n";
    }
    return "";
  }

  const std::shared_ptr<grpc::Channel> channel_;
  std::map<std::string, std::unique_ptr<Stream>> streams_;
};

void Run(const std::string& script, const std::shared_ptr<grpc::Channel>& channel) {
  Dialogue dialogue(channel);
  for (const std::string& difference :
       RunScript(script, [&](const ScriptBlock& block) { return dialogue.Do(block); })) {
    FAIL_CHECK(difference);
  }
}

// The number of a metric without labels.
uint64_t Metric(LoneMember& member, const std::string& name) {
  const std::string page = member.metrics().Scrape();
  const size_t at = page.find("\n" + name + " ");
  REQUIRE(at != std::string::npos);
  return static_cast<uint64_t>(std::stod(page.substr(at + name.size() + 2)));
}

// Watchers end a little after the calls that brought them.
void AwaitNoWatcherBut(LoneMember& member, uint64_t number) {
  while (Metric(member, "etcd_debugging_mvcc_watcher_total") != number) std::this_thread::yield();
}

}  // namespace

TEST_CASE("watchers are answered as etcd answered them") {
  const char* const endpoint = std::getenv("KVD_WATCH_ENDPOINT");
  if (endpoint != nullptr) {
    Run(std::getenv("KVD_WATCH_SCRIPT"),
        grpc::CreateChannel(endpoint, grpc::InsecureChannelCredentials()));
    return;
  }
  const std::vector<std::string> scripts = ListScripts("tests/api/scripts");
  REQUIRE_FALSE(scripts.empty());
  for (const std::string& script : scripts) {
    LoneMember member;
    Run(script, member.channel());
  }
}

TEST_CASE("clients that do not read cost little each, hold nobody, and miss nothing") {
  constexpr int kStreams = 20;
  constexpr int kPuts = 120;
  LoneMember member;
  const size_t before = ResidentBytes();
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < kStreams; ++i) {
    streams.push_back(std::make_unique<Stream>(member.channel()));
    REQUIRE(streams.back()->Ask("create_request { key: 'k' }").created());
  }
  Stream reading(member.channel());
  REQUIRE(reading.Ask("create_request { key: 'k' }").created());
  for (int i = 0; i < kPuts; ++i) {
    REQUIRE(member.Put("k", fmt::format("{}/{}", i, std::string(1'000'000, 'x'))).ok());
    const WatchResponse told = reading.Next();
    REQUIRE(told.events_size() == 1);
    CHECK(told.events(0).kv().mod_revision() == i + 2);
  }
  CHECK(Metric(member, "etcd_debugging_mvcc_slow_watcher_total") == kStreams);
  CHECK(Metric(member, "etcd_debugging_mvcc_watcher_total") == kStreams + 1);
  // 120 MB twenty times would be 2.4 GB; of each stream a few messages are on both ends of the
  // wire, and the C library's allocator keeps some of what it is given back.
  CHECK(ResidentBytes() - std::min(before, ResidentBytes()) < size_t{1400} << 20);

  // Who reads after all hears everything, each once.
  Revision next = 2;
  while (next < kPuts + 2) {
    const WatchResponse told = streams[0]->Next();
    for (const mvccpb::Event& event : told.events()) {
      CHECK(event.kv().mod_revision() == next++);
    }
  }
  for (const auto& stream : streams) {
    CHECK(stream->Cancel().error_code() == grpc::StatusCode::CANCELLED);
  }
  AwaitNoWatcherBut(member, 1);
}

TEST_CASE("a client that does not read is not listened to either") {
  LoneMember member;
  Http2Client client(member.services().port());
  const std::string path = "/etcdserverpb.Watch/Watch";
  REQUIRE(client.Send(Headers(1, CallHeaders(path))));
  // Each order is answered, the answers fill what the stream may hold, and the rest waits: in the
  // stream's window, then with the client.
  WatchRequest order;
  order.mutable_create_request()->set_key("k");
  std::string orders;
  for (int i = 0; i < 1000; ++i) orders += Framed(order.SerializeAsString());
  WatchRequest question;
  question.mutable_progress_request();
  for (int i = 0; i < 1000; ++i) orders += Framed(question.SerializeAsString());
  REQUIRE(orders.size() < 65'535);
  for (size_t at = 0; at < orders.size(); at += 16'000) {
    REQUIRE(client.Send(Data(1, orders.substr(at, 16'000), /*end=*/false)));
  }
  REQUIRE(client.Send(Reset(1)));
  AwaitNoWatcherBut(member, 0);
  CHECK(member.Put("k", "v").ok());
}

TEST_CASE("what is no request ends the stream and its watchers") {
  LoneMember member;
  Http2Client client(member.services().port());
  REQUIRE(client.Send(Headers(1, CallHeaders("/etcdserverpb.Watch/Watch"))));
  WatchRequest order;
  order.mutable_create_request()->set_key("k");
  REQUIRE(client.Send(Data(1, Framed(order.SerializeAsString()) + Framed("\x0a\xff"), false)));
  CHECK(client.Await(1).Status().starts_with("13 "));
  AwaitNoWatcherBut(member, 0);
}

TEST_CASE("idle watchers that ask for it are told how far they are") {
  LoneMember member({.watch_progress_interval = absl::Milliseconds(20)});
  Stream stream(member.channel());
  REQUIRE(stream.Ask("create_request { key: 'k' progress_notify: true }").created());
  REQUIRE(stream.Ask("create_request { key: 'k' watch_id: 5 }").created());
  REQUIRE(member.Put("other", "v").ok());
  WatchResponse told;
  do {
    told = stream.Next();
    CHECK(told.watch_id() == 0);
    CHECK(told.events_size() == 0);
  } while (told.header().revision() < 2);
  CHECK(told.header().revision() == 2);
}

TEST_CASE("without a leader, streams that want one end, and others wait") {
  LoneMember member({.election_timeout = absl::Milliseconds(100)}, Cluster::kWithAbsentVoter);
  Stream waits(member.channel());
  CHECK(waits.Ask("create_request { key: 'k' }").created());
  Stream leaves(member.channel(), /*requires_leader=*/true);
  CHECK(Show(leaves.Finish()) == Describe(ToStatus(Error::kNoLeader)));
  CHECK(waits.Ask("create_request { key: 'k' }").created());
}

TEST_CASE("a stop ends every stream") {
  LoneMember member;
  Stream stream(member.channel());
  REQUIRE(stream.Ask("create_request { key: 'k' }").created());
  member.services().Stop(absl::Seconds(10));
  CHECK_FALSE(stream.Finish().ok());
}

TEST_CASE("a learner watches for nobody") {
  LoneMember member({}, Cluster::kAsLearner);
  Stream stream(member.channel());
  CHECK(Show(stream.Finish()) == Describe(ToStatus(Error::kNotSupportedForLearner)));
}

}  // namespace kv::api

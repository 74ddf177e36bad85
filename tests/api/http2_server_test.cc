// The client port without a store behind it, over loopback, with clients of every kind.
#include "server/api/http2_server.h"

#include <fmt/format.h>
#include <google/protobuf/wrappers.pb.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "server/api/bidi_stream.h"
#include "server/api/server_stream.h"
#include "server/api/unary.h"
#include "server/replica/thread_runtime.h"
#include "storage/mutex.h"
#include "storage/status.h"
#include "tests/api/http2_client.h"

namespace kv::api {
namespace {

using google::protobuf::StringValue;

class NoMetrics final : public RpcMetrics {
 public:
  void Started() override { ++started; }
  void Handled(absl::StatusCode, absl::Duration) override { ++handled; }
  void Received(size_t) override {}
  void Sent(size_t) override {}
  std::atomic<int> started = 0;
  std::atomic<int> handled = 0;
};

StringValue Value(std::string text) {
  StringValue value;
  value.set_value(std::move(text));
  return value;
}
std::string Bytes(const std::string& text) { return Value(text).SerializeAsString(); }
// The texts of a reply's messages.
std::vector<std::string> Texts(const Reply& reply) {
  MessageCutter cutter;
  std::vector<std::string> texts;
  if (!cutter.Add(reply.bytes, SIZE_MAX).ok()) return {"cannot be cut"};
  while (cutter.count() > 0) {
    StringValue value;
    if (!value.ParseFromString(cutter.Take())) return {"cannot be parsed"};
    texts.push_back(value.value());
  }
  return texts;
}

// Writes 100 kB again and again until the client is gone.
void Pour(Writer<StringValue>* writer, std::atomic<int>* poured) {
  ++*poured;
  writer->Write(Value(std::string(100'000, 'x')), [writer, poured](bool taken) {
    if (!taken) return writer->Finish(absl::CancelledError());
    Pour(writer, poured);
  });
}

void Echo(Reader<StringValue>* reader, Writer<StringValue>* writer) {
  reader->Read([reader, writer](std::optional<StringValue> message) {
    if (!message) return writer->Finish(absl::OkStatus());
    writer->Write(*std::move(message), [reader, writer](bool taken) {
      if (!taken) return writer->Finish(absl::CancelledError());
      Echo(reader, writer);
    });
  });
}

class Port {
 public:
  explicit Port(Http2Options options = {}) {
    options.listen_urls = {"http://127.0.0.1:0"};
    RpcMethods methods;
    methods["/t/Echo"] = Unary<StringValue, StringValue>(
        &runtime, &metrics,
        [](const Call&, StringValue request, auto done) { std::move(done)(std::move(request)); });
    methods["/t/Call"] = Unary<StringValue, StringValue>(
        &runtime, &metrics, [](const Call& call, const StringValue&, auto done) {
          std::move(done)(Value(fmt::format("{} {} {} {}", absl::FormatDuration(call.deadline),
                                            call.token, call.require_leader, call.api_version_ok)));
        });
    methods["/t/Fail"] = Unary<StringValue, StringValue>(
        &runtime, &metrics, [](const Call&, const StringValue& request, auto done) {
          std::move(done)(absl::Status(absl::StatusCode::kNotFound, request.value()));
        });
    methods["/t/Park"] = Unary<StringValue, StringValue>(
        &runtime, &metrics, [this](const Call&, const StringValue&, auto done) {
          MutexLock lock(mutex);
          parked.push_back(std::move(done));
        });
    methods["/t/Pour"] = ServerStream<StringValue, StringValue>(
        &runtime, &metrics,
        [this](const Call&, const StringValue&, auto* writer) { Pour(writer, &poured); });
    methods["/t/Wait"] = ServerStream<StringValue, StringValue>(
        &runtime, &metrics, [this](const Call&, const StringValue&, auto* writer) {
          writer->OnGone([this, writer] {
            ++gone;
            writer->Finish(absl::CancelledError());
          });
        });
    methods["/t/Chat"] = BidiStream<StringValue, StringValue>(
        &runtime, &metrics, [](const Call&, auto* reader, auto* writer) { Echo(reader, writer); });
    methods["/t/Deaf"] = BidiStream<StringValue, StringValue>(
        &runtime, &metrics, [this](const Call&, auto*, auto* writer) {
          writer->OnGone([this, writer] {
            ++gone;
            writer->Finish(absl::CancelledError());
          });
        });
    const absl::Status started = server.Start(&runtime, options, std::move(methods));
    if (!started.ok()) FAIL(Describe(started));
  }
  ~Port() { AnswerParked(); }

  size_t ParkedCalls() {
    MutexLock lock(mutex);
    return parked.size();
  }
  void AwaitParked(size_t count) {
    while (ParkedCalls() < count) std::this_thread::yield();
  }
  void AnswerParked() {
    std::vector<Done<StringValue>> taken;
    {
      MutexLock lock(mutex);
      taken.swap(parked);
    }
    for (auto& done : taken) std::move(done)(Value("late"));
  }
  int port() const { return server.port(); }

  ThreadRuntime runtime;
  NoMetrics metrics;
  std::atomic<int> poured = 0;
  std::atomic<int> gone = 0;
  Mutex mutex;
  std::vector<Done<StringValue>> parked ABSL_GUARDED_BY(mutex);
  Http2Server server;
};

bool Serves(Port& port) {
  Http2Client client(port.port());
  client.Send(Unary(1, "/t/Echo", Bytes("x")));
  return Texts(client.Await(1)) == std::vector<std::string>{"x"};
}

size_t ResidentBytes() {
  std::ifstream statm("/proc/self/statm");
  size_t total = 0;
  size_t resident = 0;
  statm >> total >> resident;
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

}  // namespace

TEST_CASE("a call is answered however its bytes arrive") {
  Port port;
  const std::string call = Unary(1, "/t/Echo", Bytes(std::string(1000, 'y')));
  const auto good = [](const Reply& reply) {
    return Texts(reply) == std::vector<std::string>{std::string(1000, 'y')} &&
           reply.headers.at(":status") == "200" &&
           reply.headers.at("content-type") == "application/grpc" && reply.Status() == "0";
  };
  Http2Client whole(port.port());
  whole.Send(call);
  CHECK(good(whole.Await(1)));
  Http2Client bytewise(port.port(), /*greet=*/false);
  for (const char byte : Preface() + call) bytewise.Send({&byte, 1});
  CHECK(good(bytewise.Await(1)));
  // One byte a DATA frame, and an end of its own.
  Http2Client framewise(port.port());
  std::string frames = Headers(1, CallHeaders("/t/Echo"));
  for (const char byte : Framed(Bytes(std::string(1000, 'y'))))
    frames += Data(1, {&byte, 1}, false);
  framewise.Send(frames + Data(1, "", true));
  CHECK(good(framewise.Await(1)));
  CHECK(port.metrics.started == 3);
  CHECK(port.metrics.handled == 3);
}

TEST_CASE("an empty message, a large one, and many calls at once") {
  Port port({.loops = 3});
  Http2Client client(port.port());
  client.Send(Unary(1, "/t/Echo", ""));
  CHECK(Texts(client.Await(1)) == std::vector<std::string>{""});
  std::string calls;
  for (int32_t stream = 3; stream < 1003; stream += 2) {
    calls += Unary(stream, "/t/Echo", Bytes(std::to_string(stream)));
  }
  client.Send(calls);
  for (int32_t stream = 3; stream < 1003; stream += 2) {
    REQUIRE(Texts(client.Await(stream)) == std::vector<std::string>{std::to_string(stream)});
  }
  // Larger than the windows: both sides give it back while the message moves.
  Http2Client wide(port.port());
  wide.Send(Frame(NGHTTP2_SETTINGS, 0, 0, std::string("\0\4\x7f\xff\xff\xff", 6)) +
            Frame(NGHTTP2_WINDOW_UPDATE, 0, 0, std::string("\x7f\0\0\0", 4)));
  const std::string large(1'500'000, 'z');
  const std::string call = Unary(1, "/t/Echo", Bytes(large));
  wide.Send(call.substr(0, 1'000'000));
  while (wide.window_given < 500'000) REQUIRE(wide.ReadFrame());
  wide.Send(call.substr(1'000'000));
  CHECK(Texts(wide.Await(1)) == std::vector<std::string>{large});
}

TEST_CASE("requests that are not to the letter are told so") {
  Port port({.message_bytes_max = 1000});
  Http2Client client(port.port());
  int32_t stream = -1;
  const auto ask = [&](const HeaderList& headers, std::string_view body) {
    stream += 2;
    client.Send(Headers(stream, headers) + Data(stream, body, true));
    return client.Await(stream);
  };
  const auto with = [](std::string name, std::string value) {
    HeaderList headers = CallHeaders("/t/Echo");
    headers.emplace_back(std::move(name), std::move(value));
    return headers;
  };
  const std::string good = Framed(Bytes("x"));
  CHECK(ask(CallHeaders("/t/Echo"), good).Status() == "0");
  CHECK(ask(CallHeaders("/t/None"), good).Status() == "12 unknown method /t/None");
  CHECK(ask(CallHeaders("/t/Echo"), "").Status() == "12 this method takes one message, not none");
  CHECK(ask(CallHeaders("/t/Echo"), good + good).Status() ==
        "12 this method takes one message, not several");
  CHECK(ask(CallHeaders("/t/Echo"), good.substr(0, 6)).Status() ==
        "13 the request ends within a message");
  CHECK(ask(CallHeaders("/t/Echo"), good.substr(0, 3)).Status() ==
        "13 the request ends within a message");
  CHECK(ask(CallHeaders("/t/Echo"), Framed("x", /*compressed=*/true)).Status().starts_with("13 "));
  CHECK(ask(CallHeaders("/t/Echo"), Framed("\xff\xff")).Status().starts_with("13 "));
  CHECK(ask(CallHeaders("/t/Echo"), Framed(std::string(1001, 'x'))).Status() ==
        "8 received message larger than max (1001 vs. 1000)");
  const Reply encoded = ask(with("grpc-encoding", "gzip"), good);
  CHECK(encoded.Status().starts_with("12 "));
  CHECK(encoded.headers.at("grpc-accept-encoding") == "identity");
  CHECK(ask(with("grpc-encoding", "identity"), good).Status() == "0");
  CHECK(ask(with("x", std::string(9000, 'x')), good).Status().starts_with("8 "));
  CHECK(ask(CallHeaders("/t/Fail"), Framed(Bytes("50 % of \xc3\xa4\n"))).Status() ==
        "5 50 %25 of %C3%A4%0A");
  for (const char* type : {"text/html", "application/grpc-web", "application/grpc+json", ""}) {
    HeaderList headers = CallHeaders("/t/Echo");
    headers.back().second = type;
    CHECK(ask(headers, good).headers.at(":status") == "415");
  }
  for (const char* type : {"application/grpc+proto", "application/grpc;charset=utf-8"}) {
    HeaderList headers = CallHeaders("/t/Echo");
    headers.back().second = type;
    CHECK(ask(headers, good).Status() == "0");
  }
  HeaderList get = CallHeaders("/t/Echo");
  get.front().second = "GET";
  CHECK(ask(get, good).headers.at(":status") == "405");
  CHECK(ask(CallHeaders("/t/Echo"), good).Status() == "0");  // The connection lives.
}

TEST_CASE("metadata and the deadline reach the service") {
  Port port;
  Http2Client client(port.port());
  int32_t stream = -1;
  const auto ask = [&](const HeaderList& more) {
    stream += 2;
    HeaderList headers = CallHeaders("/t/Call");
    headers.insert(headers.end(), more.begin(), more.end());
    client.Send(Headers(stream, headers) + Data(stream, Framed(""), true));
    const Reply& reply = client.Await(stream);
    return reply.Status() == "0" ? Texts(reply).at(0) : reply.Status();
  };
  CHECK(ask({}) == "inf  false true");
  CHECK(ask({{"hasleader", "true"}, {"token", "abc"}}) == "inf abc true true");
  CHECK(ask({{"hasleader", "yes"}, {"client-api-version", "\xff"}}) == "inf  false false");
  CHECK(ask({{"grpc-timeout", "2H"}}) == "2h  false true");
  CHECK(ask({{"grpc-timeout", "99999999S"}}) == "27777h46m39s  false true");
  CHECK(ask({{"grpc-timeout", "3M"}}) == "3m  false true");
  CHECK(ask({{"grpc-timeout", "100m"}}) == "100ms  false true");
  CHECK(ask({{"grpc-timeout", "5000000u"}}) == "5s  false true");
  CHECK(ask({{"grpc-timeout", "5n"}}) == "5ns  false true");
  for (const std::string bad : {"", "1", "S", "-1S", "1.5S", "123456789S", "1s", "1 S", "1SS"}) {
    CHECK(ask({{"grpc-timeout", bad}}) == "13 malformed grpc-timeout: " + bad);
  }
}

TEST_CASE("a call whose time is over is ended, whatever its service does") {
  Port port({.handshake_timeout = absl::Milliseconds(100)});
  Http2Client client(port.port());
  HeaderList headers = CallHeaders("/t/Park");
  headers.emplace_back("grpc-timeout", "50m");
  client.Send(Headers(1, headers) + Data(1, Framed(""), true));
  CHECK(client.Await(1).Status().starts_with("4 "));
  port.AnswerParked();  // Nobody hears it.
  client.Send(Unary(3, "/t/Echo", ""));
  CHECK(client.Await(3).Status() == "0");
}

TEST_CASE("messages go both ways, and a client that is gone is noticed") {
  Port port;
  Http2Client client(port.port());
  client.Send(Headers(1, CallHeaders("/t/Chat")));
  for (const char* text : {"a", "b"}) {
    client.Send(Data(1, Framed(Bytes(text)), false));
    while (Texts(client.reply(1)).empty() || Texts(client.reply(1)).back() != text) {
      REQUIRE(client.ReadFrame());
    }
  }
  client.Send(Data(1, Framed(Bytes("c")) + Framed(Bytes("d")), true));
  CHECK(Texts(client.Await(1)) == std::vector<std::string>{"a", "b", "c", "d"});
  CHECK(client.reply(1).Status() == "0");
  // What is no message ends the stream with an error, though the service saw only its end.
  client.Send(Headers(3, CallHeaders("/t/Chat")) + Data(3, Framed("\xff\xff"), false));
  CHECK(client.Await(3).Status().starts_with("13 "));
  client.Send(Headers(5, CallHeaders("/t/Chat")) + Data(5, Framed("x").substr(0, 5), true));
  CHECK(client.Await(5).Status() == "13 the request ends within a message");

  client.Send(Unary(7, "/t/Wait", "") + Headers(9, CallHeaders("/t/Deaf")));
  client.Send(Reset(7) + Reset(9));
  while (port.gone < 2) std::this_thread::yield();
  {
    Http2Client leaver(port.port());
    leaver.Send(Unary(1, "/t/Wait", "") + Headers(3, CallHeaders("/t/Deaf")) +
                Unary(5, "/t/Echo", ""));
    leaver.Await(5);
  }
  while (port.gone < 4) std::this_thread::yield();
}

TEST_CASE("a client that sends more than is read is held by its window") {
  Port port;
  Http2Client client(port.port());
  client.Send(Headers(1, CallHeaders("/t/Deaf")));
  const std::string message = Framed(std::string(16379, 'x'));        // A frame.
  for (int i = 0; i < 64; ++i) client.Send(Data(1, message, false));  // The whole window.
  client.Send(Unary(3, "/t/Echo", Bytes("x")));                       // Others are not held.
  CHECK(client.Await(3).Status() == "0");
  CHECK(client.window_given == 0);
  CHECK(client.Send(Data(1, message, false)));
  // Past the window is an error of that stream, or of the connection.
  while (!client.reply(1).reset && !client.goaway && client.ReadFrame()) {
  }
  CHECK((client.reply(1).reset || client.goaway));
  CHECK(Serves(port));
}

TEST_CASE("a client that does not read holds one message and nobody else") {
  Port port;
  Http2Client client(port.port());
  client.Send(Unary(1, "/t/Pour", ""));
  client.Send(Unary(3, "/t/Echo", Bytes("x")));
  // The window of 64 kB is for the connection, so the echo's answer waits; its own client is held.
  CHECK(Serves(port));
  while (port.poured < 1) std::this_thread::yield();
  for (int i = 0; i < 20; ++i) CHECK(Serves(port));
  CHECK(port.poured == 1);
  std::string windows;
  for (const int32_t stream : {0, 1}) {
    windows += Frame(NGHTTP2_WINDOW_UPDATE, 0, stream, std::string("\0\x10\0\0", 4));
  }
  client.Send(windows);
  CHECK(client.Await(3).Status() == "0");
  while (port.poured < 5) std::this_thread::yield();
}

TEST_CASE("a reset call counts until its work is over") {
  Port port({.concurrent_streams_max = 4});
  Http2Client client(port.port());
  for (int32_t stream = 1; stream < 9; stream += 2) {
    client.Send(Unary(stream, "/t/Park", ""));
  }
  port.AwaitParked(4);
  for (int32_t stream = 1; stream < 9; stream += 2) client.Send(Reset(stream));
  client.Send(Unary(9, "/t/Park", ""));
  CHECK(client.Await(9).reset == NGHTTP2_REFUSED_STREAM);
  CHECK(Serves(port));
  port.AnswerParked();
  // The loop hears of it in its own time.
  for (int32_t stream = 11; client.reply(stream - 2).Status() != "0"; stream += 2) {
    client.Send(Unary(stream, "/t/Echo", ""));
    client.Await(stream);
  }
  CHECK(Serves(port));
}

TEST_CASE("floods end their connection and nothing else") {
  Port port;
  const auto flood = [&](const std::string& bytes) {
    Http2Client client(port.port());
    for (int i = 0; i < 2000 && client.Send(bytes); ++i) {
      while (client.ReadFrame(0)) {
      }
    }
    client.Drain();
    CHECK(client.closed);
    return client.goaway.value_or(NGHTTP2_NO_ERROR);
  };
  std::string settings;
  std::string empty = Headers(1, CallHeaders("/t/Echo"));
  std::string unknown;
  for (int i = 0; i < 100; ++i) {
    settings += Frame(NGHTTP2_SETTINGS, 0, 0, "");
    empty += Frame(NGHTTP2_DATA, 0, 1, "");
    unknown += Frame(0xEE, 0, 0, "");
  }
  CHECK(flood(settings) == NGHTTP2_ENHANCE_YOUR_CALM);
  CHECK(flood(unknown) == NGHTTP2_ENHANCE_YOUR_CALM);
  CHECK(flood(empty) != NGHTTP2_NO_ERROR);
  {
    Http2Client client(port.port());
    int32_t stream = 1;
    for (int i = 0; i < 20'000; ++i, stream += 2) {
      if (!client.Send(Headers(stream, CallHeaders("/t/Pour")) + Reset(stream))) break;
    }
    client.Drain();
    CHECK(client.goaway == NGHTTP2_ENHANCE_YOUR_CALM);
  }
  {
    Http2Client client(port.port());
    for (int i = 0; i < 4; ++i) client.Send(Frame(NGHTTP2_PING, 0, 0, "12345678"));
    client.Drain();
    CHECK(client.goaway == NGHTTP2_ENHANCE_YOUR_CALM);
    CHECK(client.goaway_text == "too_many_pings");
  }
  CHECK(Serves(port));
}

TEST_CASE("pings are borne at the pace that is allowed, and ours find who is gone") {
  Port port({.keepalive_min_time = absl::ZeroDuration(),
             .keepalive_interval = absl::Milliseconds(100),
             .keepalive_timeout = absl::Milliseconds(200)});
  Http2Client client(port.port());
  client.Send(Unary(1, "/t/Wait", ""));
  for (int i = 0; i < 20; ++i) client.Send(Frame(NGHTTP2_PING, 0, 0, "12345678"));
  client.Drain();  // It answers no ping of the server.
  CHECK(client.pings == 1);
  CHECK_FALSE(client.goaway);
  CHECK(client.closed);
  while (port.gone < 1) std::this_thread::yield();
}

TEST_CASE("who does not begin to speak HTTP/2 is not waited for") {
  Port port({.handshake_timeout = absl::Milliseconds(200)});
  Http2Client silent(port.port(), /*greet=*/false);
  Http2Client half(port.port(), /*greet=*/false);
  half.Send(Preface().substr(0, 24));
  Http2Client other(port.port(), /*greet=*/false);
  other.Send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  Http2Client greeted(port.port());
  silent.Drain();
  half.Drain();
  other.Drain();
  CHECK((silent.closed && half.closed && other.closed));
  greeted.Send(Unary(1, "/t/Echo", ""));
  CHECK(greeted.Await(1).Status() == "0");
}

TEST_CASE("memory for requests that do not end is bounded") {
  Port port({.memory_bytes_max = 8 << 20});
  std::vector<std::unique_ptr<Http2Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Http2Client>(port.port()));
    clients.back()->Send(Headers(1, CallHeaders("/t/Echo")) +
                         Data(1, Framed(std::string(1'000'000, 'x')).substr(0, 900'000), false));
  }
  const auto refused = [](const auto& client) {
    while (client->ReadFrame(0)) {
    }
    return client->reply(1).Status().starts_with("8 ");
  };
  while (std::count_if(clients.begin(), clients.end(), refused) < 11) std::this_thread::yield();
  clients.clear();
  while (!Serves(port)) std::this_thread::yield();
}

TEST_CASE("a stop lets calls finish and takes no new ones") {
  Port port;
  Http2Client client(port.port());
  Http2Client idle(port.port());
  client.Send(Unary(1, "/t/Park", ""));
  port.AwaitParked(1);
  std::thread stop([&] { port.server.Stop(absl::Seconds(60)); });
  while (!client.goaway) REQUIRE(client.ReadFrame());
  CHECK(client.goaway == NGHTTP2_NO_ERROR);
  client.Send(Unary(3, "/t/Park", ""));
  idle.Drain();
  CHECK(idle.closed);
  port.AnswerParked();
  CHECK(Texts(client.Await(1)) == std::vector<std::string>{"late"});
  client.Drain();
  stop.join();
  CHECK(client.closed);
  CHECK(client.reply(3).headers.empty());
  CHECK(port.ParkedCalls() == 0);
}

TEST_CASE("a stop that is out of patience cuts connections and waits for the work") {
  Port port({.loops = 2});
  Http2Client client(port.port());
  client.Send(Unary(1, "/t/Park", "") + Unary(3, "/t/Pour", "") + Unary(5, "/t/Wait", "") +
              Headers(7, CallHeaders("/t/Chat")));
  port.AwaitParked(1);
  std::atomic<bool> stopped = false;
  std::thread stop([&] {
    port.server.Stop(absl::Milliseconds(50));
    stopped = true;
  });
  client.Drain();
  CHECK(client.closed);
  CHECK_FALSE(stopped);
  port.AnswerParked();
  stop.join();
  CHECK(port.gone == 1);
}

TEST_CASE("a port that is taken is refused with a sentence") {
  Port port;
  Http2Server second;
  const absl::Status status = second.Start(
      &port.runtime, {.listen_urls = {fmt::format("http://127.0.0.1:{}", port.port())}}, {});
  CHECK(Describe(status).find("another process has this port") != std::string::npos);
}

TEST_CASE("2000 connections are cheap") {
  Port port({.loops = 2});
  const size_t before = ResidentBytes();
  std::vector<std::unique_ptr<Http2Client>> clients;
  for (int i = 0; i < 2000; ++i) {
    try {
      clients.push_back(std::make_unique<Http2Client>(port.port()));
    } catch (const std::runtime_error&) {
      WARN("only " << i << " connections are allowed here");
      break;
    }
  }
  for (const auto& client : clients) client->Send(Unary(1, "/t/Echo", Bytes("x")));
  for (const auto& client : clients) REQUIRE(client->Await(1).Status() == "0");
  // Both ends, with room for what sanitizers add.
  CHECK(ResidentBytes() < before + clients.size() * (192 << 10));
}

// Whatever the bytes: no crash, other connections are served, memory comes back.
TEST_CASE("mutated byte streams harm nobody") {
  const char* text = std::getenv("KVD_SEED");
  const uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 10) : std::random_device{}();
  INFO("KVD_SEED=" << seed);
  std::mt19937_64 random(seed);
  const auto draw = [&](size_t below) { return static_cast<size_t>(random() % below); };
  Port port({.loops = 2, .message_bytes_max = 100'000, .memory_bytes_max = 16 << 20});
  const std::vector<std::string> parts = {
      Unary(1, "/t/Echo", Bytes("hello")),
      Unary(3, "/t/Pour", ""),
      Headers(5, CallHeaders("/t/Chat")),
      Data(5, Framed(Bytes("x")), false),
      Data(5, "", true),
      Reset(3),
      Unary(7, "/t/Wait", ""),
      Headers(9, CallHeaders("/t/Deaf")),
      Frame(NGHTTP2_PING, 0, 0, "12345678"),
      Frame(NGHTTP2_SETTINGS, 0, 0, std::string("\0\4\0\0\1\0", 6)),
      Frame(NGHTTP2_WINDOW_UPDATE, 0, 0, std::string("\0\1\0\0", 4)),
      Frame(NGHTTP2_GOAWAY, 0, 0, std::string(8, '\0')),
      Frame(NGHTTP2_PRIORITY, 0, 5, std::string(5, '\0')),
      Frame(NGHTTP2_CONTINUATION, 0, 5, "abc")};
  const size_t before = ResidentBytes();
  for (int round = 0; round < 300; ++round) {
    std::string bytes = Preface();
    for (size_t i = draw(12) + 1; i > 0; --i) bytes += parts[draw(parts.size())];
    for (size_t i = draw(6); i > 0; --i) {
      const size_t at = draw(bytes.size());
      switch (draw(4)) {
        case 0:
          bytes[at] = static_cast<char>(random());
          break;
        case 1:
          bytes.insert(at, 1, static_cast<char>(random()));
          break;
        case 2:
          bytes.erase(at, draw(20));
          break;
        default:
          bytes.insert(at, bytes.substr(at, draw(100)));
      }
    }
    Http2Client client(port.port(), /*greet=*/false);
    for (std::string_view rest = bytes; !rest.empty();) {
      const size_t part = std::min(rest.size(), draw(200) + 1);
      if (!client.Send(rest.substr(0, part))) break;
      rest.remove_prefix(part);
    }
    if (draw(2) == 0) client.ReadFrame(5);
    if (round % 50 == 0) REQUIRE(Serves(port));
  }
  CHECK(Serves(port));
  CHECK(ResidentBytes() < before + (size_t{64} << 20));
}

}  // namespace kv::api

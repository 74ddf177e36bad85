#include "client/kvctl/session.h"

#include <fmt/format.h>
#include <termios.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>

#include "client/kvctl/discovery.h"

namespace kv::kvctl {
namespace {

absl::StatusOr<std::string> ReadFile(const Arguments& arguments, std::string_view flag) {
  if (!arguments.Given(flag)) return std::string();
  const std::string& path = arguments.String(flag);
  if (path.empty()) return Refused(fmt::format("empty string is passed to --{} option", flag));
  std::ifstream file(path, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return Refused(fmt::format("--{}: cannot read {}", flag, path));
  return content;
}

absl::StatusOr<std::string> AskPassword(std::string_view flag_prefix) {
  FILE* terminal = std::fopen("/dev/tty", "r+");
  if (terminal == nullptr) {
    return Refused(fmt::format(
        "no terminal to ask for the password on; give --{0}user name:password or --{0}password",
        flag_prefix));
  }
  termios before{};
  tcgetattr(fileno(terminal), &before);
  termios silent = before;
  silent.c_lflag &= ~static_cast<tcflag_t>(ECHO);
  tcsetattr(fileno(terminal), TCSAFLUSH, &silent);
  std::fputs("Password: ", terminal);
  std::fflush(terminal);
  std::string password;
  for (int c = std::fgetc(terminal); c != EOF && c != '\n'; c = std::fgetc(terminal)) {
    password += static_cast<char>(c);
  }
  tcsetattr(fileno(terminal), TCSAFLUSH, &before);
  std::fputs("\n", terminal);
  std::fclose(terminal);
  return password;
}

// `prefix` is that of the flags' names.
absl::Status AddUser(const Arguments& arguments, const std::string& prefix,
                     client::Options& options) {
  options.token = arguments.String(prefix + "auth-jwt-token");
  const std::string& user = arguments.String(prefix + "user");
  if (!options.token.empty() || user.empty()) return absl::OkStatus();
  options.user = user;
  options.password = arguments.String(prefix + "password");
  if (!options.password.empty()) return absl::OkStatus();
  if (size_t colon = user.find(':'); colon != std::string::npos) {
    options.user = user.substr(0, colon);
    options.password = user.substr(colon + 1);
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> password = AskPassword(prefix);
  if (!password.ok()) return password.status();
  options.password = *std::move(password);
  return absl::OkStatus();
}

absl::Status AddTls(const Arguments& arguments, const std::string& prefix,
                    client::Options& options) {
  for (auto [flag, content] : {std::pair<std::string_view, std::string*>{"cacert", &options.ca_pem},
                               {"cert", &options.cert_pem},
                               {"key", &options.key_pem}}) {
    absl::StatusOr<std::string> read = ReadFile(arguments, fmt::format("{}{}", prefix, flag));
    if (!read.ok()) return read.status();
    *content = *std::move(read);
  }
  if (options.cert_pem.empty() != options.key_pem.empty()) {
    return Refused(fmt::format("--{0}cert and --{0}key go together: give both or none", prefix));
  }
  options.skip_verify = arguments.Bool(prefix + "insecure-skip-tls-verify");
  options.tls = !arguments.Bool(prefix + "insecure-transport") || options.skip_verify ||
                !options.ca_pem.empty() || !options.cert_pem.empty();
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> Endpoints(const Arguments& arguments) {
  const std::string& domain = arguments.String("discovery-srv");
  if (domain.empty()) return arguments.Strings("endpoints");
  absl::StatusOr<std::vector<std::string>> found =
      DiscoverEndpoints(domain, arguments.String("discovery-srv-name"));
  if (!found.ok() || arguments.Bool("insecure-discovery")) return found;
  std::vector<std::string> secure;
  for (const std::string& endpoint : *found) {
    if (endpoint.starts_with("http://")) {
      Warn(fmt::format("ignoring discovered insecure endpoint {}", GoQuoted(endpoint)));
    } else {
      secure.push_back(endpoint);
    }
  }
  return secure;
}

absl::StatusOr<int> Bytes(const Arguments& arguments, std::string_view flag, int fallback) {
  int64_t bytes = arguments.Int(flag);
  if (bytes < 0 || bytes > INT32_MAX) {
    return Refused(fmt::format("--{} is {}; it may be 0 to {}", flag, bytes, INT32_MAX));
  }
  return bytes == 0 ? fallback : static_cast<int>(bytes);
}

}  // namespace

const std::vector<Flag>& GlobalFlags() {
  static const std::vector<Flag> flags = {
      {.name = "endpoints",
       .type = FlagType::kStrings,
       .fallback = "127.0.0.1:2379",
       .help = "where the members listen for clients, separated by commas"},
      {.name = "write-out",
       .letter = 'w',
       .type = FlagType::kString,
       .fallback = "simple",
       .help = "output format: fields, json, protobuf, simple or table",
       .choices = {"fields", "json", "protobuf", "simple", "table"}},
      {.name = "hex", .help = "print byte strings and ids in hexadecimal"},
      {.name = "dial-timeout",
       .type = FlagType::kDuration,
       .fallback = "2s",
       .help = "how long to look for an endpoint that takes a connection"},
      {.name = "command-timeout",
       .type = FlagType::kDuration,
       .fallback = "5s",
       .help = "how long a request may take, retries included"},
      {.name = "keepalive-time",
       .type = FlagType::kDuration,
       .fallback = "2s",
       .help = "ping an idle connection this often (at most every 10s)"},
      {.name = "keepalive-timeout",
       .type = FlagType::kDuration,
       .fallback = "6s",
       .help = "give a connection up when a ping is not answered for this long"},
      {.name = "insecure-transport",
       .fallback = "true",
       .help = "no TLS for endpoints without a scheme"},
      {.name = "insecure-skip-tls-verify",
       .help = "believe any server certificate (for tests only)"},
      {.name = "cert", .type = FlagType::kString, .help = "our TLS certificate (PEM file)"},
      {.name = "key", .type = FlagType::kString, .help = "our TLS key (PEM file)"},
      {.name = "cacert",
       .type = FlagType::kString,
       .help = "certificates that servers are verified with (PEM file)"},
      {.name = "user", .type = FlagType::kString, .help = "name[:password]; asked for if missing"},
      {.name = "password", .type = FlagType::kString, .help = "password of --user"},
      {.name = "auth-jwt-token", .type = FlagType::kString, .help = "a token instead of --user"},
      {.name = "discovery-srv",
       .letter = 'd',
       .type = FlagType::kString,
       .help = "domain whose SRV records name the endpoints"},
      {.name = "discovery-srv-name",
       .type = FlagType::kString,
       .help = "suffix of the service name in --discovery-srv"},
      {.name = "insecure-discovery",
       .fallback = "true",
       .help = "take SRV records of endpoints without TLS, too"},
      {.name = "max-request-bytes",
       .type = FlagType::kInt,
       .help = "largest request sent, in bytes (0: 2 MiB)"},
      {.name = "max-recv-bytes",
       .type = FlagType::kInt,
       .help = "largest response taken, in bytes (0: no limit)"},
      {.name = "debug", .help = "log what the connections do, on stderr"},
  };
  return flags;
}

void Print(std::string_view text) { std::fwrite(text.data(), 1, text.size(), stdout); }

bool Fancy(int descriptor) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* terminal = std::getenv("TERM");
  return isatty(descriptor) != 0 && (no_color == nullptr || *no_color == 0) &&
         (terminal == nullptr || std::string_view(terminal) != "dumb");
}

int Fail(Exit code, std::string_view text) {
  std::fflush(stdout);
  fmt::print(stderr, "{}Error:{} {}\n", Fancy(STDERR_FILENO) ? "\033[31m" : "",
             Fancy(STDERR_FILENO) ? "\033[0m" : "", text);
  return code;
}

int Fail(const absl::Status& status) {
  const std::string text = Text(status);
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return Fail(kBadArguments, text);
    case absl::StatusCode::kOutOfRange:
      return Fail(kInvalidInput, text);
    case absl::StatusCode::kUnimplemented:
      return Fail(kBadFeature, text);
    case absl::StatusCode::kUnavailable:
      return Fail(kBadConnection, text);
    default:
      return Fail(kError, text);
  }
}

void Warn(std::string_view text) {
  std::fflush(stdout);
  fmt::print(stderr, "{}Warning:{} {}\n", Fancy(STDERR_FILENO) ? "\033[33m" : "",
             Fancy(STDERR_FILENO) ? "\033[0m" : "", text);
}

absl::StatusOr<Session> Session::Open(const Arguments& arguments) {
  Session session;
  auto format = ParseFormat(arguments.String("write-out"));
  if (!format) {
    return Refused(fmt::format("unsupported output format \"{}\"; there is fields, json, protobuf, "
                               "simple and table",
                               arguments.String("write-out")),
                   absl::StatusCode::kUnimplemented);
  }
  session.style_ = {.format = *format, .hex = arguments.Bool("hex")};
  session.command_timeout_ = arguments.Duration("command-timeout");

  client::Options& options = session.options_;
  if (absl::Status status = AddTls(arguments, "", options); !status.ok()) return status;
  absl::StatusOr<std::vector<std::string>> endpoints = Endpoints(arguments);
  if (!endpoints.ok()) return endpoints.status();
  options.endpoints = *std::move(endpoints);
  if (options.endpoints.empty()) {
    return Refused("no endpoint is given; see --endpoints", absl::StatusCode::kUnavailable);
  }
  if (absl::Status status = client::Client::Check(options); !status.ok()) return status;
  absl::StatusOr<int> send = Bytes(arguments, "max-request-bytes", options.send_bytes_max);
  if (!send.ok()) return send.status();
  options.send_bytes_max = *send;
  absl::StatusOr<int> receive = Bytes(arguments, "max-recv-bytes", 0);
  if (!receive.ok()) return receive.status();
  options.receive_bytes_max = *receive;
  options.dial_timeout = arguments.Duration("dial-timeout");
  options.keepalive_time = arguments.Duration("keepalive-time");
  options.keepalive_timeout = arguments.Duration("keepalive-timeout");
  if (absl::Status status = AddUser(arguments, "", options); !status.ok()) return status;
  return session;
}

client::CallOptions Session::call_options() const {
  // A read leaves time to ask somebody else when a server hangs.
  auto shares = static_cast<int64_t>(options_.endpoints.size());
  return {.timeout = command_timeout_,
          .attempt_timeout =
              std::max(command_timeout_ / shares, std::min(command_timeout_, absl::Seconds(1)))};
}

std::unique_ptr<client::Client> Session::Connect() const {
  return std::make_unique<client::Client>(options_);
}

std::unique_ptr<client::Client> Session::Connect(const std::string& endpoint) const {
  client::Options options = options_;
  options.endpoints = {endpoint};
  return std::make_unique<client::Client>(std::move(options));
}

absl::StatusOr<std::unique_ptr<client::Client>> Session::ConnectElsewhere(
    const Arguments& arguments, const std::string& endpoints, std::string_view prefix) const {
  client::Options options;
  options.endpoints = SplitAtCommas(endpoints);
  if (absl::Status status = AddTls(arguments, std::string(prefix), options); !status.ok()) {
    return status;
  }
  if (absl::Status status = client::Client::Check(options); !status.ok()) return status;
  options.dial_timeout = options_.dial_timeout;
  options.keepalive_time = options_.keepalive_time;
  options.keepalive_timeout = options_.keepalive_timeout;
  options.send_bytes_max = options_.send_bytes_max;
  if (absl::Status status = AddUser(arguments, std::string(prefix), options); !status.ok()) {
    return status;
  }
  return std::make_unique<client::Client>(std::move(options));
}

absl::StatusOr<std::vector<std::string>> Session::MemberEndpoints() const {
  pb::MemberListRequest request;
  request.set_linearizable(true);
  auto answer = Connect()->CallAndWait(client::kMemberList, request, call_options());
  if (!answer.ok()) {
    return Refused("failed to fetch endpoints from the member list: " + Complaint(answer),
                   absl::StatusCode::kUnknown);
  }
  std::vector<std::string> endpoints;
  for (const pb::Member& member : answer.response.members()) {
    endpoints.insert(endpoints.end(), member.clienturls().begin(), member.clienturls().end());
  }
  return endpoints;
}

}  // namespace kv::kvctl

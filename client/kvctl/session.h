// What every command shares: exit codes, how to print, and the connection that the global flags
// describe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "client/client.h"
#include "client/kvctl/arguments.h"
#include "client/kvctl/output.h"

namespace kv::kvctl {

// etcdctl's.
enum Exit : int {
  kOk = 0,
  kError = 1,
  kBadConnection = 2,
  kInvalidInput = 3,
  kBadFeature = 4,
  kNotHealthy = 5,
  kInterrupted = 5,  // Of what streams; etcdctl has one number for both.
  kInputOutput = 6,
  kBadArguments = 128,
};

const std::vector<Flag>& GlobalFlags();

// To stdout, in the end all of it: main() flushes and says if that failed.
void Print(std::string_view text);
// "Error: …" on stderr; red on a terminal.
int Fail(Exit code, std::string_view text);
// A status's message.
inline std::string Text(const absl::Status& status) {
  return {status.message().data(), status.message().size()};
}
// By the status: InvalidArgument is 128 (the command line), OutOfRange 3 (what was read),
// Unimplemented 4, Unavailable 2, all else 1.
int Fail(const absl::Status& status);
void Warn(std::string_view text);
// Whether to use colours and bars on this descriptor (1, 2): a terminal, and NO_COLOR is not set.
bool Fancy(int descriptor);

inline absl::Status Refused(std::string text,
                            absl::StatusCode code = absl::StatusCode::kInvalidArgument) {
  return absl::Status(code, text);
}

class Session {
 public:
  // Makes no connection yet.
  static absl::StatusOr<Session> Open(const Arguments& arguments);

  const Style& style() const { return style_; }
  Style& style() { return style_; }
  const client::Options& options() const { return options_; }
  client::CallOptions call_options() const;
  // To all endpoints, or to just one.
  std::unique_ptr<client::Client> Connect() const;
  std::unique_ptr<client::Client> Connect(const std::string& endpoint) const;
  // To another cluster ("host:port,host:port"), with the TLS and user flags whose names begin with
  // `prefix`, and the rest of the settings as here.
  absl::StatusOr<std::unique_ptr<client::Client>> ConnectElsewhere(const Arguments& arguments,
                                                                   const std::string& endpoints,
                                                                   std::string_view prefix) const;
  // The client URLs of all members.
  absl::StatusOr<std::vector<std::string>> MemberEndpoints() const;

  // Refused if `shape` (any value of the type to be shown) has no such format: asked before
  // anything is sent.
  template <typename Shown>
  absl::Status CanShow(const Shown& shape) const {
    if (Show(shape, style_)) return absl::OkStatus();
    return Refused(std::string(Name(style_.format)) + " not supported as output format",
                   absl::StatusCode::kUnimplemented);
  }

 private:
  Style style_;
  client::Options options_;
  absl::Duration command_timeout_;
};

// The text of a failed call; says of a write of unknown outcome what that means.
template <typename Response>
std::string Complaint(const client::Answer<Response>& answer) {
  std::string text(answer.status.message().data(), answer.status.message().size());
  if (answer.fate == client::Fate::kUnknown) {
    text += " (" + answer.endpoint +
            "; the write may have been carried out: look before you repeat it)";
  }
  return text;
}

}  // namespace kv::kvctl

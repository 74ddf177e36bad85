#include "client/kvctl/edit.h"

#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>

#include "client/kvctl/session.h"

extern char** environ;

namespace kv::kvctl {
namespace {

std::string Variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == 0 ? otherwise : value;
}

std::string Editor() { return Variable("VISUAL", Variable("EDITOR", "vi").c_str()); }

// A file of our own that nobody else may read. Its path; or why there is none.
absl::StatusOr<std::string> WriteFile(const std::string& content) {
  std::string path = Variable("TMPDIR", "/tmp") + "/kvctl-edit-XXXXXX";
  const int file = mkstemp(path.data());
  const std::string why = file < 0 ? std::strerror(errno) : "";
  if (file < 0) return Refused(fmt::format("no file can be made in {}: {}", path, why));
  size_t written = 0;
  while (written < content.size()) {
    const ssize_t count = write(file, content.data() + written, content.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) break;
    written += static_cast<size_t>(count);
  }
  if (close(file) == 0 && written == content.size()) return path;
  std::remove(path.c_str());
  return Refused("the value cannot be written to " + path);
}

std::optional<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file) return std::nullopt;
  return content;
}

// The editor may be a command line ("code --wait"), so a shell reads it. False: it failed.
bool RunEditor(const std::string& editor, const std::string& path) {
  std::string order = editor + " \"$1\"";
  std::string words[] = {"sh", "-c", order, "sh", path};
  char* arguments[] = {words[0].data(), words[1].data(), words[2].data(),
                       words[3].data(), words[4].data(), nullptr};
  pid_t child = 0;
  if (posix_spawn(&child, "/bin/sh", nullptr, nullptr, arguments, environ) != 0) return false;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

pb::TxnRequest PutIfUntouched(const std::string& key, const mvccpb::KeyValue* before,
                              const std::string& value) {
  pb::TxnRequest request;
  pb::Compare* compare = request.add_compare();
  compare->set_key(key);
  compare->set_target(pb::Compare::MOD);
  compare->set_result(pb::Compare::EQUAL);
  compare->set_mod_revision(before == nullptr ? 0 : before->mod_revision());
  pb::PutRequest* put = request.add_success()->mutable_request_put();
  put->set_key(key);
  put->set_value(value);
  put->set_ignore_lease(before != nullptr && before->lease() != 0);
  pb::RangeRequest* now = request.add_failure()->mutable_request_range();
  now->set_key(key);
  now->set_keys_only(true);
  return request;
}

// What stands at the key instead.
std::string Meanwhile(const pb::TxnResponse& response) {
  if (response.responses_size() > 0 && response.responses(0).response_range().kvs_size() > 0) {
    return fmt::format("it was changed meanwhile, at revision {}",
                       response.responses(0).response_range().kvs(0).mod_revision());
  }
  return "it was deleted meanwhile";
}

// As one word of a shell's.
std::string ShellQuoted(std::string_view text) {
  std::string quoted = "'";
  for (char c : text) quoted += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return quoted + "'";
}

int KeepFile(std::string_view what, const std::string& key, const std::string& path) {
  return Fail(kError,
              fmt::format("{}. Your text is kept in {}: look with `kvctl get {}`, then put it "
                          "with `kvctl put {} < {}`, or edit again",
                          what, path, ShellQuoted(key), ShellQuoted(key), ShellQuoted(path)));
}

}  // namespace

int Edit(const Arguments& arguments) {
  if (arguments.rest.size() != 1)
    return Fail(kBadArguments, "edit command needs 1 argument: a key");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  const std::string& key = arguments.rest[0];
  const auto client = session->Connect();
  pb::RangeRequest range;
  range.set_key(key);
  auto found = client->CallAndWait(client::kRange, range, session->call_options());
  if (!found.ok()) return Fail(kError, Complaint(found));
  const mvccpb::KeyValue* before =
      found.response.kvs_size() == 0 ? nullptr : &found.response.kvs(0);
  const std::string old = before == nullptr ? "" : before->value();

  absl::StatusOr<std::string> path = WriteFile(old);
  if (!path.ok()) return Fail(kInputOutput, Text(path.status()));
  const std::string editor = Editor();
  if (!RunEditor(editor, *path)) {
    return Fail(kError,
                fmt::format("the editor ({}) failed, nothing is put; what it left is in {}. "
                            "$VISUAL or $EDITOR name the editor",
                            editor, *path));
  }
  std::optional<std::string> value = ReadFile(*path);
  if (!value) return Fail(kInputOutput, "the edited file cannot be read: " + *path);
  // Editors end the last line, whether it was ended before or not.
  if (!old.ends_with('\n') && value->ends_with('\n')) value->pop_back();
  if (*value == old) {
    std::remove(path->c_str());
    Print(before == nullptr ? "nothing was written, no key is made\n" : "not changed\n");
    return kOk;
  }
  auto answer = client->CallAndWait(client::kTxn, PutIfUntouched(key, before, *value),
                                    session->call_options());
  if (!answer.ok()) return KeepFile(Complaint(answer), key, *path);
  if (!answer.response.succeeded()) {
    return KeepFile(fmt::format("{} is not put: {}", GoQuoted(key), Meanwhile(answer.response)),
                    key, *path);
  }
  std::remove(path->c_str());
  Print("OK\n");
  return kOk;
}

}  // namespace kv::kvctl

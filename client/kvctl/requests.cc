#include "client/kvctl/requests.h"

#include <fmt/format.h>

#include <charconv>

#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

constexpr char kZero = '\0';

std::string Upper(std::string text) {
  for (char& c : text) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return text;
}

// Key and range end of a command that takes <key> [range_end], --prefix and --from-key.
template <typename Request>
absl::Status SetRange(const Arguments& arguments, Request& request) {
  bool prefix = arguments.Bool("prefix");
  bool from_key = arguments.Bool("from-key");
  if (prefix && from_key) {
    return Refused("`--prefix` and `--from-key` cannot be set at the same time, choose one");
  }
  std::string key = arguments.rest[0];
  if (arguments.rest.size() > 1) {
    if (prefix || from_key) {
      return Refused(
          "too many arguments, only accept one argument when `--prefix` or `--from-key` "
          "is set");
    }
    request.set_range_end(arguments.rest[1]);
  }
  if (from_key || (prefix && key.empty())) {
    if (key.empty()) key = kZero;
    request.set_range_end(std::string(1, kZero));
  } else if (prefix) {
    request.set_range_end(PrefixEnd(key));
  }
  request.set_key(key);
  return absl::OkStatus();
}

absl::Status SetSort(const Arguments& arguments, pb::RangeRequest& request) {
  std::string order = Upper(arguments.String("order"));
  if (order == "ASCEND") {
    request.set_sort_order(pb::RangeRequest::ASCEND);
  } else if (order == "DESCEND") {
    request.set_sort_order(pb::RangeRequest::DESCEND);
  } else if (!order.empty()) {
    return Refused("bad sort order " + arguments.String("order") + "; there is ASCEND and DESCEND",
                   absl::StatusCode::kUnimplemented);
  }
  std::string target = Upper(arguments.String("sort-by"));
  if (target == "CREATE") {
    request.set_sort_target(pb::RangeRequest::CREATE);
  } else if (target == "MODIFY") {
    request.set_sort_target(pb::RangeRequest::MOD);
  } else if (target == "VALUE") {
    request.set_sort_target(pb::RangeRequest::VALUE);
  } else if (target == "VERSION") {
    request.set_sort_target(pb::RangeRequest::VERSION);
  } else if (target != "KEY" && !target.empty()) {
    return Refused("bad sort target " + arguments.String("sort-by") +
                       "; there is CREATE, KEY, MODIFY, VALUE and VERSION",
                   absl::StatusCode::kUnimplemented);
  }
  // Keys come ascending anyway; asking for it would make the server sort.
  if (request.sort_target() == pb::RangeRequest::KEY &&
      request.sort_order() == pb::RangeRequest::ASCEND) {
    request.set_sort_order(pb::RangeRequest::NONE);
  }
  return absl::OkStatus();
}

absl::Status CheckBounds(const Arguments& arguments, std::string_view low, std::string_view high) {
  int64_t least = arguments.Int(low);
  int64_t most = arguments.Int(high);
  if (most <= 0 || least <= most) return absl::OkStatus();
  return Refused(fmt::format("--{} is {}, above --{}, which is {}", low, least, high, most),
                 absl::StatusCode::kUnimplemented);
}

}  // namespace

const std::vector<Flag>& PutFlags() {
  static const std::vector<Flag> flags = {
      {.name = "lease",
       .type = FlagType::kString,
       .fallback = "0",
       .help = "lease ID (in hexadecimal) to attach to the key"},
      {.name = "prev-kv", .help = "print the pair as it was before"},
      {.name = "ignore-value", .help = "keep the key's present value"},
      {.name = "ignore-lease", .help = "keep the key's present lease"},
  };
  return flags;
}

const std::vector<Flag>& GetFlags() {
  static const std::vector<Flag> flags = {
      {.name = "consistency",
       .type = FlagType::kString,
       .fallback = "l",
       .help = "l: linearizable; s: serializable, what the asked member has",
       .choices = {"l", "s"}},
      {.name = "order",
       .type = FlagType::kString,
       .help = "order of results: ASCEND or DESCEND",
       .choices = {"ASCEND", "DESCEND"}},
      {.name = "sort-by",
       .type = FlagType::kString,
       .help = "sort by CREATE, KEY, MODIFY, VALUE or VERSION",
       .choices = {"CREATE", "KEY", "MODIFY", "VALUE", "VERSION"}},
      {.name = "limit", .type = FlagType::kInt, .help = "at most so many results (0: all)"},
      {.name = "prefix", .help = "all keys that begin with <key>"},
      {.name = "from-key", .help = "all keys from <key> on, by bytes"},
      {.name = "rev", .type = FlagType::kInt, .help = "as of this revision (0: the newest)"},
      {.name = "keys-only", .help = "without the values"},
      {.name = "count-only", .help = "only the count (with --write-out=fields)"},
      {.name = "print-value-only", .help = "only the values (with --write-out=simple)"},
      {.name = "min-create-rev", .type = FlagType::kInt, .help = "least create revision"},
      {.name = "max-create-rev", .type = FlagType::kInt, .help = "greatest create revision"},
      {.name = "min-mod-rev", .type = FlagType::kInt, .help = "least modification revision"},
      {.name = "max-mod-rev", .type = FlagType::kInt, .help = "greatest modification revision"},
      {.name = "stream", .help = "let the server send the result in pieces"},
  };
  return flags;
}

const std::vector<Flag>& DeleteFlags() {
  static const std::vector<Flag> flags = {
      {.name = "prefix", .help = "all keys that begin with <key>"},
      {.name = "from-key", .help = "all keys from <key> on, by bytes"},
      {.name = "prev-kv", .help = "print the deleted pairs"},
      {.name = "range", .help = "do not wait before deleting <key> to [range_end)"},
  };
  return flags;
}

const std::vector<Flag>& WatchFlags() {
  static const std::vector<Flag> flags = {
      {.name = "prefix", .help = "all keys that begin with <key>"},
      {.name = "from-key", .help = "all keys from <key> on, by bytes"},
      {.name = "rev", .type = FlagType::kInt, .help = "from this revision on (0: from now on)"},
      {.name = "prev-kv", .help = "print each pair as it was before, too"},
      {.name = "progress-notify", .help = "print now and then how far the watch is"},
  };
  return flags;
}

absl::StatusOr<bool> Serializable(const std::string& consistency) {
  if (consistency == "s") return true;
  if (consistency == "l") return false;
  return Refused(fmt::format("unknown consistency flag \"{}\"; write l or s", consistency),
                 absl::StatusCode::kUnimplemented);
}

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty()) {
    auto last = static_cast<unsigned char>(prefix.back());
    if (last < 0xFF) {
      prefix.back() = static_cast<char>(last + 1);
      return prefix;
    }
    prefix.pop_back();
  }
  return std::string(1, kZero);  // Nothing but 0xFF: to the last key.
}

absl::StatusOr<pb::PutRequest> PutRequestFrom(const Arguments& arguments, bool* value_missing) {
  *value_missing = false;
  const std::vector<std::string>& rest = arguments.rest;
  if (rest.empty()) {
    return Refused("put command needs 1 argument and input from stdin or 2 arguments");
  }
  pb::PutRequest request;
  request.set_key(rest[0]);
  request.set_ignore_value(arguments.Bool("ignore-value"));
  request.set_ignore_lease(arguments.Bool("ignore-lease"));
  request.set_prev_kv(arguments.Bool("prev-kv"));
  if (request.ignore_value() && rest.size() > 1) {
    return Refused("put command needs only 1 argument when 'ignore-value' is set");
  }
  if (rest.size() > 1) {
    request.set_value(rest[1]);
  } else {
    *value_missing = !request.ignore_value();
  }
  const std::string& text = arguments.String("lease");
  int64_t lease = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), lease, 16);
  if (error != std::errc() || end != text.data() + text.size()) {
    return Refused(fmt::format("bad lease ID \"{}\"; write it in hexadecimal", text));
  }
  request.set_lease(lease);
  return request;
}

absl::StatusOr<pb::RangeRequest> RangeRequestFrom(const Arguments& arguments) {
  if (arguments.rest.empty()) {
    return Refused("get command needs one argument as key and an optional argument as range_end");
  }
  pb::RangeRequest request;
  request.set_keys_only(arguments.Bool("keys-only"));
  request.set_count_only(arguments.Bool("count-only"));
  if (request.keys_only() && request.count_only()) {
    return Refused("`--keys-only` and `--count-only` cannot be set at the same time, choose one");
  }
  absl::StatusOr<bool> serializable = Serializable(arguments.String("consistency"));
  if (!serializable.ok()) return serializable.status();
  request.set_serializable(*serializable);
  if (absl::Status status = SetRange(arguments, request); !status.ok()) return status;
  if (absl::Status status = SetSort(arguments, request); !status.ok()) return status;
  request.set_limit(arguments.Int("limit"));
  auto positive = [&](std::string_view flag) { return std::max<int64_t>(0, arguments.Int(flag)); };
  request.set_revision(positive("rev"));
  for (auto [low, high] :
       {std::pair{"min-create-rev", "max-create-rev"}, std::pair{"min-mod-rev", "max-mod-rev"}}) {
    if (absl::Status status = CheckBounds(arguments, low, high); !status.ok()) return status;
  }
  request.set_min_create_revision(positive("min-create-rev"));
  request.set_max_create_revision(positive("max-create-rev"));
  request.set_min_mod_revision(positive("min-mod-rev"));
  request.set_max_mod_revision(positive("max-mod-rev"));
  return request;
}

absl::StatusOr<pb::DeleteRangeRequest> DeleteRequestFrom(const Arguments& arguments) {
  if (arguments.rest.empty() || arguments.rest.size() > 2) {
    return Refused("del command needs one argument as key and an optional argument as range_end");
  }
  pb::DeleteRangeRequest request;
  if (absl::Status status = SetRange(arguments, request); !status.ok()) return status;
  request.set_prev_kv(arguments.Bool("prev-kv"));
  return request;
}

absl::StatusOr<pb::WatchCreateRequest> WatchRequestFrom(const Arguments& arguments) {
  if (arguments.rest.empty() || arguments.rest.size() > 2) {
    return Refused("bad number of arguments");
  }
  pb::WatchCreateRequest request;
  if (absl::Status status = SetRange(arguments, request); !status.ok()) return status;
  request.set_start_revision(arguments.Int("rev"));
  request.set_prev_kv(arguments.Bool("prev-kv"));
  request.set_progress_notify(arguments.Bool("progress-notify"));
  return request;
}

}  // namespace kv::kvctl

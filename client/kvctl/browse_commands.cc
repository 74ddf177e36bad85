#include <fmt/format.h>

#include <cstdio>
#include <string>

#include "client/kvctl/commands.h"
#include "client/kvctl/edit.h"
#include "client/kvctl/pages.h"
#include "client/kvctl/requests.h"
#include "client/kvctl/session.h"
#include "client/kvctl/tree.h"

namespace kv::kvctl {
namespace {

// Of the one argument, or nothing: all keys.
pb::RangeRequest Below(const std::string& prefix) {
  pb::RangeRequest request;
  request.set_key(prefix.empty() ? std::string(1, '\0') : prefix);
  request.set_range_end(PrefixEnd(prefix));
  return request;
}

// Simple and JSON; all else is refused.
absl::Status OnlyTextOrJson(const Session& session) {
  const Format format = session.style().format;
  if (format == Format::kSimple || format == Format::kJson) return absl::OkStatus();
  return Refused(std::string(Name(format)) + " not supported as output format",
                 absl::StatusCode::kUnimplemented);
}

constexpr size_t kTreeLinesMax = 10'000;

int ShowTree(const Arguments& arguments) {
  if (arguments.rest.size() > 1) return Fail(kBadArguments, "tree command needs at most a prefix");
  if (arguments.Int("depth") < 0) return Fail(kBadArguments, "--depth may not be negative");
  const bool sizes = arguments.Bool("sizes");
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = OnlyTextOrJson(*session); !can.ok()) return Fail(can);

  const std::string prefix = arguments.rest.empty() ? "" : arguments.rest[0];
  pb::RangeRequest request = Below(prefix);
  request.set_keys_only(!sizes);
  request.set_revision(arguments.Int("rev"));
  const auto client = session->Connect();
  Pages pages(client.get(), request, session->call_options());
  Tree tree(static_cast<size_t>(arguments.Int("depth")), kTreeLinesMax);
  for (;;) {
    absl::StatusOr<const mvccpb::KeyValue*> pair = pages.Next();
    if (!pair.ok()) return Fail(kError, Text(pair.status()));
    if (*pair == nullptr) break;
    const std::string_view key = (*pair)->key();
    tree.Add(key.substr(prefix.size()), key.size() + (*pair)->value().size());
  }
  Print(session->style().format == Format::kJson ? TreeJson(tree, prefix, sizes)
                                                 : TreeText(tree, prefix, sizes));
  if (tree.cut()) {
    Warn(
        fmt::format("that is more than {} lines, so it is shown to depth {}; give a longer prefix "
                    "or --depth",
                    kTreeLinesMax, tree.depth()));
  }
  return kOk;
}

// What happened to a key between two revisions.
struct Change {
  const mvccpb::KeyValue* before;  // Null: added.
  const mvccpb::KeyValue* after;   // Null: removed.
};

std::string JsonOf(const Change& change, bool keys_only) {
  const bool added = change.before == nullptr;
  const bool removed = change.after == nullptr;
  std::string line = fmt::format("{{\"change\":\"{}\",\"key\":\"{}\"",
                                 added     ? "added"
                                 : removed ? "removed"
                                           : "changed",
                                 Base64(added ? change.after->key() : change.before->key()));
  if (!added && !keys_only)
    line += fmt::format(",\"before\":\"{}\"", Base64(change.before->value()));
  if (!removed && !keys_only)
    line += fmt::format(",\"after\":\"{}\"", Base64(change.after->value()));
  return line + "}\n";
}

std::string TextOf(const Change& change, bool keys_only) {
  const bool added = change.before == nullptr;
  const bool removed = change.after == nullptr;
  const char sign = added ? '+' : removed ? '-' : '~';
  std::string line =
      fmt::format("{} {}", sign, GoQuoted(added ? change.after->key() : change.before->key()));
  if (!keys_only) {
    line += " ";
    if (!added) line += GoQuoted(change.before->value());
    if (!added && !removed) line += " -> ";
    if (!removed) line += GoQuoted(change.after->value());
  }
  if (!Fancy(1)) return line + "\n";
  return fmt::format("\033[{}m{}\033[0m\n", added ? 32 : removed ? 31 : 33, line);
}

int ShowDiff(const Arguments& arguments) {
  if (arguments.rest.size() > 1) return Fail(kBadArguments, "diff command needs at most a prefix");
  if (arguments.Int("rev") <= 0) {
    return Fail(kBadArguments,
                "diff command needs --rev, the revision to compare with --rev2 "
                "(or with the newest); `kvctl get KEY -w json` shows revisions");
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status can = OnlyTextOrJson(*session); !can.ok()) return Fail(can);
  const bool keys_only = arguments.Bool("keys-only");
  const bool json = session->style().format == Format::kJson;
  const auto client = session->Connect();
  pb::RangeRequest request = Below(arguments.rest.empty() ? "" : arguments.rest[0]);
  request.set_keys_only(keys_only);
  const auto pages_at = [&](int64_t revision) {
    request.set_revision(revision);
    return Pages(client.get(), request, session->call_options());
  };
  Pages old_side = pages_at(arguments.Int("rev"));
  Pages new_side = pages_at(std::max<int64_t>(0, arguments.Int("rev2")));

  auto before = old_side.Next();
  auto after = new_side.Next();
  for (;;) {
    if (!before.ok()) return Fail(kError, Text(before.status()));
    if (!after.ok()) return Fail(kError, Text(after.status()));
    if (*before == nullptr && *after == nullptr) return kOk;
    const bool only_before =
        *after == nullptr || (*before != nullptr && (*before)->key() < (*after)->key());
    const bool only_after =
        !only_before && (*before == nullptr || (*after)->key() < (*before)->key());
    const Change change{.before = only_after ? nullptr : *before,
                        .after = only_before ? nullptr : *after};
    const bool same = change.before != nullptr && change.after != nullptr &&
                      (change.before->mod_revision() == change.after->mod_revision() ||
                       (!keys_only && change.before->value() == change.after->value()));
    if (!same) Print(json ? JsonOf(change, keys_only) : TextOf(change, keys_only));
    if (std::ferror(stdout) != 0) return kInputOutput;  // main() says so.
    if (!only_after) before = old_side.Next();
    if (!only_before) after = new_side.Next();
  }
}

}  // namespace

std::vector<Command> BrowseCommands() {
  constexpr std::string_view kGroup = "Keys and values";
  return {
      {.name = "tree",
       .group = kGroup,
       .summary = "Shows keys as a tree, cut at each /, with counts",
       .arguments = "[prefix]",
       .text = "All as of one revision. Shows at most 10000 lines: of a larger tree the upper "
               "levels.\nWith -w json, for programs.\n\n"
               "Examples:\n"
               "  kvctl tree /registry/ --depth 1\n"
               "  kvctl tree --sizes",
       .flags = {{.name = "depth", .type = FlagType::kInt, .help = "so many levels (0: all)"},
                 {.name = "sizes", .help = "bytes of keys and values, too (reads all values)"},
                 {.name = "rev",
                  .type = FlagType::kInt,
                  .help = "as of this revision (0: newest)"}},
       .run = ShowTree},
      {.name = "diff",
       .group = kGroup,
       .summary = "Shows what changed between two revisions",
       .arguments = "[prefix]",
       .text = "A line for each key that was added (+), removed (-) or has another value (~). With "
               "--keys-only,\n~ is any key that was put again. Both revisions must not be "
               "compacted.\n\n"
               "Examples:\n"
               "  kvctl diff /config/ --rev 1000\n"
               "  kvctl diff --rev 1000 --rev2 1200 --keys-only",
       .flags = {{.name = "rev", .type = FlagType::kInt, .help = "the older revision"},
                 {.name = "rev2", .type = FlagType::kInt, .help = "the newer one (0: the newest)"},
                 {.name = "keys-only", .help = "without the values"}},
       .run = ShowDiff},
      {.name = "edit",
       .group = kGroup,
       .summary = "Opens the value of a key in your editor and puts what you made of it",
       .arguments = "<key>",
       .text = "The editor is $VISUAL, else $EDITOR, else vi. The key is put only if nobody has "
               "changed it\nmeanwhile; otherwise your text is kept in a file, which is named. The "
               "key keeps its lease.\nA newline that the editor adds at the end is dropped if the "
               "value had none.\n\n"
               "Examples:\n"
               "  EDITOR=nano kvctl edit /config/app",
       .run = Edit},
  };
}

}  // namespace kv::kvctl

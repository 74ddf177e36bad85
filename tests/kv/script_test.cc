// The machine's vocabulary for scripts: commands as text in, replies as text out.
//
//     put KEY VALUE [prev] [ignore-value] [ignore-lease] [lease=N]
//     get KEY [end=KEY|from|prefix] [rev=N] [limit=N] [order=asc|desc] [sort=TARGET] [keys-only]
//         [count-only] [min-mod=N] [max-mod=N] [min-create=N] [max-create=N]
//     del KEY [end=…] [prev]
//     txn                          followed by lines, nested ones two spaces deeper:
//       if TARGET KEY OP VALUE [end=…]     OP: is is-not below above
//       then COMMAND …                     put, get, del, txn, none
//       else COMMAND …
//     read                         the same for ranges alone, outside the log
//     grant ID TTL · revoke ID     expire ID… and checkpoint ID REMAINING, each with [term=N]
//                                  [granted=N] (of the lease that there is) · leases
//     compact REV                  await REV · work [N] · flush · crash · reopen · run … end
//     events FROM · hash NAME · head · pages KEY [end=…] [bytes=N] …
//
// "run" gathers the commands that follow into one run of entries, applied at "end".
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "storage/status.h"
#include "tests/kv/machine_fixture.h"
#include "tests/script.h"

namespace kv {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::RequestOp;
using etcdserverpb::TxnRequest;

int64_t NumberOf(const ScriptLine& line, std::string_view key) {
  return std::stoll(line.Get(key, "0"));
}

std::string EndOf(const ScriptLine& line, const std::string& key) {
  std::string end = line.Get("end", "");
  if (end == "from") return std::string(1, '\0');
  if (end == "prefix") {
    end = key;
    ++end.back();
  }
  return end;
}

// Bytes that are not printable as \xHH.
std::string Quoted(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) {
    if (c >= ' ' && c <= '~') {
      out += c;
    } else {
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

etcdserverpb::PutRequest PutOf(const ScriptLine& line) {
  etcdserverpb::PutRequest put;
  put.set_key(line.args.at(0));
  // The value is a bare word too, so options come after it.
  put.set_ignore_value(line.Has("ignore-value"));
  if (!put.ignore_value()) put.set_value(line.args.at(1));
  put.set_ignore_lease(line.Has("ignore-lease"));
  put.set_prev_kv(line.Has("prev"));
  put.set_lease(NumberOf(line, "lease"));
  return put;
}

RangeRequest RangeOf(const ScriptLine& line) {
  RangeRequest request;
  request.set_key(line.args.at(0));
  request.set_range_end(EndOf(line, request.key()));
  request.set_revision(NumberOf(line, "rev"));
  request.set_limit(NumberOf(line, "limit"));
  request.set_keys_only(line.Has("keys-only"));
  request.set_count_only(line.Has("count-only"));
  request.set_min_mod_revision(NumberOf(line, "min-mod"));
  request.set_max_mod_revision(NumberOf(line, "max-mod"));
  request.set_min_create_revision(NumberOf(line, "min-create"));
  request.set_max_create_revision(NumberOf(line, "max-create"));
  const std::string order = line.Get("order", "none");
  if (order == "asc") request.set_sort_order(RangeRequest::ASCEND);
  if (order == "desc") request.set_sort_order(RangeRequest::DESCEND);
  static const std::map<std::string, RangeRequest::SortTarget> targets = {
      {"key", RangeRequest::KEY},
      {"version", RangeRequest::VERSION},
      {"create", RangeRequest::CREATE},
      {"mod", RangeRequest::MOD},
      {"value", RangeRequest::VALUE}};
  request.set_sort_target(targets.at(line.Get("sort", "key")));
  return request;
}

etcdserverpb::DeleteRangeRequest DeleteOf(const ScriptLine& line) {
  etcdserverpb::DeleteRangeRequest request;
  request.set_key(line.args.at(0));
  request.set_range_end(EndOf(line, request.key()));
  request.set_prev_kv(line.Has("prev"));
  return request;
}

Compare CompareOf(const ScriptLine& line) {
  // "if mod k is 3": the line's command is "if".
  Compare compare;
  const std::string& target = line.args.at(0);
  const std::string& op = line.args.at(2);
  const std::string& value = line.args.at(3);
  compare.set_key(line.args.at(1));
  compare.set_range_end(EndOf(line, compare.key()));
  static const std::map<std::string, Compare::CompareResult> results = {
      {"is", Compare::EQUAL},
      {"is-not", Compare::NOT_EQUAL},
      {"below", Compare::LESS},
      {"above", Compare::GREATER}};
  compare.set_result(results.at(op));
  if (target == "version") {
    compare.set_target(Compare::VERSION);
    compare.set_version(std::stoll(value));
  } else if (target == "create") {
    compare.set_target(Compare::CREATE);
    compare.set_create_revision(std::stoll(value));
  } else if (target == "mod") {
    compare.set_target(Compare::MOD);
    compare.set_mod_revision(std::stoll(value));
  } else if (target == "lease") {
    compare.set_target(Compare::LEASE);
    compare.set_lease(std::stoll(value));
  } else {
    REQUIRE(target == "value");
    compare.set_target(Compare::VALUE);
    compare.set_value(value);
  }
  return compare;
}

size_t IndentOf(const std::string& line) { return line.find_first_not_of(' '); }

// The lines from `at` on that are indented by `indent` make the transaction.
TxnRequest TxnOf(const std::vector<std::string>& lines, size_t& at, size_t indent) {
  TxnRequest txn;
  while (at < lines.size() && IndentOf(lines[at]) == indent) {
    const ScriptLine line = ParseScriptLine(lines[at].substr(indent));
    ++at;
    if (line.command == "if") {
      *txn.add_compare() = CompareOf(line);
      continue;
    }
    REQUIRE((line.command == "then" || line.command == "else"));
    RequestOp& op = *(line.command == "then" ? txn.add_success() : txn.add_failure());
    ScriptLine inner = line;
    inner.command = line.args.at(0);
    inner.args.erase(inner.args.begin());
    if (inner.command == "put") *op.mutable_request_put() = PutOf(inner);
    if (inner.command == "get") *op.mutable_request_range() = RangeOf(inner);
    if (inner.command == "del") *op.mutable_request_delete_range() = DeleteOf(inner);
    if (inner.command == "txn") *op.mutable_request_txn() = TxnOf(lines, at, indent + 2);
  }
  return txn;
}

std::string Told(const mvccpb::KeyValue& kv) {
  std::string out =
      fmt::format("{} = {}  create={} mod={} version={}", Quoted(kv.key()), Quoted(kv.value()),
                  kv.create_revision(), kv.mod_revision(), kv.version());
  if (kv.lease() != 0) out += fmt::format(" lease={}", kv.lease());
  return out;
}

std::string Header(const etcdserverpb::ResponseHeader& header) {
  return header.revision() == 0 ? "rev -" : fmt::format("rev {}", header.revision());
}

std::string Told(const etcdserverpb::RangeResponse& response, const std::string& margin) {
  std::string out = fmt::format("{}{} count={}{}\n", margin, Header(response.header()),
                                response.count(), response.more() ? " more" : "");
  for (const auto& kv : response.kvs()) out += fmt::format("{}  {}\n", margin, Told(kv));
  return out;
}
std::string Told(const etcdserverpb::PutResponse& response, const std::string& margin) {
  std::string out = fmt::format("{}{}\n", margin, Header(response.header()));
  if (response.has_prev_kv()) out += fmt::format("{}  was {}\n", margin, Told(response.prev_kv()));
  return out;
}
std::string Told(const etcdserverpb::DeleteRangeResponse& response, const std::string& margin) {
  std::string out =
      fmt::format("{}{} deleted={}\n", margin, Header(response.header()), response.deleted());
  for (const auto& kv : response.prev_kvs()) out += fmt::format("{}  was {}\n", margin, Told(kv));
  return out;
}
std::string Told(const etcdserverpb::LeaseGrantResponse& response, const std::string& margin) {
  return fmt::format("{}{} lease={} ttl={}\n", margin, Header(response.header()), response.id(),
                     response.ttl());
}
std::string Told(const etcdserverpb::LeaseRevokeResponse& response, const std::string& margin) {
  return margin + Header(response.header()) + "\n";
}
// What answers nobody: an empty reply.
std::string Told(const kvd::internal::ClusterVersion&, const std::string& margin) {
  return margin + "ok\n";
}
std::string Told(const etcdserverpb::CompactionResponse& response, const std::string& margin) {
  return margin + Header(response.header()) + "\n";
}
std::string Told(const etcdserverpb::TxnResponse& response, const std::string& margin) {
  std::string out = fmt::format("{}{} {}\n", margin, Header(response.header()),
                                response.succeeded() ? "then" : "else");
  for (const auto& op : response.responses()) {
    if (op.has_response_range()) out += Told(op.response_range(), margin + "  ");
    if (op.has_response_put()) out += Told(op.response_put(), margin + "  ");
    if (op.has_response_delete_range()) out += Told(op.response_delete_range(), margin + "  ");
    if (op.has_response_txn()) out += Told(op.response_txn(), margin + "  ");
  }
  return out;
}

template <typename Response>
std::string Told(const absl::StatusOr<Response>& response) {
  return response.ok() ? Told(*response, "") : Describe(response.status()) + "\n";
}

template <typename Response>
std::string ToldReply(const Reply& reply) {
  if (!reply.status.ok()) return Describe(reply.status) + "\n";
  Response response;
  REQUIRE(response.ParseFromString(reply.body));
  return Told(response, "");
}

class Vocabulary {
 public:
  std::string operator()(const ScriptBlock& block) {
    const ScriptLine line = block.Command();
    std::string out;
    if (Command(block, line, out) || Reading(block, line, out)) return out;
    if (line.command == "work") {
      int steps = 0;
      const int steps_max = line.args.empty() ? 1000 : std::stoi(line.args[0]);
      while (steps < steps_max && fixture_.WorkOnce()) ++steps;
      return fixture_.machine().head().compacted < 0 ? "nothing to do" : "ok";
    }
    if (line.command == "await") {
      fixture_.machine().AwaitCompacted(std::stoll(line.args.at(0)),
                                        [this](const absl::Status& status) {
                                          awaited_ += "compacted: " + Describe(status) + "\n";
                                        });
      return Awaited("waiting\n");
    }
    if (line.command == "awaited") return Awaited("waiting\n");
    if (line.command == "flush") return Describe(fixture_.machine().Flush());
    if (line.command == "crash") {
      fixture_.CrashAndRecover();
      return "ok";
    }
    if (line.command == "reopen") {
      REQUIRE(fixture_.machine().Flush().ok());
      fixture_.CrashAndRecover();
      return "ok";
    }
    return "unknown command " + line.command;
  }

 private:
  std::string Awaited(const std::string& otherwise) {
    return awaited_.empty() ? otherwise : std::exchange(awaited_, std::string());
  }

  template <typename Response>
  std::string Do(kvd::internal::Kind kind, const google::protobuf::MessageLite& request,
                 const ScriptLine& line) {
    kvd::internal::Command command;
    command.set_kind(kind);
    command.set_min_version(1);
    command.set_auth_revision(static_cast<uint64_t>(NumberOf(line, "auth")));
    command.set_body(line.Has("broken") ? "\xff\xff" : request.SerializeAsString());
    queued_.push_back(fixture_.Append(EntryKind::kCommand, command.SerializeAsString()));
    told_.push_back(&ToldReply<Response>);
    return gathering_ ? "queued" : Apply();
  }
  std::string Apply() {
    std::string out;
    const std::vector<Reply> replies = fixture_.Apply(std::exchange(queued_, {}));
    for (size_t i = 0; i < replies.size(); ++i) out += told_[i](replies[i]);
    told_.clear();
    return out;
  }

  bool Command(const ScriptBlock& block, const ScriptLine& line, std::string& out) {
    using namespace kvd::internal;
    if (line.command == "run") {
      gathering_ = true;
      out = "ok";
    } else if (line.command == "end") {
      gathering_ = false;
      out = Apply();
    } else if (line.command == "put") {
      out = Do<etcdserverpb::PutResponse>(PUT, PutOf(line), line);
    } else if (line.command == "del") {
      out = Do<etcdserverpb::DeleteRangeResponse>(DELETE_RANGE, DeleteOf(line), line);
    } else if (line.command == "txn") {
      size_t at = 1;
      const TxnRequest txn = TxnOf(block.input, at, 2);
      REQUIRE(at == block.input.size());
      out = Do<etcdserverpb::TxnResponse>(TXN, txn, line);
    } else if (line.command == "grant") {
      etcdserverpb::LeaseGrantRequest request;
      request.set_id(std::stoll(line.args.at(0)));
      request.set_ttl(std::stoll(line.args.at(1)));
      out = Do<etcdserverpb::LeaseGrantResponse>(LEASE_GRANT, request, line);
    } else if (line.command == "revoke") {
      etcdserverpb::LeaseRevokeRequest request;
      request.set_id(std::stoll(line.args.at(0)));
      out = Do<etcdserverpb::LeaseRevokeResponse>(LEASE_REVOKE, request, line);
    } else if (line.command == "expire") {
      LeaseExpiry expiry;
      expiry.set_term(static_cast<uint64_t>(std::stoll(line.Get("term", "1"))));
      for (const std::string& id : line.args) {
        LeaseExpiry::Expired& expired = *expiry.add_leases();
        expired.set_id(std::stoll(id));
        expired.set_granted(GrantedOf(line, expired.id()));
      }
      out = Do<ClusterVersion>(LEASE_EXPIRE, expiry, line);
    } else if (line.command == "checkpoint") {
      LeaseCheckpoints checkpoints;
      checkpoints.set_term(static_cast<uint64_t>(std::stoll(line.Get("term", "1"))));
      LeaseCheckpoints::Checkpoint& checkpoint = *checkpoints.add_checkpoints();
      checkpoint.set_id(std::stoll(line.args.at(0)));
      checkpoint.set_granted(GrantedOf(line, checkpoint.id()));
      checkpoint.set_remaining(std::stoll(line.args.at(1)));
      out = Do<ClusterVersion>(LEASE_CHECKPOINT, checkpoints, line);
    } else if (line.command == "compact") {
      etcdserverpb::CompactionRequest request;
      request.set_revision(std::stoll(line.args.at(0)));
      out = Do<etcdserverpb::CompactionResponse>(COMPACT, request, line);
    } else {
      return false;
    }
    return true;
  }

  bool Reading(const ScriptBlock& block, const ScriptLine& line, std::string& out) {
    const KvMachine& machine = fixture_.machine();
    if (line.command == "get") {
      out = Told(machine.Range(
          RangeOf(line), static_cast<uint64_t>(std::stoll(line.Get("bytes-max", "2147483647")))));
    } else if (line.command == "read") {
      size_t at = 1;
      out = Told(machine.ReadTxn(TxnOf(block.input, at, 2)));
    } else if (line.command == "pages") {
      out = Pages(line);
    } else if (line.command == "leases") {
      out = Leases();
    } else if (line.command == "head") {
      const Head head = machine.head();
      out = fmt::format("applied={} revision={} compacted={} keys={}", head.applied.index,
                        head.revision, head.compacted, head.keys);
    } else if (line.command == "hash") {
      out = Hash(line);
    } else if (line.command == "events") {
      out = Events(std::stoll(line.args.at(0)));
    } else {
      return false;
    }
    return true;
  }

  uint64_t GrantedOf(const ScriptLine& line, int64_t id) {
    const std::optional<Lease> lease = fixture_.machine().FindLease(id);
    return static_cast<uint64_t>(
        std::stoll(line.Get("granted", lease ? std::to_string(lease->granted) : "0")));
  }

  std::string Leases() {
    std::string out;
    for (const Lease& lease : fixture_.machine().Leases()) {
      const auto keys = fixture_.machine().KeysOf(lease.id);
      REQUIRE(keys.ok());
      out += fmt::format("{} ttl={} remaining={} granted={}", lease.id, lease.ttl, lease.remaining,
                         lease.granted);
      for (const std::string& key : *keys) out += " " + Quoted(key);
      out += "\n";
    }
    return out.empty() ? "none" : out;
  }

  std::string Pages(const ScriptLine& line) {
    auto pages =
        fixture_.machine().OpenRange(RangeOf(line), static_cast<uint64_t>(NumberOf(line, "bytes")));
    if (!pages.ok()) return Describe(pages.status());
    std::string out;
    for (bool last = false; !last;) {
      etcdserverpb::RangeResponse page;
      const absl::StatusOr<bool> next = (*pages)->Next(page);
      if (!next.ok()) return out + Describe(next.status());
      last = *next;
      out += Told(page, "");
    }
    return out;
  }

  // Names what it sees the first time, and says which name it was later.
  std::string Hash(const ScriptLine& line) {
    const auto answer = fixture_.machine().HashKv(NumberOf(line, "rev"));
    if (!answer.ok()) return Describe(answer.status());
    const auto [at, fresh] = hashes_.emplace(answer->hash(), line.args.at(0));
    return fmt::format("{}{} at={} compacted={} rev={}", fresh ? "new " : "", at->second,
                       answer->hash_revision(), answer->compact_revision(),
                       answer->header().revision());
  }

  std::string Events(Revision first) {
    const auto revisions = fixture_.machine().Latest().History(first, 1000);
    if (!revisions.ok()) return Describe(revisions.status());
    std::string out;
    for (const RevisionEvents& at : *revisions) {
      out += fmt::format("{}:\n", at.revision);
      for (const KeyEvent& event : at.events) {
        out +=
            fmt::format("  {} {}{}", event.record->tombstone ? "delete" : "put", Quoted(event.key),
                        event.record->tombstone ? "" : " = " + Quoted(event.record->value));
        if (event.previous != nullptr) {
          out += fmt::format("  was {} of {}", Quoted(event.previous->value), event.previous->mod);
        }
        out += "\n";
      }
    }
    return out.empty() ? "none" : out;
  }

  MachineFixture fixture_;
  bool gathering_ = false;
  std::vector<EntryPtr> queued_;
  std::vector<std::string (*)(const Reply&)> told_;
  std::map<uint32_t, std::string> hashes_;
  std::string awaited_;
};

}  // namespace

TEST_CASE("the machine answers as its scripts say") {
  const std::vector<std::string> scripts = ListScripts("tests/kv/scripts");
  REQUIRE(scripts.size() >= 25);
  for (const std::string& script : scripts) {
    Vocabulary vocabulary;
    for (const std::string& fault :
         RunScript(script, [&vocabulary](const ScriptBlock& block) { return vocabulary(block); })) {
      FAIL_CHECK(fault);
    }
  }
}

}  // namespace kv

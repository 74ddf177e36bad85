#include "tests/sim/client.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/lease_keeper.h"
#include "server/kv/maintenance.h"
#include "storage/check.h"
#include "storage/status.h"

namespace kv::sim {

using kv::Describe;

namespace {

using etcdserverpb::Compare;

Row RowOf(const mvccpb::KeyValue& kv) {
  return {.key = kv.key(),
          .value = kv.value(),
          .create = kv.create_revision(),
          .mod = kv.mod_revision(),
          .version = kv.version(),
          .lease = kv.lease()};
}

void Encode(const Request& request, etcdserverpb::PutRequest* put) {
  put->set_lease(request.lease);
  put->set_key(request.key);
  put->set_value(request.value);
  put->set_prev_kv(request.previous);
}
void Encode(const Request& request, etcdserverpb::DeleteRangeRequest* erase) {
  erase->set_key(request.key);
  erase->set_range_end(request.end);
  erase->set_prev_kv(request.previous);
}
void Encode(const Request& request, etcdserverpb::RangeRequest* range) {
  range->set_key(request.key);
  range->set_range_end(request.end);
  range->set_revision(request.revision);
  range->set_limit(request.limit);
  range->set_count_only(request.count_only);
  range->set_serializable(request.serializable);
}
void Encode(const Condition& condition, Compare* compare) {
  compare->set_key(condition.key);
  switch (condition.relation) {
    case Condition::Relation::kEqual:
      compare->set_result(Compare::EQUAL);
      break;
    case Condition::Relation::kNotEqual:
      compare->set_result(Compare::NOT_EQUAL);
      break;
    case Condition::Relation::kGreater:
      compare->set_result(Compare::GREATER);
      break;
    case Condition::Relation::kLess:
      compare->set_result(Compare::LESS);
      break;
  }
  switch (condition.field) {
    case Condition::Field::kVersion:
      compare->set_target(Compare::VERSION);
      compare->set_version(condition.number);
      break;
    case Condition::Field::kCreate:
      compare->set_target(Compare::CREATE);
      compare->set_create_revision(condition.number);
      break;
    case Condition::Field::kMod:
      compare->set_target(Compare::MOD);
      compare->set_mod_revision(condition.number);
      break;
    case Condition::Field::kValue:
      compare->set_target(Compare::VALUE);
      compare->set_value(condition.value);
      break;
  }
}
void Encode(const Request& part, etcdserverpb::RequestOp* op) {
  if (part.kind == Kind::kPut) Encode(part, op->mutable_request_put());
  if (part.kind == Kind::kDelete) Encode(part, op->mutable_request_delete_range());
  if (part.kind == Kind::kRange) Encode(part, op->mutable_request_range());
}

std::string EncodeCommand(const Request& request) {
  kvd::internal::Command command;
  command.set_min_version(1);
  switch (request.kind) {
    case Kind::kPut: {
      etcdserverpb::PutRequest put;
      Encode(request, &put);
      command.set_kind(kvd::internal::PUT);
      command.set_body(put.SerializeAsString());
      break;
    }
    case Kind::kDelete: {
      etcdserverpb::DeleteRangeRequest erase;
      Encode(request, &erase);
      command.set_kind(kvd::internal::DELETE_RANGE);
      command.set_body(erase.SerializeAsString());
      break;
    }
    case Kind::kTxn: {
      etcdserverpb::TxnRequest txn;
      for (const Condition& condition : request.conditions) Encode(condition, txn.add_compare());
      for (const Request& part : request.then) Encode(part, txn.add_success());
      for (const Request& part : request.otherwise) Encode(part, txn.add_failure());
      command.set_kind(kvd::internal::TXN);
      command.set_body(txn.SerializeAsString());
      break;
    }
    case Kind::kCompact: {
      etcdserverpb::CompactionRequest compact;
      compact.set_revision(request.revision);
      command.set_kind(kvd::internal::COMPACT);
      command.set_body(compact.SerializeAsString());
      break;
    }
    case Kind::kGrant: {
      etcdserverpb::LeaseGrantRequest grant;
      grant.set_id(request.lease);
      grant.set_ttl(request.ttl);
      command.set_min_version(kLeaseMachineVersion);
      command.set_kind(kvd::internal::LEASE_GRANT);
      command.set_body(grant.SerializeAsString());
      break;
    }
    case Kind::kRevoke: {
      etcdserverpb::LeaseRevokeRequest revoke;
      revoke.set_id(request.lease);
      command.set_min_version(kLeaseMachineVersion);
      command.set_kind(kvd::internal::LEASE_REVOKE);
      command.set_body(revoke.SerializeAsString());
      break;
    }
    case Kind::kAlarm: {
      etcdserverpb::AlarmRequest alarm;
      alarm.set_action(request.lifts ? etcdserverpb::AlarmRequest::DEACTIVATE
                                     : etcdserverpb::AlarmRequest::ACTIVATE);
      alarm.set_memberid(request.alarm.member);
      alarm.set_alarm(static_cast<etcdserverpb::AlarmType>(request.alarm.type));
      command.set_min_version(kMaintenanceVersion);
      command.set_kind(kvd::internal::ALARM);
      command.set_body(alarm.SerializeAsString());
      break;
    }
    case Kind::kRange:
      FailCheck(__FILE__, __LINE__, "a range does not enter the log");
  }
  return command.SerializeAsString();
}

Answer Decode(const etcdserverpb::RangeResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  for (const mvccpb::KeyValue& kv : response.kvs()) answer.rows.push_back(RowOf(kv));
  answer.count = response.count();
  answer.more = response.more();
  return answer;
}
Answer Decode(const etcdserverpb::PutResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  if (response.has_prev_kv()) answer.rows.push_back(RowOf(response.prev_kv()));
  return answer;
}
Answer Decode(const etcdserverpb::DeleteRangeResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  for (const mvccpb::KeyValue& kv : response.prev_kvs()) answer.rows.push_back(RowOf(kv));
  answer.count = response.deleted();
  return answer;
}
Answer Decode(const etcdserverpb::TxnResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  answer.succeeded = response.succeeded();
  for (const etcdserverpb::ResponseOp& op : response.responses()) {
    if (op.has_response_range()) answer.parts.push_back(Decode(op.response_range()));
    if (op.has_response_put()) answer.parts.push_back(Decode(op.response_put()));
    if (op.has_response_delete_range()) answer.parts.push_back(Decode(op.response_delete_range()));
  }
  return answer;
}

Answer Decode(const etcdserverpb::CompactionResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  return answer;
}
Answer Decode(const etcdserverpb::LeaseGrantResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  answer.count = response.ttl();
  return answer;
}
Answer Decode(const etcdserverpb::LeaseRevokeResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  return answer;
}
Answer Decode(const etcdserverpb::AlarmResponse& response) {
  Answer answer;
  answer.revision = response.header().revision();
  answer.count = response.alarms_size();
  return answer;
}

template <typename Message>
Answer DecodeAs(const std::string& bytes) {
  Message message;
  if (!message.ParseFromString(bytes)) Condemn("an answer that is no message");
  return Decode(message);
}

Answer Decode(Kind kind, const std::string& bytes) {
  switch (kind) {
    case Kind::kPut:
      return DecodeAs<etcdserverpb::PutResponse>(bytes);
    case Kind::kDelete:
      return DecodeAs<etcdserverpb::DeleteRangeResponse>(bytes);
    case Kind::kTxn:
      return DecodeAs<etcdserverpb::TxnResponse>(bytes);
    case Kind::kCompact:
      return DecodeAs<etcdserverpb::CompactionResponse>(bytes);
    case Kind::kGrant:
      return DecodeAs<etcdserverpb::LeaseGrantResponse>(bytes);
    case Kind::kRevoke:
      return DecodeAs<etcdserverpb::LeaseRevokeResponse>(bytes);
    case Kind::kAlarm:
      return DecodeAs<etcdserverpb::AlarmResponse>(bytes);
    case Kind::kRange:
      break;
  }
  return {};
}

Answer RefusalOf(const absl::Status& status) {
  const std::string_view text = Message(status);
  if (text.find("has been compacted") != text.npos) return {.refusal = Refusal::kCompacted};
  if (text.find("future revision") != text.npos) return {.refusal = Refusal::kFuture};
  constexpr std::pair<std::string_view, Refusal> kTexts[] = {
      {"etcdserver: requested lease not found", Refusal::kLeaseNotFound},
      {"etcdserver: lease already exists", Refusal::kLeaseExists},
      {"etcdserver: mvcc: database space exceeded", Refusal::kNoSpace},
      {"etcdserver: corrupt cluster", Refusal::kCorrupt},
  };
  for (const auto& [known, refusal] : kTexts) {
    if (text == known) return {.refusal = refusal};
  }
  Condemn(fmt::format("a request that is in order was refused: {}", Describe(status)));
}

}  // namespace

Process* History::Alive(int host, uint64_t life) const {
  Process* process = cluster_->host(host).process.get();
  return process != nullptr && process->number == life ? process : nullptr;
}

OperationId History::Issue(Host& host, Request request, absl::Duration deadline, Done done) {
  const OperationId id = operations_.size() + 1;
  operations_.push_back({.id = id,
                         .invoked = cluster_->scheduler().now(),
                         .returned = {},
                         .request = std::move(request)});
  waiting_.push_back(std::move(done));
  ++open_;
  if (cluster_->tracing()) {
    cluster_->Note(&host, fmt::format("is asked {}: {}", id, Describe(operation(id).request)));
  }
  if (operation(id).request.kind == Kind::kRange) {
    Read(host, id, deadline);
  } else {
    Propose(host, id, deadline);
  }
  return id;
}

void History::Propose(Host& host, OperationId id, absl::Duration deadline) {
  const Kind kind = operation(id).request.kind;
  host.replica().Propose(
      Tagged(EncodeCommand(operation(id).request), id), deadline,
      [this, id, kind, number = host.number, life = host.process->number](ProposalResult result) {
        if (Alive(number, life) == nullptr || result.error == ReplicaError::kUnknown) {
          return Finish(id, Outcome::kUnknown, {});
        }
        if (result.error != ReplicaError::kNone) return Finish(id, Outcome::kRefused, {});
        Finish(id, Outcome::kAnswered,
               result.reply.status.ok() ? Decode(kind, result.reply.body)
                                        : RefusalOf(result.reply.status));
      });
}

void History::Read(Host& host, OperationId id, absl::Duration deadline) {
  if (operation(id).request.serializable) return AnswerRead(id, *host.process);
  host.replica().Read(
      deadline, [this, id, number = host.number, life = host.process->number](ReadResult result) {
        Process* process = Alive(number, life);
        if (process == nullptr || result.error != ReplicaError::kNone) {
          return Finish(id, Outcome::kUnknown, {});
        }
        // As the services do it: small reads by the thread that is there, others a little later.
        if (id % 2 == 0) return AnswerRead(id, *process);
        Scheduler& scheduler = cluster_->scheduler();
        const Time later = scheduler.Draw({});
        scheduler.After(later, [this, id, number, life] {
          Process* still = Alive(number, life);
          if (still == nullptr) return Finish(id, Outcome::kUnknown, {});
          AnswerRead(id, *still);
        });
      });
}

void History::AnswerRead(OperationId id, const Process& process) {
  etcdserverpb::RangeRequest range;
  Encode(operation(id).request, &range);
  const auto response = process.node->machine().Range(range);
  Finish(id, Outcome::kAnswered, response.ok() ? Decode(*response) : RefusalOf(response.status()));
}

void History::Renew(Host& host, int64_t lease, absl::Duration deadline,
                    std::function<void(bool)> done) {
  host.process->node->leases().Renew(
      lease, deadline,
      [this, lease, begun = cluster_->scheduler().now(), number = host.number,
       life = host.process->number, done = std::move(done)](LeaseAnswer answer) {
        const bool lives = Alive(number, life) != nullptr && answer.error == ReplicaError::kNone &&
                           answer.seconds.has_value();
        if (lives) {
          renewals_.push_back({.lease = lease,
                               .seconds = *answer.seconds,
                               .invoked = begun,
                               .returned = cluster_->scheduler().now()});
        }
        done(lives);
      });
}

void History::Finish(OperationId id, Outcome outcome, Answer answer) {
  Operation& operation = operations_[id - 1];
  if (operation.returned) Condemn(fmt::format("operation {} was answered twice", id));
  operation.returned = cluster_->scheduler().now();
  operation.outcome = outcome;
  operation.answer = std::move(answer);
  --open_;
  if (outcome == Outcome::kAnswered) ++answered_;
  if (cluster_->tracing()) {
    cluster_->Note(nullptr, fmt::format("{} is answered: {}", id,
                                        outcome == Outcome::kAnswered  ? Describe(operation.answer)
                                        : outcome == Outcome::kRefused ? "refused"
                                                                       : "unknown"));
  }
  if (Done done = std::move(waiting_[id - 1])) done(operation);
}

Workload::Workload(Cluster* cluster, History* history, const WorkloadOptions& options)
    : cluster_(cluster),
      history_(history),
      scheduler_(cluster->scheduler()),
      options_(options),
      clients_(options.clients) {}

void Workload::Start() {
  for (size_t client = 0; client < clients_.size(); ++client) Think(client);
}

void Workload::Think(size_t client) {
  if (stopped_) return;
  scheduler_.After(scheduler_.Draw(options_.think), [this, client] { Ask(client); });
}

Host* Workload::DrawHost(Client& client) {
  std::deque<Host>& hosts = cluster_->hosts();
  if (options_.faithful && client.host != 0 && cluster_->host(client.host).serving()) {
    return &cluster_->host(client.host);
  }
  const uint64_t drawn = scheduler_.Below(hosts.size());
  Host& host = hosts[drawn];
  if (!host.serving()) return nullptr;
  client.host = host.number;
  return &host;
}

void Workload::Ask(size_t client) {
  if (stopped_) return;
  Host* host = DrawHost(clients_[client]);
  if (host == nullptr) return Think(client);
  // As the edge: a young cluster has no leases yet.
  Request request = Draw(host->machine().cluster_version() >= kLeaseMachineVersion);
  const Time deadline = scheduler_.Draw(options_.deadline);
  history_->Issue(*host, std::move(request), absl::Nanoseconds(deadline),
                  [this, client](const Operation& operation) {
                    if (operation.outcome == Outcome::kAnswered) {
                      revision_seen_ = std::max(revision_seen_, operation.answer.revision);
                    }
                    if (operation.request.kind == Kind::kGrant) Granted(operation);
                    Think(client);
                  });
}

std::string Workload::DrawKey() { return fmt::format("k{:03}", scheduler_.Below(options_.keys)); }

void Workload::DrawRange(Request& request) {
  request.key = DrawKey();
  if (!scheduler_.Permille(options_.range_permille)) return;
  std::string other = DrawKey();
  if (other < request.key) std::swap(other, request.key);
  request.end = other + "~";
}

int64_t Workload::DrawRevision() {
  const uint64_t back = scheduler_.Below(60);
  return std::max<int64_t>(1, revision_seen_ + 2 - static_cast<int64_t>(back));
}

Request Workload::DrawPart() {
  Request part;
  const uint64_t kind = scheduler_.Below(4);
  part.previous = scheduler_.Below(2) == 0;
  if (kind < 2) {
    part.kind = Kind::kPut;
    part.key = DrawKey();
    part.value = fmt::format("v{}", ++values_);
    part.lease = DrawLease();
  } else if (kind == 2) {
    part.kind = Kind::kDelete;
    DrawRange(part);
  } else {
    part.kind = Kind::kRange;
    part.previous = false;
    DrawRange(part);
    if (scheduler_.Below(8) == 0) part.revision = DrawRevision();
  }
  return part;
}

// None, mostly; or one that may have ended.
int64_t Workload::DrawLease() {
  if (leases_seen_.empty() || !scheduler_.Permille(options_.leased_permille)) return 0;
  return leases_seen_[scheduler_.Below(leases_seen_.size())];
}

Request Workload::DrawOfLease(Kind kind) {
  Request request{.kind = kind};
  // A few ids come again, while they live and after.
  const bool again = kind == Kind::kRevoke || scheduler_.Below(4) == 0;
  if (again && !leases_seen_.empty()) {
    request.lease = leases_seen_[scheduler_.Below(leases_seen_.size())];
  } else {
    request.lease = ++leases_;
  }
  if (kind == Kind::kGrant) {
    constexpr int64_t kTimes[] = {1, 1, 2, 3, 8, 8, 8, 20};
    request.ttl = kTimes[scheduler_.Below(std::size(kTimes))];
  }
  return request;
}

Request Workload::DrawAlarm() {
  Request request{.kind = Kind::kAlarm};
  request.alarm.type = scheduler_.Below(3) == 0 ? Alarm::Type::kCorrupt : Alarm::Type::kNoSpace;
  request.alarm.member = 1 + scheduler_.Below(2);
  // An operator lifts it: most of the time there shall be none.
  request.lifts = scheduler_.Below(4) > 0;
  return request;
}

// Its owner keeps it for a while, sometimes longer than the faults last, and then forgets it.
void Workload::Granted(const Operation& grant) {
  const int64_t lease = grant.request.lease;
  if (grant.outcome != Outcome::kAnswered || grant.answer.refusal != Refusal::kNone) return;
  if (leases_seen_.size() > 4) leases_seen_.erase(leases_seen_.begin());
  leases_seen_.push_back(lease);
  // Some come late, but in time: long leases have been checkpointed by then.
  const bool late = scheduler_.Below(3) == 0;
  const Time every = grant.request.ttl * kSecond * (late ? 9 : 4) / 12;
  const Time kept = scheduler_.Draw({.least = late ? every : 0, .spread = 15 * kSecond});
  KeepAlive(lease, every, scheduler_.now() + kept);
}

void Workload::KeepAlive(int64_t lease, Time every, Time until) {
  scheduler_.After(every, [this, lease, every, until] {
    if (stopped_ || scheduler_.now() > until) return;
    std::deque<Host>& hosts = cluster_->hosts();
    Host& host = hosts[scheduler_.Below(hosts.size())];
    if (host.serving()) history_->Renew(host, lease, absl::Seconds(4), [](bool) {});
    KeepAlive(lease, every, until);
  });
}

Request Workload::Draw(bool leases) {
  Request request;
  uint64_t total =
      options_.puts + options_.deletes + options_.ranges + options_.txns + options_.compactions;
  if (leases) total += options_.grants + options_.revokes + options_.alarms;
  uint64_t drawn = scheduler_.Below(total);
  if (drawn < options_.puts) {
    request.kind = Kind::kPut;
    request.key = DrawKey();
    request.value = fmt::format("v{}", ++values_);
    if (values_seen_.size() > 8) values_seen_.erase(values_seen_.begin());
    values_seen_.push_back(request.value);
    if (request.value.size() < options_.value_bytes)
      request.value.resize(options_.value_bytes, '.');
    request.previous = scheduler_.Below(3) == 0;
    request.lease = DrawLease();
    return request;
  }
  drawn -= options_.puts;
  if (drawn < options_.deletes) {
    request.kind = Kind::kDelete;
    DrawRange(request);
    request.previous = scheduler_.Below(2) == 0;
    return request;
  }
  drawn -= options_.deletes;
  if (drawn < options_.ranges) {
    request.kind = Kind::kRange;
    DrawRange(request);
    request.serializable = scheduler_.Permille(options_.serializable_permille);
    if (scheduler_.Permille(options_.old_revision_permille)) request.revision = DrawRevision();
    if (scheduler_.Below(4) == 0) request.limit = static_cast<int64_t>(1 + scheduler_.Below(3));
    request.count_only = scheduler_.Below(8) == 0;
    return request;
  }
  drawn -= options_.ranges;
  if (drawn < options_.txns) return DrawTxn();
  drawn -= options_.txns;
  if (drawn < options_.compactions) {
    request.kind = Kind::kCompact;
    const uint64_t back = scheduler_.Below(30);
    request.revision = std::max<int64_t>(1, revision_seen_ - static_cast<int64_t>(back));
    return request;
  }
  drawn -= options_.compactions;
  if (drawn < options_.grants) return DrawOfLease(Kind::kGrant);
  drawn -= options_.grants;
  if (drawn < options_.revokes) return DrawOfLease(Kind::kRevoke);
  return DrawAlarm();
}

Request Workload::DrawTxn() {
  Request request;
  request.kind = Kind::kTxn;
  const uint64_t conditions = scheduler_.Below(3);
  for (uint64_t i = 0; i < conditions; ++i) {
    Condition& condition = request.conditions.emplace_back();
    condition.key = DrawKey();
    condition.field = static_cast<Condition::Field>(scheduler_.Below(4));
    condition.relation = static_cast<Condition::Relation>(scheduler_.Below(4));
    if (condition.field == Condition::Field::kValue) {
      if (!values_seen_.empty()) {
        condition.value = values_seen_[scheduler_.Below(values_seen_.size())];
        condition.value.resize(std::max<size_t>(options_.value_bytes, condition.value.size()), '.');
      }
    } else if (condition.field == Condition::Field::kVersion) {
      condition.number = static_cast<int64_t>(scheduler_.Below(4));
    } else {
      condition.number = scheduler_.Below(2) == 0 ? 0 : DrawRevision();
    }
  }
  // A key is written once in a transaction: the edge refuses others.
  std::vector<std::string> written;
  for (std::vector<Request>* parts : {&request.then, &request.otherwise}) {
    written.clear();
    const uint64_t count = scheduler_.Below(4);
    for (uint64_t i = 0; i < count; ++i) {
      Request part = DrawPart();
      if (part.kind == Kind::kPut) {
        if (std::find(written.begin(), written.end(), part.key) != written.end()) continue;
        written.push_back(part.key);
      }
      if (part.kind == Kind::kDelete) {
        const bool overlaps = std::any_of(parts->begin(), parts->end(), [](const Request& other) {
          return other.kind != Kind::kRange;
        });
        if (overlaps) continue;
      }
      if (part.kind == Kind::kPut &&
          std::any_of(parts->begin(), parts->end(),
                      [](const Request& other) { return other.kind == Kind::kDelete; })) {
        continue;
      }
      parts->push_back(std::move(part));
    }
  }
  return request;
}

}  // namespace kv::sim

// Random commands and reads, answered by the machine and by the model alike, through compactions in
// odd moments, crashes that lose what was not flushed, and a cache too small for anything.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <map>
#include <string>
#include <vector>

#include "storage/status.h"
#include "tests/kv/machine_fixture.h"
#include "tests/kv/model.h"

namespace kv {
namespace {

using etcdserverpb::Compare;
using etcdserverpb::RangeRequest;
using etcdserverpb::TxnRequest;

class Workload {
 public:
  explicit Workload(uint64_t seed) : dice_(seed) {}

  Dice& dice() { return dice_; }

  // Few keys, so that they meet; with the bytes that an escaping could get wrong.
  std::string Key() {
    static const std::string letters("ab\0\x01\x02\xff", 6);
    std::string key(1, letters[dice_.Below(2)]);
    for (uint64_t more = dice_.Below(4); more > 0; --more) key += letters[dice_.Below(6)];
    return key;
  }
  std::string End() {
    switch (dice_.Below(4)) {
      case 0:
        return {};
      case 1:
        return std::string(1, '\0');
      default:
        return Key();
    }
  }
  std::string Value() {
    return std::string(dice_.Below(6), static_cast<char>('p' + dice_.Below(4)));
  }
  int64_t Revision(int64_t current) {
    if (dice_.OneIn(2)) return 0;
    if (dice_.OneIn(20)) return current + 1;
    return static_cast<int64_t>(dice_.Below(static_cast<uint64_t>(current))) + 1;
  }

  etcdserverpb::PutRequest Put(const std::string& key) {
    etcdserverpb::PutRequest put;
    put.set_key(key);
    put.set_prev_kv(dice_.OneIn(3));
    put.set_ignore_value(dice_.OneIn(8));
    put.set_ignore_lease(dice_.OneIn(8));
    if (!put.ignore_value()) put.set_value(Value());
    if (!put.ignore_lease() && dice_.OneIn(3)) put.set_lease(Lease());
    return put;
  }
  int64_t Lease() { return static_cast<int64_t>(dice_.Below(4)) - 1; }
  etcdserverpb::DeleteRangeRequest Delete() {
    etcdserverpb::DeleteRangeRequest request;
    request.set_key(Key());
    if (dice_.OneIn(4)) request.set_range_end(Key());
    if (dice_.OneIn(40)) request.set_range_end(std::string(1, '\0'));
    request.set_prev_kv(dice_.OneIn(2));
    return request;
  }
  RangeRequest Range(int64_t current) {
    RangeRequest request;
    request.set_key(Key());
    request.set_range_end(End());
    request.set_revision(Revision(current));
    if (dice_.OneIn(2)) request.set_limit(static_cast<int64_t>(dice_.Below(6)));
    if (dice_.OneIn(3)) {
      request.set_sort_order(static_cast<RangeRequest::SortOrder>(dice_.Below(3)));
    }
    if (dice_.OneIn(4)) {
      request.set_sort_target(static_cast<RangeRequest::SortTarget>(dice_.Below(5)));
    }
    request.set_keys_only(dice_.OneIn(5));
    request.set_count_only(dice_.OneIn(5));
    const auto bound = [this, current]() -> int64_t {
      return dice_.OneIn(8) ? static_cast<int64_t>(dice_.Below(static_cast<uint64_t>(current))) : 0;
    };
    request.set_min_mod_revision(bound());
    request.set_max_mod_revision(bound());
    request.set_min_create_revision(bound());
    request.set_max_create_revision(bound());
    return request;
  }
  TxnRequest Txn(int64_t current, int depth = 0) {
    TxnRequest txn;
    for (uint64_t count = dice_.Below(3); count > 0; --count) Fill(*txn.add_compare(), current);
    // The edge refuses a key that is put twice, so puts take their keys in turn.
    for (uint64_t count = dice_.Below(4); count > 0; --count) {
      FillOp(*txn.add_success(), current, depth);
    }
    for (uint64_t count = dice_.Below(3); count > 0; --count) {
      FillOp(*txn.add_failure(), current, depth);
    }
    if (depth == 0) keys_put_.clear();
    return txn;
  }

 private:
  void Fill(Compare& compare, int64_t current) {
    compare.set_key(Key());
    if (dice_.OneIn(3)) compare.set_range_end(End());
    compare.set_target(static_cast<Compare::CompareTarget>(dice_.Below(5)));
    compare.set_result(static_cast<Compare::CompareResult>(dice_.Below(4)));
    const auto number = static_cast<int64_t>(dice_.Below(static_cast<uint64_t>(current) + 1));
    switch (compare.target()) {
      case Compare::VERSION:
        compare.set_version(number % 3);
        break;
      case Compare::CREATE:
        compare.set_create_revision(dice_.OneIn(2) ? 0 : number);
        break;
      case Compare::MOD:
        compare.set_mod_revision(dice_.OneIn(2) ? 0 : number);
        break;
      case Compare::VALUE:
        compare.set_value(Value());
        break;
      default:
        compare.set_lease(0);
    }
  }
  void FillOp(etcdserverpb::RequestOp& op, int64_t current, int depth) {
    switch (dice_.Below(depth < 2 ? 6 : 5)) {
      case 0:
      case 1: {
        const std::string key = Key();
        if (std::find(keys_put_.begin(), keys_put_.end(), key) == keys_put_.end()) {
          keys_put_.push_back(key);
          *op.mutable_request_put() = Put(key);
          break;
        }
        [[fallthrough]];
      }
      case 2:
      case 3:
        *op.mutable_request_range() = Range(current);
        break;
      case 4:
        // Of a key that no put can take, for the same reason.
        op.mutable_request_delete_range()->set_key("c" + std::to_string(dice_.Below(3)));
        op.mutable_request_delete_range()->set_prev_kv(true);
        break;
      default:
        *op.mutable_request_txn() = Txn(current, depth + 1);
    }
  }

  Dice dice_;
  std::vector<std::string> keys_put_;
};

template <typename Response>
std::string Told(const absl::StatusOr<Response>& response) {
  return response.ok() ? response->DebugString() : Describe(response.status());
}

template <typename Response>
std::string Told(const Reply& reply) {
  if (!reply.status.ok()) return Describe(reply.status);
  Response response;
  REQUIRE(response.ParseFromString(reply.body));
  return response.DebugString();
}

// A command, and what the model says that it answers.
struct Expected {
  EntryPtr entry;
  std::string request;
  std::string answer;
  std::string (*told)(const Reply&);
};

template <typename Response, typename Request, typename Ask>
Expected Expect(MachineFixture& fixture, kvd::internal::Kind kind, const Request& request,
                Ask&& ask) {
  return {.entry = fixture.Append(EntryKind::kCommand, EncodeCommand(kind, request)),
          .request = request.DebugString(),
          .answer = Told(ask(request)),
          .told = &Told<Response>};
}

Expected NextCommand(Workload& workload, MachineFixture& fixture, Model& model) {
  const uint64_t choice = workload.dice().Below(22);
  if (choice < 10) {
    std::string key =
        workload.dice().OneIn(6) ? "c" + std::to_string(workload.dice().Below(3)) : workload.Key();
    return Expect<etcdserverpb::PutResponse>(fixture, kvd::internal::PUT, workload.Put(key),
                                             [&](const auto& r) { return model.Put(r); });
  }
  if (choice < 13) {
    return Expect<etcdserverpb::DeleteRangeResponse>(
        fixture, kvd::internal::DELETE_RANGE, workload.Delete(),
        [&](const auto& r) { return model.DeleteRange(r); });
  }
  if (choice < 19) {
    return Expect<etcdserverpb::TxnResponse>(fixture, kvd::internal::TXN,
                                             workload.Txn(model.revision()),
                                             [&](const auto& r) { return model.Txn(r); });
  }
  if (choice == 19) {
    etcdserverpb::LeaseGrantRequest request;
    request.set_id(workload.dice().OneIn(2) ? 2 : -1);
    request.set_ttl(5);
    return Expect<etcdserverpb::LeaseGrantResponse>(fixture, kvd::internal::LEASE_GRANT, request,
                                                    [&](const auto& r) { return model.Grant(r); });
  }
  if (choice == 20) {
    etcdserverpb::LeaseRevokeRequest request;
    request.set_id(workload.Lease());
    return Expect<etcdserverpb::LeaseRevokeResponse>(
        fixture, kvd::internal::LEASE_REVOKE, request,
        [&](const auto& r) { return model.Revoke(r); });
  }
  etcdserverpb::CompactionRequest request;
  const auto span =
      static_cast<uint64_t>(model.revision() - std::max<int64_t>(model.compacted(), 0));
  request.set_revision(model.compacted() + static_cast<int64_t>(workload.dice().Below(span + 3)));
  return Expect<etcdserverpb::CompactionResponse>(fixture, kvd::internal::COMPACT, request,
                                                  [&](const auto& r) { return model.Compact(r); });
}

void CheckReads(Workload& workload, const KvMachine& machine, const Model& model) {
  for (int i = 0; i < 12; ++i) {
    const RangeRequest request = workload.Range(model.revision());
    INFO("range " << request.ShortDebugString());
    REQUIRE(Told(machine.Range(request)) == Told(model.Range(request)));
  }
  // All pages together are the answer.
  RangeRequest request = workload.Range(model.revision());
  request.clear_sort_order();
  request.clear_sort_target();
  request.clear_min_mod_revision();
  request.clear_max_mod_revision();
  request.clear_min_create_revision();
  request.clear_max_create_revision();
  INFO("pages of " << request.ShortDebugString());
  auto pages = machine.OpenRange(request, 1 + workload.dice().Below(300));
  const auto whole = model.Range(request);
  REQUIRE(pages.ok() == whole.ok());
  if (!pages.ok()) return;
  etcdserverpb::RangeResponse sum;
  for (bool last = false; !last;) {
    etcdserverpb::RangeResponse page;
    const absl::StatusOr<bool> next = (*pages)->Next(page);
    REQUIRE(next.ok());
    last = *next;
    if (!last) REQUIRE((page.kvs_size() > 0 && !page.has_header() && page.count() == 0));
    sum.MergeFrom(page);
  }
  REQUIRE(sum.DebugString() == whole->DebugString());
}

void CheckLeases(const KvMachine& machine, const Model& model) {
  std::map<int64_t, std::vector<std::string>> leases;
  for (const Lease& lease : machine.Leases()) {
    const auto keys = machine.KeysOf(lease.id);
    REQUIRE(keys.ok());
    leases[lease.id] = *keys;
  }
  REQUIRE(leases == model.Leases());
}

void CheckHistory(const KvMachine& machine, const Model& model) {
  const View view = machine.Latest();
  Revision next = std::max<Revision>(model.compacted(), 2);
  while (next <= model.revision()) {
    const auto revisions = view.History(next, 3);
    INFO(Describe(revisions.status()));
    REQUIRE(revisions.ok());
    REQUIRE(!revisions->empty());
    for (const RevisionEvents& at : *revisions) {
      REQUIRE(at.revision == next);
      const std::vector<Model::Event> expected = model.EventsAt(next);
      std::vector<KeyEvent> events = at.events;
      std::sort(events.begin(), events.end(),
                [](const KeyEvent& a, const KeyEvent& b) { return a.key < b.key; });
      REQUIRE(events.size() == expected.size());
      for (size_t i = 0; i < events.size(); ++i) {
        REQUIRE(events[i].key == expected[i].kv.key());
        REQUIRE(events[i].record->tombstone == expected[i].is_delete);
        REQUIRE(events[i].record->mod == next);
        REQUIRE(events[i].record->value == expected[i].kv.value());
        REQUIRE((events[i].previous != nullptr) == !expected[i].previous.key().empty());
        if (events[i].previous != nullptr) {
          REQUIRE(events[i].previous->mod == expected[i].previous.mod_revision());
          REQUIRE(events[i].previous->value == expected[i].previous.value());
        }
      }
      ++next;
    }
  }
  if (model.compacted() > 0) {
    CHECK(view.History(model.compacted() - 1, 1).status().code() == absl::StatusCode::kOutOfRange);
  }
}

}  // namespace

TEST_CASE("random commands and reads are answered as the model answers them") {
  const uint64_t seed = SeedFrom("KVD_KV_SEED");
  INFO("KVD_KV_SEED=" << seed);
  for (uint64_t round = 0; round < 6; ++round) {
    Workload workload(seed + round);
    MachineFixture fixture(round % 2 == 0 ? size_t{1} << 20 : size_t{0});
    Model model;
    for (int step = 0; step < 120; ++step) {
      std::vector<Expected> expected;
      for (uint64_t count = 1 + workload.dice().Below(8); count > 0; --count) {
        expected.push_back(NextCommand(workload, fixture, model));
      }
      std::vector<EntryPtr> entries;
      for (const Expected& each : expected) entries.push_back(each.entry);
      const std::vector<Reply> replies = fixture.Apply(entries, 1 + workload.dice().Below(8));
      for (size_t i = 0; i < expected.size(); ++i) {
        INFO("entry " << expected[i].entry->index << " " << expected[i].request);
        REQUIRE(expected[i].told(replies[i]) == expected[i].answer);
      }
      CheckReads(workload, fixture.machine(), model);
      CheckLeases(fixture.machine(), model);
      if (workload.dice().OneIn(3)) fixture.WorkOnce();
      if (workload.dice().OneIn(10)) REQUIRE(fixture.machine().Flush().ok());
      if (workload.dice().OneIn(20)) fixture.CrashAndRecover();
    }
    CheckHistory(fixture.machine(), model);
    const auto before = fixture.machine().HashKv(0);
    REQUIRE(before.ok());
    fixture.Work();
    CheckHistory(fixture.machine(), model);
    CHECK(fixture.machine().HashKv(0)->hash() == before->hash());
    CheckReads(workload, fixture.machine(), model);
  }
}

}  // namespace kv

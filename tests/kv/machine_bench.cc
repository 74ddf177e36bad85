// Prints what a put costs to apply and a get to answer: microseconds of processor time of the
// thread that does it, so that a busy computer shows the same figures as an idle one.
//
//     kv_machine_bench [keys] [runs of] [value bytes] [cache MiB]
#include <rocksdb/env.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "proto/etcd/rpc.pb.h"
#include "proto/internal/command.pb.h"
#include "server/kv/kv_machine.h"
#include "storage/status.h"

namespace kv {
namespace {

double Micros() {
  timespec spent{};
  if (::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent) != 0) std::abort();
  return static_cast<double>(spent.tv_sec) * 1e6 + static_cast<double>(spent.tv_nsec) / 1e3;
}

uint64_t Mixed(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9;
  value = (value ^ (value >> 27)) * 0x94d049bb133111eb;
  return value ^ (value >> 31);
}

class Bench {
 public:
  Bench(uint64_t keys, size_t run, size_t value_bytes, size_t cache_bytes)
      : keys_(keys), run_(run), value_bytes_(value_bytes) {
    path_ = (std::filesystem::temp_directory_path() / "kvd-bench-XXXXXX").string();
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
    KvMachineOptions options;
    options.env = rocksdb::Env::Default();
    options.data_dir = path_;
    options.record_cache_bytes = cache_bytes;
    options.work = [this](absl::AnyInvocable<void()&&> task) { work_.push_back(std::move(task)); };
    raft::Members members;
    members.voters = {1};
    if (!KvMachine::Found(options, {.index = 1, .term = 1}, members).ok()) std::abort();
    auto machine = KvMachine::Open(options);
    if (!machine.ok()) std::abort();
    machine_ = *std::move(machine);
  }
  ~Bench() {
    machine_.reset();
    std::filesystem::remove_all(path_);
  }

  void Run() {
    std::printf("%llu keys, runs of %zu, values of %zu bytes\n",
                static_cast<unsigned long long>(keys_), run_, value_bytes_);
    Puts("put, new keys, in order", [](uint64_t i) { return i; }, keys_);
    Puts("put, overwriting, random", [this](uint64_t i) { return Mixed(i) % keys_; }, keys_);
    Puts(
        "put, overwriting, hot 1000", [](uint64_t i) { return Mixed(i) % 1000; },
        std::min<uint64_t>(keys_, 100000));
    Puts("put, new keys, random", [this](uint64_t i) { return keys_ + Mixed(i); }, keys_);
    Gets("get, hot 1000", [](uint64_t i) { return Mixed(i) % 1000; });
    Gets("get, random", [this](uint64_t i) { return Mixed(i) % keys_; });
    Gets("get, absent", [this](uint64_t i) { return keys_ * 2 + Mixed(i); });
    Ranges();
    const double before = Micros();
    if (!machine_->Flush().ok()) std::abort();
    std::printf("%-32s %10.0f us\n", "flush", Micros() - before);
    Gets("get, random, flushed", [this](uint64_t i) { return Mixed(i + 7) % keys_; });
    Ranges();
    Compaction();
  }

 private:
  static std::string KeyOf(uint64_t number) {
    char key[32];
    std::snprintf(key, sizeof key, "/bench/%020llu", static_cast<unsigned long long>(number));
    return key;
  }

  template <typename Pick>
  void Puts(const char* name, Pick pick, uint64_t count) {
    double spent = 0;
    for (uint64_t done = 0; done < count;) {
      std::vector<Committed> run;
      for (size_t i = 0; i < run_ && done < count; ++i, ++done) {
        etcdserverpb::PutRequest put;
        put.set_key(KeyOf(pick(done)));
        put.set_value(std::string(value_bytes_, static_cast<char>('a' + done % 26)));
        run.push_back({.entry = NextEntry(kvd::internal::PUT, put), .wants_reply = true});
      }
      const double before = Micros();
      machine_->Apply(run);
      spent += Micros() - before;
      log_bytes_ += run.size() * value_bytes_;
      // As a replica does past 16 MiB of log, beside the apply loop.
      if (log_bytes_ > (size_t{16} << 20)) {
        log_bytes_ = 0;
        if (flusher_.joinable()) flusher_.join();
        flusher_ = std::thread([this] {
          if (!machine_->Flush().ok()) std::abort();
        });
      }
    }
    if (flusher_.joinable()) flusher_.join();
    std::printf("%-32s %10.2f us\n", name, spent / static_cast<double>(count));
  }

  template <typename Pick>
  void Gets(const char* name, Pick pick) {
    constexpr uint64_t kGets = 100000;
    std::vector<etcdserverpb::RangeRequest> requests(kGets);
    for (uint64_t i = 0; i < kGets; ++i) requests[i].set_key(KeyOf(pick(i)));
    const double before = Micros();
    int64_t found = 0;
    for (const auto& request : requests) found += machine_->Range(request)->count();
    std::printf("%-32s %10.2f us  (%lld found)\n", name, (Micros() - before) / kGets,
                static_cast<long long>(found));
  }

  void Ranges() {
    const auto time = [this](const char* name, int repeat, etcdserverpb::RangeRequest request) {
      request.set_range_end("/bencho");
      int64_t count = 0;
      const double before = Micros();
      for (int i = 0; i < repeat; ++i) {
        request.set_key(KeyOf(Mixed(static_cast<uint64_t>(i)) % keys_));
        count += machine_->Range(request)->count();
      }
      std::printf("%-32s %10.1f us  (%lld counted)\n", name, (Micros() - before) / repeat,
                  static_cast<long long>(count / repeat));
    };
    etcdserverpb::RangeRequest request;
    request.set_count_only(true);
    time("count", 200, request);
    request.set_count_only(false);
    request.set_limit(1000);
    time("range, limit 1000", 200, request);
    request.set_limit(1);
    time("range, limit 1", 200, request);
    request.set_revision(machine_->head().revision - 1000);
    time("range, limit 1, 1000 back", 5, request);
  }

  void Compaction() {
    etcdserverpb::CompactionRequest request;
    request.set_revision(machine_->head().revision);
    machine_->Apply(std::vector<Committed>{
        {.entry = NextEntry(kvd::internal::COMPACT, request), .wants_reply = true}});
    const double before = Micros();
    double longest = 0;
    int steps = 0;
    while (!work_.empty()) {
      auto task = std::move(work_.back());
      work_.pop_back();
      const double begun = Micros();
      std::move(task)();
      longest = std::max(longest, Micros() - begun);
      ++steps;
    }
    std::printf("%-32s %10.0f us  (%d steps, longest %.0f us)\n", "compaction", Micros() - before,
                steps, longest);
  }

  template <typename Request>
  EntryPtr NextEntry(kvd::internal::Kind kind, const Request& request) {
    kvd::internal::Command command;
    command.set_kind(kind);
    command.set_min_version(1);
    command.set_body(request.SerializeAsString());
    return MakeEntry(++index_, 1, EntryKind::kCommand, command.SerializeAsString());
  }

  const uint64_t keys_;
  const size_t run_;
  const size_t value_bytes_;
  std::string path_;
  std::vector<absl::AnyInvocable<void() &&>> work_;
  std::unique_ptr<KvMachine> machine_;
  std::thread flusher_;
  size_t log_bytes_ = 0;
  Index index_ = 1;
};

}  // namespace
}  // namespace kv

int main(int argc, char** argv) {
  const auto argument = [&](int at, uint64_t fallback) {
    return argc > at ? std::strtoull(argv[at], nullptr, 10) : fallback;
  };
  kv::Bench(argument(1, 100000), argument(2, 200), argument(3, 256), argument(4, 32) << 20).Run();
}

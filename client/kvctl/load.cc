#include "client/kvctl/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <thread>
#include <utility>

#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

// A thread that woke up late catches up this much, so that a high rate can be held at all.
constexpr std::chrono::milliseconds kCatchUp(10);

}  // namespace

double LoadReport::rate() const { return elapsed > 0 ? static_cast<double>(done) / elapsed : 0; }

double LoadReport::stddev() const {
  return done > 0 ? std::sqrt(squares / static_cast<double>(done)) : 0;
}

void LoadReport::Add(double seconds) {
  ++done;
  slowest = std::max(slowest, seconds);
  const double from_mean = seconds - mean;
  mean += from_mean / static_cast<double>(done);
  squares += from_mean * (seconds - mean);
}

Load::Load(client::Client* client, LoadPlan plan)
    : client_(client), plan_(std::move(plan)), random_(std::random_device()()) {}

LoadReport Load::Run(const std::function<bool(int64_t answered)>& tick) {
  const Clock::time_point begin = Clock::now();
  Clock::time_point due = begin;
  Clock::time_point next_tick = begin + std::chrono::seconds(1);
  const std::chrono::nanoseconds step(plan_.rate > 0 ? static_cast<int64_t>(1e9 / plan_.rate) : 0);
  for (int64_t i = 0; i < plan_.puts_max; ++i) {
    Clock::time_point now = Clock::now();
    if (due > now) {
      std::this_thread::sleep_until(due);
      now = Clock::now();
    }
    if (now - begin >= plan_.time_max) break;
    due = std::max(due + step, now - kCatchUp);
    int64_t answered = 0;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return under_way_ < plan_.clients; });
      ++under_way_;
      answered = answered_;
    }
    Send();
    if (now < next_tick) continue;
    next_tick = now + std::chrono::seconds(1);
    if (!tick(answered)) break;
  }
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return under_way_ == 0; });
  report_.elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  return report_;
}

void Load::Send() {
  pb::PutRequest request;
  std::string key = fmt::format("{:016x}{:016x}", random_(), sent_++);
  key.resize(plan_.key_bytes, '0');
  request.set_key(plan_.prefix + key);
  request.set_value(std::string(plan_.value_bytes, '\0'));
  client_->Call(client::kPut, request, plan_.call,
                [this, sent = Clock::now()](client::Answer<pb::PutResponse> answer) {
                  Answered(answer.status, sent);
                });
}

void Load::Answered(const absl::Status& status, Clock::time_point sent) {
  const std::lock_guard lock(mutex_);
  if (status.ok()) {
    report_.Add(std::chrono::duration<double>(Clock::now() - sent).count());
  } else {
    ++report_.errors[Text(status)];
  }
  ++answered_;
  --under_way_;
  changed_.notify_all();
}

}  // namespace kv::kvctl

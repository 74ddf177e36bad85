#include "server/replica/thread_runtime.h"

#include <pthread.h>
#include <catch2/catch_test_macros.hpp>

#include <atomic>
#include <future>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace kv {

TEST_CASE("a loop runs tasks one at a time, in the order posted by each thread") {
  ThreadRuntime runtime;
  constexpr int kThreads = 4;
  constexpr int kTasks = 5000;
  std::vector<std::vector<int>> seen(kThreads);  // Guarded by the loop, as state should be.
  int running = 0;
  std::promise<void> all;
  int left = kThreads * kTasks;
  std::unique_ptr<Loop> loop = runtime.NewLoop("test");
  std::vector<std::thread> posters;
  for (int t = 0; t < kThreads; ++t) {
    posters.emplace_back([&, t] {
      for (int i = 0; i < kTasks; ++i) {
        loop->Post([&, t, i] {
          loop->AssertCurrent();
          CHECK_FALSE(running++ != 0);
          seen[static_cast<size_t>(t)].push_back(i);
          --running;
          if (--left == 0) all.set_value();
        });
      }
    });
  }
  for (std::thread& poster : posters) poster.join();
  all.get_future().wait();
  loop.reset();
  for (const std::vector<int>& order : seen) {
    REQUIRE(order.size() == kTasks);
    for (int i = 0; i < kTasks; ++i) REQUIRE(order[static_cast<size_t>(i)] == i);
  }
}

TEST_CASE("what is posted from a task runs behind what was posted before") {
  ThreadRuntime runtime;
  std::vector<int> order;
  std::promise<void> done;
  std::promise<void> gate;
  std::unique_ptr<Loop> loop = runtime.NewLoop("test");
  loop->Post([&] { gate.get_future().wait(); });
  loop->Post([&] {
    order.push_back(1);
    loop->Post([&] {
      order.push_back(3);
      done.set_value();
    });
  });
  loop->Post([&] { order.push_back(2); });
  gate.set_value();
  done.get_future().wait();
  loop.reset();
  CHECK(order == std::vector<int>{1, 2, 3});
}

TEST_CASE("timers come no earlier than asked for, and in the order of their times") {
  ThreadRuntime runtime;
  std::vector<int> order;
  std::vector<absl::Duration> late;
  std::promise<void> done;
  std::unique_ptr<Loop> loop = runtime.NewLoop("test");
  absl::Duration begun = runtime.Uptime();
  for (int delay : {30, 10, 20, 0}) {
    loop->PostAfter(absl::Milliseconds(delay), [&, delay] {
      order.push_back(delay);
      late.push_back(runtime.Uptime() - begun - absl::Milliseconds(delay));
      if (order.size() == 4) done.set_value();
    });
  }
  done.get_future().wait();
  loop.reset();
  CHECK(order == std::vector<int>{0, 10, 20, 30});
  for (absl::Duration by : late) CHECK(by >= absl::ZeroDuration());
}

TEST_CASE("a loop that ends waits for the running task and drops the rest, with what it owns") {
  ThreadRuntime runtime;
  auto owned = std::make_shared<int>(1);
  std::promise<void> begun;
  std::atomic<bool> finished = false;
  std::atomic<bool> ran_later = false;
  std::unique_ptr<Loop> loop = runtime.NewLoop("test");
  loop->Post([&] {
    begun.set_value();
    // A loop that ends drops what is posted at once: until then this task goes on.
    for (std::weak_ptr<int> probe = owned; !probe.expired(); std::this_thread::yield()) {
      auto guard = std::make_shared<int>(0);
      probe = guard;
      loop->Post([guard = std::move(guard)] {});
    }
    finished = true;
  });
  loop->Post([&ran_later, owned] { ran_later = true; });
  loop->PostAfter(absl::Hours(1), [&ran_later, owned] { ran_later = true; });
  begun.get_future().wait();
  loop->Stop();
  CHECK(finished);
  CHECK(!ran_later);
  CHECK(owned.use_count() == 1);
  loop->Post([&ran_later, owned] { ran_later = true; });
  loop->PostAfter(absl::ZeroDuration(), [&ran_later, owned] { ran_later = true; });
  CHECK(owned.use_count() == 1);
  loop->Stop();
  loop.reset();
  CHECK(!ran_later);
}

TEST_CASE("a dropped task may own something that posts to the loop as it goes") {
  ThreadRuntime runtime;
  std::unique_ptr<Loop> loop = runtime.NewLoop("test");
  std::promise<void> gate;
  std::promise<void> begun;
  loop->Post([&] {
    begun.set_value();
    gate.get_future().wait();
  });
  loop->Post([guard = std::shared_ptr<int>(new int(0), [&loop](int* value) {
                delete value;
                loop->Post([] {});
              })] {});
  begun.get_future().wait();
  std::thread ender([&] { loop->Stop(); });
  gate.set_value();
  ender.join();
  SUCCEED();
}

TEST_CASE("an unordered loop runs tasks on all of its threads at once") {
  ThreadRuntime runtime;
  constexpr int kThreads = 3;
  std::atomic<int> inside = 0;
  std::promise<void> all_inside;
  std::shared_future<void> everybody = all_inside.get_future().share();
  std::atomic<int> done = 0;
  std::promise<void> all_done;
  std::unique_ptr<Loop> loop = runtime.NewUnorderedLoop("test", kThreads);
  for (int i = 0; i < kThreads; ++i) {
    loop->Post([&] {
      if (++inside == kThreads) all_inside.set_value();
      everybody.wait();  // Ends only if all of them run at the same time.
      if (++done == kThreads) all_done.set_value();
    });
  }
  all_done.get_future().wait();
  CHECK(inside == kThreads);
}

TEST_CASE("threads carry the name of their loop, cut to what the kernel takes") {
  ThreadRuntime runtime;
  std::promise<std::string> name;
  std::promise<void> named;
  std::unique_ptr<Loop> loop = runtime.NewLoop("a-name-that-is-too-long");
  loop->Post([&] {
    char buffer[32] = {};
    pthread_getname_np(pthread_self(), buffer, sizeof(buffer));
    name.set_value(buffer);
  });
  CHECK(name.get_future().get() == "a-name-that-is-");
}

TEST_CASE("random numbers differ") {
  ThreadRuntime runtime;
  std::set<uint64_t> drawn;
  for (int i = 0; i < 100; ++i) drawn.insert(runtime.Random());
  CHECK(drawn.size() == 100);
}

TEST_CASE("work handed around between loops neither stops nor gets lost") {
  ThreadRuntime runtime;
  constexpr int kHops = 20000;
  std::promise<void> done;
  int hops = 0;  // Belongs to whoever has the ball.
  std::unique_ptr<Loop> first = runtime.NewLoop("first");
  std::unique_ptr<Loop> second = runtime.NewLoop("second");
  std::function<void(Loop*, Loop*)> play = [&](Loop* here, Loop* there) {
    if (++hops == kHops) return done.set_value();
    there->Post([&play, here, there] { play(there, here); });
  };
  first->Post([&] { play(first.get(), second.get()); });
  done.get_future().wait();
  CHECK(hops == kHops);
}

}  // namespace kv

// Somebody who waits for an answer and gets exactly one: what the code that carries it says, or,
// when it is dropped on the way (a queue that ends, a table that is cleared), what was said to hold
// otherwise. Also gives back the bytes that were admitted for it.
//
// Moves with the request through the loops; whoever holds it answers. Not thread-safe.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

#include "absl/functional/any_invocable.h"
#include "storage/mark.h"

namespace kv {

// How much is admitted and not yet answered. Any thread.
struct Inflight {
  std::atomic<size_t> requests = 0;
  std::atomic<size_t> bytes = 0;
};

template <typename Result>
class Caller {
 public:
  using Done = absl::AnyInvocable<void(Result) &&>;

  Caller() = default;  // Nobody waits.
  Caller(Done done, Result otherwise) : done_(std::move(done)), otherwise_(std::move(otherwise)) {}
  Caller(Caller&& other) noexcept { Take(other); }
  Caller& operator=(Caller&& other) noexcept {
    if (this != &other) {
      Drop();
      Take(other);
    }
    return *this;
  }
  ~Caller() { Drop(); }

  // Adds one request of `bytes` to `inflight`; it is taken off just before the answer.
  void Hold(Inflight* inflight, size_t bytes) {
    inflight->requests.fetch_add(1, std::memory_order_relaxed);
    inflight->bytes.fetch_add(bytes, std::memory_order_relaxed);
    inflight_ = inflight;
    bytes_ = bytes;
  }
  // What a drop means from here on: it changes when a request leaves for where it may take effect.
  void Otherwise(Result otherwise) { otherwise_ = std::move(otherwise); }

  void Answer(Result result) {
    if (done_ == nullptr) return;
    if (Inflight* inflight = std::exchange(inflight_, nullptr)) {
      if (MUTANT("replica.admitted_bytes_leak")) bytes_ /= 2;
      inflight->requests.fetch_sub(1, std::memory_order_relaxed);
      inflight->bytes.fetch_sub(bytes_, std::memory_order_relaxed);
    }
    Done done = std::move(done_);
    done_ = nullptr;
    std::move(done)(std::move(result));
  }

  explicit operator bool() const { return done_ != nullptr; }

 private:
  void Drop() {
    if (done_ != nullptr) Answer(std::move(otherwise_));
  }
  void Take(Caller& other) {
    done_ = std::move(other.done_);
    other.done_ = nullptr;
    otherwise_ = std::move(other.otherwise_);
    inflight_ = std::exchange(other.inflight_, nullptr);
    bytes_ = other.bytes_;
  }

  Done done_;
  Result otherwise_;
  Inflight* inflight_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace kv

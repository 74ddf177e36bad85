#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <deque>
#include <memory>
#include <mutex>
#include <set>

#include "client/kvctl/commands.h"
#include "client/kvctl/json_lines.h"
#include "client/kvctl/progress.h"
#include "client/kvctl/session.h"

namespace kv::kvctl {
namespace {

using Clock = std::chrono::steady_clock;

// What is under way is bounded in bytes as well as in number.
constexpr size_t kInflightBytesMax = 32 << 20;
constexpr auto kRetryPause = std::chrono::milliseconds(100);
constexpr auto kTick = std::chrono::milliseconds(200);  // Of the bar, and of looking at signals.
constexpr auto kSavePause = std::chrono::seconds(1);

volatile std::sig_atomic_t interrupted = 0;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

struct ImportOptions {
  std::string file;           // As named on the command line.
  std::string progress_path;  // Empty: standard input, which cannot be resumed.
  size_t inflight = 0;
  Clock::duration patience{};  // Gives up after so long without an acknowledged put.
  client::CallOptions call;
  uint64_t bytes_total = 0;  // 0: not known.
};

// Puts the lines of a file, many at a time.
//
// Two puts of one key are never under way together, so the last line of a key wins even when an
// earlier one has to be sent again.
class Import {
 public:
  Import(const ImportOptions& options, client::Client& client, std::FILE* file, Progress start)
      : options_(options),
        client_(client),
        reader_(file),
        start_(start),
        acknowledged_(start.line),
        began_(Clock::now()),
        moved_(began_),
        saved_(began_) {}

  int Run(Format format) {
    if (int code = SkipImported(); code != kOk) return code;
    std::unique_lock lock(mutex_);
    while (!Stopped() && (!at_end_ || !puts_.empty())) {
      SendDue(lock);
      if (at_end_ || !HasRoom()) {
        Wait(lock);
      } else {
        ReadOne(lock);
      }
      EverySoOften(lock);
    }
    // What is on its way may still be acknowledged and then need not be sent by the next run.
    changed_.wait_for(lock, std::chrono::seconds(5), [this] { return calls_ == 0; });
    return Conclude(lock, format);
  }

 private:
  struct Put {
    uint64_t line = 0;
    std::string key;
    std::string value;
  };
  struct Retry {
    Clock::time_point due;
    std::shared_ptr<Put> put;
  };

  int SkipImported() {
    while (reader_.lines() < start_.line) {
      absl::StatusOr<std::string> line = reader_.Next();
      if (line.ok()) continue;
      return Fail(kInvalidInput,
                  fmt::format("{} says that {} lines are imported, but {} has only {}; remove the "
                              "progress file to import from the first line",
                              options_.progress_path, start_.line, options_.file, reader_.lines()));
    }
    return kOk;
  }

  bool Stopped() const { return !failure_.empty() || interrupted != 0; }

  bool HasRoom() const {
    return retries_.empty() && puts_.size() < options_.inflight &&
           (puts_.empty() || bytes_ < kInflightBytesMax);
  }

  void Wait(std::unique_lock<std::mutex>& lock) {
    auto until = Clock::now() + kTick;
    if (!retries_.empty()) until = std::min(until, retries_.front().due);
    changed_.wait_until(lock, until);
  }

  void ReadOne(std::unique_lock<std::mutex>& lock) {
    lock.unlock();
    absl::StatusOr<std::string> line = reader_.Next();
    bool blank = line.ok() && line->find_first_not_of(" \t\r") == std::string::npos;
    absl::StatusOr<ImportedPair> pair = ImportedPair();
    if (!line.ok()) {
      pair = line.status();
    } else if (!blank) {
      pair = ParseLine(*line);
    }
    lock.lock();
    if (blank) return Acknowledge(reader_.lines());
    if (!pair.ok()) {
      if (pair.status().code() == absl::StatusCode::kOutOfRange) {
        at_end_ = true;
        return;
      }
      bool malformed = pair.status().code() == absl::StatusCode::kInvalidArgument;
      return Stop(
          malformed ? kInvalidInput : kInputOutput,
          malformed ? fmt::format("{}:{}: {}", options_.file, reader_.lines(), Text(pair.status()))
                    : fmt::format("{} {}", options_.file, Text(pair.status())));
    }
    if (pair->has_lease) ++leases_;
    auto put = std::make_shared<Put>();
    put->line = reader_.lines();
    put->key = std::move(pair->key);
    put->value = std::move(pair->value);
    while (puts_.contains(put->key) && !Stopped()) {
      SendDue(lock);
      Wait(lock);
      EverySoOften(lock);
    }
    if (Stopped()) return;
    puts_.insert(put->key);
    bytes_ += put->key.size() + put->value.size();
    Send(lock, std::move(put));
  }

  void SendDue(std::unique_lock<std::mutex>& lock) {
    while (!retries_.empty() && retries_.front().due <= Clock::now() && !Stopped()) {
      std::shared_ptr<Put> put = std::move(retries_.front().put);
      retries_.pop_front();
      ++repeated_;
      Send(lock, std::move(put));
    }
  }

  void Send(std::unique_lock<std::mutex>& lock, std::shared_ptr<Put> put) {
    ++calls_;
    lock.unlock();
    pb::PutRequest request;
    request.set_key(put->key);
    request.set_value(put->value);
    client_.Call(client::kPut, request, options_.call,
                 [this, put](client::Answer<pb::PutResponse> answer) mutable {
                   Answered(std::move(put), answer);
                 });
    lock.lock();
  }

  // On a thread of the client's.
  void Answered(std::shared_ptr<Put> put, const client::Answer<pb::PutResponse>& answer) {
    std::lock_guard lock(mutex_);
    --calls_;
    changed_.notify_all();
    if (answer.ok()) {
      puts_.erase(put->key);
      bytes_ -= put->key.size() + put->value.size();
      ++imported_;
      return Acknowledge(put->line);
    }
    std::string text = Text(answer.status);
    // An unknown outcome may be repeated here: the same value under the same key.
    bool again = answer.fate == client::Fate::kUnknown ||
                 answer.status.code() == absl::StatusCode::kUnavailable ||
                 answer.status.code() == absl::StatusCode::kDeadlineExceeded ||
                 text == "etcdserver: too many requests";
    if (again) {
      last_complaint_ = answer.endpoint + ": " + text;
      retries_.push_back({.due = Clock::now() + kRetryPause, .put = std::move(put)});
      return;
    }
    Stop(kError, fmt::format("{}:{}: {} (key {}, value of {} bytes)", options_.file, put->line,
                             text, GoQuoted(put->key.substr(0, 64)), put->value.size()));
  }

  void Acknowledge(uint64_t line) {
    acknowledged_.Add(line);
    moved_ = Clock::now();
  }

  void Stop(Exit code, std::string text) {
    if (!failure_.empty()) return;
    code_ = code;
    failure_ = std::move(text);
  }

  void EverySoOften(std::unique_lock<std::mutex>& lock) {
    auto now = Clock::now();
    if (!puts_.empty() && now - moved_ >= options_.patience) {
      Stop(kBadConnection, fmt::format("no put was acknowledged for {}; the last try said: {}",
                                       GoDuration(absl::FromChrono(options_.patience)),
                                       last_complaint_.empty() ? "nothing" : last_complaint_));
    }
    if (now - saved_ >= kSavePause) {
      saved_ = now;
      Save(lock);
    }
    if (now - drawn_ >= kTick) {
      drawn_ = now;
      Draw();
    }
  }

  void Save(std::unique_lock<std::mutex>& lock) {
    Progress now{.line = acknowledged_.through(), .cluster_id = start_.cluster_id};
    if (options_.progress_path.empty() || now.line == saved_line_) return;
    saved_line_ = now.line;
    lock.unlock();
    absl::Status status = SaveProgress(options_.progress_path, now);
    lock.lock();
    if (!status.ok()) Stop(kInputOutput, Text(status));
  }

  void Draw() const {
    if (!Fancy(STDERR_FILENO)) return;
    double rate = static_cast<double>(imported_) / std::max(0.001, Seconds(Clock::now() - began_));
    if (options_.bytes_total == 0) {
      fmt::print(stderr, "\r\033[K{} keys, {:.0f}/s", imported_, rate);
      return;
    }
    double part = std::min(
        1.0, static_cast<double>(reader_.bytes()) / static_cast<double>(options_.bytes_total));
    constexpr size_t kCells = 30;
    auto full = static_cast<size_t>(part * kCells);
    fmt::print(stderr, "\r\033[K{:3.0f}% [{}{}] {} keys, {:.0f}/s", part * 100,
               std::string(full, '='), std::string(kCells - full, ' '), imported_, rate);
  }

  int Conclude(std::unique_lock<std::mutex>& lock, Format format) {
    if (Fancy(STDERR_FILENO)) fmt::print(stderr, "\r\033[K");
    if (leases_ > 0) {
      Warn(
          fmt::format("{} pairs name a lease; leases are not imported, these keys stay until "
                      "they are deleted",
                      leases_));
    }
    if (interrupted != 0) Stop(kNotHealthy, "interrupted");
    if (failure_.empty()) {
      if (!options_.progress_path.empty()) std::remove(options_.progress_path.c_str());
      Report(format);
      return kOk;
    }
    Exit code = code_;
    std::string text = failure_;
    Save(lock);
    if (failure_ != text) text += "; " + failure_;
    text +=
        fmt::format(". Lines 1 to {} of {} are imported", acknowledged_.through(), options_.file);
    if (!options_.progress_path.empty()) text += "; run the same command again to go on from there";
    return Fail(code, text);
  }

  void Report(Format format) const {
    double seconds = Seconds(Clock::now() - began_);
    double rate = static_cast<double>(imported_) / std::max(0.001, seconds);
    if (format == Format::kJson) {
      Print(
          fmt::format("{{\"imported\":{},\"skipped_lines\":{},\"repeated\":{},\"seconds\":{:.3f},"
                      "\"rate\":{:.1f}}}\n",
                      imported_, start_.line, repeated_, seconds, rate));
      return;
    }
    std::string skipped =
        start_.line == 0 ? "" : fmt::format("; lines 1 to {} were imported before", start_.line);
    std::string repeated = repeated_ == 0 ? "" : fmt::format("; {} puts sent again", repeated_);
    Print(fmt::format("imported {} keys in {:.1f} s, {:.0f} per second{}{}\n", imported_, seconds,
                      rate, repeated, skipped));
  }

  // Constant after construction.
  const ImportOptions options_;
  client::Client& client_;

  // Main thread only.
  LineReader reader_;
  const Progress start_;

  std::mutex mutex_;  // Guards what follows.
  std::condition_variable changed_;
  AcknowledgedLines acknowledged_;
  std::set<std::string> puts_;  // Keys read and not yet acknowledged.
  size_t bytes_ = 0;            // Of these puts.
  std::deque<Retry> retries_;   // In the order they are due.
  size_t calls_ = 0;            // Under way in the client.
  bool at_end_ = false;
  uint64_t imported_ = 0;
  uint64_t repeated_ = 0;
  uint64_t leases_ = 0;
  uint64_t saved_line_ = 0;
  std::string last_complaint_;
  std::string failure_;
  Exit code_ = kOk;
  const Clock::time_point began_;
  Clock::time_point moved_;
  Clock::time_point saved_;
  Clock::time_point drawn_{};
};

absl::StatusOr<Progress> Start(const Arguments& arguments, const ImportOptions& options,
                               client::Client& client) {
  client::CallOptions call = options.call;
  call.timeout = arguments.Duration("timeout");
  client::Answer<pb::StatusResponse> status;
  // The whole patience for a cluster that is just starting.
  auto until = Clock::now() + options.patience;
  do {
    status = client.CallAndWait(client::kStatus, pb::StatusRequest(), call);
  } while (!status.ok() && status.status.code() == absl::StatusCode::kUnavailable &&
           Clock::now() < until && interrupted == 0);
  if (!status.ok()) {
    return Refused(Complaint(status), absl::StatusCode::kUnavailable);
  }
  Progress fresh{.line = 0, .cluster_id = status.response.header().cluster_id()};
  if (options.progress_path.empty()) return fresh;
  absl::StatusOr<std::optional<Progress>> found = LoadProgress(options.progress_path);
  if (!found.ok()) return found.status();
  if (!*found) return fresh;
  if ((*found)->cluster_id != fresh.cluster_id) {
    return Refused(
        fmt::format("{} tells of an import into cluster {:x}, but this is cluster {:x}; "
                    "remove it to import from the first line",
                    options.progress_path, (*found)->cluster_id, fresh.cluster_id));
  }
  return **found;
}

int RunImport(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "import command needs 1 argument: a file, or - for standard input");
  }
  ImportOptions options;
  options.file = arguments.rest[0];
  int64_t inflight = arguments.Int("inflight");
  if (inflight < 1 || inflight > 100'000) {
    return Fail(kBadArguments, fmt::format("--inflight is {}; it may be 1 to 100000", inflight));
  }
  options.inflight = static_cast<size_t>(inflight);
  absl::Duration patience = arguments.Duration("timeout");
  if (patience < absl::Seconds(1) || patience > absl::Hours(24 * 30)) {
    return Fail(kBadArguments,
                fmt::format("--timeout is {}; it may be 1s to 720h", GoDuration(patience)));
  }
  options.patience = absl::ToChronoNanoseconds(patience);
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  Format format = session->style().format;
  if (format != Format::kSimple && format != Format::kJson) {
    return Fail(kBadFeature, std::string(Name(format)) + " not supported as output format");
  }
  options.call = session->call_options();

  bool from_stdin = options.file == "-";
  std::FILE* file = from_stdin ? stdin : std::fopen(options.file.c_str(), "rb");
  if (file == nullptr) {
    return Fail(kInputOutput,
                fmt::format("{} cannot be opened: {}", options.file, std::strerror(errno)));
  }
  if (from_stdin) {
    options.file = "standard input";
  } else {
    options.progress_path = options.file + ".progress";
    struct stat facts{};
    if (fstat(fileno(file), &facts) == 0 && S_ISREG(facts.st_mode)) {
      options.bytes_total = static_cast<uint64_t>(facts.st_size);
    }
  }
  struct sigaction on_interrupt{};
  on_interrupt.sa_handler = [](int) { interrupted = 1; };
  sigaction(SIGINT, &on_interrupt, nullptr);
  sigaction(SIGTERM, &on_interrupt, nullptr);

  std::unique_ptr<client::Client> client = session->Connect();
  absl::StatusOr<Progress> start = Start(arguments, options, *client);
  int code = kOk;
  if (!start.ok()) {
    code = start.status().code() == absl::StatusCode::kInvalidArgument
               ? Fail(kInvalidInput, Text(start.status()))
               : Fail(start.status());
  } else {
    Import import(options, *client, file, *start);
    code = import.Run(format);
    client.reset();  // Before the import that its callbacks refer to.
  }
  if (!from_stdin) std::fclose(file);
  return code;
}

}  // namespace

Command ImportCommand() {
  return {
      .name = "import",
      .group = "Keys and values",
      .summary = "Puts the pairs of a file",
      .arguments = "<file>",
      .text =
          "The file holds one JSON object a line, as `kvctl export` writes them: key and value in "
          "base64.\nOther fields are not looked at; leases are not imported. `-` reads standard "
          "input.\n\n"
          "While it runs, <file>.progress holds the number of the last line up to which every put "
          "is\nacknowledged, and the cluster's id. When the import stops early, the same command "
          "goes on after\nthat line. At the end the progress file is removed; standard input "
          "cannot be resumed.\n\n"
          "Puts go on through changes of the leader and lost endpoints. A put of unknown outcome "
          "is sent\nagain, so a key may end with a version above 1; puts of one key stay in the "
          "order of the file.\n\n"
          "Exit code 3: a line is malformed (file, line and reason are named); 2: the cluster "
          "cannot be\nreached; 5: interrupted; 6: the file cannot be read.\n\n"
          "Examples:\n"
          "  kvctl import pairs.jsonl\n"
          "  kvctl --endpoints db1:2379,db2:2379,db3:2379 import pairs.jsonl --inflight 2000\n"
          "  kvctl --endpoints old:2379 export | kvctl --endpoints new:2379 import -",
      .flags = {{.name = "inflight",
                 .type = FlagType::kInt,
                 .fallback = "512",
                 .help = "puts under way at a time"},
                {.name = "timeout",
                 .type = FlagType::kDuration,
                 .fallback = "1m",
                 .help = "give up after so long without an acknowledged put"}},
      .run = RunImport};
}

}  // namespace kv::kvctl

#include "server/cluster/stopping_driver.h"

#include <utility>

namespace kv::cluster {
namespace {

constexpr absl::Duration kTick = absl::Milliseconds(200);

}  // namespace

StoppingDriver::StoppingDriver(Parts parts, StoppingOptions options)
    : parts_(std::move(parts)),
      began_(parts_.runtime->Uptime()),
      door_(std::make_shared<Door>()),
      stopping_(std::move(options)),
      loop_(parts_.runtime->NewLoop("kvd-stopping")) {
  door_->Open(loop_.get());
}

StoppingDriver::~StoppingDriver() {
  door_->Close();
  loop_->Stop();
}

absl::Duration StoppingDriver::Now() const { return parts_.runtime->Uptime() - began_; }

void StoppingDriver::Start() {
  loop_->Post([this] {
    loop_->AssertCurrent();
    Tick();
  });
}

void StoppingDriver::Hurry() {
  loop_->Post([this] {
    loop_->AssertCurrent();
    Carry(stopping_.Hurry());
  });
}

void StoppingDriver::Tick() {
  Carry(stopping_.Tick(Now(), parts_.facts()));
  loop_->PostAfter(kTick, [this] {
    loop_->AssertCurrent();
    Tick();
  });
}

StoppingDriver::Answered StoppingDriver::Back(
    Stopping::Output (Stopping::*input)(absl::Duration, const absl::StatusOr<std::string>&)) {
  return [this, door = door_, input](absl::StatusOr<std::string> sentence) {
    door->Post([this, input, sentence = std::move(sentence)] {
      loop_->AssertCurrent();
      Carry((stopping_.*input)(Now(), sentence));
    });
  };
}

void StoppingDriver::Carry(Stopping::Output output) {
  for (const std::string& line : output.lines) parts_.log(line);
  if (output.retreat && !std::exchange(retreated_, true)) parts_.retreat();
  if (output.read_desired) {
    parts_.desired->Read([this, door = door_](DesiredCount count) {
      door->Post([this, count = std::move(count)] {
        loop_->AssertCurrent();
        Carry(stopping_.DesiredRead(Now(), count));
      });
    });
  }
  if (output.ask_permit) parts_.ask_permit(*output.ask_permit, Back(&Stopping::PermitAnswered));
  if (output.ask_leave) parts_.ask_leave(Back(&Stopping::LeaveAnswered));
  if (output.go) parts_.go();
}

}  // namespace kv::cluster

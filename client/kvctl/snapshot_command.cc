// Backups: taken over the wire, looked at and restored from files.
#include <fmt/format.h>
#include <rocksdb/env.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "client/kvctl/commands.h"
#include "client/kvctl/session.h"
#include "storage/backup.h"
#include "storage/restore.h"
#include "storage/status.h"

namespace kv::kvctl {
namespace {

constexpr std::string_view kBumpDefault = "1000000000";
// etcdutl's, which kvd is told on its own command line.
constexpr std::array<std::string_view, 3> kOfTheFirstStart = {
    "initial-cluster", "initial-cluster-token", "initial-advertise-peer-urls"};

// Backups hold everything; nobody else is to read them.
void CreatePrivateFiles() { umask(077); }

int FailToSave(const absl::Status& status) { return Fail(kInterrupted, Message(status)); }

int Save(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "snapshot save expects one argument");
  }
  const std::string& path = arguments.rest.front();
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  CreatePrivateFiles();
  absl::StatusOr<BackupFile> file = BackupFile::Create(rocksdb::Env::Default(), path);
  if (!file.ok()) return FailToSave(file.status());

  client::CallOptions options = session->call_options();
  // However large the store is.
  if (!arguments.Given("command-timeout")) options.timeout = absl::InfiniteDuration();
  std::string version;
  absl::Status written;
  auto answer = session->Connect()->StreamAndWait(client::kSnapshot, pb::SnapshotRequest(), options,
                                                  [&](pb::SnapshotResponse response) {
                                                    if (version.empty())
                                                      version = response.version();
                                                    if (written.ok())
                                                      written = file->Append(response.blob());
                                                  });
  if (written.ok() && !answer.ok()) return Fail(kInterrupted, Complaint(answer));
  if (written.ok()) written = file->Finish();
  if (!written.ok()) return FailToSave(written);
  Print(fmt::format("Snapshot saved at {}\n", path));
  if (!version.empty()) Print(fmt::format("Server version {}\n", version));
  return kOk;
}

int ShowStatus(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "snapshot status requires exactly one argument");
  }
  absl::StatusOr<Session> session = Session::Open(arguments);
  if (!session.ok()) return Fail(session.status());
  if (absl::Status status = session->CanShow(BackupStatus()); !status.ok()) return Fail(status);
  absl::StatusOr<Backup> backup =
      ReadBackup(rocksdb::Env::Default(), arguments.rest.front(), SumCheck::kYes);
  if (!backup.ok()) return Fail(kError, Message(backup.status()));
  const BackupStatus status{.hash = backup->crc32c,
                            .revision = backup->header.revision,
                            .keys = backup->header.keys,
                            .bytes = backup->bytes,
                            .version = std::string(kBackupVersion)};
  Print(*Show(status, session->style()));
  return kOk;
}

int Restore(const Arguments& arguments) {
  if (arguments.rest.size() != 1) {
    return Fail(kBadArguments, "snapshot restore requires exactly one argument");
  }
  if (arguments.Given("wal-dir")) {
    return Fail(kBadArguments, "--wal-dir: kvd keeps its log in the data directory; leave it out");
  }
  const int64_t bump = arguments.Int("bump-revision");
  const bool mark = arguments.Given("mark-compacted") ? arguments.Bool("mark-compacted") : bump > 0;
  if (bump < 0) return Fail(kBadArguments, "--bump-revision must not be negative");
  if (mark != (bump > 0)) {
    return Fail(kBadArguments,
                "--mark-compacted is required if --bump-revision is above 0, and means nothing "
                "otherwise: give both or --bump-revision=0 alone");
  }
  if (std::ranges::any_of(kOfTheFirstStart, [&](auto flag) { return arguments.Given(flag); })) {
    Warn(
        "--initial-cluster, --initial-cluster-token and --initial-advertise-peer-urls are not "
        "noted: kvd takes them from its own command line, and founds a cluster of one");
  }
  std::string data_dir = arguments.String("data-dir");
  if (data_dir.empty()) data_dir = arguments.String("name") + ".kvd";
  while (data_dir.size() > 1 && data_dir.back() == '/') data_dir.pop_back();

  CreatePrivateFiles();
  absl::StatusOr<Backup> backup =
      PrepareRestore(rocksdb::Env::Default(), arguments.rest.front(),
                     arguments.Bool("skip-hash-check") ? SumCheck::kNo : SumCheck::kYes, data_dir,
                     {.bump = static_cast<uint64_t>(bump), .mark_compacted = mark});
  if (!backup.ok()) return Fail(kError, Message(backup.status()));
  Print(fmt::format(
      "Restored {} keys at revision {} of cluster {:x} into {}; the next revision will be {}.\n"
      "Next: start kvd with --data-dir={}. It founds a new cluster of one. Then add the others "
      "with \"kvctl member add\", each with an empty data directory.\n",
      backup->header.keys, backup->header.revision, backup->header.cluster_id, data_dir,
      backup->header.revision + bump + 1, data_dir));
  return kOk;
}

}  // namespace

Command SnapshotCommand() {
  const Command save{
      .name = "save",
      .summary = "Takes a backup of one member's state into a file",
      .arguments = "<filename>",
      .text =
          "The file appears only when it is whole and its SHA-256 is right. There is no time "
          "limit\nunless --command-timeout is given.\n\n"
          "Examples:\n"
          "  kvctl snapshot save backup.db",
      .run = Save};
  const Command status{.name = "status",
                       .summary = "Checks a backup and says what is in it",
                       .arguments = "<filename>",
                       .text =
                           "The columns are hash, revision, keys, size and version, as "
                           "etcdutl has them.",
                       .run = ShowStatus};
  const Command restore{
      .name = "restore",
      .summary = "Prepares an empty data directory from a backup",
      .arguments = "<filename>",
      .text =
          "The kvd that is started with it founds a new cluster of one, with the keys and the\n"
          "leases of the backup. Revisions go on far above those of the backup and old ones read\n"
          "as compacted, so that clients that saw the lost cluster do not go on as if nothing had\n"
          "happened; etcdutl does so on demand only (--bump-revision=0 is its default).\n\n"
          "Examples:\n"
          "  kvctl snapshot restore backup.db --data-dir=/var/lib/kvd",
      .flags = {{.name = "data-dir",
                 .type = FlagType::kString,
                 .help = "the directory to prepare (empty: NAME.kvd)"},
                {.name = "name",
                 .type = FlagType::kString,
                 .fallback = "default",
                 .help = "kvd's --name, of which its default data directory follows"},
                {.name = "bump-revision",
                 .type = FlagType::kInt,
                 .fallback = kBumpDefault,
                 .help = "how much to raise the revision by"},
                {.name = "mark-compacted",
                 .fallback = "true",
                 .help = "old revisions read as compacted; goes with --bump-revision"},
                {.name = "skip-hash-check", .help = "do not compare the SHA-256 at the file's end"},
                {.name = "initial-cluster",
                 .type = FlagType::kString,
                 .help = "not noted; see kvd"},
                {.name = "initial-cluster-token",
                 .type = FlagType::kString,
                 .help = "not noted; see kvd"},
                {.name = "initial-advertise-peer-urls",
                 .type = FlagType::kString,
                 .help = "not noted; see kvd"},
                {.name = "wal-dir", .type = FlagType::kString, .help = "refused: there is none"}},
      .run = Restore,
      .offline = true};
  return {.name = "snapshot",
          .group = "Cluster",
          .summary = "Backups: save, status, restore",
          .children = {restore, save, status}};
}

}  // namespace kv::kvctl

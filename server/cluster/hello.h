// What founders say to each other, as bytes: the calls "hello", "prepare" and "commit" of
// proto/internal/peer.proto, and the hashes that keep two foundings apart. Stateless.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "server/cluster/founding.h"

namespace kv::cluster {

inline constexpr char kHelloCall[] = "hello";
inline constexpr char kPrepareCall[] = "prepare";
inline constexpr char kCommitCall[] = "commit";

struct Hello {
  Standing from;
  std::string to_name;  // Somebody else answers nothing.
};

std::string EncodeHello(const Hello& hello);
absl::StatusOr<Hello> DecodeHello(std::string_view bytes);
std::string EncodeHelloAnswer(const Standing& standing);
absl::StatusOr<Standing> DecodeHelloAnswer(std::string_view bytes);

// Prepare and Commit both carry a record, and both answer with a refusal (empty: granted).
std::string EncodeRecordRequest(const FoundingRecord& record);
absl::StatusOr<FoundingRecord> DecodeRecordRequest(std::string_view bytes);
std::string EncodeRefusal(std::string_view refusal);
absl::StatusOr<std::string> DecodeRefusal(std::string_view bytes);

// HMAC-SHA256 with the token as the key: the token itself is never said.
std::string HashToken(std::string_view token);
// Over all that founders must agree on: token, protocol, and the list.
std::string HashConfiguration(std::string_view token, const std::vector<Listed>& list);
// The same under discovery: the slots that are wanted, in their order, and how many of them found.
std::string HashSurvey(std::string_view token_hash, const std::vector<Listed>& slots,
                       size_t founders);

}  // namespace kv::cluster

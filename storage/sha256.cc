#include "storage/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "storage/check.h"

namespace kv {

void Sha256::Free::operator()(evp_md_ctx_st* context) const { EVP_MD_CTX_free(context); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  KV_CHECK(context_ != nullptr && EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr) == 1,
           "SHA-256 is not to be had");
}

Sha256::~Sha256() = default;
Sha256::Sha256(Sha256&&) noexcept = default;
Sha256& Sha256::operator=(Sha256&&) noexcept = default;

void Sha256::Append(std::string_view bytes) {
  KV_CHECK(EVP_DigestUpdate(context_.get(), bytes.data(), bytes.size()) == 1, "SHA-256 failed");
}

std::string Sha256::Finish() {
  unsigned char sum[kBytes];
  KV_CHECK(EVP_DigestFinal_ex(context_.get(), sum, nullptr) == 1, "SHA-256 failed");
  return {reinterpret_cast<const char*>(sum), kBytes};
}

std::string HexOf(std::string_view sum) {
  std::string text;
  for (const char byte : sum) text += fmt::format("{:02x}", static_cast<unsigned char>(byte));
  return text;
}

}  // namespace kv

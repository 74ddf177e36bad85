// Raft envelopes as bytes on the peer port, and back.
//
// Entries are packed side by side in one field, each with the checksum that the leader made of it;
// whoever unpacks them checks it, so bytes that changed on the way never reach the core. Decoding
// takes any bytes: what is malformed answers nothing. Stateless.
#pragma once

#include <cstddef>
#include <optional>

#include "server/raft/message.h"

namespace kvd::internal {
class Envelope;
}

namespace kv {

void EncodeEnvelope(const raft::Envelope& envelope, kvd::internal::Envelope* out);
std::optional<raft::Envelope> DecodeEnvelope(const kvd::internal::Envelope& in);

// About what the envelope takes on the wire and in a queue.
size_t EnvelopeBytes(const raft::Envelope& envelope);

}  // namespace kv

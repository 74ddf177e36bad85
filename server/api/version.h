// The versions that kvd tells others.
#pragma once

#include <string_view>

namespace kv::api {

// The level of the etcd API that kvd implements: what clients decide by (contract §1.4, "Decided
// for kvd").
inline constexpr std::string_view kApiVersion = "3.7.3";
inline constexpr std::string_view kApiMinorVersion = "3.7";
inline constexpr int kApiMajor = 3;
inline constexpr int kApiMinor = 7;
// Of the cluster and its storage, as etcd spells them.
inline constexpr std::string_view kClusterVersion = "3.7.0";

// kvd's own.
inline constexpr std::string_view kKvdVersion = "0.1.0";

}  // namespace kv::api

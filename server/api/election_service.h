// v3electionpb.Election as plain functions: whose turn it is leads (turns.h), and the value of the
// key is what the leader proclaims.
#pragma once

#include "proto/etcd/election.pb.h"
#include "server/api/call.h"
#include "server/api/edge.h"
#include "server/api/inner_calls.h"
#include "server/api/turns.h"
#include "server/api/waiting_calls.h"
#include "server/watch/watch_hub.h"

namespace kv::api {

// Thread-safe.
class ElectionService {
 public:
  // All outlive every call.
  ElectionService(Edge* edge, InnerCalls* inner, WatchHub* hub, WaitingCalls* waiting, Turns* turns)
      : edge_(edge), inner_(inner), hub_(hub), waiting_(waiting), turns_(turns) {}

  void Campaign(const Call& call, v3electionpb::CampaignRequest request,
                Writer<v3electionpb::CampaignResponse>* writer);
  void Proclaim(const Call& call, v3electionpb::ProclaimRequest request,
                Done<v3electionpb::ProclaimResponse> done);
  void Leader(const Call& call, const v3electionpb::LeaderRequest& request,
              Done<v3electionpb::LeaderResponse> done);
  void Observe(const Call& call, v3electionpb::LeaderRequest request,
               Writer<v3electionpb::LeaderResponse>* writer);
  void Resign(const Call& call, const v3electionpb::ResignRequest& request,
              Done<v3electionpb::ResignResponse> done);

 private:
  class Observer;

  Edge* const edge_;
  InnerCalls* const inner_;
  WatchHub* const hub_;
  WaitingCalls* const waiting_;
  Turns* const turns_;
};

}  // namespace kv::api

{{/* kvd.yaml: settings by flag name. Nothing in it depends on replicaCount. */}}
{{- define "kvd.config" -}}
{{- $v := .Values -}}
{{- $name := include "kvd.fullname" . -}}
{{- $loss := $v.bootstrap.onTotalLoss | default (ternary "halt" "reinitialize" $v.persistence.enabled) -}}
{{- $config := dict
  "data-dir" "/var/lib/kvd/data"
  "listen-client-urls" "http://0.0.0.0:2379"
  "listen-peer-urls" "http://0.0.0.0:2380"
  "listen-metrics-urls" "http://0.0.0.0:2381"
  "kubernetes-statefulset" $name
  "kubernetes-namespace" (include "kvd.namespace" .)
  "kubernetes-peer-service" (printf "%s-peer" $name)
  "desired-replicas-source" $v.membership.desiredReplicas.source
  "desired-replicas-file" "/etc/kvd/topology/replicas"
  "desired-replicas-poll-interval" $v.membership.desiredReplicas.pollInterval
  "bootstrap-marker" (ternary "configmap" "none" $v.rbac.create)
  "bootstrap-marker-name" (printf "%s-cluster" $name)
  "bootstrap-max-founders" $v.bootstrap.maxFounders
  "bootstrap-on-total-loss" $loss
  "membership-stability-window" $v.membership.stabilityWindow
  "membership-unreachable-before-remove" $v.membership.unreachableBeforeRemove
  "membership-replace-after-inactive" $v.membership.replaceAfterInactive
  "standby-learners" $v.membership.standbyLearners
  "max-voters" $v.membership.maxVoters
  "max-catching-up" $v.membership.maxCatchingUp
  "heartbeat-interval" $v.raft.heartbeatInterval
  "election-timeout" $v.raft.electionTimeout
  "quota-backend-bytes" (include "kvd.quota" . | int64)
  "memory-limit-fraction" $v.storage.memoryLimitFraction
  "auto-compaction-mode" $v.compaction.mode
  "auto-compaction-retention" (toString $v.compaction.retention)
  "shutdown-delay" $v.shutdown.delay
  "shutdown-drain-timeout" $v.shutdown.drainTimeout
  "shutdown-leave-timeout" $v.shutdown.leaveTimeout
  "shutdown-guard-max-wait" $v.shutdown.quorumGuardMaxWait
  "termination-grace-period" (printf "%ds" (int64 $v.terminationGracePeriodSeconds))
  "log-level" $v.logLevel
-}}
{{- if not (or $v.bootstrap.token $v.bootstrap.tokenSecret.name) -}}
{{- $_ := set $config "initial-cluster-token" (printf "%s/%s" (include "kvd.namespace" .) $name) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $v.config)) -}}
{{- end -}}

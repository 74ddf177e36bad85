{{/* Settings of kvd that are the chart's, and the value that each comes from, if any. */}}
{{- define "kvd.ownedSettings" -}}
name: ""
data-dir: ""
listen-client-urls: ""
advertise-client-urls: ""
listen-peer-urls: ""
initial-advertise-peer-urls: ""
listen-metrics-urls: ""
initial-cluster: ""
initial-cluster-state: ""
initial-cluster-token: bootstrap.token or bootstrap.tokenSecret
join: ""
kubernetes-statefulset: ""
kubernetes-namespace: ""
kubernetes-peer-service: ""
desired-replicas-source: membership.desiredReplicas.source
desired-replicas-file: ""
desired-replicas-poll-interval: membership.desiredReplicas.pollInterval
bootstrap-marker: rbac.create
bootstrap-marker-name: ""
bootstrap-max-founders: bootstrap.maxFounders
bootstrap-on-total-loss: bootstrap.onTotalLoss
membership-stability-window: membership.stabilityWindow
membership-unreachable-before-remove: membership.unreachableBeforeRemove
membership-replace-after-inactive: membership.replaceAfterInactive
standby-learners: membership.standbyLearners
max-voters: membership.maxVoters
max-catching-up: membership.maxCatchingUp
heartbeat-interval: raft.heartbeatInterval
election-timeout: raft.electionTimeout
quota-backend-bytes: storage.quotaBackendBytes
memory-limit-fraction: storage.memoryLimitFraction
auto-compaction-mode: compaction.mode
auto-compaction-retention: compaction.retention
shutdown-delay: shutdown.delay
shutdown-drain-timeout: shutdown.drainTimeout
shutdown-leave-timeout: shutdown.leaveTimeout
shutdown-guard-max-wait: shutdown.quorumGuardMaxWait
termination-grace-period: terminationGracePeriodSeconds
log-level: logLevel
config-file: ""
runtime-config-file: ""
{{- end -}}

{{/* Settings that the chart has no value for. */}}
{{- define "kvd.freeSettings" -}}
[max-request-bytes, max-txn-ops, compact-hash-check-time, max-learners, max-concurrent-streams,
 grpc-keepalive-min-time, grpc-keepalive-interval, grpc-keepalive-timeout,
 watch-progress-notify-interval, memory-bytes, log-outputs]
{{- end -}}

{{/* A number in a values file is a float, whose text would be 1e+07. */}}
{{- define "kvd.retention" -}}
{{- $retention := .Values.compaction.retention -}}
{{- ternary (printf "%d" (int64 $retention)) (toString $retention) (kindIs "float64" $retention) -}}
{{- end -}}

{{/* What may change while the members run; a change restarts nobody. */}}
{{- define "kvd.runtimeConfig" -}}
quota-backend-bytes: {{ include "kvd.quota" . }}
log-level: {{ .Values.logLevel }}
{{- end -}}

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
  "memory-limit-fraction" $v.storage.memoryLimitFraction
  "auto-compaction-mode" $v.compaction.mode
  "auto-compaction-retention" (include "kvd.retention" .)
  "shutdown-delay" $v.shutdown.delay
  "shutdown-drain-timeout" $v.shutdown.drainTimeout
  "shutdown-leave-timeout" $v.shutdown.leaveTimeout
  "shutdown-guard-max-wait" $v.shutdown.quorumGuardMaxWait
  "termination-grace-period" (printf "%ds" (int64 $v.terminationGracePeriodSeconds))
-}}
{{- if not (or $v.bootstrap.token $v.bootstrap.tokenSecret.name) -}}
{{- $_ := set $config "initial-cluster-token" (printf "%s/%s" (include "kvd.namespace" .) $name) -}}
{{- end -}}
{{- toYaml (mergeOverwrite $config (deepCopy $v.config)) -}}
{{- end -}}

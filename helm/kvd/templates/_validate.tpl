{{/* What the schema cannot say; each failure is a sentence with the next step. */}}
{{- define "kvd.validate" -}}
{{- $v := .Values -}}
{{- $name := include "kvd.fullname" . -}}
{{- if not (regexMatch "^[a-z]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "%s cannot name a Service, which begins with a letter and has a-z, 0-9 and - only; set fullnameOverride" $name) -}}
{{- end -}}
{{- $replicas := int64 $v.replicaCount -}}
{{- if and (gt $replicas 0) (eq (mod $replicas 2) 0) (not $v.allowEvenReplicas) -}}
{{- fail (printf "replicaCount=%d: an even number survives no more losses than %d would; choose an odd one, or set allowEvenReplicas=true" $replicas (sub $replicas 1)) -}}
{{- end -}}
{{- if and (gt $replicas (int64 $v.membership.maxVoters)) (not $v.membership.standbyLearners) -}}
{{- fail (printf "replicaCount=%d is more than membership.maxVoters=%d; raise the second, or set membership.standbyLearners=true for pods that stay learners" $replicas (int64 $v.membership.maxVoters)) -}}
{{- end -}}
{{- if lt (int64 $v.raft.electionTimeout) (mul 5 (int64 $v.raft.heartbeatInterval)) -}}
{{- fail (printf "raft.electionTimeout=%d must be at least 5 times raft.heartbeatInterval=%d" (int64 $v.raft.electionTimeout) (int64 $v.raft.heartbeatInterval)) -}}
{{- end -}}
{{- $needed := add (include "kvd.seconds" $v.shutdown.quorumGuardMaxWait | int64) (include "kvd.seconds" $v.shutdown.delay | int64) (include "kvd.seconds" $v.shutdown.drainTimeout | int64) 30 -}}
{{- if lt (int64 $v.terminationGracePeriodSeconds) $needed -}}
{{- fail (printf "terminationGracePeriodSeconds=%d is shorter than shutdown.quorumGuardMaxWait + delay + drainTimeout + 30 s = %d; raise it, or lower those" (int64 $v.terminationGracePeriodSeconds) $needed) -}}
{{- end -}}
{{- if and $v.persistence.enabled (ne (toString $v.storage.quotaBackendBytes) "") -}}
{{- $size := include "kvd.bytes" $v.persistence.size | int64 -}}
{{- $quota := include "kvd.quota" . | int64 -}}
{{- if gt (add (mul 2 $quota) 1073741824) $size -}}
{{- fail (printf "storage.quotaBackendBytes=%v needs a volume of at least twice that and 1Gi, and persistence.size=%v; raise the second or lower the first" $v.storage.quotaBackendBytes $v.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.membership.desiredReplicas.source "apiserver") (not $v.rbac.create) (not $v.serviceAccount.name) -}}
{{- fail "membership.desiredReplicas.source=apiserver needs the right to get the StatefulSet: leave rbac.create=true, or name a serviceAccount that has it, or choose source=file" -}}
{{- end -}}
{{- if and $v.bootstrap.token $v.bootstrap.tokenSecret.name -}}
{{- fail "bootstrap.token and bootstrap.tokenSecret.name are both given; leave one out" -}}
{{- end -}}
{{- $owned := include "kvd.ownedSettings" . | fromYaml -}}
{{- $free := include "kvd.freeSettings" . | fromYamlArray -}}
{{- range $key, $_ := $v.config -}}
{{- if hasKey $owned $key -}}
{{- fail (printf "config.%s: %s" $key (ternary "the chart sets it by itself; leave it out" (printf "set %s instead" (get $owned $key)) (eq (get $owned $key) ""))) -}}
{{- else if not (has $key $free) -}}
{{- fail (printf "config.%s: kvd has no such setting; these may stand in config: %s" $key (join ", " $free)) -}}
{{- end -}}
{{- end -}}
{{- $retention := include "kvd.retention" . -}}
{{- if and (eq $v.compaction.mode "revision") (not (regexMatch "^[0-9]+$" $retention)) -}}
{{- fail (printf "compaction.retention=%s: with compaction.mode=revision it is a number of revisions, such as 10000" $retention) -}}
{{- end -}}
{{- if and (eq $v.compaction.mode "periodic") (regexMatch "^[0-9]+$" $retention) (gt (int64 $retention) 8760) -}}
{{- fail (printf "compaction.retention=%s: with compaction.mode=periodic a number is hours, and these are more than a year; lower it, or choose mode revision" $retention) -}}
{{- end -}}
{{- range $v.extraEnv -}}
{{- if hasPrefix "KVD_" .name -}}
{{- fail (printf "extraEnv: %s would beat what the chart has checked; set the chart's value, or the key under config" .name) -}}
{{- end -}}
{{- end -}}
{{- $leaving := add (include "kvd.seconds" $v.shutdown.leaveTimeout | int64) (include "kvd.seconds" $v.shutdown.drainTimeout | int64) 15 -}}
{{- if lt (int64 $v.terminationGracePeriodSeconds) $leaving -}}
{{- fail (printf "terminationGracePeriodSeconds=%d is shorter than shutdown.leaveTimeout + drainTimeout + 15 s = %d; raise it, or lower those" (int64 $v.terminationGracePeriodSeconds) $leaving) -}}
{{- end -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if or (hasKey $v.commonLabels $key) (hasKey $v.podLabels $key) -}}
{{- fail (printf "the label %s selects the members; leave it out of commonLabels and podLabels" $key) -}}
{{- end -}}
{{- end -}}
{{- if and $v.rbac.create (not $v.serviceAccount.create) (not $v.serviceAccount.name) -}}
{{- fail "serviceAccount.create=false would give the members' rights to the namespace's default account; name one" -}}
{{- end -}}
{{- end -}}

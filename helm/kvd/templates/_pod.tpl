{{- define "kvd.probe" -}}
{{- toYaml (mergeOverwrite (dict "httpGet" (dict "path" .path "port" "admin")) .numbers (deepCopy .over)) -}}
{{- end -}}

{{/* The pod. Nothing in it depends on replicaCount, so that scaling restarts nobody. */}}
{{- define "kvd.podTemplate" -}}
{{- $v := .Values -}}
{{- $name := include "kvd.fullname" . -}}
metadata:
  labels:
    {{- include "kvd.selector" . | nindent 4 }}
    {{- with merge (deepCopy $v.podLabels) $v.commonLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "kvd.config" . | sha256sum }}
    {{- with $v.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "kvd.serviceAccount" . }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $v.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $v.podSecurityContext | nindent 4 }}
  {{- with concat $v.global.imagePullSecrets $v.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $v.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $v.topologySpreadConstraints }}
    {{- toYaml $v.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: {{ $v.spread.zoneKey }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "kvd.selector" . | nindent 10 }}
    - maxSkew: 1
      topologyKey: {{ $v.spread.hostKey }}
      whenUnsatisfiable: {{ ternary "DoNotSchedule" "ScheduleAnyway" (eq $v.spread.mode "hard") }}
      labelSelector:
        matchLabels:
          {{- include "kvd.selector" . | nindent 10 }}
    {{- end }}
  {{- with $v.initContainers }}
  initContainers:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: kvd
      image: {{ include "kvd.image" . }}
      imagePullPolicy: {{ $v.image.pullPolicy }}
      args: ["--config-file=/etc/kvd/kvd.yaml", "--runtime-config-file=/etc/kvd/runtime/kvd.yaml"]
      env:
        - name: KVD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        {{- if or $v.bootstrap.token $v.bootstrap.tokenSecret.name }}
        - name: KVD_INITIAL_CLUSTER_TOKEN
          valueFrom:
            secretKeyRef:
              name: {{ $v.bootstrap.tokenSecret.name | default (printf "%s-bootstrap" $name) }}
              key: {{ ternary $v.bootstrap.tokenSecret.key "token" (ne $v.bootstrap.tokenSecret.name "") }}
        {{- end }}
        {{- with $v.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - {name: client, containerPort: 2379}
        - {name: peer, containerPort: 2380}
        - {name: admin, containerPort: 2381}
      startupProbe:
        {{- include "kvd.probe" (dict "path" "/startupz" "over" $v.probes.startup "numbers" (dict "periodSeconds" 5 "timeoutSeconds" 3 "failureThreshold" 360)) | nindent 8 }}
      livenessProbe:
        {{- include "kvd.probe" (dict "path" "/livez" "over" $v.probes.liveness "numbers" (dict "periodSeconds" 10 "timeoutSeconds" 5 "failureThreshold" 6)) | nindent 8 }}
      readinessProbe:
        {{- include "kvd.probe" (dict "path" "/readyz" "over" $v.probes.readiness "numbers" (dict "periodSeconds" 5 "timeoutSeconds" 3 "failureThreshold" 3)) | nindent 8 }}
      resources:
        {{- toYaml $v.resources | nindent 8 }}
      securityContext:
        {{- toYaml $v.containerSecurityContext | nindent 8 }}
      volumeMounts:
        - {name: data, mountPath: /var/lib/kvd}
        - {name: config, mountPath: /etc/kvd, readOnly: true}
        - {name: tmp, mountPath: /tmp}
        {{- if include "kvd.speaks" . }}
        - {name: apiserver, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
        {{- end }}
        {{- with $v.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    {{- with $v.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    - name: config
      projected:
        sources:
          - configMap: {name: {{ $name }}}
          - configMap:
              name: {{ $name }}-runtime
              items: [{key: kvd.yaml, path: runtime/kvd.yaml}]
          {{- if ne $v.membership.desiredReplicas.source "apiserver" }}
          - configMap:
              name: {{ $name }}-topology
              items: [{key: replicas, path: topology/replicas}]
          {{- end }}
    - name: tmp
      emptyDir: {}
    {{- if not $v.persistence.enabled }}
    - name: data
      emptyDir: {}
    {{- end }}
    {{- if include "kvd.speaks" . }}
    - name: apiserver
      projected:
        sources:
          - serviceAccountToken: {path: token, expirationSeconds: 3600}
          - configMap:
              name: kube-root-ca.crt
              items: [{key: ca.crt, path: ca.crt}]
          - downwardAPI:
              items:
                - path: namespace
                  fieldRef: {fieldPath: metadata.namespace}
    {{- end }}
    {{- with $v.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end -}}

{{- define "kvd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* <name>-headless and <name>-<ordinal> must stay below 63 characters. What is cut ends in a piece
of its hash, so that two long names stay two. */}}
{{- define "kvd.fullname" -}}
{{- $name := include "kvd.name" . -}}
{{- $full := .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) -}}
{{- if gt (len $full) 40 -}}
{{- $full = printf "%s-%s" (trunc 31 $full | trimSuffix "-") (sha256sum $full | trunc 8) -}}
{{- end -}}
{{- $full -}}
{{- end -}}

{{- define "kvd.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{/* These never change: a StatefulSet's selector cannot. */}}
{{- define "kvd.selector" -}}
app.kubernetes.io/name: {{ include "kvd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{/* Of the pod of helm test. */}}
{{- define "kvd.testLabels" -}}
app.kubernetes.io/name: {{ include "kvd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end -}}

{{- define "kvd.labels" -}}
{{ include "kvd.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of an object, from (root, suffix of its name, annotations, labels), the last two if it has any. */}}
{{- define "kvd.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "kvd.fullname" $root }}{{ index . 1 }}
namespace: {{ include "kvd.namespace" $root }}
labels:
  {{- include "kvd.labels" $root | nindent 2 }}
  {{- if gt (len .) 3 }}{{ with index . 3 }}
  {{- toYaml . | nindent 2 }}
  {{- end }}{{ end }}
{{- $annotations := $root.Values.commonAnnotations -}}
{{- if gt (len .) 2 }}{{ $annotations = merge (deepCopy (index . 2)) $annotations }}{{ end }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "kvd.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "kvd.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "kvd.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- .Values.image.repository -}}
{{- if .Values.image.digest -}}@{{ .Values.image.digest }}
{{- else -}}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* Whether pods speak to the API server. */}}
{{- define "kvd.speaks" -}}
{{- if or (eq .Values.membership.desiredReplicas.source "apiserver") .Values.rbac.create -}}yes{{- end -}}
{{- end -}}

{{/* 10Gi as bytes. */}}
{{- define "kvd.bytes" -}}
{{- /* A number in a values file is a float, whose text would be 4.29e+09. */ -}}
{{- $text := ternary (printf "%d" (int64 .)) (toString .) (kindIs "float64" .) -}}
{{- $units := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 -}}
{{- $unit := regexFind "[A-Za-z]+$" $text -}}
{{- $number := trimSuffix $unit $text -}}
{{- if $unit -}}
{{- mulf (float64 $number) (index $units $unit) | floor | int64 -}}
{{- else -}}
{{- int64 $number -}}
{{- end -}}
{{- end -}}

{{- define "kvd.quota" -}}
{{- if ne (toString .Values.storage.quotaBackendBytes) "" -}}
{{- include "kvd.bytes" .Values.storage.quotaBackendBytes -}}
{{- else if .Values.persistence.enabled -}}
{{- div (mul (include "kvd.bytes" .Values.persistence.size | int64) 2) 5 -}}
{{- else -}}
0
{{- end -}}
{{- end -}}

{{/* 2m30s or 45s as seconds. */}}
{{- define "kvd.seconds" -}}
{{- $text := toString . -}}
{{- $hours := regexFind "[0-9]+h" $text | trimSuffix "h" | default "0" | int64 -}}
{{- $minutes := regexFind "[0-9]+m" $text | trimSuffix "m" | default "0" | int64 -}}
{{- $seconds := regexFind "[0-9]+s" $text | trimSuffix "s" | default "0" | int64 -}}
{{- add (mul 3600 $hours) (mul 60 $minutes) $seconds -}}
{{- end -}}

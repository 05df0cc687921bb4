{{/* Names, labels and what several templates need. */}}

{{- define "lineshaft.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 52 characters, so that what a StatefulSet adds still fits into a label of 63. */}}
{{- define "lineshaft.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "lineshaft.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "lineshaft.headless" -}}
{{- include "lineshaft.fullname" . }}-headless
{{- end -}}

{{- define "lineshaft.selector" -}}
app.kubernetes.io/name: {{ include "lineshaft.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "lineshaft.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "lineshaft.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "lineshaft.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "lineshaft.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "lineshaft.fullname" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* The Secret of the hashed API keys: the operator's own, or the chart's. */}}
{{- define "lineshaft.tokensSecret" -}}
{{ .Values.auth.tokens.existingSecret | default (printf "%s-tokens" (include "lineshaft.fullname" .)) }}
{{- end -}}

{{- define "lineshaft.tlsSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "lineshaft.fullname" .)) }}
{{- end -}}

{{/* Where callers in the cluster find the server. */}}
{{- define "lineshaft.url" -}}
{{ ternary "https" "http" .Values.tls.enabled }}://{{ include "lineshaft.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end -}}

{{/*
Time from the decision to end the pod to its forced end: leaving the endpoints, the drain limit, and 15 s for
interrupted tasks (5 s), calls under way (2 s) and writing the rest.
*/}}
{{- define "lineshaft.gracePeriod" -}}
{{ add .Values.drain.preStopSeconds .Values.drain.limitSeconds 15 }}
{{- end -}}

{{- define "lineshaft.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "lineshaft.podSecurity" -}}
runAsNonRoot: true
{{- with .Values.securityContext.runAsUser }}
runAsUser: {{ . | int64 }}
{{- end }}
{{- with .Values.securityContext.runAsGroup }}
runAsGroup: {{ . | int64 }}
{{- end }}
{{- with .Values.securityContext.fsGroup }}
fsGroup: {{ . | int64 }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* The port of a URL: the one that it names, or that of its scheme. */}}
{{- define "lineshaft.urlPort" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{ $port | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end -}}

{{/* The file of hashed keys, with one that may do everything. */}}
{{- define "lineshaft.keyFile" -}}
[[token]]
id = {{ quote .id }}
name = "admin"
sha256 = {{ sha256sum .key | quote }}
role = "admin"
namespaces = ["*"]
created_at = {{ dateInZone "2006-01-02T15:04:05Z" now "UTC" | quote }}
{{ end -}}

{{/* Names, labels and definitions used by several templates. */}}

{{- define "lineshaft.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimAll "-." -}}
{{- end -}}

{{/*
At most 52 characters, so that the suffix of a StatefulSet fits into a label of 63 characters. The name of a Service begins
with a letter and has no dots; that of a release may begin with a digit and have dots.
*/}}
{{- define "lineshaft.fullname" -}}
{{- $name := include "lineshaft.name" . -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if .Values.fullnameOverride -}}
{{- $full = .Values.fullnameOverride -}}
{{- else if contains $name .Release.Name -}}
{{- $full = .Release.Name -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $full) -}}
{{- $full = printf "lineshaft-%s" $full -}}
{{- end -}}
{{- $full | replace "." "-" | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "lineshaft.headless" -}}
{{- include "lineshaft.fullname" . }}-headless
{{- end -}}

{{/* The name, at most 63 characters; the end of a longer one is replaced by a hash, so that names stay different. */}}
{{- define "lineshaft.unique" -}}
{{- if le (len .) 63 -}}
{{- . | trimAll "-." -}}
{{- else -}}
{{- printf "%s-%s" (. | trunc 54 | trimSuffix "-" | trimSuffix ".") (sha256sum . | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* The text with the characters that a label may have, at most 63. */}}
{{- define "lineshaft.label" -}}
{{- regexReplaceAll "[^-._A-Za-z0-9]+" . "-" | trunc 63 | trimAll "-._" -}}
{{- end -}}

{{- define "lineshaft.selector" -}}
app.kubernetes.io/name: {{ include "lineshaft.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "lineshaft.labels" -}}
helm.sh/chart: {{ include "lineshaft.label" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") | quote }}
{{ include "lineshaft.selector" . }}
app.kubernetes.io/version: {{ include "lineshaft.label" (.Values.image.tag | default .Chart.AppVersion) | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
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

{{/* Name of the Secret with the hashed API keys. */}}
{{- define "lineshaft.tokensSecret" -}}
{{ .Values.auth.tokens.existingSecret | default (printf "%s-tokens" (include "lineshaft.fullname" .)) }}
{{- end -}}

{{- define "lineshaft.tlsSecret" -}}
{{ .Values.tls.existingSecret | default (printf "%s-tls" (include "lineshaft.fullname" .)) }}
{{- end -}}

{{/* URL of the server within the cluster. */}}
{{- define "lineshaft.url" -}}
{{ ternary "https" "http" .Values.tls.enabled }}://{{ include "lineshaft.fullname" . }}.{{ .Release.Namespace }}.svc:{{ .Values.service.port }}
{{- end -}}

{{/*
Grace period of the pod in seconds: the pre-stop sleep, the drain limit, and 15 s for ending killed programs, open
calls (2 s) and writing the journal.
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

{{/* A server that may run handlers as other users is root, because Kubernetes gives capabilities to root only. */}}
{{- define "lineshaft.serverSecurity" -}}
{{- $security := include "lineshaft.containerSecurity" . | fromYaml -}}
{{- if .Values.securityContext.handlerUsers -}}
{{- $_ := set $security "runAsUser" 0 -}}
{{- $_ := set $security "runAsNonRoot" false -}}
{{- $_ := set $security.capabilities "add" (list "CHOWN" "KILL" "SETGID" "SETUID") -}}
{{- end -}}
{{- toYaml $security -}}
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

{{/* Port of a URL: explicit, or the default of its scheme. */}}
{{- define "lineshaft.urlPort" -}}
{{- $url := urlParse . -}}
{{- $port := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{ $port | default (ternary "443" "80" (eq $url.scheme "https")) }}
{{- end -}}

{{/* File of hashed keys with one admin key. */}}
{{- define "lineshaft.keyFile" -}}
[[token]]
id = {{ quote .id }}
name = "admin"
sha256 = {{ sha256sum .key | quote }}
role = "admin"
namespaces = ["*"]
created_at = {{ dateInZone "2006-01-02T15:04:05Z" now "UTC" | quote }}
{{ end -}}

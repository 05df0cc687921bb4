{{/* Renders the server's TOML file. Helm's toToml writes integers as 4.0, which the server refuses. */}}

{{- define "lineshaft.toml.key" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}

{{/* Renders one value. JSON strings, numbers and booleans are valid TOML. */}}
{{- define "lineshaft.toml.value" -}}
{{- if kindIs "map" . -}}
{{- $map := . -}}
{{- $parts := list -}}
{{- range $key := keys . | sortAlpha -}}
{{- $value := index $map $key -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $parts = append $parts (printf "%s = %s" (include "lineshaft.toml.key" $key) (include "lineshaft.toml.value" $value)) -}}
{{- end -}}
{{- end -}}
{ {{- join ", " $parts -}} }
{{- else if kindIs "slice" . -}}
{{- $parts := list -}}
{{- range . -}}
{{- $parts = append $parts (include "lineshaft.toml.value" .) -}}
{{- end -}}
[{{- join ", " $parts -}}]
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{/* Renders the lines of one table. Null means not set. */}}
{{- define "lineshaft.toml.lines" -}}
{{- $table := . -}}
{{- range $key := keys . | sortAlpha }}
{{- $value := index $table $key }}
{{- if not (kindIs "invalid" $value) }}
{{ $key }} = {{ include "lineshaft.toml.value" $value }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Settings that the chart sets, because ports, mounts and the grace period depend on them. */}}
{{- define "lineshaft.owned" -}}
{{- $host := ternary "[::]" "0.0.0.0" (eq .Values.listenAddress "::") -}}
server:
  listen: {{ printf "%s:7070" $host | quote }}
  health_listen: {{ printf "%s:7071" $host | quote }}
  insecure: {{ .Values.auth.insecure }}
  drain_limit: {{ printf "%ds" (int64 .Values.drain.limitSeconds) | quote }}
store:
  directory: /var/lib/lineshaft
{{- if .Values.tls.enabled }}
tls:
  certificate: /etc/lineshaft/tls/tls.crt
  key: /etc/lineshaft/tls/tls.key
  {{- if .Values.tls.clientCaSecret }}
  client_ca: /etc/lineshaft/client-ca/ca.crt
  {{- end }}
  {{- if .Values.tls.clientCrlKey }}
  client_crl: /etc/lineshaft/client-ca/ca.crl
  {{- end }}
{{- end }}
{{- if or .Values.auth.tokens.enabled .Values.auth.jwksSecret }}
auth:
  {{- if .Values.auth.tokens.enabled }}
  tokens_file: /etc/lineshaft/tokens/tokens
  {{- end }}
  {{- if .Values.auth.jwksSecret }}
  jwt:
    keys_file: /etc/lineshaft/jwks/jwks.json
  {{- end }}
{{- end }}
{{- end -}}

{{/* All settings, as JSON. */}}
{{- define "lineshaft.settings" -}}
{{- mustMergeOverwrite (deepCopy .Values.config) (include "lineshaft.owned" . | fromYaml) | toJson -}}
{{- end -}}

{{- define "lineshaft.toml" -}}
{{- $config := mustMergeOverwrite (deepCopy .Values.config) (include "lineshaft.owned" . | fromYaml) -}}
{{- range $key := keys $config | sortAlpha }}
{{- $value := index $config $key }}
{{- if not (or (kindIs "map" $value) (kindIs "slice" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ toJson $value }}
{{- end }}
{{- end }}
{{- range $key := keys $config | sortAlpha }}
{{- $value := index $config $key }}
{{- if kindIs "map" $value }}

[{{ $key }}]
{{- include "lineshaft.toml.lines" $value }}
{{- end }}
{{- end }}
{{- range $key := keys $config | sortAlpha }}
{{- $value := index $config $key }}
{{- if kindIs "slice" $value }}
{{- range $value }}

[[{{ $key }}]]
{{- include "lineshaft.toml.lines" . }}
{{- end }}
{{- end }}
{{- end }}
{{ end -}}

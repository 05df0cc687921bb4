{{/* A key or value of OTEL_RESOURCE_ATTRIBUTES, in which commas separate. */}}
{{- define "lineshaft.percentEncoded" -}}
{{ urlquery . | replace "+" "%20" }}
{{- end -}}

{{/* Environment variables of the server: OpenTelemetry and extraEnv. */}}
{{- define "lineshaft.env" -}}
{{- if or .Values.otel.endpoint .Values.extraEnv -}}
env:
  {{- if .Values.otel.endpoint }}
  - name: OTEL_EXPORTER_OTLP_ENDPOINT
    value: {{ .Values.otel.endpoint | quote }}
  - name: OTEL_EXPORTER_OTLP_PROTOCOL
    value: {{ .Values.otel.protocol | quote }}
  {{- with .Values.otel.headersSecret }}
  - name: OTEL_EXPORTER_OTLP_HEADERS
    valueFrom:
      secretKeyRef:
        name: {{ . | quote }}
        key: headers
  {{- end }}
  - name: OTEL_SERVICE_NAME
    value: {{ include "lineshaft.fullname" . | quote }}
  - name: LINESHAFT_POD_NAME
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  - name: LINESHAFT_NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  {{- $attributes := list (printf "k8s.namespace.name=%s" .Release.Namespace) (printf "k8s.statefulset.name=%s" (include "lineshaft.fullname" .)) "k8s.pod.name=$(LINESHAFT_POD_NAME)" "k8s.node.name=$(LINESHAFT_NODE_NAME)" -}}
  {{- range $key, $value := .Values.otel.resourceAttributes }}
  {{- $attributes = append $attributes (printf "%s=%s" (include "lineshaft.percentEncoded" $key) (include "lineshaft.percentEncoded" $value)) }}
  {{- end }}
  - name: OTEL_RESOURCE_ATTRIBUTES
    value: {{ join "," $attributes | quote }}
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Names follow Helm's own convention: a release called like the chart does not say it twice. */}}
{{- define "session-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "session-operator.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Cluster-scoped objects carry the namespace in their name, so that two releases of one name do not meet. */}}
{{- define "session-operator.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "session-operator.fullname" .) }}
{{- end }}

{{/* Names of admission policies are DNS names: no colon. */}}
{{- define "session-operator.admissionName" -}}
{{- printf "%s.%s.injection.session-operator.dev" (include "session-operator.fullname" .) .Release.Namespace }}
{{- end }}

{{/*
How pods are injected: Policy or Webhook. Every real cluster lists the kind Pod; a rendering without a cluster knows
groups and versions only, and must not guess.
*/}}
{{- define "session-operator.injectionMode" -}}
{{- if ne .Values.injection.mode "Auto" }}
{{- .Values.injection.mode }}
{{- else if .Capabilities.APIVersions.Has "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy" }}
{{- "Policy" }}
{{- else if .Capabilities.APIVersions.Has "v1/Pod" }}
{{- "Webhook" }}
{{- else }}
{{- fail "injection.mode is Auto, and without a cluster it cannot be seen what the API server serves: set injection.mode=Policy (Kubernetes 1.36 and newer) or injection.mode=Webhook (1.33 to 1.35)" }}
{{- end }}
{{- end }}

{{/* Service and Secret of the webhook. */}}
{{- define "session-operator.webhookName" -}}
{{- printf "%s-webhook" (include "session-operator.fullname" .) }}
{{- end }}

{{/* Limits admission to the namespaces that are served, if they are named. */}}
{{- define "session-operator.admissionNamespaces" -}}
{{- with .Values.watchNamespaces -}}
namespaceSelector:
  matchExpressions:
    - key: kubernetes.io/metadata.name
      operator: In
      values:
        {{- toYaml . | nindent 8 }}
{{- end }}
{{- end }}

{{/* The pods that ask for an injection. No other Pod ever meets our admission. */}}
{{- define "session-operator.injectedPods" -}}
{{- with include "session-operator.admissionNamespaces" . }}
{{- . }}
{{ end -}}
objectSelector:
  matchExpressions:
    - key: session-operator.dev/injection
      operator: Exists
{{- end }}

{{- define "session-operator.serviceAccountName" -}}
{{- default (include "session-operator.fullname" .) .Values.serviceAccount.name }}
{{- end }}

{{- define "session-operator.guardName" -}}
{{- printf "%s-uninstall-guard" (include "session-operator.fullname" .) }}
{{- end }}

{{- define "session-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "session-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "session-operator.labels" -}}
{{- include "session-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: session-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "session-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end }}
{{- end }}

{{/* The image with what presets bring into pods. */}}
{{- define "session-operator.agentsImage" -}}
{{- with .Values.agents.image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* The image of the sidecar that keeps sessions in pods. */}}
{{- define "session-operator.replicatorImage" -}}
{{- with .Values.replicator.image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* What every container of the operator's image has in common. */}}
{{- define "session-operator.container" -}}
image: {{ include "session-operator.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- toYaml .Values.securityContext | nindent 2 }}
{{- end }}

{{/* What every pod of the operator's image has in common. */}}
{{- define "session-operator.pod" -}}
# Without links no Service of the namespace can put variables into the environment.
enableServiceLinks: false
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Label matchers of the operator's own series, as the ServiceMonitor labels them. */}}
{{- define "session-operator.series" -}}
namespace="{{ .Release.Namespace }}",service="{{ include "session-operator.fullname" . }}-metrics"
{{- end }}

{{/* The chart's name, or what takes its place. */}}
{{- define "downloadjobs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/*
The beginning of all names. 52 characters at most: the longest ending, "-operator-mirror", may then make 68, which names
of RBAC allow; those of Deployments, with "-operator", stay within 63.
*/}}
{{- define "downloadjobs.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* The labels by which a component's objects are found; they never change. Takes a dict: root, component. */}}
{{- define "downloadjobs.selectorLabels" -}}
app.kubernetes.io/name: {{ include "downloadjobs.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* All labels of a component's object. Takes a dict: root, component. */}}
{{- define "downloadjobs.labels" -}}
{{ include "downloadjobs.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What each of the operator's RoleBindings gives its rules to. */}}
{{- define "downloadjobs.operatorSubjects" -}}
- kind: ServiceAccount
  name: {{ include "downloadjobs.fullname" . }}-operator
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* A name for objects without a namespace: two releases of one name may stand in two namespaces. */}}
{{- define "downloadjobs.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "downloadjobs.fullname" .) | trunc 200 | trimSuffix "-" }}
{{- end }}

{{/* What the operator may do with the DownloadJobs of a namespace that it watches. */}}
{{- define "downloadjobs.operatorRules" -}}
- apiGroups: [downloadjobs.dev]
  resources: [downloadjobs]
  # patch: its finalizer and annotations; delete: ttlSecondsAfterFinished.
  verbs: [get, list, watch, patch, delete]
- apiGroups: [downloadjobs.dev]
  resources: [downloadjobs/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create, patch]
{{- if and .Values.operator.peering.enabled (not .Values.operator.clusterWide) }}
- apiGroups: [kopf.dev]
  resources: [kopfpeerings]
  verbs: [get, list, watch, patch]
{{- end }}
{{- end }}

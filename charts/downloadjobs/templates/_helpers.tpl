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

{{/* An image's whole name. Takes a dict: root, image, own (whether it is one of the project). */}}
{{- define "downloadjobs.image" -}}
{{- $tag := .image.tag }}
{{- if .own }}{{ $tag = $tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}{{ end }}
{{- with .root.Values.image.registry | default .root.Values.global.imageRegistry }}{{ trimSuffix "/" . }}/{{ end }}{{ .image.repository }}
{{- if .image.digest }}@{{ .image.digest }}{{ else }}:{{ $tag }}{{ end }}
{{- end }}

{{/* A share of a container's memory limit in MiB, rounded down; nothing where there is none, or none that can be read.
     Takes a dict: resources, percent. */}}
{{- define "downloadjobs.memoryShare" -}}
{{- $limit := toString (((.resources).limits).memory | default "") }}
{{- if regexMatch "^[0-9.]+([eE][+-]?[0-9]+|[KMGTPE]i|[kMGTPE])?$" $limit }}
{{- $unit := regexFind "([KMGTPE]i|[kMGTPE])$" $limit }}
{{- $bytes := float64 (trimSuffix $unit $limit) }}
{{- $power := dict "" 0 "k" 1 "m" 2 "g" 3 "t" 4 "p" 5 "e" 6 }}
{{- range until (int (get $power (trimSuffix "i" $unit | lower))) }}
{{- $bytes = mulf $bytes (ternary 1024 1000 (hasSuffix "i" $unit)) }}
{{- end }}
{{- floor (divf (mulf $bytes .percent) 104857600) | int64 }}
{{- end }}
{{- end }}

{{/* The first lines of every pod's spec. Takes a dict: root, component, values (the component's), spread (whether it has replicas). */}}
{{- define "downloadjobs.pod" -}}
{{- with .root.Values.image.pullSecrets | default .root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $all := dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- range $name, $value := .values.podSecurityContext }}
  {{- if not (kindIs "invalid" $value) }}{{ $_ := set $all $name $value }}{{ end }}
  {{- end }}
  {{- toYaml $all | nindent 2 }}
enableServiceLinks: false
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else if .spread }}
# Over zones and nodes, as well as it can be done.
topologySpreadConstraints:
  {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ $key }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "downloadjobs.selectorLabels" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
  {{- end }}
{{- end }}
{{- end }}

{{/* The labels of a component's pods. Takes a dict: root, component, values. */}}
{{- define "downloadjobs.podLabels" -}}
{{- $own := include "downloadjobs.selectorLabels" . | fromYaml }}
{{- toYaml (merge $own (.values.podLabels | default dict)) }}
{{- end }}

{{/* The environment that a component's values add. */}}
{{- define "downloadjobs.extraEnv" -}}
{{- with .extraEnv }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* The security context of every container. */}}
{{- define "downloadjobs.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* The environment by `settings`. Takes a dict: root, settings (the component's). */}}
{{- define "downloadjobs.settings" -}}
{{- $all := merge (dict) (.settings | default dict) (.root.Values.settings | default dict) }}
{{- range $name, $value := $all }}
{{- if not (kindIs "invalid" $value) }}
- name: {{ $name }}
  {{- if kindIs "float64" $value }}
  {{- /* Helm reads 16777216 as a floating number, and would write 1.6777216e+07. */}}
  value: {{ if eq $value (floor $value) }}{{ int64 $value | toString | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
  {{- else if or (kindIs "map" $value) (kindIs "slice" $value) }}
  value: {{ toJson $value | quote }}
  {{- else }}
  value: {{ $value | toString | quote }}
  {{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where a component sends traces and faults. Takes a dict: root, component. */}}
{{- define "downloadjobs.telemetryEnv" -}}
{{- with .root.Values.telemetry.otlp }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
{{- if .headersSecret }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom:
    secretKeyRef: {name: {{ .headersSecret }}, key: {{ .headersKey }}}
{{- end }}
{{- end }}
{{- end }}
{{- with .root.Values.telemetry.sentry }}
{{- if .existingSecret }}
- name: SENTRY_DSN
  valueFrom:
    secretKeyRef: {name: {{ .existingSecret }}, key: {{ .dsnKey }}}
{{- end }}
{{- end }}
{{- if and (eq .component "api") .root.Values.telemetry.traceUrlTemplate }}
- name: TRACE_URL_TEMPLATE
  value: {{ .root.Values.telemetry.traceUrlTemplate | quote }}
{{- end }}
{{- end }}

{{/* The Service of the bundled Redis. */}}
{{- define "downloadjobs.redisName" -}}
{{- include "downloadjobs.fullname" . }}-redis
{{- end }}

{{/* The Service of the bundled object store. */}}
{{- define "downloadjobs.s3Name" -}}
{{- include "downloadjobs.fullname" . }}-s3
{{- end }}

{{/* How to reach Redis: environment variables. */}}
{{- define "downloadjobs.redisEnv" -}}
{{- if .Values.bundled.redis.enabled -}}
- name: REDIS_HOST
  value: {{ include "downloadjobs.redisName" . }}
- name: REDIS_PORT
  value: "6379"
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ .Values.bundled.redis.existingSecret | default (include "downloadjobs.redisName" .) }}
      key: password
{{- else }}
{{- with .Values.external.redis }}
{{- if .urlKey -}}
- name: REDIS_URL
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret }}
      key: {{ .urlKey }}
{{- else }}
{{- if .sentinels -}}
- name: REDIS_SENTINELS
  value: {{ join "," .sentinels | quote }}
- name: REDIS_SENTINEL_MASTER
  value: {{ .sentinelMaster | quote }}
{{- else -}}
- name: REDIS_HOST
  value: {{ .host | quote }}
- name: REDIS_PORT
  value: {{ .port | int | quote }}
{{- end }}
{{- with .username }}
- name: REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if .tls }}
- name: REDIS_TLS
  value: "true"
{{- end }}
{{- with .existingSecret }}
- name: REDIS_PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.Values.external.redis.passwordKey }}
{{- end }}
{{- end }}
{{- if .caSecret }}
- name: REDIS_CA_FILE
  value: /etc/downloadjobs-redis-ca/ca.crt
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The buckets' names: environment variables. All that the operator needs of storage. */}}
{{- define "downloadjobs.bucketEnv" -}}
{{- if .Values.bundled.objectStore.enabled -}}
- name: S3_BUCKET_NAME
  value: {{ .Values.bundled.objectStore.bucket }}
{{- else -}}
- name: S3_BUCKET_NAME
  value: {{ .Values.external.s3.bucket | quote }}
{{- with .Values.external.s3.resultsBucket }}
- name: S3_RESULTS_BUCKET
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end }}

{{/* How to reach the object store: environment variables. Takes a dict: root, component (api or worker). */}}
{{- define "downloadjobs.s3Env" -}}
{{- $store := .root.Values.bundled.objectStore }}
{{- $s3 := .root.Values.external.s3 }}
{{- include "downloadjobs.bucketEnv" .root }}
{{- if $store.enabled }}
- name: S3_ENDPOINT
  value: http://{{ include "downloadjobs.s3Name" .root }}:8333
{{- with $store.publicEndpoint }}
- name: S3_PUBLIC_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- $secret := index $store (printf "%sSecret" .component) | default (printf "%s-%s" (include "downloadjobs.s3Name" .root) .component) }}
{{- include "downloadjobs.keyEnv" (dict "prefix" "S3_" "secret" $secret "id" "accessKeyId" "key" "secretAccessKey") | nindent 0 }}
{{- else }}
{{- range $name, $value := dict "S3_ENDPOINT" $s3.endpoint "S3_PUBLIC_ENDPOINT" $s3.publicEndpoint "S3_REGION" $s3.region "S3_FORCE_PATH_STYLE" (toString $s3.forcePathStyle) }}
{{- with $value }}
- name: {{ $name }}
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- if $s3.caSecret }}
- name: S3_CA_FILE
  value: /etc/downloadjobs-s3-ca/ca.crt
{{- end }}
{{- with index $s3 (printf "%sSecret" .component) }}
{{- include "downloadjobs.keyEnv" (dict "prefix" "S3_" "secret" . "id" $s3.accessKeyIdKey "key" $s3.secretAccessKeyKey) | nindent 0 }}
{{- end }}
{{- end }}
{{- end }}

{{/* An access key: environment variables. Takes a dict: prefix, secret, id, key. */}}
{{- define "downloadjobs.keyEnv" -}}
- name: {{ .prefix }}ACCESS_KEY_ID
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .id }}
- name: {{ .prefix }}SECRET_ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}

{{/* What of volumes every process has. Takes a dict: root, storage (whether it reaches the object store). */}}
{{- define "downloadjobs.volumes" -}}
- name: tmp
  emptyDir: {}
{{- if and .root.Values.external.redis.caSecret (not .root.Values.bundled.redis.enabled) }}
- name: redis-ca
  secret:
    secretName: {{ .root.Values.external.redis.caSecret }}
{{- end }}
{{- if and .storage .root.Values.external.s3.caSecret (not .root.Values.bundled.objectStore.enabled) }}
- name: s3-ca
  secret:
    secretName: {{ .root.Values.external.s3.caSecret }}
{{- end }}
{{- end }}

{{/* Where these are mounted. */}}
{{- define "downloadjobs.mounts" -}}
- name: tmp
  mountPath: /tmp
{{- if and .root.Values.external.redis.caSecret (not .root.Values.bundled.redis.enabled) }}
- name: redis-ca
  mountPath: /etc/downloadjobs-redis-ca
  readOnly: true
{{- end }}
{{- if and .storage .root.Values.external.s3.caSecret (not .root.Values.bundled.objectStore.enabled) }}
- name: s3-ca
  mountPath: /etc/downloadjobs-s3-ca
  readOnly: true
{{- end }}
{{- end }}

{{/* The Secrets that the chart is to make, as JSON: by their names, their keys with the lengths of what is in them. */}}
{{- define "downloadjobs.wantedSecrets" -}}
{{- $wanted := dict }}
{{- with .Values.bundled.redis }}
{{- if and .enabled (not .existingSecret) }}
{{- $_ := set $wanted (include "downloadjobs.redisName" $) (dict "password" 32) }}
{{- end }}
{{- end }}
{{- range $component := list "worker" "api" }}
{{- with $.Values.bundled.objectStore }}
{{- if and .enabled (not (index . (printf "%sSecret" $component))) }}
{{- $_ := set $wanted (printf "%s-%s" (include "downloadjobs.s3Name" $) $component) (dict "accessKeyId" 20 "secretAccessKey" 40) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $wanted }}
{{- end }}

{{/*
These Secrets as JSON: by their names, their data. What is there is kept; what is new is made once, so that all templates
see the same. Where nothing can be looked up, nothing may be made, as each rendering would change it: see the checks.
*/}}
{{- define "downloadjobs.secrets" -}}
{{- if not (hasKey .Values "madeSecrets") }}
{{- $made := dict }}
{{- range $name, $keys := include "downloadjobs.wantedSecrets" . | fromJson }}
{{- $there := (lookup "v1" "Secret" $.Release.Namespace $name).data | default dict }}
{{- $data := dict }}
{{- range $key, $length := $keys }}
{{- $_ := set $data $key (index $there $key | default (randAlphaNum (int $length) | b64enc)) }}
{{- end }}
{{- $_ := set $made $name $data }}
{{- end }}
{{- if and .Values.webhooks.enabled (not .Values.webhooks.existingSecret) }}
{{- $name := include "downloadjobs.webhooksName" . }}
{{- $there := (lookup "v1" "Secret" .Release.Namespace $name).data | default dict }}
{{- $_ := set $made $name (include "downloadjobs.webhookKeys" (dict "root" . "there" $there) | fromJson) }}
{{- end }}
{{- $_ := set .Values "madeSecrets" $made }}
{{- end }}
{{- toJson .Values.madeSecrets }}
{{- end }}

{{/* Annotations by which pods are replaced when a Secret that the chart makes changes. Takes a dict: root, secrets (names). */}}
{{- define "downloadjobs.checksums" -}}
{{- $made := include "downloadjobs.secrets" .root | fromJson }}
{{- $mine := dict }}
{{- range .secrets }}
{{- if hasKey $made . }}{{ $_ := set $mine . (index $made .) }}{{ end }}
{{- end }}
{{- if $mine }}
checksum/secrets: {{ toJson $mine | sha256sum }}
{{- end }}
{{- end }}

{{/* Whether the release has a test: with tokens it takes one. */}}
{{- define "downloadjobs.tested" -}}
{{- if and .Values.tests.enabled (or (ne .Values.api.auth.mode "jwt") .Values.tests.tokenSecret) }}true{{ end }}
{{- end }}

{{/*
What is wrong with the values, where their schema cannot tell: a JSON list of sentences. All of them are told at once.
*/}}
{{- define "downloadjobs.faults" -}}
{{- $faults := list }}
{{- range $part := list "redis" "objectStore" "settings" "secrets" "tokens" "workloads" "ways" "operator" "definition" }}
{{- $faults = concat $faults (include (printf "downloadjobs.faults.%s" $part) $ | fromJsonArray) }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "downloadjobs.faults.redis" -}}
{{- $faults := list }}
{{- $redis := .Values.external.redis }}
{{- $named := or $redis.host $redis.sentinels $redis.urlKey }}
{{- if and .Values.bundled.redis.enabled $named }}
{{- $faults = append $faults "external.redis names a server, and bundled.redis.enabled installs another: say bundled.redis.enabled=false" }}
{{- end }}
{{- if not (or .Values.bundled.redis.enabled $named) }}
{{- $faults = append $faults "there is no Redis: give external.redis.host (or sentinels, or urlKey), or bundled.redis.enabled=true" }}
{{- end }}
{{- if and $redis.urlKey (not $redis.existingSecret) }}
{{- $faults = append $faults "external.redis.urlKey is a key of a Secret: name that in external.redis.existingSecret" }}
{{- end }}
{{- if ne (empty $redis.sentinels) (empty $redis.sentinelMaster) }}
{{- $faults = append $faults "give both external.redis.sentinels and external.redis.sentinelMaster, or neither" }}
{{- end }}
{{- with .Values.bundled.redis }}
{{- $limit := include "downloadjobs.bytes" (dig "limits" "memory" "" .resources | toString) | float64 }}
{{- if and .enabled $limit (ge (include "downloadjobs.bytes" .maxMemory | float64) $limit) }}
{{- $faults = append $faults (printf "bundled.redis.maxMemory (%s) must be well below the container's limit (bundled.redis.resources.limits.memory, %v): it would be killed before it says that it is full" .maxMemory .resources.limits.memory) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* The bytes that Redis' 384mb or Kubernetes' 768Mi are, as a number; 0 if it is neither. */}}
{{- define "downloadjobs.bytes" -}}
{{- $units := dict "" 1 "b" 1 "k" 1000 "kb" 1024 "m" 1000000 "mb" 1048576 "g" 1000000000 "gb" 1073741824 "ki" 1024 "mi" 1048576 "gi" 1073741824 "t" 1000000000000 "ti" 1099511627776 }}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" . }}
{{- $unit := trimPrefix $number . | lower }}
{{- if and $number (hasKey $units $unit) }}{{ mulf (float64 $number) (get $units $unit) }}{{ else }}0{{ end }}
{{- end }}

{{- define "downloadjobs.faults.objectStore" -}}
{{- $faults := list }}
{{- $store := .Values.bundled.objectStore }}
{{- $s3 := .Values.external.s3 }}
{{- if and $store.enabled $s3.bucket }}
{{- $faults = append $faults "external.s3 names a bucket, and bundled.objectStore.enabled installs another: say bundled.objectStore.enabled=false" }}
{{- end }}
{{- if not (or $store.enabled $s3.bucket) }}
{{- $faults = append $faults "there is no bucket: give external.s3.bucket, or bundled.objectStore.enabled=true" }}
{{- end }}
{{- if ne (empty $s3.workerSecret) (empty $s3.apiSecret) }}
{{- $faults = append $faults "give both external.s3.workerSecret and external.s3.apiSecret, or neither: without one of them that process looks for the platform's own credentials" }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* Variables that the chart sets itself, and the values that set them: as YAML, by their names. */}}
{{- define "downloadjobs.reserved" -}}
REDIS_URL: external.redis.urlKey and existingSecret, or host
REDIS_HOST: external.redis.host
REDIS_PORT: external.redis.port
REDIS_USERNAME: external.redis.username
REDIS_PASSWORD: external.redis.existingSecret
REDIS_TLS: external.redis.tls
REDIS_CA_FILE: external.redis.caSecret
REDIS_SENTINELS: external.redis.sentinels
REDIS_SENTINEL_MASTER: external.redis.sentinelMaster
S3_BUCKET_NAME: {{ ternary "bundled.objectStore.bucket" "external.s3.bucket" .Values.bundled.objectStore.enabled }}
S3_RESULTS_BUCKET: external.s3.resultsBucket
S3_ENDPOINT: external.s3.endpoint
S3_PUBLIC_ENDPOINT: {{ ternary "bundled.objectStore.publicEndpoint" "external.s3.publicEndpoint" .Values.bundled.objectStore.enabled }}
S3_REGION: external.s3.region
S3_FORCE_PATH_STYLE: external.s3.forcePathStyle
S3_CA_FILE: external.s3.caSecret
S3_ACCESS_KEY_ID: external.s3.workerSecret and apiSecret
S3_SECRET_ACCESS_KEY: external.s3.workerSecret and apiSecret
MINIO_ENDPOINT: external.s3.endpoint
MINIO_PORT: external.s3.endpoint
MINIO_ACCESS_KEY: external.s3.workerSecret and apiSecret
MINIO_SECRET_KEY: external.s3.workerSecret and apiSecret
METRICS_PORT: api.metricsPort and worker.metricsPort
DRAIN_SECONDS: api.drainSeconds and worker.drainSeconds
WORKER_CONCURRENCY: worker.concurrency
WATCH_NAMESPACES: operator.watchNamespaces, or clusterWide
USER_ID_NAMESPACES: operator.userIdNamespaces
MIRROR_API_JOBS: operator.mirrorApiJobs
MIRROR_NAMESPACE: operator.mirrorNamespace
PEERING_NAME: operator.peering.name
PEERING_PRIORITY: operator.peering.priority
AUTOSCALER_FILE: worker.autoscaling
AUTH_MODE: api.auth.mode
JWT_ISSUER: api.auth.jwt.issuer
JWT_AUDIENCE: api.auth.jwt.audience
JWT_USER_CLAIM: api.auth.jwt.userClaim
JWT_JWKS_URL: api.auth.jwt.jwksUrl
JWT_JWKS_FILE: api.auth.jwt.jwksConfigMap
TRUSTED_PROXIES: api.trustedProxies
DASHBOARD_ENABLED: api.dashboard.enabled
DEDUPLICATE_RESULTS: worker.deduplicateResults
OTEL_EXPORTER_OTLP_ENDPOINT: telemetry.otlp.endpoint
OTEL_EXPORTER_OTLP_HEADERS: telemetry.otlp.headersSecret
SENTRY_DSN: telemetry.sentry.existingSecret
TRACE_URL_TEMPLATE: telemetry.traceUrlTemplate
WEBHOOKS_ENABLED: webhooks.enabled
WEBHOOK_SIGNING_KEY_FILE: webhooks.existingSecret
WEBHOOK_PUBLIC_KEY_FILE: webhooks.existingSecret
WEBHOOK_ALLOWED_HOSTS: webhooks.allowedHosts
WEBHOOK_ALLOWED_NETWORKS: webhooks.allowedNetworks
WEBHOOK_PROXY: webhooks.proxy
WEBHOOK_CA_FILE: webhooks.caSecret
{{- range list "PORT" "POD_UID" "POD_NAME" "POD_NAMESPACE" "WORKER_NAME" "OPERATOR_NAMESPACE" "LEADER_ELECTION" "LEADER_LEASE_NAME" "WORKER_DEPLOYMENT" }}
{{ . }}: ""
{{- end }}
{{- end }}

{{- define "downloadjobs.faults.settings" -}}
{{- $faults := list }}
{{- $reserved := include "downloadjobs.reserved" . | fromYaml }}
{{- $places := dict "settings" (keys (.Values.settings | default dict)) }}
{{- range $component := list "api" "worker" "operator" }}
{{- $values := index $.Values $component }}
{{- $_ := set $places (printf "%s.settings" $component) (keys ($values.settings | default dict)) }}
{{- $extra := list }}
{{- range $values.extraEnv }}{{ $extra = append $extra .name }}{{ end }}
{{- $_ := set $places (printf "%s.extraEnv" $component) $extra }}
{{- end }}
{{- range $place, $names := $places }}
{{- range $name := $names | sortAlpha }}
{{- if hasKey $reserved $name }}
{{- $instead := get $reserved $name }}
{{- $faults = append $faults (printf "%s.%s is set by the chart: %s" $place $name (ternary (printf "use %s" $instead) "leave it out" (ne $instead ""))) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "downloadjobs.faults.secrets" -}}
{{- $faults := list }}
{{- $ownKeys := and .Values.webhooks.enabled (not .Values.webhooks.existingSecret) }}
{{- if or $ownKeys (include "downloadjobs.wantedSecrets" . | fromJson) }}
{{- /* A namespace that is there has this account; where it is still to be made, the installer sees `default` too. */}}
{{- if not (or (lookup "v1" "ServiceAccount" .Release.Namespace "default") (lookup "v1" "Service" "default" "kubernetes")) }}
{{- $faults = append $faults "the Secrets of the bundled servers and of webhooks are made once and kept, which takes a cluster to look them up in; helm template, Argo CD and Flux's templates have none. Make them yourself and name them: bundled.redis.existingSecret, bundled.objectStore.workerSecret and apiSecret, webhooks.existingSecret; or use servers of your own, by external.redis and external.s3" }}
{{- end }}
{{- end }}
{{- if .Release.IsUpgrade }}
{{- /* Helm deletes what it made and does not render any more, be its name still in use. */}}
{{- $generated := list (include "downloadjobs.redisName" .) (printf "%s-worker" (include "downloadjobs.s3Name" .)) (printf "%s-api" (include "downloadjobs.s3Name" .)) }}
{{- range $place, $name := dict "bundled.redis.existingSecret" .Values.bundled.redis.existingSecret "bundled.objectStore.workerSecret" .Values.bundled.objectStore.workerSecret "bundled.objectStore.apiSecret" .Values.bundled.objectStore.apiSecret "external.redis.existingSecret" .Values.external.redis.existingSecret "external.s3.workerSecret" .Values.external.s3.workerSecret "external.s3.apiSecret" .Values.external.s3.apiSecret }}
{{- if has $name $generated }}
{{- $there := lookup "v1" "Secret" $.Release.Namespace $name }}
{{- $own := and $there (not (get ($there.metadata.annotations | default dict) "meta.helm.sh/release-name")) }}
{{- if not $own }}
{{- $faults = append $faults (printf "%s names %s, which is what the chart calls a Secret that it makes itself: this upgrade would delete it. Give yours another name, such as my-%s" $place $name ($name | trimPrefix (printf "%s-" (include "downloadjobs.fullname" $)))) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "downloadjobs.faults.tokens" -}}
{{- $faults := list }}
{{- with .Values.api.auth }}
{{- if eq .mode "jwt" }}
{{- if not (and .jwt.issuer .jwt.audience) }}
{{- $faults = append $faults "api.auth.mode is jwt: name api.auth.jwt.issuer and api.auth.jwt.audience" }}
{{- end }}
{{- if eq (empty .jwt.jwksUrl) (empty .jwt.jwksConfigMap) }}
{{- $faults = append $faults "api.auth.mode is jwt: name either api.auth.jwt.jwksUrl or api.auth.jwt.jwksConfigMap" }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "downloadjobs.faults.workloads" -}}
{{- $faults := list }}
{{- if gt (int .Values.worker.autoscaling.min) (int .Values.worker.autoscaling.max) }}
{{- $faults = append $faults "worker.autoscaling.min must not be above worker.autoscaling.max" }}
{{- end }}
{{- with .Values.worker.rollout }}
{{- if and (has (toString .maxSurge) (list "0" "0%")) (has (toString .maxUnavailable) (list "0" "0%")) }}
{{- $faults = append $faults "worker.rollout.maxSurge and worker.rollout.maxUnavailable must not both be 0: no worker could be replaced" }}
{{- end }}
{{- end }}
{{- if eq (int .Values.api.metricsPort) 3000 }}
{{- $faults = append $faults "api.metricsPort must not be 3000, where the API itself listens: say another, such as 9090" }}
{{- end }}
{{- with .Values.worker.podDisruptionBudget }}
{{- if and .enabled (has (toString .maxUnavailable) (list "0" "0%")) }}
{{- $faults = append $faults "worker.podDisruptionBudget.maxUnavailable must not be 0: no node with a worker could be drained. Say 1, or 25%" }}
{{- end }}
{{- end }}
{{- with .Values.api.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{- $faults = append $faults "api.autoscaling.minReplicas must not be above api.autoscaling.maxReplicas" }}
{{- end }}
{{- end }}
{{- $alerts := include "downloadjobs.alerts" . | fromJson }}
{{- range $name := .Values.monitoring.prometheusRule.disabled }}
{{- if not (hasKey $alerts $name) }}
{{- $faults = append $faults (printf "monitoring.prometheusRule.disabled names the alert %s, and there is none; there are %s" $name (keys $alerts | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* The pages of all alerts, by their names in the values: JSON. */}}
{{- define "downloadjobs.alerts" -}}
{{- $pages := dict }}
{{- range $path, $_ := .Files.Glob "files/alerts/*.yaml" }}
{{- $page := base $path | trimSuffix ".yaml" }}
{{- $_ := set $pages ($page | camelcase | untitle) $page }}
{{- end }}
{{- toJson $pages }}
{{- end }}

{{- define "downloadjobs.faults.ways" -}}
{{- $faults := list }}
{{- if and .Values.api.ingress.enabled (not .Values.api.ingress.hosts) }}
{{- $faults = append $faults "api.ingress.hosts must name at least one host, such as [downloads.example.com]" }}
{{- end }}
{{- if and .Values.api.httpRoute.enabled (not .Values.api.httpRoute.parentRefs) }}
{{- $faults = append $faults "api.httpRoute.parentRefs must name at least one Gateway, such as [{name: public, namespace: gateways}]" }}
{{- end }}
{{- if and .Values.networkPolicy.enabled (or .Values.api.ingress.enabled .Values.api.httpRoute.enabled) (not .Values.networkPolicy.apiFrom) }}
{{- $faults = append $faults "nothing outside of this namespace may reach the API: name the ingress controller's or gateway's pods in networkPolicy.apiFrom, such as [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}}]" }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{- define "downloadjobs.faults.operator" -}}
{{- $faults := list }}
{{- with .Values.operator }}
{{- if and .clusterWide .watchNamespaces }}
{{- $faults = append $faults "operator.clusterWide watches all namespaces: leave operator.watchNamespaces empty, or say clusterWide: false" }}
{{- end }}
{{- if ne .mirrorApiJobs "none" }}
{{- if not .mirrorNamespace }}
{{- $faults = append $faults "operator.mirrorNamespace must name a namespace for operator.mirrorApiJobs" }}
{{- else if has .mirrorNamespace (.watchNamespaces | default (list $.Release.Namespace)) }}
{{- $faults = append $faults (printf "operator.mirrorNamespace must be a namespace of its own, and %s is a watched one" .mirrorNamespace) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

{{/* About the definition of DownloadJob that the cluster has. */}}
{{- define "downloadjobs.faults.definition" -}}
{{- $faults := list }}
{{- if .Values.crd.enabled }}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" "downloadjobs.downloadjobs.dev" }}
{{- $owner := .metadata.annotations | default dict }}
{{- $name := get $owner "meta.helm.sh/release-name" }}
{{- $namespace := get $owner "meta.helm.sh/release-namespace" }}
{{- if .metadata.deletionTimestamp }}
{{- $faults = append $faults "the definition of DownloadJob is being deleted, and waits for DownloadJobs whose finalizers nobody takes away: `kubectl get downloadjobs --all-namespaces` lists them, docs/install.md (Remove) says how they go. Install when it is gone" }}
{{- else if not (and (eq $name $.Release.Name) (eq $namespace $.Release.Namespace)) }}
{{- $faults = append $faults (printf "the definition of DownloadJob is there already, and %s: say crd.enabled=false, and leave it to them; one definition serves all installations" (ternary (printf "belongs to the release %s in the namespace %s" $name $namespace) "somebody else installed it, not by Helm" (ne $name ""))) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $faults }}
{{- end }}

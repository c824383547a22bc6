{{/* The Secret with the keys for webhooks: signing.pem and public.pem. */}}
{{- define "downloadjobs.webhooksName" -}}
{{- .Values.webhooks.existingSecret | default (printf "%s-webhooks" (include "downloadjobs.fullname" .)) }}
{{- end }}

{{/*
The keys that the chart makes, as JSON: those that are there, else new ones. The public half is in a certificate, because
a template can derive it no other way; it is the API's, which never gets the private one. Takes a dict: root, there.
*/}}
{{- define "downloadjobs.webhookKeys" -}}
{{- $private := index .there "signing.pem" | default (genPrivateKey "ed25519" | b64enc) }}
{{- $public := index .there "public.pem" | default ((genSelfSignedCertWithKey "webhooks" nil nil 36500 ($private | b64dec)).Cert | b64enc) }}
{{- dict "signing.pem" $private "public.pem" $public | toJson }}
{{- end }}

{{/* The environment by `webhooks`, as the api, the worker and the operator have it. Takes a dict: root, component. */}}
{{- define "downloadjobs.webhooksEnv" -}}
{{- with .root.Values.webhooks }}
{{- if .enabled }}
{{- if eq $.component "worker" }}
- name: WEBHOOK_SIGNING_KEY_FILE
  value: /etc/downloadjobs-webhooks/signing.pem
{{- with .proxy }}
- name: WEBHOOK_PROXY
  value: {{ . | quote }}
{{- end }}
{{- if .caSecret }}
- name: WEBHOOK_CA_FILE
  value: /etc/downloadjobs-webhooks-ca/ca.crt
{{- end }}
{{- else if eq $.component "api" }}
- name: WEBHOOK_PUBLIC_KEY_FILE
  value: /etc/downloadjobs-webhooks/public.pem
{{- else }}
- name: WEBHOOKS_ENABLED
  value: "true"
{{- end }}
{{- with .allowedHosts }}
- name: WEBHOOK_ALLOWED_HOSTS
  value: {{ join "," . | quote }}
{{- end }}
{{- with .allowedNetworks }}
- name: WEBHOOK_ALLOWED_NETWORKS
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* Its half of the keys, and nothing else of the Secret. Takes a dict: root, component. */}}
{{- define "downloadjobs.webhooksVolumes" -}}
{{- if .root.Values.webhooks.enabled }}
{{- $key := ternary "signing.pem" "public.pem" (eq .component "worker") }}
- name: webhooks
  secret:
    secretName: {{ include "downloadjobs.webhooksName" .root }}
    items: [{key: {{ $key }}, path: {{ $key }}}]
{{- if and (eq .component "worker") .root.Values.webhooks.caSecret }}
- name: webhooks-ca
  secret:
    secretName: {{ .root.Values.webhooks.caSecret }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where these are mounted. Takes a dict: root, component. */}}
{{- define "downloadjobs.webhooksMounts" -}}
{{- if .root.Values.webhooks.enabled }}
- name: webhooks
  mountPath: /etc/downloadjobs-webhooks
  readOnly: true
{{- if and (eq .component "worker") .root.Values.webhooks.caSecret }}
- name: webhooks-ca
  mountPath: /etc/downloadjobs-webhooks-ca
  readOnly: true
{{- end }}
{{- end }}
{{- end }}

{{/* Where webhooks may go: HTTPS of the world, without its private and special parts, and networks that are named. */}}
{{- define "downloadjobs.webhooksEgress" -}}
- ports:
    - {protocol: TCP, port: 443}
  to:
    - ipBlock:
        cidr: 0.0.0.0/0
        except:
          - 0.0.0.0/8
          - 10.0.0.0/8
          - 100.64.0.0/10
          - 127.0.0.0/8
          - 169.254.0.0/16
          - 172.16.0.0/12
          - 192.0.0.0/24
          - 192.168.0.0/16
          - 198.18.0.0/15
          - 224.0.0.0/3
    - ipBlock: {cidr: "2000::/3"}
    - ipBlock: {cidr: "64:ff9b::/96"}
    {{- range .Values.webhooks.allowedNetworks }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end }}

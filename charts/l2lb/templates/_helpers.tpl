{{/* The name of everything begins with this. */}}
{{- define "l2lb.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains "l2lb" .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-l2lb" (.Release.Name | trunc 35 | trimSuffix "-") -}}
{{- end -}}
{{- end -}}

{{/* Labels of an object of a component: a list of the root and the component's name, which may be empty. */}}
{{- define "l2lb.labels" -}}
{{- $root := index . 0 -}}
{{- with $root.Values.labels }}
{{- toYaml . }}
{{ end -}}
{{ include "l2lb.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The labels that select the pods of a component. */}}
{{- define "l2lb.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: l2lb
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* The image of a component: a list of the root and the component's values. */}}
{{- define "l2lb.image" -}}
{{- $root := index . 0 -}}
{{- $image := (index . 1).image -}}
{{- with $root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $root.Values.image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{/* The ServiceAccount of a component: a list of the root, the component's name and its values. */}}
{{- define "l2lb.serviceAccount" -}}
{{- (index . 2).serviceAccountName | default (printf "%s-%s" (include "l2lb.fullname" (index . 0)) (index . 1)) -}}
{{- end -}}

{{/* The ServiceAccount that the controller runs as, as the API server names it. */}}
{{- define "l2lb.controllerUser" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "l2lb.serviceAccount" (list . "controller" .Values.controller) }}
{{- end -}}

{{/* The Secret with the webhook's certificate. The one that the webhook fills is
the release's, and helm deletes it when somebody else is to make the certificate:
whatever the others fill has another name. */}}
{{- define "l2lb.certificateSecret" -}}
{{- $certificate := .Values.webhook.certificate -}}
{{- $name := printf "%s-webhook" (include "l2lb.fullname" .) -}}
{{- $own := printf "%s-certificate" $name -}}
{{- if eq $certificate.from "self" -}}
{{- $certificate.secretName | default $own -}}
{{- else if eq $certificate.secretName $own -}}
{{- fail (printf "webhook.certificate.secretName: %s is the Secret of webhook.certificate.from=self, which helm deletes when that changes: choose another name" $own) -}}
{{- else -}}
{{- $certificate.secretName | default (printf "%s-tls" $name) -}}
{{- end -}}
{{- end -}}

{{- define "l2lb.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* What the pods of both components have in common: a list of the root, the component's name and its values. */}}
{{- define "l2lb.podSpec" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $values := index . 2 -}}
automountServiceAccountToken: true
enableServiceLinks: false
{{- with $root.Values.podSecurityContext }}
securityContext:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{ toYaml . }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if $values.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with $values.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" (default false $values.hostNetwork)) }}
dnsPolicy: {{ . }}
{{- end }}
{{- with $values.dnsConfig }}
dnsConfig:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector:
{{ toYaml . | indent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations:
{{ toYaml . }}
{{- end }}
{{- with $values.topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
{{- $constraint := . }}
{{- if not .labelSelector }}
{{- $own := dict "matchLabels" (include "l2lb.selector" (list $root $name) | fromYaml) }}
{{- $constraint = mergeOverwrite (dict) . (dict "labelSelector" $own) }}
{{- end }}
{{ list $constraint | toYaml }}
{{- end }}
{{- end }}
affinity:
{{- if $values.affinity }}
{{ toYaml $values.affinity | indent 2 }}
{{- else if $values.hostNetwork }}
  podAntiAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
{{ include "l2lb.selector" (list $root $name) | indent 10 }}
{{- else }}
  podAntiAffinity:
    preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
{{ include "l2lb.selector" (list $root $name) | indent 12 }}
{{- end }}
{{- end -}}

{{/* The metadata of a component's pods: as l2lb.podSpec. */}}
{{- define "l2lb.podMetadata" -}}
{{- $root := index . 0 -}}
{{- $name := index . 1 -}}
{{- $values := index . 2 -}}
{{- with $values.podAnnotations }}
annotations:
{{ toYaml . | indent 2 }}
{{- end }}
labels:
{{- with mergeOverwrite (dict) $root.Values.labels $values.podLabels }}
{{ toYaml . | indent 2 }}
{{- end }}
{{ include "l2lb.selector" (list $root $name) | indent 2 }}
{{- end -}}

{{/* The rules by which both components learn which kinds there are, and what the installed MetalLB can do. */}}
{{- define "l2lb.definitionRules" }}
# Which kinds there are, and by four of MetalLB's what the installed one can do.
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  verbs: [list, watch]
- apiGroups: [apiextensions.k8s.io]
  resources: [customresourcedefinitions]
  resourceNames:
  - bgppeers.metallb.io
  - ipaddresspools.metallb.io
  - l2advertisements.metallb.io
  - servicel2statuses.metallb.io
  verbs: [get]
{{- end }}

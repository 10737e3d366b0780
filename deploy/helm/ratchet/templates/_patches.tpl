{{- /* What the values change in the objects of files/. Each of these changes the object in place and prints nothing. */}}

{{- define "ratchet.pod" }}
{{- $pod := .pod }}
{{- $container := first $pod.containers }}
{{- with .values.image }}{{ $_ := set $container "image" . }}{{ end }}
{{- with .values.imagePullPolicy }}{{ $_ := set $container "imagePullPolicy" . }}{{ end }}
{{- with .values.imagePullSecrets }}{{ $_ := set $pod "imagePullSecrets" . }}{{ end }}
{{- end }}

{{- /* The same for the agent and the controller, of which `own` are the values. */}}
{{- define "ratchet.program" }}
{{- $pod := .object.spec.template.spec }}
{{- $container := first $pod.containers }}
{{- include "ratchet.pod" (dict "pod" $pod "values" .values) }}
{{- with .values.logLevel }}
{{- $_ := set $container "env" (append ($container.env | default list) (dict "name" "RATCHET_LOG" "value" .)) }}
{{- end }}
{{- with .own.resources }}{{ $_ := set $container "resources" . }}{{ end }}
{{- if kindIs "slice" .own.tolerations }}{{ $_ := set $pod "tolerations" .own.tolerations }}{{ end }}
{{- end }}

{{- define "ratchet.agent" }}
{{- $own := .values.agent }}
{{- include "ratchet.program" (dict "object" .object "values" .values "own" $own) }}
{{- $pod := .object.spec.template.spec }}
{{- $container := first $pod.containers }}
{{- $args := $container.args }}
{{- if eq $own.networkConfig "none" }}{{ $args = without $args "--install" }}{{ end }}
{{- with $own.parentInterface }}{{ $args = append $args (printf "--parent-interface=%s" .) }}{{ end }}
{{- with $own.mtu }}{{ $args = append $args (printf "--mtu=%d" (int .)) }}{{ end }}
{{- $_ := set $container "args" $args }}
{{- range $volume := $pod.volumes }}
{{- $path := get (dict "configs" $own.cniDir "programs" $own.cniBinDir) $volume.name }}
{{- with $path }}{{ $_ := set $volume.hostPath "path" . }}{{ end }}
{{- end }}
{{- end }}

{{- define "ratchet.controller" }}
{{- $own := .values.controller }}
{{- include "ratchet.program" (dict "object" .object "values" .values "own" $own) }}
{{- if not (kindIs "invalid" $own.replicas) }}{{ $_ := set .object.spec "replicas" (int $own.replicas) }}{{ end }}
{{- if .values.meshnet.enabled }}
{{- $container := first .object.spec.template.spec.containers }}
{{- $_ := set $container "args" (append $container.args "--meshnet") }}
{{- end }}
{{- end }}

{{- /* What values.schema.json cannot say so that a person understands it. */}}
{{- define "ratchet.check" }}
{{- if not (regexMatch "^([^[:space:]@]+(:[[:word:]][[:word:].-]*|@sha256:[0-9a-f]{64}))?$" .image) }}
{{- fail (printf "image: expected a name with a tag or a digest, such as registry.example/ratchet:1.0.0, not %q" .image) }}
{{- end }}
{{- range $key := list "cniDir" "cniBinDir" }}
{{- $path := get $.agent $key }}
{{- if not (regexMatch "^(/[^/]+)*$" $path) }}
{{- fail (printf "agent.%s: expected the full path of a directory, not %q" $key $path) }}
{{- end }}
{{- end }}
{{- if not (regexMatch "^[^/:%[:space:]]*$" .agent.parentInterface) }}
{{- fail (printf "agent.parentInterface: expected the name of an interface, not %q" .agent.parentInterface) }}
{{- end }}
{{- end }}

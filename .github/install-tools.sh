#!/usr/bin/env bash
# Installs programs that workflows need, with Go, which checks what it downloads against its public list of sums.
#
#   .github/install-tools.sh NAME...     their versions stand below; TOOLS=folder, by default in the home
set -euo pipefail

declare -A packages=(
    [actionlint]=github.com/rhysd/actionlint/cmd/actionlint@v1.7.12
    [helm]=helm.sh/helm/v4/cmd/helm@v4.3.1
    [helm3]=helm.sh/helm/v3/cmd/helm@v3.22.0
    [kind]=sigs.k8s.io/kind@v0.32.0
    # The last with nodes of the oldest Kubernetes that the chart takes.
    [kind-0.31]=sigs.k8s.io/kind@v0.31.0
    [kubeconform]=github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
    # Upstream's last commit: it has no tags that Go knows.
    [minio]=github.com/minio/minio@v0.0.0-20260212201848-7aac2a2c5b7c
)
folder=${TOOLS:-$HOME/.local/downloadjobs-tools}
mkdir -p "$folder"
for name in "$@"; do
    package=${packages[$name]?there is no tool "$name" here}
    echo "$package"
    CGO_ENABLED=0 GOBIN=$folder go install "$package"
done
[[ -z ${GITHUB_PATH:-} ]] || echo "$folder" >>"$GITHUB_PATH"

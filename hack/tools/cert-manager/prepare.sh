#!/usr/bin/env bash
# Runs in the build folder before the build: takes the definitions out of the
# module, without the labels that its chart fills in.
set -euo pipefail

module=$(go mod download -json github.com/cert-manager/cert-manager |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
mkdir -p crds
for file in "$module"/deploy/crds/crd-*.yaml; do
    grep -v '{{' "$file" | sed 's/^  labels:$/  labels: {}/' >"crds/${file##*/}"
done

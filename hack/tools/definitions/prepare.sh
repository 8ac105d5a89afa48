#!/usr/bin/env bash
# Runs in the build folder before the build: takes the definitions out of the
# modules that go.mod names.
set -euo pipefail

folder() {
    go mod download -json "$1" | sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p'
}

mkdir -p crds
operator=$(folder github.com/prometheus-operator/prometheus-operator)/example/prometheus-operator-crd
certificates=$(folder github.com/cert-manager/cert-manager)/deploy/crds
cp "$operator"/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml \
    "$certificates"/cert-manager.io_{certificates,issuers}.yaml crds/
chmod u+w crds/*

#!/usr/bin/env bash
# Runs in the build folder before go.mod is used.
#
# MetalLB 0.16.2 needs github.com/metallb/frr-k8s v0.0.27, which the module
# proxy does not serve. v0.0.26 lacks one type, used for BGP's AS path
# prepending only; a copy of it gains that type. Layer 2 code is untouched.
set -euo pipefail

source_dir=$(cd / && go mod download -json github.com/metallb/frr-k8s@v0.0.26 |
    sed -n 's/^[[:space:]]*"Dir": "\(.*\)",*$/\1/p')
rm -rf frr-k8s
mkdir frr-k8s
cp -r "$source_dir"/. frr-k8s/
chmod -R u+w frr-k8s

types=frr-k8s/api/v1beta1/frrconfiguration_types.go
# The backquotes are Go's.
# shellcheck disable=SC2016
sed -i '/^type Advertise struct {$/a\
	PrefixesWithAsPathPrepend []AsPathPrependPrefixes `json:"withAsPathPrepend,omitempty"`\
' "$types"
cat >>"$types" <<'GO'

// AsPathPrependPrefixes is a list of prefixes advertised with a longer AS path.
type AsPathPrependPrefixes struct {
	AsPathPrepend uint8    `json:"asPathPrepend,omitempty"`
	Prefixes      []string `json:"prefixes,omitempty"`
}
GO

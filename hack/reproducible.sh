#!/usr/bin/env bash
# Builds the release of this commit twice, here and in a clone in another
# folder with another target folder, and compares every artefact.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ -n $(git status --porcelain) ]]; then
    echo 'reproducible.sh: files differ from the commit, and a clone would not have that: commit them first' >&2
    exit 1
fi
target=${CARGO_TARGET_DIR:-target}
places=(--url https://downloads.example.org/l2lb --registry registry.example.org/l2lb)
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT

here=$(realpath "$target")/reproducible
"$target/debug/l2lb-release" all "${places[@]}" --to "$here"

git clone --quiet . "$other/elsewhere"
(
    cd "$other/elsewhere"
    export CARGO_TARGET_DIR=$other/built
    # Its own program: it knows the repository that it was built in.
    cargo build --package l2lb-release
    "$other/built/debug/l2lb-release" all "${places[@]}" --to "$other/dist"
)

if ! diff --recursive --brief "$here" "$other/dist"; then
    mkdir -p "$target/reproducible-other"
    cp -r "$other/dist/." "$target/reproducible-other"
    echo "reproducible.sh: these differ; they are in $here and $(realpath "$target/reproducible-other")" >&2
    exit 1
fi
cat "$here/SHA256SUMS"
echo "both builds gave the same $(wc -l <"$here/SHA256SUMS") artefacts"

#!/usr/bin/env bash
# Runs cargo-deny, which is built the first time and kept in a cache outside
# the repository, as build.sh does with the lab's programs.
#
#   cargo-deny.sh [ARGUMENT...]
#
# Environment:
#   L2LB_CACHE    where to keep things (default: ~/.cache/l2lb)
set -euo pipefail

version=0.20.2
cache=${L2LB_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/l2lb}/tools
folder=$cache/cargo-deny-$version
heartbeat=10 # seconds between signs of life while it is built

say() {
    printf '  %4ds  cargo-deny: %s\n' "$SECONDS" "$*" >&2
}

build() {
    local log=$cache/cargo-deny.log pid ticks=0 crates
    rm -rf "$folder.work"
    say "building version $version"
    # Flags and folders of the caller's own build are not for this one.
    env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS -u CARGO_BUILD_TARGET \
        CARGO_TARGET_DIR="$folder.work/target" \
        cargo install cargo-deny --locked --version "$version" --debug --root "$folder.work/out" \
        >"$log" 2>&1 &
    pid=$!
    while kill -0 "$pid" 2>/dev/null; do
        sleep 0.2
        ticks=$((ticks + 1))
        if ((ticks % (heartbeat * 5) == 0)); then
            crates=$(grep -c ' Compiling ' "$log" || true)
            say "still compiling, $crates crates so far"
        fi
    done
    if ! wait "$pid"; then
        tail -n 30 "$log" >&2
        printf 'cargo-deny.sh: cargo-deny %s could not be built (the whole output: %s)\n' "$version" "$log" >&2
        exit 1
    fi
    mv "$folder.work/out" "$folder"
    rm -rf "$folder.work"
    say "done"
}

if [[ ! -x $folder/bin/cargo-deny ]]; then
    command -v flock >/dev/null || {
        echo 'cargo-deny.sh: flock is missing: install util-linux' >&2
        exit 1
    }
    mkdir -p "$cache"
    exec 9>"$cache/cargo-deny.lock"
    if ! flock --nonblock 9; then
        say "waiting for another build of it"
        flock 9
    fi
    [[ -x $folder/bin/cargo-deny ]] || build
    exec 9>&-
fi
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec "$folder/bin/cargo-deny" "$@"

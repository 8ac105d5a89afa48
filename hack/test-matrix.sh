#!/usr/bin/env bash
# Everything that `make test` leaves out because it takes long: each MetalLB
# that people run, and the whole lab suite on an older Kubernetes.
set -euo pipefail
cd "$(dirname "$0")/.."

older_kubernetes=1.33.13

mapfile -t versions < <(hack/tools/build.sh --list | sed -n 's/^metallb-//p')
echo "MetalLB: ${versions[*]}; Kubernetes: the newest and $older_kubernetes"
hack/tools/build.sh kubernetes "kubernetes-$older_kubernetes" helm "${versions[@]/#/metallb-}"
# The programs that the trials start.
cargo build --workspace --bins

# With --workspace, as everything else is built: other features would be
# another build of every dependency.
L2LB_TEST_METALLB=all cargo test --workspace --no-fail-fast --test versions --test nodes --test neighbours
L2LB_LAB_KUBERNETES=$older_kubernetes cargo test --workspace --tests --no-fail-fast
echo "the whole matrix passed"

#!/usr/bin/env bash
# Everything that `make test` leaves out because it takes long: each MetalLB
# that people run, the whole lab suite on an older Kubernetes, and cert-manager.
set -euo pipefail
cd "$(dirname "$0")/.."

older_kubernetes=1.33.13

mapfile -t versions < <(hack/tools/build.sh --list | sed -n 's/^metallb-//p')
echo "MetalLB: ${versions[*]}; Kubernetes: the newest and $older_kubernetes"
hack/tools/build.sh kubernetes "kubernetes-$older_kubernetes" helm cert-manager "${versions[@]/#/metallb-}"
# The programs that the trials start, and the images that one of them runs.
# With every target: their features, as the tests have them.
cargo build --workspace --all-targets
"${CARGO_TARGET_DIR:-target}/debug/l2lb-release" image

# With --workspace, as everything else is built: other features would be
# another build of every dependency. What fails in one half is no reason to
# leave the other out.
failed=
L2LB_TEST_METALLB=all cargo test --workspace --no-fail-fast --test versions --test nodes --test neighbours ||
    failed+=' every-MetalLB'
L2LB_TEST_MATRIX=1 L2LB_LAB_KUBERNETES=$older_kubernetes cargo test --workspace --tests --no-fail-fast ||
    failed+=" Kubernetes-$older_kubernetes"
if [[ -n $failed ]]; then
    echo "test-matrix.sh: failed:$failed" >&2
    exit 1
fi
echo "the whole matrix passed"

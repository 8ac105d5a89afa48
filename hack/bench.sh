#!/usr/bin/env bash
# Measures the planner with criterion, then the fan-out in a lab, and puts
# everything beside its baseline and target.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo bench --package l2lb --bench plan
cargo build --release --package l2lb --bins
cargo build --release --package l2lb-bench --package l2lb-lab
exec "${CARGO_TARGET_DIR:-target}/release/l2lb-bench"

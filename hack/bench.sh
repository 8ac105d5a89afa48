#!/usr/bin/env bash
# Measures the planner with criterion, then the fan-out in a lab, and puts
# everything beside its baseline and target.
set -euo pipefail
cd "$(dirname "$0")/.."
# This builds the controller that the lab runs, too: cargo makes a package's
# programs, with the same optimisation, whenever it makes its benchmarks.
cargo bench --package l2lb --bench plan
# What only conducts the lab need not be fast.
cargo build --workspace --bins
exec "${CARGO_TARGET_DIR:-target}/debug/l2lb-bench"

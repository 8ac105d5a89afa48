# The two commands of the README: `make demo` and `make test`.

CARGO ?= cargo
SHELL := /bin/bash
# Programs are run from here, not by `cargo run -p`, which would compile them
# anew, in silence, with the features of that package alone.
BIN := $(or $(CARGO_TARGET_DIR),target)/debug

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

.PHONY: tools
tools: ## Build etcd, Kubernetes, helm and MetalLB for the lab (cached; about 20 minutes the first time, on two cores)
	@hack/tools/system-packages.sh
	@hack/tools/build.sh

# What the demo and a lab of the usual MetalLB (METALLB in hack/lab) consist of.
.PHONY: lab-tools
lab-tools:
	@hack/tools/system-packages.sh
	@hack/tools/build.sh kubernetes helm metallb-0.16.2

# What renders a release's plain manifests: before the long builds, as it needs Go.
.PHONY: helm
helm:
	@hack/tools/build.sh helm

# What the tests need besides.
.PHONY: test-packages
test-packages:
	@hack/tools/system-packages.sh --tests

.PHONY: build
build: ## Build every program
	$(CARGO) build --workspace --bins

.PHONY: demo
demo: lab-tools build ## Show the main job on a real cluster on this machine
	@$(BIN)/l2lb-demo

.PHONY: lab
lab: lab-tools build ## A shell in a real cluster with MetalLB and l2lb-controller to play with
	@$(BIN)/l2lb-lab shell

.PHONY: test
test: test-packages tools ## Everything that must pass: formatting, lints, licences, all tests, generated files
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	hack/tools/cargo-deny.sh --workspace check licenses bans sources
	$(CARGO) test --workspace --no-run
	@$(BIN)/l2lb-release image
	$(CARGO) test --workspace --no-fail-fast
	@echo "all tests passed"

.PHONY: test-matrix
test-matrix: test-packages tools ## The lab tests with every MetalLB from 0.13.12 on, on an older Kubernetes, and with cert-manager
	hack/test-matrix.sh

.PHONY: bench
bench: tools ## Measure the planner and the time to the first ARP answer; writes target/bench/summary.json
	hack/bench.sh

.PHONY: failover
failover: tools build ## Measure what a node's death does to clients, beside plain MetalLB; writes target/bench/failover.json
	@$(BIN)/l2lb-bench failover

.PHONY: scale
scale: tools build ## Measure what a change of MetalLB's configuration costs among many Services
	@$(BIN)/l2lb-bench scale

.PHONY: image
image: build ## Build the images as OCI layouts, without a container daemon
	@$(BIN)/l2lb-release image

.PHONY: release
release: helm build ## Build everything that a release hands out, into dist/ (URL=..., REGISTRY=...)
	@$(BIN)/l2lb-release all $(if $(URL),--url $(URL)) $(if $(REGISTRY),--registry $(REGISTRY))

.PHONY: reproducible
reproducible: helm build ## Build a release here and in a clone elsewhere, and compare
	hack/reproducible.sh

.PHONY: advisories
advisories: ## Look for known weaknesses of the dependencies (fetches a database from the internet)
	@hack/tools/cargo-deny.sh --workspace fetch db || { echo "the database of advisories could not be fetched: \
	this needs the internet, and make test does without" >&2; exit 1; }
	hack/tools/cargo-deny.sh --workspace check --disable-fetch advisories

.PHONY: generate
generate: ## Write the generated files anew (crds/, docs/reference.md, the chart's README)
	$(CARGO) run -q -p l2lb-generate

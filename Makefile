# The commands of this project. Every one can be repeated; long ones show their progress.
#
# make demo        from a fresh checkout to a policy at work, on a real cluster
# make demo-all    every strategy through every event: promised and measured
# make test        what CI runs: unit, api, replicator, frameworks, e2e
# make check       formatting, lints, generated files, chart

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help

# An error in a test says what is wrong; where it was made is in the assertion's own line.
export RUST_LIB_BACKTRACE := 0

CLUSTER := e2e/cluster/cluster
TIMED := .ci/timed

.PHONY: help
help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo demo-all demo-down
demo: ## Cluster, chart, shop and policy; then users, faults, and what became of every session.
	@e2e/demo
demo-all: ## The shop under every strategy through every event: one table of what was promised and measured.
	@e2e/demo all
demo-down: ## Remove what `make demo` left running.
	@e2e/demo down

.PHONY: test test-unit test-api test-replicator test-frameworks test-e2e test-long
test: ## All tests that CI runs.
	@$(TIMED) unit $(MAKE) --no-print-directory test-unit
	@$(TIMED) api $(MAKE) --no-print-directory test-api
	@$(TIMED) replicator $(MAKE) --no-print-directory test-replicator
	@$(TIMED) frameworks $(MAKE) --no-print-directory test-frameworks
	@$(TIMED) e2e $(MAKE) --no-print-directory test-e2e
test-unit: ## Pure functions, snapshots, CEL rules, simulations, transcripts, the replicator beside redis-server.
	replicator/tests/install redis memcached valkey
	cargo test --workspace --lib --bins --test transcripts --test differential --test mutations -- --skip sim::tests::
	cargo test --package session-replicator --profile sim --lib -- --show-output sim::tests::
test-api: ## The operator against a real etcd and kube-apiserver. ONLY=name picks tests.
	@e2e/stage api $(ONLY)
test-replicator: ## Replicators as real processes with real session handlers.
	replicator/tests/install
	cargo test --workspace --test process --test members --test upstream --test handlers
test-frameworks: ## Presets on real servers with a real store. ONLY=name picks tests; without it, those of PHP and Tomcat.
	@e2e/stage frameworks $(or $(ONLY),php:: tomcat:: sandbox::)
test-e2e: ## The operator on a whole cluster with real ingress controllers. ONLY=name picks tests.
	@e2e/stage e2e $(ONLY)
test-long: ## What does not fit CI's budget: 100,000 simulated clusters and some of hundreds of members, fuzzing, older API servers, Helm 3 and 4.
	cargo sim --seeds 100000
	cargo sim --seeds 20 --members 100
	cargo sim --seeds 4 --members 300
	MUTATIONS=2000000 cargo test --workspace --test mutations
	cargo check --manifest-path replicator/fuzz/Cargo.toml
	@e2e/stage long $(ONLY)

.PHONY: check crds
check: ## Formatting, lints, generated files, chart.
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- --deny warnings
	.ci/generated --check
	.ci/chart
crds: ## Write crds/*.yaml and the chart's copies from the types.
	.ci/generated

.PHONY: bench bench-replicator
bench: bench-replicator ## Size, memory and latency of the operator; the replicator beside Redis and Valkey.
	@e2e/stage bench
bench-replicator: ## Only the replicator.
	replicator/tests/install redis valkey
	cargo bench --package session-replicator

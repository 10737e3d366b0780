# Ratchet. Every target does all of its own set-up; `make demo` and `make test` are the two to know.

CARGO ?= cargo
RATCHET := target/release/ratchet
LAB := cloud-router

.DEFAULT_GOAL := help
.PHONY: help setup-demo setup-test build demo demo-down test fuzz build-bench bench bench-quick check cluster cluster-down test-kubernetes install clean

help: ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

build: ## Build the release binary, target/release/ratchet
	$(CARGO) build --release --locked --package ratchet

demo: setup-demo build ## The article's cloud router on this machine: four pods, two nodes, OSPF, a ping through both routers
	@scripts/demo.sh $(RATCHET) $(LAB)

demo-down: ## Clear the demo away
	@test -x $(RATCHET) || $(MAKE) build
	$(RATCHET) lab down --name $(LAB)

test: setup-test ## Run all tests (as root: they make network namespaces of their own)
	$(CARGO) build --locked --workspace
	$(CARGO) test --locked --workspace --no-fail-fast

ROW ?=
BENCH = target/release/ratchet-bench --ratchet $(RATCHET) $(addprefix --row ,$(ROW))
build-bench: build
	@scripts/setup.sh bench
	$(CARGO) build --release --locked --package ratchet-bench

bench: build-bench ## Measure against the kernel and Debian's plugins, into bench/RESULTS.md (ROW=name: one row, only shown)
	$(BENCH) $(if $(ROW),,--out bench/RESULTS.md)

bench-quick: build-bench ## The same with smaller numbers, in under two minutes, only shown
	$(BENCH) --quick

FUZZ_CASES ?= 1000000
fuzz: ## A million nearly valid inputs for every parser of foreign input (FUZZ_CASES=… for another number)
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --release --locked --test fuzz \
	    --package ratchet-cni --package ratchet-model --package ratchet-protocol
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --release --locked --package ratchet-plugin --lib fuzz_tests

check: setup-test ## Format, lints and tests: what has to pass before a commit
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(MAKE) test

cluster: setup-test build ## A Kubernetes cluster with Ratchet on this machine: two nodes; the first time it is built from source
	@tests/kubernetes/cluster up

cluster-down: ## Clear the cluster away
	@tests/kubernetes/cluster down

test-kubernetes: setup-test build ## The tests on a Kubernetes cluster of their own
	@tests/kubernetes/test

DESTDIR ?=
BINDIR ?= /opt/cni/bin
install: build ## Install the plugin (with its 2017 name for the agent) and the systemd unit
	install -D -m 0755 $(RATCHET) $(DESTDIR)$(BINDIR)/ratchet
	ln -sf ratchet $(DESTDIR)$(BINDIR)/ratchet-child
	install -D -m 0644 deploy/ratchet.service $(DESTDIR)/etc/systemd/system/ratchet.service

clean: ## Remove what was built
	$(CARGO) clean

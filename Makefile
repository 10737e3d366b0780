# Ratchet. Every target does its own set-up; `make demo` and `make test` are the two to know.

CARGO ?= cargo
RATCHET := target/release/ratchet
LAB := cloud-router
# The plugin starts several times a pod, on any node to which it was copied: a static binary has no libraries to find, load and
# relocate there (docs/decisions/0024-the-binary-is-static.md). Only the binary is built this way; what runs during the build
# (macros, build scripts) cannot be.
STATIC := -C target-feature=+crt-static -C relocation-model=static

.DEFAULT_GOAL := help
.PHONY: help setup-demo setup-test build demo demo-down test fuzz simulate build-bench bench bench-quick check cluster cluster-down test-kubernetes install dist image image-multi build-arm64 test-arm64 manifests clean

help: ## Show this
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup-demo:
	@scripts/setup.sh demo

setup-test:
	@scripts/setup.sh test

build: ## Build the release binary, target/release/ratchet
	$(CARGO) rustc --release --locked --package ratchet --bin ratchet -- $(STATIC)

demo: setup-demo build ## The article's cloud router on this machine: four pods, two nodes, OSPF, a ping through both routers
	@scripts/demo.sh $(RATCHET) $(LAB)

demo-down: ## Remove the demo
	@test -x $(RATCHET) || $(MAKE) build
	$(RATCHET) lab down --name $(LAB)

# The Kubernetes tests use the binary without the failpoints of the other tests. On a new machine Kubernetes must be built
# first: that starts early, in the background.
test: setup-test ## Run all tests (as root: they make network namespaces of their own)
	@tests/kubernetes/build/programs --ahead
	@tests/kubernetes/build/tool --ahead helm multus network-status
	$(CARGO) build --locked --workspace
	$(CARGO) rustc --locked --package ratchet --bin ratchet -- $(STATIC)
	@install -D target/debug/ratchet target/kubernetes/ratchet
	@status=0; \
	$(CARGO) test --locked --workspace --no-fail-fast || status=1; \
	RATCHET=target/kubernetes/ratchet MESH_SECONDS=30 HOSTILE_CHANGES=300 tests/kubernetes/test || status=1; \
	RATCHET=target/kubernetes/ratchet STORE=kubernetes CHAIN=20 API_SECONDS=20 tests/kubernetes/test || status=1; \
	exit $$status

ROW ?=
BENCH = target/release/ratchet-bench --ratchet $(RATCHET) $(addprefix --row ,$(ROW))
build-bench: build
	@scripts/setup.sh bench
	$(CARGO) build --release --locked --package ratchet-bench

bench: build-bench ## Measure against the kernel and Debian's plugins, into bench/RESULTS.md (ROW=name: one row, only shown)
	$(BENCH) $(if $(ROW),,--out bench/RESULTS.md)
	$(if $(ROW),,scripts/bench-functions.sh bench/RESULTS.md)

bench-quick: build-bench ## The same with smaller numbers, in under two minutes, only shown
	$(BENCH) --quick

FUZZ_CASES ?= 1000000
fuzz: ## A million nearly valid inputs for every parser of foreign input (FUZZ_CASES=… for another number)
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --release --locked --test fuzz \
	    --package ratchet-cni --package ratchet-model --package ratchet-protocol
	PROPTEST_CASES=$(FUZZ_CASES) $(CARGO) test --release --locked --package ratchet-plugin --lib fuzz_tests

EVENTS ?= 1000000
SEED ?=
simulate: ## A cluster in simulation: a million random events (EVENTS=… for another number, SEED=… for the same again)
	EVENTS=$(EVENTS) SEED=$(SEED) $(CARGO) run --release --locked --package ratchet-simulation --example simulate

check: setup-test ## Format, lints and tests: what has to pass before a commit
	$(CARGO) fmt --all --check
	scripts/check-form
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings
	$(MAKE) test

cluster: setup-test build ## A Kubernetes cluster with Ratchet on this machine: two nodes; the first time Kubernetes is built
	@tests/kubernetes/cluster up

cluster-down: ## Remove the cluster
	@tests/kubernetes/cluster down

test-kubernetes: setup-test build ## Only the tests on a Kubernetes cluster of their own, at full length
	@tests/kubernetes/test

DESTDIR ?=
BINDIR ?= /opt/cni/bin
SHAREDIR ?= /usr/share/ratchet
install: build ## Install the plugin (with its 2017 name for the agent), the systemd unit, example configs and RBAC
	install -D -m 0755 $(RATCHET) $(DESTDIR)$(BINDIR)/ratchet
	ln -sf ratchet $(DESTDIR)$(BINDIR)/ratchet-child
	install -D -m 0644 deploy/ratchet.service $(DESTDIR)/etc/systemd/system/ratchet.service
	install -D -m 0644 -t $(DESTDIR)$(SHAREDIR) deploy/10-ratchet.conf deploy/10-ratchet.conflist deploy/rbac.yaml deploy/etcd.yaml
	install -D -m 0755 -t $(DESTDIR)$(SHAREDIR) deploy/etcd-certificates deploy/node-kubeconfig

DIST = ratchet-$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)-linux-$(shell uname -m)
dist: build ## The same files as a tarball, target/ratchet-VERSION-linux-MACHINE.tar.gz, to unpack at / on every node
	@rm -rf target/dist
	@$(MAKE) --no-print-directory install DESTDIR=target/dist
	cd target/dist && find * ! -type d | sort | tar --owner=0 --group=0 -czf ../$(DIST).tar.gz -T -

VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)
IMAGE ?= ratchet.dev/ratchet:$(VERSION)
MACHINE = $(shell uname -m)
ARCHITECTURE = $(patsubst x86_64,amd64,$(patsubst aarch64,arm64,$(MACHINE)))
image: build ## The image of deploy/ratchet.yaml for this machine's architecture, target/image.tar (IMAGE=name:tag)
	scripts/sbom target/$(ARCHITECTURE).cdx.json $(MACHINE)-unknown-linux-gnu
	scripts/image target/image.tar $(IMAGE) $(ARCHITECTURE)=$(RATCHET),target/$(ARCHITECTURE).cdx.json

image-multi: build build-arm64 ## The image for amd64 and arm64, target/image-multi.tar (on amd64)
	scripts/sbom target/amd64.cdx.json x86_64-unknown-linux-gnu
	scripts/sbom target/arm64.cdx.json $(ARM64)
	scripts/image target/image-multi.tar $(IMAGE) amd64=$(RATCHET),target/amd64.cdx.json \
	    arm64=$(RATCHET_ARM64),target/arm64.cdx.json

# Compiler and library are Debian's: apt brings them to machines which do not reach the servers of rustup. Cargo must not mix
# what they make with other builds, hence the directory of its own.
ARM64 := aarch64-unknown-linux-gnu
RATCHET_ARM64 := target/arm64/$(ARM64)/release/ratchet
build-arm64: ## Build the release binary for arm64 (on amd64, with Debian's packages)
	@scripts/setup.sh arm64
	RUSTC=/usr/bin/rustc CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc \
	    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	    $(CARGO) rustc --release --locked --package ratchet --bin ratchet --target $(ARM64) --target-dir target/arm64 -- $(STATIC)

test-arm64: setup-test image-multi ## Run the arm64 binary with qemu, and look into the image for both architectures
	tests/arm64 target/image-multi.tar $(RATCHET_ARM64)

manifests: ## Write what is generated in deploy/ again, after a change of the API's types or of deploy/base
	WRITE=1 $(CARGO) test --locked --package ratchet-api --test crds
	WRITE=1 $(CARGO) test --locked --package ratchet-api --test access one_file
	WRITE=1 $(CARGO) test --locked --package ratchet-api --test chart the_charts_files

clean: ## Remove what was built
	$(CARGO) clean

#!/bin/sh
# Installs what the demo, the tests or the benchmarks need, on Debian or Ubuntu; does nothing if it is all there.
#   setup.sh demo|test|bench|arm64
set -eu

# need FILE PACKAGE: a package, by a file or program that it brings.
missing=
need() { [ -e "$1" ] || command -v "$1" >/dev/null 2>&1 || missing="$missing $2"; }

need cc build-essential
need ip iproute2
need ping iputils-ping
need /usr/lib/frr/zebra frr
need /usr/lib/cni/loopback containernetworking-plugins
if [ "$1" = test ]; then
    need nft nftables
    need python3 python3
    need etcd etcd-server
    need etcdctl etcd-client
    need containerd containerd
    need runc runc
    need /bin/busybox busybox-static
    need openssl openssl
    need jq jq
    need curl curl
    need pgrep procps
    need iptables iptables
fi
if [ "$1" = bench ]; then
    need etcd etcd-server
    need iperf3 iperf3
fi

if [ "$1" = arm64 ]; then
    need /usr/bin/rustc rustc-web
    need /usr/lib/rustlib/aarch64-unknown-linux-gnu/lib libstd-rust-web-dev:arm64
    need aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu
    need /usr/aarch64-linux-gnu/lib/libc.a libc6-dev-arm64-cross
    need qemu-aarch64-static qemu-user-static
fi

if ! command -v cargo >/dev/null 2>&1; then
    echo "cargo is missing: install Rust 1.95 or later, from https://rustup.rs" >&2
    exit 1
fi
[ -z "$missing" ] && exit 0

if [ "$(id -u)" != 0 ]; then
    echo "these packages are missing, and only root can install them:$missing" >&2
    exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
    echo "these packages are missing (Debian's names; install your system's equivalents):$missing" >&2
    exit 1
fi

# Only the programs are needed: this keeps the packages from starting services.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi
echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
[ "$1" != arm64 ] || dpkg --add-architecture arm64
apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
apt-get install -y -qq --no-install-recommends $missing >/dev/null

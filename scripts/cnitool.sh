#!/bin/sh
# Builds `cnitool` of the given versions of the Go CNI library into target/cnitool-VERSION, and prints their paths, one a
# line. What is built already is not built again. Exit status 3: there is no Go toolchain.
#
#   scripts/cnitool.sh 1.1.2 1.2.3 1.3.0
set -eu
cd "$(dirname "$0")/.."
for version in "${@:-1.3.0}"; do
    program=$PWD/target/cnitool-$version
    if [ ! -x "$program" ]; then
        command -v go >/dev/null || { echo "cnitool.sh: no Go toolchain (https://go.dev/dl)" >&2; exit 3; }
        mkdir -p target
        # Built elsewhere and moved into place, as another test may be doing the same.
        build=$(mktemp -d target/cnitool.XXXXXX)
        trap 'rm -rf "$build"' EXIT
        GOBIN=$PWD/$build GOFLAGS=-buildvcs=false go install "github.com/containernetworking/cni/cnitool@v$version" >&2
        mv "$build/cnitool" "$program"
        rm -rf "$build"
    fi
    echo "$program"
done

#!/bin/sh
# Measures single functions (crates/bench/benches) and appends the table to a file: bench-functions.sh bench/RESULTS.md
set -eu

found=$("${CARGO:-cargo}" bench --locked --package ratchet-bench --bench functions)
{
    printf '\n## Functions\n\nOne process, divan; items are links. Throughput that falls with their number would not be linear.\n\n```\n'
    printf '%s\n' "$found" | grep -v '^$'
    printf '```\n'
} >>"$1"
printf '%s\n' "$found"

#!/usr/bin/env bash
# Runs the tests, with nextest where it is installed and with cargo's own runner elsewhere.
# --soak adds what is too long for every day (tests marked `ignored`).
set -euo pipefail
cd "$(dirname "$0")/.."
soak=
[ "${1:-}" = --soak ] && soak=1

if [ "$(id -u)" != 0 ]; then
    echo "The lab's tests make network namespaces and need root; run 'sudo -E make test'." >&2
    exit 1
fi
if cargo nextest --version >/dev/null 2>&1; then
    exec cargo nextest run --cargo-profile ci --workspace ${soak:+--run-ignored all}
fi
# One at a time: each virtual machine wants a core.
exec cargo test --profile ci --workspace -- --test-threads=1 ${soak:+--include-ignored}

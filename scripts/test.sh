#!/usr/bin/env bash
# Everything that must hold: formatting, lints, unit, property, conformance, simulation and end-to-end tests.
#   scripts/test.sh          the fast tier: minutes
#   scripts/test.sh --slow   also what takes longer: long kill loops, long simulations, instructions counted
# Needs a Rust toolchain. Installs the Debian packages the tests use when it may (root, apt-get); otherwise says what
# is missing. Ends with the test runner's own summary.
set -euo pipefail
cd "$(dirname "$0")/.."

slow=0
for arg in "$@"; do
    case "$arg" in
        --slow) slow=1 ;;
        *) echo "usage: scripts/test.sh [--slow]" >&2; exit 2 ;;
    esac
done

say() { printf '\n== %s\n' "$*"; }

# command -> Debian package
need=()
command -v cc >/dev/null || need+=(gcc libc6-dev)
command -v strace >/dev/null || need+=(strace)
command -v prlimit >/dev/null || need+=(util-linux)
if [ ${#need[@]} -gt 0 ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "installing ${need[*]}"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}"
    else
        echo "missing: ${need[*]}. Install with: sudo apt-get install ${need[*]}" >&2
        exit 1
    fi
fi

say "formatting"
cargo fmt --all --check

say "lints"
cargo clippy --workspace --all-targets --locked -- -D warnings

if command -v cargo-deny >/dev/null; then
    say "dependencies"
    cargo deny --offline check bans licenses sources
fi

# Not part of the default build: checked on its own.
say "the feature otel"
cargo clippy -p gatepost --all-targets --features otel --locked -- -D warnings
if command -v cargo-nextest >/dev/null; then
    cargo nextest run -p gatepost --features otel --locked --test it otel::
else
    cargo test -p gatepost --features otel --locked --test it otel::
fi

say "the documentation of gatepost-receiver"
cargo test -p gatepost-receiver --doc --features axum --locked

# Before the tests, whose summary comes last; judged after them.
instructions=0
if [ "$slow" = 1 ]; then
    say "instructions"
    scripts/instructions.sh || instructions=$?
    [ "$instructions" != 3 ] || { echo "skipped: instructions are not counted without what is missing"; instructions=0; }
fi

# Clients made of docs/openapi.json drive the server, where their generators can be had.
say "generators of clients"
if [ -z "${GATEPOST_TEST_CLIENTS:-}" ]; then
    if scripts/clients.sh "$PWD/target/clients"; then
        export GATEPOST_TEST_CLIENTS="$PWD/target/clients"
    else
        echo "SKIPPED: generated clients are not tested"
    fi
fi

say "tests"
[ "$slow" = 1 ] && export GATEPOST_TEST_SLOW=1
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --workspace --locked
else
    cargo test --workspace --locked
fi
exit "$instructions"

#!/usr/bin/env bash
# Instructions on the hot path, counted by Valgrind: matching, rendering, signing, the store, a publish through the API.
#   scripts/instructions.sh           compares with docs/instructions.tsv; more than 5 % above it fails
#   scripts/instructions.sh --update  writes what is counted into docs/instructions.tsv
# Counts belong to a compiler and a target: where these are not the baseline's, nothing fails. After a new toolchain
# update first, then change the code.
# Needs valgrind, and gungraun-runner in the version of Cargo.lock (installed below target/ when it is missing). Without
# them it says so and ends with 3.
set -euo pipefail
cd "$(dirname "$0")/.."

update=0
for arg in "$@"; do
    case "$arg" in
        --update) update=1 ;;
        *) echo "usage: scripts/instructions.sh [--update]" >&2; exit 2 ;;
    esac
done

if ! command -v valgrind >/dev/null; then
    echo "missing: valgrind. Install with: sudo apt-get install valgrind" >&2
    exit 3
fi

baseline=docs/instructions.tsv
if [ "$update" = 0 ] && [ ! -f "$baseline" ]; then
    echo "missing: $baseline, the counts to compare with. Make it with: scripts/instructions.sh --update" >&2
    exit 3
fi

version=$(sed -n '/^name = "gungraun"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
runner=target/gungraun-runner-$version/bin/gungraun-runner
if [ ! -x "$runner" ]; then
    echo "== installing gungraun-runner $version"
    cargo install gungraun-runner --version "=$version" --locked --quiet --root "${runner%/bin/*}" || {
        echo "missing: gungraun-runner $version, and it cannot be installed (is there a network?)" >&2
        exit 3
    }
fi
GUNGRAUN_RUNNER=$PWD/$runner
export GUNGRAUN_RUNNER

counted=$(mktemp)
trap 'rm -f "$counted"' EXIT

# crate, its features -> lines "crate/function case<TAB>instructions"
count() {
    local crate=$1 out
    shift
    # What is not a benchmark's own output says why, when one fails.
    out=$(NO_COLOR=1 cargo bench --locked --quiet -p "$crate" --bench instructions "$@") || {
        printf '%s\n' "$out" >&2
        exit 1
    }
    printf '%s\n' "$out" | awk -v crate="$crate" '
        /^[a-z_]+::/ { split($1, path, "::"); name = path[length(path)]; split($2, id, ":"); next }
        $1 == "Instructions:" { split($2, value, "|"); printf "%s/%s %s\t%s\n", crate, name, id[1], value[1] }
    ' >>"$counted"
}

count gatepost-core
count gatepost-store --features testing
count gatepost-api

with="$(rustc --version | cut -d' ' -f1-2), $(rustc -vV | sed -n 's/host: //p')"
if [ "$update" = 1 ]; then
    {
        echo "# Instructions of each benchmark, all its repetitions together, by scripts/instructions.sh --update."
        echo "# With: $with"
        cat "$counted"
    } >"$baseline"
    echo "written: $baseline"
    exit 0
fi
judged=1
if ! grep -qxF "# With: $with" "$baseline"; then
    judged=0
    echo "the baseline was counted with another compiler than $with: what follows is shown, not judged"
fi

awk -F'\t' -v judged="$judged" '
    /^#/ { next }
    NR == FNR { was[$1] = $2; next }
    {
        seen[$1] = 1
        if (!($1 in was)) { printf "%-62s %11d  new: run scripts/instructions.sh --update\n", $1, $2; bad++; next }
        change = ($2 / was[$1] - 1) * 100
        verdict = change > 5 ? "MORE" : change < -5 ? "less: run scripts/instructions.sh --update" : ""
        printf "%-62s %11d %11d %+7.1f %% %s\n", $1, was[$1], $2, change, verdict
        if (change > 5) bad++
    }
    END {
        for (name in was) if (!(name in seen)) { printf "%-62s is gone: run scripts/instructions.sh --update\n", name; bad++ }
        if (bad) printf "%d not as in %s\n", bad, "docs/instructions.tsv"
        exit bad && judged ? 1 : 0
    }
' "$baseline" "$counted"

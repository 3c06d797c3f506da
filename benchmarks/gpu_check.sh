#!/usr/bin/env bash
# Tests and figures of a GPU, in less than five minutes. From anywhere:
#
#     bash benchmarks/gpu_check.sh                         # on a machine with a GPU
#     bash benchmarks/gpu_check.sh --device cpu --small    # runs the figures on a CPU, in small
#
# It needs a Python with torch and the test tools, no installation and no network. PYTHON names one; otherwise it
# is that of .venv, or python3.
# Output is kept in the folder $OUT if it is set: one log a part, and figures.jsonl. A part that fails
# or exceeds its time does not stop the others; the last lines are all figures and what became of each part.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
python=python3
if [ -x .venv/bin/python ]; then python=.venv/bin/python; fi
python=${PYTHON:-$python}
export PYTHONPATH=. PYTHONDONTWRITEBYTECODE=1
if [ -n "${OUT:-}" ]; then
    mkdir -p "$OUT" || exit 1
else
    OUT=$(mktemp -d)
    trap 'rm -rf "$OUT"' EXIT
fi
export OUT
: >"$OUT/figures.jsonl"

if [ $# -eq 0 ] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "There is no GPU that torch can use, so nothing was checked." \
        "Run the figures on a CPU with: bash benchmarks/gpu_check.sh --device cpu --small" |
        tee "$OUT/summary.log"
    exit 0
fi

TOTAL_SECONDS=290
failed=0
results=""

# part NAME LIMIT COMMAND...: run the command for at most LIMIT seconds and keep its output in NAME.log.
part() {
    local name=$1 limit=$2 began=$SECONDS status result
    shift 2
    local left=$((TOTAL_SECONDS - SECONDS))
    if [ "$limit" -gt "$left" ]; then limit=$left; fi
    echo "=== $name"
    if [ "$limit" -lt 1 ]; then
        result="no time left"
        : >"$OUT/$name.log"
    else
        timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
        status=${PIPESTATUS[0]}
        case $status in
        0) result=passed ;;
        124 | 137) result="timed out" ;;
        *) result="failed, status $status" ;;
        esac
    fi
    if [ "$result" != passed ]; then failed=1; fi
    results+=$(printf '%-12s %4d s  %s' "$name" $((SECONDS - began)) "$result")$'\n'
}

figures() {
    local name=$1 limit=$2
    shift 2
    part "$name" "$limit" "$python" -m benchmarks.bench_gpu "$name" "$@"
}

if [ $# -eq 0 ]; then nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv,noheader; fi
figures environment 40 "$@"
if [ $# -eq 0 ]; then
    part tests 120 "$python" -m pytest -q -m gpu tests/gpu -p no:cacheprovider
fi
figures quality 45 "$@"
figures pass_floor 60 "$@"
figures paper 130 "$@"
figures extract 45 "$@"
figures profile 45 "$@"

{
    echo "=== figures"
    for name in environment quality pass_floor paper extract profile; do
        grep "^$name\." "$OUT/$name.log"
    done
    echo "=== parts"
    printf '%s' "$results"
} >"$OUT/summary"
mv "$OUT/summary" "$OUT/summary.log"
cat "$OUT/summary.log"
exit $failed

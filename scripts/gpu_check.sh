#!/usr/bin/env bash
# Tests and measures on a GPU; docs/gpu.md explains it.
#
#   scripts/gpu_check.sh [--dry-run] [SECTION ...]     sections: tests step run loader profile (default: all)
#   scripts/gpu_check.sh --prepare DATA                fills .gpu for a machine without internet
#
# Each section has a time limit and a log in $OUT (default work/gpu). The end is one table.
# --dry-run goes through the sections on a CPU at the smallest sizes. Its timings are meaningless.
set -uo pipefail
cd "$(dirname "$0")/.."
sections="tests step run loader profile"
carried=${GPU_CARRIED:-.gpu} # wheels and data for a machine without internet, which are copied with the checkout
scratch=${GPU_SCRATCH:-${TMPDIR:-/tmp}/bridle-gpu}
OUT=${OUT:-work/gpu}

fail() {
    echo "gpu_check: $*" >&2
    exit 2
}

prepare() { # DATA: a folder with audio/arabic-speech-commands
    local words=$1/audio/arabic-speech-commands versions="" name python=${PYTHON:-python3.12}
    [ -f "$words/meta.csv" ] || fail "$words/meta.csv: no such file; expected Arabic Speech Commands: meta.csv and opus/"
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null ||
        fail "$python is no Python 3.12; name that of the machine with the GPU: PYTHON=/path/to/python3.12"
    rm -rf "$carried" && mkdir -p "$carried" || exit
    # the training and validation words; a tar takes less space than small files
    awk -F, 'NR > 1 && $5 != "test" { print "opus/" $1 ".opus" }' "$words/meta.csv" |
        tar -C "$words" -cf "$carried/words.tar" meta.csv -T - || exit
    for name in fairseq hydra-core omegaconf antlr4-python3-runtime bitarray soundfile soxr tensorboardx cffi pycparser jiwer rapidfuzz; do
        versions="$versions $(sed -n "s/^\($name==[^ ;]*\).*/\1/p" requirements.lock | tail -n 1)"
    done
    versions="$versions $(grep -oE '(vector-quantize-pytorch|einx|frozendict|loguru|torch-einops-utils)==[0-9.]+' scripts/peers.sh | tr '\n' ' ')"
    "$python" -m venv "$carried/builder" && "$carried/builder/bin/pip" -q install 'pip<24.1' || exit
    # shellcheck disable=SC2086
    "$carried/builder/bin/pip" -q wheel --no-deps -w "$carried/wheels" $versions || exit
    rm -rf "$carried/builder"
    du -sh "$carried"
}

set_up() { # sets `python`
    if [ -d "$carried/wheels" ] && [ -z "$dry" ]; then
        python=$scratch/venv/bin/python
        [ -x "$python" ] || python3 scripts/carried_wheels.py "$carried/wheels" "$scratch/venv" || exit
        [ ! -f "$carried/compiled.tar.gz" ] || [ -d "$TORCHINDUCTOR_CACHE_DIR" ] || tar -C "$scratch" -xzf "$carried/compiled.tar.gz"
    else
        python=${VENV:-.venv}/bin/python
        [ -x "$python" ] || python=$(command -v python3)
    fi
    PATH=$(dirname "$python"):$PATH
    local peers=""
    [ ! -d peers ] || peers=$PWD/peers:
    export PATH PYTHONPATH=$peers$PWD${PYTHONPATH:+:$PYTHONPATH}
    "$python" -c 'from importlib.util import find_spec; find_spec("fairseq") or exit(1)' || fail "$python has no fairseq: run make setup"
    [ -n "$dry" ] || "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' ||
        fail "torch sees no GPU; --dry-run goes through the sections on a CPU"
    if [ -f "$carried/words.tar" ] && [ ! -d "$scratch/words" ]; then
        mkdir "$scratch/words" && tar -C "$scratch/words" -xf "$carried/words.tar" || exit
    fi
    "$python" benchmarks/gpu_data.py "$scratch/data$dry" --words "$scratch/words" $dry >"$OUT/setup.log" 2>&1 ||
        fail "the sounds could not be written: $(tail -n 1 "$OUT/setup.log")"
}

command_of() { # SECTION: its command line, in `command`
    local data=$scratch/data$dry
    case $1 in
    tests)
        command=("$python" -m pytest -q -p no:cacheprovider --durations=10 tests/gpu tests/nn/test_synchronization.py)
        [ -n "$dry" ] || command+=(-n 6 --dist loadfile)
        ;;
    step) command=("$python" benchmarks/gpu_step.py --budget 120 $dry) ;;
    run) command=("$python" benchmarks/gpu_run.py "$data" --work "$scratch/run" --seconds 150 $dry) ;;
    loader) command=("$python" benchmarks/gpu_loader.py "$data" --seconds 45 $dry) ;;
    profile) command=("$python" benchmarks/gpu_profile.py $dry) ;;
    esac
}

limit_of() {
    case $1 in tests) echo 90 ;; step) echo 150 ;; run) echo 180 ;; *) echo 60 ;; esac
}

check() { # SECTION
    local log=$OUT/$1.log limit begin=$SECONDS code
    limit=$(limit_of "$1")
    [ -z "$dry" ] || limit=$((10 * limit))
    command_of "$1"
    timeout --signal=INT --kill-after=10 "$limit" "${command[@]}" >"$log" 2>&1
    code=$?
    sed -n "s/^\(.*UserWarning: \)\{0,1\}= \(.*\)/| $1 | \2 |/p" "$log" >>"$OUT/table.md"
    local summary
    summary=$(grep -E '^[0-9]+ (passed|failed|skipped|error).* in [0-9]' "$log" | tail -n 1)
    [ "$code" != 124 ] && [ "$code" != 137 ] || summary="stopped at its limit of $limit s${summary:+; $summary}"
    echo "| $1 | exit code $code after $((SECONDS - begin)) s | ${summary:-}| |" >>"$OUT/table.md"
    [ "$code" = 0 ] || { failed="$failed $1" && echo "--- $log" && tail -n 25 "$log" | cut -c 1-200; }
}

dry="" chosen=""
while [ $# -gt 0 ]; do
    case $1 in
    --dry-run) dry=--dry-run ;;
    --prepare)
        prepare "${2:?gpu_check: --prepare needs DATA}"
        exit
        ;;
    *)
        case " $sections " in *" $1 "*) chosen="$chosen $1" ;; *) fail "$1: no such section; expected $sections" ;; esac
        ;;
    esac
    shift
done
mkdir -p "$OUT" "$scratch"
OUT=$(cd "$OUT" && pwd)
export OUT TORCHINDUCTOR_CACHE_DIR=$scratch/compiled/inductor TRITON_CACHE_DIR=$scratch/compiled/triton PYTHONUNBUFFERED=1
[ -z "$dry" ] || export BRIDLE_TEST_DEVICE=cpu CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
printf '| section | what | measured | goal |\n|---|---|---|---|\n' >"$OUT/table.md"
failed=""
set_up
for section in ${chosen:-$sections}; do
    check "$section"
done
if [ -z "$dry" ] && [ -d "$scratch/compiled" ]; then # for the next machine: copy it into .gpu
    tar -C "$scratch" -czf "$OUT/compiled.tar.gz" compiled 2>/dev/null
fi
cat "$OUT/table.md"
[ -z "$failed" ] || fail "failed:$failed"

#!/bin/sh
# Runs the tests on every supported Python found on PATH or under pyenv, each in its own environment (.venv-3.X).
set -eu
cd "$(dirname "$0")/.."
summary="" status=0
for version in 3.10 3.11 3.12 3.13; do
    python=""
    for candidate in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/python3; do
        if "$candidate" -c '' 2>/dev/null; then
            python=$candidate
            break
        fi
    done
    if [ -z "$python" ]; then
        summary="$summary$version: not found
"
    elif PYTHON=$python VENV=.venv-$version make --no-print-directory setup && ".venv-$version/bin/python" -m pytest -q -n "${WORKERS:-2}" --dist loadfile --no-loadscope-reorder "$@"; then
        summary="$summary$version: passed
"
    else
        summary="$summary$version: FAILED
" status=1
    fi
done
printf '%s' "$summary"
exit $status

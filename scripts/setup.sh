#!/bin/sh
# Creates or updates the environment (VENV, default .venv) with the locked packages. Does nothing if it is up to date.
# Every downloaded file must have a hash of requirements.lock, also what builds fairseq. PYTHON selects the interpreter.
# Folders in PIP_FIND_LINKS are searched first for wheels: torch may be a CPU build there (locked_requirements.py).
set -eu
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
oldest=3.10 newest=3.13

fail() {
    echo "setup: $*" >&2
    exit 1
}

supported() { # INTERPRETER: succeeds if it runs and its version is supported
    "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

version_of() { # INTERPRETER: prints its version (3.12), or "missing" if it does not run
    "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || echo missing
}

choose_python() {
    if [ -n "${PYTHON:-}" ]; then
        supported "$PYTHON" && echo "$PYTHON" && return
        fail "PYTHON=$PYTHON is Python $(version_of "$PYTHON"), but Python $oldest to $newest is needed."
    fi
    for candidate in python3 python3.12 python3.11 python3.13 python3.10; do
        supported "$candidate" && echo "$candidate" && return
    done
    fail "no Python $oldest to $newest was found (python3 is $(version_of python3)); install one, or name it: PYTHON=/path/to/python make setup"
}

wanted_state() { # what the environment depends on: if this changes, the environment is updated
    pwd
    cksum requirements.lock requirements-cuda.lock setup.py pyproject.toml fairseq_compat/fairseq_compat.pth
}

stamp=$venv/.bridle-setup
if [ -x "$venv/bin/python" ] && [ -n "${PYTHON:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of "$venv/bin/python")" ]; then
    fail "$venv has Python $(version_of "$venv/bin/python"), but PYTHON=$PYTHON is $(version_of "$PYTHON"): remove $venv, or set VENV to another folder."
fi
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$(wanted_state)" ]; then
    exit 0
fi
if [ -f "$stamp" ] && [ "$(head -n 1 "$stamp")" != "$(pwd)" ]; then
    fail "$venv was created in $(head -n 1 "$stamp") and cannot be moved: remove $venv and run this again."
fi

if [ ! -x "$venv/bin/python" ]; then
    python=$(choose_python)
    "$python" scripts/check_build_tools.py
    echo "setup: creating $venv with Python $(version_of "$python")"
    "$python" -m venv "$venv" || fail "'$python -m venv' failed; on Debian and Ubuntu it needs the package python3-venv."
fi
supported "$venv/bin/python" ||
    fail "$venv has Python $(version_of "$venv/bin/python"), but Python $oldest to $newest is needed: remove $venv and run this again."
if ! "$venv/bin/python" -m uv --version >/dev/null 2>&1; then
    sed -n '/^uv==/,/[^\\]$/p' requirements.lock >"$venv/uv.txt"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$venv/uv.txt" ||
        fail "uv could not be installed into $venv (see above); if pip is missing, remove $venv and install python3-venv."
fi

"$venv/bin/python" scripts/locked_requirements.py >"$venv/requirements.txt"
set -- # --find-links of each place
for place in ${PIP_FIND_LINKS:-}; do # uv ignores this variable, and fails if a folder does not exist
    case $place in
    *://*) set -- "$@" --find-links "$place" ;;
    *) [ ! -e "$place" ] || set -- "$@" --find-links "$place" ;;
    esac
done
install() {
    "$venv/bin/python" -m uv pip install --quiet --compile-bytecode --python "$venv/bin/python" \
        --build-constraint requirements.lock "$@"
}
echo "setup: installing the locked packages (fairseq is built from source, about 20 s; torch is the large download)"
install --require-hashes -r "$venv/requirements.txt" --constraint requirements-cuda.lock "$@"
install --no-deps -e . # has no hash; the lock has all that it needs
wanted_state >"$stamp"
echo "setup: $venv is ready"
